//! The operator of MapReduceJobs: a role of the leading master. What objects ask for is submitted, what comes of it is told in
//! their status, and a job whose object is deleted is cancelled.
//!
//! It is level-triggered: each turn looks at the object, at what was told of it (`decide`) and at the job, and does the one
//! thing that is missing. Nothing is kept here that would have to survive, so that another master goes on where this one
//! ended. A submission's key is the object's UID: it is the same job however often it is submitted. A status carries the Raft
//! term of the master that wrote it; one that sees a later term writes nothing, and one that has not seen it yet is refused by
//! the API server, since every status is written against the version that was read.
//!
//! To suspend a job that runs cancels it, as batch/v1 Jobs end their pods: what its tasks did is lost. Resumed, it is submitted
//! anew under the next key (`status.submissions`), its startTime and its deadline begin again. A job whose output is being
//! published can not be held back any more and completes.
//!
//! Left out: who a job is submitted as, and what masters say to it ([`Jobs`]).

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use gristmill_proto::v1::{JobSpec, JobState, JobStatus};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::time::timeout;

use crate::crd::{MapReduceJob, MapReduceJobStatus, Phase};

mod decide;
mod spec;
mod status;
mod tell;

use decide::Step;
use status::Stand;

/// Keeps a deleted object until its job is cancelled.
pub const FINALIZER: &str = "gristmill.dev/cancel";
/// Who writes the status, for server-side apply and in events.
pub const FIELD_MANAGER: &str = "gristmill-operator";

/// Objects that are looked at at a time.
const AT_A_TIME: u16 = 16;
/// How long one call may take, of the API or of the cluster.
const WITHIN: Duration = Duration::from_secs(30);
/// The first wait after something went wrong; it doubles up to [`MOST_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(500);
/// A watch is asked for anew after so many seconds.
const WATCH_SECONDS: u32 = 60;
/// As [`BACKOFF`].
const MOST_BACKOFF: Duration = Duration::from_secs(60);

/// The cluster's jobs, as its leading master knows them.
pub trait Jobs: Send + Sync + 'static {
    /// Submits a job, and says its id. With a key that was used for a job before it is that job, and no other is made. `spec.app` of an app
    /// that was pushed has no name, files and build, but `pushed`, with or without its version: they are filled in here.
    fn submit<'s>(&'s self, key: &'s str, spec: JobSpec, owner: &'s Owner) -> BoxFuture<'s, Result<String, Refused>>;

    /// The job that was submitted with this key; `None`: there was none.
    fn find<'s>(&'s self, key: &'s str, owner: &'s Owner) -> BoxFuture<'s, Result<Option<String>, Refused>>;

    /// A job as it is, all that was acknowledged before included; `None`: it is not known, or so old that it is kept no more.
    fn status<'s>(&'s self, job: &'s str) -> BoxFuture<'s, Result<Option<JobStatus>, Refused>>;

    /// Cancels a job. One that has ended, is not known, or can not be cancelled any more is no error. `why` is found in the job's error.
    fn cancel<'s>(&'s self, job: &'s str, why: &'s str) -> BoxFuture<'s, Result<(), Refused>>;

    /// Takes note of what went wrong here and is tried again: one line.
    fn noted(&self, line: &str) {
        let _ = line;
    }
}

/// The object that a job is submitted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Why the cluster did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refused {
    /// It may do it another time; otherwise it never will as it is.
    pub retry: bool,
    /// A word in CamelCase, as in "OutputTaken".
    pub reason: String,
    /// One line: what is wrong, and what to do.
    pub message: String,
}

/// How often the operator looks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At a job that has not ended. Progress is told no more often.
    pub running: Duration,
    /// At an object where nothing is expected to happen.
    pub otherwise: Duration,
    /// Who tells events: the pod's name.
    pub instance: Option<String>,
    /// The cluster's id. Terms of another one, as of an installation before this, mean nothing here.
    pub cluster: String,
}

impl Default for Settings {
    fn default() -> Self {
        let (running, otherwise) = (Duration::from_secs(2), Duration::from_secs(60));
        Self { running, otherwise, instance: None, cluster: String::new() }
    }
}

