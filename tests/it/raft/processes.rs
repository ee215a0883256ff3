//! Writes go on while nodes are killed, restarted, wiped and added.

use super::long;
use super::nodes::Cluster;
use super::writers::Writers;
use crate::program::until;

const WRITERS: usize = 4;

#[test]
fn writes_go_on_while_any_node_is_lost_and_comes_back() {
    let mut cluster = Cluster::of(3, "--snapshot-bytes 20000 --kept 50");
    let writers = Writers::start(&cluster, WRITERS);
    writers.more(50);
    for round in 0..if long() { 60 } else { 4 } {
        // The leader every other time.
        let leader = cluster.leader();
        let at = if round % 2 == 0 { leader } else { (leader + 1 + round / 2 % 2) % 3 };
        cluster.nodes[at].kill();
        writers.more(50);
        cluster.start(at, "");
        writers.more(50);
    }
    cluster.leader();
    writers.check(&cluster);
}

#[test]
fn a_wiped_node_comes_back_under_a_new_id() {
    let mut cluster = Cluster::of(3, "--snapshot-bytes 20000 --kept 50");
    let writers = Writers::start(&cluster, WRITERS);
    for round in 0..if long() { 12 } else { 2 } {
        writers.more(50);
        let at = (cluster.leader() + round) % 3;
        let old = cluster.nodes[at].id.clone();
        cluster.nodes[at].kill();
        writers.more(50);
        cluster.rejoin_empty(at);
        assert_ne!(cluster.nodes[at].id, old);
        let command = format!("raft remove {old} --at {}", cluster.nodes[(at + 1) % 3].address);
        let said = cluster.folder.out(&command);
        assert!(said.contains(&old), "{said}");
        let members = cluster.folder.out(&format!("raft members --at {}", cluster.nodes[at].address));
        assert!(members.contains(&cluster.nodes[at].id), "{members}");
        until("the removal to be known everywhere", || {
            let at = &cluster.nodes[at].address;
            !cluster.folder.out(&format!("raft members --at {at}")).contains(&old)
        });
    }
    writers.more(50);
    writers.check(&cluster);
}

#[test]
fn a_fourth_and_a_fifth_node_join_and_two_may_then_be_lost() {
    let mut cluster = Cluster::of(3, "--snapshot-bytes 20000 --kept 50");
    let writers = Writers::start(&cluster, WRITERS);
    writers.more(200);
    for _ in 0..2 {
        cluster.join();
        writers.look_again(&cluster);
        writers.more(50);
    }
    let leader = cluster.leader();
    let lost = [leader, (leader + 1) % 5];
    lost.iter().for_each(|at| cluster.nodes[*at].kill());
    writers.more(100);
    lost.iter().for_each(|at| cluster.start(*at, ""));
    writers.more(50);
    writers.check(&cluster);
}

#[test]
fn all_are_killed_at_once_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of(3, "--snapshot-bytes 20000 --kept 50");
    let writers = Writers::start(&cluster, WRITERS);
    for _ in 0..if long() { 20 } else { 2 } {
        writers.more(100);
        (0..3).for_each(|at| cluster.nodes[at].kill());
        (0..3).for_each(|at| cluster.start(at, ""));
    }
    writers.more(50);
    writers.check(&cluster);
}
