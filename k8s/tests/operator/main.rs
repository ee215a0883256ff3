//! The operator against an API server: jobs are submitted, told of and cancelled, whatever goes wrong in between. The cluster
//! behind it is a table of jobs that the tests turn by hand. What any server must do is in `k8s/tests/conformance`; here is
//! what takes this one to be seen or done, and what is the operator's alone.

use std::sync::Arc;
use std::time::Duration;

use gristmill_k8s::client;
use gristmill_k8s::crd::{self, MapReduceJob, MapReduceJobStatus, Phase};
use gristmill_k8s::operator::{self, FINALIZER, Refused, Settings};
use gristmill_k8s_fake::{Rule, Server};
use gristmill_proto::v1::{JobSpec, JobState, TaskCounts};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

mod cluster;
mod installation;

const NAMESPACE: &str = "batch";
/// All that the operator needs, and nothing else: the Role in the chart has it.
const RIGHTS: [(&str, &str, &[&str]); 3] = [
    ("events.k8s.io", "events", &["create", "patch"]),
    ("gristmill.dev", "mapreducejobs", &["list", "watch", "patch", "delete"]),
    ("gristmill.dev", "mapreducejobs/status", &["patch"]),
];
/// Whatever is waited for is there long before.
const WITHIN: Duration = Duration::from_secs(30);

fn connect(server: &Server, token: Option<&str>) -> impl Future<Output = Client> + use<> {
    let text = match token {
        None => server.kubeconfig(NAMESPACE),
        Some(token) => server.kubeconfig_of(token, NAMESPACE),
    };
    async move {
        let config = Kubeconfig::from_yaml(&text).unwrap();
        client::of_config(
            Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await.unwrap(),
        )
        .unwrap()
    }
}

/// An API server that knows the resource, and what looks at it.
struct World {
    server: Server,
    token: String,
    api: Api<MapReduceJob>,
    cluster: Arc<Cluster>,
}

/// An operator that runs. Dropped, it goes on until the test ends.
struct Operator(oneshot::Sender<()>, tokio::task::JoinHandle<()>);

