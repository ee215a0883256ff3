//! Where a job's objects lie in the store, and what publishing a decided job comes to.
//!
//! Attempts write objects of their own, which nobody changes and nobody else writes. Their names say cluster, job and
//! attempt, so that a decided output is named by the state alone, and a zombie that publishes after the job's end finds
//! nothing to copy.

use std::collections::BTreeMap;

use gristmill_proto::v1::Compression;
use gristmill_raft::planted::{Bug, planted};

use super::ids::{AttemptId, Digest, job_name, job_of_name};
use super::job::{Job, JobState};
use crate::task::publish::ENDED;

/// Folder in the store for what is not an output.
pub const ROOT: &str = ".gristmill";

/// Below this lies all that a job's attempts leave in the store; deleted at the job's end.
pub fn scratch(cluster: u64, job: u64) -> String {
    format!("{}{}/", scratch_root(cluster), job_name(cluster, job))
}

/// Below this lie the folders of all jobs, by number.
pub fn scratch_root(cluster: u64) -> String {
    format!("{ROOT}/{cluster:016x}/")
}

/// All names below the folders of jobs begin with one of these, and no others: where they are, and where a store that
/// renames has them put before they are deleted. A rename that is late puts there what came late.
pub fn all_scratch(cluster: u64) -> [String; 2] {
    let root = scratch_root(cluster);
    [format!("{root}{cluster:016x}-"), format!("{root}{ENDED}/")]
}

/// The job that left an object of this name, if one did.
pub fn job_of(cluster: u64, name: &str) -> Option<u64> {
    let below = name.strip_prefix(&scratch_root(cluster))?;
    let below = below.strip_prefix(ENDED).and_then(|below| below.strip_prefix('/')).unwrap_or(below);
    job_of_name(cluster, below.split_once('/')?.0)
}

/// The file of an app with this digest. It stays, for whatever cluster has this store.
pub fn app_file(digest: &[u8]) -> String {
    format!("{ROOT}/apps/files/{}", hex(digest))
}

/// A digest as people write it.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The plan of a job.
pub fn plan(cluster: u64, job: u64, plan: &Digest) -> String {
    format!("{}plan-{:032x}", scratch(cluster, job), u128::from_be_bytes(*plan))
}

/// The boundaries that a survey found.
pub fn survey(cluster: u64, job: u64, attempt: AttemptId) -> String {
    format!("{}survey.{}-{}", scratch(cluster, job), attempt.term, attempt.counter)
}

/// The segments of a map task, where they are in the store.
pub fn segments(cluster: u64, job: u64, map: u32, attempt: AttemptId) -> String {
    format!("{}map-{map:05}.{}-{}", scratch(cluster, job), attempt.term, attempt.counter)
}

/// The bad records that a map task met.
pub fn bad_records(cluster: u64, job: u64, map: u32, attempt: AttemptId) -> String {
    format!("{}.bad", segments(cluster, job, map, attempt))
}

/// The bad records of a job's maps, as far as maps have been done, in order.
pub fn all_bad_records(cluster: u64, job: &Job) -> Vec<String> {
    let results = (0..).zip(&job.maps).filter_map(|(map, facts)| Some((map, facts.result.as_deref()?)));
    let met = results.filter(|(_, result)| result.done.bad_records > 0);
    met.map(|(map, result)| bad_records(cluster, job.id, map, result.attempt)).collect()
}

/// A part.
pub fn part(cluster: u64, job: u64, part: u32, attempt: AttemptId) -> String {
    format!("{}part-{part:05}.{}-{}", scratch(cluster, job), attempt.term, attempt.counter)
}

/// Below this lie the app's further files, which are the same from every attempt.
pub fn extras(cluster: u64, job: u64) -> String {
    format!("{}extras/", scratch(cluster, job))
}

/// Below this lie the logs of a job's tasks. They stay.
pub fn logs(cluster: u64, job: u64) -> String {
    format!("{ROOT}/{cluster:016x}/logs/{job}/")
}

/// Below `logs` lie the pieces of the log of a task, called as people call it.
pub fn log_of(task: &str) -> String {
    let (stage, partition) = task.split_once(' ').unwrap_or((task, "0"));
    format!("{stage}-{partition:0>5}.")
}

