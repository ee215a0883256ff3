//! Measures a cluster in one process over sled and real folders below DIR, and the disk without it.
//!
//! - `throughput DIR commits NODES WRITERS SECONDS`: commits a second, of writers that each wait for their last.
//! - `throughput DIR failover TIMES`: from the loss of the leader of three nodes to the next acknowledged write.
//! - `throughput DIR raw FILES SECONDS`: what the disk does without us: so many threads that write 128 bytes in place and
//!   `fdatasync`.

#[path = "../tests/count/mod.rs"]
mod count;
#[path = "../tests/real/mod.rs"]
mod real;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gristmill_raft::net::{Peer, Switchboard};
use gristmill_raft::runtime::AsyncRuntime as _;
use gristmill_raft::{Node, Options, verify};
use openraft_rt_tokio::TokioRuntime;

use count::Count;
use real::World;

type BenchNode = Node<World, Count>;

struct Cluster {
    dir: PathBuf,
    net: Switchboard<TokioRuntime>,
    options: Options,
    nodes: Vec<BenchNode>,
}

impl Cluster {
    async fn of(dir: &Path, size: usize, options: Options) -> Self {
        let mut cluster = Self { dir: dir.to_owned(), net: Switchboard::default(), options, nodes: Vec::new() };
        for at in 0..size {
            let node = cluster.start(at).await;
            cluster.nodes.push(node);
        }
        let nodes = cluster.nodes.iter();
        let peers: Vec<_> = nodes.map(|n| Peer { id: n.identity().node, address: String::new() }).collect();
        cluster.nodes[0].initialize(&peers).await.expect("initialize");
        cluster
    }

    async fn start(&self, at: usize) -> BenchNode {
        let disks = verify::open(&self.dir.join(format!("node-{at}"))).expect("open");
        let connect = |me: gristmill_raft::Identity| self.net.line(me.node);
        let node = BenchNode::start(disks, connect, Count(0), &self.options).await.expect("start");
        self.net.connect(node.identity().node, node.clone());
        node
    }

    /// Waits until a node other than `lost` acknowledges a write; says which.
    async fn written(&self, lost: Option<usize>) -> usize {
        loop {
            for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| Some(*at) != lost) {
                if node.watch().now().here && node.propose("next").await.is_ok() {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

async fn commits(dir: &Path, size: usize, writers: usize, time: Duration) {
    let ms = Duration::from_millis;
    let options = Options { election_min: ms(500), election_max: ms(1000), heartbeat: ms(100), ..Options::new(7) };
    let cluster = Cluster::of(dir, size, options).await;
    let leader = cluster.nodes[cluster.written(None).await].clone();
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
        "{size} nodes, {writers} writers: {} (batches: {}, database: {} KiB, {} rebuilds)",
        figures(&mut took, elapsed),
        after.writes - before.writes,
        after.log_bytes >> 10,
        after.log_rebuilds
    );
    cluster.stop().await;
}

/// Loses the leader again and again: nothing reaches it and nothing comes from it any more. Then it is stopped, comes back
/// and catches up.
async fn failover(dir: &Path, times: usize) {
    let options = Options::new(7);
    let (min, max) = (options.election_min, options.election_max);
    let mut cluster = Cluster::of(dir, 3, options).await;
    let mut took = Vec::new();
    let start = Instant::now();
    for _ in 0..times {
        let lost = cluster.written(None).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let id = cluster.nodes[lost].identity().node;
        let others = cluster.nodes.iter().map(|node| node.identity().node).filter(|other| *other != id);
        let began = Instant::now();
        cluster.net.disconnect(id);
        others.for_each(|other| cluster.net.cut(id, other));
        let leads = cluster.written(Some(lost)).await;
        took.push(began.elapsed());
        cluster.nodes[lost].stop().await;
        cluster.net.heal();
        cluster.nodes[lost] = cluster.start(lost).await;
        let applied = cluster.nodes[leads].metrics().applied;
        while cluster.nodes[lost].metrics().applied < applied {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    println!("{times} leaders lost: {}", figures(&mut took, start.elapsed()));
    println!("floor: {:?} to {:?}, half of them below {:?}", max + min, max * 2, max + (min + max) / 2);
    cluster.stop().await;
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
    // Nearest rank: of 100, p99 is the second largest.
    let rank = |percent: usize| (took.len() * percent).div_ceil(100).saturating_sub(1);
    let at = |percent: usize| took.get(rank(percent)).copied().unwrap_or_default();
    format!("{:.0} a second, p50 {:.2?}, p99 {:.2?}", took.len() as f64 / elapsed.as_secs_f64(), at(50), at(99))
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<usize>().expect("a number");
    let seconds = |word| Duration::from_secs(number(word) as u64);
    let [dir, work @ ..] = &words[..] else { panic!("throughput DIR commits|failover|raw ...") };
    let dir = Path::new(dir);
    fs::create_dir_all(dir).expect("a folder");
    let runtime = || TokioRuntime::new(2);
    match work {
        ["raw", files, time] => raw(dir, number(files), seconds(time)),
        ["commits", nodes, writers, time] => {
            runtime().block_on(commits(dir, number(nodes), number(writers), seconds(time)));
        }
        ["failover", times] => runtime().block_on(failover(dir, number(times))),
        _ => panic!("throughput DIR commits NODES WRITERS SECONDS, failover TIMES or raw FILES SECONDS"),
    }
}
