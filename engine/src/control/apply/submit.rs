//! New jobs: submitted, repeated, or begun because the one before completed.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1::{JobSpec, Phase};
use imbl::Vector;
use prost::Message as _;

use super::{ACCEPTED, ALREADY, Decision, Step, Touch, refused};
use crate::control::ids::{Digest, digest};
use crate::control::job::{Job, JobState};
use crate::control::limits;
use crate::control::spec;
use crate::control::state::{Key, State};
use crate::control::task::Facts;

/// Within which submissions are counted.
const MINUTE_MS: u64 = 60_000;

impl State {
    pub(super) fn submit(&mut self, step: &mut Step, submit: wire::SubmitJob) -> Decision<Outcome> {
        let Some(spec) = submit.spec else {
            return Err(refused(Code::Invalid, "no job is described".into(), ""));
        };
        self.submit_spec(step, &submit.key, spec, submit.retry_of)
    }

    pub(super) fn retry(&mut self, step: &mut Step, retry: &wire::RetryJob) -> Decision<Outcome> {
        let job = self.jobs.get(&retry.job).ok_or_else(|| no_job(retry.job))?;
        if !matches!(job.state, JobState::Failed | JobState::Cancelled) {
            let message = format!("job {} has neither failed nor been cancelled", job.id);
            return Err(refused(Code::State, message, "submit it again under another output"));
        }
        let mut spec = JobSpec::clone(&job.spec);
        // What they were may not be offered any more.
        spec::forget_builds(&mut spec);
        self.submit_spec(step, &retry.key, spec, retry.job)
    }

    fn submit_spec(&mut self, step: &mut Step, key: &str, mut spec: JobSpec, of: u64) -> Decision<Outcome> {
        if key.is_empty() || key.len() > limits::LONG_NAME_BYTES {
            let message = format!("a submission's key has 1 to {} bytes", limits::LONG_NAME_BYTES);
            return Err(refused(Code::Invalid, message, ""));
        }
        let key = digest(&[step.principal.as_bytes(), key.as_bytes()]);
        let content = digest(&[&spec.encode_to_vec(), &of.to_be_bytes()]);
        self.forget_keys();
        if let Some(job) = self.known(key, content)? {
            return Ok(Outcome::Submitted(wire::Submitted { job, already: true }));
        }
        spec::check(&spec)?;
        self.check_quota(step)?;
        self.check_limits(step)?;
        for spec in spec::chain(&spec) {
            if let Some((taken, job)) = self.overlapping(spec::output(spec)) {
                let message = format!("output {:?} overlaps with {taken:?} of job {job}", spec.output);
                return Err(refused(Code::Conflict, message, "name another folder, or wait for that job's end"));
            }
        }
        self.pin_builds(&mut spec)?;
        self.count_submission(&step.principal);
        self.remember(key, Key { spec: content, job: step.index, at_ms: self.now_ms });
        let mut job = Job::new(step.index, step.principal.clone(), Arc::new(spec), self.now_ms);
        job.retry_of = of;
        self.enter(&job);
        self.insert(step, job);
        Ok(Outcome::Submitted(wire::Submitted { job: step.index, already: false }))
    }

    /// The job of a key that is remembered.
    fn known(&self, key: Digest, content: Digest) -> Decision<Option<u64>> {
        match self.keys.get(&key) {
            Some(row) if row.spec == content => Ok(Some(row.job)),
            Some(row) => {
                let message = format!("the key was used for another job, {}, in the last 24 hours", row.job);
                Err(refused(Code::Conflict, message, "use a new key for each job"))
            }
            None => Ok(None),
        }
    }

    /// Of a user who is here still.
    fn check_quota(&self, step: &Step) -> Decision<()> {
        if !self.access.is_here(&step.principal) {
            let message = format!("{} is no user of this cluster any more", step.principal);
            return Err(refused(Code::Denied, message, "ask an administrator"));
        }
        // It was there when this was decided.
        if step.session != 0 && self.access.principal(step.session, self.now_ms).is_err() {
            return Err(super::sessions::gone());
        }
        let quota = self.access.quota(&step.principal);
        let mine = self.live_of_user.get(&step.principal).copied().unwrap_or_default();
        if quota.jobs > 0 && mine >= quota.jobs {
            let message = format!("your quota is {} jobs that have not ended", quota.jobs);
            return Err(refused(Code::Limit, message, "wait until one has ended, or ask an administrator for more"));
        }
        let this_minute = self.access.user(&step.principal).map_or(0, |user| self.submissions(user));
        if quota.submissions_a_minute > 0 && this_minute >= quota.submissions_a_minute {
            let message = format!("your quota is {} submissions a minute", quota.submissions_a_minute);
            return Err(refused(Code::Limit, message, "wait a minute, or ask an administrator for more"));
        }
        Ok(())
    }

