//! A node that writes for long takes a bounded part of the disk: the log is purged and its database rebuilt.
//!
//! `GRISTMILL_LOG_WRITES` says how many writes (30,000 if unset; the full suite is 1,000,000).

mod count;
mod real;
mod rounds;

use std::fs;
use std::path::Path;

use gristmill_raft::net::{Peer, Switchboard};
use gristmill_raft::runtime::AsyncRuntime as _;
use gristmill_raft::{Node, Options, verify};
use openraft_rt_tokio::TokioRuntime;

use count::Count;
use real::World;

const WRITERS: u64 = 128;
const LARGE: u64 = 300;
const REBUILD_ABOVE_BYTES: u64 = 2 << 20;

async fn start(folder: &Path) -> Node<World, Count> {
    let disks = verify::open(folder).unwrap();
    let options = Options { snapshot_bytes: 500_000, rebuild_above_bytes: REBUILD_ABOVE_BYTES, ..Options::new(7) };
    let net = Switchboard::default();
    let node = Node::<World, _>::start(disks, |me| net.line(me.node), Count(0), &options).await.unwrap();
    // Refused when it is not new.
    let _ = node.initialize(&[Peer { id: node.identity().node, address: String::new() }]).await;
    let mut watch = node.watch();
    while !watch.changed().await.unwrap().here {}
    node
}

/// Bytes that a folder takes with all that is below it.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { length(&entry.path()) });
    bytes.sum()
}

/// Files come and go while the node works.
fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |meta| meta.len())
}

#[test]
fn the_disk_stays_bounded_over_many_writes() {
    let writes = rounds::rounds("GRISTMILL_LOG_WRITES", 30_000) / WRITERS;
    let dir = tempfile::tempdir().unwrap();
    TokioRuntime::new(2).block_on(async {
        let node = start(dir.path()).await;
        // Large commands first: sled keeps the room that they took when they are long purged.
        for _ in 0..LARGE {
            node.propose(vec![7; 64 << 10]).await.unwrap();
        }
        let large = size(dir.path());
        let mut most = 0;
        let mut tasks: Vec<_> = (0..WRITERS)
            .map(|_| {
                let node = node.clone();
                tokio::spawn(async move {
                    for _ in 0..writes {
                        node.propose(vec![7; 128]).await.unwrap();
                    }
                })
            })
            .collect();
        while let Some(task) = tasks.last() {
            if task.is_finished() {
                tasks.pop().unwrap().await.unwrap();
            }
            if node.metrics().log_used_bytes < REBUILD_ABOVE_BYTES / 4 && node.metrics().log_rebuilds > 0 {
                most = most.max(size(dir.path()));
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let metrics = node.metrics();
        eprintln!(
            "{} KiB on disk after large writes, {} KiB at most over {} small ones with {} rebuilds; \
             at the end {} KiB of database, {} KiB of them used",
            large >> 10,
            most >> 10,
            writes * WRITERS,
            metrics.log_rebuilds,
            metrics.log_bytes >> 10,
            metrics.log_used_bytes >> 10
        );
        // The bound; what is written from one purge to the next, and in pages of sled; a second database for a moment.
        let bound = REBUILD_ABOVE_BYTES * 4;
        assert!(large > bound && most < bound, "{most} bytes on disk, {bound} at most");
        assert!(metrics.log_bytes < bound, "{metrics:?}");
        assert!(metrics.last.unwrap() - metrics.purged.unwrap() < 20_000, "the log is long: {metrics:?}");
        node.stop().await;
        let node = start(dir.path()).await;
        assert_eq!(node.read(|count| count.0).await.unwrap(), LARGE + writes * WRITERS);
        node.stop().await;
    });
}
