//! How jobs, tasks and attempts are named, and the digests of 16 bytes that tell contents apart.

use gristmill_proto::internal::v1 as wire;
use sha2::{Digest as _, Sha256};

pub use wire::Stage;

/// A digest: the first 16 bytes of a SHA-256 where control makes it; opaque where tasks do.
pub type Digest = [u8; 16];

/// The digest of pieces, each told apart from its neighbours.
pub(crate) fn digest(pieces: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update((piece.len() as u64).to_be_bytes());
        hash.update(piece);
    }
    first(hash)
}

pub(crate) fn first(hash: Sha256) -> Digest {
    let whole: [u8; 32] = hash.finalize().into();
    let mut digest = Digest::default();
    digest.copy_from_slice(&whole[..16]);
    digest
}

/// A digest of 8 bytes, never 0, for what is compared but not trusted.
pub(crate) fn tag(pieces: &[&[u8]]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&digest(pieces)[..8]);
    u64::from_be_bytes(eight).max(1)
}

/// One try at a task; unique for ever, because a term has one leader and it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The leader's term.
    pub term: u64,
    /// How manieth of the term.
    pub counter: u64,
}

impl From<wire::Attempt> for AttemptId {
    fn from(attempt: wire::Attempt) -> Self {
        Self { term: attempt.term, counter: attempt.counter }
    }
}

impl From<AttemptId> for wire::Attempt {
    fn from(attempt: AttemptId) -> Self {
        Self { term: attempt.term, counter: attempt.counter }
    }
}

/// A task of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job.
    pub job: u64,
    /// The stage.
    pub stage: Stage,
    /// Number of the map task or of the part.
    pub partition: u32,
}

impl TaskId {
    /// The task that a message names, and the attempt and epoch.
    pub(crate) fn read(task: &wire::Task) -> Option<(Self, AttemptId, u32)> {
        let stage = Stage::try_from(task.stage).ok().filter(|stage| *stage != Stage::Unspecified)?;
        let attempt = AttemptId::from(task.attempt?);
        Some((Self { job: task.job, stage, partition: task.partition }, attempt, task.epoch))
    }

    /// The message that names an attempt at it.
    pub(crate) fn write(self, attempt: AttemptId, epoch: u32) -> wire::Task {
        let Self { job, stage, partition } = self;
        wire::Task { job, stage: stage.into(), epoch, partition, attempt: Some(attempt.into()) }
    }
}

/// A job's id as people see it.
pub fn job_name(cluster: u64, job: u64) -> String {
    format!("{cluster:016x}-{job}")
}

/// The job that a name stands for, if it is one of this cluster.
pub fn job_of_name(cluster: u64, name: &str) -> Option<u64> {
    let job = name.rsplit_once('-')?.1.parse().ok()?;
    (job_name(cluster, job) == name).then_some(job)
}
