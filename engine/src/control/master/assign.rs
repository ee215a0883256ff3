//! Tasks are given to workers that have a slot free: the worker that runs least first, the job whose turn it is first,
//! and of a job the survey, then maps, then parts, then second attempts.

use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::assignment::Kind;
use gristmill_proto::v1::Phase;
use gristmill_raft::planted::{Bug, planted};

use super::Master;
use crate::control::fleet::Worker;
use crate::control::ids::{AttemptId, Stage, TaskId};
use crate::control::run::{Run, Running};

/// Attempts in one answer, each with a spec of at most 64 KiB: an answer stays below the 4 MiB of a message.
const ASSIGNMENTS: usize = 48;

/// What of the leader's settings choosing depends on.
#[derive(Clone, Copy)]
struct Rules {
    slow_start_percent: u32,
    avoid: Duration,
    /// Reducers may begin before all maps are done.
    early: bool,
    now: Duration,
}

impl Master {
    /// Gives out what can be given out.
    pub(super) fn dispatch(&mut self) {
        let hungry = std::mem::take(&mut self.hungry);
        if std::mem::take(&mut self.wake) {
            // All of them in rounds, so that tasks spread; those for which there is nothing are put back.
            let mut tried = Vec::new();
            while !self.shares.is_empty() {
                let Some((load, id)) = self.fleet.idle.pop_first() else { break };
                if !self.assign_one(id) {
                    tried.push((load, id));
                }
            }
            self.fleet.idle.extend(tried);
            return;
        }
        for id in hungry {
            while !self.shares.is_empty() && self.assign_one(id) {}
        }
    }

    /// Gives a worker one task.
    fn assign_one(&mut self, id: u64) -> bool {
        let now = self.now.mono;
        let Some(worker) = self.fleet.workers.get(&id).filter(|worker| worker.takes_work(now)) else { return false };
        if worker.answer.assignments.len() >= ASSIGNMENTS {
            return false;
        }
        let rules = Rules {
            slow_start_percent: self.config.slow_start_percent,
            // Of one worker there is no other.
            avoid: if self.fleet.workers.len() > 1 { self.config.avoid } else { Duration::ZERO },
            early: self.early < self.fleet.slots * self.config.early_percent / 100,
            now,
        };
        let mut chosen = None;
        let access = self.state.access();
        for job in self.shares.jobs(|user| access.quota(user).cores) {
            let Some(run) = self.runs.get_mut(&job).filter(|run| worker.can(run.offer, &run.job.spec.requires)) else {
                continue;
            };
            let elsewhere = |attempt: &AttemptId| self.attempts.get(attempt).is_some_and(|r| r.worker != id);
            chosen = choose(run, worker, rules, elsewhere);
            if chosen.is_some() {
                break;
            }
        }
        let Some(task) = chosen else { return false };
        self.assign(id, task);
        true
    }

    fn assign(&mut self, id: u64, task: TaskId) {
        self.counter += 1;
        let term = if planted(Bug::AttemptIdsReused) { 1 } else { self.reign.term };
        let attempt = AttemptId { term, counter: self.counter };
        let Some(run) = self.runs.get(&task.job) else { return };
        let early = task.stage == Stage::Reduce && run.job.maps_missing() > 0;
        let object = if task.stage == Stage::Map { run.maps_wait.tag(task.partition) } else { None };
        let backup = !run.attempts_of(task).is_empty();
        let given_ms = self.now.wall_ms;
        let (epoch, assignment) = (run.job.epoch, wire::Assignment { given_ms, ..assignment(run, task, attempt) });
        self.fleet.change(id, self.now.mono, |worker| {
            worker.free = worker.free.saturating_sub(1);
            object.into_iter().for_each(|object| worker.holds(object));
            worker.answer.assignments.push(assignment);
        });
        self.ready.insert(id);
        let running = Running { early, backup, ..Running::new(task, epoch, id, self.now.mono, given_ms) };
        self.begin(attempt, running);
    }

    /// An attempt runs, as far as the leader knows.
    pub(super) fn begin(&mut self, attempt: AttemptId, running: Running) {
        let task = running.task;
        let Some(run) = self.runs.get_mut(&task.job) else { return };
        run.attempts.entry((task.stage, task.partition)).or_default().push(attempt);
        run.stragglers.remove(&task);
        run.wait(task, false);
        self.shares.began(&run.job.principal);
        self.early += u64::from(running.early);
        if let Some(worker) = self.fleet.workers.get_mut(&running.worker) {
            worker.attempts.insert(attempt);
            worker.idle_since = None;
        }
        self.attempts.insert(attempt, running);
        self.sync_runnable(task.job);
    }
}

/// A task of this job for this worker, taken from where it waits.
fn choose(run: &mut Run, worker: &Worker, rules: Rules, elsewhere: impl Fn(&AttemptId) -> bool) -> Option<TaskId> {
    let task = |stage, partition| TaskId { job: run.job.id, stage, partition };
    if run.survey_waits {
        return (!run.avoids(Stage::Survey, 0, worker.tag, rules.avoid, rules.now)).then(|| task(Stage::Survey, 0));
    }
    if run.surveyed() && !run.maps_wait.is_empty() {
        let mut waiting = std::mem::take(&mut run.maps_wait);
        let may = |map| !run.avoids(Stage::Map, map, worker.tag, rules.avoid, rules.now);
        let map = waiting.take(worker.held.iter().copied(), may);
        run.maps_wait = waiting;
        if let Some(map) = map {
            return Some(task(Stage::Map, map));
        }
    }
    if run.job.maps_missing() == 0 || (rules.early && run.slow_start(rules.slow_start_percent)) {
        let may = |part: &u32| !run.avoids(Stage::Reduce, *part, worker.tag, rules.avoid, rules.now);
        if let Some(part) = run.reduces_wait.iter().copied().take(64).find(may) {
            return Some(task(Stage::Reduce, part));
        }
    }
    // A second attempt where the first does not run.
    let alone = |task: &&TaskId| matches!(run.attempts_of(**task), [first] if elsewhere(first));
    run.stragglers.iter().find(alone).copied()
}

fn assignment(run: &Run, task: TaskId, attempt: AttemptId) -> wire::Assignment {
    let plan = run.plan.as_deref();
    let survey = run.job.survey.as_ref().and_then(|survey| survey.result.as_ref());
    let kind = match task.stage {
        Stage::Survey => Kind::Survey(wire::SurveyTask {}),
        Stage::Map => Kind::Map(wire::MapTask {
            survey: survey.map(|result| wire::SurveyResult {
                attempt: Some(result.attempt.into()),
                digest: bytes::Bytes::copy_from_slice(&result.digest),
            }),
            store_segments: run.job.phase() == Phase::Map,
        }),
        _ => Kind::Reduce(wire::ReduceTask { from_manifest: run.job.phase() == Phase::Reduce }),
    };
    wire::Assignment {
        task: Some(task.write(attempt, run.job.epoch)),
        job_name: run.name.clone(),
        spec: run.spec.clone(),
        maps: u32::try_from(run.job.maps.len()).unwrap_or(u32::MAX),
        reduces: run.job.plan.as_ref().map_or(0, |plan| plan.reduces),
        cluster: run.cluster,
        plan: plan.map(|plan| bytes::Bytes::copy_from_slice(&plan.digest)).unwrap_or_default(),
        kind: Some(kind),
        given_ms: 0,
    }
}
