//! What clients may ask of a cluster, below any transport: requests and answers are the messages of `gristmill.v1`.
//!
//! Everything that changes or promises freshness is done by the leader; other masters answer [`ApiError::NotLeader`], and
//! the transport passes the request on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1 as api;
use gristmill_raft::net::Peer;
use gristmill_raft::runtime::AsyncRuntime;

use super::{LED_WITHIN, MasterEnv, MasterNode};
use crate::control::commit;
use crate::control::ids::{job_name, job_of_name};
use crate::control::job::Job;
use crate::control::rights::{Principal, Right};
use crate::node::point::Point;
use crate::node::rpc::CallError;
use crate::node::spec;
use crate::registry::Files;
use crate::store::Pattern;

/// How long a completed job may take to be archived before another one is refused its output's name.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(10);
/// How often that is looked at, whatever changes.
const LOOK: Duration = Duration::from_millis(200);

/// What kind of an error it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request makes no sense.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// A name or key is in use for something else.
    Conflict,
    /// A limit is reached.
    Limit,
    /// Not in the state that it is in.
    State,
    /// Not to who asks.
    Denied,
    /// It is not known who asks.
    Unauthenticated,
    /// Not now; it may go well another time. Nothing was done.
    Unavailable,
    /// Whether it was done is not known.
    Unknown,
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Ask the leader.
    #[error("this master does not lead")]
    NotLeader {
        /// Its address, if it is known.
        leader: Option<String>,
    },
    /// The answer is no.
    #[error("{message}{}{next_step}", if next_step.is_empty() { "" } else { "; " })]
    Refused {
        /// What kind of no.
        code: Code,
        /// What, where.
        message: String,
        /// What to do.
        next_step: String,
    },
}

pub(super) fn refused(code: Code, message: impl Into<String>, next_step: &str) -> ApiError {
    ApiError::Refused { code, message: message.into(), next_step: next_step.into() }
}

pub(super) fn no_job(job: &str) -> ApiError {
    refused(Code::NotFound, format!("there is no job {job}"), "see `gristmill jobs`")
}

impl From<CallError> for ApiError {
    fn from(e: CallError) -> Self {
        match e {
            CallError::NotLeader { leader } => Self::NotLeader { leader },
            CallError::NotSent(why) => refused(Code::Unavailable, why, "try again"),
            CallError::Unknown(why) => refused(Code::Unknown, why, "ask again with the same key"),
            CallError::Refused(why) => refused(Code::Invalid, why, ""),
        }
    }
}

impl From<wire::Refused> for ApiError {
    fn from(no: wire::Refused) -> Self {
        use wire::refused::Code as Theirs;
        let code = match no.code() {
            Theirs::Unspecified | Theirs::Invalid => Code::Invalid,
            Theirs::NotFound => Code::NotFound,
            Theirs::Conflict => Code::Conflict,
            Theirs::Limit => Code::Limit,
            Theirs::State => Code::State,
            Theirs::Unavailable => Code::Unavailable,
            Theirs::Denied => Code::Denied,
            Theirs::Unauthenticated => Code::Unauthenticated,
        };
        Self::Refused { code, message: no.message, next_step: no.next_step }
    }
}

/// Whether somebody sees a job of this user's.
pub(super) fn sees(who: &Principal, owner: &str) -> bool {
    who.may(Right::JobsRead, Right::JobsReadAny, owner)
}

/// Whether somebody may run a job: it reads what that one may read, and writes what that one may write.
fn may_run(who: &Principal, spec: &api::JobSpec) -> Result<(), ApiError> {
    if !who.rights.has(Right::JobsSubmit) {
        return Err(refused(Code::Denied, "it takes the right jobs.submit", "ask an administrator"));
    }
    let below = || match &*who.prefix {
        "" => "ask an administrator".to_string(),
        prefix => format!("your own files are below {prefix}, what all may read is below shared/"),
    };
    let denied = |what: String| refused(Code::Denied, what, &below());
    // What a pattern may match begins with what is before its first sign.
    let read = |input: &String| Pattern::new(input).is_ok_and(|pattern| who.may_read(pattern.prefix()));
    if let Some(input) = spec.inputs.iter().find(|input| !read(input)) {
        return Err(denied(format!("you may not read {input}")));
    }
    match who.may_write(&spec.output) {
        true => Ok(()),
        false => Err(denied(format!("you may not write {}", spec.output))),
    }
}

