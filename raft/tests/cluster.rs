//! Nodes of one process over a switchboard: leaders are lost, nodes restart, are wiped and come back as others, and
//! snapshots are installed.

mod support;

use std::time::Duration;

use gristmill_raft::Error;
use gristmill_raft::model::Faults;
use gristmill_raft::net::Peer;
use gristmill_raft::node::Role;
use support::{Cluster, Ledger, UNKNOWN, run};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn three_nodes_agree_and_survive_their_leader() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        for n in 0..50 {
            cluster.put(n).await;
        }
        let old = cluster.leader().await;
        cluster.crash(old).await;
        for n in 50..80 {
            cluster.put(n).await;
        }
        assert_ne!(cluster.leader().await, old);
        cluster.restart(old).await;
        cluster.put(80).await;
        cluster.settle(81).await;
    });
}

#[test]
fn a_command_that_is_not_understood_ends_the_node_and_is_not_passed_over() {
    run(async {
        let mut cluster = Cluster::of(1).await;
        cluster.put(0).await;
        let told = cluster.node(0).propose(UNKNOWN).await;
        assert!(matches!(told, Err(Error::Unknown(_) | Error::Ended(_))), "{told:?}");
        let why = cluster.node(0).ended().unwrap();
        assert!(why.contains("does not know the command; start a newer one"), "{why}");
        assert_eq!(cluster.node(0).read_stale(|state| state.commands.len()), 1);
        // It is in the log: the same build can not go on from there, whatever comes after it.
        cluster.crash(0).await;
        cluster.restart(0).await;
        let told = tokio::time::timeout(SOON, cluster.node(0).propose(b"a later one".to_vec())).await;
        assert!(matches!(told, Ok(Err(_))), "{told:?}");
    });
}

#[test]
fn all_crash_at_once_and_nothing_is_forgotten() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        for n in 0..30 {
            cluster.put(n).await;
        }
        for at in 0..3 {
            cluster.crash(at).await;
        }
        for at in 0..3 {
            cluster.restart(at).await;
        }
        cluster.settle(30).await;
        let leader = cluster.leader().await;
        cluster.node(leader).recovered(SOON).await.unwrap();
        assert_eq!(cluster.node(leader).read(|state| state.commands.len()).await.unwrap(), 30);
    });
}

#[test]
fn a_wiped_node_comes_back_as_another_one() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        for n in 0..20 {
            cluster.put(n).await;
        }
        let leader = cluster.leader().await;
        let lost = (leader + 1) % 3;
        let old = cluster.node(lost).identity().node;
        cluster.crash(lost).await;
        cluster.wipe(lost);
        cluster.restart(lost).await;
        let new = cluster.peer(lost);
        assert_ne!(new.id, old);
        cluster.node(leader).add_member(&new).await.unwrap();
        cluster.node(leader).remove_member(old).await.unwrap();
        cluster.put(20).await;
        cluster.settle(21).await;
        let voters: Vec<_> = cluster.node(leader).metrics().voters.iter().map(|peer| peer.id).collect();
        assert!(voters.len() == 3 && voters.contains(&new.id) && !voters.contains(&old), "{voters:x?}");
    });
}

#[test]
fn a_fourth_node_gets_a_snapshot_and_the_rest() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        for n in 0..100 {
            cluster.put(n).await;
        }
        let leader = cluster.leader().await;
        cluster.node(leader).snapshot(SOON).await.unwrap();
        cluster.purged(leader).await;
        for n in 100..110 {
            cluster.put(n).await;
        }
        let leader = cluster.leader().await;
        let fourth = cluster.add().await;
        let peer = cluster.peer(fourth);
        cluster.node(leader).add_member(&peer).await.unwrap();
        cluster.put(110).await;
        cluster.settle(111).await;
        assert!(cluster.node(fourth).metrics().snapshot.is_some(), "it came by snapshot");
        // A restart goes on from the snapshot.
        cluster.crash(fourth).await;
        cluster.restart(fourth).await;
        cluster.settle(111).await;
    });
}

