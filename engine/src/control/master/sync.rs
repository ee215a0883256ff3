//! What follows from a change of the state: tasks wait or do not, attempts go on or are cancelled, jobs begin and end.
//!
//! Each function looks at the state as it is and makes the leader's view agree with it; to call one too often is harmless.

use std::collections::BTreeSet;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::task_change::What;

use super::Master;
use super::outbox::Ticket;
use crate::control::apply::Touch;
use crate::control::ids::{AttemptId, Stage, TaskId};
use crate::control::limits;
use crate::control::run::Run;
use crate::control::state::{Settled, State};

impl Master {
    pub(super) fn applied(&mut self, state: State, touched: &[Touch]) {
        self.state = state;
        let mut jobs = BTreeSet::new();
        for touch in touched {
            match touch {
                Touch::Job(job) => {
                    jobs.insert(*job);
                }
                Touch::Worker(worker) => self.sync_worker(*worker),
                // Those who make workers look by themselves.
                Touch::Pools => {}
                Touch::Task(task) => {
                    self.refresh(task.job);
                    self.sync_task(*task);
                }
            }
        }
        for touch in touched {
            if let Touch::Task(TaskId { job, stage: Stage::Survey | Stage::Map, .. }) = touch {
                self.after_maps(*job);
            }
        }
        jobs.into_iter().for_each(|job| self.sync_job(job));
    }

    /// The run looks at the newest facts of its job.
    fn refresh(&mut self, job: u64) {
        if let (Some(run), Some(job)) = (self.runs.get_mut(&job), self.state.job(job)) {
            run.job = job.clone();
        }
    }

    /// Maps or the survey have changed: others may be runnable now, or need no longer wait.
    fn after_maps(&mut self, job: u64) {
        self.sync_runnable(job);
        let Some(run) = self.runs.get(&job) else { return };
        if run.job.is_spoilt() {
            return self.run_errand(job);
        }
        if run.job.maps_missing() == 0 {
            self.wake |= !run.reduces_wait.is_empty();
            // The last of the segments are not left to the next tick.
            let running = run.attempts.range((Stage::Reduce, 0)..).flat_map(|(_, attempts)| attempts);
            let workers: Vec<u64> = running.filter_map(|a| self.attempts.get(a)).map(|r| r.worker).collect();
            self.ready.extend(workers);
        }
    }

    pub(super) fn sync_job(&mut self, id: u64) {
        let job = self.state.job(id).cloned();
        match job.filter(|job| job.is_open()) {
            None => self.close(id),
            Some(job) => {
                if !self.runs.contains_key(&id) {
                    let app = job.spec.app.clone().unwrap_or_default();
                    let offer = self.fleet.offer(&app.name, &app.build);
                    let list = self.first_list();
                    self.runs.insert(id, Run::new(self.state.cluster(), job.clone(), offer, list));
                }
                self.refresh(id);
                let attached = self.attach_plan(id);
                let epoch = self.runs.get_mut(&id).and_then(|run| run.epoch.replace(job.epoch));
                if attached || epoch != Some(job.epoch) {
                    self.sync_tasks(id);
                }
            }
        }
        self.run_errand(id);
    }

