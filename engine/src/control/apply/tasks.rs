//! What happened to tasks, change by change.
//!
//! The first end of an attempt that is applied for a task wins: that is the grant. An attempt counts only for its own
//! job, epoch and partition, while its worker's incarnation lives, and only if it has not failed before. Terms do not
//! matter: what an attempt of an earlier leader did is as good.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::failure::Cause;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::internal::v1::task_change::What;
use gristmill_proto::v1::{JobError, job_error::Reason};
use gristmill_raft::planted::{Bug, planted};

use super::{Step, Touch};
use crate::control::ids::{AttemptId, Stage, TaskId, job_name, tag};
use crate::control::job::{Job, JobState};
use crate::control::limits;
use crate::control::state::State;
use crate::control::task::{self, By, Failed, Place};
use wire::Verdict;
use wire::incident::Kind as Incident;

impl State {
    pub(super) fn change_tasks(&mut self, step: &mut Step, changes: wire::TaskChanges) -> Outcome {
        let changes = changes.changes.into_iter().take(limits::CHANGES);
        let verdicts = changes.map(|change| self.change_task(step, change).into()).collect();
        Outcome::Changes(wire::ChangesCounted { verdicts })
    }

    fn change_task(&mut self, step: &mut Step, change: wire::TaskChange) -> Verdict {
        let read = change.task.as_ref().and_then(TaskId::read);
        let (Some((task, attempt, epoch)), Some(what)) = (read, change.what) else { return Verdict::Invalid };
        let name: Option<Arc<str>> = self.name_of(change.worker);
        let Some(job) = self.jobs.get(&task.job) else { return Verdict::Late };
        let Some(facts) = job.facts(task.stage, task.partition) else {
            return if job.plan.is_some() { Verdict::Invalid } else { Verdict::Late };
        };
        if matches!(what, What::Done(_)) && facts.counted(attempt) {
            return Verdict::Repeated;
        }
        if !job.is_open() {
            return Verdict::Late;
        }
        if epoch != job.epoch && !planted(Bug::EpochIgnored) {
            return Verdict::Epoch;
        }
        let needs_no_worker = matches!(what, What::Lost(_) | What::Gone(_)) || planted(Bug::DeadWorkerCounts);
        let Some(worker) = name.or(needs_no_worker.then(Arc::default)) else { return Verdict::Dead };
        let by = By { worker, given_ms: change.given_ms, ended_ms: self.now_ms, backup: change.backup };
        let was = job.state;
        let verdict = match what {
            What::Done(done) => {
                let verdict = self.done(step, task, attempt, (change.worker, by), done);
                if let (Verdict::Counted, Some(beside)) = (verdict, change.beside) {
                    self.stopped(task, beside);
                }
                verdict
            }
            What::Failure(failure) => self.failed(step, task, attempt, by, failure),
            What::Lost(_) => self.lost(step, task, attempt),
            What::Moved(_) => self.moved(task, attempt, (change.worker, by)),
            What::Fetched(_) => self.fetched(task),
            What::Gone(gone) => self.gone(task, attempt, by, gone),
        };
        if verdict == Verdict::Counted {
            step.touched.push(Touch::Task(task));
        }
        if self.jobs.get(&task.job).is_some_and(|job| job.state != was) {
            step.touched.push(Touch::Job(task.job));
        }
        verdict
    }

    fn done(
        &mut self,
        step: &mut Step,
        id: TaskId,
        attempt: AttemptId,
        (worker, by): (u64, By),
        mut done: wire::Done,
    ) -> Verdict {
        let now_ms = self.now_ms;
        let Some(job) = self.job_mut(id.job) else { return Verdict::Late };
        let Some(facts) = job.facts(id.stage, id.partition) else { return Verdict::Invalid };
        if facts.has_failed(attempt) {
            return Verdict::Dead;
        }
        if facts.is_done() {
            if planted(Bug::SecondDoneCounts) {
                return replace_result(job, id, attempt, done);
            }
            return Verdict::Late;
        }
        let surveyed = job.survey.as_ref().is_none_or(|survey| survey.is_done());
        let ready = match id.stage {
            Stage::Survey => true,
            Stage::Map => surveyed,
            Stage::Reduce | Stage::Unspecified => job.maps_undone == 0,
        };
        let (true, Ok(digest)) = (ready, <[u8; 16]>::try_from(&*done.digest)) else { return Verdict::Invalid };
        let before = facts.result.clone();
        let counters = intern(job, std::mem::take(&mut done.counters));
        done.digest = bytes::Bytes::new();
        let on_worker = id.stage == Stage::Map && !job.ends_with_maps();
        let place = if on_worker { Place::Worker(worker) } else { Place::Store };
        let mut result = task::Result { attempt, epoch: job.epoch, place, digest, done, counters, by };
        match &before {
            // The same content: whoever read the one before has read this one.
            Some(before) if before.digest == digest => {
                result = task::Result { attempt, place, by: result.by, ..task::Result::clone(before) };
            }
            Some(_) => {
                raise_epoch(job);
                result.epoch = job.epoch;
                let detail = format!("epoch {}", job.epoch);
                job.note(wire::Incident { detail, ..incident(Incident::Epoch, id, attempt, &result.by) });
                step.touched.push(Touch::Job(id.job));
            }
            None => {}
        }
        let Some(facts) = job.facts_mut(id) else { return Verdict::Invalid };
        facts.result = Some(Arc::new(result));
        match id.stage {
            Stage::Map => {
                job.maps_missing -= 1;
                job.maps_undone -= u32::from(before.is_none());
                let bad = |result: &Arc<task::Result>| result.done.bad_records;
                let (now, before) = (job.facts(id.stage, id.partition), before.as_ref().map_or(0, bad));
                let now = now.and_then(|facts| facts.result.as_ref()).map_or(0, bad);
                job.bad_records = job.bad_records.saturating_sub(before).saturating_add(now);
            }
            Stage::Reduce => {
                job.reduces_open -= 1;
                job.go(JobState::Reducing);
            }
            Stage::Survey | Stage::Unspecified => {}
        }
        job.advance(now_ms);
        Verdict::Counted
    }

