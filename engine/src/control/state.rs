//! The replicated state: what a cluster knows for certain, the same on every master at the same index.
//!
//! It is made of persistent maps: a clone costs nothing and stays as it was, so that snapshots, the leader and reads look
//! at it while commands go on. [`State::apply`] is the only writer. Nothing here is derived from a clock, from chance,
//! or from an order that is not fixed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_raft::planted::{Bug, planted};
use imbl::{OrdMap, OrdSet};

use super::access::Access;
use super::ids::{AttemptId, Digest, TaskId, digest};
use super::job::Job;
use super::limits;
use super::task::Place;

/// The state. [`State::default`] is the one before the first command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(super) cluster: u64,
    pub(super) level: u32,
    pub(super) now_ms: u64,
    pub(super) applied: u64,
    /// Jobs that have not been archived.
    pub(super) jobs: OrdMap<u64, Arc<Job>>,
    pub(super) workers: OrdMap<u64, Arc<wire::WorkerRecord>>,
    pub(super) archive: OrdMap<u64, Arc<wire::ArchiveRecord>>,
    pub(super) keys: OrdMap<Digest, Key>,
    pub(super) drained: OrdMap<u64, Arc<str>>,
    pub(super) pools: OrdMap<Arc<str>, Arc<wire::PoolRecord>>,
    pub(super) access: Access,
    /// What this build understands: no part of what replicas share.
    pub(super) understands: Understands,
    // What follows is derived from the above.
    /// Keys by age.
    pub(super) key_ages: OrdSet<(u64, Digest)>,
    /// Claims on outputs: by jobs that have not ended, their followers' included, and by completed ones until they are
    /// archived.
    pub(super) outputs: OrdMap<Arc<str>, u64>,
    /// Numbers of jobs that have not ended.
    pub(super) live_of_user: OrdMap<Arc<str>, u32>,
    pub(super) worker_names: OrdMap<Arc<str>, u64>,
}

/// A feature level up to which commands are understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Understands(pub(super) u32);

impl Default for Understands {
    fn default() -> Self {
        Self(limits::LEVEL)
    }
}

/// A key that a submission came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) spec: Digest,
    pub(super) job: u64,
    pub(super) at_ms: u64,
}

/// What has become of a report that a worker repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is not settled: to be proposed.
    Open,
    /// Its attempt counted.
    Counted,
    /// Its attempt did not count and never will.
    Void,
}

impl State {
    /// The one before the first command, of a build that understands commands up to this feature level.
    pub fn understanding(level: u32) -> Self {
        Self { understands: Understands(level), ..Self::default() }
    }

    /// The cluster's id; 0 before the first command.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// The feature level that all members have. Nobody may propose a command of a higher one, but the one that raises it.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The highest time of a command, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Index of the last command.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Who is known, and what they may do.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A job that has not been archived.
    pub fn job(&self, job: u64) -> Option<&Arc<Job>> {
        self.jobs.get(&job)
    }

