//! A node of the replicated log as a process, for the tests that kill it: gRPC to its peers, and for the tests one line
//! a request and one or more an answer on a Unix socket. Its state maps keys to values, and counts how often each was written.
//!
//! `raftnode --data DIR --socket PATH --listen ADDRESS [--join ADDRESS] [--heartbeat MS] [--election MIN-MAX]
//! [--snapshot-bytes N] [--kept N]`. It says `ready ID ADDRESS` when it serves.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use gristmill::cluster::raft::net::Peer;
use gristmill::cluster::raft::{self, Node, Options, StateMachine, verify};
use gristmill::cluster::{
    Production, admin, channels::Channels, connector::Connector, listener::Listener, peers, transport, wire::Wire,
};
use tonic::service::Routes;

const CLUSTER: u64 = 7;
/// How long anything may take that may take for ever without a quorum.
const PATIENCE: Duration = Duration::from_secs(5);

/// A value and where it was written.
#[derive(Clone)]
struct Cell {
    index: u64,
    times: u64,
    value: bytes::Bytes,
}

/// Keys and what was last written to them.
#[derive(Clone, Default)]
struct Cells {
    cells: BTreeMap<Vec<u8>, Cell>,
    /// The index of the last command, and a checksum of all of them in order.
    last: u64,
    chain: u32,
}

impl Cells {
    fn set(&mut self, index: u64, key: &[u8], value: Vec<u8>) {
        let times = self.cells.get(key).map_or(0, |cell| cell.times) + 1;
        self.cells.insert(key.to_vec(), Cell { index, times, value: value.into() });
    }

    fn digest(&self) -> u32 {
        self.cells.iter().fold(self.chain, |crc, (key, cell)| {
            let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), &cell.index.to_be_bytes());
            crc32c::crc32c_append(crc32c::crc32c_append(crc, &cell.times.to_be_bytes()), &cell.value)
        })
    }
}

/// Bytes that look random, of which few travel.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    });
    words.take(bytes / 8).flatten().collect()
}

impl StateMachine for Cells {
    type View = Box<dyn Iterator<Item = Vec<u8>> + Send>;

    /// `put KEY VALUE`, or `fill KEY MIB` for many bytes.
    fn apply(&mut self, index: u64, command: &[u8]) -> std::io::Result<Vec<u8>> {
        (self.last, self.chain) = (index, crc32c::crc32c_append(self.chain, command));
        let text = String::from_utf8_lossy(command);
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["put", key, value] => self.set(index, key.as_bytes(), value.into()),
            ["fill", key, mib] => {
                for n in 0..mib.parse::<u64>().unwrap_or(0) {
                    self.set(index, format!("{key}-{n}").as_bytes(), noise(n + 1, 1 << 19));
                    self.set(index, format!("{key}-{n}b").as_bytes(), noise(n + 2, 1 << 19));
                }
            }
            _ => {}
        }
        Ok(index.to_string().into_bytes())
    }

    fn snapshot(&self) -> Self::View {
        let Self { cells, last, chain } = self.clone();
        let head = [&last.to_be_bytes()[..], &chain.to_be_bytes()].concat();
        let record = |(key, cell): (Vec<u8>, Cell)| {
            let lengths = [key.len() as u64, cell.value.len() as u64, cell.index, cell.times];
            [&lengths.map(u64::to_be_bytes).concat()[..], &key, &cell.value].concat()
        };
        Box::new(std::iter::once(head).chain(cells.into_iter().map(record)))
    }

    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()> {
        let (mut last, mut chain) = ([0; 8], [0; 4]);
        snapshot.read_exact(&mut last)?;
        snapshot.read_exact(&mut chain)?;
        *self = Self { cells: BTreeMap::new(), last: u64::from_be_bytes(last), chain: u32::from_be_bytes(chain) };
        let mut lengths = [0; 32];
        while snapshot.read(&mut lengths[..1])? == 1 {
            snapshot.read_exact(&mut lengths[1..])?;
            let (numbers, _) = lengths.as_chunks();
            let [key, value, index, times] = [0, 1, 2, 3].map(|at| u64::from_be_bytes(numbers[at]));
            let (mut key, mut value) = (vec![0; key as usize], vec![0; value as usize]);
            snapshot.read_exact(&mut key)?;
            snapshot.read_exact(&mut value)?;
            self.cells.insert(key, Cell { index, times, value: value.into() });
        }
        Ok(())
    }
}

type Member = Node<Production, Cells>;

