//! What the cluster knows for certain of one task: which attempt counted, and which failed.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;

use super::ids::{AttemptId, Digest};
use super::limits;

/// The facts of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The attempt that counted, even where what it left is gone.
    pub result: Option<Arc<Result>>,
    /// Attempts that failed, in the order in which that was applied.
    pub failed: Vec<Failed>,
    /// The last failure.
    pub failure: Option<Arc<wire::Failure>>,
}

/// What counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Result {
    /// The attempt.
    pub attempt: AttemptId,
    /// The epoch in which it was counted.
    pub epoch: u32,
    /// Where its output is.
    pub place: Place,
    /// Of its output.
    pub digest: Digest,
    /// What it said. Digest and counters are taken out of it.
    pub done: wire::Done,
    /// Indices into the job's names of counters, and values.
    pub counters: Box<[(u16, u64)]>,
    /// Who did it, and when.
    pub by: By,
}

/// Who ran an attempt, and when: for the history alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// Name of the worker.
    pub worker: Arc<str>,
    /// When it was given out, in milliseconds since 1970 by the clock of who led; 0: not known.
    pub given_ms: u64,
    /// When its end was applied.
    pub ended_ms: u64,
    /// Whether it was given out beside another attempt of its task.
    pub backup: bool,
}

/// Where the output of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the store.
    Store,
    /// On a worker's own disk.
    Worker(u64),
    /// Nowhere: the worker has ended, or does not have it any more.
    Lost,
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whether it counts against the task.
    pub charged: bool,
    /// Tag of the name of the worker.
    pub worker: u64,
    /// Tag of the record at fault; 0: none.
    pub record: u64,
}

impl Facts {
    /// Whether its output is there.
    pub fn is_done(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.place != Place::Lost)
    }

    /// Whether its output was there and is not any more.
    pub fn is_lost(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.place == Place::Lost)
    }

    /// Whether this attempt is the one that counted.
    pub fn counted(&self, attempt: AttemptId) -> bool {
        self.result.as_ref().is_some_and(|result| result.attempt == attempt)
    }

    /// Whether this attempt failed.
    pub fn has_failed(&self, attempt: AttemptId) -> bool {
        self.failed.iter().any(|failed| failed.attempt == attempt)
    }

    /// Attempts that count against the task.
    pub fn charged(&self) -> usize {
        self.failed.iter().filter(|failed| failed.charged).count()
    }

    /// On how many workers this record failed.
    pub(super) fn workers_of_record(&self, record: u64) -> usize {
        let mut workers: Vec<u64> = self.failed.iter().filter(|f| f.record == record).map(|f| f.worker).collect();
        workers.sort_unstable();
        workers.dedup();
        workers.len()
    }
}

/// Cuts a text to so many bytes, between two characters.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
    text
}

/// What a task left, within its bounds.
pub(super) fn bounded_done(mut done: wire::Done) -> wire::Done {
    done.counters = bounded_counters(done.counters);
    done
}

/// Counters within their bounds.
pub(super) fn bounded_counters(mut counters: Vec<wire::Counter>) -> Vec<wire::Counter> {
    counters.truncate(limits::COUNTERS);
    for counter in &mut counters {
        counter.name = cut(std::mem::take(&mut counter.name), limits::COUNTER_BYTES);
    }
    counters
}

/// A failure within its bounds.
pub(super) fn bounded(mut failure: wire::Failure) -> wire::Failure {
    failure.message = cut(failure.message, limits::ERROR_BYTES);
    failure.input = cut(failure.input, limits::NAME_BYTES);
    failure
}
