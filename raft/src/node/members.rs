//! Changing who belongs to the cluster, and who leads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{InitializeError, RaftError};
use openraft_rt::{AsyncRuntime, Instant as _, WatchReceiver as _};

use super::{Env, Error, Node, id};
use crate::machine::StateMachine;
use crate::net::Peer;
use crate::types::Member;

impl<E: Env, S: StateMachine> Node<E, S> {
    /// Makes a new cluster of these nodes, of which this is one. To be called once, on one node, when all of them are
    /// reachable and empty: the caller makes sure of that.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if this node already belongs to a cluster or is not among them.
    pub async fn initialize(&self, members: &[Peer]) -> Result<(), Error> {
        let members: BTreeMap<u64, Member> =
            members.iter().map(|peer| (peer.id, Member { address: peer.address.clone() })).collect();
        self.inner.raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => {
                Error::Refused("this node already belongs to a cluster".to_string())
            }
            RaftError::APIError(error) => Error::Refused(error.to_string()),
            RaftError::Fatal(fatal) => Error::Unknown(self.why_ended(&fatal)),
        })
    }

    /// Adds a node: first as a learner, until it has the log, then as a voter. Of a member, makes known where it is now.
    /// Repeating it does no harm.
    ///
    /// # Errors
    ///
    /// Those of [`Node::propose`]; [`Error::Refused`] while another change is going on.
    pub async fn add_member(&self, peer: &Peer) -> Result<(), Error> {
        self.add_learner(peer).await?;
        if self.is_voter(peer.id) {
            return Ok(());
        }
        let voters = ChangeMembers::AddVoterIds(BTreeSet::from([peer.id]));
        let changed = self.inner.raft.change_membership(voters, true).await;
        changed.map(drop).map_err(|error| self.write_error(error))
    }

    /// Adds a node that gets the log and does not vote, and waits until it is up to date.
    ///
    /// # Errors
    ///
    /// Those of [`Node::add_member`]; [`Error::NotLeader`] also if leadership is lost meanwhile. To be repeated then.
    pub async fn add_learner(&self, peer: &Peer) -> Result<(), Error> {
        let member = Member { address: peer.address.clone() };
        let known = self.member(peer.id);
        let added = if known.as_ref().is_some_and(|known| *known != member) {
            // It is the same node, by its id: only where it is has changed, not who has a vote.
            let moved = ChangeMembers::SetNodes(BTreeMap::from([(peer.id, member)]));
            self.inner.raft.change_membership(moved, true).await
        } else {
            self.inner.raft.add_learner(peer.id, member, false).await
        };
        let added = added.map_err(|error| self.write_error(error))?;
        match peer.id == self.inner.identity.node {
            true => Ok(()),
            false => self.caught_up(peer.id, added.log_id.index()).await,
        }
    }

    /// What the newest membership says of a node.
    fn member(&self, id: u64) -> Option<Member> {
        self.inner.raft.metrics().borrow_watched().membership_config.membership().get_node(&id).cloned()
    }

    fn is_voter(&self, id: u64) -> bool {
        self.inner.raft.metrics().borrow_watched().membership_config.voter_ids().any(|voter| voter == id)
    }

    /// Waits until a node has the log up to `index`. openraft itself takes a node for up to date long before: a vote of
    /// its own must not make the cluster wait for a snapshot.
    async fn caught_up(&self, node: u64, index: u64) -> Result<(), Error> {
        let mut metrics = self.inner.raft.metrics();
        let seen = metrics.wait_until(|m| match &m.replication {
            Some(matched) => matched.get(&node).and_then(|id| id.map(|id| id.index())) >= Some(index),
            // No leader any more.
            None => true,
        });
        let seen = seen.await.map_err(|_| Error::Ended(self.ended().unwrap_or_default()))?;
        match seen.replication {
            Some(_) => Ok(()),
            None => Err(Error::NotLeader { leader: self.watch().now().leader }),
        }
    }

    /// Removes a node, voter or learner. Its id never comes back. A leader that removes itself leads until another does.
    ///
    /// # Errors
    ///
    /// Those of [`Node::add_member`]; [`Error::Refused`] for the last voter.
    pub async fn remove_member(&self, node: u64) -> Result<(), Error> {
        let (voters, known) = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            (membership.voter_ids().collect::<BTreeSet<_>>(), membership.get_node(&node).is_some())
        };
        if voters.contains(&node) {
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([node]));
            let changed = self.inner.raft.change_membership(change, false).await;
            changed.map_err(|error| self.write_error(error))?;
        } else if known {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
            let changed = self.inner.raft.change_membership(change, false).await;
            changed.map_err(|error| self.write_error(error))?;
        }
        Ok(())
    }

    /// The voter that is best fit to lead after this node: of those that were heard within two of the longest election timeouts
    /// the one with most of the log. `None` if there is none, or if this node does not lead.
    pub fn heir(&self) -> Option<Peer> {
        let receiver = self.inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        let (heard, matched) = (metrics.heartbeat.as_ref()?, metrics.replication.as_ref()?);
        let lives = |id: &u64| {
            let at = heard.get(id).copied().flatten();
            *id != self.inner.identity.node && at.is_some_and(|at| at.elapsed() < self.inner.election * 2)
        };
        let voters = metrics.membership_config.voter_ids().filter(lives);
        let id = voters.max_by_key(|id| matched.get(id).copied().flatten().map(|last| last.index()))?;
        let member = metrics.membership_config.membership().get_node(&id)?;
        Some(Peer { id, address: member.address.clone() })
    }

    /// Hands leadership to another voter and waits until it leads.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`] if this node does not lead; [`Error::Refused`] if `to` is no voter; [`Error::Unknown`] if it
    /// does not lead after `within`.
    pub async fn transfer_leadership(&self, to: u64, within: Duration) -> Result<(), Error> {
        if let Err(forward) = self.inner.raft.as_leader() {
            return Err(super::not_leader(forward));
        }
        if !self.inner.raft.voter_ids().any(|voter| voter == to) {
            return Err(Error::Refused(format!("{} has no vote", id(to))));
        }
        let mut metrics = self.inner.raft.metrics();
        let asked = self.inner.raft.trigger().transfer_leader(to).await;
        asked.map_err(|fatal| Error::Ended(self.why_ended(&fatal)))?;
        let leads = async move { metrics.wait_until(|m| m.current_leader == Some(to)).await };
        match E::Rt::timeout(within, leads).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::Unknown(format!("{} does not lead after {within:?}", id(to)))),
        }
    }
}
