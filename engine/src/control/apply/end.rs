//! How jobs end: published, failed, cancelled, and at last archived.
//!
//! Once a job is committing its output is decided, and nobody else's word ends it: commit and abort never overlap.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1::{JobError, job_error::Reason};

use super::submit::no_job;
use super::{ACCEPTED, ALREADY, Decision, Step, Touch, refused};
use crate::control::job::{Job, JobState};
use crate::control::limits;
use crate::control::spec;
use crate::control::state::State;
use crate::control::task::cut;

impl State {
    pub(super) fn cancel(&mut self, step: &mut Step, cancel: wire::CancelJob) -> Decision<Outcome> {
        let id = cancel.job;
        let job = self.jobs.get(&id).ok_or_else(|| no_job(id))?;
        match job.state {
            JobState::Cancelled => return Ok(ALREADY),
            JobState::Committing => {
                let message = format!("the output of job {id} is decided and being published");
                return Err(refused(Code::State, message, "wait for its end"));
            }
            _ if job.has_ended() => {
                return Err(refused(Code::State, format!("job {id} has ended"), ""));
            }
            _ => {}
        }
        let by = format!("cancelled by {}", step.principal);
        let reason = cut(cancel.reason, limits::NEXT_STEP_BYTES);
        let message = if reason.is_empty() { by } else { format!("{by}: {reason}") };
        let error = JobError { reason: Reason::Cancelled.into(), message, next_step: String::new() };
        self.end(step, id, JobState::Cancelled, Some(error));
        Ok(ACCEPTED)
    }

    pub(super) fn published(&mut self, step: &mut Step, id: u64) -> Decision<Outcome> {
        let job = self.jobs.get(&id).ok_or_else(|| no_job(id))?;
        match job.state {
            JobState::Completed => Ok(ALREADY),
            JobState::Committing => {
                self.end(step, id, JobState::Completed, None);
                Ok(ACCEPTED)
            }
            _ => Err(refused(Code::State, format!("the output of job {id} is not decided"), "")),
        }
    }

    pub(super) fn fail(&mut self, step: &mut Step, fail: wire::FailJob) -> Decision<Outcome> {
        let job = self.jobs.get(&fail.job).ok_or_else(|| no_job(fail.job))?;
        if job.has_ended() {
            return Ok(ALREADY);
        }
        if job.state == JobState::Committing && !fail.unpublishable {
            return Err(refused(Code::State, format!("the output of job {} is decided", fail.job), ""));
        }
        self.end(step, fail.job, JobState::Failed, Some(fail.error.unwrap_or_default()));
        Ok(ACCEPTED)
    }

    /// Ends a job: what it claimed is free, and the job after it begins if there is reason to. The name of an output that was
    /// published stays claimed until the job is archived: until then a publisher that woke up late may still find what it
    /// needs to put that output there again.
    pub(super) fn end(&mut self, step: &mut Step, id: u64, state: JobState, error: Option<JobError>) {
        let now_ms = self.now_ms;
        let Some(job) = self.job_mut(id) else { return };
        job.go(state);
        job.ended_ms = now_ms;
        job.error = error.map(|error| Arc::new(bounded(error)));
        if state == JobState::Completed && job.spec.then.is_some() {
            job.next = step.index;
        }
        let job: Job = job.clone();
        step.touched.push(Touch::Job(id));
        self.leave(&job);
        if state == JobState::Completed {
            self.hold_output(&job);
            self.begin_next(step, &job);
        }
    }

    pub(super) fn archive_job(&mut self, step: &mut Step, archive: &wire::ArchiveJob) -> Decision<Outcome> {
        if self.archive.contains_key(&archive.job) {
            return Ok(ALREADY);
        }
        let job = self.jobs.get(&archive.job).ok_or_else(|| no_job(archive.job))?;
        if !job.has_ended() || archive.history.len() != 16 {
            return Err(refused(Code::State, format!("job {} can not be archived yet", job.id), ""));
        }
        let row = wire::ArchiveRecord {
            id: job.id,
            principal: job.principal.to_string(),
            app: job.called().to_string(),
            state: job.state.into(),
            submitted_ms: job.submitted_ms,
            ended_ms: job.ended_ms,
            history: archive.history.clone(),
            reason: job.error.as_ref().map_or(0, |error| error.reason),
        };
        if job.state == JobState::Completed {
            let output = spec::output(&job.spec).to_string();
            self.outputs.remove(output.as_str());
        }
        self.jobs.remove(&archive.job);
        self.keep_row(row);
        step.touched.push(Touch::Job(archive.job));
        Ok(ACCEPTED)
    }

    /// Keeps the row of a job, and no more rows than may be.
    pub(super) fn keep_row(&mut self, row: wire::ArchiveRecord) {
        self.archive.insert(row.id, Arc::new(row));
        while self.archive.len() > limits::ARCHIVE {
            let Some(oldest) = self.archive.get_min().map(|(id, _)| *id) else { break };
            self.archive.remove(&oldest);
        }
    }
}

fn bounded(error: JobError) -> JobError {
    let JobError { reason, message, next_step } = error;
    let message = cut(message, limits::ERROR_BYTES);
    JobError { reason, message, next_step: cut(next_step, limits::NEXT_STEP_BYTES) }
}