#[test]
fn leadership_is_handed_over_and_watched() {
    run(async {
        let cluster = Cluster::of(3).await;
        let leader = cluster.leader().await;
        let next = (leader + 1) % 3;
        let to = cluster.node(next).identity().node;
        let mut watch = cluster.node(next).watch();
        cluster.node(leader).transfer_leadership(to, SOON).await.unwrap();
        loop {
            let seen = watch.changed().await.unwrap();
            if seen.here {
                assert_eq!(seen.leader.unwrap().id, to);
                break;
            }
        }
        assert!(matches!(cluster.node(next).transfer_leadership(99, SOON).await, Err(Error::Refused(_))));
        cluster.node(next).stop().await;
        assert!(watch.changed().await.is_none(), "a stopped node has nothing to watch");
        assert!(cluster.node(next).propose("x").await.is_err());
        assert_eq!(cluster.node(next).metrics().role, Role::Ended);
    });
}

#[test]
fn who_is_gone_inherits_nothing() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        cluster.put(0).await;
        let gone = (cluster.leader().await + 1) % 3;
        let id = cluster.peer(gone).id;
        cluster.crash(gone).await;
        loop {
            let leader = cluster.leader().await;
            match cluster.node(leader).heir() {
                Some(heir) if heir.id != id => break assert_eq!(heir, cluster.peer(3 - leader - gone)),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
}

#[test]
fn a_leader_without_a_quorum_confirms_nothing() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        cluster.put(0).await;
        let leader = cluster.leader().await;
        for at in 0..3 {
            if at != leader {
                cluster.cut(leader, at);
            }
        }
        assert!(cluster.node(leader).watch().now().here, "it does not know yet");
        while cluster.node(leader).has_quorum() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let read = cluster.node(leader).read(|state| state.commands.len()).await;
        assert!(matches!(read, Err(Error::NoQuorum(_) | Error::NotLeader { .. })), "{read:?}");
        let proposal = tokio::time::timeout(Duration::from_secs(2), cluster.node(leader).propose("lost"));
        assert!(!matches!(proposal.await, Ok(Ok(_))), "nothing is committed by one of three");
        cluster.heal();
        cluster.put(1).await;
        let leader = cluster.leader().await;
        while !cluster.node(leader).has_quorum() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn members_move_and_keep_their_votes() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        for at in 0..3 {
            let id = cluster.peer(at).id;
            let moved = Peer { id, address: format!("elsewhere-{at}") };
            while cluster.node(cluster.leader().await).add_member(&moved).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        cluster.put(0).await;
        cluster.settle(1).await;
        for at in 0..3 {
            let voters = cluster.node(at).metrics().voters;
            assert!(voters.len() == 3 && voters.iter().all(|v| v.address.starts_with("elsewhere-")), "{voters:?}");
        }
    });
}

#[test]
fn a_follower_says_who_leads() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let leader = cluster.leader().await;
        let peer = cluster.peer(leader);
        let refused = cluster.node((leader + 1) % 3).propose("x").await;
        assert!(matches!(refused, Err(Error::NotLeader { leader: Some(ref at) }) if *at == peer), "{refused:?}");
        let large = vec![0; gristmill_raft::node::MAX_COMMAND_BYTES + 1];
        assert!(matches!(cluster.node(leader).propose(large).await, Err(Error::Refused(_))));
        cluster.put_bytes(0, gristmill_raft::node::MAX_COMMAND_BYTES).await;
        cluster.settle(1).await;
    });
}

#[test]
fn a_node_whose_disk_fails_ends_and_the_others_go_on() {
    ends(Faults { sync_error: Some(std::io::ErrorKind::Other), ..Faults::default() }, "sync");
}

#[test]
fn a_node_whose_disk_is_full_ends_and_the_others_go_on() {
    ends(Faults { capacity_bytes: Some(0), ..Faults::default() }, "no storage space");
}

#[test]
fn a_node_whose_disk_fails_to_write_ends_and_the_others_go_on() {
    ends(Faults { write_error: Some(std::io::ErrorKind::Other), ..Faults::default() }, "write to");
}

#[test]
fn a_node_whose_folder_becomes_read_only_ends_and_the_others_go_on() {
    let read_only = Some(std::io::ErrorKind::ReadOnlyFilesystem);
    ends(Faults { write_error: read_only, sync_error: read_only, ..Faults::default() }, "read-only");
}

