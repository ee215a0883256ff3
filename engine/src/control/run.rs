//! One open job as the leader runs it: what waits, what runs where, how quick tasks are, and where finished maps lie.
//!
//! All of it follows from the state and from what workers say, so that a new leader makes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::JobSpec;
use prost::Message as _;

use super::ids::{AttemptId, Digest, Stage, TaskId, job_name, tag};
use super::job::Job;
use super::schedule::queue::MapQueue;
use super::task::Place;

/// Attempts of one task that run at a time.
pub(super) const ABREAST: usize = 2;

/// How a job is divided, as it lies in the store under its digest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Of the plan's object.
    pub digest: Digest,
    /// What each map task reads.
    pub maps: Vec<Vec<wire::InputRange>>,
    /// Number of parts, up to 10,000; 0: one for each map.
    pub reduces: u32,
    /// Whether parts are ranges of keys, for which a survey comes first.
    pub survey: bool,
    /// Bytes of all inputs as stored.
    pub input_bytes: u64,
}

/// An attempt on a worker.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) task: TaskId,
    pub(super) epoch: u32,
    pub(super) worker: u64,
    pub(super) since: Duration,
    pub(super) progress_ppm: u32,
    /// Of a reduce: it has all segments.
    pub(super) fetched: bool,
    /// Its end was reported and is not settled.
    pub(super) reported: bool,
    /// It was begun while maps were still missing.
    pub(super) early: bool,
    /// When it was given out, by the wall clock of who did it; 0: not known.
    pub(super) given_ms: u64,
    /// It was given out beside another attempt.
    pub(super) backup: bool,
    /// What its code has counted so far.
    pub(super) counters: Vec<wire::Counter>,
}

impl Running {
    /// An attempt of which nothing was heard yet.
    pub(super) fn new(task: TaskId, epoch: u32, worker: u64, since: Duration, given_ms: u64) -> Self {
        let (progress_ppm, fetched, reported, early, backup, counters) = Default::default();
        Self { task, epoch, worker, since, progress_ppm, fetched, reported, early, given_ms, backup, counters }
    }
}

/// An open job.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) job: Arc<Job>,
    /// The app's build, as the fleet numbers it.
    pub(super) offer: u32,
    pub(super) cluster: u64,
    pub(super) name: String,
    /// The encoded spec that goes with each task.
    pub(super) spec: Bytes,
    /// Not there until it is loaded.
    pub(super) plan: Option<Arc<Plan>>,
    /// The epoch that attempts were last compared with.
    pub(super) epoch: Option<u32>,
    /// Nothing is begun before this, or before all workers have said what they run.
    pub(super) held_until: Duration,
    pub(super) survey_waits: bool,
    pub(super) maps_wait: MapQueue,
    pub(super) reduces_wait: BTreeSet<u32>,
    /// Tasks that deserve a second attempt.
    pub(super) stragglers: BTreeSet<TaskId>,
    /// Attempts of each task that runs.
    pub(super) attempts: BTreeMap<(Stage, u32), Vec<AttemptId>>,
    /// Parts with an attempt that has all segments.
    pub(super) fetched: BTreeSet<u32>,
    /// Maps that were done and are lost.
    pub(super) lost: BTreeSet<u32>,
    /// Since when tasks that failed wait.
    pub(super) failed_at: BTreeMap<(Stage, u32), Duration>,
    pub(super) pace: BTreeMap<Stage, Pace>,
    pub(super) places: Places,
    /// Attempts at a task that ended because their worker ran out of memory.
    pub(super) out_of_memory: BTreeMap<(Stage, u32), u32>,
    /// Since when maps wait while its own reducers hold slots.
    pub(super) starved_since: Option<Duration>,
    /// Since when nobody offers what it needs.
    pub(super) unserved_since: Option<Duration>,
}

/// How long done tasks took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub(super) tasks: u32,
    pub(super) total: Duration,
}

/// Finished maps in the order in which they were placed, which reducers follow.
#[derive(Debug)]
pub(super) struct Places {
    /// Another number, another list.
    pub(super) list: u64,
    pub(super) maps: Vec<u32>,
    /// Where each map was when it was put into the list.
    placed: BTreeMap<u32, (AttemptId, Place)>,
}

impl Run {
    pub(super) fn new(cluster: u64, job: Arc<Job>, offer: u32, list: u64) -> Self {
        let alone = JobSpec { then: None, ..JobSpec::clone(&job.spec) };
        Self {
            offer,
            cluster,
            name: job_name(cluster, job.id),
            spec: alone.encode_to_vec().into(),
            plan: None,
            held_until: Duration::ZERO,
            epoch: None,
            survey_waits: false,
            maps_wait: MapQueue::default(),
            reduces_wait: BTreeSet::new(),
            stragglers: BTreeSet::new(),
            attempts: BTreeMap::new(),
            fetched: BTreeSet::new(),
            lost: BTreeSet::new(),
            failed_at: BTreeMap::new(),
            pace: BTreeMap::new(),
            places: Places { list, maps: Vec::new(), placed: BTreeMap::new() },
            out_of_memory: BTreeMap::new(),
            starved_since: None,
            unserved_since: None,
            job,
        }
    }

