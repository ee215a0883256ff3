//! A worker as a plain struct: it polls, runs what it is told in steps, keeps segments, and forgets them when told to.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_engine::control::commit;
use gristmill_engine::control::ids::{AttemptId, Digest, Stage, job_of_name};
use gristmill_proto::internal::v1 as wire;
use wire::assignment::Kind;
use wire::task_report::End;

use super::world::{CLUSTER, hash};

/// What a reduce task knows of one map.
pub type Place = (AttemptId, Digest, u64);

#[derive(Default)]
pub struct Worker {
    pub name: String,
    pub incarnation: Option<u64>,
    pub slots: u32,
    pub alive: bool,
    pub draining: bool,
    pub drained: bool,
    pub sequence: u64,
    pub waits: bool,
    pub tasks: BTreeMap<AttemptId, Running>,
    pub reports: Vec<wire::TaskReport>,
    /// By job, map and attempt.
    pub segments: BTreeMap<(u64, u32, AttemptId), Digest>,
    pub known: BTreeMap<u64, (u32, u64, u32)>,
    pub places: BTreeMap<u64, BTreeMap<u32, Place>>,
    pub missing: BTreeMap<(u64, u32), wire::Missing>,
    pub uploads: BTreeSet<(u64, u32, AttemptId)>,
}

pub struct Running {
    pub task: wire::Task,
    pub assignment: wire::Assignment,
    pub fetched: bool,
    /// Digests of the maps that it read.
    pub read: Vec<Digest>,
}

impl Worker {
    pub fn new(name: String, slots: u32) -> Self {
        Self { name, slots, alive: true, ..Self::default() }
    }

    /// A new life: an empty memory; the disk is what it was only if the process lived on.
    pub fn restart(&mut self) {
        *self = Self::new(std::mem::take(&mut self.name), self.slots);
    }

    /// It was told that its incarnation has ended.
    pub fn fenced(&mut self) {
        self.restart();
    }

    pub fn register(&self) -> wire::Register {
        wire::Register {
            name: self.name.clone(),
            address: format!("{}:1", self.name),
            slots: self.slots,
            apps: vec![wire::AppOffer { name: "words".into(), build: "b1".into() }],
            uid: format!("uid-{}", self.name),
            folder: 0,
            capabilities: Vec::new(),
        }
    }

    pub fn poll(&mut self, incarnation: u64) -> wire::Poll {
        self.sequence += 1;
        self.waits = true;
        let running = |r: &Running| wire::Running {
            task: Some(r.task),
            progress_ppm: 500_000,
            fetched: r.fetched,
            given_ms: r.assignment.given_ms,
            counters: vec![wire::Counter { name: "tasks".into(), value: 1 }],
        };
        let busy = u32::try_from(self.tasks.len()).unwrap();
        let known = |(job, (epoch, list, position)): (&u64, &(u32, u64, u32))| wire::SegmentsKnown {
            job: *job,
            epoch: *epoch,
            list: *list,
            position: *position,
        };
        wire::Poll {
            incarnation,
            sequence: self.sequence,
            free_slots: self.slots.saturating_sub(busy),
            running: self.tasks.values().map(running).collect(),
            reports: self.reports.clone(),
            missing: self.missing.values().copied().collect(),
            known: self.known.iter().map(known).collect(),
            scratch_jobs: self.segments.keys().map(|(job, ..)| *job).collect::<BTreeSet<_>>().into_iter().collect(),
            draining: self.draining,
        }
    }

    /// Heeds an answer.
    pub fn heed(&mut self, answer: wire::PollAnswer) {
        if answer.sequence != self.sequence {
            return;
        }
        self.waits = false;
        if !answer.fenced.is_empty() {
            return self.fenced();
        }
        self.drained |= answer.drained;
        self.draining |= answer.drain;
        for attempt in answer.cancel {
            self.tasks.remove(&attempt.into());
        }
        let settled: BTreeSet<AttemptId> = answer.settled.into_iter().map(Into::into).collect();
        self.reports.retain(|report| !settled.contains(&report.task.unwrap().attempt.unwrap().into()));
        for attempt in answer.discard.into_iter().map(AttemptId::from) {
            self.segments.retain(|(_, _, by), _| *by != attempt);
        }
        for job in answer.drop_jobs {
            self.segments.retain(|(of, ..), _| *of != job);
        }
        for update in answer.segments {
            self.learn(update);
        }
        for task in answer.upload {
            self.uploads.insert((task.job, task.partition, task.attempt.unwrap().into()));
        }
        for assignment in answer.assignments {
            let task = assignment.task.unwrap();
            let running = Running { task, assignment, fetched: false, read: Vec::new() };
            self.tasks.insert(task.attempt.unwrap().into(), running);
        }
    }

    fn learn(&mut self, update: wire::SegmentUpdate) {
        let before = self.known.insert(update.job, (update.epoch, update.list, update.position));
        if before.is_none_or(|(epoch, list, _)| (epoch, list) != (update.epoch, update.list)) {
            self.places.remove(&update.job);
        }
        let places = self.places.entry(update.job).or_default();
        for place in update.places {
            let digest = (*place.digest).try_into().unwrap();
            places.insert(place.map, (place.attempt.unwrap().into(), digest, place.incarnation));
            self.missing.remove(&(update.job, place.map));
        }
    }

    /// Ends a task well, if it has all that it needs, and gives the object that it put into the store.
    pub fn finish(&mut self, attempt: AttemptId) -> Option<(String, Digest)> {
        let running = self.tasks.get(&attempt)?;
        let (task, assignment) = (running.task, &running.assignment);
        let given_ms = assignment.given_ms;
        let stage = task.stage();
        if stage == Stage::Reduce && !running.fetched {
            return None;
        }
        let job = job_of_name(CLUSTER, &assignment.job_name).unwrap();
        assert_eq!(job, task.job);
        let chaotic = String::from_utf8_lossy(&assignment.spec).contains("chaotic");
        let salt = if chaotic && stage == Stage::Map { attempt.term << 32 | attempt.counter } else { 0 };
        let digest = hash(&[&[job, stage as u64, u64::from(task.partition), salt]], &running.read);
        let object = match &assignment.kind {
            Some(Kind::Map(map)) if map.store_segments => Some(commit::segments(CLUSTER, job, task.partition, attempt)),
            Some(Kind::Map(_)) if assignment.reduces > 0 => {
                self.segments.insert((job, task.partition, attempt), digest);
                None
            }
            Some(Kind::Survey(_)) => Some(commit::survey(CLUSTER, job, attempt)),
            _ => Some(commit::part(CLUSTER, job, task.partition, attempt)),
        };
        let spoilt = stage == Stage::Map && String::from_utf8_lossy(&assignment.spec).contains("spoilt");
        let bad_records = u64::from(spoilt);
        let counters = vec![wire::Counter { name: "tasks".into(), value: 1 }];
        let digest_bytes = digest.to_vec().into();
        let done = wire::Done { digest: digest_bytes, output_records: 1, counters, bad_records, ..Default::default() };
        self.tasks.remove(&attempt);
        self.reports.push(wire::TaskReport { task: Some(task), end: Some(End::Done(done)), given_ms });
        object.map(|object| (object, digest))
    }

    pub fn fail(&mut self, attempt: AttemptId, failure: wire::Failure) {
        let Some(running) = self.tasks.remove(&attempt) else { return };
        self.reports.push(wire::TaskReport {
            task: Some(running.task),
            end: Some(End::Failure(failure)),
            given_ms: running.assignment.given_ms,
        });
    }
}