    /// A user's submissions in the minute that runs.
    fn submissions(&self, user: &wire::UserRecord) -> u32 {
        if user.minute_ms.saturating_add(MINUTE_MS) > self.now_ms { user.submissions } else { 0 }
    }

    fn count_submission(&mut self, principal: &Arc<str>) {
        let Some(user) = self.access.users.get(principal).filter(|user| user.quota.is_some()) else { return };
        let (mut user, before) = (wire::UserRecord::clone(user), self.submissions(user));
        if before == 0 {
            user.minute_ms = self.now_ms;
        }
        user.submissions = before + 1;
        self.access.users.insert(principal.clone(), Arc::new(user));
    }

    fn check_limits(&self, step: &Step) -> Decision<()> {
        let mine = self.live_of_user.get(&step.principal).copied().unwrap_or_default();
        let limits = [
            (mine < limits::JOBS_OF_A_USER, format!("you have {mine} jobs that have not ended")),
            (self.jobs.len() < limits::JOBS, format!("the cluster has {} jobs", self.jobs.len())),
            (self.keys.len() < limits::KEYS, "too many jobs were submitted in 24 hours".into()),
        ];
        match limits.into_iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(refused(Code::Limit, message, "wait until some of them have ended")),
            None => Ok(()),
        }
    }

    /// Of a job and of those after it: what nobody offers is told now, and not when the job before has completed.
    fn pin_builds(&self, spec: &mut JobSpec) -> Decision<()> {
        self.pin_build(spec)?;
        spec.then.as_deref_mut().map_or(Ok(()), |then| self.pin_builds(then))
    }

    fn pin_build(&self, spec: &mut JobSpec) -> Decision<()> {
        let app = spec.app.get_or_insert_default();
        let Some(build) = self.build_of(&app.name, &app.build, &spec.requires) else {
            let of = if app.build.is_empty() { String::new() } else { format!(" of build {}", app.build) };
            let with =
                if spec.requires.is_empty() { String::new() } else { format!(" and has {}", spec.requires.join(", ")) };
            let message = format!("no worker offers app {:?}{of}{with}", app.name);
            return Err(refused(Code::Unavailable, message, "start a worker that has it, or correct the name"));
        };
        app.build = build;
        Ok(())
    }

    fn insert(&mut self, step: &mut Step, job: Job) {
        step.touched.push(Touch::Job(job.id));
        self.jobs.insert(job.id, Arc::new(job));
    }

    /// The job after one that has just completed. Its id is the index of the command that completed the other.
    pub(super) fn begin_next(&mut self, step: &mut Step, before: &Job) {
        let Some(spec) = before.spec.then.as_deref() else { return };
        let mut spec = spec.clone();
        if spec.inputs.is_empty() {
            spec.inputs.push(format!("{}/", spec::output(&before.spec)));
        }
        // That nobody offers the app at this moment ends no job: it waits, as any other does.
        let job = Job::new(step.index, before.principal.clone(), Arc::new(spec), self.now_ms);
        self.enter(&job);
        self.insert(step, job);
    }

    pub(super) fn plan(&mut self, step: &mut Step, plan: wire::PlanJob) -> Decision<Outcome> {
        let now_ms = self.now_ms;
        let job = self.job_mut(plan.job).ok_or_else(|| no_job(plan.job))?;
        if job.state != JobState::Queued {
            return Ok(ALREADY);
        }
        let maps = plan.maps <= limits::MAPS && (job.phase() != Phase::Reduce || plan.maps == 0);
        let parts = match plan.reduces {
            // A part for each map.
            0 => job.phase() == Phase::Unspecified && !plan.survey && plan.maps <= limits::PARTS,
            parts => parts <= limits::PARTS,
        };
        if !maps || plan.plan.len() != 16 || !parts {
            return Err(refused(Code::Invalid, format!("the plan of job {} makes no sense", plan.job), ""));
        }
        job.maps = (0..plan.maps).map(|_| Facts::default()).collect();
        if job.phase() != Phase::Map {
            job.reduces = Vector::from_iter((0..plan.reduces).map(|_| Facts::default()));
        }
        job.survey = (plan.survey && plan.maps > 0).then(Facts::default);
        job.plan = Some(plan);
        job.started_ms = now_ms;
        job.recount();
        job.go(JobState::Mapping);
        job.advance(now_ms);
        step.touched.push(Touch::Job(job.id));
        Ok(ACCEPTED)
    }
}

pub(super) fn no_job(job: u64) -> wire::Refused {
    refused(Code::NotFound, format!("there is no job {job} that has not been archived"), "list the jobs")
}
