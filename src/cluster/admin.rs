//! What an operator asks a node about the members of its cluster: the service, and who calls it.

use std::future::Future;
use std::time::Duration;

use gristmill_proto::internal::v1 as proto;
use gristmill_proto::internal::v1::admin_client::AdminClient;
use gristmill_proto::internal::v1::admin_server::{Admin, AdminServer};
use gristmill_raft::net::{self, Peer};
use gristmill_raft::node::{Metrics, Role};
use gristmill_raft::{Env, Node, StateMachine};
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::address;
use super::answer;
use super::channels::{Channels, Lane};

/// How long a new leader is waited for when leadership is handed over.
const TRANSFER_WITHIN: Duration = Duration::from_secs(5);

/// Between two questions while nobody leads.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The service around a node. `gathering` and `token` are digests of what it was to begin a cluster with, or 0.
pub fn service<E: Env, S: StateMachine>(node: Node<E, S>, (gathering, token): (u64, u64)) -> AdminServer<impl Admin> {
    AdminServer::new(Members(node, gathering, token))
}

struct Members<E: Env, S: StateMachine>(Node<E, S>, u64, u64);

#[tonic::async_trait]
impl<E: Env, S: StateMachine> Admin for Members<E, S> {
    async fn status(&self, _: Request<proto::StatusRequest>) -> Result<Response<proto::NodeStatus>, Status> {
        let (me, metrics) = (self.0.identity(), self.0.metrics());
        Ok(Response::new(proto::NodeStatus {
            cluster: me.cluster,
            id: me.node,
            role: role(metrics.role).to_string(),
            term: metrics.leadership.term,
            leader: metrics.leadership.leader.map(member),
            voters: metrics.voters.into_iter().map(member).collect(),
            learners: metrics.learners.into_iter().map(member).collect(),
            last: metrics.last,
            committed: metrics.committed,
            applied: metrics.applied,
            snapshot: metrics.snapshot,
            gathering: self.1,
            token: self.2,
        }))
    }

    async fn add(&self, request: Request<proto::AddRequest>) -> Result<Response<proto::AddResponse>, Status> {
        let request = request.into_inner();
        let cluster = self.0.identity().cluster;
        if request.cluster != cluster {
            let told = format!("this is cluster {cluster:016x}, not {:016x}", request.cluster);
            return Err(Status::failed_precondition(told));
        }
        let node = request.node.filter(|node| node.id != 0);
        let node = node.ok_or_else(|| Status::invalid_argument("the node to be added has no id"))?;
        // Whether plain connections may go there is for each node to decide; here only its form counts.
        address::check_plain(&node.address, true).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let peer = Peer { id: node.id, address: node.address };
        self.0.add_member(&peer).await.map_err(|e| status(&e))?;
        Ok(Response::new(proto::AddResponse {}))
    }

    async fn remove(&self, request: Request<proto::RemoveRequest>) -> Result<Response<proto::RemoveResponse>, Status> {
        let id = request.into_inner().id;
        // Only the leader knows for sure who is a member.
        let metrics = self.leading()?;
        if !metrics.voters.iter().chain(&metrics.learners).any(|peer| peer.id == id) {
            return Err(Status::not_found(format!("node {id:016x} is not a member of this cluster")));
        }
        self.0.remove_member(id).await.map_err(|e| status(&e))?;
        Ok(Response::new(proto::RemoveResponse {}))
    }

    async fn transfer(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        let metrics = self.leading()?;
        let (me, to) = (self.0.identity().node, request.into_inner().to);
        let heir = match to {
            0 => self.0.heir().or_else(|| metrics.voters.into_iter().find(|peer| peer.id != me)),
            _ => metrics.voters.into_iter().find(|peer| peer.id == to),
        };
        let heir = heir.ok_or_else(|| match to {
            0 => Status::failed_precondition("there is no other voter"),
            _ => Status::not_found(format!("node {to:016x} has no vote in this cluster")),
        })?;
        if heir.id != me {
            self.0.transfer_leadership(heir.id, TRANSFER_WITHIN).await.map_err(|e| status(&e))?;
        }
        Ok(Response::new(proto::TransferResponse { leader: Some(member(heir)) }))
    }
}

