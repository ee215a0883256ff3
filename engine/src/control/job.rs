//! What the cluster knows for certain of one job: its spec, where it stands, and the facts of its tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{JobError, JobSpec, JobStatus, Phase, TaskCounts};
use imbl::Vector;

pub use gristmill_proto::v1::JobState;

use super::ids::{Stage, TaskId, job_name};
use super::limits;
use super::task::{Facts, Place};

/// A job that has not been archived.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The log index at which it was submitted.
    pub id: u64,
    /// Who submitted it.
    pub principal: Arc<str>,
    /// What to run. The app's build is set.
    pub spec: Arc<JobSpec>,
    /// Where it stands.
    pub state: JobState,
    /// When it was submitted, in the leader's milliseconds since 1970.
    pub submitted_ms: u64,
    /// When its plan was made; 0: not yet.
    pub started_ms: u64,
    /// When it ended; 0: not yet.
    pub ended_ms: u64,
    /// How it is divided.
    pub plan: Option<wire::PlanJob>,
    /// How often the outputs of its maps have changed.
    pub epoch: u32,
    /// The survey, of a job that has one.
    pub survey: Option<Facts>,
    /// The map tasks.
    pub maps: Vector<Facts>,
    /// The parts.
    pub reduces: Vector<Facts>,
    /// Names of counters, in the order in which they were met.
    pub counter_names: Vector<Arc<str>>,
    /// Why it failed.
    pub error: Option<Arc<JobError>>,
    /// The job that it repeats; 0: none.
    pub retry_of: u64,
    /// The job after it; 0: none yet.
    pub next: u64,
    /// When its output was decided; 0: not yet.
    pub decided_ms: u64,
    /// What happened to it beyond the ends of tasks that counted: the newest, in order.
    pub incidents: Vector<Arc<wire::Incident>>,
    /// How many came before those.
    pub incidents_left_out: u64,
    /// Maps that have never been done. Derived.
    pub(super) maps_undone: u32,
    /// Maps whose output is not there. Derived.
    pub(super) maps_missing: u32,
    /// Parts that are not done. Derived.
    pub(super) reduces_open: u32,
    /// Bad records of all maps that have been done. Derived.
    pub(super) bad_records: u64,
}

impl Job {
    pub(super) fn new(id: u64, principal: Arc<str>, spec: Arc<JobSpec>, now_ms: u64) -> Self {
        Self {
            id,
            principal,
            spec,
            state: JobState::Queued,
            submitted_ms: now_ms,
            started_ms: 0,
            ended_ms: 0,
            plan: None,
            epoch: 0,
            survey: None,
            maps: Vector::new(),
            reduces: Vector::new(),
            counter_names: Vector::new(),
            error: None,
            retry_of: 0,
            next: 0,
            decided_ms: 0,
            incidents: Vector::new(),
            incidents_left_out: 0,
            maps_undone: 0,
            maps_missing: 0,
            reduces_open: 0,
            bad_records: 0,
        }
    }

    /// Which half of it is run.
    pub fn phase(&self) -> Phase {
        self.spec.phase()
    }

    /// What its app is called: as what it was pushed, else by its name.
    pub fn called(&self) -> &str {
        let app = self.spec.app.as_ref();
        app.map_or("", |app| if app.pushed.is_empty() { &app.name } else { &app.pushed })
    }

