//! Messages: what is written to disk and sent between nodes, as prost structs, and their ways from and to [`crate::types`].
//!
//! Numbers of fields are for ever. What comes in was written by others: every way in checks.

pub(crate) mod wire;

use bytes::Bytes;
use prost::Message;

use crate::log::frame::MAX_PAYLOAD_BYTES;
use crate::types;

/// What makes a message useless although it decodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("not a message of this kind")]
    Undecodable(#[from] prost::DecodeError),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("a membership that makes no sense: {0}")]
    Membership(String),
    #[error("entry {found} where entry {expected} is next")]
    Order { expected: u64, found: u64 },
    #[error("an index of {0}, beyond which nothing can follow")]
    Index(u64),
    #[error("an entry of {0} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")]
    Length(usize),
    #[error("an entry of unknown kind {0}; a newer release wrote it")]
    EntryKind(u8),
}

/// Fails for an index that could not be counted on from.
pub(crate) fn check_index(index: u64) -> Result<(), Invalid> {
    if index < u64::MAX / 2 { Ok(()) } else { Err(Invalid::Index(index)) }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct LogId {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) index: u64,
}

impl From<&types::LogId> for LogId {
    fn from(id: &types::LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl From<LogId> for types::LogId {
    fn from(id: LogId) -> Self {
        types::LogId::new_term_index(id.term, id.index)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Vote {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) node: u64,
    /// Whether a quorum granted it.
    #[prost(bool, tag = "3")]
    pub(crate) committed: bool,
}

impl From<&types::Vote> for Vote {
    fn from(vote: &types::Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> Self {
        if vote.committed {
            types::Vote::new_committed(vote.term, vote.node)
        } else {
            types::Vote::new(vote.term, vote.node)
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Membership {
    /// One set of voters, or two while they change.
    #[prost(message, repeated, tag = "1")]
    pub(crate) voters: Vec<Voters>,
    /// Everybody, learners included, sorted by id.
    #[prost(message, repeated, tag = "2")]
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Voters {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Member {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) address: String,
}

impl From<&types::Membership> for Membership {
    fn from(membership: &types::Membership) -> Self {
        let voters = membership.get_joint_config().iter().map(|set| Voters { ids: set.iter().copied().collect() });
        let members = membership.nodes().map(|(id, node)| Member { id: *id, address: node.address.clone() });
        Self { voters: voters.collect(), members: members.collect() }
    }
}

impl TryFrom<Membership> for types::Membership {
    type Error = Invalid;

    fn try_from(membership: Membership) -> Result<Self, Invalid> {
        if membership.voters.is_empty() && membership.members.is_empty() {
            return Ok(types::Membership::default());
        }
        let voters = membership.voters.into_iter().map(|set| set.ids.into_iter().collect()).collect();
        let members = membership.members.into_iter().map(|m| (m.id, types::Member { address: m.address }));
        let members: std::collections::BTreeMap<_, _> = members.collect();
        types::Membership::new(voters, members).map_err(|e| Invalid::Membership(e.to_string()))
    }
}

/// A membership and the entry that decided it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredMembership {
    #[prost(message, optional, tag = "1")]
    pub(crate) log_id: Option<LogId>,
    #[prost(message, optional, tag = "2")]
    pub(crate) membership: Option<Membership>,
}

impl From<&types::StoredMembership> for StoredMembership {
    fn from(stored: &types::StoredMembership) -> Self {
        Self { log_id: stored.log_id().as_ref().map(LogId::from), membership: Some(stored.membership().into()) }
    }
}

impl TryFrom<StoredMembership> for types::StoredMembership {
    type Error = Invalid;

    fn try_from(stored: StoredMembership) -> Result<Self, Invalid> {
        let membership = stored.membership.ok_or(Invalid::Missing("the membership"))?;
        Ok(types::StoredMembership::new(stored.log_id.map(Into::into), membership.try_into()?))
    }
}

/// What an entry says: a byte for its kind, then its content. In the log and in messages alike.
pub(crate) fn encode_payload(payload: &types::Payload) -> Vec<u8> {
    match payload {
        types::Payload::Blank => vec![0],
        types::Payload::Normal(command) => [&[1], &command.0[..]].concat(),
        types::Payload::Membership(membership) => {
            let mut bytes = vec![2];
            bytes.extend(Membership::from(membership).encode_to_vec());
            bytes
        }
    }
}

/// The way back.
pub(crate) fn decode_payload(mut bytes: Bytes) -> Result<types::Payload, Invalid> {
    if bytes.is_empty() {
        return Err(Invalid::Missing("the kind of the entry"));
    }
    let content = bytes.split_off(1);
    match bytes[0] {
        0 => Ok(types::Payload::Blank),
        1 => Ok(types::Payload::Normal(types::Command(content))),
        2 => Ok(types::Payload::Membership(Membership::decode(content)?.try_into()?)),
        kind => Err(Invalid::EntryKind(kind)),
    }
}