/// The leader's disk breaks, in a way whose name its last words contain.
fn ends(faults: Faults, name: &str) {
    run(async {
        let mut cluster = Cluster::of(3).await;
        cluster.put(0).await;
        let leader = cluster.leader().await;
        cluster.set_faults(leader, faults);
        let outcome = cluster.node(leader).propose("perhaps").await;
        assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
        for n in 1..10 {
            cluster.put(n).await;
        }
        let why = cluster.node(leader).ended().expect("it has ended");
        assert!(why.contains(name), "{why}");
        // With a disk that works again it comes back as itself.
        cluster.set_faults(leader, Faults::default());
        cluster.crash(leader).await;
        cluster.restart(leader).await;
        cluster.put(10).await;
        for at in 0..3 {
            while cluster.node(at).read_stale(|state| state.commands.len()) < 11 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

/// A snapshot that can not be written takes nothing with it: the log is purged only behind one that is sealed.
#[test]
fn a_node_that_can_not_write_its_snapshot_ends_and_loses_nothing() {
    run(async {
        let mut cluster = Cluster::of(1).await;
        for n in 0..50 {
            cluster.put_bytes(n, 4000).await;
        }
        // Room for what is there, and not for all of it once more.
        cluster.set_faults(0, Faults { capacity_bytes: Some(300_000), ..Faults::default() });
        assert!(matches!(cluster.node(0).snapshot(SOON).await, Err(Error::Ended(_))));
        let why = cluster.node(0).ended().expect("it has ended");
        assert!(why.contains("no storage space"), "{why}");
        cluster.set_faults(0, Faults::default());
        cluster.crash(0).await;
        cluster.restart(0).await;
        cluster.put(50).await;
        cluster.settle(51).await;
    });
}

#[test]
fn snapshots_are_taken_by_size_and_the_log_stays_short() {
    run(async {
        let mut cluster = Cluster::of(1).await;
        for n in 0..400 {
            cluster.put_bytes(n, 4000).await;
        }
        let metrics = cluster.node(0).metrics();
        assert!(metrics.purged > Some(200), "{metrics:?}");
        cluster.settle(400).await;
    });
}

/// Only one snapshot is taken at a time: a sender that falls silent must not keep all others out.
#[test]
fn a_snapshot_that_stalls_is_given_up() {
    use futures_util::StreamExt as _;
    run(async {
        let cluster = Cluster::of(1).await;
        let me = cluster.node(0).identity();
        // A head as it is on the wire: cluster, from, to, a vote, and 100 bytes to come.
        let numbers = [(0x09, me.cluster), (0x11, 1), (0x19, me.node)];
        let mut head: Vec<u8> = Vec::new();
        numbers.iter().for_each(|(tag, n)| head.extend([&[*tag][..], &n.to_le_bytes()].concat()));
        head.extend([0x22, 6, 8, 1, 16, 1, 24, 1, 0x28, 100]);
        let silent = || {
            let first = futures_util::stream::iter([bytes::Bytes::from(head.clone())]);
            Box::pin(first.chain(futures_util::stream::pending()))
        };
        for _ in 0..2 {
            let given_up = tokio::time::timeout(SOON, cluster.node(0).receive(silent())).await.expect("an answer");
            let why = given_up.unwrap_err().to_string();
            assert!(why.contains("nothing more of the snapshot"), "{why}");
        }
    });
}

#[test]
fn another_cluster_s_folder_is_refused() {
    run(async {
        let mut cluster = Cluster::of(1).await;
        cluster.crash(0).await;
        let text = cluster.start_as(0, 99).await.map(|_| ()).unwrap_err();
        assert!(text.contains("belongs to cluster"), "{text}");
    });
}

/// As from a backup: of what it begins with nothing is in a log, and what follows is far above it.
#[test]
fn a_cluster_that_begins_with_a_state_goes_on_from_it_and_others_join() {
    run(async {
        let commands = (0..30_u64).map(|n| n.to_be_bytes().to_vec()).collect();
        let (term, index) = (1 << 32, 1 << 40);
        let mut cluster = Cluster::begun(&Ledger { commands }, term, index).await;
        cluster.put(30).await;
        cluster.settle(31).await;
        let metrics = cluster.node(0).metrics();
        assert!(metrics.leadership.term > term && metrics.applied > Some(index));
        assert_eq!(metrics.voters, [cluster.peer(0)]);
        cluster.crash(0).await;
        cluster.restart(0).await;
        cluster.put(31).await;
        for _ in 0..2 {
            let at = cluster.add().await;
            let (leader, peer) = (cluster.leader().await, cluster.peer(at));
            cluster.node(leader).add_member(&peer).await.unwrap();
        }
        cluster.put(32).await;
        cluster.settle(33).await;
        let leader = cluster.leader().await;
        cluster.crash(leader).await;
        cluster.put(33).await;
        cluster.restart(leader).await;
        cluster.settle(34).await;
    });
}
