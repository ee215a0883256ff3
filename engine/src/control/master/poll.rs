//! What a worker says in a poll, and what it is owed in the answer.

use std::collections::BTreeSet;
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::failure::Cause;
use gristmill_proto::internal::v1::task_change::What;
use gristmill_proto::internal::v1::task_report::End;
use gristmill_raft::planted::{Bug, planted};

use super::{Effect, Master};
use crate::control::ids::{AttemptId, Stage, TaskId};
use crate::control::job::JobState;
use crate::control::run::{ABREAST, Running};
use crate::control::state::Settled;
use crate::control::task::{Place, bounded, bounded_counters, bounded_done};

/// What is looked at of one poll, of each kind.
const MAX_SAID: usize = 1_024;
/// Jobs in scratch that are looked at.
const MAX_SCRATCH: usize = 10_000;
/// Places of segments in one update.
const MAX_PLACES: usize = 4_096;
/// Uploads that are asked of a draining worker at a time.
const MAX_UPLOADS: usize = 64;
/// Maps that are said to be missing, kept in mind at a time.
const MAX_MISSING: usize = 10_000;
/// So many workers are believed that a third one's segments are gone.
const WITNESSES: usize = 2;

/// A finished map that someone could not fetch.
#[derive(Debug)]
pub(super) struct Missing {
    attempt: AttemptId,
    since: Duration,
    last: Duration,
    by: BTreeSet<u64>,
}

impl Master {
    pub(super) fn poll(&mut self, poll: wire::Poll) {
        let (id, sequence) = (poll.incarnation, poll.sequence);
        let Some(worker) = self.fleet.workers.get_mut(&id) else {
            if planted(Bug::DeadWorkerCounts) {
                for report in &poll.reports {
                    self.hear_report(id, report);
                }
            }
            let drained = self.state.has_drained(id);
            let fenced = if drained { String::new() } else { "this worker was taken for dead or replaced".into() };
            return self.answer(id, wire::PollAnswer { sequence, fenced, drained, ..Default::default() });
        };
        if sequence <= worker.sequence {
            return self.answer(id, wire::PollAnswer { sequence, ..Default::default() });
        }
        let before = worker.waiting.take().map(|_| worker.sequence);
        worker.sequence = sequence;
        worker.lease_until = self.now.mono + self.config.lease;
        worker.heard = true;
        if poll.draining && worker.left.is_empty() {
            // It gives them back now; why it leaves may be heard later.
            worker.left = worker.attempts.iter().filter_map(|a| self.attempts.get(a)).map(|r| r.task.job).collect();
        }
        // Whatever was put into an answer that was not sent goes into the next one; attempts to begin among it were not
        // sent, and so are in neither list of this poll: they are taken back below.
        worker.answer = wire::PollAnswer::default();
        worker.known = poll.known.iter().take(MAX_SAID).map(|k| (k.job, (k.epoch, k.list, k.position))).collect();
        if let Some(sequence) = before {
            self.answer(id, wire::PollAnswer { sequence, ..Default::default() });
        }
        let mut said = BTreeSet::new();
        for running in poll.running.iter().take(MAX_SAID) {
            said.extend(self.hear_running(id, running));
        }
        for report in poll.reports.iter().take(MAX_SAID) {
            said.extend(self.hear_report(id, report));
        }
        let attempts = self.fleet.workers.get(&id).map(|worker| &worker.attempts);
        let lost: Vec<AttemptId> = attempts.into_iter().flatten().filter(|a| !said.contains(a)).copied().collect();
        lost.into_iter().for_each(|attempt| self.give_up(attempt, "the worker does not know of it"));
        poll.missing.iter().take(MAX_SAID).for_each(|missing| self.hear_missing(id, missing));
        self.fleet.change(id, self.now.mono, |worker| {
            worker.free = poll.free_slots.min(worker.slots);
            worker.waiting = Some(self.now.mono);
        });
        let over = |job: &u64| self.state.job(*job).is_none_or(|job| job.has_ended());
        let drop_jobs: Vec<u64> = poll.scratch_jobs.into_iter().take(MAX_SCRATCH).filter(over).collect();
        if !drop_jobs.is_empty() {
            self.owe(id, |answer| answer.drop_jobs = drop_jobs);
        }
        self.hear_draining(id, poll.draining);
        if self.has_news_of_segments(id) {
            self.ready.insert(id);
        }
        self.hungry.insert(id);
    }