/// Answers the requests of one connection, each in its turn.
fn answer(runtime: &tokio::runtime::Handle, node: &Member, stream: UnixStream) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let answer = runtime.block_on(answer_to(node, &line?));
        out.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

async fn answer_to(node: &Member, line: &str) -> String {
    let done = |result: Result<(), raft::Error>| result.map_or_else(|e| format!("failed {e}"), |()| "ok".into());
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["put" | "fill", ..] => match tokio::time::timeout(PATIENCE, node.propose(line.to_string())).await {
            Ok(Ok(index)) => format!("ok {}", String::from_utf8_lossy(&index)),
            Ok(Err(raft::Error::NotLeader { leader })) => {
                format!("elsewhere {}", leader.map_or("-".to_string(), |peer| peer.address))
            }
            Ok(Err(error)) => format!("unknown {error}"),
            Err(_) => "unknown after a long time".to_string(),
        },
        ["digest"] => node.read_stale(|state| format!("{} {:08x}", state.last, state.digest())),
        ["dump"] => node.read_stale(|state| {
            let small = state.cells.iter().filter(|(_, cell)| cell.value.len() < 1000);
            let shown = small.map(|(key, cell)| {
                let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(&cell.value));
                format!("{key} {} {} {value}\n", cell.index, cell.times)
            });
            shown.collect::<String>() + "end"
        }),
        ["status"] => {
            let m = node.metrics();
            let leader = m.leadership.leader.map_or(0, |peer| peer.id);
            let here = if m.leadership.here { "leads" } else { "follows" };
            format!("{here} {} {leader:016x} {}", m.leadership.term, m.snapshot_bytes)
        }
        ["snapshot"] => done(node.snapshot(Duration::from_secs(60)).await),
        ["init", members] => {
            let peer = |text: &str| {
                let (id, address) = text.split_once('@')?;
                Some(Peer { id: u64::from_str_radix(id, 16).ok()?, address: address.to_string() })
            };
            let members: Vec<_> = members.split(',').filter_map(peer).collect();
            done(node.initialize(&members).await)
        }
        _ => format!("failed to understand {line}"),
    }
}

/// The value after a flag.
fn flag(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

fn number(name: &str, default: u64) -> u64 {
    flag(name).map_or(default, |text| text.parse().expect("a number"))
}

fn options() -> Options {
    let mut options = Options::new(CLUSTER);
    let ms = Duration::from_millis;
    options.heartbeat = ms(number("--heartbeat", options.heartbeat.as_millis() as u64));
    if let Some(range) = flag("--election") {
        let (min, max) = range.split_once('-').expect("MIN-MAX");
        options.election_min = ms(min.parse().expect("a number"));
        options.election_max = ms(max.parse().expect("a number"));
    }
    options.snapshot_bytes = number("--snapshot-bytes", options.snapshot_bytes);
    options.kept_entries = number("--kept", options.kept_entries);
    options
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let (data, socket) = (flag("--data").expect("--data"), flag("--socket").expect("--socket"));
    let options = options();
    let listener = Listener::bind(&flag("--listen").expect("--listen"), Wire::LOOPBACK).await?;
    let address = listener.address().to_string();
    let channels = Channels::new(Connector::new(options.election_min));
    let transport = transport::Transport::new(channels.clone());
    let disks = verify::open(Path::new(&data))?;
    let node = Member::start(disks, |_| transport, Cells::default(), &options).await?;
    let id = node.identity().node;

    let (runtime, served) = (tokio::runtime::Handle::current(), node.clone());
    let _ = std::fs::remove_file(&socket);
    let tests = UnixListener::bind(&socket)?;
    std::thread::spawn(move || {
        for stream in tests.incoming().flatten() {
            let (runtime, node) = (runtime.clone(), served.clone());
            std::thread::spawn(move || answer(&runtime, &node, stream));
        }
    });
    let services = Routes::new(peers::service(node.clone())).add_service(admin::service(node, (0, 0)));
    let serving = tokio::spawn(listener.serve(services, std::future::pending()));
    println!("ready {id:016x} {address}");
    if let Some(at) = flag("--join") {
        let client = admin::Client::new(channels, &at, Duration::from_secs(60));
        client.add(CLUSTER, &Peer { id, address }).await?;
        println!("joined");
    }
    Ok(serving.await?)
}

fn main() -> ExitCode {
    // A test that dies takes its processes along.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let Err(error) = runtime.block_on(serve()) else { return ExitCode::SUCCESS };
    let mut error: Option<&dyn Error> = Some(&*error);
    while let Some(cause) = error {
        eprintln!("raftnode: {cause}");
        error = cause.source();
    }
    ExitCode::FAILURE
}
