//! The workers as the leader sees them: leases, free slots, what each runs, what each is owed in its next answer, and
//! which are set aside because tasks keep failing on them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;

use super::ids::{AttemptId, TaskId, tag};
use super::schedule::queue::HELD;
use super::state::has_all;

/// Tasks that fail in a row through a worker's own fault before it is set aside; or jobs of which tasks fail in a row,
/// whoever seems at fault: an app that is wrong fails everywhere, and must not cost others their workers.
const FAILURES_IN_A_ROW: usize = 3;
/// Failures that are looked at.
const MAX_FAILING: usize = 64;
/// The first time that a worker is set aside it is for so long; each further time twice as long.
const ASIDE: Duration = Duration::from_secs(60);
const MAX_DOUBLINGS: u32 = 4;

/// The workers of the cluster.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) workers: BTreeMap<u64, Worker>,
    /// App and build by number.
    offers: BTreeMap<(String, String), u32>,
    /// Workers that wait for an answer with a slot free, those that run least first.
    pub(super) idle: BTreeSet<(u32, u64)>,
    pub(super) slots: u64,
}

/// One incarnation.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: String,
    /// Tag of its name.
    pub(super) tag: u64,
    pub(super) slots: u32,
    pub(super) free: u32,
    pub(super) offers: BTreeSet<u32>,
    pub(super) capabilities: Vec<String>,
    /// Of its pod; empty: it has none.
    pub(super) uid: String,
    /// Since when it has run nothing.
    pub(super) idle_since: Option<Duration>,
    pub(super) lease_until: Duration,
    /// It has polled this leader.
    pub(super) heard: bool,
    /// Of its newest poll.
    pub(super) sequence: u64,
    /// Since when a poll waits.
    pub(super) waiting: Option<Duration>,
    /// Attempts that it runs or whose end it reports.
    pub(super) attempts: BTreeSet<AttemptId>,
    pub(super) answer: wire::PollAnswer,
    /// Where its reducers are in the lists of segments: epoch, list, position.
    pub(super) known: BTreeMap<u64, (u32, u64, u32)>,
    /// Objects that it fetched, newest first.
    pub(super) held: VecDeque<u64>,
    pub(super) draining: bool,
    /// Jobs of which it ran something when it first said that it wants to end.
    pub(super) left: BTreeSet<u64>,
    /// It gets nothing to do any more, and drains when it has nothing.
    pub(super) retiring: bool,
    /// Segments that it was asked to upload.
    pub(super) uploading: BTreeSet<(u64, u32)>,
    /// No proposal about it before this.
    pub(super) not_before: Duration,
    /// Tasks that failed since one was done, and whether that was the worker's own fault.
    failing: BTreeMap<TaskId, bool>,
    /// Attempts that ended here while this leader listened.
    pub(super) done: u64,
    pub(super) failed: u64,
    aside_until: Duration,
    times_aside: u32,
    /// By its own fault, since a task was done.
    own_failures: u32,
    paused_until: Duration,
}

impl Worker {
    pub(super) fn is_aside(&self, now: Duration) -> bool {
        now < self.aside_until
    }

    /// Whether it offers a build, and has all that is required.
    pub(super) fn can(&self, offer: u32, requires: &[String]) -> bool {
        self.offers.contains(&offer) && has_all(&self.capabilities, requires)
    }

    /// Notes an object as the newest.
    pub(super) fn holds(&mut self, object: u64) {
        self.held.retain(|held| *held != object);
        self.held.push_front(object);
        self.held.truncate(HELD);
    }

    /// Whether it may be given work.
    pub(super) fn takes_work(&self, now: Duration) -> bool {
        let stays = !self.draining && !self.retiring;
        self.waiting.is_some() && self.free > 0 && stays && !self.is_aside(now) && now >= self.paused_until
    }

    pub(super) fn load(&self) -> u32 {
        self.slots.saturating_sub(self.free)
    }
}