    fn failed(&mut self, step: &mut Step, id: TaskId, attempt: AttemptId, by: By, failure: wire::Failure) -> Verdict {
        let worker = tag(&[by.worker.as_bytes()]);
        let name = job_name(self.cluster, id.job);
        let Some(job) = self.job_mut(id.job) else { return Verdict::Late };
        let max_attempts = job.max_attempts();
        let Some(facts) = job.facts_mut(id) else { return Verdict::Invalid };
        if facts.counted(attempt) {
            return Verdict::Late;
        }
        if facts.has_failed(attempt) {
            return Verdict::Repeated;
        }
        let failure = task::bounded(failure);
        let cause = failure.cause();
        let charged = matches!(cause, Cause::App | Cause::Record | Cause::Limit) && !facts.is_done();
        let at = (cause == Cause::Record).then(|| tag(&[failure.input.as_bytes(), &failure.offset.to_be_bytes()]));
        facts.failed.push(Failed { attempt, charged, worker, record: at.unwrap_or(0) });
        let poisoned = at.is_some_and(|record| facts.workers_of_record(record) >= limits::WORKERS_OF_A_BAD_RECORD);
        let reason = match cause {
            Cause::InputChanged => Some(Reason::Input),
            _ if poisoned => Some(Reason::BadRecord),
            _ if facts.charged() >= max_attempts || facts.failed.len() >= limits::FAILURES => Some(Reason::TaskFailed),
            _ => None,
        };
        let attempts = facts.failed.len();
        let ends = reason.filter(|_| !facts.is_done()).map(|reason| explain(&name, id, reason, attempts, &failure));
        let (detail, cause) = (failure.message.clone(), failure.cause);
        facts.failure = Some(Arc::new(failure));
        job.note(wire::Incident { detail, cause, ..incident(Incident::Failed, id, attempt, &by) });
        if let Some(error) = ends {
            self.end(step, id.job, JobState::Failed, Some(error));
        }
        Verdict::Counted
    }

    fn lost(&mut self, step: &mut Step, id: TaskId, attempt: AttemptId) -> Verdict {
        let Some(facts) = self.jobs.get(&id.job).and_then(|job| job.facts(id.stage, id.partition)) else {
            return Verdict::Late;
        };
        if id.stage != Stage::Map {
            return Verdict::Invalid;
        }
        if !facts.counted(attempt) {
            return Verdict::Late;
        }
        if facts.is_lost() {
            return Verdict::Repeated;
        }
        let by = facts.result.as_ref().map(|result| result.by.clone()).unwrap_or_default();
        self.lose(step, id.job, id.partition);
        let at_ms = self.now_ms;
        if let Some(job) = self.job_mut(id.job) {
            job.note(wire::Incident { at_ms, ..incident(Incident::Lost, id, attempt, &by) });
        }
        Verdict::Counted
    }

    fn moved(&mut self, id: TaskId, attempt: AttemptId, (worker, by): (u64, By)) -> Verdict {
        let Some(job) = self.job_mut(id.job) else { return Verdict::Late };
        let Some(result) = job.facts_mut(id).and_then(|facts| facts.result.as_mut()) else { return Verdict::Late };
        if result.attempt != attempt {
            return Verdict::Late;
        }
        match result.place {
            Place::Store => Verdict::Repeated,
            Place::Worker(at) if at == worker => {
                Arc::make_mut(result).place = Place::Store;
                job.note(incident(Incident::Moved, id, attempt, &by));
                Verdict::Counted
            }
            Place::Worker(_) | Place::Lost => Verdict::Late,
        }
    }

