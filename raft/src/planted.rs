//! Mistakes that are made on purpose, to see whether the simulator finds them.
//!
//! Only a build with `RUSTFLAGS="--cfg sim_bugs"` can make any, one at a time in a thread; in every other build
//! [`planted`] is a constant and what depends on it is not there. Each mistake is one that somebody made in some
//! replicated system, at the place where it would be made in this one. It is here, below all others, because what must
//! not go wrong lies in several crates.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Bug {
    /// An append is said to be durable before it is.
    AppendBeforeSync,
    /// A vote is given before it is durable.
    VoteBeforeSync,
    /// A vote is given and never written.
    VoteNotWritten,
    /// Keys of entries are little-endian, so that they are not in order.
    LittleEndianKeys,
    /// The log is purged and its head does not say so.
    PurgeNotWritten,
    /// A snapshot claims more than it holds.
    SnapshotAhead,
    /// A log is opened up to its first bad frame, as if there had been no more.
    BadFrameSkipped,
    /// What was acknowledged is not compared with what is there.
    MarkIgnored,
    /// A read does not ask whether its node still leads.
    StaleRead,
    /// Applying a command looks at the clock.
    ApplyByClock,
    /// A worker is told that its task counts before that is committed.
    DoneBeforeCommit,
    /// A second end of a task takes the place of the first.
    SecondDoneCounts,
    /// The end of an attempt counts for any epoch of its stage.
    EpochIgnored,
    /// A new leader gives out attempts with the ids of an earlier one.
    AttemptIdsReused,
    /// What a worker says counts, though it was taken for dead.
    DeadWorkerCounts,
    /// A submission of which nobody knows whether it was taken is said not to be.
    UnknownIsRefused,
    /// An output is published before it is decided what it is made of.
    UndecidedPublished,
    /// Publishing something again replaces what is there.
    PublishReplaces,
    /// A token is good for as long as its signature is, whatever became of its session.
    TokenOutlivesSession,
    /// A master lets people in by what it knows, however old that is.
    StaleGate,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::AppendBeforeSync,
        Self::VoteBeforeSync,
        Self::VoteNotWritten,
        Self::LittleEndianKeys,
        Self::PurgeNotWritten,
        Self::SnapshotAhead,
        Self::BadFrameSkipped,
        Self::MarkIgnored,
        Self::StaleRead,
        Self::ApplyByClock,
        Self::DoneBeforeCommit,
        Self::SecondDoneCounts,
        Self::EpochIgnored,
        Self::AttemptIdsReused,
        Self::DeadWorkerCounts,
        Self::UnknownIsRefused,
        Self::UndecidedPublished,
        Self::PublishReplaces,
        Self::TokenOutlivesSession,
        Self::StaleGate,
    ];
}

/// Whether this mistake is to be made.
#[cfg(not(sim_bugs))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(sim_bugs)]
pub use armed::{clock_ms, plant, planted};

/// A clock that must not be looked at.
#[cfg(not(sim_bugs))]
pub const fn clock_ms() -> u64 {
    0
}

#[cfg(sim_bugs)]
mod armed {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<(Bug, fn() -> u64)>> = const { Cell::new(None) };
    }

    /// In this thread the mistake is made from now on, or none is. `clock_ms` is for the one that looks at a clock.
    pub fn plant(bug: Option<Bug>, clock_ms: fn() -> u64) {
        PLANTED.set(bug.map(|bug| (bug, clock_ms)));
    }

    /// Whether this mistake is to be made.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get().is_some_and(|(planted, _)| planted == bug)
    }

    /// A clock that must not be looked at.
    pub fn clock_ms() -> u64 {
        PLANTED.get().map_or(0, |(_, clock_ms)| clock_ms())
    }
}