impl<E: MasterEnv> MasterNode<E> {
    /// Makes the cluster, once, if it is not made yet.
    ///
    /// # Errors
    /// That this master does not lead, or that the outcome is not known.
    pub async fn init(&self, cluster: u64) -> Result<(), ApiError> {
        let init = wire::InitCluster { cluster, level: self.inner.env.level() };
        self.inner.propose(&Principal::system(), Action::InitCluster(init)).await?;
        Ok(())
    }

    /// The index of the last command that was applied here, and the digest of the state: masters of one cluster have the
    /// same at the same index. For tests, which compare them: it takes time in proportion to the state.
    pub fn fingerprint(&self) -> (u64, [u8; 16]) {
        let state = self.inner.state();
        (state.applied(), state.digest())
    }

    /// `Jobs.Submit`.
    ///
    /// # Errors
    /// Why the job was not taken, or that it is not known whether it was.
    pub async fn submit(&self, who: &Principal, request: api::SubmitRequest) -> Result<api::SubmitResponse, ApiError> {
        let spec = request.spec.ok_or_else(|| refused(Code::Invalid, "a job without a spec", ""))?;
        let mut each = Some(&spec);
        while let Some(one) = each {
            may_run(who, one)?;
            self.check(one).await?;
            each = one.then.as_deref();
        }
        self.confirm().await?;
        self.archived(&spec.output).await;
        let submit = wire::SubmitJob { key: request.key, spec: Some(spec), retry_of: 0 };
        self.submitted(who, Action::SubmitJob(submit)).await
    }

    /// Waits while an output's name is that of a job that has completed and is about to be archived. If that takes long,
    /// the submission is refused with its name.
    async fn archived(&self, output: &str) {
        for _ in 0..ARCHIVED_WITHIN.as_millis() / LOOK.as_millis() {
            let state = self.inner.state();
            let holder = state.claim(output).and_then(|job| state.job(job));
            if holder.is_none_or(|job| !job.has_ended()) {
                return;
            }
            self.changed(LOOK).await;
        }
    }

    /// Refuses at once what can be seen to fail.
    async fn check(&self, job: &api::JobSpec) -> Result<(), ApiError> {
        let app = job.app.clone().unwrap_or_default();
        let advice = format!("see `gristmill run {} --help`", app.name);
        let invalid = |e: String| refused(Code::Invalid, e, &advice);
        spec::options(job, 1 << 30).map_err(invalid)?;
        let ours = |name: &String| name.starts_with(commit::ROOT);
        if job.inputs.iter().any(ours) || ours(&job.output) {
            return Err(refused(
                Code::Invalid,
                format!("{}/ is the cluster's own", commit::ROOT),
                "name another folder",
            ));
        }
        // Who leads divides the inputs, as the app says.
        if !self.inner.env.apps().has(&app.name) {
            let what = format!("the master that leads has no app '{}' in its build", app.name);
            return Err(refused(Code::Invalid, what, "see `gristmill apps`, or run masters of the build that has it"));
        }
        // The app's own code looks at its flags: it may panic.
        let env = self.inner.env.clone();
        let looked =
            self.inner.env.blocking(move || env.apps().job(&app.name, &app.arguments, Files::Elsewhere).map(drop));
        looked.await.unwrap_or_else(|| Err("the app panicked over its flags".into())).map_err(invalid)
    }

