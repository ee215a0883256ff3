//! A large snapshot goes to a new node while writes go on.

use std::time::{Duration, Instant};

use super::nodes::Cluster;
use super::writers::{Writers, percentile};

#[test]
fn a_snapshot_of_100_mb_does_not_hold_up_the_others() {
    let mut cluster = Cluster::of(3, "--kept 10");
    let writers = Writers::start(&cluster, 2);
    // What is purged from the log can only come by snapshot.
    writers.more(200);
    let leader = cluster.leader();
    assert!(cluster.nodes[leader].ask("fill large 100").starts_with("ok"));
    assert_eq!(cluster.nodes[leader].ask("snapshot"), "ok");
    writers.more(200);
    let leader = cluster.leader();
    let took = |from: usize| writers.since(from).iter().map(|write| write.took).collect::<Vec<_>>();
    let before = took(writers.count() - 200);
    let (term, from, begun) = (cluster.nodes[leader].status().unwrap().term, writers.count(), Instant::now());
    let fourth = cluster.join();
    let (time, during) = (begun.elapsed(), took(from));
    let joined = cluster.nodes[fourth].status().unwrap();
    let most = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
    println!(
        "snapshot of {} MB installed in {time:.2?}; a write took p50 {:.2?}, p99 {:.2?} before, p50 {:.2?}, p99 {:.2?}, \
         at most {:.2?} of {} meanwhile",
        joined.snapshot_bytes / 1_000_000,
        percentile(before.clone(), 50),
        percentile(before, 99),
        percentile(during.clone(), 50),
        percentile(during.clone(), 99),
        most(&during),
        during.len(),
    );
    assert!(joined.snapshot_bytes >= 100_000_000, "it came by snapshot: {joined:?}");
    assert_eq!(cluster.nodes[leader].status().unwrap().term, term, "leadership changed");
    assert!(during.len() >= 10, "writes went on: {}", during.len());
    assert!(most(&during) < Duration::from_secs(5), "one write waited for {:?}", most(&during));
    writers.more(50);
    writers.check(&cluster);
}
