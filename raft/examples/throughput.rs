//! Measures commits: `throughput DIR NODES WRITERS SECONDS` over sled and real folders below DIR, with the network of one
//! process, and `throughput DIR raw FILES SECONDS` for what the disk does without us: so many threads that write 128
//! bytes in place and `fdatasync`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gristmill_raft::disk::{Folder, SledKv};
use gristmill_raft::net::{Peer, Switchboard};
use gristmill_raft::runtime::AsyncRuntime as _;
use gristmill_raft::{Env, Node, Options, StateMachine, verify};
use openraft_rt_tokio::TokioRuntime;

struct Count(u64);

impl StateMachine for Count {
    type View = std::iter::Once<Vec<u8>>;

    fn apply(&mut self, _: u64, _: &[u8]) -> Vec<u8> {
        self.0 += 1;
        Vec::new()
    }

    fn snapshot(&self) -> Self::View {
        std::iter::once(self.0.to_be_bytes().to_vec())
    }

    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        snapshot.read_exact(&mut bytes)?;
        self.0 = u64::from_be_bytes(bytes);
        Ok(())
    }
}

struct World;

impl Env for World {
    type Rt = TokioRuntime;
    type Net = Switchboard<TokioRuntime>;
    type Kv = SledKv;
    type Files = Folder;
}

type BenchNode = Node<World, Count>;

async fn cluster(dir: &Path, size: usize) -> Vec<BenchNode> {
    let net = Switchboard::default();
    let ms = Duration::from_millis;
    let options = Options { election_min: ms(500), election_max: ms(1000), heartbeat: ms(100), ..Options::new(7) };
    let mut nodes = Vec::new();
    for at in 0..size {
        let disks = verify::open(&dir.join(format!("node-{at}"))).expect("open");
        let node = BenchNode::start(disks, |me| net.line(me.node), Count(0), &options).await.expect("start");
        net.connect(node.identity().node, node.clone());
        nodes.push(node);
    }
    let peers: Vec<_> = nodes.iter().map(|n| Peer { id: n.identity().node, address: String::new() }).collect();
    nodes[0].initialize(&peers).await.expect("initialize");
    nodes
}

async fn leader(nodes: &[BenchNode]) -> BenchNode {
    loop {
        if let Some(node) = nodes.iter().find(|node| node.watch().now().here)
            && node.propose("warm").await.is_ok()
        {
            return node.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn commits(dir: &Path, size: usize, writers: usize, time: Duration) {
    let nodes = cluster(dir, size).await;
    let leader = leader(&nodes).await;
    let before = leader.metrics();
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let node = leader.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while start.elapsed() < time {
                    let began = Instant::now();
                    node.propose(vec![7; 128]).await.expect("propose");
                    took.push(began.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a writer"));
    }
    let (elapsed, after) = (start.elapsed(), leader.metrics());
    println!(
        "{size} nodes, {writers} writers: {} (batches: {}, database: {} KiB, log {:?}..{:?})",
        figures(&mut took, elapsed),
        after.writes - before.writes,
        after.log_bytes >> 10,
        after.purged,
        after.last
    );
    for node in nodes {
        node.stop().await;
    }
}

fn raw(dir: &Path, files: usize, time: Duration) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for at in 0..files {
            let all = all.clone();
            let path = dir.join(format!("raw-{at}"));
            scope.spawn(move || {
                let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).expect("open");
                let (mut took, mut offset) = (Vec::new(), 0);
                while start.elapsed() < time {
                    let began = Instant::now();
                    file.write_all_at(&[7; 128], offset).expect("write");
                    file.sync_data().expect("sync");
                    took.push(began.elapsed());
                    offset += 128;
                }
                all.lock().expect("lock").extend(took);
            });
        }
    });
    let mut took = all.lock().expect("lock").clone();
    println!("{files} raw writers: {}", figures(&mut took, start.elapsed()));
}

fn figures(took: &mut [Duration], elapsed: Duration) -> String {
    took.sort();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    format!("{:.0} a second, p50 {:.2?}, p99 {:.2?}", took.len() as f64 / elapsed.as_secs_f64(), at(50), at(99))
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|w| w.parse::<usize>().ok()).expect("a number");
    let dir = Path::new(words.first().expect("throughput DIR NODES|raw WRITERS SECONDS"));
    fs::create_dir_all(dir).expect("a folder");
    let time = Duration::from_secs(number(3) as u64);
    if words[1] == "raw" {
        return raw(dir, number(2), time);
    }
    TokioRuntime::new(2).block_on(commits(dir, number(1), number(2), time));
}
