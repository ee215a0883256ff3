//! Answering other nodes.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use openraft::errors::Fatal;
use openraft_rt::{AsyncRuntime, BoxFuture, BoxStream};
use prost::Message as _;

use super::{Env, Node, id};
use crate::machine::StateMachine;
use crate::message::wire::{self, Answer, Ask};
use crate::message::{self, Invalid};
use crate::net::{Error, Service};
use crate::snapshot::{Kind, Unfinished};
use crate::types::Types;

/// The longest election timeouts that a snapshot may come to a halt for.
const STALL: u32 = 20;

fn refused(error: &dyn std::error::Error) -> Error {
    Error::Refused(crate::chain(error))
}

fn bad(error: Invalid) -> Error {
    refused(&error)
}

impl<E: Env, S: StateMachine> Node<E, S> {
    /// Answers a request of another node. Who may ask is decided before.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the request is not for this node or makes no sense, or the node has ended.
    pub async fn handle(&self, request: Bytes) -> Result<Bytes, Error> {
        let request = wire::Request::decode(request).map_err(|e| bad(e.into()))?;
        self.check_address(request.cluster, request.to)?;
        let raft = &self.inner.raft;
        let answer = match request.ask.ok_or_else(|| bad(Invalid::Missing("the question")))? {
            Ask::Append(append) => {
                let answer = raft.append_entries(append.try_into().map_err(bad)?).await;
                Answer::Append(answer.map_err(|e| refused(&e))?.into())
            }
            Ask::Vote(ballot) => {
                let answer = raft.vote(ballot.try_into().map_err(bad)?).await;
                Answer::Vote(answer.map_err(|e| refused(&e))?.into())
            }
            Ask::PreVote(ballot) => {
                let answer = raft.pre_vote(ballot.try_into().map_err(bad)?).await;
                Answer::Vote(answer.map_err(|e| refused(&e))?.into())
            }
            Ask::Transfer(transfer) => {
                let answer = raft.handle_transfer_leader(transfer.try_into().map_err(bad)?).await;
                Answer::Transfer(wire::from_transferred(answer.map_err(|e| refused(&e))?))
            }
        };
        Ok(wire::Response { answer: Some(answer) }.encode_to_vec().into())
    }

    fn check_address(&self, cluster: u64, to: u64) -> Result<(), Error> {
        let me = self.inner.identity;
        if cluster != me.cluster {
            return Err(Error::Refused(format!("this is cluster {:016x}, not {cluster:016x}", me.cluster)));
        }
        if to != me.node {
            return Err(Error::Refused(format!("this is {}, not {}", id(me.node), id(to))));
        }
        Ok(())
    }

    /// Takes a snapshot from the leader: a head, then the bytes of its file.
    ///
    /// # Errors
    ///
    /// As for [`Node::handle`], and if the snapshot is not whole or another one is being taken.
    pub async fn receive(&self, mut chunks: BoxStream<'static, Bytes>) -> Result<Bytes, Error> {
        let first = chunks.next().await.ok_or_else(|| bad(Invalid::Missing("the head of the snapshot")))?;
        let head = wire::SnapshotHead::decode(first).map_err(|e| bad(e.into()))?;
        self.check_address(head.cluster, head.to)?;
        let _turn = Turn::take(&self.inner.receiving)
            .ok_or_else(|| Error::Refused("another snapshot is being taken; try again later".to_string()))?;
        let vote = head.vote.ok_or_else(|| bad(Invalid::Missing("the vote")))?.into();
        let file = Unfinished::begin(self.inner.files.clone(), Kind::Received).await;
        let mut file = file.map_err(|e| refused(&e))?;
        if let Err(error) = fill::<E::Rt, _>(&mut file, &mut chunks, head.bytes, self.inner.election * STALL).await {
            file.discard().await;
            return Err(error);
        }
        let sealed = file.into_sealed();
        let meta = sealed.check_in_turns().await.map_err(|e| refused(&e))?;
        let snapshot = openraft::Snapshot { meta, snapshot: sealed };
        let installed: Result<_, Fatal<Types<E::Rt>>> = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        let vote = installed.map_err(|e| refused(&e))?.vote;
        Ok(wire::SnapshotTaken { vote: Some(message::Vote::from(&vote)) }.encode_to_vec().into())
    }
}

/// Writes chunks to the file as they come. Who sends none for `stall` is given up: nobody else can send meanwhile.
async fn fill<Rt: AsyncRuntime, F: crate::disk::Files>(
    file: &mut Unfinished<F>,
    chunks: &mut BoxStream<'static, Bytes>,
    expected: u64,
    stall: Duration,
) -> Result<(), Error> {
    let mut found = 0;
    loop {
        let chunk = Rt::timeout(stall, chunks.next()).await;
        let chunk = chunk.map_err(|_| Error::Refused(format!("nothing more of the snapshot came within {stall:?}")))?;
        let Some(chunk) = chunk else { break };
        found += chunk.len() as u64;
        if found > expected {
            break;
        }
        file.add(chunk.into()).await.map_err(|e| refused(&e))?;
    }
    if found == expected {
        return Ok(());
    }
    Err(Error::Refused(format!("a snapshot of {expected} bytes of which {found} came")))
}

/// The right to take a snapshot, for as long as it lives.
struct Turn<'a>(&'a std::sync::atomic::AtomicBool);

impl<'a> Turn<'a> {
    fn take(taken: &'a std::sync::atomic::AtomicBool) -> Option<Self> {
        let free = !taken.swap(true, std::sync::atomic::Ordering::Acquire);
        free.then_some(Self(taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, std::sync::atomic::Ordering::Release);
    }
}

impl<E: Env, S: StateMachine> Service for Node<E, S> {
    fn handle(&self, request: Bytes) -> BoxFuture<'static, Result<Bytes, Error>> {
        let node = self.clone();
        in_its_own_task::<E::Rt>(async move { node.handle(request).await })
    }

    fn receive(&self, chunks: BoxStream<'static, Bytes>) -> BoxFuture<'static, Result<Bytes, Error>> {
        let node = self.clone();
        in_its_own_task::<E::Rt>(async move { node.receive(chunks).await })
    }
}

/// The work goes on when the caller gives up, as that of another process would.
fn in_its_own_task<Rt: AsyncRuntime>(
    work: impl Future<Output = Result<Bytes, Error>> + Send + 'static,
) -> BoxFuture<'static, Result<Bytes, Error>> {
    let task = Rt::spawn(work);
    Box::pin(async move { task.await.unwrap_or_else(|e| Err(Error::Unknown(e.to_string()))) })
}