    /// Hands a plan that was made or loaded to the run. Gives whether it was.
    fn attach_plan(&mut self, id: u64) -> bool {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.plan.is_none()) else { return false };
        let Some(agreed) = &run.job.plan else { return false };
        let made = self.errands.get_mut(&id).and_then(|errand| errand.plan.take());
        let empty = || {
            let digest = <[u8; 16]>::try_from(&*agreed.plan).unwrap_or_default();
            super::Plan { digest, reduces: agreed.reduces, ..super::Plan::default() }.into()
        };
        let plan = made.filter(|plan| plan.digest == *agreed.plan && plan.maps.len() == run.job.maps.len());
        let Some(plan) = plan.or_else(|| (agreed.maps == 0).then(empty)) else { return false };
        run.attach(plan);
        true
    }

    fn sync_tasks(&mut self, id: u64) {
        let Some(tasks) = self.runs.get(&id).map(Run::tasks) else { return };
        tasks.for_each(|task| self.sync_task(task));
        self.sync_runnable(id);
    }

    /// A task's facts may have changed, or an attempt at it is no more.
    pub(super) fn sync_task(&mut self, task: TaskId) {
        let Some(run) = self.runs.get(&task.job) else { return };
        for attempt in run.attempts_of(task).to_vec() {
            let Some(running) = self.attempts.get(&attempt) else { continue };
            let (worker, epoch, reported) = (running.worker, running.epoch, running.reported);
            let settled = self.state.settled(task, attempt, epoch);
            if settled == Settled::Open {
                continue;
            }
            if reported {
                self.note_pace(attempt, settled);
                self.owe_settled(worker, attempt, settled);
            } else {
                self.owe(worker, |answer| answer.cancel.push(attempt.into()));
            }
            self.forget_attempt(attempt);
        }
        self.sync_waiting(task);
    }

    fn note_pace(&mut self, attempt: AttemptId, settled: Settled) {
        let Some(running) = self.attempts.get(&attempt).filter(|_| settled == Settled::Counted) else { return };
        let Some(run) = self.runs.get_mut(&running.task.job) else { return };
        let pace = run.pace.entry(running.task.stage).or_default();
        pace.tasks += 1;
        pace.total += self.now.mono.saturating_sub(running.since);
    }

    /// Whether the task waits for a slot.
    fn sync_waiting(&mut self, task: TaskId) {
        let now = self.now.mono;
        let Some(run) = self.runs.get_mut(&task.job) else { return };
        let Some(facts) = run.job.facts(task.stage, task.partition) else { return };
        let (done, lost, failed) = (facts.is_done(), facts.is_lost(), !facts.failed.is_empty());
        if task.stage == Stage::Map {
            run.place(task.partition);
            if lost {
                run.lost.insert(task.partition);
            } else {
                run.lost.remove(&task.partition);
            }
        }
        let spared = lost && run.all_fetched();
        let waits = !done && !spared && run.attempts_of(task).is_empty();
        if failed && waits {
            run.failed_at.entry((task.stage, task.partition)).or_insert(now);
        } else {
            run.failed_at.remove(&(task.stage, task.partition));
        }
        run.wait(task, waits);
        self.wake |= waits;
        self.sync_runnable(task.job);
    }

    /// Lost maps are needed or not, depending on what reducers have.
    pub(super) fn sync_lost(&mut self, id: u64) {
        let Some(run) = self.runs.get(&id).filter(|run| !run.lost.is_empty()) else { return };
        let lost: Vec<u32> = run.lost.iter().copied().collect();
        for partition in lost {
            self.sync_waiting(TaskId { job: id, stage: Stage::Map, partition });
        }
    }

    pub(super) fn sync_runnable(&mut self, id: u64) {
        let Some(run) = self.runs.get(&id) else { return };
        let runnable = run.is_runnable(self.config.slow_start_percent, self.now.mono);
        self.wake |= self.shares.set(&run.job.principal, run.job.spec.priority, id, runnable) && runnable;
    }

    /// A job has no tasks any more, or none yet.
    fn close(&mut self, id: u64) {
        let Some(run) = self.runs.get(&id) else { return };
        let attempts: Vec<AttemptId> = run.attempts.values().flatten().copied().collect();
        for attempt in attempts {
            let Some(running) = self.attempts.get(&attempt) else { continue };
            let (worker, reported, task, epoch) = (running.worker, running.reported, running.task, running.epoch);
            if reported {
                let settled = self.state.settled(task, attempt, epoch);
                self.owe_settled(worker, attempt, settled);
            } else {
                self.owe(worker, |answer| answer.cancel.push(attempt.into()));
            }
            self.forget_attempt(attempt);
        }
        if let Some(run) = self.runs.remove(&id) {
            self.shares.set(&run.job.principal, run.job.spec.priority, id, false);
        }
        self.missing.retain(|(job, _), _| *job != id);
    }

    /// An attempt has come to nothing for a reason outside of it, which its job's history is to have.
    pub(super) fn give_up(&mut self, attempt: AttemptId, why: &str) {
        if let Some(running) = self.attempts.get(&attempt) {
            let (task, worker) = (running.task.write(attempt, running.epoch), running.worker);
            let name = self.fleet.workers.get(&worker).map(|worker| worker.name.clone()).unwrap_or_default();
            self.change(task, worker, What::Gone(wire::Gone { why: why.into(), worker: name }));
        }
        self.drop_attempt(attempt);
    }

    /// An attempt is no more, and its task may have to be done by another.
    pub(super) fn drop_attempt(&mut self, attempt: AttemptId) {
        let Some(task) = self.attempts.get(&attempt).map(|running| running.task) else { return };
        self.forget_attempt(attempt);
        self.sync_waiting(task);
    }

    pub(super) fn forget_attempt(&mut self, attempt: AttemptId) {
        let Some(running) = self.attempts.remove(&attempt) else { return };
        if let Some(worker) = self.fleet.workers.get_mut(&running.worker) {
            worker.attempts.remove(&attempt);
        }
        self.early -= u64::from(running.early);
        let task = running.task;
        let Some(run) = self.runs.get_mut(&task.job) else { return };
        self.shares.ended(&run.job.principal);
        // Who had as many as allowed may have one more, anywhere.
        self.wake |= self.state.access().quota(&run.job.principal).cores > 0;
        let key = (task.stage, task.partition);
        let left = run.attempts.get_mut(&key).map_or(0, |attempts| {
            attempts.retain(|other| *other != attempt);
            attempts.len()
        });
        if left == 0 {
            run.attempts.remove(&key);
        }
        let still = run.attempts_of(task).iter().any(|a| self.attempts.get(a).is_some_and(|r| r.fetched));
        if running.fetched && !still {
            run.fetched.remove(&task.partition);
            self.sync_lost(task.job);
        }
    }

    pub(super) fn sync_worker(&mut self, id: u64) {
        match self.state.worker(id) {
            Some(record) => {
                let until = self.now.mono + self.config.lease;
                self.fleet.put(record, until);
                self.fleet.change(id, self.now.mono, |_| {});
                self.hear_draining(id, false);
            }
            None => {
                let attempts = self.fleet.workers.get(&id).map(|worker| worker.attempts.clone());
                let why = match self.fates.remove(&id) {
                    Some(why) => format!("its worker is gone: {why}"),
                    None => "its worker is gone".to_string(),
                };
                attempts.into_iter().flatten().for_each(|attempt| self.give_up(attempt, &why));
                let Some(worker) = self.fleet.remove(id) else { return };
                if worker.waiting.is_some() {
                    let drained = self.state.has_drained(id);
                    let fenced = if drained { "" } else { "this worker was taken for dead or replaced" };
                    let sequence = worker.sequence;
                    let answer = wire::PollAnswer { sequence, fenced: fenced.into(), drained, ..Default::default() };
                    self.effects.push(super::Effect::Answer { incarnation: id, answer });
                }
            }
        }
    }

    fn propose_about(&mut self, id: u64, action: Action) {
        let (now, retry) = (self.now.mono, self.config.retry);
        let due = self.fleet.workers.get_mut(&id).filter(|worker| now >= worker.not_before);
        let Some(worker) = due else { return };
        worker.not_before = now + retry;
        self.propose(Ticket::Worker, action);
    }

    pub(super) fn propose_remove(&mut self, incarnation: u64) {
        let late = || "it was not heard of for too long".to_string();
        let why = self.fates.get(&incarnation).cloned().unwrap_or_else(late);
        self.propose_about(incarnation, Action::RemoveWorker(wire::RemoveWorker { incarnation, why }));
    }

    pub(super) fn propose_drain(&mut self, incarnation: u64) {
        let drain = self.drain_of(incarnation);
        self.propose_about(incarnation, Action::DrainWorker(drain));
    }

    /// That a worker is to drain, and which jobs should know why.
    pub(super) fn drain_of(&self, incarnation: u64) -> wire::DrainWorker {
        let why = self.fates.get(&incarnation).cloned().unwrap_or_default();
        let jobs = self.jobs_of(incarnation).into_iter().take(limits::DRAINED_JOBS).collect();
        wire::DrainWorker { incarnation, why, jobs }
    }

    /// Jobs of which a worker runs something, or ran when it began to drain.
    pub(super) fn jobs_of(&self, incarnation: u64) -> BTreeSet<u64> {
        let Some(worker) = self.fleet.workers.get(&incarnation) else { return BTreeSet::new() };
        let running = worker.attempts.iter().filter_map(|a| self.attempts.get(a)).map(|r| r.task.job);
        running.chain(worker.left.iter().copied()).collect()
    }

    pub(super) fn propose_drained(&mut self, incarnation: u64) {
        self.propose_about(incarnation, Action::WorkerDrained(wire::WorkerDrained { incarnation }));
    }
}
