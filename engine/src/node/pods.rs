//! The seam to whatever makes workers: on Kubernetes, pods of pools. The leading master says what is to be there
//! (`node/master/pools.rs`, by `control/pools.rs`); an implementation says what is there and does one thing at a time. It decides
//! nothing, keeps nothing, and retries nothing.

use std::time::Duration;

use futures_util::future::BoxFuture;

pub use crate::control::pools::{Phase, Pod, Pool, Reason, Seat};

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It may be another time: a quota, a limit of calls, a server that is down. With what to wait, if that was said.
    Later(Reason, Option<Duration>),
    /// It never will be as it is: the pool's file is wrong, or a right is missing.
    Never(Reason),
}

impl Refusal {
    /// What was said.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Later(reason, _) | Self::Never(reason) => reason,
        }
    }
}

/// Whatever makes workers.
pub trait Pods: Send + Sync + 'static {
    /// The pools, by name; read again when their files change.
    ///
    /// # Errors
    /// What is wrong with a file, if they never were good.
    fn pools(&self) -> Result<Vec<Pool>, Reason>;

    /// What is wrong with the files now: then pools are as they were before.
    fn trouble(&self) -> Option<Reason>;

    /// All pods of this cluster's pools, as last heard.
    ///
    /// # Errors
    /// That they are not known: nothing has been heard yet, or for so long that it cannot be relied on.
    fn pods(&self) -> Result<Vec<Pod>, Reason>;

    /// Waits until [`Pods::pools`] or [`Pods::pods`] may give something else than when this was last awaited.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Begins to watch, because this node leads from now on, in this term; or ends to. `cluster` is the cluster's id.
    fn lead(&self, cluster: u64, term: Option<u64>);

    /// Makes a pod, if it is not there already.
    fn make<'s>(&'s self, seat: &'s Seat, term: u64) -> BoxFuture<'s, Result<(), Refusal>>;

    /// Deletes this pod and no other of its name. One that is gone already is no error. It is told to end and has its own time for
    /// that.
    fn delete<'s>(&'s self, name: &'s str, uid: &'s str) -> BoxFuture<'s, Result<(), Refusal>>;

    /// The last that a pod has said, at most so many bytes; empty if that is not known.
    fn last_words<'s>(&'s self, name: &'s str, uid: &'s str, bytes: u32) -> BoxFuture<'s, String>;

    /// Tells those who look at the cluster's own objects of something.
    fn tell<'s>(&'s self, what: &'s Event) -> BoxFuture<'s, ()>;
}

impl std::fmt::Debug for dyn Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pods")
    }
}

/// Something to be seen where people look at pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// About this pod, by name and UID; `None`: about the pools as a whole.
    pub pod: Option<(String, String)>,
    /// A word in CamelCase, as in "ScaledUp".
    pub reason: String,
    /// One line.
    pub text: String,
    /// It is a warning.
    pub warning: bool,
}
