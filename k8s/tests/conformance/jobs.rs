//! The operator against a server, with the rights of a master: MapReduceJobs are submitted once, told of, held back and
//! cancelled. The cluster behind it is a table of jobs that the checks turn by hand.

use std::sync::Arc;
use std::time::Duration;

use gristmill_k8s::crd::{MapReduceJob, MapReduceJobStatus, Phase};
use gristmill_k8s::operator::{self, FINALIZER, Settings};
use gristmill_proto::v1::{JobState, TaskCounts};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::world::{WITHIN, World, object, until};

/// How often operators look at jobs that run.
const RUNNING: Duration = Duration::from_millis(100);

/// A namespace with what operators need.
struct Mill<'w> {
    world: &'w World,
    master: Client,
    api: Api<MapReduceJob>,
    cluster: Arc<Cluster>,
}

/// An operator that runs until this is dropped, as when its process ends.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn condition(status: &MapReduceJobStatus, kind: &str) -> Condition {
    let found = status.conditions.iter().find(|one| one.type_ == kind).cloned();
    found.unwrap_or_else(|| panic!("there is no condition {kind}: {status:?}"))
}

/// Status and reason of a condition.
fn said(status: &MapReduceJobStatus, kind: &str) -> (String, String) {
    let condition = condition(status, kind);
    (condition.status, condition.reason)
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

impl<'w> Mill<'w> {
    async fn new(world: &'w World) -> Self {
        world.define().await;
        Self { world, master: world.master().await, api: world.api(), cluster: Arc::default() }
    }

    fn operator(&self, term: u64) -> Running {
        let settings = Settings {
            running: RUNNING,
            otherwise: Duration::from_secs(1),
            instance: Some(format!("master-{term}")),
            ..Settings::default()
        };
        let (client, namespace, cluster) = (self.master.clone(), self.world.namespace.clone(), self.cluster.clone());
        Running(tokio::spawn(async move {
            operator::run(client, &namespace, cluster, term, settings, std::future::pending()).await;
        }))
    }

    async fn create(&self, name: &str, changes: Value) -> MapReduceJob {
        let mut spec = json!({"app": {"name": "wordcount"}, "inputs": ["in/"], "output": format!("out/{name}")});
        for (field, value) in changes.as_object().expect("fields") {
            spec[field] = value.clone();
        }
        self.api.create(&PostParams::default(), &MapReduceJob::new(name, object(spec))).await.expect("it is good")
    }

    async fn change(&self, name: &str, spec: Value) -> MapReduceJob {
        let change = Patch::Merge(json!({"spec": spec}));
        self.api.patch(name, &PatchParams::default(), &change).await.expect("it may change")
    }

    /// Waits until the status is so.
    async fn told(&self, name: &str, what: &str, so: impl Fn(&MapReduceJobStatus) -> bool) -> MapReduceJobStatus {
        until(&format!("{name} is {what}"), WITHIN, async || {
            let noted = || self.cluster.state(|state| state.noted.clone());
            let object = self.api.get_opt(name).await.map_err(|e| e.to_string())?;
            let status = object.and_then(|object| object.status).unwrap_or_default();
            if so(&status) { Ok(status) } else { Err(format!("{status:?}; noted: {:?}", noted())) }
        })
        .await
    }

    async fn in_phase(&self, name: &str, phase: Phase) -> MapReduceJobStatus {
        self.told(name, &format!("{phase:?}"), |status| status.phase == Some(phase)).await
    }

    async fn submitted(&self, name: &str) -> String {
        self.told(name, "submitted", |status| status.job_id.is_some()).await.job_id.expect("it has one")
    }

    async fn gone(&self, name: &str) {
        until(&format!("{name} is gone"), WITHIN, async || {
            match self.api.get_opt(name).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(there) => Err(format!("{there:?}; noted: {:?}", self.cluster.state(|state| state.noted.clone()))),
            }
        })
        .await;
    }

    /// Reasons of the events on an object, in alphabetical order, once this one is there.
    async fn events(&self, uid: &str, last: &str) -> Vec<String> {
        until(&format!("{last} is told"), WITHIN, async || {
            let all = self.world.api::<Event>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let about = |event: &Event| event.regarding.as_ref().and_then(|of| of.uid.as_deref()) == Some(uid);
            let reasons = all.items.into_iter().filter(about).filter_map(|event| event.reason);
            let mut reasons: Vec<String> = reasons.collect();
            reasons.sort();
            if reasons.iter().any(|reason| reason == last) { Ok(reasons) } else { Err(format!("{reasons:?}")) }
        })
        .await
    }
}