/// A piece of what an attempt said.
pub fn log(cluster: u64, job: u64, task: &str, attempt: AttemptId, piece: u32) -> String {
    let AttemptId { term, counter } = attempt;
    format!("{}{}{term}-{counter}/{piece:05}", logs(cluster, job), log_of(task))
}

/// What a worker's pod said last, as a log of the job.
pub fn log_of_pod(cluster: u64, job: u64, uid: &str) -> String {
    format!("{}pod-{uid}", logs(cluster, job))
}

/// Below this lies what was written down of users long ago, in files named after the last event in them. It stays.
pub fn audit(cluster: u64) -> String {
    format!("{ROOT}/{cluster:016x}/audit/")
}

/// The history of an ended job. It stays.
pub fn history(cluster: u64, job: u64) -> String {
    format!("{ROOT}/{cluster:016x}/history/{job}")
}

/// Of the file of segments that a map put into the store.
fn file_digest(result: &super::task::Result) -> Digest {
    Digest::try_from(&result.done.file_digest[..]).unwrap_or(result.digest)
}

/// What a decided job's output is made of. To publish it is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The job.
    pub job: u64,
    /// The output's name.
    pub output: String,
    /// Whether an output of that name is replaced.
    pub overwrite: bool,
    /// The app's name.
    pub app: String,
    /// The job's counters.
    pub counters: BTreeMap<String, u64>,
    /// What the parts are compressed with.
    pub compress: Compression,
    /// Whether these are segments of maps, with a manifest, and not parts.
    pub segments: bool,
    /// In order: parts, or segments by map.
    pub objects: Vec<Object>,
    /// Where the bad records are that were passed over, in order; and how many they are.
    pub bad: (Vec<String>, u64),
}

/// One object of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub from: String,
    /// Its content's digest.
    pub digest: Digest,
    /// Its bytes.
    pub length: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of them before compression.
    pub bytes: u64,
    /// CRC-32C of those.
    pub crc32c: u32,
}

impl Publication {
    /// What is to be published of a job that is committing.
    pub fn of(cluster: u64, job: &Job) -> Option<Self> {
        let segments = job.phase() == gristmill_proto::v1::Phase::Map;
        let tasks = if job.ends_with_maps() { &job.maps } else { &job.reduces };
        let name = if segments { self::segments } else { part };
        let object = |(partition, result): (u32, &super::task::Result)| Object {
            from: name(cluster, job.id, partition, result.attempt),
            digest: if segments { file_digest(result) } else { result.digest },
            length: result.done.length,
            records: result.done.output_records,
            bytes: if segments { result.done.length } else { result.done.output_bytes },
            crc32c: result.done.crc32c,
        };
        let results = (0..).zip(tasks).filter_map(|(partition, facts)| Some((partition, facts.result.as_deref()?)));
        let undecided = planted(Bug::UndecidedPublished) && job.reduces.iter().any(|facts| facts.result.is_some());
        (job.state == JobState::Committing || undecided).then(|| Self {
            job: job.id,
            output: super::spec::output(&job.spec).to_string(),
            overwrite: job.spec.overwrite,
            app: job.spec.app.as_ref().map(|app| app.name.clone()).unwrap_or_default(),
            counters: job.status(cluster).counters.into_iter().collect(),
            compress: job.spec.compress(),
            segments,
            objects: results.map(object).collect(),
            bad: (all_bad_records(cluster, job), job.bad_records),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_an_object_is_is_read_off_its_name_wherever_it_lies() {
        let name = plan(7, 31, &Digest::default());
        let ended = name.replacen(&scratch_root(7), &format!("{}{ENDED}/", scratch_root(7)), 1);
        for name in [&name, &ended] {
            assert_eq!(job_of(7, name), Some(31), "{name}");
            assert_eq!(job_of(8, name), None, "another cluster's");
            assert!(all_scratch(7).iter().any(|root| name.starts_with(root)), "{name} would be swept");
        }
        assert_eq!(job_of(7, &history(7, 31)), None);
    }
}
