//! Masters that lead, that only believe it, and that lead no longer.

use std::time::Duration;

use gristmill_engine::node::env::Note;
use gristmill_engine::node::master::{Accounts, ApiError, Code};
use gristmill_engine::node::rpc::CallError;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::JobState;
use gristmill_raft::runtime::AsyncRuntime as _;

use super::world::{Cluster, Rt, run, until};

fn worker(name: &str) -> wire::Register {
    wire::Register { name: name.into(), address: name.into(), slots: 1, ..Default::default() }
}

/// It was asked for work, then cut off from the other masters: workers must look for one that can do something. What it has
/// not heard of, it does not fence.
#[test]
fn a_leader_without_a_quorum_sends_workers_elsewhere() {
    run(async {
        let cluster = Cluster::of(3).await;
        let old = cluster.leader().await;
        let leader = cluster.masters[old].clone();
        let known = leader.register(worker("known")).await.unwrap().incarnation;
        let waits = {
            let leader = leader.clone();
            Rt::spawn(
                async move { leader.poll(wire::Poll { incarnation: known, sequence: 1, ..Default::default() }).await },
            )
        };
        cluster.cut_off(old);
        let answered = waits.await.unwrap();
        assert!(matches!(answered, Err(CallError::NotLeader { .. })), "{answered:?}");
        until(async || cluster.leader().await != old).await;
        let new = cluster.masters[cluster.leader().await].clone();
        let unheard_of = new.register(worker("new")).await.unwrap().incarnation;
        for incarnation in [known, unheard_of] {
            let poll = wire::Poll { incarnation, sequence: 2, ..Default::default() };
            let answered = leader.poll(poll).await;
            assert!(matches!(answered, Err(CallError::NotLeader { .. })), "{answered:?}");
        }
        assert!(leader.status().await.is_err(), "nor does it tell what may be old");
    });
}

/// An election takes a moment: whoever asks meanwhile is not turned away.
#[test]
fn who_asks_while_nobody_leads_waits_for_an_election() {
    run(async {
        let cluster = Cluster::before(3, Accounts::default()).await;
        let [one, other] = [0, 1].map(|n| cluster.masters[n].clone());
        let asked = Rt::spawn(async move { one.status().await });
        let shown = Rt::spawn(async move { other.authenticate("no token").await });
        Rt::sleep(Duration::from_millis(100)).await;
        cluster.begin().await;
        let answered = asked.await.unwrap();
        assert!(matches!(answered, Ok(_) | Err(ApiError::NotLeader { leader: Some(_) })), "{answered:?}");
        let known = shown.await.unwrap();
        assert!(matches!(known, Err(ApiError::Refused { code: Code::Unauthenticated, .. })), "{known:?}");
    });
}

#[test]
fn a_job_goes_on_when_its_leader_is_cut_off_and_comes_back() {
    run(async {
        let cluster = Cluster::of(3).await;
        for file in 0..12 {
            cluster.put(&format!("in/{file}"), "corn rye corn\n".repeat(80_000)).await;
        }
        let (_one, _two) = (cluster.work("w1", 1), cluster.work("w2", 1));
        let job = cluster.submit("wordcount", &[], "out").await;
        until(async || cluster.job(&job).await.maps.is_some_and(|maps| maps.done > 0)).await;
        let old = cluster.leader().await;
        cluster.cut_off(old);
        until(async || cluster.leader().await != old).await;
        cluster.heal();
        let ended = cluster.ended(&job).await;
        assert_eq!(ended.state(), JobState::Completed, "{:?}", ended.error);
        assert_eq!(cluster.output("out").await, ["corn\t1920000", "rye\t960000"]);
        for name in ["w1", "w2"] {
            assert_eq!(cluster.noted(name, |note| matches!(note, Note::Fenced { .. })), 0, "{name} was taken for dead");
        }
    });
}

#[test]
fn two_workers_of_one_name_are_told_apart_by_their_folders() {
    run(async {
        let cluster = Cluster::of(1).await;
        let master = &cluster.masters[0];
        let of = |folder| wire::Register { folder, ..worker("w") };
        let first = master.register(of(1)).await.unwrap().incarnation;
        let refused = master.register(of(2)).await.unwrap();
        assert!(refused.incarnation == 0 && refused.refused.contains("give this one another --name"), "{refused:?}");
        let back = master.register(of(1)).await.unwrap().incarnation;
        assert!(back > first, "the same one come back");
    });
}
