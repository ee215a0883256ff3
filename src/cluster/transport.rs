//! The replicated log's network over gRPC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use gristmill_proto::internal::v1::Frame;
use gristmill_proto::internal::v1::peer_client::PeerClient;
use gristmill_raft::net::{BoxStream, Error, MAX_MESSAGE_BYTES, Net, Peer};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::Request;
use tonic::transport::Channel;

use super::address;
use super::answer;
use super::channels::{Channels, Lane};

/// The most bytes of one frame on the wire: its content, with the number and length of its one field.
pub(crate) const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES + 16;

/// The slowest that another node may be in storing and taking over what was streamed to it, in bytes a second. That it
/// lives, the connection's pings show.
const SLOWEST_BYTES_A_SECOND: u64 = 4 << 20;

/// Reaches other nodes over gRPC.
#[derive(Clone)]
pub struct Transport {
    channels: Channels,
}

impl Transport {
    /// A network over these connections.
    pub fn new(channels: Channels) -> Self {
        Self { channels }
    }

    fn client(&self, to: &Peer, lane: Lane) -> Result<PeerClient<Channel>, Error> {
        let refused = |e: address::Error| Error::NotSent(e.to_string());
        let channel = self.channels.to(&to.address, lane).map_err(refused)?;
        let client = PeerClient::new(channel);
        Ok(client.max_decoding_message_size(MAX_FRAME_BYTES).max_encoding_message_size(MAX_FRAME_BYTES))
    }
}

/// Chunks as frames, with a note of each that is taken. A type with a name, because the compiler loses its way otherwise.
struct Frames {
    chunks: BoxStream<'static, Bytes>,
    taken: mpsc::Sender<()>,
    bytes: Arc<AtomicU64>,
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let chunk = ready!(self.chunks.as_mut().poll_next(context));
        Poll::Ready(chunk.map(|content| {
            self.bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
            // One note that is not read yet says as much as two.
            let _ = self.taken.try_send(());
            Frame { content }
        }))
    }
}

impl Net for Transport {
    fn call(
        &self,
        to: &Peer,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + 'static + use<> {
        let client = self.client(to, Lane::Calls);
        async move {
            let mut client = client?;
            if request.len() > MAX_MESSAGE_BYTES {
                return Err(Error::NotSent(format!("a message of {} bytes", request.len())));
            }
            let request = answer::request(Frame { content: request }, within);
            Ok(answer::within(within, client.call(request)).await?.content)
        }
    }

    fn stream(
        &self,
        to: &Peer,
        chunks: BoxStream<'static, Bytes>,
        stall: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + 'static + use<> {
        let client = self.client(to, Lane::Bulk);
        async move {
            let mut client = client?;
            let (taken, mut notes) = mpsc::channel(1);
            let bytes = Arc::new(AtomicU64::new(0));
            let answer = client.stream(Request::new(Frames { chunks, taken, bytes: bytes.clone() }));
            tokio::pin!(answer);
            loop {
                tokio::select! {
                    answer = &mut answer => {
                        return answer.map(|frame| frame.into_inner().content).map_err(|status| answer::outcome(&status));
                    }
                    note = timeout(stall, notes.recv()) => match note {
                        Ok(Some(())) => {}
                        // The stream is at its end: what is left is the answer.
                        Ok(None) => break,
                        Err(_) => return Err(Error::Unknown(format!("no chunk was taken within {stall:?}"))),
                    },
                }
            }
            let sent = bytes.load(Ordering::Relaxed);
            answer::within(stall + Duration::from_secs(1 + sent / SLOWEST_BYTES_A_SECOND), answer)
                .await
                .map(|frame| frame.content)
        }
    }
}