    /// The job that somebody submitted with this key in the last 24 hours.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn job_of_key(&self, who: &Principal, key: &str) -> Result<Option<String>, ApiError> {
        self.confirm().await?;
        let state = self.inner.state();
        Ok(state.job_of_key(&who.name, key).map(|job| job_name(state.cluster(), job)))
    }

    async fn submitted(&self, who: &Principal, action: Action) -> Result<api::SubmitResponse, ApiError> {
        match self.inner.propose(who, action).await? {
            Outcome::Submitted(done) => {
                self.inner.env.reached(Point::Submitted);
                let job = job_name(self.inner.state().cluster(), done.job);
                Ok(api::SubmitResponse { job, existed: done.already })
            }
            Outcome::Refused(no) => Err(no.into()),
            _ => Err(refused(Code::Unknown, "the reply makes no sense", "ask again with the same key")),
        }
    }

    pub(super) fn number(&self, job: &str) -> Result<u64, ApiError> {
        job_of_name(self.inner.state().cluster(), job).ok_or_else(|| no_job(job))
    }

    /// `Jobs.Get`.
    ///
    /// # Errors
    /// That there is no such job that may be seen, or that this master does not lead.
    pub async fn job(&self, who: &Principal, job: &str) -> Result<api::JobStatus, ApiError> {
        self.confirm().await?;
        let status = self.status_of(job).await?;
        if sees(who, &status.principal) { Ok(status) } else { Err(no_job(job)) }
    }

    async fn status_of(&self, job: &str) -> Result<api::JobStatus, ApiError> {
        let number = self.number(job)?;
        if let Some(status) = self.inner.leading().as_ref().and_then(|leading| leading.master.status(number)) {
            return Ok(status);
        }
        let state = self.inner.state();
        if let Some(now) = state.job(number) {
            return Ok(now.status(state.cluster()));
        }
        // Its history says more than its row, and stays when that is gone.
        Ok(self.kept(job, number).await?.status.unwrap_or_default())
    }

    /// That this node leads, and a quorum says so; and that the leader here has heard all that was acknowledged anywhere.
    pub(super) async fn confirm(&self) -> Result<(), ApiError> {
        self.inner.log.led(LED_WITHIN).await;
        match self.inner.log.read(|_| ()).await {
            Ok(()) => {
                self.inner.tell_applied();
                Ok(())
            }
            Err(gristmill_raft::Error::NotLeader { leader }) => {
                Err(ApiError::NotLeader { leader: leader.map(|peer| peer.address) })
            }
            Err(e) => Err(refused(Code::Unavailable, e.to_string(), "try again")),
        }
    }

    /// Digests of the files of apps that jobs need which have not ended, with the jobs after them.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn app_files(&self) -> Result<BTreeSet<Bytes>, ApiError> {
        self.confirm().await?;
        let state = self.inner.state();
        let open = state.jobs().filter(|job| !job.has_ended());
        let specs = open.flat_map(|job| std::iter::successors(Some(&*job.spec), |spec| spec.then.as_deref()));
        Ok(specs.filter_map(|spec| spec.app.as_ref()).flat_map(|app| &app.files).map(|f| f.digest.clone()).collect())
    }

    /// `Jobs.List`.
    ///
    /// # Errors
    /// That the token is none, or that this master does not lead.
    pub async fn jobs(
        &self,
        who: &Principal,
        request: &api::ListJobsRequest,
    ) -> Result<api::ListJobsResponse, ApiError> {
        self.confirm().await?;
        let state = self.inner.state();
        let cluster = state.cluster();
        let before = match request.page_token.as_str() {
            "" => u64::MAX,
            token => {
                token.parse().map_err(|_| refused(Code::Invalid, "no page is called so", "leave the token out"))?
            }
        };
        let size = if request.page_size == 0 { 100 } else { request.page_size.min(1000) } as usize;
        let wanted = |id: u64, principal: &str, state: i32| {
            id < before
                && sees(who, principal)
                && (request.user.is_empty() || principal == request.user)
                && (request.states.is_empty() || request.states.contains(&state))
        };
        let live = state.jobs().filter(|job| wanted(job.id, &job.principal, job.state.into()));
        let mut found: Vec<(u64, api::JobStatus)> = live.map(|job| (job.id, job.status(cluster))).collect();
        let rows = state.archive().filter(|row| wanted(row.id, &row.principal, row.state));
        found.extend(rows.map(|row| (row.id, archived(cluster, row))));
        found.sort_by_key(|(id, _)| Reverse(*id));
        let more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| more).map(|(id, _)| id.to_string());
        let jobs = found.into_iter().map(|(_, status)| status).collect();
        Ok(api::ListJobsResponse { jobs, next_page_token: next.unwrap_or_default() })
    }

    /// Waits until something of any job may have changed since this was called, `within` at most.
    pub fn changed(&self, within: Duration) -> impl Future<Output = ()> + Send + use<E> {
        let mut changed = self.inner.changed.listen();
        async move {
            E::Rt::select2(changed.heard(), E::Rt::sleep(within)).await;
        }
    }

    /// `Jobs.Cancel`.
    ///
    /// # Errors
    /// Why it was not cancelled.
    pub async fn cancel(&self, who: &Principal, job: &str, reason: String) -> Result<api::JobStatus, ApiError> {
        let status = self.changeable(who, job).await?;
        let number = self.number(job)?;
        if self.inner.state().job(number).is_none() && status.state() != api::JobState::Cancelled {
            return Err(refused(Code::State, format!("job {job} has ended"), ""));
        }
        match self.inner.propose(who, Action::CancelJob(wire::CancelJob { job: number, reason })).await? {
            Outcome::Refused(no) => Err(no.into()),
            _ => {
                self.confirm().await?;
                self.status_of(job).await
            }
        }
    }

    /// A job that may be cancelled and retried.
    async fn changeable(&self, who: &Principal, job: &str) -> Result<api::JobStatus, ApiError> {
        self.confirm().await?;
        let status = self.status_of(job).await?;
        match who.may(Right::JobsCancel, Right::JobsCancelAny, &status.principal) {
            true => Ok(status),
            false if sees(who, &status.principal) => {
                let what = format!("job {job} is {}'s", status.principal);
                Err(refused(Code::Denied, what, "it takes the right jobs.cancel.any to change it"))
            }
            false => Err(no_job(job)),
        }
    }

    /// `Jobs.Retry`.
    ///
    /// # Errors
    /// Why it was not submitted again.
    pub async fn retry(&self, who: &Principal, job: &str, key: String) -> Result<api::SubmitResponse, ApiError> {
        let status = self.changeable(who, job).await?;
        // The job is the caller's now.
        let chain = std::iter::successors(status.spec.as_ref(), |spec| spec.then.as_deref());
        chain.into_iter().try_for_each(|spec| may_run(who, spec))?;
        let number = self.number(job)?;
        if self.inner.state().job(number).is_some() {
            let retry = wire::RetryJob { job: number, key: key.clone() };
            match self.submitted(who, Action::RetryJob(retry)).await {
                // It was archived on the way there.
                Err(ApiError::Refused { code: Code::NotFound, .. }) => {}
                done => return done,
            }
        }
        // Archived: only its history still says what it was.
        if !matches!(status.state(), api::JobState::Failed | api::JobState::Cancelled) {
            let advice = "submit it again under another output";
            return Err(refused(Code::State, format!("job {job} has neither failed nor been cancelled"), advice));
        }
        let mut spec = status.spec.unwrap_or_default();
        crate::control::spec::forget_builds(&mut spec);
        self.submitted(who, Action::SubmitJob(wire::SubmitJob { key, spec: Some(spec), retry_of: number })).await
    }

    /// `Cluster.Status`.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn status(&self) -> Result<api::ClusterStatus, ApiError> {
        self.confirm().await?;
        let metrics = self.inner.log.metrics();
        let state = self.inner.state();
        let me = self.inner.log.identity().node;
        let master = |peer: &Peer, voter| api::MasterStatus {
            id: format!("{:016x}", peer.id),
            address: peer.address.clone(),
            leader: peer.id == me,
            voter,
            matched: 0,
        };
        let voters = metrics.voters.iter().map(|peer| master(peer, true));
        let masters = voters.chain(metrics.learners.iter().map(|peer| master(peer, false))).collect();
        let queued = |job: &&Arc<Job>| job.state == api::JobState::Queued;
        let slots = state.workers().filter_map(|worker| worker.info.as_ref()).map(|info| info.slots).sum();
        let busy = self.inner.leading().as_ref().map_or(0, |leading| leading.master.running().count());
        Ok(api::ClusterStatus {
            cluster: format!("{:016x}", state.cluster()),
            masters,
            term: metrics.leadership.term,
            applied: metrics.applied.unwrap_or(0),
            workers: state.workers().count() as u32,
            slots,
            busy_slots: busy as u32,
            queued_jobs: state.jobs().filter(queued).count() as u32,
            running_jobs: state.jobs().filter(|job| !queued(job) && !job.has_ended()).count() as u32,
            state_digest: state.digest().iter().map(|byte| format!("{byte:02x}")).collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            feature_level: state.level(),
        })
    }

    /// `Cluster.Workers`.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn workers(&self) -> Result<api::WorkersResponse, ApiError> {
        self.confirm().await?;
        let state = self.inner.state();
        let mut busy = BTreeMap::<u64, u32>::new();
        if let Some(leading) = self.inner.leading().as_ref() {
            leading.master.running().for_each(|(_, _, worker, _)| *busy.entry(worker).or_default() += 1);
        }
        let worker = |record: &wire::WorkerRecord| {
            let info = record.info.clone().unwrap_or_default();
            let seen = self.inner.leading().as_ref().and_then(|leading| leading.master.worker(record.incarnation));
            let aside = seen.is_some_and(|seen| seen.set_aside);
            let state = if record.draining { "draining" } else { ["ready", "set aside"][usize::from(aside)] };
            api::Worker {
                name: info.name,
                address: info.address,
                incarnation: record.incarnation,
                slots: info.slots,
                busy_slots: busy.get(&record.incarnation).copied().unwrap_or(0),
                state: state.into(),
                apps: info.apps.into_iter().map(|app| app.name).collect(),
                silent_ms: seen.map_or(0, |seen| u64::try_from(seen.silent.as_millis()).unwrap_or(u64::MAX)),
                tasks_done: seen.map_or(0, |seen| seen.done),
                tasks_failed: seen.map_or(0, |seen| seen.failed),
            }
        };
        let mut workers: Vec<api::Worker> = state.workers().map(worker).collect();
        workers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(api::WorkersResponse { workers })
    }

    /// `Cluster.Drain`.
    ///
    /// # Errors
    /// That there is no such worker.
    pub async fn drain(&self, who: &Principal, name: &str) -> Result<(), ApiError> {
        self.confirm().await?;
        let state = self.inner.state();
        let named = |worker: &&wire::WorkerRecord| worker.info.as_ref().is_some_and(|info| info.name == name);
        let worker = state.workers().find(named).map(|worker| worker.incarnation);
        let none = || refused(Code::NotFound, format!("no worker is called {name}"), "see `gristmill workers`");
        let incarnation = worker.ok_or_else(none)?;
        match self
            .inner
            .propose(who, Action::DrainWorker(wire::DrainWorker { incarnation, ..Default::default() }))
            .await?
        {
            Outcome::Refused(no) => Err(no.into()),
            _ => Ok(()),
        }
    }
}

/// What a row still says.
fn archived(cluster: u64, row: &wire::ArchiveRecord) -> api::JobStatus {
    let app = api::App { name: row.app.clone(), ..Default::default() };
    api::JobStatus {
        id: job_name(cluster, row.id),
        spec: Some(api::JobSpec { app: Some(app), ..Default::default() }),
        state: row.state,
        principal: row.principal.clone(),
        submitted_ms: row.submitted_ms,
        ended_ms: row.ended_ms,
        ..Default::default()
    }
}
