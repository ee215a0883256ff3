//! The seam to other nodes: calls by the name of a method, and streams of messages. Requests and answers are prost bytes,
//! in the simulator too.
//!
//! An implementation maps statuses and nothing else: deadlines are given, retries and the search for the leader belong
//! to the callers here.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use gristmill_raft::net::BoxStream;

/// The most bytes in one message.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A method of a service, as gRPC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// A worker announces itself to the leading master.
    Register,
    /// A worker's long poll.
    Poll,
    /// Segments from a worker, a stream.
    Fetch,
    /// Which feature level a master understands.
    Level,
    /// How far a master must have applied the log.
    ReadIndex,
    /// What a master has for the audit log.
    Audit,
}

impl Method {
    /// The path of the method's HTTP/2 request.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Register => "/gristmill.internal.v1.Workers/Register",
            Self::Poll => "/gristmill.internal.v1.Workers/Poll",
            Self::Fetch => "/gristmill.internal.v1.Segments/Fetch",
            Self::Level => "/gristmill.internal.v1.Masters/Level",
            Self::ReadIndex => "/gristmill.internal.v1.Masters/ReadIndex",
            Self::Audit => "/gristmill.internal.v1.Masters/Audit",
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing of the request left this node.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request may have been carried out.
    #[error("no answer, the request may have been carried out: {0}")]
    Unknown(String),
    /// The other node does not lead; nothing was done.
    #[error("not the leader{}", leader.as_ref().map(|at| format!("; {at} is")).unwrap_or_default())]
    NotLeader {
        /// Who does, if that is known there.
        leader: Option<String>,
    },
    /// The other node answered that it will not.
    #[error("refused: {0}")]
    Refused(String),
}

/// Reaches other nodes by their addresses, `host:port`.
pub trait Net: Clone + Send + Sync + 'static {
    /// Sends a request and gives its answer, within `within`.
    fn call(
        &self,
        to: &str,
        method: Method,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<Self>;

    /// Sends a request and gives its answers as they come, no faster than they are taken. `stall` is how long one of them
    /// may take.
    fn fetch(
        &self,
        to: &str,
        method: Method,
        request: Bytes,
        stall: Duration,
    ) -> BoxStream<'static, Result<Bytes, CallError>>;
}
