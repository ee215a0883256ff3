//! What a worker knows of its own attempts, and its half of the conversation with the leader. Synchronous and pure: the
//! shell around it does what [`Orders`] say.
//!
//! Each poll says all there is: what runs, what has ended and was not settled yet, what is missing. Whatever was lost on
//! the way is said again by the next one, so nothing here depends on an answer having arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use gristmill_proto::internal::v1 as proto;

use super::tasklog::TaskLog;

/// An attempt's id in an order.
pub(crate) type Id = (u64, u64);

pub(crate) fn id(attempt: Option<&proto::Attempt>) -> Id {
    attempt.map_or((0, 0), |a| (a.term, a.counter))
}

/// The id of a task's attempt.
pub(crate) fn id_of(task: &proto::Task) -> Id {
    id(task.attempt.as_ref())
}

/// The most reports, and missing segments, in one poll.
const MOST: usize = 256;

/// What an attempt and the poll share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controls {
    /// Set to end the attempt.
    pub(crate) stop: Arc<AtomicBool>,
    /// Parts in a million.
    pub(crate) progress: Arc<AtomicU32>,
    /// All segments are here.
    pub(crate) fetched: Arc<AtomicBool>,
    /// What user code has counted so far.
    pub(crate) counters: Arc<Mutex<Vec<proto::Counter>>>,
    /// What the attempt says.
    pub(crate) log: TaskLog,
}

struct Attempt {
    task: proto::Task,
    given_ms: u64,
    controls: Controls,
}

/// Where the segments of a job's maps are, as far as the leader has said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments {
    pub(crate) epoch: u32,
    list: u64,
    position: u32,
    pub(crate) places: BTreeMap<u32, proto::SegmentPlace>,
}

/// What is to be done after an answer.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The incarnation has ended, and why: everything was forgotten, its scratch is to be deleted.
    pub(crate) fenced: Option<String>,
    /// Attempts to begin.
    pub(crate) begin: Vec<(proto::Assignment, Controls)>,
    /// Attempts whose files are of no use.
    pub(crate) discard: Vec<proto::Task>,
    /// Jobs whose files are of no use.
    pub(crate) drop_jobs: Vec<u64>,
    /// Finished maps to put into the store.
    pub(crate) upload: Vec<proto::Task>,
    /// Jobs of which more is known.
    pub(crate) segments: Vec<u64>,
    /// The worker may end.
    pub(crate) drained: bool,
}

/// The attempts of one incarnation.
pub(crate) struct Board {
    incarnation: u64,
    slots: u32,
    sequence: u64,
    running: BTreeMap<Id, Attempt>,
    reports: BTreeMap<Id, proto::TaskReport>,
    /// By job, epoch and map; and whether a poll has said it.
    missing: BTreeMap<(u64, u32, u32), (proto::Missing, bool)>,
    segments: BTreeMap<u64, Segments>,
    scratch_jobs: BTreeSet<u64>,
    uploading: BTreeSet<Id>,
    /// Wants to end.
    pub(crate) draining: bool,
}