    pub(super) fn poll_closed(&mut self, id: u64, sequence: u64) {
        self.fleet.change(id, self.now.mono, |worker| {
            if worker.sequence == sequence {
                worker.waiting = None;
            }
        });
    }

    /// An attempt that a worker runs. Gives it if it is to go on.
    fn hear_running(&mut self, id: u64, said: &wire::Running) -> Option<AttemptId> {
        let (task, attempt, epoch) = TaskId::read(said.task.as_ref()?)?;
        if !self.adopt(id, task, attempt, epoch, said.given_ms) {
            self.owe(id, |answer| answer.cancel.push(attempt.into()));
            return None;
        }
        let running = self.attempts.get_mut(&attempt)?;
        running.progress_ppm = said.progress_ppm.min(1_000_000);
        running.counters = bounded_counters(said.counters.clone());
        if said.fetched && !running.fetched && task.stage == Stage::Reduce {
            running.fetched = true;
            let run = self.runs.get_mut(&task.job)?;
            run.fetched.insert(task.partition);
            if run.job.state == JobState::Shuffling {
                self.change(task.write(attempt, epoch), id, What::Fetched(wire::Fetched {}));
            }
            self.sync_lost(task.job);
        }
        Some(attempt)
    }

    /// Knows the attempt, or takes it over from an earlier leader.
    fn adopt(&mut self, id: u64, task: TaskId, attempt: AttemptId, epoch: u32, given_ms: u64) -> bool {
        if let Some(running) = self.attempts.get(&attempt) {
            return running.worker == id && running.task == task && running.epoch == epoch;
        }
        // Given up by this leader, or not of this world.
        let earlier = (attempt.term, attempt.counter) <= (self.reign.term, self.reign.given_out);
        if !earlier || self.state.settled(task, attempt, epoch) != Settled::Open {
            return false;
        }
        match self.runs.get(&task.job) {
            Some(run) if run.attempts_of(task).len() < ABREAST => {}
            _ => return false,
        }
        self.begin(attempt, Running::new(task, epoch, id, self.now.mono, given_ms));
        true
    }

    /// The end of an attempt. Gives it while that is not settled.
    fn hear_report(&mut self, id: u64, report: &wire::TaskReport) -> Option<AttemptId> {
        let (task, attempt, epoch) = TaskId::read(report.task.as_ref()?)?;
        let end = report.end.as_ref()?;
        if matches!(end, End::Moved(_)) {
            let facts = self.state.job(task.job).and_then(|job| job.facts(task.stage, task.partition));
            let here = facts.and_then(|f| f.result.as_ref()).is_some_and(|r| r.place == Place::Worker(id));
            let open = self.state.job(task.job).is_some_and(|job| job.is_open() && job.epoch == epoch);
            if open && here && facts.is_some_and(|facts| facts.counted(attempt)) {
                self.change(task.write(attempt, epoch), id, What::Moved(wire::Moved {}));
            } else {
                self.owe(id, |answer| answer.settled.push(attempt.into()));
            }
            return None;
        }
        match self.state.settled(task, attempt, epoch) {
            Settled::Open => {}
            settled => {
                self.drop_attempt(attempt);
                self.owe_settled(id, attempt, settled);
                return None;
            }
        }
        let known = self.adopt(id, task, attempt, epoch, report.given_ms);
        if let Some(running) = self.attempts.get_mut(&attempt).filter(|running| known && !running.reported) {
            running.reported = true;
            match end {
                End::Failure(failure) if failure.cause() == Cause::Returned => {}
                End::Failure(failure) => {
                    let (own, now, retry) = (failure.cause() == Cause::Worker, self.now.mono, self.config.retry);
                    self.fleet.blame(id, task, own, now, retry);
                }
                _ => self.fleet.praise(id, self.now.mono),
            }
        }
        // Within bounds, so that a command is; and an end that could never count must not be waited for.
        let what = match end.clone() {
            End::Done(done) if done.digest.len() == 16 => What::Done(bounded_done(done)),
            End::Done(_) => What::Failure(wire::Failure {
                cause: Cause::Worker.into(),
                message: "the worker reported an end without a digest of 16 bytes".into(),
                ..wire::Failure::default()
            }),
            End::Failure(failure) => What::Failure(bounded(failure)),
            End::Moved(_) => return None,
        };
        if planted(Bug::DoneBeforeCommit) {
            self.owe_settled(id, attempt, Settled::Counted);
        }
        self.change(task.write(attempt, epoch), id, what);
        Some(attempt)
    }

