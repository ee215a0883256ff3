//! What can be seen of a node from outside: who leads, and figures.

use std::time::Duration;

use openraft::ServerState;
use openraft::type_config::alias::WatchReceiverOf;
use openraft_rt::{AsyncRuntime, Instant as _, WatchReceiver as _};

use super::{Env, Node};
use crate::machine::StateMachine;
use crate::net::Peer;
use crate::promise::Promise;
use crate::types::{LogId, Types};

/// Who leads, as far as a node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The term, which only grows. One term has at most one leader.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<Peer>,
    /// Whether it is this node.
    pub here: bool,
}

/// What a node does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Gets the log, has no vote.
    Learner,
    /// Follows a leader.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Has ended.
    Ended,
}

/// Figures of a node.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// What it does.
    pub role: Role,
    /// Who leads.
    pub leadership: Leadership,
    /// The index of the last entry in its log.
    pub last: Option<u64>,
    /// The index up to which it knows entries to be committed.
    pub committed: Option<u64>,
    /// The index up to which they are applied.
    pub applied: Option<u64>,
    /// The index that the newest snapshot covers.
    pub snapshot: Option<u64>,
    /// Bytes of the newest snapshot.
    pub snapshot_bytes: u64,
    /// The index of the last entry that was purged.
    pub purged: Option<u64>,
    /// The members that vote, by id.
    pub voters: Vec<Peer>,
    /// The members that do not.
    pub learners: Vec<Peer>,
    /// Bytes of the log's database; 0 if it does not say.
    pub log_bytes: u64,
    /// Bytes of the entries in it.
    pub log_used_bytes: u64,
    /// How often it was rebuilt since the start, to give back what it takes beyond them.
    pub log_rebuilds: u64,
    /// Batches made durable since the folder was made.
    pub writes: u64,
}

/// Waits for changes of leadership.
pub struct Watch<Rt: AsyncRuntime> {
    metrics: WatchReceiverOf<Types<Rt>, openraft::RaftMetrics<Types<Rt>>>,
    me: u64,
    seen: Option<Leadership>,
}

impl<Rt: AsyncRuntime> Watch<Rt> {
    /// What is known now.
    pub fn now(&self) -> Leadership {
        leadership(&self.metrics.borrow_watched(), self.me)
    }

    /// Waits until something is known that [`Watch::changed`] has not yet told. `None` when the node has ended. Changes
    /// that follow each other closely may be told as one.
    pub async fn changed(&mut self) -> Option<Leadership> {
        loop {
            let (now, ended) = {
                let metrics = self.metrics.borrow_and_update();
                (leadership(&metrics, self.me), metrics.running_state.is_err())
            };
            if ended {
                return None;
            }
            if self.seen.as_ref() != Some(&now) {
                self.seen = Some(now.clone());
                return Some(now);
            }
            self.metrics.changed().await.ok()?;
        }
    }
}

fn peer<Rt: AsyncRuntime>(metrics: &openraft::RaftMetrics<Types<Rt>>, id: u64) -> Peer {
    let member = metrics.membership_config.get_node(&id);
    Peer { id, address: member.map(|member| member.address.clone()).unwrap_or_default() }
}

fn leadership<Rt: AsyncRuntime>(metrics: &openraft::RaftMetrics<Types<Rt>>, me: u64) -> Leadership {
    let leader = metrics.current_leader.map(|id| peer(metrics, id));
    let here = metrics.state == ServerState::Leader && metrics.current_leader == Some(me);
    Leadership { term: metrics.current_term, leader, here }
}

impl<E: Env, S: StateMachine> Node<E, S> {
    /// Watches who leads.
    pub fn watch(&self) -> Watch<E::Rt> {
        Watch { metrics: self.inner.raft.metrics(), me: self.inner.identity.node, seen: None }
    }

    /// Waits while nobody is known to lead, `within` at most: an election takes about a second.
    pub async fn led(&self, within: Duration) {
        let mut metrics = self.inner.raft.metrics();
        if metrics.borrow_watched().current_leader.is_some() {
            return;
        }
        let led = async move { metrics.wait_until(|m| m.current_leader.is_some() || m.running_state.is_err()).await };
        // Whoever waited asks next, and is told what is still wrong.
        let _ = E::Rt::timeout(within, led).await;
    }

    /// Whether this node leads and a quorum has said so within two of the longest election timeouts: by then another one may
    /// lead. Costs a look at figures, asks nobody, and so promises less than [`Node::read`].
    pub fn has_quorum(&self) -> bool {
        let receiver = self.inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        let me = self.inner.identity.node;
        let alone = || metrics.membership_config.voter_ids().eq([me]);
        let recent = || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < self.inner.election * 2);
        leadership(&metrics, me).here && (recent() || alone())
    }

    /// The vote and the last entry that are on this node's disk.
    pub fn holds(&self) -> Promise {
        Promise::from(&self.inner.store.synced())
    }

    /// Who leads, as far as this node knows.
    pub fn leadership(&self) -> Leadership {
        leadership(&self.inner.raft.metrics().borrow_watched(), self.inner.identity.node)
    }

    /// Figures as of now. Some of them are asked of the disk: not for every request.
    pub fn metrics(&self) -> Metrics {
        let receiver = self.inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        let index = |id: &Option<LogId>| id.as_ref().map(openraft::LogId::index);
        let membership = metrics.membership_config.membership();
        let snapshot = self.inner.machine.snapshot();
        let (log_used_bytes, log_rebuilds) = self.inner.store.used();
        Metrics {
            role: match metrics.state {
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Shutdown => Role::Ended,
            },
            leadership: leadership(&metrics, self.inner.identity.node),
            last: metrics.last_log_index,
            committed: index(&metrics.local_committed),
            applied: index(&metrics.last_applied),
            snapshot: snapshot.as_ref().and_then(|(last, _)| index(last)),
            snapshot_bytes: snapshot.map_or(0, |(_, bytes)| bytes),
            purged: index(&metrics.purged),
            voters: membership.voter_ids().map(|id| peer(&metrics, id)).collect(),
            learners: membership.learner_ids().map(|id| peer(&metrics, id)).collect(),
            log_bytes: self.inner.store.bytes_on_disk().unwrap_or(0),
            log_used_bytes,
            log_rebuilds,
            writes: self.inner.store.writes(),
        }
    }
}