/// Why a turn came to nothing. It is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API server did not {0}")]
    Api(&'static str, #[source] kube::Error),
    #[error("the cluster did not {0}")]
    Jobs(&'static str, #[source] Refused),
    #[error("there was no answer within {seconds} s when it was to {0}", seconds = WITHIN.as_secs())]
    Late(&'static str),
    #[error("the finalizer {FINALIZER} could not be set or removed")]
    Finalizer(#[source] Box<kube::Error>),
    #[error("the object has no name or no UID")]
    Nameless,
}

/// Follows the MapReduceJobs of a namespace until `stop`, as the leader of a term. It ends at once, between two calls.
pub async fn run(
    client: Client,
    namespace: &str,
    jobs: Arc<dyn Jobs>,
    term: u64,
    settings: Settings,
    stop: impl Future<Output = ()>,
) {
    let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: settings.instance.clone() };
    let context = Arc::new(Operator {
        api: Api::namespaced(client.clone(), namespace),
        jobs,
        term: i64::try_from(term).unwrap_or(i64::MAX),
        settings,
        recorder: Recorder::new(client, reporter),
        remembered: Mutex::default(),
    });
    // A connection that died in silence is noticed a little after this.
    let watch = watcher::Config::default().timeout(WATCH_SECONDS);
    let turns = Controller::new(context.api.clone(), watch)
        .with_config(controller::Config::default().concurrency(AT_A_TIME))
        .run(turn, after_error, context.clone());
    let mut said = String::new();
    let followed = turns.for_each(|done| {
        match done {
            Ok(_) => said.clear(),
            // Told where they are met.
            Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {}
            Err(e) => {
                let line = format!("MapReduceJobs are not followed: {}", chain(&e));
                // The watch is tried again and again, and says the same each time.
                if line != said {
                    context.jobs.noted(&line);
                    said = line;
                }
            }
        }
        std::future::ready(())
    });
    tokio::select! {
        () = followed => {}
        () = stop => {}
    }
}

/// One turn of an object.
async fn turn(object: Arc<MapReduceJob>, operator: Arc<Operator>) -> Result<Action, Error> {
    // Before anything else: not even a finalizer is set against a later leader.
    if object.status.as_ref().is_some_and(|status| status.term > operator.term_beside(status)) {
        return Ok(Action::requeue(operator.settings.otherwise));
    }
    let uid = object.uid().ok_or(Error::Nameless)?;
    // What has ended has nothing to be cancelled: it can be deleted where no operator is any more.
    let ended = object.status.as_ref().is_some_and(|status| status.phase.is_some_and(Phase::has_ended));
    if ended && object.metadata.deletion_timestamp.is_none() {
        operator.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        return match operator.let_go(&object).await? {
            // The object is another one now.
            true => Ok(Action::await_change()),
            false => operator.apply(&object).await,
        };
    }
    let inner = operator.clone();
    let done = finalizer(&operator.api, FINALIZER, object, |event| async move {
        match event {
            Event::Apply(object) => inner.apply(&object).await,
            Event::Cleanup(object) => inner.clean(&object).await,
        }
    });
    let done = timeout(WITHIN * 6, done).await.map_err(|_| Error::Late("come to an end with the object"))?;
    let done = done.map_err(|e| match e {
        finalizer::Error::ApplyFailed(e) | finalizer::Error::CleanupFailed(e) => e,
        finalizer::Error::AddFinalizer(e) | finalizer::Error::RemoveFinalizer(e) => Error::Finalizer(Box::new(e)),
        finalizer::Error::UnnamedObject | finalizer::Error::InvalidFinalizer => Error::Nameless,
    })?;
    // One that is gone by now is not remembered again.
    if let Some(known) = operator.remembered.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&uid) {
        known.failures = 0;
    }
    Ok(done)
}

/// What comes after a turn that failed: a wait, each time longer.
#[expect(clippy::needless_pass_by_value, reason = "the controller calls it so")]
fn after_error(object: Arc<MapReduceJob>, error: &Error, operator: Arc<Operator>) -> Action {
    let wait = operator.backoff(&object.uid().unwrap_or_default());
    let name = object.name_any();
    operator.jobs.noted(&format!(
        "MapReduceJob {name}: {}; it is tried again in {} ms",
        chain(error),
        wait.as_millis()
    ));
    Action::requeue(wait)
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut line, mut cause) = (error.to_string(), error.source());
    while let Some(one) = cause {
        line = format!("{line}: {one}");
        cause = one.source();
    }
    line
}

struct Operator {
    api: Api<MapReduceJob>,
    jobs: Arc<dyn Jobs>,
    term: i64,
    settings: Settings,
    recorder: Recorder,
    /// By UID, of objects that are not gone.
    remembered: Mutex<HashMap<String, Known>>,
}

/// What is remembered of an object, to be gentle: nothing that counts.
#[derive(Default)]
struct Known {
    /// Turns in a row that failed.
    failures: u32,
    /// When its status was last written.
    written: Option<Instant>,
}