    /// Whether what its maps write is its output: a part each.
    pub fn only_maps(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.reduces == 0)
    }

    /// Whether it is decided once its maps are done.
    pub fn ends_with_maps(&self) -> bool {
        self.phase() == Phase::Map || self.only_maps()
    }

    /// Whether tasks can still change anything.
    pub fn is_open(&self) -> bool {
        matches!(self.state, JobState::Mapping | JobState::Shuffling | JobState::Reducing)
    }

    /// Whether nothing can happen to it any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, JobState::Completed | JobState::Failed | JobState::Cancelled)
    }

    /// Maps whose output is not there, because they have not been done or because it is gone.
    pub fn maps_missing(&self) -> u32 {
        self.maps_missing
    }

    /// Parts that are not done.
    pub fn reduces_open(&self) -> u32 {
        self.reduces_open
    }

    /// Attempts of one task before the job fails.
    pub fn max_attempts(&self) -> usize {
        let asked = self.spec.max_attempts;
        (if asked == 0 { limits::ATTEMPTS } else { asked.min(limits::MAX_ATTEMPTS) }) as usize
    }

    /// The facts of a task, if there is such a task.
    pub fn facts(&self, stage: Stage, partition: u32) -> Option<&Facts> {
        match stage {
            Stage::Survey if partition == 0 => self.survey.as_ref(),
            Stage::Map => self.maps.get(partition as usize),
            Stage::Reduce => self.reduces.get(partition as usize),
            Stage::Survey | Stage::Unspecified => None,
        }
    }

    pub(super) fn facts_mut(&mut self, task: TaskId) -> Option<&mut Facts> {
        match task.stage {
            Stage::Survey if task.partition == 0 => self.survey.as_mut(),
            Stage::Map => self.maps.get_mut(task.partition as usize),
            Stage::Reduce => self.reduces.get_mut(task.partition as usize),
            Stage::Survey | Stage::Unspecified => None,
        }
    }

    /// Whether it has met more bad records than it may pass over, and it is known which one was the first too many: all maps
    /// before that one have been done.
    pub fn is_spoilt(&self) -> bool {
        let allowed = self.spec.skip_bad_records;
        let known = || self.maps.iter().map_while(|facts| facts.result.as_ref());
        let exceeded = || {
            let mut sum = 0u64;
            known().any(|result| {
                sum = sum.saturating_add(result.done.bad_records);
                sum > allowed
            })
        };
        // The sum of all says at once that most jobs are not.
        self.bad_records > allowed && exceeded()
    }

    /// Moves forward. States that have nothing to do are passed over.
    pub(super) fn advance(&mut self, now_ms: u64) {
        if self.bad_records > self.spec.skip_bad_records {
            // It fails, once it is known for which record.
            return;
        }
        let committing = if self.ends_with_maps() { self.maps_missing == 0 } else { self.reduces_open == 0 };
        let next = match self.state {
            JobState::Mapping | JobState::Shuffling | JobState::Reducing if committing => JobState::Committing,
            JobState::Mapping if self.maps_undone == 0 && !self.ends_with_maps() => JobState::Shuffling,
            state => state,
        };
        if next == JobState::Committing && self.state != next {
            self.decided_ms = now_ms;
        }
        self.go(next);
    }

    /// Remembers an incident for the history.
    pub(super) fn note(&mut self, mut incident: wire::Incident) {
        incident.detail = super::task::cut(incident.detail, limits::INCIDENT_BYTES);
        self.incidents.push_back(Arc::new(incident));
        if self.incidents.len() > limits::INCIDENTS {
            self.incidents.pop_front();
            self.incidents_left_out += 1;
        }
    }

    /// The one place where a job changes its state.
    pub(super) fn go(&mut self, next: JobState) {
        debug_assert!(self.state as i32 <= next as i32 && (!self.has_ended() || self.state == next));
        self.state = next;
    }

    /// Computes what is derived from the facts of the tasks.
    pub(super) fn recount(&mut self) {
        let count = |tasks: &Vector<Facts>, is: fn(&Facts) -> bool| {
            u32::try_from(tasks.iter().filter(|facts| is(facts)).count()).unwrap_or(u32::MAX)
        };
        self.maps_undone = count(&self.maps, |facts| facts.result.is_none());
        self.maps_missing = count(&self.maps, |facts| !facts.is_done());
        self.reduces_open = count(&self.reduces, |facts| !facts.is_done());
        let bad = self.maps.iter().filter_map(|facts| facts.result.as_ref()).map(|result| result.done.bad_records);
        self.bad_records = bad.fold(0, u64::saturating_add);
    }

    /// Maps whose segments lie on this worker, while someone may need them.
    pub fn maps_on(&self, worker: u64) -> impl Iterator<Item = u32> + '_ {
        let on = move |facts: &Facts| facts.result.as_ref().is_some_and(|r| r.place == Place::Worker(worker));
        let maps = self.is_open().then(|| self.maps.iter()).into_iter().flatten();
        (0..).zip(maps).filter(move |(_, facts)| on(facts)).map(|(map, _)| map)
    }

    /// The app's counters: those of done tasks, each once.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut sums = vec![0u64; self.counter_names.len()];
        for result in self.maps.iter().chain(&self.reduces).filter_map(|facts| facts.result.as_ref()) {
            for (name, value) in &result.counters {
                if let Some(sum) = sums.get_mut(usize::from(*name)) {
                    *sum = sum.saturating_add(*value);
                }
            }
        }
        self.counter_names.iter().map(ToString::to_string).zip(sums).collect()
    }

    /// What clients are told. How many tasks run is known to the leader alone.
    pub fn status(&self, cluster: u64) -> JobStatus {
        let name = |job: u64| if job == 0 { String::new() } else { job_name(cluster, job) };
        let half = self.phase() == Phase::Map;
        let last = if self.ends_with_maps() { &self.maps } else { &self.reduces };
        let results = || last.iter().filter_map(|facts| facts.result.as_ref());
        let bytes = |r: &Arc<super::task::Result>| if half { r.done.length } else { r.done.output_bytes };
        JobStatus {
            id: name(self.id),
            spec: Some(JobSpec::clone(&self.spec)),
            state: self.state.into(),
            principal: self.principal.to_string(),
            submitted_ms: self.submitted_ms,
            started_ms: self.started_ms,
            ended_ms: self.ended_ms,
            maps: Some(counts(&self.maps, self.decided_ms > 0)),
            reduces: Some(counts(&self.reduces, false)),
            input_bytes: self.plan.as_ref().map_or(0, |plan| plan.input_bytes),
            counters: self.counters(),
            error: self.error.as_deref().cloned(),
            retry_of: name(self.retry_of),
            next: name(self.next),
            output_records: results().map(|r| r.done.output_records).fold(0, u64::saturating_add),
            output_bytes: results().map(bytes).fold(0, u64::saturating_add),
            bad_records: self.bad_records,
            shuffle_ppm: counts(&self.reduces, false).progress_ppm,
            notices: Vec::new(),
        }
    }
}

/// With `all_read`, what is gone was read by everybody before: it was done, and nobody does it again.
fn counts(tasks: &Vector<Facts>, all_read: bool) -> TaskCounts {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let done = tasks.iter().filter(|facts| facts.is_done() || (all_read && facts.is_lost())).count();
    TaskCounts {
        total: number(tasks.len()),
        done: number(done),
        progress_ppm: number(done * 1_000_000 / tasks.len().max(1)),
        failures: number(tasks.iter().map(|facts| facts.failed.len()).sum()),
        ..TaskCounts::default()
    }
}
