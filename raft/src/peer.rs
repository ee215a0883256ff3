//! How openraft reaches other nodes: its calls as messages over the [`Net`] seam.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft_rt::{AsyncRuntime, OptionalSend, Select2};
use prost::Message as _;

use crate::disk::Files;
use crate::message::wire::{self, Answer, Ask};
use crate::message::{Invalid, Vote};
use crate::net::{self, Net, Peer};
use crate::snapshot::Sealed;
use crate::types::{Member, StoredMembership, Types};

/// Where the members are by the newest membership that this node knows of. openraft keeps connections to members that stay
/// and does not say that one has moved.
#[derive(Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<BTreeMap<u64, String>>>);

impl Addresses {
    /// Takes over what a membership says.
    pub(crate) fn set(&self, membership: &StoredMembership) {
        let all = membership.nodes().map(|(id, member)| (*id, member.address.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
    }

    fn of(&self, id: u64) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

/// Makes connections to peers.
pub(crate) struct Peers<N> {
    pub(crate) net: N,
    pub(crate) cluster: u64,
    pub(crate) me: u64,
    pub(crate) addresses: Addresses,
}

/// A peer, with whom to speak for.
pub(crate) struct Connection<Rt, N, F> {
    net: N,
    cluster: u64,
    me: u64,
    peer: Peer,
    addresses: Addresses,
    kinds: std::marker::PhantomData<fn() -> (Rt, F)>,
}

impl<N> Peers<N> {
    fn connection<Rt, F>(&self, id: u64, member: &Member) -> Connection<Rt, N, F>
    where
        N: Clone,
    {
        Connection {
            net: self.net.clone(),
            cluster: self.cluster,
            me: self.me,
            peer: Peer { id, address: member.address.clone() },
            addresses: self.addresses.clone(),
            kinds: std::marker::PhantomData,
        }
    }
}

/// [`Peers`] for a runtime and a kind of files.
pub(crate) struct Factory<Rt, N, F> {
    pub(crate) peers: Peers<N>,
    pub(crate) kinds: std::marker::PhantomData<fn() -> (Rt, F)>,
}

impl<Rt: AsyncRuntime, N: Net, F: Files> RaftNetworkFactory<Types<Rt>> for Factory<Rt, N, F> {
    type Network = Connection<Rt, N, F>;

    async fn new_client(&mut self, target: u64, node: &Member) -> Self::Network {
        self.peers.connection(target, node)
    }
}

type Rpc<Rt, T> = Result<T, RPCError<Types<Rt>>>;

impl<Rt: AsyncRuntime, N: Net, F: Files> Connection<Rt, N, F> {
    /// The peer, where it is now.
    fn peer(&self) -> Peer {
        let address = self.addresses.of(self.peer.id).unwrap_or_else(|| self.peer.address.clone());
        Peer { id: self.peer.id, address }
    }

    async fn call(&self, kind: RPCTypes, ask: Ask, option: &RPCOption) -> Rpc<Rt, Answer> {
        let request = wire::Request { cluster: self.cluster, from: self.me, to: self.peer.id, ask: Some(ask) };
        let within = option.soft_ttl();
        let answer = self.net.call(&self.peer(), request.encode_to_vec().into(), within);
        let answer = Rt::timeout(within, answer).await.map_err(|_| {
            RPCError::Timeout(Timeout { action: kind, id: self.me, target: self.peer.id, timeout: within })
        })?;
        let answer = answer.map_err(|error| match error {
            net::Error::NotSent(_) => RPCError::Unreachable(Unreachable::new(&error)),
            _ => RPCError::Network(NetworkError::new(&error)),
        })?;
        let response = wire::Response::decode(answer).map_err(|e| invalid(&e.into()))?;
        response.answer.ok_or_else(|| invalid(&Invalid::Missing("the answer")))
    }
}

fn invalid<Rt: AsyncRuntime>(error: &Invalid) -> RPCError<Types<Rt>> {
    RPCError::Network(NetworkError::new(error))
}

fn other_answer<Rt: AsyncRuntime>() -> RPCError<Types<Rt>> {
    invalid(&Invalid::Missing("an answer to this request"))
}

impl<Rt: AsyncRuntime, N: Net, F: Files> RaftNetworkV2<Types<Rt>> for Connection<Rt, N, F> {
    type SnapshotData = Sealed<F>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<Rt>>,
        option: RPCOption,
    ) -> Rpc<Rt, AppendEntriesResponse<Types<Rt>>> {
        match self.call(RPCTypes::AppendEntries, Ask::Append((&rpc).into()), &option).await? {
            Answer::Append(answer) => answer.try_into().map_err(|e| invalid(&e)),
            _ => Err(other_answer()),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<Types<Rt>>, option: RPCOption) -> Rpc<Rt, VoteResponse<Types<Rt>>> {
        match self.call(RPCTypes::Vote, Ask::Vote((&rpc).into()), &option).await? {
            Answer::Vote(answer) => answer.try_into().map_err(|e| invalid(&e)),
            _ => Err(other_answer()),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types<Rt>>, option: RPCOption) -> Rpc<Rt, VoteResponse<Types<Rt>>> {
        match self.call(RPCTypes::Vote, Ask::PreVote((&rpc).into()), &option).await? {
            Answer::Vote(answer) => answer.try_into().map_err(|e| invalid(&e)),
            _ => Err(other_answer()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<Rt>>,
        option: RPCOption,
    ) -> Rpc<Rt, TransferLeaderResponse<Types<Rt>>> {
        match self.call(RPCTypes::TransferLeader, Ask::Transfer((&request).into()), &option).await? {
            Answer::Transfer(answer) => wire::to_transferred(answer).map_err(|e| invalid(&e)),
            _ => Err(other_answer()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: crate::types::Vote,
        snapshot: openraft::alias::SnapshotOf<Types<Rt>, Sealed<F>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<Rt>>, StreamingError<Types<Rt>>> {
        let head = wire::SnapshotHead {
            cluster: self.cluster,
            from: self.me,
            to: self.peer.id,
            vote: Some((&vote).into()),
            bytes: snapshot.snapshot.bytes,
        };
        let first = futures_util::stream::iter([Bytes::from(head.encode_to_vec())]);
        let chunks = first.chain(chunks_of(snapshot.snapshot));
        let sent = self.net.stream(&self.peer(), Box::pin(chunks), option.soft_ttl());
        let answer = match Rt::select2(Box::pin(cancel), Box::pin(sent)).await {
            Select2::First(closed) => return Err(closed.into()),
            Select2::Second(answer) => answer.map_err(|error| match error {
                net::Error::NotSent(_) => StreamingError::Unreachable(Unreachable::new(&error)),
                _ => StreamingError::Network(NetworkError::new(&error)),
            })?,
        };
        let taken = wire::SnapshotTaken::decode(answer).map_err(|e| NetworkError::new(&Invalid::from(e)))?;
        let vote: Vote = taken.vote.ok_or_else(|| NetworkError::new(&Invalid::Missing("the vote")))?;
        Ok(SnapshotResponse::new(vote.into()))
    }
}

/// The bytes of a snapshot's file. It ends early if the disk fails; the other side misses the rest then.
fn chunks_of<F: Files>(sealed: Sealed<F>) -> impl futures_util::Stream<Item = Bytes> + Send {
    futures_util::stream::unfold((sealed, 0), |(sealed, offset)| async move {
        let chunk = if offset < sealed.bytes { sealed.chunk(offset).ok()? } else { Vec::new() };
        let next = offset + chunk.len() as u64;
        (!chunk.is_empty()).then(|| (Bytes::from(chunk), (sealed, next)))
    })
}
