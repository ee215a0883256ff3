//! Connections that are many, silent or slow.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Served, rest};
use crate::program::until;

/// Who sends bytes, one at a time, that never become a request.
struct Slow {
    stream: TcpStream,
    bytes: &'static [u8],
    sent: usize,
    /// How long it was heard out.
    closed: Option<Duration>,
}

impl Slow {
    /// Sends one more, and looks whether the connection still is.
    fn go_on(&mut self, begun: Instant) {
        if self.closed.is_some() {
            return;
        }
        let byte = self.bytes[self.sent % self.bytes.len()];
        let written = self.stream.write_all(&[byte]);
        self.sent += 1;
        let open = match self.stream.read(&mut [0; 64]) {
            Ok(n) => n > 0,
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        };
        self.closed = (written.is_err() || !open).then(|| begun.elapsed());
    }
}

#[test]
fn a_byte_at_a_time_is_heard_out_for_a_while_and_holds_nobody_up() {
    let mut served = Served::new("head=1500");
    // A head without an end, the preface of HTTP/2 that goes on as something else, and a method without an end.
    let kinds: [&[u8]; 3] = [b"GET /v1/cluster HTTP/1.1\r\nX: y\r\nX: ", b"PRI * HTTP/2.0\r\n", b"P"];
    let begun = Instant::now();
    let mut slow: Vec<Slow> = (0..64)
        .map(|n| {
            let stream = served.connect();
            stream.set_nonblocking(true).unwrap();
            Slow { stream, bytes: kinds[n % 3], sent: 0, closed: None }
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while slow.iter().any(|slow| slow.closed.is_none()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "connections stay open");
        slow.iter_mut().for_each(|slow| slow.go_on(begun));
        let asked = Instant::now();
        assert_eq!(served.ask("GET", "/v1/cluster", "", b"").0, 200);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    // The second kind is refused as soon as it is none.
    let of_heads = slow.iter().step_by(3).filter_map(|slow| slow.closed);
    assert!(of_heads.clone().all(|after| after > Duration::from_secs(1)), "{:?}", of_heads.collect::<Vec<_>>());
    assert!(slowest < Duration::from_secs(1), "others waited {slowest:?}");
    served.is_well();
}

/// Within a frame a ping cannot be answered.
#[test]
fn a_frame_byte_by_byte_is_given_up() {
    let mut served = Served::new("");
    let mut stream = served.connect();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let headers = [0, 0x3e, 0, 1, 4, 0, 0, 0, 1];
    stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &headers].concat()).unwrap();
    let (begun, mut says) = (Instant::now(), stream.try_clone().unwrap());
    let says = std::thread::spawn(move || {
        while says.write_all(&[0]).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    rest(stream);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    says.join().unwrap();
    served.is_well();
}

#[test]
fn a_connection_rests_for_a_while() {
    let served = Served::new("head=800,idle=2000");
    let ask = format!("GET /v1/openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n", served.at);
    let mut resting = served.connect();
    let begun = Instant::now();
    resting.write_all(ask.as_bytes()).unwrap();
    let mut slow = resting.try_clone().unwrap();
    assert!(rest(resting).starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() > Duration::from_millis(1900), "{:?}", begun.elapsed());
    assert!(slow.write_all(b"x").is_err() || slow.read(&mut [0; 1]).is_ok_and(|n| n == 0));
    // Its second head has no longer than the first.
    let mut slow = served.connect();
    slow.write_all(ask.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    slow.write_all(&ask.as_bytes()[..20]).unwrap();
    rest(slow);
    assert!((700..1900).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

/// Lets this process have so many files, if the system lets it.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |most: Option<u64>| most.is_none_or(|most| most >= files);
    let raised = || setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum }).is_ok();
    enough(limit.current) || enough(limit.maximum) && raised()
}

#[test]
fn ten_thousand_idle_connections_are_borne_and_then_closed() {
    const MANY: usize = 10_000;
    // The node keeps a reserve beside them.
    if !may_open(MANY as u64 + 2000) {
        eprintln!("left out: the hard limit of open files (ulimit -Hn) is below {}", MANY + 2000);
        return;
    }
    let mut served = Served::new("head=20000");
    let used = served.status("VmRSS");
    let mut idle: Vec<TcpStream> = Vec::new();
    while idle.len() < MANY {
        // Who comes when as many wait as the system lets is heard only a second later.
        idle.extend((0..100).map(|_| served.connect()));
        until("connections to be taken", || served.files() > idle.len());
    }
    let done = served.folder.run(&format!("jobs --at {}", served.at));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(served.files() > MANY, "some were closed too early");
    let used = served.status("VmRSS").saturating_sub(used);
    assert!(used < 256 << 10, "{used} KiB for {MANY} connections");
    until("idle connections to be closed", || {
        std::thread::sleep(Duration::from_millis(100));
        served.files() < 500
    });
    drop(idle);
    served.is_well();
}

#[test]
fn connections_beyond_the_most_are_closed_at_once() {
    let mut served = Served::new("connections=40,head=60000");
    let mut held: Vec<TcpStream> = Vec::new();
    // The node's own are among them.
    let begun = Instant::now();
    loop {
        let stream = served.connect();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        match (&stream).read(&mut [0; 1]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => held.push(stream),
            _ => break,
        }
        assert!(held.len() <= 40 && begun.elapsed() < Duration::from_secs(20), "{} are open", held.len());
    }
    assert!(held.len() > 30, "{}", held.len());
    held.clear();
    served.is_well();
}