impl Operator {
    /// This one's term, as it is to be compared with that of a status: if that is another cluster's, later than any.
    fn term_beside(&self, status: &MapReduceJobStatus) -> i64 {
        let other = status.cluster.as_ref().is_some_and(|cluster| *cluster != self.settings.cluster);
        if other { i64::MAX } else { self.term }
    }

    /// Takes the finalizer off, if it is on.
    async fn let_go(&self, object: &MapReduceJob) -> Result<bool, Error> {
        let all = object.metadata.finalizers.clone().unwrap_or_default();
        if !all.iter().any(|one| one == FINALIZER) {
            return Ok(false);
        }
        let name = object.metadata.name.as_deref().ok_or(Error::Nameless)?;
        let others: Vec<&String> = all.iter().filter(|one| *one != FINALIZER).collect();
        // Others may set or remove theirs at the same time.
        let merged = json!({"metadata": {"finalizers": others, "resourceVersion": object.metadata.resource_version}});
        let (what, params) = ("take off the finalizer", PatchParams::default());
        let done = within(what, self.api.patch(name, &params, &Patch::Merge(merged))).await?;
        match done {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            Err(e) => Err(Error::Api(what, e)),
        }
    }

    fn remember<T>(&self, uid: &str, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(uid.into()).or_default())
    }

    fn backoff(&self, uid: &str) -> Duration {
        let failures = self.remember(uid, |known| {
            known.failures = known.failures.saturating_add(1);
            known.failures
        });
        BACKOFF.saturating_mul(1 << (failures - 1).min(10)).min(MOST_BACKOFF)
    }

    /// A turn of an object that stays.
    async fn apply(&self, object: &MapReduceJob) -> Result<Action, Error> {
        let told = object.status.clone().unwrap_or_default();
        let now = Timestamp::now();
        match decide::next(&object.spec, &told, self.term_beside(&told), now) {
            Step::Leave => Ok(Action::requeue(self.settings.otherwise)),
            Step::Rest(None) => Ok(Action::await_change()),
            Step::Rest(Some(until)) => Ok(Action::requeue(between(now, until))),
            Step::Delete => self.delete(object).await,
            Step::Hold => self.hold(object, &told).await,
            Step::Submit => self.submit(object, &told).await,
            Step::Follow(job) => self.follow(object, &told, &job).await,
        }
    }

    async fn submit(&self, object: &MapReduceJob, told: &MapReduceJobStatus) -> Result<Action, Error> {
        let owner = owner(object)?;
        let key = spec::key(&owner.uid, told.submissions);
        let submitted = within("submit the job", self.jobs.submit(&key, spec::job(&object.spec), &owner)).await?;
        match submitted {
            Ok(id) => {
                let known = self.status_of(&id).await?;
                let queued = || JobStatus { id, state: JobState::Queued.into(), ..JobStatus::default() };
                self.tell(object, told, &Stand::Job(&known.unwrap_or_else(queued))).await
            }
            Err(refused) if refused.retry => {
                self.tell(object, told, &Stand::Waits(&refused)).await?;
                Err(Error::Jobs("take the job", refused))
            }
            Err(refused) => self.tell(object, told, &Stand::Refused(&refused)).await,
        }
    }

    async fn follow(&self, object: &MapReduceJob, told: &MapReduceJobStatus, id: &str) -> Result<Action, Error> {
        let Some(mut job) = self.status_of(id).await? else { return self.tell(object, told, &Stand::Gone).await };
        let late = decide::deadline(&object.spec, told).is_some_and(|deadline| deadline <= Timestamp::now());
        // One that publishes its output cannot be cancelled any more.
        if late && job.ended_ms == 0 && job.state() != JobState::Committing {
            self.cancel(id, status::DEADLINE).await?;
            job = self.status_of(id).await?.unwrap_or(job);
        }
        self.tell(object, told, &Stand::Job(&job)).await
    }

    async fn hold(&self, object: &MapReduceJob, told: &MapReduceJobStatus) -> Result<Action, Error> {
        let Some(id) = self.job_of(object, told).await? else { return self.tell(object, told, &Stand::Held).await };
        self.cancel(&id, status::SUSPENDED).await?;
        match self.status_of(&id).await? {
            None => self.tell(object, told, &Stand::Held).await,
            Some(job) => self.tell(object, told, &Stand::Job(&job)).await,
        }
    }

    /// A turn of an object that is being deleted: its job is cancelled. Then the finalizer goes.
    async fn clean(&self, object: &MapReduceJob) -> Result<Action, Error> {
        let told = object.status.clone().unwrap_or_default();
        if !told.phase.is_some_and(Phase::has_ended)
            && let Some(id) = self.job_of(object, &told).await?
        {
            self.cancel(&id, status::DELETED).await?;
            let note = format!("job {id}: {}", status::DELETED);
            let about = object.object_ref(&());
            tell::publish(&self.recorder, &about, tell::Told { reason: "Cancelled".into(), note, warning: false })
                .await;
        }
        if let Some(uid) = object.uid() {
            self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        }
        Ok(Action::await_change())
    }

    /// The job of an object: also one that was submitted when nobody came to write it down.
    async fn job_of(&self, object: &MapReduceJob, told: &MapReduceJobStatus) -> Result<Option<String>, Error> {
        if told.job_id.is_some() {
            return Ok(told.job_id.clone());
        }
        let (owner, what) = (owner(object)?, "look for the job");
        let key = spec::key(&owner.uid, told.submissions);
        within(what, self.jobs.find(&key, &owner)).await?.map_err(|e| Error::Jobs(what, e))
    }

    async fn status_of(&self, id: &str) -> Result<Option<JobStatus>, Error> {
        let what = "tell how the job stands";
        within(what, self.jobs.status(id)).await?.map_err(|e| Error::Jobs(what, e))
    }

    async fn cancel(&self, id: &str, why: &str) -> Result<(), Error> {
        let what = "cancel the job";
        within(what, self.jobs.cancel(id, why)).await?.map_err(|e| Error::Jobs(what, e))
    }

    /// Writes the status if it is another one than before, tells of it, and says when to look again.
    async fn tell(&self, object: &MapReduceJob, old: &MapReduceJobStatus, stand: &Stand<'_>) -> Result<Action, Error> {
        let uid = object.uid().ok_or(Error::Nameless)?;
        let mut new = status::told(old, stand, (object.metadata.generation, self.term), Timestamp::now());
        new.cluster = Some(self.settings.cluster.clone()).filter(|cluster| !cluster.is_empty());
        let since = self.remember(&uid, |known| known.written).map(|written| written.elapsed());
        let soon = since.is_some_and(|since| since < self.settings.running);
        // Each write comes back as a change: without this, progress would be written as fast as that goes around.
        if new != *old && !(soon && status::differ_in_progress_alone(old, &new)) {
            self.write(object, &new).await?;
            self.remember(&uid, |known| known.written = Some(Instant::now()));
            for told in tell::between(old, &new) {
                tell::publish(&self.recorder, &object.object_ref(&()), told).await;
            }
        }
        if new.job_id.is_none() || new.phase.is_some_and(Phase::has_ended) {
            return Ok(Action::requeue(self.settings.otherwise));
        }
        // One that is over is looked at as any other: its job may be publishing.
        let now = Timestamp::now();
        let deadline = decide::deadline(&object.spec, &new).filter(|deadline| *deadline > now);
        let deadline = deadline.map(|deadline| between(now, deadline));
        Ok(Action::requeue(deadline.map_or(self.settings.running, |left| left.min(self.settings.running))))
    }

    /// Writes a status, unless the object was changed since it was read.
    async fn write(&self, object: &MapReduceJob, status: &MapReduceJobStatus) -> Result<(), Error> {
        let name = object.metadata.name.as_deref().ok_or(Error::Nameless)?;
        let applied = json!({
            "apiVersion": MapReduceJob::api_version(&()),
            "kind": MapReduceJob::kind(&()),
            "metadata": {"name": name, "resourceVersion": object.metadata.resource_version, "uid": object.metadata.uid},
            "status": status,
        });
        let (what, params) = ("take the status", PatchParams::apply(FIELD_MANAGER).force());
        let written = within(what, self.api.patch_status(name, &params, &Patch::Apply(applied))).await?;
        written.map(drop).map_err(|e| Error::Api(what, e))
    }

    async fn delete(&self, object: &MapReduceJob) -> Result<Action, Error> {
        let name = object.metadata.name.as_deref().ok_or(Error::Nameless)?;
        let exactly = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        let (what, params) = ("delete the object", DeleteParams::background().preconditions(exactly));
        match within(what, self.api.delete(name, &params)).await? {
            Ok(_) => Ok(Action::await_change()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::await_change()),
            Err(e) => Err(Error::Api(what, e)),
        }
    }
}

fn owner(object: &MapReduceJob) -> Result<Owner, Error> {
    let (name, uid) = object.metadata.name.clone().zip(object.uid()).ok_or(Error::Nameless)?;
    Ok(Owner { namespace: object.namespace().unwrap_or_default(), name, uid })
}

async fn within<T>(what: &'static str, call: impl Future<Output = T>) -> Result<T, Error> {
    timeout(WITHIN, call).await.map_err(|_| Error::Late(what))
}

/// From now until then, and a little more so that then has come.
fn between(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default() + Duration::from_millis(20)
}
