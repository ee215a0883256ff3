//! The service by which other nodes reach this one's replicated log.

use std::sync::Arc;
use std::time::Duration;

use gristmill_proto::internal::v1::Frame;
use gristmill_proto::internal::v1::peer_server::{Peer, PeerServer};
use gristmill_raft::net::Service;
use tokio_stream::StreamExt as _;
use tokio_stream::adapters::Fuse;
use tonic::{Request, Response, Status, Streaming};

use super::answer;
use super::transport::MAX_FRAME_BYTES;

/// A stream that brings nothing for so long has ended: whoever sends it may be frozen, and others wait for the turn.
const SILENCE: Duration = Duration::from_secs(10);

/// The replicated log as a gRPC service.
pub struct Peers {
    node: Arc<dyn Service>,
}

/// The service around a node.
pub fn service(node: impl Service) -> PeerServer<Peers> {
    let service = PeerServer::new(Peers { node: Arc::new(node) });
    service.max_decoding_message_size(MAX_FRAME_BYTES).max_encoding_message_size(MAX_FRAME_BYTES)
}

#[tonic::async_trait]
impl Peer for Peers {
    async fn call(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let answer = self.node.handle(request.into_inner().content).await;
        answer.map(|content| Response::new(Frame { content })).map_err(answer::status)
    }

    async fn stream(&self, request: Request<Streaming<Frame>>) -> Result<Response<Frame>, Status> {
        // A stream that breaks off ends; that it is not whole, the node sees.
        let frames: Fuse<Streaming<Frame>> = request.into_inner().fuse();
        let chunks = frames.timeout(SILENCE).map_while(|frame| Some(frame.ok()?.ok()?.content));
        let answer = self.node.receive(Box::pin(chunks)).await;
        answer.map(|content| Response::new(Frame { content })).map_err(answer::status)
    }
}
