//! Pools of workers, which the leader makes and removes as work comes and goes: what there is to know of them.
//!
//! A worker of a pool runs in a pod. A pod's name follows from pool, generation and index, so that to make one twice makes
//! one, and two masters that both think they lead make no more than one of them would. Which of them made it is written on it as the term that it led.
//! What is to be done is decided in `decide` and, for one pool, `plan`, purely; `node/master/pools.rs` does it, through the seam `node/pods.rs`.

pub mod decide;
mod plan;

use std::time::Duration;

/// How a pool is to be, as its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// At most 32 bytes of `a-z`, `0-9` and `-`.
    pub name: String,
    /// Workers that are always there, and the most.
    pub min: u32,
    /// At least `min`, at most 10,000.
    pub max: u32,
    /// An idle worker beyond the least is drained after so long.
    pub idle: Duration,
    /// So many pods at most that have not begun to work.
    pub pending: u32,
    /// A pod that has not begun to work after so long is deleted.
    pub start_within: Duration,
    /// Tasks that a worker runs at a time.
    pub slots: u32,
    /// What its workers have that jobs may ask for.
    pub capabilities: Vec<String>,
    /// Changes with whatever else the file says: pods of another one are replaced when they are idle.
    pub generation: u32,
}

/// Which pod: the same one never runs twice at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The pool.
    pub pool: String,
    /// Of the pool's file.
    pub generation: u32,
    /// Counted from 0 in a generation; used again when the pod is gone.
    pub index: u32,
}

/// A pod as its cluster last told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Unique among those that are there.
    pub name: String,
    /// Never used twice.
    pub uid: String,
    /// Which it is; `None`: it is not one of a pool, but says that it is of this cluster.
    pub seat: Option<Seat>,
    /// Of the leader that made it.
    pub term: u64,
    /// Milliseconds since 1970, by the clock of whoever keeps pods.
    pub created_ms: u64,
    /// How it is.
    pub phase: Phase,
    /// It is being deleted, or is about to be by somebody else; as a rule with notice.
    pub leaving: bool,
    /// Why it waits, leaves or has ended, if that is known.
    pub reason: Option<Reason>,
}

/// How a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its worker has not been started.
    Pending,
    /// It has.
    Running,
    /// It has ended and does not come back.
    Ended,
}

/// Why a pod is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// In a word, as its cluster calls it: "OOMKilled", "Evicted", "ImagePullBackOff", "Unschedulable". At most 64 bytes.
    pub word: String,
    /// More, in a line. At most 256 bytes.
    pub text: String,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text.as_str() {
            "" => write!(f, "{}", self.word),
            text => write!(f, "{}: {text}", self.word),
        }
    }
}