    fn hear_missing(&mut self, id: u64, said: &wire::Missing) {
        let Some(attempt) = said.attempt.map(AttemptId::from) else { return };
        let of_epoch = |epoch: u32| epoch == said.epoch || planted(Bug::EpochIgnored);
        let Some(job) = self.state.job(said.job).filter(|job| job.is_open() && of_epoch(job.epoch)) else { return };
        let result = job.facts(Stage::Map, said.map).and_then(|facts| facts.result.as_ref());
        let Some(place) = result.filter(|result| result.attempt == attempt).map(|result| result.place) else { return };
        if place == Place::Lost || self.missing.len() >= MAX_MISSING {
            return;
        }
        let (now, key) = (self.now.mono, (said.job, said.map));
        let new = || Missing { attempt, since: now, last: now, by: BTreeSet::new() };
        let missing = self.missing.entry(key).or_insert_with(new);
        if missing.attempt != attempt || now > missing.last + self.config.lease {
            *missing = new();
        }
        missing.last = now;
        missing.by.insert(id);
        // Who holds them knows best; one other worker may be cut off, two hardly; and one that says so for long must go on.
        let long = now >= missing.since + self.config.lease / 2;
        if place == Place::Worker(id) || missing.by.len() >= WITNESSES || long {
            self.missing.remove(&key);
            let task = TaskId { job: said.job, stage: Stage::Map, partition: said.map };
            self.change(task.write(attempt, said.epoch), id, What::Lost(wire::Lost {}));
        }
    }

    /// What a worker that wants to end, or should, is owed.
    pub(super) fn hear_draining(&mut self, id: u64, says: bool) {
        let Some(drains) = self.fleet.workers.get(&id).map(|worker| worker.draining) else { return };
        if says && !drains {
            return self.propose_drain(id);
        }
        if !drains {
            return;
        }
        if !says {
            self.owe(id, |answer| answer.drain = true);
        }
        let needed: BTreeSet<(u64, u32)> =
            self.state.jobs().flat_map(|job| job.maps_on(id).map(|map| (job.id, map))).collect();
        let Some(worker) = self.fleet.workers.get_mut(&id) else { return };
        if needed.is_empty() && worker.attempts.is_empty() {
            return self.propose_drained(id);
        }
        // All of them each time, because an answer may be lost; but only new ones are a reason to answer.
        let now: BTreeSet<(u64, u32)> = needed.into_iter().take(MAX_UPLOADS).collect();
        if !now.is_subset(&worker.uploading) {
            self.ready.insert(id);
        }
        let task = |(job, partition): &(u64, u32)| {
            let job = self.state.job(*job)?;
            let attempt = job.facts(Stage::Map, *partition)?.result.as_ref()?.attempt;
            Some(TaskId { job: job.id, stage: Stage::Map, partition: *partition }.write(attempt, job.epoch))
        };
        worker.answer.upload = now.iter().filter_map(task).collect();
        worker.uploading = now;
    }

