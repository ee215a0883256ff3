//! What nodes say to each other: one request and one response message, each of several kinds.
//!
//! Every request names the cluster and both nodes, so that a node that took over an address is not mistaken for the one
//! before it.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft_rt::AsyncRuntime;
use prost::{Message, Oneof};

use super::{Invalid, LogId, Vote, check_index, decode_payload, encode_payload};
use crate::log::frame::MAX_PAYLOAD_BYTES;
use crate::types::{self, Types};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(fixed64, tag = "1")]
    pub(crate) cluster: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) from: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) to: u64,
    #[prost(oneof = "Ask", tags = "4, 5, 6, 7")]
    pub(crate) ask: Option<Ask>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Ask {
    #[prost(message, tag = "4")]
    Append(Append),
    #[prost(message, tag = "5")]
    Vote(Ballot),
    #[prost(message, tag = "6")]
    PreVote(Ballot),
    #[prost(message, tag = "7")]
    Transfer(Transfer),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    #[prost(oneof = "Answer", tags = "1, 2, 3")]
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Answer {
    #[prost(message, tag = "1")]
    Append(Appended),
    #[prost(message, tag = "2")]
    Vote(Voted),
    #[prost(message, tag = "3")]
    Transfer(Transferred),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Append {
    #[prost(message, optional, tag = "1")]
    vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    previous: Option<LogId>,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<EntryRecord>,
    #[prost(message, optional, tag = "4")]
    committed: Option<LogId>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(bytes = "bytes", tag = "3")]
    payload: Bytes,
}

impl Append {
    /// Who sends it, and the last entry that a node has which takes it.
    pub(crate) fn claims(&self) -> Option<(&Vote, Option<(u64, u64)>)> {
        let last = self.entries.last().map(|entry| (entry.term, entry.index));
        Some((self.vote.as_ref()?, last.or(self.previous.map(|id| (id.term, id.index)))))
    }
}

impl<Rt: AsyncRuntime> From<&AppendEntriesRequest<Types<Rt>>> for Append {
    fn from(request: &AppendEntriesRequest<Types<Rt>>) -> Self {
        let record = |entry: &types::Entry| EntryRecord {
            term: entry.log_id.committed_leader_id().term,
            index: entry.log_id.index(),
            payload: encode_payload(&entry.payload).into(),
        };
        Self {
            vote: Some((&request.vote).into()),
            previous: request.prev_log_id.as_ref().map(Into::into),
            entries: request.entries.iter().map(record).collect(),
            committed: request.leader_commit.as_ref().map(Into::into),
        }
    }
}

impl<Rt: AsyncRuntime> TryFrom<Append> for AppendEntriesRequest<Types<Rt>> {
    type Error = Invalid;

    fn try_from(append: Append) -> Result<Self, Invalid> {
        // openraft takes it for granted that entries follow each other.
        let mut next = append.previous.map_or(0, |id| id.index.saturating_add(1));
        check_index(next.saturating_add(append.entries.len() as u64))?;
        let entry = |record: EntryRecord| {
            if record.index != next {
                return Err(Invalid::Order { expected: next, found: record.index });
            }
            if record.payload.len() > MAX_PAYLOAD_BYTES {
                return Err(Invalid::Length(record.payload.len()));
            }
            next += 1;
            let log_id = types::LogId::new_term_index(record.term, record.index);
            Ok(types::Entry { log_id, payload: decode_payload(record.payload)? })
        };
        Ok(Self {
            vote: append.vote.ok_or(Invalid::Missing("the vote"))?.into(),
            prev_log_id: append.previous.map(Into::into),
            entries: append.entries.into_iter().map(entry).collect::<Result<_, Invalid>>()?,
            leader_commit: append.committed.map(Into::into),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Appended {
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4")]
    outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(message, optional, tag = "1")]
    last: Option<LogId>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Outcome {
    #[prost(message, tag = "1")]
    Success(Nothing),
    #[prost(message, tag = "2")]
    Partial(Partial),
    #[prost(message, tag = "3")]
    Conflict(Nothing),
    #[prost(message, tag = "4")]
    HigherVote(Vote),
}

impl Appended {
    /// Whether all was taken.
    pub(crate) fn is_success(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Success(_)))
    }
}

impl<Rt: AsyncRuntime> From<AppendEntriesResponse<Types<Rt>>> for Appended {
    fn from(response: AppendEntriesResponse<Types<Rt>>) -> Self {
        let outcome = match response {
            AppendEntriesResponse::Success => Outcome::Success(Nothing {}),
            AppendEntriesResponse::PartialSuccess(last) => {
                Outcome::Partial(Partial { last: last.as_ref().map(Into::into) })
            }
            AppendEntriesResponse::Conflict => Outcome::Conflict(Nothing {}),
            AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote((&vote).into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl<Rt: AsyncRuntime> TryFrom<Appended> for AppendEntriesResponse<Types<Rt>> {
    type Error = Invalid;

    fn try_from(appended: Appended) -> Result<Self, Invalid> {
        Ok(match appended.outcome.ok_or(Invalid::Missing("the outcome"))? {
            Outcome::Success(Nothing {}) => Self::Success,
            Outcome::Partial(partial) => Self::PartialSuccess(partial.last.map(Into::into)),
            Outcome::Conflict(Nothing {}) => Self::Conflict,
            Outcome::HigherVote(vote) => Self::HigherVote(vote.into()),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ballot {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogId>,
    #[prost(bool, tag = "3")]
    transfer: bool,
}

impl<Rt: AsyncRuntime> From<&VoteRequest<Types<Rt>>> for Ballot {
    fn from(request: &VoteRequest<Types<Rt>>) -> Self {
        Self {
            vote: Some((&request.vote).into()),
            last: request.last_log_id.as_ref().map(Into::into),
            transfer: request.leadership_transfer,
        }
    }
}

impl<Rt: AsyncRuntime> TryFrom<Ballot> for VoteRequest<Types<Rt>> {
    type Error = Invalid;

    fn try_from(ballot: Ballot) -> Result<Self, Invalid> {
        let vote = ballot.vote.ok_or(Invalid::Missing("the vote"))?.into();
        Ok(Self { vote, last_log_id: ballot.last.map(Into::into), leadership_transfer: ballot.transfer })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Voted {
    #[prost(message, optional, tag = "1")]
    vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogId>,
    #[prost(bool, tag = "3")]
    pub(crate) granted: bool,
}

impl<Rt: AsyncRuntime> From<VoteResponse<Types<Rt>>> for Voted {
    fn from(response: VoteResponse<Types<Rt>>) -> Self {
        Self {
            vote: Some((&response.vote).into()),
            last: response.last_log_id.as_ref().map(Into::into),
            granted: response.vote_granted,
        }
    }
}

impl<Rt: AsyncRuntime> TryFrom<Voted> for VoteResponse<Types<Rt>> {
    type Error = Invalid;

    fn try_from(voted: Voted) -> Result<Self, Invalid> {
        let vote: types::Vote = voted.vote.ok_or(Invalid::Missing("the vote"))?.into();
        Ok(Self::new(vote, voted.last.map(Into::into), voted.granted))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Transfer {
    #[prost(message, optional, tag = "1")]
    from_leader: Option<Vote>,
    #[prost(fixed64, tag = "2")]
    to: u64,
    #[prost(message, optional, tag = "3")]
    last: Option<LogId>,
}

impl<Rt: AsyncRuntime> From<&TransferLeaderRequest<Types<Rt>>> for Transfer {
    fn from(request: &TransferLeaderRequest<Types<Rt>>) -> Self {
        Self {
            from_leader: Some(request.from_leader().into()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(Into::into),
        }
    }
}

impl<Rt: AsyncRuntime> TryFrom<Transfer> for TransferLeaderRequest<Types<Rt>> {
    type Error = Invalid;

    fn try_from(transfer: Transfer) -> Result<Self, Invalid> {
        let from = transfer.from_leader.ok_or(Invalid::Missing("the vote"))?.into();
        Ok(Self::new(from, transfer.to, transfer.last.map(Into::into)))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Transferred {
    /// Set if the vote is no longer what the old leader thinks.
    #[prost(message, optional, tag = "1")]
    changed: Option<ChangedVote>,
    /// Set if the log is not durable up to where it should be.
    #[prost(message, optional, tag = "2")]
    behind: Option<Behind>,
}

#[derive(Clone, PartialEq, Message)]
struct ChangedVote {
    #[prost(message, optional, tag = "1")]
    expected: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    actual: Option<Vote>,
}

#[derive(Clone, PartialEq, Message)]
struct Behind {
    #[prost(message, optional, tag = "1")]
    expected: Option<LogId>,
    #[prost(message, optional, tag = "2")]
    actual: Option<LogId>,
}

/// What openraft answers to a transfer.
pub(crate) fn from_transferred<Rt: AsyncRuntime>(response: TransferLeaderResponse<Types<Rt>>) -> Transferred {
    match response {
        Ok(()) => Transferred::default(),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => Transferred {
            changed: Some(ChangedVote { expected: Some((&expected).into()), actual: Some((&actual).into()) }),
            behind: None,
        },
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Transferred {
            changed: None,
            behind: Some(Behind {
                expected: expected.as_ref().map(Into::into),
                actual: actual.as_ref().map(Into::into),
            }),
        },
    }
}

/// The way back.
pub(crate) fn to_transferred<Rt: AsyncRuntime>(
    transferred: Transferred,
) -> Result<TransferLeaderResponse<Types<Rt>>, Invalid> {
    if let Some(changed) = transferred.changed {
        let expected = changed.expected.ok_or(Invalid::Missing("the expected vote"))?.into();
        let actual = changed.actual.ok_or(Invalid::Missing("the actual vote"))?.into();
        return Ok(Err(TransferLeaderError::VoteChanged { expected, actual }));
    }
    Ok(transferred.behind.map_or(Ok(()), |behind| {
        let (expected, actual) = (behind.expected.map(Into::into), behind.actual.map(Into::into));
        Err(TransferLeaderError::LogNotFlushed { expected, actual })
    }))
}

/// The first chunk of a snapshot's stream; the bytes of its file follow.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotHead {
    #[prost(fixed64, tag = "1")]
    pub(crate) cluster: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) from: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) to: u64,
    #[prost(message, optional, tag = "4")]
    pub(crate) vote: Option<Vote>,
    /// Of the file.
    #[prost(uint64, tag = "5")]
    pub(crate) bytes: u64,
}

/// The answer to it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotTaken {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
}

#[cfg(test)]
mod tests {
    use openraft_rt_tokio::TokioRuntime;

    use super::*;

    type AppendRequest = AppendEntriesRequest<Types<TokioRuntime>>;

    #[test]
    fn entries_that_do_not_follow_each_other_are_refused() {
        let record = |index| EntryRecord { term: 1, index, payload: Bytes::from_static(&[0]) };
        let check = |previous: Option<u64>, entries: Vec<EntryRecord>| {
            let previous = previous.map(|index| LogId { term: 1, index });
            let vote = Some(Vote { term: 1, node: 1, committed: true });
            AppendRequest::try_from(Append { vote, previous, entries, committed: None })
                .map(|append| append.entries.len())
        };
        assert_eq!(check(None, vec![record(0), record(1)]), Ok(2));
        assert_eq!(check(Some(6), vec![record(7)]), Ok(1));
        assert_eq!(check(Some(6), vec![record(8)]), Err(Invalid::Order { expected: 7, found: 8 }));
        assert_eq!(check(Some(6), vec![record(7), record(7)]), Err(Invalid::Order { expected: 8, found: 7 }));
        assert!(matches!(check(Some(u64::MAX), vec![]), Err(Invalid::Index(_))));
        assert!(matches!(check(Some(u64::MAX - 1), vec![record(u64::MAX)]), Err(Invalid::Index(_))));
        let large = EntryRecord { payload: vec![1; MAX_PAYLOAD_BYTES + 1].into(), ..record(0) };
        assert_eq!(check(None, vec![large]), Err(Invalid::Length(MAX_PAYLOAD_BYTES + 1)));
    }
}
