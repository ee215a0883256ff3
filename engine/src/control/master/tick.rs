//! What time brings: leases end, polls are answered with nothing, stragglers get second attempts, slots are taken back
//! from reducers that wait for maps, and what failed is tried again.

use std::time::Duration;

use gristmill_proto::v1::{JobError, job_error::Reason};

use super::{Effect, Master};
use crate::control::ids::{AttemptId, Stage};
use crate::control::schedule::backup;

impl Master {
    pub(super) fn tick(&mut self) {
        self.tick_workers();
        self.tick_idle();
        let runs: Vec<u64> = self.runs.keys().copied().collect();
        let heard = self.fleet.workers.values().all(|worker| worker.heard);
        for job in runs {
            if let Some(run) = self.runs.get_mut(&job).filter(|_| heard) {
                run.held_until = Duration::ZERO;
            }
            self.tick_stragglers(job);
            self.tick_starved(job);
            self.tick_unserved(job);
            self.sync_runnable(job);
        }
        let errands: Vec<u64> = self.errands.keys().copied().collect();
        errands.into_iter().for_each(|job| self.run_errand(job));
        if self.swept.is_none_or(|swept| self.now.mono >= swept + self.config.sweep) {
            self.swept = Some(self.now.mono);
            let keep = self.state.jobs().map(|job| job.id).collect();
            self.effects.push(Effect::Sweep { upto: self.state.applied(), keep });
        }
        self.wake = true;
    }

    fn tick_workers(&mut self) {
        let now = self.now.mono;
        let workers: Vec<u64> = self.fleet.workers.keys().copied().collect();
        for id in workers {
            let Some(worker) = self.fleet.workers.get(&id) else { continue };
            let (dead, draining) = (now >= worker.lease_until, worker.draining);
            let late = worker.waiting.is_some_and(|since| now >= since + self.config.poll_wait);
            let waits = worker.waiting.is_some();
            if dead {
                self.propose_remove(id);
            }
            if draining {
                self.hear_draining(id, true);
            }
            if late || (waits && self.has_news_of_segments(id)) {
                self.ready.insert(id);
            }
            // It may not be set aside any more.
            self.fleet.change(id, now, |_| {});
        }
    }

    fn tick_stragglers(&mut self, job: u64) {
        let Some(run) = self.runs.get(&job).filter(|run| !run.job.spec.no_backups) else { return };
        let found = backup::stragglers(run, &self.attempts, &self.config.backups, self.now.mono);
        if let Some(run) = self.runs.get_mut(&job) {
            run.stragglers = found;
        }
    }

    /// Maps that wait while reducers of the same job hold the slots: without this, a map that is lost late could wait for
    /// reducers that wait for it. A tenth of those slots is enough: what a reducer has fetched is lost with its slot, and
    /// workers that took many maps with them mostly come back with slots of their own.
    fn tick_starved(&mut self, job: u64) {
        let (now, patience) = (self.now.mono, self.config.tick * 2);
        let Some(run) = self.runs.get_mut(&job) else { return };
        let waiting = run.maps_wait.len() + usize::from(run.survey_waits);
        let reducers = run.attempts.range((Stage::Reduce, 0)..).flat_map(|(_, attempts)| attempts);
        let mut idle = reducers.filter(|a| self.attempts.get(a).is_some_and(|r| !r.fetched && !r.reported));
        if waiting == 0 || idle.next().is_none() {
            run.starved_since = None;
            return;
        }
        if now < *run.starved_since.get_or_insert(now) + patience {
            return;
        }
        run.starved_since = None;
        let running = run.attempts.range((Stage::Reduce, 0)..).flat_map(|(_, attempts)| attempts).copied();
        let mut newest: Vec<AttemptId> =
            running.filter(|a| self.attempts.get(a).is_some_and(|r| !r.fetched && !r.reported)).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let mapping: usize = run.attempts.range(..(Stage::Reduce, 0)).map(|(_, attempts)| attempts.len()).sum();
        let enough = waiting.min(newest.len().div_ceil(10)).saturating_sub(mapping);
        for attempt in newest.into_iter().take(enough) {
            let Some(worker) = self.attempts.get(&attempt).map(|running| running.worker) else { continue };
            self.owe(worker, |answer| answer.cancel.push(attempt.into()));
            self.give_up(attempt, "its slot was needed for maps of the job");
        }
    }

    fn tick_unserved(&mut self, job: u64) {
        let now = self.now.mono;
        let Some(run) = self.runs.get_mut(&job) else { return };
        if self.fleet.is_offered(run.offer, &run.job.spec.requires) {
            run.unserved_since = None;
            return;
        }
        if now < *run.unserved_since.get_or_insert(now) + self.config.unserved {
            return;
        }
        let app = run.job.spec.app.clone().unwrap_or_default();
        // Why workers that would do it are not there, if that is known.
        let why = self.notices(job).into_iter().next().map(|why| format!("; {why}")).unwrap_or_default();
        let message = format!("no worker has offered build {} of app {:?} for long{why}", app.build, app.name);
        let next_step = "start workers that have it, or retry the job with a build that is there".to_string();
        self.fail(job, JobError { reason: Reason::NoWorker.into(), message, next_step }, false);
    }
}
