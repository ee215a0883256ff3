//! Workers: that they drain, what an app that panics costs, inputs that change, and how much is open at a time.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, PoisonError};

use gristmill_engine::store::{Name, Store as _};
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{JobState, job_error::Reason};

use super::gated::GATES;
use super::world::{Cluster, run, until};

/// Lines of a file, long enough that each file is a map task of its own.
const LINES: usize = 20;

async fn files(cluster: &Cluster, files: usize) {
    let text: String = (0..LINES).map(|line| format!("word{line} {}\n", "x".repeat(60_000))).collect();
    for file in 0..files {
        let text = text.clone();
        cluster.put(&format!("in/{file:03}"), text).await;
    }
}

#[test]
fn a_worker_that_drains_costs_no_map_a_second_time() {
    run(async {
        let (cluster, gate) = (Cluster::of(1).await, &GATES[0]);
        files(&cluster, 12).await;
        gate.holds_reducers.store(true, SeqCst);
        let one = cluster.work("w1", 1);
        let job = cluster.submit("gated", &["--gate", "0"], "out").await;
        until(async || gate.reducers.load(SeqCst) > 0).await;
        one.drain();
        gate.holds_reducers.store(false, SeqCst);
        until(async || cluster.masters[0].workers().await.unwrap().workers.is_empty()).await;
        let _two = cluster.work("w2", 1);
        let ended = cluster.ended(&job).await;
        assert_eq!(ended.state(), JobState::Completed, "{:?}", ended.error);
        assert_eq!(cluster.output("out").await.len(), LINES);
        assert_eq!(gate.records.load(SeqCst), 12 * LINES as u64, "each map ran once");
    });
}

#[test]
fn an_app_that_panics_over_its_flags_costs_neither_a_slot_nor_the_master() {
    run(async {
        let (cluster, gate) = (Cluster::of(1).await, &GATES[1]);
        files(&cluster, 2).await;
        // It offers the app, takes no work, and is given up.
        let apps = vec![wire::AppOffer { name: "gated".into(), build: "b1".into() }];
        let idle = wire::Register { name: "idle".into(), address: "idle".into(), slots: 1, apps, ..Default::default() };
        cluster.masters[0].register(idle).await.unwrap();
        let job = cluster.submit("gated", &["--gate", "1"], "bad").await;
        until(async || cluster.job(&job).await.maps.is_some_and(|maps| maps.total > 0)).await;
        gate.hopeless.store(true, SeqCst);
        let refused = cluster.try_submit("gated", &["--gate", "1"], "refused").await;
        assert!(refused.unwrap_err().to_string().contains("panicked over its flags"));
        let _worker = cluster.work("w", 1);
        let ended = cluster.ended(&job).await;
        assert_eq!(ended.error.as_ref().map(|e| e.reason()), Some(Reason::TaskFailed), "{ended:?}");
        gate.hopeless.store(false, SeqCst);
        let job = cluster.submit("gated", &["--gate", "1"], "good").await;
        assert_eq!(cluster.ended(&job).await.state(), JobState::Completed);
    });
}

#[test]
fn an_input_that_changes_while_it_is_mapped_fails_the_job_with_its_name() {
    run(async {
        let (cluster, gate) = (Cluster::of(1).await, &GATES[2]);
        // One map task, which has opened it when it changes.
        cluster.put("in/000", "word\n").await;
        gate.holds_maps.store(true, SeqCst);
        let _worker = cluster.work("w", 1);
        let job = cluster.submit("gated", &["--gate", "2"], "out").await;
        until(async || gate.maps.load(SeqCst) > 0).await;
        let name = Name::new("in/000").unwrap();
        let version = cluster.store.head(&name).await.unwrap().version;
        cluster.store.replace(&name, &version, Arc::new(b"other\n".to_vec())).await.unwrap();
        gate.holds_maps.store(false, SeqCst);
        let error = cluster.ended(&job).await.error.unwrap_or_default();
        assert_eq!(error.reason(), Reason::Input);
        assert!(error.message.contains("in/000 has changed since the job was planned"), "{error:?}");
    });
}

/// Each of them is mapped at the end, and the process can only guard so many mappings.
#[test]
fn segments_of_many_maps_are_fetched_into_few_files() {
    run(async {
        let cluster = Cluster::of(1).await;
        files(&cluster, 20).await;
        let (_one, _two) = (cluster.work("w1", 2), cluster.work("w2", 2));
        let job = cluster.submit("gated", &["--gate", "3"], "out").await;
        assert_eq!(cluster.ended(&job).await.state(), JobState::Completed);
        let output = cluster.output("out").await;
        assert!(output.len() == LINES && output.iter().all(|line| line.ends_with("\t20")), "{output:?}");
        let created = cluster.created.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched: Vec<&str> = created.iter().filter_map(|name| Some(name.rsplit_once("fetched-")?.1)).collect();
        assert!(!fetched.is_empty() && fetched.iter().all(|n| n.parse::<u32>().unwrap() < 4), "{fetched:?}");
    });
}
