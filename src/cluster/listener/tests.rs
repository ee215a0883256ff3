//! The listener against sockets that do not do what clients do, with bounds that are short.

use std::future::pending;
use std::sync::Mutex;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;

const BOUNDS: Bounds = Bounds {
    connections: 4,
    head: Duration::from_millis(300),
    idle: Duration::from_millis(900),
    body: Duration::from_millis(300),
    silence: Duration::from_millis(300),
};
const SOON: Duration = Duration::from_secs(10);
const ASK: &[u8] = b"GET /soon HTTP/1.1\r\nHost: m\r\n\r\n";

struct Served {
    address: SocketAddr,
    told: Arc<Mutex<Vec<String>>>,
    _end: oneshot::Sender<()>,
}

/// Answers `/soon` at once, `/late` after the time for a head, and `/whose` with whether it is known who asks.
async fn serve(bounds: &'static Bounds) -> Served {
    let whose = |request: axum::extract::Request| async move {
        if request.extensions().get::<super::super::wire::Shown>().is_some() { "known" } else { "unknown" }
    };
    let late = || async {
        sleep(BOUNDS.head * 2).await;
        "late"
    };
    let routes =
        Router::new().route("/soon", get(|| async { "soon" })).route("/late", get(late)).route("/whose", get(whose));
    let told = Arc::new(Mutex::new(Vec::new()));
    let (hears, (end, ended)) = (told.clone(), oneshot::channel::<()>());
    let listener = Listener::bind("127.0.0.1:0", Wire::LOOPBACK).await.unwrap();
    let listener = listener.telling(move |line| hears.lock().unwrap().push(line));
    let address = listener.address();
    tokio::spawn(async move { listener.serve_within(bounds, routes.into(), async { drop(ended.await) }).await });
    Served { address, told, _end: end }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn has_told(&self, what: &str) {
        let begun = Instant::now();
        while !self.told.lock().unwrap().iter().any(|line| line.contains(what)) {
            assert!(begun.elapsed() < SOON, "nothing of '{what}', but {:?}", self.told.lock().unwrap());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Asks and reads the answer, whose body is this.
async fn ask(stream: &mut TcpStream, request: &[u8], answer: &str) {
    stream.write_all(request).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(answer.as_bytes()) {
        let n = timeout(SOON, stream.read_buf(&mut got)).await.unwrap().unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&got));
    }
}

/// How long it takes until the other end closes; what it says before is no matter.
async fn closed(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut bytes = [0; 1024];
    while timeout(SOON, stream.read(&mut bytes)).await.expect("it stays open").is_ok_and(|n| n > 0) {}
    begun.elapsed()
}

#[tokio::test]
async fn who_sends_no_whole_head_is_closed() {
    let served = serve(&BOUNDS).await;
    let mut silent = served.connect().await;
    assert!((BOUNDS.head / 2..BOUNDS.head * 3).contains(&closed(&mut silent).await));
    // As well as who sends one byte by byte, of either version.
    for head in [ASK, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let (mut hears, mut says) = served.connect().await.into_split();
        let trickle = tokio::spawn(async move {
            for byte in &head[..head.len() - 1] {
                says.write_all(&[*byte]).await?;
                sleep(BOUNDS.head / 10).await;
            }
            io::Result::Ok(())
        });
        let begun = Instant::now();
        let mut bytes = Vec::new();
        let _ = timeout(SOON, hears.read_to_end(&mut bytes)).await.expect("it stays open");
        assert!((BOUNDS.head / 2..BOUNDS.head * 3).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        trickle.abort();
    }
    served.has_told("1 that sent no whole request in time").await;
}

#[tokio::test]
async fn a_connection_rests_longer_than_a_head_may_take() {
    let served = serve(&BOUNDS).await;
    let mut stream = served.connect().await;
    // An answer takes as long as it takes.
    ask(&mut stream, b"GET /late HTTP/1.1\r\nHost: m\r\n\r\n", "late").await;
    sleep(BOUNDS.head * 2).await;
    ask(&mut stream, ASK, "soon").await;
    assert!(closed(&mut stream).await > BOUNDS.head * 2);
    let mut stream = served.connect().await;
    ask(&mut stream, ASK, "soon").await;
    sleep(BOUNDS.head).await;
    stream.write_all(&ASK[..10]).await.unwrap();
    assert!(closed(&mut stream).await < BOUNDS.head * 2);
}

#[tokio::test]
async fn one_more_than_may_be_open_is_closed_at_once() {
    const PATIENT: Bounds = Bounds { head: Duration::from_secs(5), idle: Duration::from_secs(5), ..BOUNDS };
    let (bounds, served) = (&PATIENT, serve(&PATIENT).await);
    let mut open = Vec::new();
    for _ in 0..bounds.connections {
        let mut stream = served.connect().await;
        ask(&mut stream, ASK, "soon").await;
        open.push(stream);
    }
    for _ in 0..3 {
        assert!(closed(&mut served.connect().await).await < bounds.head / 2);
    }
    served.has_told("beyond the 4 that may be open").await;
    // Those that were there go on, and one that goes makes room.
    ask(&mut open[0], ASK, "soon").await;
    open.pop();
    let begun = Instant::now();
    loop {
        let mut stream = served.connect().await;
        stream.write_all(ASK).await.unwrap();
        if stream.read(&mut [0; 9]).await.is_ok_and(|n| n == 9) {
            return;
        }
        assert!(begun.elapsed() < bounds.head, "there is no room");
    }
}

#[tokio::test]
async fn services_hear_who_asks_and_what_is_no_http_is_told() {
    let served = serve(&BOUNDS).await;
    ask(&mut served.connect().await, b"GET /whose HTTP/1.1\r\nHost: m\r\n\r\n", "known").await;
    let mut stream = served.connect().await;
    stream.write_all(b"\x16\x03\x01 hello\r\n\r\n").await.unwrap();
    closed(&mut stream).await;
    served.has_told("1 that broke the protocol").await;
}

#[tokio::test]
async fn what_was_begun_is_finished_at_the_end() {
    let listener = Listener::bind("127.0.0.1:0", Wire::LOOPBACK).await.unwrap();
    let address = listener.address();
    let late = || async {
        sleep(Duration::from_millis(300)).await;
        "late"
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Router::new().route("/late", get(late)).route("/never", get(pending::<&str>));
    let serving = tokio::spawn(listener.serve(routes.into(), async { drop(stopped.await) }));
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /late HTTP/1.1\r\nHost: m\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    assert!(closed(&mut idle).await < Duration::from_secs(1));
    ask(&mut stream, b"", "late").await;
    timeout(GRACE / 2, serving).await.expect("it waits for nobody").unwrap();
}
