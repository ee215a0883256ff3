//! What a node promises when it answers another one, for somebody who overhears both: a test, a simulator.
//!
//! An answer that grants a vote, or takes entries, binds its node for ever: what it says must be on its disk, whatever
//! happens to its process (Ongaro and Ousterhout, "In search of an understandable consensus algorithm", 2014, Figure 2,
//! "updated on stable storage before responding").

use prost::Message as _;

use crate::log::head::Head;
use crate::message::Vote;
use crate::message::wire::{Answer, Ask, Request, Response, SnapshotHead};

/// For whom a node has voted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ballot {
    /// The term.
    pub term: u64,
    /// The candidate's id.
    pub node: u64,
    /// Whether a quorum voted so.
    pub committed: bool,
}

impl Ballot {
    /// Whether a node may have voted so after it had voted as `before` says. Of two candidates in one term only the one
    /// that won may be taken for the other.
    pub fn may_follow(self, before: Self) -> bool {
        let same = self.node == before.node && self.committed >= before.committed;
        self.term > before.term || (self.term == before.term && (same || (self.committed && !before.committed)))
    }
}

/// Of an entry: its term and its index.
pub type EntryId = (u64, u64);

/// What a node has promised, or has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promise {
    /// Its vote.
    pub vote: Option<Ballot>,
    /// The last entry of its log.
    pub last: Option<EntryId>,
}

/// What is asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The node's id.
    pub node: u64,
    /// The vote of who asks. What a node has promised about entries to the leader of an earlier term, it may take back then.
    pub vote: Ballot,
    /// The last entry that is sent, if entries are.
    last: Option<EntryId>,
    /// Whether a vote is asked for. Otherwise entries are to be taken.
    pub is_vote: bool,
}

impl From<&Vote> for Ballot {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.term, node: vote.node, committed: vote.committed }
    }
}

/// Reads a request. `None` if it is not one that an answer could promise something to.
pub fn asked(request: &[u8]) -> Option<Asked> {
    let request = Request::decode(request).ok()?;
    let node = request.to;
    match request.ask? {
        Ask::Append(append) => {
            let (vote, last) = append.claims()?;
            Some(Asked { node, vote: vote.into(), last, is_vote: false })
        }
        Ask::Vote(ballot) => Some(Asked { node, vote: ballot.vote.as_ref()?.into(), last: None, is_vote: true }),
        Ask::PreVote(_) | Ask::Transfer(_) => None,
    }
}

/// Reads the beginning of a stream that brings a snapshot.
pub fn asked_by_stream(head: &[u8]) -> Option<Asked> {
    let head = SnapshotHead::decode(head).ok()?;
    Some(Asked { node: head.to, vote: head.vote.as_ref()?.into(), last: None, is_vote: false })
}

/// What the answer to a request promises. `None`: nothing.
pub fn promised(asked: &Asked, answer: &[u8]) -> Option<Promise> {
    let vote = Some(asked.vote);
    match Response::decode(answer).ok()?.answer? {
        Answer::Vote(voted) if asked.is_vote && voted.granted => Some(Promise { vote, last: None }),
        Answer::Append(appended) if !asked.is_vote && appended.is_success() => Some(Promise { vote, last: asked.last }),
        _ => None,
    }
}

impl From<&Head> for Promise {
    fn from(head: &Head) -> Self {
        let vote = head.vote.as_ref().map(|vote| Ballot::from(&Vote::from(vote)));
        let last = head.last.as_ref().map(|tip| (tip.id.committed_leader_id().term, tip.id.index()));
        Self { vote, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_follows_only_one_that_it_may() {
        let ballot = |term, node, committed| Ballot { term, node, committed };
        assert!(ballot(2, 1, false).may_follow(ballot(1, 2, true)), "a later term");
        assert!(!ballot(1, 1, true).may_follow(ballot(2, 1, false)), "an earlier one");
        assert!(!ballot(1, 1, false).may_follow(ballot(1, 2, false)), "two votes in one term");
        assert!(ballot(1, 1, true).may_follow(ballot(1, 2, false)), "the other one has won");
        assert!(!ballot(1, 1, true).may_follow(ballot(1, 2, true)), "two have won");
        assert!(!ballot(1, 1, false).may_follow(ballot(1, 1, true)), "that it has won is forgotten");
    }
}
