//! What files on a worker's scratch are called.

use gristmill_proto::internal::v1 as wire;

/// Below this lies all that belongs to jobs.
pub(crate) const JOBS: &str = "jobs/";

/// Below this lie inputs that were fetched, for whatever job.
pub(crate) const INPUTS: &str = "inputs/";

/// Below this lie files of apps, called by their digests, for whatever job.
pub(crate) const APPS: &str = "apps/";

/// The folder of scratch for what user code needs and makes. Whoever runs workers empties it before one is begun: what lies
/// there of an earlier process is of no use, and may belong to others.
pub const CODE: &str = "code";

/// Below this lies all of one job.
pub(crate) fn job(job: u64) -> String {
    format!("{JOBS}{job}/")
}

/// Below this lies all of one attempt.
pub(crate) fn attempt(task: &wire::Task) -> String {
    let stage = match task.stage() {
        wire::Stage::Survey => "survey",
        wire::Stage::Map => "map",
        _ => "reduce",
    };
    let wire::Attempt { term, counter } = task.attempt.unwrap_or_default();
    format!("{}{stage}-{}.{term}-{counter}/", job(task.job), task.partition)
}

/// Below this lies a finished map.
pub(crate) fn map(of: u64, map: u32, attempt: Option<wire::Attempt>) -> String {
    let stage = wire::Stage::Map.into();
    self::attempt(&wire::Task { job: of, stage, epoch: 0, partition: map, attempt })
}

/// The segments of a map attempt.
pub(crate) fn segments(attempt: &str) -> String {
    format!("{attempt}segments")
}

/// Where each of them is, as a `SegmentIndex`.
pub(crate) fn index(attempt: &str) -> String {
    format!("{attempt}index")
}
