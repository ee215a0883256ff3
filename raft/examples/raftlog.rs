//! A tiny program around a node of one, for the tests that need a process: it is killed, and it checks folders.
//!
//! `raftlog write DIR` proposes numbers and says which are acknowledged; `raftlog verify DIR` and `raftlog inspect DIR`
//! are what the production binary offers too.

#[path = "../tests/real/mod.rs"]
mod real;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use gristmill_raft::net::{Peer, Switchboard};
use gristmill_raft::runtime::AsyncRuntime as _;
use gristmill_raft::{Node, Options, StateMachine, verify};
use openraft_rt_tokio::TokioRuntime;

use real::World;

/// Numbers that were proposed.
#[derive(Default)]
struct Numbers(BTreeSet<u64>);

impl StateMachine for Numbers {
    type View = std::vec::IntoIter<Vec<u8>>;

    fn apply(&mut self, _: u64, command: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.extend(command.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)));
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Self::View {
        self.0.iter().map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>().into_iter()
    }

    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        snapshot.read_to_end(&mut bytes)?;
        let (numbers, _) = bytes.as_chunks();
        self.0 = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect();
        Ok(())
    }
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent listens");
}

/// Starts the node of a folder and waits until it leads.
async fn start(folder: &Path) -> Node<World, Numbers> {
    let disks = verify::open(folder).expect("open");
    let options =
        Options { snapshot_bytes: 100_000, kept_entries: 50, rebuild_above_bytes: 1 << 20, ..Options::new(7) };
    let net = Switchboard::default();
    let started = Node::<World, _>::start(disks, |me| net.line(me.node), Numbers::default(), &options).await;
    let node = match started {
        Ok(node) => node,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            panic!("{error}: {cause:?}")
        }
    };
    // Refused if the folder is not new.
    let _ = node.initialize(&[Peer { id: node.identity().node, address: "here".to_string() }]).await;
    let mut watch = node.watch();
    while !watch.changed().await.expect("the node lives").here {}
    say(&format!("term {}", watch.now().term));
    node
}

/// Proposes numbers from several tasks, for ever.
async fn write(folder: &Path) {
    let node = start(folder).await;
    let have = node.read(|numbers| numbers.0.clone()).await.expect("read");
    say(&format!("have {}", have.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")));
    let first = have.last().map_or(0, |last| last + 1);
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let node = node.clone();
            tokio::spawn(async move {
                for n in (first + task..).step_by(8) {
                    // Some entries need many chunks.
                    let mut command = n.to_be_bytes().to_vec();
                    command.resize(if n % 64 == 0 { 30_000 } else { 8 }, 0);
                    node.propose(command).await.expect("propose");
                    say(&format!("ack {n}"));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer");
    }
}

/// Proposes `count` numbers and stops in good order.
async fn fill(folder: &Path, count: u64) {
    let node = start(folder).await;
    for n in 0..count {
        let mut command = n.to_be_bytes().to_vec();
        command.resize(if n % 64 == 0 { 30_000 } else { 8 }, 0);
        node.propose(command).await.expect("propose");
    }
    node.snapshot(Duration::from_secs(20)).await.expect("snapshot");
    for n in count..count + 100 {
        node.propose(n.to_be_bytes().to_vec()).await.expect("propose");
    }
    node.stop().await;
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["verify", folder] => return verify::child(Path::new(folder)),
        ["inspect", folder] => match verify::inspect(Path::new(folder), &std::env::temp_dir()) {
            Ok(report) => println!("{report}"),
            Err(error) => {
                eprintln!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
                return ExitCode::FAILURE;
            }
        },
        ["write", folder] => TokioRuntime::new(2).block_on(write(Path::new(folder))),
        ["fill", folder, count] => {
            TokioRuntime::new(2).block_on(fill(Path::new(folder), count.parse().expect("a number")));
        }
        _ => {
            eprintln!("raftlog write|verify|inspect DIR, raftlog fill DIR COUNT");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