impl Fleet {
    /// Takes in a registration, or that it drains.
    pub(super) fn put(&mut self, record: &wire::WorkerRecord, lease_until: Duration) {
        if let Some(worker) = self.workers.get_mut(&record.incarnation) {
            worker.draining = record.draining;
            return;
        }
        let info = record.info.clone().unwrap_or_default();
        let worker = Worker {
            tag: tag(&[info.name.as_bytes()]),
            slots: info.slots,
            free: 0,
            offers: info.apps.iter().map(|app| self.offer(&app.name, &app.build)).collect(),
            name: info.name,
            capabilities: info.capabilities,
            uid: info.uid,
            idle_since: None,
            lease_until,
            heard: false,
            sequence: 0,
            waiting: None,
            attempts: BTreeSet::new(),
            answer: wire::PollAnswer::default(),
            known: BTreeMap::new(),
            held: VecDeque::new(),
            draining: record.draining,
            left: BTreeSet::new(),
            retiring: false,
            uploading: BTreeSet::new(),
            not_before: Duration::ZERO,
            failing: BTreeMap::new(),
            done: 0,
            failed: 0,
            aside_until: Duration::ZERO,
            times_aside: 0,
            own_failures: 0,
            paused_until: Duration::ZERO,
        };
        self.slots += u64::from(info.slots);
        self.workers.insert(record.incarnation, worker);
    }

    pub(super) fn remove(&mut self, incarnation: u64) -> Option<Worker> {
        let worker = self.workers.remove(&incarnation)?;
        self.slots -= u64::from(worker.slots);
        self.idle.remove(&(worker.load(), incarnation));
        Some(worker)
    }

    /// The number of an app's build.
    pub(super) fn offer(&mut self, app: &str, build: &str) -> u32 {
        let next = u32::try_from(self.offers.len()).unwrap_or(u32::MAX);
        *self.offers.entry((app.to_string(), build.to_string())).or_insert(next)
    }

    /// Whether a worker that does not drain offers a build, and has all that is required.
    pub(super) fn is_offered(&self, offer: u32, requires: &[String]) -> bool {
        self.workers.values().any(|worker| !worker.draining && worker.can(offer, requires))
    }

    /// Changes a worker and keeps the order of the idle ones.
    pub(super) fn change<T>(&mut self, id: u64, now: Duration, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let worker = self.workers.get_mut(&id)?;
        let before = worker.load();
        let changed = change(worker);
        let (after, idle) = (worker.load(), worker.takes_work(now));
        self.idle.remove(&(before, id));
        if idle {
            self.idle.insert((after, id));
        }
        Some(changed)
    }

    /// A task was done on a worker.
    pub(super) fn praise(&mut self, incarnation: u64, now: Duration) {
        self.change(incarnation, now, |worker| {
            worker.failing.clear();
            worker.times_aside = 0;
            (worker.own_failures, worker.paused_until) = (0, Duration::ZERO);
            worker.done += 1;
        });
    }

    /// A task failed on a worker, which if that is its own fault gets none for `retry`, doubled each time, up to 64 times this.
    pub(super) fn blame(&mut self, incarnation: u64, task: TaskId, own: bool, now: Duration, retry: Duration) {
        let aside = self.workers.values().filter(|worker| worker.is_aside(now)).count();
        // Who is left must be able to do the work: never more than a third.
        let may = (aside + 1) * 3 <= self.workers.len();
        self.change(incarnation, now, |worker| {
            worker.failed += 1;
            if own {
                // What is wrong with its disk or its way to the store may pass, and no other may be there to take over.
                worker.paused_until = now + retry * (1 << worker.own_failures.min(6));
                worker.own_failures += 1;
            }
            if worker.failing.len() < MAX_FAILING {
                *worker.failing.entry(task).or_default() |= own;
            }
            let by_itself = worker.failing.values().filter(|own| **own).count();
            let jobs: BTreeSet<u64> = worker.failing.keys().map(|task| task.job).collect();
            if may && by_itself.max(jobs.len()) >= FAILURES_IN_A_ROW {
                worker.failing.clear();
                worker.aside_until = now + ASIDE * (1 << worker.times_aside.min(MAX_DOUBLINGS));
                worker.times_aside += 1;
            }
        });
    }
}
