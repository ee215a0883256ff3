//! The one listener of a node, with all services on it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::address;

/// Bytes that may come in over one connection without having been taken. Twice the largest message.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Of which one call or stream may have so many.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Calls and streams that may run over one connection at a time.
const MAX_CONCURRENT_STREAMS: u32 = 1024;

/// How often a connection is asked whether somebody is there, and how long it may take to answer: what a machine that
/// is gone had opened does not stay for ever.
const PING: Duration = Duration::from_secs(5);

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
}

impl Listener {
    /// Takes an address; with port 0, one that is free.
    ///
    /// # Errors
    ///
    /// If it is taken, or is not on this machine and plain connections may not leave it (`insecure`).
    pub async fn bind(address: &str, insecure: bool) -> Result<Self, Error> {
        address::check_plain(address, insecure)?;
        let failed = |source| Error::Listen { address: address.to_string(), source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, address })
    }

    /// The same address once more, to be served before this one is.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn twin(&self) -> io::Result<Self> {
        let twin = std::net::TcpListener::from(self.tcp.as_fd().try_clone_to_owned()?);
        Ok(Self { tcp: TcpListener::from_std(twin)?, address: self.address })
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
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING))
            .add_routes(services);
        let incoming = TcpIncoming::from(self.tcp).with_nodelay(Some(true));
        let serve = server.serve_with_incoming_shutdown(incoming, async move {
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
        }
    }
}
