//! The one listener of a node, with all services on it, and what it bears of those who connect.
//!
//! `bounds` has the numbers. `connection` serves one connection over `stream`, `head` refuses requests by their heads,
//! `files` says how many connections there may be, `report` tells of those that were closed. What is asked by those that
//! are let in is the services' business.

mod bounds;
mod connection;
mod files;
mod head;
mod report;
mod stream;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::service::Routes;

use super::address;
use super::wire::Wire;
pub(super) use bounds::{Bounds, bounds};
use connection::Door;
use report::{Report, Tell};

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
}

/// An address that is taken, and not yet served.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    wire: Wire,
    tell: Tell,
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
        Ok(Self { tcp, address, wire, tell: Tell::nobody() })
    }

    /// `tell` hears, in a line at a time and not often, how many connections were closed and why.
    #[must_use]
    pub fn telling(mut self, tell: impl Fn(String) + Send + Sync + 'static) -> Self {
        self.tell = Tell(Arc::new(tell));
        self
    }

    /// The same address once more, to be served before this one is.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn twin(&self) -> io::Result<Self> {
        let twin = std::net::TcpListener::from(self.tcp.as_fd().try_clone_to_owned()?);
        let (wire, tell) = (self.wire.clone(), self.tell.clone());
        Ok(Self { tcp: TcpListener::from_std(twin)?, address: self.address, wire, tell })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done, then finishes what was begun, for a moment.
    pub async fn serve(self, services: Routes, stop: impl Future<Output = ()>) {
        self.serve_within(bounds(), services, stop).await;
    }

    async fn serve_within(self, bounds: &'static Bounds, services: Routes, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let door = Door { wire: self.wire, routes: services.prepare(), bounds, stopped };
        let most = files::connections(bounds.connections);
        let mut report = Report::new(self.address, most, Instant::now());
        let (mut open, mut stop) = (JoinSet::new(), pin!(stop));
        loop {
            let due = report.due();
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = open.join_next() => ended.into_iter().for_each(|how| report.ended(how)),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    (self.tell.0)(report.line(Instant::now()));
                }
                taken = self.tcp.accept() => match taken {
                    Ok(_) if open.len() >= most => report.beyond(),
                    Ok((tcp, _)) => drop(open.spawn(connection::serve(door.clone(), tcp))),
                    // Who hung up is no matter; that there are no more files may pass.
                    Err(_) => sleep(PAUSE).await,
                }
            }
        }
        drop(self.tcp);
        stopping.send_replace(true);
        let ended = async { while open.join_next().await.is_some() {} };
        // Those that are left end with this.
        let _ = timeout(GRACE, ended).await;
    }
}
