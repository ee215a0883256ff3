//! The one listener of a node, with all services on it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use super::address;
use super::wire::{Stream, Wire};

/// Bytes that may come in over one connection without having been taken. Twice the largest message.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Of which one call or stream may have so many.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Calls and streams that may run over one connection at a time.
const MAX_CONCURRENT_STREAMS: u32 = 1024;

/// How often a connection is asked whether somebody is there, and how long it may take to answer: what a machine that
/// is gone had opened does not stay for ever.
const PING: Duration = Duration::from_secs(5);

/// Handshakes at a time; who comes then waits.
const MAX_HANDSHAKES: usize = 256;

/// How long one may take: who is silent holds its place no longer.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// After a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(50);

/// How long answers on their way are waited for at the end.
const GRACE: Duration = Duration::from_secs(2);

/// Why nothing can be served at an address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is none, or must not be spoken at.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The system refuses.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Serving ended.
    #[error("cannot serve at {address}")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// An address that is taken, and not yet served.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    wire: Wire,
}

impl Listener {
    /// Takes an address; with port 0, one that is free.
    ///
    /// # Errors
    ///
    /// If it is taken, or is not on this machine and plain connections may not leave it.
    pub async fn bind(address: &str, wire: Wire) -> Result<Self, Error> {
        wire.check(address)?;
        let failed = |source| Error::Listen { address: address.to_string(), source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, address, wire })
    }

    /// The same address once more, to be served before this one is.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn twin(&self) -> io::Result<Self> {
        let twin = std::net::TcpListener::from(self.tcp.as_fd().try_clone_to_owned()?);
        Ok(Self { tcp: TcpListener::from_std(twin)?, address: self.address, wire: self.wire.clone() })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done, then finishes what was begun, for a moment.
    ///
    /// # Errors
    ///
    /// If the connections can not be served.
    pub async fn serve(self, services: Routes, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let address = self.address;
        let (stopping, mut stopped) = watch::channel(false);
        let mut grace = stopped.clone();
        let server = Server::builder()
            .accept_http1(true)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING))
            .add_routes(services);
        let (taken, incoming) = mpsc::channel(1);
        let taking = take(self.tcp, self.wire, taken);
        let serve = server.serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move {
            // The sender lives as long as this is awaited.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        let stop = async {
            stop.await;
            stopping.send_replace(true);
            std::future::pending::<()>().await;
        };
        let late = async {
            let _ = grace.wait_for(|stop| *stop).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = serve => served.map_err(|source| Error::Serve { address, source }),
            () = stop => Ok(()),
            () = late => Ok(()),
            () = taking => Ok(()),
        }
    }
}

/// Takes connections, and hands those on with whom hands were shaken.
async fn take(tcp: TcpListener, wire: Wire, taken: mpsc::Sender<io::Result<Stream>>) {
    let turns = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        let stream = match tcp.accept().await {
            Ok((stream, _)) => stream,
            // Who hung up is no matter; that there are no more files may pass.
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (wire, taken) = (wire.clone(), taken.clone());
        tokio::spawn(async move {
            let _turn = turn;
            // Without it calls are slower, no more.
            let _ = stream.set_nodelay(true);
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_WITHIN, wire.accept(stream)).await {
                // Nobody serves any more at the end.
                let _ = taken.send(Ok(stream)).await;
            }
        });
    }
}