impl Board {
    pub(crate) fn new(incarnation: u64, slots: u32) -> Self {
        Self {
            incarnation,
            slots,
            sequence: 0,
            running: BTreeMap::new(),
            reports: BTreeMap::new(),
            missing: BTreeMap::new(),
            segments: BTreeMap::new(),
            scratch_jobs: BTreeSet::new(),
            uploading: BTreeSet::new(),
            draining: false,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The next poll.
    pub(crate) fn poll(&mut self) -> proto::Poll {
        self.sequence += 1;
        let running = self.running.values().map(|attempt| proto::Running {
            task: Some(attempt.task),
            progress_ppm: attempt.controls.progress.load(Relaxed).min(1_000_000),
            fetched: attempt.controls.fetched.load(Relaxed),
            given_ms: attempt.given_ms,
            counters: attempt.controls.counters.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        });
        let running: Vec<proto::Running> = running.collect();
        let reducing: BTreeSet<u64> = self.jobs_reducing();
        let known = self.segments.iter().filter(|(job, _)| reducing.contains(job));
        proto::Poll {
            incarnation: self.incarnation,
            sequence: self.sequence,
            free_slots: self.slots.saturating_sub(self.running.len() as u32),
            running,
            reports: self.reports.values().take(MOST).cloned().collect(),
            missing: self
                .missing
                .values_mut()
                .take(MOST)
                .map(|(missing, said)| {
                    *said = true;
                    *missing
                })
                .collect(),
            known: known
                .map(|(job, s)| proto::SegmentsKnown { job: *job, epoch: s.epoch, list: s.list, position: s.position })
                .collect(),
            scratch_jobs: self.scratch_jobs.iter().copied().collect(),
            draining: self.draining,
        }
    }

    fn jobs_reducing(&self) -> BTreeSet<u64> {
        let reduces = |a: &&Attempt| a.task.stage() == proto::Stage::Reduce;
        self.running.values().filter(reduces).map(|a| a.task.job).collect()
    }

    /// Takes the answer to the newest poll; older ones change nothing.
    pub(crate) fn heed(&mut self, answer: proto::PollAnswer) -> Orders {
        if answer.sequence != self.sequence && answer.fenced.is_empty() {
            return Orders::default();
        }
        if !answer.fenced.is_empty() {
            self.stop_all();
            return Orders { fenced: Some(answer.fenced), ..Orders::default() };
        }
        let mut orders = Orders { drained: answer.drained, ..Orders::default() };
        if answer.drain && !self.draining {
            self.draining = true;
            self.stop_all();
        }
        let discard: BTreeSet<Id> = answer.discard.iter().map(|a| id(Some(a))).collect();
        for attempt in &answer.settled {
            let Some(report) = self.reports.remove(&id(Some(attempt))) else { continue };
            self.uploading.remove(&id(Some(attempt)));
            if discard.contains(&id(Some(attempt))) {
                orders.discard.extend(report.task);
            }
        }
        for attempt in &answer.cancel {
            if let Some(attempt) = self.running.get(&id(Some(attempt))) {
                attempt.controls.stop.store(true, Relaxed);
            }
        }
        for update in answer.segments {
            orders.segments.push(update.job);
            self.learn(update);
        }
        for job in answer.drop_jobs {
            self.scratch_jobs.remove(&job);
            self.segments.remove(&job);
            self.missing.retain(|(of, _, _), _| *of != job);
            for attempt in self.running.values().filter(|a| a.task.job == job) {
                attempt.controls.stop.store(true, Relaxed);
            }
            orders.drop_jobs.push(job);
        }
        self.missing.retain(|_, (_, said)| !*said);
        for task in answer.upload {
            if self.uploading.insert(id_of(&task)) {
                orders.upload.push(task);
            }
        }
        for assignment in answer.assignments {
            let Some(task) = &assignment.task else { continue };
            if self.running.contains_key(&id_of(task)) || self.reports.contains_key(&id_of(task)) {
                continue;
            }
            let controls = Controls::default();
            self.scratch_jobs.insert(task.job);
            let given_ms = assignment.given_ms;
            self.running.insert(id_of(task), Attempt { task: *task, given_ms, controls: controls.clone() });
            orders.begin.push((assignment, controls));
        }
        let reducing = self.jobs_reducing();
        self.segments.retain(|job, _| reducing.contains(job));
        orders
    }

    fn learn(&mut self, update: proto::SegmentUpdate) {
        let known = self.segments.entry(update.job).or_default();
        if known.list != update.list || known.epoch != update.epoch {
            *known = Segments { epoch: update.epoch, list: update.list, ..Segments::default() };
        }
        known.position = update.position;
        known.places.extend(update.places.into_iter().map(|place| (place.map, place)));
    }

    /// An attempt has ended. Of one that was told to stop, nothing needs to be said unless it was done all the same.
    pub(crate) fn ended(&mut self, report: proto::TaskReport) {
        let Some(task) = &report.task else { return };
        let id = id_of(task);
        let stopped = self.running.remove(&id).is_none_or(|a| a.controls.stop.load(Relaxed));
        let moved = matches!(report.end, Some(proto::task_report::End::Moved(_)));
        let done = matches!(report.end, Some(proto::task_report::End::Done(_)));
        if moved || done || !stopped {
            self.reports.insert(id, report);
        }
    }

    /// An upload came to nothing: it may be ordered again.
    pub(crate) fn upload_failed(&mut self, task: &proto::Task) {
        self.uploading.remove(&id_of(task));
    }

    /// The segments of a map could not be had.
    pub(crate) fn missed(&mut self, job: u64, epoch: u32, place: &proto::SegmentPlace) {
        let missing = proto::Missing { job, epoch, map: place.map, attempt: place.attempt };
        self.missing.insert((job, epoch, place.map), (missing, false));
    }

    /// Whether this place of a segment is known to be of no use.
    pub(crate) fn is_missing(&self, job: u64, epoch: u32, place: &proto::SegmentPlace) -> bool {
        let told = self.missing.get(&(job, epoch, place.map));
        told.is_some_and(|(missing, _)| missing.attempt == place.attempt)
    }

    /// Where the segments of a job are.
    pub(crate) fn segments(&self, job: u64) -> Option<&Segments> {
        self.segments.get(&job)
    }

    /// Whether anything of a job may be here.
    pub(crate) fn has_job(&self, job: u64) -> bool {
        self.scratch_jobs.contains(&job)
    }

    /// Ends everything, without a word.
    pub(crate) fn stop_all(&mut self) {
        self.running.values().for_each(|a| a.controls.stop.store(true, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::task_report::End;

    fn task(stage: proto::Stage, counter: u64) -> proto::Task {
        let attempt = Some(proto::Attempt { term: 1, counter });
        proto::Task { job: 7, stage: stage.into(), epoch: 0, partition: 3, attempt }
    }

    fn assigned(task: proto::Task) -> proto::Assignment {
        proto::Assignment { task: Some(task), ..Default::default() }
    }

    /// Polls, and heeds an answer to that.
    fn told(board: &mut Board, answer: proto::PollAnswer) -> Orders {
        let sequence = board.poll().sequence;
        board.heed(proto::PollAnswer { sequence, ..answer })
    }

    fn begun(stage: proto::Stage) -> (Board, proto::Task) {
        let (mut board, task) = (Board::new(5, 2), task(stage, 1));
        let assignments = vec![assigned(task)];
        assert_eq!(told(&mut board, proto::PollAnswer { assignments, ..Default::default() }).begin.len(), 1);
        (board, task)
    }

    fn end(task: proto::Task, end: End) -> proto::TaskReport {
        proto::TaskReport { task: Some(task), end: Some(end), given_ms: 0 }
    }

    #[test]
    fn only_the_newest_answer_is_heeded() {
        let mut board = Board::new(5, 2);
        let old = board.poll().sequence;
        board.poll();
        let assignments = vec![assigned(task(proto::Stage::Map, 1))];
        let orders = board.heed(proto::PollAnswer { sequence: old, assignments, ..Default::default() });
        assert!(orders.begin.is_empty());
        assert_eq!(board.poll().free_slots, 2);
    }

    #[test]
    fn an_end_is_said_until_it_is_settled() {
        let (mut board, task) = begun(proto::Stage::Map);
        let poll = board.poll();
        assert_eq!((poll.free_slots, poll.running.len(), poll.reports.len()), (1, 1, 0));
        board.ended(end(task, End::Done(proto::Done::default())));
        for _ in 0..2 {
            let poll = board.poll();
            assert_eq!((poll.free_slots, poll.running.len(), poll.reports.len()), (2, 0, 1));
            // Given out once more by an answer that had not heard of the end: it is not run again.
            let assignments = vec![assigned(task)];
            assert!(told(&mut board, proto::PollAnswer { assignments, ..Default::default() }).begin.is_empty());
        }
        let settled: Vec<proto::Attempt> = task.attempt.into_iter().collect();
        let orders = told(&mut board, proto::PollAnswer { discard: settled.clone(), settled, ..Default::default() });
        assert_eq!(orders.discard, [task]);
        assert!(board.poll().reports.is_empty());
    }

    #[test]
    fn of_what_was_stopped_only_success_is_said() {
        for (how, said) in [(End::Failure(proto::Failure::default()), 0), (End::Done(proto::Done::default()), 1)] {
            let (mut board, task) = begun(proto::Stage::Reduce);
            let cancel = task.attempt.into_iter().collect();
            told(&mut board, proto::PollAnswer { cancel, ..Default::default() });
            board.ended(end(task, how));
            assert_eq!(board.poll().reports.len(), said);
        }
    }

    #[test]
    fn a_drain_that_the_leader_asks_for_stops_what_runs() {
        let mut board = Board::new(5, 2);
        let assignments = vec![assigned(task(proto::Stage::Map, 1))];
        let orders = told(&mut board, proto::PollAnswer { assignments, ..Default::default() });
        assert!(!told(&mut board, proto::PollAnswer { drain: true, ..Default::default() }).drained);
        assert!(orders.begin[0].1.stop.load(Relaxed) && board.poll().draining);
        assert!(told(&mut board, proto::PollAnswer { drained: true, ..Default::default() }).drained);
    }

    #[test]
    fn what_is_fenced_stops_whatever_the_answer_is_to() {
        let mut board = Board::new(5, 2);
        let assignments = vec![assigned(task(proto::Stage::Map, 1))];
        let orders = told(&mut board, proto::PollAnswer { assignments, ..Default::default() });
        let fenced = proto::PollAnswer { sequence: 0, fenced: "a newer one".into(), ..Default::default() };
        assert_eq!(board.heed(fenced).fenced.as_deref(), Some("a newer one"));
        assert!(orders.begin[0].1.stop.load(Relaxed));
    }

    #[test]
    fn what_is_missing_is_said_until_it_was_heard() {
        let (mut board, task) = begun(proto::Stage::Reduce);
        let place = proto::SegmentPlace { map: 2, attempt: task.attempt, ..Default::default() };
        board.missed(7, 0, &place);
        assert!(board.is_missing(7, 0, &place));
        assert_eq!(board.poll().missing.len(), 1);
        // That answer was lost: the next poll says it again, its answer has heard of it.
        assert_eq!(board.poll().missing.len(), 1);
        told(&mut board, proto::PollAnswer::default());
        assert!(board.poll().missing.is_empty() && !board.is_missing(7, 0, &place));
    }

    #[test]
    fn another_list_of_segments_begins_anew() {
        let (mut board, _) = begun(proto::Stage::Reduce);
        let update = |list, map| {
            let places = vec![proto::SegmentPlace { map, ..Default::default() }];
            proto::SegmentUpdate { job: 7, epoch: 0, list, position: map + 1, places }
        };
        for (list, map, known) in [(1, 0, vec![0]), (1, 1, vec![0, 1]), (2, 4, vec![4])] {
            let segments = vec![update(list, map)];
            assert_eq!(told(&mut board, proto::PollAnswer { segments, ..Default::default() }).segments, [7]);
            let maps: Vec<u32> = board.segments(7).unwrap().places.keys().copied().collect();
            assert_eq!(maps, known);
            assert_eq!((board.poll().known[0].list, board.poll().known[0].position), (list, map + 1));
        }
    }
}
