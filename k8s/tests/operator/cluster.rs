//! A cluster as its master would know it: a table of jobs that tests turn by hand.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gristmill_k8s::operator::{Jobs, Owner, Refused};
use gristmill_proto::v1::{JobError, JobSpec, JobState, JobStatus, job_error};

/// The cluster, as a master would know it.
#[derive(Default)]
pub(crate) struct Cluster(Mutex<State>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) jobs: BTreeMap<String, JobStatus>,
    pub(crate) keys: Vec<(String, String)>,
    pub(crate) refuses: Option<Refused>,
    pub(crate) noted: Vec<String>,
}

impl Cluster {
    pub(crate) fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(crate) fn turn(&self, job: &str, act: impl FnOnce(&mut JobStatus)) {
        self.state(|state| act(state.jobs.get_mut(job).unwrap()));
    }

    pub(crate) fn set(&self, job: &str, to: JobState) {
        self.turn(job, |job| {
            job.state = to.into();
            if [JobState::Completed, JobState::Failed, JobState::Cancelled].contains(&to) {
                job.ended_ms = now_ms();
            }
        });
    }

    pub(crate) fn job(&self, id: &str) -> JobStatus {
        self.state(|state| state.jobs[id].clone())
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.state(|state| state.keys.iter().map(|(key, _)| key.clone()).collect())
    }

    /// A job for a key, as if it had been submitted.
    pub(crate) fn insert(&self, key: &str, spec: JobSpec) -> String {
        self.state(|state| {
            let id = format!("c-{}", state.jobs.len() + 1);
            let job = JobStatus {
                id: id.clone(),
                spec: Some(spec),
                state: JobState::Queued.into(),
                submitted_ms: now_ms(),
                ..JobStatus::default()
            };
            state.jobs.insert(id.clone(), job);
            state.keys.push((key.into(), id.clone()));
            id
        })
    }
}

impl Jobs for Cluster {
    fn submit<'s>(&'s self, key: &'s str, spec: JobSpec, _: &'s Owner) -> BoxFuture<'s, Result<String, Refused>> {
        let known = self.state(|state| match &state.refuses {
            Some(refused) => Err(refused.clone()),
            None => Ok(state.keys.iter().find(|(known, _)| known == key).map(|(_, id)| id.clone())),
        });
        let done = known.map(|known| known.unwrap_or_else(|| self.insert(key, spec)));
        async move { done }.boxed()
    }

    fn find<'s>(&'s self, key: &'s str, _: &'s Owner) -> BoxFuture<'s, Result<Option<String>, Refused>> {
        let found = self.state(|state| state.keys.iter().find(|(known, _)| known == key).map(|(_, id)| id.clone()));
        async move { Ok(found) }.boxed()
    }

    fn status<'s>(&'s self, job: &'s str) -> BoxFuture<'s, Result<Option<JobStatus>, Refused>> {
        let found = self.state(|state| state.jobs.get(job).cloned());
        async move { Ok(found) }.boxed()
    }

    fn cancel<'s>(&'s self, job: &'s str, why: &'s str) -> BoxFuture<'s, Result<(), Refused>> {
        self.state(|state| {
            let Some(job) = state.jobs.get_mut(job) else { return };
            if job.ended_ms == 0 && job.state() != JobState::Committing {
                let (reason, message) = (job_error::Reason::Cancelled.into(), format!("cancelled by operator: {why}"));
                job.error = Some(JobError { reason, message, next_step: String::new() });
                job.state = JobState::Cancelled.into();
                job.ended_ms = now_ms();
            }
        });
        async { Ok(()) }.boxed()
    }

    fn noted(&self, line: &str) {
        assert!(!line.contains('\n'), "{line}");
        self.state(|state| state.noted.push(line.into()));
    }
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap()
}