pub(crate) async fn a_job_is_submitted_once_and_told_of(world: &World) {
    let mill = Mill::new(world).await;
    let _operator = mill.operator(3);
    let object = mill.create("words", json!({"reducers": 7})).await;
    let uid = object.uid().expect("a UID");
    let id = mill.submitted("words").await;
    assert_eq!(mill.cluster.keys(), [format!("mrj/{uid}")]);
    let status = mill.in_phase("words", Phase::Pending).await;
    assert_eq!((status.term, status.submissions, status.observed_generation), (3, 1, object.metadata.generation));
    assert!(status.start_time.is_some() && status.completion_time.is_none(), "{status:?}");
    assert_eq!(said(&status, "Accepted"), is("True", "Submitted"));
    assert_eq!(said(&status, "Running"), is("False", "Queued"));
    assert_eq!(mill.api.get("words").await.expect("it is there").finalizers(), [FINALIZER]);

    let counts = TaskCounts { total: 20, done: 9, progress_ppm: 450_000, ..TaskCounts::default() };
    mill.cluster.turn(&id, |job| job.maps = Some(counts));
    mill.cluster.set(&id, JobState::Mapping);
    let status =
        mill.told("words", "half done", |status| status.progress.as_deref() == Some("map 45% reduce 0%")).await;
    assert_eq!((status.phase, status.maps.map(|maps| (maps.total, maps.done))), (Some(Phase::Running), Some((20, 9))));
    let mapping = mill.told("words", "mapping", |status| said(status, "Running") == is("True", "Mapping")).await;

    // Times are whole seconds: later than now, another one would be seen.
    let since = |status: &MapReduceJobStatus, kind: &str| condition(status, kind).last_transition_time.0;
    until("the clock goes on", WITHIN, async || {
        let passed = Timestamp::now().as_second() > since(&mapping, "Running").as_second() + 1;
        if passed { Ok(()) } else { Err("it does not".into()) }
    })
    .await;
    mill.cluster.set(&id, JobState::Reducing);
    let reducing = mill.told("words", "reducing", |status| said(status, "Running") == is("True", "Reducing")).await;
    assert_eq!(since(&reducing, "Running"), since(&mapping, "Running"), "its status is the same");
    // What may change is observed, though nothing follows from it.
    let changed = mill.change("words", json!({"ttlSecondsAfterFinished": 3_600})).await;
    assert_eq!(changed.metadata.generation, Some(2));
    let observed = mill.told("words", "observed", |status| status.observed_generation == Some(2)).await;
    assert!(observed.conditions.iter().all(|one| one.observed_generation == Some(2)), "{observed:?}");
    assert_eq!(since(&observed, "Running"), since(&mapping, "Running"));

    mill.cluster.set(&id, JobState::Completed);
    let done = mill.in_phase("words", Phase::Completed).await;
    assert_eq!(said(&done, "Complete"), is("True", "Completed"));
    assert_eq!(said(&done, "Running"), is("False", "Completed"));
    assert_eq!(said(&done, "Failed").0, "False");
    assert!(since(&done, "Running") > since(&mapping, "Running"), "its status is another: {done:?}");
    assert_eq!(since(&done, "Accepted"), since(&mapping, "Accepted"));
    assert_eq!((done.progress.as_deref(), done.submissions), (Some("map 100% reduce 100%"), 1));
    assert!(done.completion_time.is_some(), "{done:?}");
    assert_eq!(mill.events(&uid, "Completed").await, ["Completed", "Started", "Submitted"]);
}

pub(crate) async fn two_operators_submit_one_job(world: &World) {
    const JOBS: usize = 5;
    let mill = Mill::new(world).await;
    let first = mill.operator(1);
    let _second = mill.operator(2);
    let names: Vec<String> = (0..JOBS).map(|at| format!("words-{at}")).collect();
    let mut uids = Vec::new();
    for name in &names {
        uids.push(mill.create(name, json!({})).await.uid().expect("a UID"));
    }
    for (name, uid) in names.iter().zip(&uids) {
        let status = mill.told(name, "taken over", |status| status.term == 2 && status.job_id.is_some()).await;
        let id = status.job_id.clone().expect("it has one");
        assert_eq!(status.submissions, 1);
        mill.cluster.set(&id, JobState::Completed);
        let done = mill.in_phase(name, Phase::Completed).await;
        assert_eq!((done.job_id, done.submissions), (Some(id), 1));
        // Who wrote the status told of it, and nobody else.
        let told = mill.events(uid, "Completed").await;
        assert_eq!(told, ["Completed", "Submitted"], "{name}");
    }
    let mut keys: Vec<String> = uids.iter().map(|uid| format!("mrj/{uid}")).collect();
    keys.sort();
    let mut submitted = mill.cluster.keys();
    submitted.sort();
    assert_eq!(submitted, keys);
    // The later one goes on alone.
    drop(first);
    mill.create("more", json!({})).await;
    mill.submitted("more").await;
    assert_eq!(mill.cluster.keys().len(), JOBS + 1);
}

