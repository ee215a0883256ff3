//! The seam to other nodes: calls and streams of opaque bytes.
//!
//! gRPC implements it in production, the simulator its own; [`Switchboard`] connects nodes of one process for tests.
//! Deadlines and retries belong to whoever calls.

mod switchboard;

pub use switchboard::Switchboard;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
pub use openraft_rt::BoxStream;

/// The most bytes in one message or chunk: a read of entries stops after 1 MiB, and one entry has at most as much.
pub const MAX_MESSAGE_BYTES: usize = (2 << 20) + (64 << 10);

/// Another node: who, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The node's id.
    pub id: u64,
    /// The address that its membership names.
    pub address: String,
}

/// Why there is no answer. The difference matters to who must not do a thing twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing of the request left this node.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request may have been carried out.
    #[error("no answer, the request may have been carried out: {0}")]
    Unknown(String),
    /// The other node answered that it will not.
    #[error("refused: {0}")]
    Refused(String),
}

/// Reaches other nodes.
pub trait Net: Clone + Send + Sync + 'static {
    /// Sends `request` and gives the answer of [`crate::Node::handle`] over there, within `within`.
    ///
    /// # Errors
    ///
    /// Only a failure before anything was sent may be [`Error::NotSent`].
    fn call(
        &self,
        to: &Peer,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + 'static + use<Self>;

    /// Sends chunks, no faster than the other side takes them, and gives the answer of [`crate::Node::receive`] over
    /// there. `stall` is how long it may take without a chunk being taken.
    ///
    /// # Errors
    ///
    /// As for [`Net::call`].
    fn stream(
        &self,
        to: &Peer,
        chunks: BoxStream<'static, Bytes>,
        stall: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + 'static + use<Self>;
}

/// What a node offers to the network, for implementations that keep nodes of several types.
pub trait Service: Send + Sync + 'static {
    /// Answers a call.
    fn handle(&self, request: Bytes) -> openraft_rt::BoxFuture<'static, Result<Bytes, Error>>;

    /// Takes a stream.
    fn receive(&self, chunks: BoxStream<'static, Bytes>) -> openraft_rt::BoxFuture<'static, Result<Bytes, Error>>;
}