impl<E: Env, S: StateMachine> Members<E, S> {
    /// Figures of the leader, if this is it.
    fn leading(&self) -> Result<Metrics, Status> {
        let metrics = self.0.metrics();
        match metrics.leadership.here {
            true => Ok(metrics),
            false => Err(status(&gristmill_raft::Error::NotLeader { leader: metrics.leadership.leader })),
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Ended => "ended",
    }
}

fn member(peer: Peer) -> proto::Member {
    proto::Member { id: peer.id, address: peer.address }
}

fn status(error: &gristmill_raft::Error) -> Status {
    use gristmill_raft::Error::{NotLeader, Refused};
    match error {
        NotLeader { leader } => answer::not_leader(leader.as_ref().map(|peer| peer.address.as_str())),
        Refused(why) => Status::failed_precondition(why),
        other => Status::unknown(other.to_string()),
    }
}

/// Why what was asked did not happen, or may have happened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none or must not be spoken to.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The node did not do it, or did not answer.
    #[error("the node at {address} did not do it: {source}")]
    Call {
        /// Who was asked.
        address: String,
        /// What came of it.
        source: net::Error,
    },
    /// Nobody leads.
    #[error("no node led the cluster of {address} within {within:?}; see who is there with `gristmill raft members`")]
    NoLeader {
        /// Who was asked.
        address: String,
        /// How long.
        within: Duration,
    },
}

/// Asks the nodes of a cluster, of which one address is known.
#[derive(Clone)]
pub struct Client {
    channels: Channels,
    at: String,
    within: Duration,
    /// A user's token; nodes have certificates.
    bearer: Option<AsciiMetadataValue>,
}

impl Client {
    /// Asks at `at`, and the leader that it names; gives up after `within`.
    pub fn new(channels: Channels, at: &str, within: Duration) -> Self {
        Self { channels, at: at.to_string(), within, bearer: None }
    }

    /// The same, for a user with this token.
    #[must_use]
    pub fn showing(self, bearer: Option<AsciiMetadataValue>) -> Self {
        Self { bearer, ..self }
    }

    fn request<T>(&self, message: T, within: Duration) -> Request<T> {
        let mut request = answer::request(message, within);
        if let Some(bearer) = self.bearer.clone() {
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// How the node sees itself and the cluster.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn status(&self) -> Result<proto::NodeStatus, Error> {
        let mut client = self.client(&self.at)?;
        let request = self.request(proto::StatusRequest {}, self.within);
        let answered = answer::within(self.within, client.status(request)).await;
        answered.map_err(|source| Error::Call { address: self.at.clone(), source })
    }

    /// Adds a node to this cluster.
    ///
    /// # Errors
    ///
    /// If the leader refuses, or it is not known whether it happened. Repeating it does no harm.
    pub async fn add(&self, cluster: u64, peer: &Peer) -> Result<(), Error> {
        let ask = |mut client: AdminClient<Channel>, left| {
            let request = self.request(proto::AddRequest { cluster, node: Some(member(peer.clone())) }, left);
            async move { client.add(request).await }
        };
        self.ask_leader(ask).await.map(drop)
    }

    /// Removes a node for ever.
    ///
    /// # Errors
    ///
    /// As for [`Client::add`], and if it is not a member.
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let ask = |mut client: AdminClient<Channel>, left| {
            let request = self.request(proto::RemoveRequest { id }, left);
            async move { client.remove(request).await }
        };
        self.ask_leader(ask).await.map(drop)
    }

    /// Hands leadership to a voter, or to any other one. Gives who leads then.
    ///
    /// # Errors
    ///
    /// As for [`Client::add`], and if it is no voter.
    pub async fn transfer(&self, to: Option<u64>) -> Result<Peer, Error> {
        let ask = |mut client: AdminClient<Channel>, left| {
            let request = self.request(proto::TransferRequest { to: to.unwrap_or(0) }, left);
            async move { client.transfer(request).await }
        };
        let leader = self.ask_leader(ask).await?.leader.unwrap_or_default();
        Ok(Peer { id: leader.id, address: leader.address })
    }

    fn client(&self, address: &str) -> Result<AdminClient<Channel>, address::Error> {
        self.channels.to(address, Lane::Calls).map(AdminClient::new)
    }

    /// Asks whoever leads, beginning with the address that is known.
    async fn ask_leader<T, F>(&self, ask: impl Fn(AdminClient<Channel>, Duration) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        let mut address = self.at.clone();
        loop {
            let left = self.within.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(Error::NoLeader { address: self.at.clone(), within: self.within });
            }
            let call = ask(self.client(&address)?, left);
            let failed = |source| Error::Call { address: address.clone(), source };
            let late = |_| failed(net::Error::Unknown(format!("nothing within {left:?}")));
            let status = match timeout(left, call).await.map_err(late)? {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            if let Some(leader) = answer::elsewhere(&status) {
                match leader.filter(|leader| *leader != address) {
                    Some(leader) => address = leader,
                    None => {
                        address.clone_from(&self.at);
                        sleep(ASK_EVERY).await;
                    }
                }
                continue;
            }
            let outcome = answer::outcome(&status);
            // A leader that was named may have gone since.
            let gone = matches!(outcome, net::Error::NotSent(_)) && address != self.at;
            if !gone {
                return Err(failed(outcome));
            }
            address.clone_from(&self.at);
            sleep(ASK_EVERY).await;
        }
    }
}