impl Operator {
    async fn stop(self) {
        let _ = self.0.send(());
        self.1.await.unwrap();
    }
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        server.apply_yaml(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}"), "").unwrap();
        server.apply_yaml(&crd::yaml(), "").unwrap();
        let rights = RIGHTS.map(|(group, resource, verbs)| Rule::new(&[group], &[resource], verbs));
        let token = server.enforce(NAMESPACE, "master", &rights);
        let api = Api::namespaced(connect(&server, None).await, NAMESPACE);
        Self { server, token, api, cluster: Arc::default() }
    }

    async fn operator(&self, term: u64) -> Operator {
        self.operator_of(term, self.cluster.clone(), Duration::from_millis(100)).await
    }

    async fn operator_of(&self, term: u64, cluster: Arc<Cluster>, running: Duration) -> Operator {
        let client = connect(&self.server, Some(&self.token)).await;
        let settings = Settings {
            running,
            otherwise: Duration::from_secs(1),
            instance: Some("master-0".into()),
            cluster: "00000000000000c1".into(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let task =
            tokio::spawn(async move { operator::run(client, NAMESPACE, cluster, term, settings, stopped).await });
        Operator(stop, task)
    }

    async fn create(&self, name: &str, changes: Value) -> MapReduceJob {
        self.try_create(name, changes).await.unwrap()
    }

    async fn try_create(&self, name: &str, changes: Value) -> Result<MapReduceJob, kube::Error> {
        let mut spec = json!({"app": {"name": "wordcount"}, "inputs": ["in/"], "output": format!("out/{name}")});
        for (field, value) in changes.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let object = MapReduceJob::new(name, serde_json::from_value(spec).unwrap());
        self.api.create(&PostParams::default(), &object).await
    }

    async fn patch(&self, name: &str, spec: Value) -> Result<MapReduceJob, kube::Error> {
        self.api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await
    }

    /// Waits until the status is so.
    async fn wait(&self, name: &str, what: &str, is: impl Fn(&MapReduceJobStatus) -> bool) -> MapReduceJobStatus {
        let until = Instant::now() + WITHIN;
        let mut last = None;
        while Instant::now() < until {
            if let Ok(Some(object)) = self.api.get_opt(name).await {
                let status = object.status.unwrap_or_default();
                if is(&status) {
                    return status;
                }
                last = Some(status);
            }
            sleep(Duration::from_millis(30)).await;
        }
        panic!("{name} is never {what}: {last:?}; noted: {:?}", self.cluster.state(|state| state.noted.clone()));
    }

    async fn wait_for(&self, name: &str, phase: Phase) -> MapReduceJobStatus {
        self.wait(name, &format!("{phase:?}"), |status| status.phase == Some(phase)).await
    }

    async fn wait_submitted(&self, name: &str) -> String {
        self.wait(name, "submitted", |status| status.job_id.is_some()).await.job_id.unwrap()
    }

    async fn wait_gone(&self, name: &str) {
        let until = Instant::now() + WITHIN;
        while self.api.get_opt(name).await.unwrap().is_some() {
            assert!(
                Instant::now() < until,
                "{name} stays; noted: {:?}",
                self.cluster.state(|state| state.noted.clone())
            );
            sleep(Duration::from_millis(30)).await;
        }
    }

    /// Reasons of the events on an object.
    async fn events(&self, name: &str, last: &str) -> Vec<String> {
        let until = Instant::now() + WITHIN;
        loop {
            let mut all = self.server.list("events.events.k8s.io", Some(NAMESPACE));
            if all.is_empty() {
                all = self.server.list("events", Some(NAMESPACE));
            }
            let about = |event: &Value| event["regarding"]["name"] == name || event["involvedObject"]["name"] == name;
            all.retain(about);
            all.sort_by_key(|event| event["metadata"]["name"].as_str().unwrap_or_default().to_string());
            let reasons: Vec<String> = all.iter().map(|event| event["reason"].as_str().unwrap().to_string()).collect();
            if reasons.iter().any(|reason| reason == last) {
                return reasons;
            }
            assert!(Instant::now() < until, "{last} is not among {reasons:?}");
            sleep(Duration::from_millis(30)).await;
        }
    }

    fn status_writes(&self) -> usize {
        self.server.calls().iter().filter(|call| call.subresource == "status" && call.verb == "patch").count()
    }
}

fn condition(status: &MapReduceJobStatus, kind: &str) -> (String, String) {
    let found = status.conditions.iter().find(|one| one.type_ == kind);
    found.map(|one| (one.status.clone(), one.reason.clone())).unwrap_or_default()
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[tokio::test]
async fn a_job_runs_to_its_end_and_is_told_of() {
    let world = World::new().await;
    let operator = world.operator(1).await;
    let object = world.create("words", json!({"reducers": 7, "app": {"pushed": "mine@2"}})).await;
    let id = world.wait_submitted("words").await;
    assert_eq!(world.cluster.keys(), [format!("mrj/{}", object.uid().unwrap())]);
    let spec = world.cluster.job(&id).spec.unwrap();
    assert_eq!((spec.reducers, spec.app.unwrap().pushed.as_str()), (7, "mine@2"));
    let status = world.wait_for("words", Phase::Pending).await;
    assert_eq!(condition(&status, "Accepted"), is("True", "Submitted"));
    assert!(status.start_time.is_some());
    world.cluster.turn(&id, |job| job.notices = vec!["quota exceeded".into()]);
    world.wait("words", "noticed", |status| status.message.as_deref() == Some("quota exceeded")).await;
    world.cluster.turn(&id, |job| {
        job.notices.clear();
        job.maps = Some(TaskCounts { total: 20, done: 9, progress_ppm: 450_000, ..TaskCounts::default() });
    });
    world.cluster.set(&id, JobState::Mapping);
    world.wait("words", "half done", |status| status.progress.as_deref() == Some("map 45% reduce 0%")).await;
    world.cluster.set(&id, JobState::Completed);
    let status = world.wait_for("words", Phase::Completed).await;
    assert_eq!(condition(&status, "Complete"), is("True", "Completed"));
    assert_eq!(condition(&status, "Running").0, "False");
    assert_eq!((status.observed_generation, status.term, status.submissions), (Some(1), 1, 1));
    assert!(status.completion_time.is_some());
    assert_eq!(world.events("words", "Completed").await, ["Submitted", "Started", "Completed"]);
    // It can be deleted where nobody is any more who would cancel anything.
    let none = |object: Option<MapReduceJob>| object.is_some_and(|object| object.finalizers().is_empty());
    tokio::time::timeout(WITHIN, async {
        while !none(world.api.get_opt("words").await.unwrap()) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the finalizer goes");
    // It rests: nothing is written any more, not even by a later leader.
    operator.stop().await;
    world.operator(2).await;
    let writes = world.status_writes();
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(world.status_writes(), writes);
}

/// The master ended between the submission and the status that tells of it, and the object was deleted before another led.
#[tokio::test]
async fn a_job_that_nobody_wrote_down_is_cancelled_with_its_object() {
    let world = World::new().await;
    let mut object = MapReduceJob::new(
        "lost",
        serde_json::from_value(json!({
            "app": {"name": "grep"}, "inputs": ["in/"], "output": "out",
        }))
        .unwrap(),
    );
    object.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let object = world.api.create(&PostParams::default(), &object).await.unwrap();
    let id = world.cluster.insert(&format!("mrj/{}", object.uid().unwrap()), JobSpec::default());
    world.api.delete("lost", &DeleteParams::default()).await.unwrap();
    world.operator(1).await;
    world.wait_gone("lost").await;
    assert_eq!(world.cluster.job(&id).state(), JobState::Cancelled);
    assert_eq!(world.cluster.keys().len(), 1, "nothing was submitted for it");
}

#[tokio::test]
async fn a_job_that_is_being_published_is_not_held_back() {
    let world = World::new().await;
    world.operator(1).await;
    world.create("words", json!({})).await;
    let id = world.wait_submitted("words").await;
    world.cluster.set(&id, JobState::Committing);
    world.wait_for("words", Phase::Running).await;
    world.patch("words", json!({"suspend": true})).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    world.cluster.set(&id, JobState::Completed);
    world.wait_for("words", Phase::Completed).await;
    assert_eq!(world.cluster.keys().len(), 1);
}

#[tokio::test]
async fn a_spec_that_is_refused_shows_why() {
    let world = World::new().await;
    world.operator(1).await;
    let refuse = |retry, reason: &str, message: &str| {
        world
            .cluster
            .state(|state| state.refuses = Some(Refused { retry, reason: reason.into(), message: message.into() }));
    };
    refuse(false, "OutputTaken", "the name out/never is taken: choose another");
    world.create("never", json!({})).await;
    let status = world.wait_for("never", Phase::Failed).await;
    assert_eq!(status.message.as_deref(), Some("the name out/never is taken: choose another"));
    assert_eq!(condition(&status, "Accepted"), is("False", "OutputTaken"));
    assert_eq!(world.events("never", "Failed").await, ["Refused", "Failed"]);
    refuse(true, "TooManyJobs", "the user has 5000 jobs");
    world.create("later", json!({})).await;
    let status = world.wait("later", "refused", |status| status.message.is_some()).await;
    assert_eq!((status.phase, condition(&status, "Accepted")), (Some(Phase::Pending), is("False", "TooManyJobs")));
    world.cluster.state(|state| state.refuses = None);
    world.wait_submitted("later").await;
    // What the rules of the definition refuse does not come so far.
    let refused = world.try_create("bad", json!({"output": "in/words"})).await.unwrap_err().to_string();
    assert!(refused.contains("lies in one of the inputs"), "{refused}");
    let refused = world.patch("later", json!({"reducers": 3})).await.unwrap_err().to_string();
    assert!(refused.contains("apply the other job under another name"), "{refused}");
    let refused = world.try_create("bad", json!({"reducers": 10_001})).await.unwrap_err().to_string();
    assert!(refused.contains("10000"), "{refused}");
}

#[tokio::test]
async fn the_api_server_may_be_away_meanwhile() {
    let world = World::new().await;
    world.operator(1).await;
    world.create("words", json!({})).await;
    let id = world.wait_submitted("words").await;
    world.server.stop();
    world.cluster.set(&id, JobState::Mapping);
    sleep(Duration::from_millis(700)).await;
    world.cluster.set(&id, JobState::Completed);
    sleep(Duration::from_millis(300)).await;
    world.server.start_again().await;
    world.wait_for("words", Phase::Completed).await;
    assert_eq!(world.cluster.keys().len(), 1);
    // Watches that break off, and versions that are too old, are no different.
    world.server.compact();
    world.server.drop_watches();
    world.create("more", json!({})).await;
    world.wait_submitted("more").await;
}

/// Objects stay when a cluster is uninstalled, and the next one begins with term 1.
#[tokio::test]
async fn an_object_of_a_cluster_before_this_is_not_held_by_its_term() {
    let world = World::new().await;
    let before = world.operator(57).await;
    world.create("words", json!({})).await;
    world.wait_submitted("words").await;
    before.stop().await;
    let status = json!({"status": {"cluster": "0000000000000abc", "jobId": "0000000000000abc-1"}});
    world.api.patch_status("words", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    world.operator(1).await;
    let status = world.wait("words", "told of by this one", |status| status.term == 1).await;
    assert_eq!(
        (status.cluster.as_deref(), status.phase),
        (Some("00000000000000c1"), Some(Phase::Failed)),
        "{status:?}"
    );
    world.api.delete("words", &DeleteParams::default()).await.unwrap();
    world.wait_gone("words").await;
}

#[tokio::test]
async fn a_master_of_an_earlier_term_writes_nothing() {
    let world = World::new().await;
    world.operator(2).await;
    world.create("words", json!({})).await;
    let id = world.wait_submitted("words").await;
    // It thinks that it leads, and knows another cluster: what it did would be seen.
    let other: Arc<Cluster> = Arc::default();
    world.operator_of(1, other.clone(), Duration::from_millis(50)).await;
    sleep(Duration::from_millis(500)).await;
    world.cluster.set(&id, JobState::Mapping);
    let status = world.wait_for("words", Phase::Running).await;
    assert_eq!((status.term, status.job_id.as_deref()), (2, Some(id.as_str())));
    sleep(Duration::from_millis(500)).await;
    assert_eq!(world.api.get("words").await.unwrap().status.unwrap().term, 2);
    assert_eq!(other.keys().len(), 0, "it submitted a job of its own");
    // Nor does it let an object go whose job it does not know.
    world.api.delete("words", &DeleteParams::default()).await.unwrap();
    world.wait_gone("words").await;
    assert_eq!(world.cluster.job(&id).state(), JobState::Cancelled);
}

#[tokio::test]
async fn a_later_leader_takes_over_and_submits_nothing_twice() {
    let world = World::new().await;
    let first = world.operator(1).await;
    world.create("words", json!({})).await;
    world.wait_submitted("words").await;
    // Both run for a while.
    world.operator(2).await;
    world.wait("words", "taken over", |status| status.term == 2).await;
    first.stop().await;
    let id = world.wait_submitted("words").await;
    world.cluster.set(&id, JobState::Completed);
    let status = world.wait_for("words", Phase::Completed).await;
    assert_eq!((status.term, status.submissions), (2, 1));
    assert_eq!(world.cluster.keys().len(), 1);
}

#[tokio::test]
async fn progress_is_not_written_faster_than_it_is_looked_at() {
    let world = World::new().await;
    let running = Duration::from_millis(500);
    world.operator_of(1, world.cluster.clone(), running).await;
    world.create("words", json!({})).await;
    let id = world.wait_submitted("words").await;
    world.cluster.set(&id, JobState::Mapping);
    world.wait_for("words", Phase::Running).await;
    let before = world.status_writes();
    let begun = Instant::now();
    for done in 1..=100 {
        let counts = TaskCounts { total: 100, done, progress_ppm: done * 10_000, ..TaskCounts::default() };
        world.cluster.turn(&id, |job| job.maps = Some(counts));
        sleep(Duration::from_millis(20)).await;
    }
    let most = begun.elapsed().as_millis() / running.as_millis() + 1;
    let writes = world.status_writes() - before;
    assert!((1..=usize::try_from(most).unwrap()).contains(&writes), "{writes} writes, not 1 to {most}");
}