    /// Puts something into a worker's next answer.
    pub(super) fn owe(&mut self, id: u64, put: impl FnOnce(&mut wire::PollAnswer)) {
        if let Some(worker) = self.fleet.workers.get_mut(&id) {
            put(&mut worker.answer);
            self.ready.insert(id);
        }
    }

    pub(super) fn owe_settled(&mut self, id: u64, attempt: AttemptId, settled: Settled) {
        self.owe(id, |answer| {
            answer.settled.push(attempt.into());
            if settled == Settled::Void {
                answer.discard.push(attempt.into());
            }
        });
    }

    /// Jobs whose reducers run on a worker and still gather. What has ended there hears of nothing, or its worker would be
    /// answered at once, over and over, until the end is settled.
    fn reducing_on(&self, id: u64) -> BTreeSet<u64> {
        let attempts = self.fleet.workers.get(&id).map(|worker| &worker.attempts).into_iter().flatten();
        let running = attempts.filter_map(|attempt| self.attempts.get(attempt));
        running.filter(|r| r.task.stage == Stage::Reduce && !r.fetched && !r.reported).map(|r| r.task.job).collect()
    }

    /// Whether maps were placed that the worker's reducers do not know of.
    pub(super) fn has_news_of_segments(&self, id: u64) -> bool {
        let jobs = self.reducing_on(id);
        jobs.into_iter().any(|job| self.segments_for(id, job, 1).is_some())
    }

    fn segments_for(&self, id: u64, id_of_job: u64, most: usize) -> Option<wire::SegmentUpdate> {
        let run = self.runs.get(&id_of_job)?;
        let (list, epoch) = (run.places.list, run.job.epoch);
        let known = self.fleet.workers.get(&id)?.known.get(&id_of_job);
        let known = known.filter(|(e, l, _)| (*e, *l) == (epoch, list)).map_or(0, |(_, _, at)| *at as usize);
        let new: &[u32] = run.places.maps.get(known..).filter(|new| !new.is_empty())?;
        let new = &new[..new.len().min(most)];
        let place = |map: &u32| {
            let result = run.job.facts(Stage::Map, *map)?.result.as_ref()?;
            let (incarnation, address) = match result.place {
                Place::Store => (0, String::new()),
                place => self.state.address(place).map(|(id, address)| (id, address.to_string()))?,
            };
            let (attempt, digest) = (Some(result.attempt.into()), bytes::Bytes::copy_from_slice(&result.digest));
            Some(wire::SegmentPlace { map: *map, attempt, digest, address, incarnation })
        };
        let position = u32::try_from(known + new.len()).ok()?;
        let places = new.iter().filter_map(place).collect();
        Some(wire::SegmentUpdate { job: id_of_job, epoch, list, position, places })
    }

    /// Answers the polls of all workers that are owed something.
    pub(super) fn send_answers(&mut self) {
        for id in std::mem::take(&mut self.ready) {
            let waits = self.fleet.workers.get(&id).is_some_and(|worker| worker.waiting.is_some());
            if !waits {
                continue;
            }
            let jobs = self.reducing_on(id);
            let segments: Vec<_> = jobs.into_iter().filter_map(|job| self.segments_for(id, job, MAX_PLACES)).collect();
            let answer = self.fleet.change(id, self.now.mono, |worker| {
                worker.waiting = None;
                worker.answer.sequence = worker.sequence;
                std::mem::take(&mut worker.answer)
            });
            if let Some(answer) = answer {
                self.answer(id, wire::PollAnswer { segments, ..answer });
            }
        }
    }

    fn answer(&mut self, incarnation: u64, answer: wire::PollAnswer) {
        self.effects.push(Effect::Answer { incarnation, answer });
    }
}
