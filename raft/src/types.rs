//! The types that the replicated log is made of, and how openraft is told about them.
//!
//! A leader is known by its term alone (one leader a term, as in the Raft paper §5.2), so that a log id is a term and
//! an index. Nothing here leaves the crate.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::impls::{InlineBatch, OneshotResponder, leader_id_std};
use openraft::{EntryPayload, RaftTypeConfig};
use openraft_rt::{AsyncRuntime, OptionalSend};

/// A term and a voted-for node.
pub(crate) type LeaderId = leader_id_std::LeaderId<u64, u64>;
/// A term: of a leader that has a quorum.
pub(crate) type Committed = openraft::vote::leader_id_std::CommittedLeaderId<u64>;
pub(crate) type LogId = openraft::LogId<Committed>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Command, u64, Member>;
pub(crate) type Entry = openraft::Entry<Committed, Payload>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<Committed, u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Committed, u64, Member>;

/// Where a member of the cluster is found. Who it is, its node id says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// What the network needs to reach it, such as `host:port`.
    pub(crate) address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// What is replicated: bytes that only the state machine understands.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the state machine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply(pub(crate) Bytes);

/// openraft's configuration of types, for a runtime.
pub(crate) struct Types<Rt>(PhantomData<fn() -> Rt>);

// By hand, because derives would demand the same of `Rt`.
impl<Rt> fmt::Debug for Types<Rt> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<Rt> Clone for Types<Rt> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Rt> Copy for Types<Rt> {}
impl<Rt> Default for Types<Rt> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<Rt> PartialEq for Types<Rt> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<Rt> Eq for Types<Rt> {}
impl<Rt> PartialOrd for Types<Rt> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<Rt> Ord for Types<Rt> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<Rt: AsyncRuntime> RaftTypeConfig for Types<Rt> {
    type D = Command;
    type R = Reply;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = Rt;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}