    /// All jobs that have not been archived, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values()
    }

    /// A worker that lives.
    pub fn worker(&self, incarnation: u64) -> Option<&wire::WorkerRecord> {
        self.workers.get(&incarnation).map(Arc::as_ref)
    }

    /// All workers that live.
    pub fn workers(&self) -> impl Iterator<Item = &wire::WorkerRecord> {
        self.workers.values().map(Arc::as_ref)
    }

    /// Ended jobs whose history is in the store, oldest first.
    pub fn archive(&self) -> impl Iterator<Item = &wire::ArchiveRecord> {
        self.archive.values().map(Arc::as_ref)
    }

    /// The row of an archived job.
    pub fn archived(&self, job: u64) -> Option<&wire::ArchiveRecord> {
        self.archive.get(&job).map(Arc::as_ref)
    }

    /// Jobs of a user that have not ended.
    pub fn jobs_of(&self, user: &str) -> u32 {
        self.live_of_user.get(user).copied().unwrap_or_default()
    }

    /// The job that a user submitted with this key, if that is remembered.
    pub fn job_of_key(&self, user: &str, key: &str) -> Option<u64> {
        self.keys.get(&digest(&[user.as_bytes(), key.as_bytes()])).map(|row| row.job)
    }

    /// The job that claims an output of this name.
    pub fn claim(&self, output: &str) -> Option<u64> {
        self.outputs.get(output).copied()
    }

    /// UIDs of workers that drained and are gone, so that their pods may be deleted.
    pub fn drained(&self) -> impl Iterator<Item = (u64, &str)> {
        self.drained.iter().map(|(incarnation, uid)| (*incarnation, uid.as_ref()))
    }

    /// What was decided of a pool of workers, and is known of it.
    pub fn pool(&self, name: &str) -> Option<&wire::PoolRecord> {
        self.pools.get(name).map(Arc::as_ref)
    }

    /// All of them, by name.
    pub fn pools(&self) -> impl Iterator<Item = &wire::PoolRecord> {
        self.pools.values().map(Arc::as_ref)
    }

    /// Whether this incarnation drained.
    pub fn has_drained(&self, incarnation: u64) -> bool {
        self.drained.contains_key(&incarnation)
    }

    /// What has become of an attempt.
    pub fn settled(&self, task: TaskId, attempt: AttemptId, epoch: u32) -> Settled {
        let Some(job) = self.jobs.get(&task.job) else { return Settled::Void };
        let Some(facts) = job.facts(task.stage, task.partition) else { return Settled::Void };
        if facts.counted(attempt) {
            return Settled::Counted;
        }
        let of_epoch = job.epoch == epoch || planted(Bug::EpochIgnored);
        let is_done = facts.is_done() && !planted(Bug::SecondDoneCounts);
        if !job.is_open() || !of_epoch || is_done || facts.has_failed(attempt) {
            return Settled::Void;
        }
        Settled::Open
    }

    /// The address of a worker that holds segments, if that is where they are.
    pub(super) fn address(&self, place: Place) -> Option<(u64, &str)> {
        let Place::Worker(incarnation) = place else { return None };
        let info = self.workers.get(&incarnation)?.info.as_ref()?;
        Some((incarnation, &info.address))
    }

    /// A job to be changed.
    pub(super) fn job_mut(&mut self, job: u64) -> Option<&mut Job> {
        self.jobs.get_mut(&job).map(Arc::make_mut)
    }

    /// The job whose claim on an output overlaps with this one.
    pub(super) fn overlapping(&self, output: &str) -> Option<(&str, u64)> {
        let ancestors = output.match_indices('/').map(|(at, _)| &output[..at]).chain([output]);
        let mut above = ancestors.filter_map(|name| self.outputs.get_key_value(name));
        let below = || {
            let prefix = format!("{output}/");
            let (name, job) = self.outputs.range::<_, Arc<str>>(Arc::from(prefix.as_str())..).next()?;
            name.starts_with(&prefix).then_some((name, job))
        };
        above.next().or_else(below).map(|(name, job)| (name.as_ref(), *job))
    }

    /// The build of an app for a new job, among those of live workers that have all that is required: one that a pool's newest
    /// workers have, then that of most, then the first by name. Where no such worker is there, what pools can make counts.
    pub(super) fn build_of(&self, app: &str, wanted: &str, requires: &[String]) -> Option<String> {
        let fits = |offer: &&wire::AppOffer| offer.name == app && (wanted.is_empty() || wanted == offer.build);
        let pools = self.pools.values().filter(|pool| has_all(&pool.capabilities, requires));
        let pooled: BTreeSet<&str> =
            pools.flat_map(|pool| pool.apps.iter().filter(fits)).map(|offer| offer.build.as_str()).collect();
        let mut live = BTreeMap::<&str, u32>::new();
        let workers = self.workers.values().filter_map(|worker| worker.info.as_ref());
        let able = workers.filter(|info| has_all(&info.capabilities, requires));
        able.flat_map(|info| info.apps.iter().filter(fits))
            .for_each(|offer| *live.entry(&offer.build).or_default() += 1);
        let rank = |(build, number): &(&str, u32)| (pooled.contains(build), *number, Reverse(build.to_string()));
        let best = live.into_iter().max_by_key(rank).map(|(build, _)| build);
        best.or_else(|| pooled.first().copied()).map(str::to_string)
    }

    /// Counts a job among those that have not ended, and claims its outputs.
    pub(super) fn enter(&mut self, job: &Job) {
        for spec in super::spec::chain(&job.spec) {
            self.outputs.insert(super::spec::output(spec).into(), job.id);
        }
        *self.live_of_user.entry(job.principal.clone()).or_default() += 1;
    }

    /// The reverse, at its end.
    pub(super) fn leave(&mut self, job: &Job) {
        for spec in super::spec::chain(&job.spec) {
            self.outputs.remove(super::spec::output(spec));
        }
        let live = self.live_of_user.get(&job.principal).copied().unwrap_or_default();
        match live.checked_sub(1).filter(|left| *left > 0) {
            Some(left) => self.live_of_user.insert(job.principal.clone(), left),
            None => self.live_of_user.remove(&job.principal),
        };
    }

    /// Claims the output of a job that has completed and is not archived.
    pub(super) fn hold_output(&mut self, job: &Job) {
        self.outputs.insert(super::spec::output(&job.spec).into(), job.id);
    }

    pub(super) fn remember(&mut self, key: Digest, row: Key) {
        self.key_ages.insert((row.at_ms, key));
        self.keys.insert(key, row);
    }

    /// Forgets keys that are older than a day.
    pub(super) fn forget_keys(&mut self) {
        while let Some((at_ms, key)) = self.key_ages.get_min().copied() {
            if at_ms.saturating_add(limits::KEY_MS) > self.now_ms {
                break;
            }
            self.key_ages.remove(&(at_ms, key));
            self.keys.remove(&key);
        }
    }
}

/// Whether among these are all that are required.
pub(super) fn has_all(capabilities: &[String], required: &[String]) -> bool {
    required.iter().all(|word| capabilities.contains(word))
}