    pub(super) fn attach(&mut self, plan: Arc<Plan>) {
        let first = |inputs: &Vec<wire::InputRange>| {
            let input = inputs.first();
            input.map_or(0, |input| tag(&[input.name.as_bytes(), input.version.as_bytes()]))
        };
        self.maps_wait = MapQueue::new(plan.maps.iter().map(first));
        self.plan = Some(plan);
    }

    /// All tasks.
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        let job = self.job.id;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let counts = [
            (Stage::Survey, u32::from(self.job.survey.is_some())),
            (Stage::Map, number(self.job.maps.len())),
            (Stage::Reduce, number(self.job.reduces.len())),
        ];
        counts
            .into_iter()
            .flat_map(move |(stage, count)| (0..count).map(move |partition| TaskId { job, stage, partition }))
    }

    pub(super) fn surveyed(&self) -> bool {
        self.job.survey.as_ref().is_none_or(|survey| survey.is_done())
    }

    /// Whether so many of its maps are done that reducers may begin to fetch.
    pub(super) fn slow_start(&self, percent: u32) -> bool {
        let maps = self.job.maps.len() as u64;
        let done = maps - u64::from(self.job.maps_missing());
        self.job.maps_missing() == 0 || done * 100 >= maps * u64::from(percent.min(100))
    }

    /// Whether a lost map need not be done again: all that is left of the job has its segments.
    pub(super) fn all_fetched(&self) -> bool {
        self.job.reduces_open() > 0 && self.fetched.len() as u64 >= u64::from(self.job.reduces_open())
    }

    /// Whether something waits, wherever it may run.
    pub(super) fn is_runnable(&self, slow_start: u32, now: Duration) -> bool {
        let maps = !self.maps_wait.is_empty() && self.surveyed();
        let reduces = !self.reduces_wait.is_empty() && self.slow_start(slow_start);
        let waits = self.survey_waits || maps || reduces || !self.stragglers.is_empty();
        waits && self.plan.is_some() && now >= self.held_until && !self.job.is_spoilt()
    }

    /// How many tasks could begin at once.
    pub(super) fn waiting(&self, slow_start: u32, now: Duration) -> u64 {
        if !self.is_runnable(slow_start, now) {
            return 0;
        }
        let maps = if self.surveyed() { self.maps_wait.len() } else { 0 };
        let reduces = if self.slow_start(slow_start) { self.reduces_wait.len() } else { 0 };
        (usize::from(self.survey_waits) + maps + reduces) as u64
    }

    /// Puts a task where tasks wait, or takes it away.
    pub(super) fn wait(&mut self, task: TaskId, waits: bool) {
        match (task.stage, waits) {
            (Stage::Survey, _) => self.survey_waits = waits,
            (Stage::Map, true) => self.maps_wait.insert(task.partition),
            (Stage::Map, false) => self.maps_wait.remove(task.partition),
            (_, true) => {
                self.reduces_wait.insert(task.partition);
            }
            (_, false) => {
                self.reduces_wait.remove(&task.partition);
            }
        }
    }

    /// Whether a task that failed on this worker before had better run elsewhere, for now.
    pub(super) fn avoids(&self, stage: Stage, partition: u32, worker: u64, patience: Duration, now: Duration) -> bool {
        let recent = || self.failed_at.get(&(stage, partition)).is_some_and(|at| now < *at + patience);
        let facts = self.job.facts(stage, partition);
        facts.is_some_and(|facts| facts.failed.iter().any(|failed| failed.worker == worker)) && recent()
    }

    /// Puts a map into the list, if it is done and not there as it is now.
    pub(super) fn place(&mut self, map: u32) {
        let result = self.job.facts(Stage::Map, map).and_then(|facts| facts.result.as_ref());
        let Some(now) = result.map(|result| (result.attempt, result.place)) else { return };
        if self.places.placed.insert(map, now) == Some(now) || now.1 == Place::Lost {
            return;
        }
        // Maps that come again and again must not make the list grow without end.
        if self.places.maps.len() > 4 * self.job.maps.len() + 1024 {
            self.places.list += 1;
            let done = (0..).zip(&self.job.maps).filter(|(_, facts)| facts.is_done());
            self.places.maps = done.map(|(map, _)| map).filter(|done| *done != map).collect();
        }
        self.places.maps.push(map);
    }

    pub(super) fn attempts_of(&self, task: TaskId) -> &[AttemptId] {
        self.attempts.get(&(task.stage, task.partition)).map_or(&[], Vec::as_slice)
    }
}
