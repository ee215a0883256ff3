//! What was seen, and what must never be seen. Each check names the invariant that it is of.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_engine::control::commit::{self, Publication};
use gristmill_engine::control::ids::{AttemptId, Digest};
use gristmill_engine::control::job::{Job, JobState};
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use wire::command::Action;
use wire::reply::Outcome;
use wire::task_change::What;

use super::world::CLUSTER;

#[derive(Default)]
pub struct Ledger {
    /// Jobs that were acknowledged, with the state last seen.
    jobs: BTreeMap<u64, JobState>,
    /// What each attempt was given out for.
    attempts: BTreeMap<AttemptId, (u64, i32, u32, u32)>,
    counted: BTreeSet<AttemptId>,
    failed: BTreeSet<AttemptId>,
    /// What reduce attempts read.
    reads: BTreeMap<AttemptId, Vec<Digest>>,
    /// The parts of decided jobs.
    decided: BTreeMap<u64, Vec<AttemptId>>,
    published: BTreeMap<u64, Publication>,
}

impl Ledger {
    pub fn read(&mut self, attempt: AttemptId, maps: Vec<Digest>) {
        self.reads.insert(attempt, maps);
    }

    pub fn assigned(&mut self, task: &wire::Task) {
        let attempt = task.attempt.unwrap().into();
        let of = (task.job, task.stage, task.epoch, task.partition);
        assert_eq!(self.attempts.insert(attempt, of), None, "5: {attempt:?} was given out twice");
    }

    pub fn check(&mut self, before: &State, after: &State, command: &wire::Command, outcome: &Outcome) {
        if let Outcome::Submitted(submitted) = outcome {
            let news = !self.jobs.contains_key(&submitted.job);
            assert_eq!(news, !submitted.already, "11: job {} twice, or a repetition that is none", submitted.job);
            self.jobs.entry(submitted.job).or_insert(JobState::Queued);
        }
        if let (Some(Action::TaskChanges(changes)), Outcome::Changes(counted)) = (&command.action, outcome) {
            assert_eq!(changes.changes.len(), counted.verdicts.len());
            for (change, verdict) in changes.changes.iter().zip(counted.verdicts()) {
                if verdict == wire::Verdict::Counted {
                    self.count(before, change);
                }
            }
        }
        for job in after.jobs() {
            self.check_job(job);
        }
        for (job, state) in &self.jobs {
            let kept = after.job(*job).is_some() || after.archived(*job).is_some();
            assert!(kept, "1: job {job}, last {state:?}, is lost");
        }
    }

    fn count(&mut self, before: &State, change: &wire::TaskChange) {
        let task = change.task.as_ref().unwrap();
        let attempt = AttemptId::from(task.attempt.unwrap());
        let of = (task.job, task.stage, task.epoch, task.partition);
        let live = before.worker(change.worker).is_some();
        match change.what.as_ref().unwrap() {
            What::Done(_) => {
                assert_eq!(self.attempts.get(&attempt), Some(&of), "4: {attempt:?} counts for what it was not given");
                assert!(live, "4: {attempt:?} counts for a dead worker");
                assert!(!self.failed.contains(&attempt), "5: {attempt:?} failed and counts");
                assert!(self.counted.insert(attempt), "3: {attempt:?} counts twice");
            }
            What::Failure(_) => {
                assert!(!self.counted.contains(&attempt), "5: {attempt:?} counts and fails");
                self.failed.insert(attempt);
            }
            _ => {}
        }
    }

    fn check_job(&mut self, job: &Job) {
        let seen = self.jobs.entry(job.id).or_insert(JobState::Queued);
        let forward = *seen as i32 <= job.state as i32;
        let ended = matches!(seen, JobState::Completed | JobState::Failed | JobState::Cancelled);
        assert!(forward && (!ended || *seen == job.state), "11: job {} from {seen:?} to {:?}", job.id, job.state);
        let decided = *seen == JobState::Committing;
        assert!(!decided || matches!(job.state, JobState::Committing | JobState::Completed), "8: a decided job ends");
        *seen = job.state;
        if !matches!(job.state, JobState::Committing | JobState::Completed) {
            return;
        }
        let last = if job.only_maps() { &job.maps } else { &job.reduces };
        let parts: Vec<AttemptId> = last.iter().map(|part| part.result.as_ref().unwrap().attempt).collect();
        let first = self.decided.entry(job.id).or_insert_with(|| parts.clone());
        assert_eq!(*first, parts, "3: the parts of decided job {} changed", job.id);
        let mut reads = parts.iter().map(|attempt| self.reads.get(attempt));
        let one = reads.next();
        assert!(reads.all(|read| Some(read) == one), "6: parts of job {} read different maps", job.id);
    }

    pub fn publish(&mut self, state: &State, store: &BTreeMap<String, Digest>, publication: &Publication) {
        let id = publication.job;
        let decided = self.jobs.get(&id);
        assert!(matches!(decided, Some(JobState::Committing | JobState::Completed)), "9: job {id} is not decided");
        let first = self.published.entry(id).or_insert_with(|| publication.clone());
        assert_eq!(first, publication, "8: job {id} is published as something else");
        if let Some(job) = state.job(id).filter(|job| job.only_maps()) {
            assert_eq!(publication.objects.len(), job.maps.len(), "3: a part of job {id} for each map");
            assert!(!publication.segments, "3: job {id} has parts");
        }
        let retired = state.job(id).is_none_or(|job| job.has_ended());
        for object in &publication.objects {
            match store.get(&object.from) {
                Some(digest) => assert_eq!(*digest, object.digest, "3: {} has other bytes", object.from),
                None => assert!(retired, "3: {} is not there", object.from),
            }
        }
    }

    /// After all has healed.
    pub fn check_end(&self, state: &State, store: &BTreeMap<String, Digest>) {
        for job in self.jobs.keys() {
            let row = state.archived(*job).unwrap();
            let completed = row.state() == JobState::Completed;
            assert_eq!(completed, self.published.contains_key(job), "1: job {job} is completed if it is published");
        }
        let left = store.keys().find(|key| key.starts_with(&commit::scratch_root(CLUSTER)));
        assert_eq!(left, None, "15: scratch of ended jobs");
    }
}
