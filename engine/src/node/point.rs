//! Points in the work of masters and workers between which it matters what has been done. A world may end a node at one of
//! them: tests and the simulator do, production passes by.

use crate::task::publish::Step;

/// A point in the work of a node. Each is reached again by every job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Point {
    /// A job was taken, and its client has not been told.
    Submitted,
    /// A job is about to be planned: its client may know that it was taken.
    Planning,
    /// A job's plan is in the store, and nobody knows.
    PlanStored,
    /// A map task was given out, and its worker has not been told.
    MapAssigned,
    /// A reduce task was given out, and its worker has not been told.
    ReduceAssigned,
    /// A worker says that a map is done, and this is not in the log yet.
    MapReported,
    /// A worker says that a part is in the store, and this is not in the log yet.
    ReduceReported,
    /// An output is decided, and nothing of it published.
    Publishing,
    /// The next step of publishing puts `_SUCCESS` or another small file.
    PublishPut,
    /// The next step of publishing copies a part.
    PublishCopy,
    /// The next step makes the output visible, or deletes what it replaced.
    PublishLast,
    /// An output is published, and this is not in the log yet.
    Published,
    /// A job's history is in the store, and its temporaries as well.
    HistoryStored,
    /// A job's temporaries are gone, and this is not in the log yet.
    Cleared,
    /// On a worker: the segments of a map are on its disk, and the leader does not know.
    Mapped,
    /// On a worker: all segments of a part are here, and none is reduced.
    Fetched,
    /// On a worker: a part is in the store, and the leader does not know.
    Uploaded,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Submitted,
        Self::Planning,
        Self::PlanStored,
        Self::MapAssigned,
        Self::ReduceAssigned,
        Self::MapReported,
        Self::ReduceReported,
        Self::Publishing,
        Self::PublishPut,
        Self::PublishCopy,
        Self::PublishLast,
        Self::Published,
        Self::HistoryStored,
        Self::Cleared,
        Self::Mapped,
        Self::Fetched,
        Self::Uploaded,
    ];

    /// Its name, as in `publish-copy`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Planning => "planning",
            Self::PlanStored => "plan-stored",
            Self::MapAssigned => "map-assigned",
            Self::ReduceAssigned => "reduce-assigned",
            Self::MapReported => "map-reported",
            Self::ReduceReported => "reduce-reported",
            Self::Publishing => "publishing",
            Self::PublishPut => "publish-put",
            Self::PublishCopy => "publish-copy",
            Self::PublishLast => "publish-last",
            Self::Published => "published",
            Self::HistoryStored => "history-stored",
            Self::Cleared => "cleared",
            Self::Mapped => "mapped",
            Self::Fetched => "fetched",
            Self::Uploaded => "uploaded",
        }
    }

    /// The point before a step of publishing.
    pub(crate) fn before(step: &Step) -> Self {
        match step {
            Step::Put(..) => Self::PublishPut,
            Step::Copy(..) => Self::PublishCopy,
            Step::Replace(..) | Step::Rename(..) | Step::Delete(..) => Self::PublishLast,
        }
    }
}
