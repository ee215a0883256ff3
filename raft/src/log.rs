//! The log on disk: entries in frames that are chained to each other, a head that says how far they go, a mark outside
//! of the database that remembers the head, and the one writer.
//!
//! `frame` is an entry's format; `head` what is written with every batch; `mark` the head's copy outside; `store`
//! what openraft calls; `writer` the task that commits; `open` the checks before anything is served. What a node
//! does when the log fails is in [`crate::node`].

pub(crate) mod frame;
pub(crate) mod head;
pub(crate) mod mark;
pub(crate) mod open;
mod read;
pub(crate) mod store;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use crate::disk;

/// Why a log can not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk failed. What it holds is unknown until it has been opened and checked again.
    #[error("the disk of the log failed")]
    Disk(#[from] disk::Error),
    /// Something that was acknowledged is not there, or is not what was written.
    #[error("the log lost what it had acknowledged: expected {expected}; found {found}")]
    Loss {
        /// What must be there.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// The caller asked for something that makes no sense for this log.
    #[error("the log was asked to {0}")]
    Misuse(String),
    /// An earlier error ended the log.
    #[error("the log has ended: {0}")]
    Ended(String),
}

impl Error {
    pub(crate) fn loss(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Loss { expected: expected.into(), found: found.into() }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(crate::chain(&error))
    }
}
