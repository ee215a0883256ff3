//! How long a leader that is killed is missed, beside the least that it can be.

use std::time::{Duration, Instant};

use super::long;
use super::nodes::Cluster;
use super::writers::{Writers, percentile};
use crate::program::until;

#[test]
fn a_killed_leader_is_followed_by_another() {
    let rounds = if long() { 100 } else { 5 };
    let mut cluster = Cluster::of(3, "");
    let writers = Writers::start(&cluster, 1);
    let mut times = Vec::new();
    for _ in 0..rounds {
        writers.more(20);
        let leader = cluster.leader();
        let (before, killed) = (writers.count(), Instant::now());
        cluster.nodes[leader].kill();
        until("a write after the leader's death", || writers.since(before).iter().any(|write| write.begun > killed));
        let first = writers.since(before).into_iter().find(|write| write.begun > killed).unwrap();
        times.push(first.begun + first.took - killed);
        cluster.start(leader, "");
    }
    let writes = writers.check(&cluster);
    // An election begins when the last heartbeat is `max` old, and a random part of min to max later.
    let (p50, p99) = (percentile(times.clone(), 50), percentile(times, 99));
    println!("{rounds} leaders killed: p50 {p50:.0?}, p99 {p99:.0?} to the next of {writes} acknowledged writes");
    println!("floor: election timeout max + U(min, max) = 150 ms + U(100, 150) ms: p50 275 ms, p99 300 ms");
    assert!(p50 < Duration::from_secs(5), "{p50:?}");
}
