//! A node: one member of the cluster, from a folder.
//!
//! It joins the log, the state machine and the network into one handle. Starting is in `start`, a folder that begins with
//! a state is made in `begin`, answering other nodes is in `serve`, changing the members in `members`, and what can be watched in `status`.

mod begin;
mod members;
mod serve;
mod start;
mod status;

pub use begin::{Beginning, begin};
pub(crate) use start::check_coverage;
pub use start::{Disks, Options};
pub use status::{Leadership, Metrics, Role, Watch};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft_rt::{AsyncRuntime, WatchReceiver as _};

use crate::disk::{self, Files, Kv};
use crate::log::store::Store;
use crate::machine::{Machine, StateMachine};
use crate::net::{Net, Peer};
use crate::planted::{Bug, planted};
use crate::types::{Command, Types};
use crate::{identity, log, snapshot};

/// The most bytes of one command.
pub const MAX_COMMAND_BYTES: usize = 1 << 20;

/// The world of a node: what it is made over.
pub trait Env: Send + Sync + 'static {
    /// Clock, tasks, channels, randomness.
    type Rt: AsyncRuntime;
    /// Other nodes.
    type Net: Net;
    /// The database of the log.
    type Kv: Kv;
    /// The folder around it.
    type Files: Files;
}

/// Why something that was asked of a node did not happen, or may have happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// This node is not the leader. Nothing happened.
    #[error("this node is not the leader{}", .leader.as_ref().map(|peer| format!("; {} at {} is", id(peer.id), peer.address)).unwrap_or_default())]
    NotLeader {
        /// Who is, if that is known.
        leader: Option<Peer>,
    },
    /// It is not known whether it happened or will happen. To ask again may do it twice; to tell is up to the state
    /// machine.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// It can never happen. Nothing did.
    #[error("refused: {0}")]
    Refused(String),
    /// It did not happen in time.
    #[error("no quorum within {0:?}")]
    NoQuorum(Duration),
    /// The node has ended.
    #[error("the node has ended: {0}")]
    Ended(String),
    /// The log of the node's folder can not be used.
    #[error("the folder of the node can not be used{}", next_step(.node, matches!(.source, log::Error::Disk(_))))]
    Log {
        /// The node's id, if the folder still says.
        node: Option<u64>,
        /// Why.
        #[source]
        source: log::Error,
    },
    /// A snapshot in the node's folder can not be used.
    #[error("the folder of the node can not be used{}", next_step(.node, matches!(.source, snapshot::Error::Disk(_))))]
    Snapshot {
        /// The node's id.
        node: Option<u64>,
        /// Why.
        #[source]
        source: snapshot::Error,
    },
    /// The folder is not this node's.
    #[error("the folder of the node can not be used")]
    Identity(#[from] identity::Error),
    /// A check in a child process found this.
    #[error("{0}")]
    Checked(String),
    /// The disk failed.
    #[error("the folder of the node can not be used")]
    Disk(#[from] disk::Error),
}

/// A node's id as people see it.
pub(crate) fn id(node: u64) -> String {
    format!("node {node:016x}")
}

/// How to go on with a disk that failed, or without a folder that forgot something.
fn next_step(node: &Option<u64>, disk_failed: bool) -> String {
    if disk_failed {
        return "; nothing in it is known to be lost: see to the disk, then start it again".to_string();
    }
    let Some(node) = node else { return String::new() };
    format!(
        "; {} must not come back with it: move the folder away, start with an empty one (the node joins under a new \
         id), then run `gristmill raft remove {node:016x} --at ADDRESS` with that of a living node",
        id(*node)
    )
}

type Raft<E, S> = openraft::Raft<Types<<E as Env>::Rt>, Machine<<E as Env>::Rt, S, <E as Env>::Files>>;

/// A member of the cluster. Clones are handles to the same node.
pub struct Node<E: Env, S: StateMachine> {
    inner: Arc<Inner<E, S>>,
}

struct Inner<E: Env, S: StateMachine> {
    raft: Raft<E, S>,
    store: Store<E::Rt, E::Kv>,
    machine: Machine<E::Rt, S, E::Files>,
    files: E::Files,
    identity: identity::Identity,
    election: Duration,
    /// One snapshot is taken from the network at a time.
    receiving: std::sync::atomic::AtomicBool,
}

impl<E: Env, S: StateMachine> Clone for Node<E, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<E: Env, S: StateMachine> Node<E, S> {
    /// Who this node is.
    pub fn identity(&self) -> identity::Identity {
        self.inner.identity
    }

    /// Proposes a command and gives the state machine's reply once it is committed and applied here.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`] and [`Error::Refused`]: the command is not in the log and never will be. [`Error::Unknown`]:
    /// it may be, now or later. There is no time limit: without a quorum it waits; whoever stops waiting knows nothing.
    pub async fn propose(&self, command: impl Into<Bytes>) -> Result<Bytes, Error> {
        let command = command.into();
        if command.len() > MAX_COMMAND_BYTES {
            return Err(Error::Refused(format!(
                "a command of {} bytes; at most {MAX_COMMAND_BYTES} are allowed",
                command.len()
            )));
        }
        let written = self.inner.raft.client_write(Command(command));
        written.await.map(|done| done.data.0).map_err(|error| self.write_error(error))
    }

    fn write_error(&self, error: RaftError<Types<E::Rt>, ClientWriteError<Types<E::Rt>>>) -> Error {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(forward),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                Error::Unknown("leadership changed while it was being replicated".to_string())
            }
            RaftError::APIError(refused) => Error::Refused(refused.to_string()),
            // The node may have ended before, while or after the entry was written and sent.
            RaftError::Fatal(fatal) => Error::Unknown(self.why_ended(&fatal)),
        }
    }

    /// Looks at the state: what is seen contains every command whose proposal had succeeded anywhere when this was
    /// called (ReadIndex; Ongaro's thesis §6.4). Only the leader can, after asking a quorum.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`], or [`Error::NoQuorum`] if no quorum confirmed it within an election timeout.
    pub async fn read<T>(&self, look: impl FnOnce(&S) -> T) -> Result<T, Error> {
        if planted(Bug::StaleRead) {
            return Ok(self.read_stale(look));
        }
        let confirmed = self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        confirmed.map_err(|error| match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => not_leader(forward),
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => Error::NoQuorum(self.inner.election),
            RaftError::Fatal(fatal) => Error::Ended(self.why_ended(&fatal)),
        })?;
        Ok(self.inner.machine.look(look))
    }

    /// Looks at the state as it is here, which may be old.
    pub fn read_stale<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        self.inner.machine.look(look)
    }

    /// Waits until this node knows again everything that it may have served before a restart. To be awaited before
    /// anything is served from [`Node::read_stale`].
    ///
    /// # Errors
    ///
    /// [`Error::NoQuorum`] after `within`.
    pub async fn recovered(&self, within: Duration) -> Result<(), Error> {
        let waited = self.inner.raft.wait_for_recovery(Some(within)).await;
        waited.map(drop).map_err(|_| Error::NoQuorum(within))
    }

    /// Writes a snapshot now, away from the work on commands, and waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::NoQuorum`] if it is not there after `within`.
    pub async fn snapshot(&self, within: Duration) -> Result<(), Error> {
        let mut metrics = self.inner.raft.metrics();
        let target = metrics.borrow_watched().last_applied;
        let triggered = self.inner.raft.trigger().snapshot().await;
        triggered.map_err(|fatal| Error::Ended(self.why_ended(&fatal)))?;
        let waited = E::Rt::timeout(within, async move {
            metrics.wait_until(|m| m.snapshot >= target || m.running_state.is_err()).await
        });
        match waited.await {
            Ok(Ok(now)) if now.snapshot >= target => Ok(()),
            Ok(_) => Err(Error::Ended(self.ended().unwrap_or_default())),
            Err(_) => Err(Error::NoQuorum(within)),
        }
    }

    /// Why the node has ended, or `None` if it lives.
    pub fn ended(&self) -> Option<String> {
        let state = self.inner.raft.metrics().borrow_watched().running_state.clone();
        state.err().map(|fatal| self.why_ended(&fatal))
    }

    /// The log's own words, if it was the log; they say more than openraft's.
    fn why_ended(&self, fatal: &openraft::errors::Fatal<Types<E::Rt>>) -> String {
        self.inner.store.ended().unwrap_or_else(|| crate::chain(fatal))
    }

    /// Stops: nothing is answered any more, what was appended is written, the folder is let go.
    pub async fn stop(&self) {
        // Both may have ended before; there is nothing to do about it here.
        let _ = self.inner.raft.shutdown().await;
        let _ = self.inner.store.stop().await;
        self.inner.files.close().await;
    }
}

fn not_leader<Rt: AsyncRuntime>(forward: ForwardToLeader<Types<Rt>>) -> Error {
    let leader = forward
        .leader_id
        .map(|id| Peer { id, address: forward.leader_node.map(|member| member.address).unwrap_or_default() });
    Error::NotLeader { leader }
}