pub(crate) async fn deletion_cancels_the_job_and_lets_go(world: &World) {
    let mill = Mill::new(world).await;
    let _operator = mill.operator(1);
    let uid = mill.create("runs", json!({})).await.uid().expect("a UID");
    for name in ["ended", "forgotten"] {
        mill.create(name, json!({})).await;
    }
    let runs = mill.submitted("runs").await;
    let ended = mill.submitted("ended").await;
    let forgotten = mill.submitted("forgotten").await;
    mill.cluster.set(&ended, JobState::Completed);
    mill.in_phase("ended", Phase::Completed).await;
    mill.cluster.set(&runs, JobState::Reducing);
    mill.cluster.state(|state| state.jobs.remove(&forgotten));
    for name in ["runs", "ended", "forgotten"] {
        mill.api.delete(name, &DeleteParams::default()).await.expect("it was there");
        mill.gone(name).await;
    }
    let job = mill.cluster.job(&runs);
    assert_eq!(job.state(), JobState::Cancelled);
    assert!(job.error.expect("it says why").message.contains("its MapReduceJob was deleted"));
    assert_eq!(mill.cluster.job(&ended).state(), JobState::Completed);
    assert!(mill.events(&uid, "Cancelled").await.contains(&"Submitted".to_string()));
}

pub(crate) async fn a_suspended_job_waits_and_is_submitted_anew(world: &World) {
    let mill = Mill::new(world).await;
    let _operator = mill.operator(1);
    let uid = mill.create("words", json!({"suspend": true})).await.uid().expect("a UID");
    let status = mill.in_phase("words", Phase::Suspended).await;
    assert_eq!((said(&status, "Suspended").0.as_str(), status.start_time), ("True", None));
    assert_eq!(mill.cluster.keys().len(), 0);
    mill.change("words", json!({"suspend": false})).await;
    let first = mill.submitted("words").await;
    mill.cluster.set(&first, JobState::Mapping);
    mill.in_phase("words", Phase::Running).await;
    mill.change("words", json!({"suspend": true})).await;
    let status = mill.in_phase("words", Phase::Suspended).await;
    assert_eq!((status.job_id, status.submissions, status.start_time), (None, 1, None));
    assert_eq!(mill.cluster.job(&first).state(), JobState::Cancelled);
    mill.change("words", json!({"suspend": null})).await;
    let second = mill.submitted("words").await;
    assert_ne!(first, second);
    assert_eq!(mill.cluster.keys(), [format!("mrj/{uid}"), format!("mrj/{uid}/1")]);
    mill.cluster.set(&second, JobState::Completed);
    let status = mill.in_phase("words", Phase::Completed).await;
    assert_eq!(said(&status, "Suspended"), is("False", "Resumed"));
    assert_eq!(status.submissions, 2);
}

pub(crate) async fn a_deadline_cancels_and_fails(world: &World) {
    let mill = Mill::new(world).await;
    let _operator = mill.operator(1);
    mill.create("slow", json!({"activeDeadlineSeconds": 1})).await;
    mill.create("quick", json!({"activeDeadlineSeconds": 600})).await;
    let id = mill.submitted("slow").await;
    let quick = mill.submitted("quick").await;
    let status = mill.in_phase("slow", Phase::Failed).await;
    assert_eq!(said(&status, "Failed"), is("True", "DeadlineExceeded"));
    assert_eq!(mill.cluster.job(&id).state(), JobState::Cancelled);
    assert_eq!(mill.cluster.job(&quick).state(), JobState::Queued);
}

pub(crate) async fn a_finished_job_goes_when_its_time_is_over(world: &World) {
    let mill = Mill::new(world).await;
    let _operator = mill.operator(1);
    mill.create("brief", json!({"ttlSecondsAfterFinished": 0})).await;
    mill.create("kept", json!({})).await;
    for name in ["brief", "kept"] {
        let id = mill.submitted(name).await;
        mill.cluster.set(&id, JobState::Completed);
    }
    mill.gone("brief").await;
    mill.in_phase("kept", Phase::Completed).await;
    // It may be decided later, too.
    mill.change("kept", json!({"ttlSecondsAfterFinished": 1})).await;
    mill.gone("kept").await;
    assert!(mill.cluster.state(|state| state.jobs.values().all(|job| job.state() == JobState::Completed)));
}