    fn fetched(&mut self, id: TaskId) -> Verdict {
        let Some(job) = self.job_mut(id.job) else { return Verdict::Late };
        match job.state {
            JobState::Shuffling if id.stage == Stage::Reduce => {
                job.go(JobState::Reducing);
                Verdict::Counted
            }
            JobState::Reducing => Verdict::Repeated,
            _ => Verdict::Invalid,
        }
    }

    /// The other attempt of a task that is done.
    fn stopped(&mut self, id: TaskId, beside: wire::Rival) {
        let wire::Rival { worker, given_ms, backup, .. } = beside;
        let by = By { worker: self.name_of(worker).unwrap_or_default(), given_ms, ended_ms: self.now_ms, backup };
        let (attempt, job) = (beside.attempt.unwrap_or_default().into(), self.job_mut(id.job));
        if let Some(job) = job {
            job.note(incident(Incident::Stopped, id, attempt, &by));
        }
    }

    fn gone(&mut self, id: TaskId, attempt: AttemptId, mut by: By, gone: wire::Gone) -> Verdict {
        let Some(job) = self.job_mut(id.job) else { return Verdict::Late };
        let same = |seen: &Arc<wire::Incident>| seen.attempt == Some(attempt.into());
        if job.incidents.iter().rev().any(same) {
            return Verdict::Repeated;
        }
        if by.worker.is_empty() {
            by.worker = task::cut(gone.worker, limits::LONG_NAME_BYTES).into();
        }
        job.note(wire::Incident { detail: gone.why, ..incident(Incident::Gone, id, attempt, &by) });
        Verdict::Counted
    }

    fn name_of(&self, worker: u64) -> Option<Arc<str>> {
        Some(self.workers.get(&worker)?.info.as_ref()?.name.as_str().into())
    }
}

/// What [`Bug::SecondDoneCounts`] does.
fn replace_result(job: &mut Job, id: TaskId, attempt: AttemptId, done: wire::Done) -> Verdict {
    let result = job.facts_mut(id).and_then(|facts| facts.result.as_mut());
    let (Some(result), Ok(digest)) = (result, <[u8; 16]>::try_from(&*done.digest)) else { return Verdict::Invalid };
    *result = Arc::new(task::Result { attempt, digest, done, ..task::Result::clone(result) });
    Verdict::Counted
}

/// What is remembered of an attempt.
fn incident(kind: Incident, task: TaskId, attempt: AttemptId, by: &By) -> wire::Incident {
    wire::Incident {
        at_ms: by.ended_ms,
        kind: kind.into(),
        stage: task.stage.into(),
        partition: task.partition,
        attempt: Some(attempt.into()),
        worker: by.worker.to_string(),
        given_ms: by.given_ms,
        backup: by.backup,
        ..wire::Incident::default()
    }
}

/// A map left other bytes than before: whoever has read the old ones must not count, finished or not.
fn raise_epoch(job: &mut Job) {
    job.epoch += 1;
    for facts in &mut job.reduces {
        facts.result = None;
    }
    job.recount();
}

/// Counters by index. Names beyond the bound are passed over.
fn intern(job: &mut Job, counters: Vec<wire::Counter>) -> Box<[(u16, u64)]> {
    let mut found = Vec::with_capacity(counters.len().min(limits::COUNTERS));
    for counter in counters.into_iter().take(limits::COUNTERS) {
        let name = task::cut(counter.name, limits::COUNTER_BYTES);
        let known = job.counter_names.iter().position(|known| **known == *name);
        let index = match known {
            Some(index) => index,
            None if job.counter_names.len() < limits::COUNTERS => {
                job.counter_names.push_back(name.into());
                job.counter_names.len() - 1
            }
            None => continue,
        };
        found.extend(u16::try_from(index).ok().map(|index| (index, counter.value)));
    }
    found.into_boxed_slice()
}

fn explain(job: &str, task: TaskId, reason: Reason, attempts: usize, failure: &wire::Failure) -> JobError {
    let stage = match task.stage {
        Stage::Survey => "survey".to_string(),
        Stage::Map => format!("map {}", task.partition),
        Stage::Reduce | Stage::Unspecified => format!("part {}", task.partition),
    };
    let (what, next_step) = match reason {
        Reason::BadRecord => (
            format!("{stage} meets a bad record in {} at byte {} on every worker", failure.input, failure.offset),
            "correct that record or the app, or allow bad records with --skip-bad-records".to_string(),
        ),
        Reason::Input => {
            (format!("{stage} can not read its input as it was planned"), "submit the job again".to_string())
        }
        _ => {
            let kind = if task.stage == Stage::Map { "map" } else { "reduce" };
            let again = format!("gristmill debug-task {job} {kind} {}", task.partition);
            (
                format!("{stage} failed {attempts} times, at last"),
                format!("correct the cause and retry the job; to do this task again on one machine: {again}"),
            )
        }
    };
    JobError { reason: reason.into(), message: format!("{what}: {}", failure.message), next_step }
}
