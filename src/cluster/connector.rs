//! Opens connections to other nodes: how long it may take, when to try again, and how a dead one is noticed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint, Uri};

use super::address;
use super::wire::{Stream, Wire};

/// The first wait after a connection could not be opened. It doubles with every failure in a row.
const FIRST_WAIT: Duration = Duration::from_millis(5);

/// Bytes that may be on their way in one connection without having been taken. Twice the largest message.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Of which one call or stream may have so many.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// How connections are opened.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Plain or not.
    pub wire: Wire,
    /// The longest that opening a connection may take, its handshake included. Below the election timeout: who stands for election asks
    /// everybody, and a machine that is gone must not use up the time for it.
    pub connect_within: Duration,
    /// The longest wait before a connection that could not be opened is tried again. Whoever comes back is found then.
    pub longest_wait: Duration,
    /// How often the other side is asked whether it is there.
    pub ping_every: Duration,
    /// Without an answer for so long, the connection is given up and a new one opened. After a cut that heals, TCP alone
    /// would wait for as long again as the cut lasted.
    pub ping_within: Duration,
}

impl Connector {
    /// For nodes with this election timeout. Plain connections stay on this machine.
    pub fn new(election_min: Duration) -> Self {
        Self {
            wire: Wire::default(),
            connect_within: election_min * 3 / 4,
            longest_wait: election_min / 2,
            ping_every: election_min * 3,
            ping_within: election_min * 10,
        }
    }

    /// A connection to `address` that is opened when it is first used, and opened anew when it breaks.
    ///
    /// # Errors
    ///
    /// If the address is none or must not be spoken to.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, address::Error> {
        self.wire.check(address)?;
        let form = |_| address::Error::Form(address.to_string());
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(form)?;
        let endpoint = endpoint
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(self.ping_every)
            .keep_alive_timeout(self.ping_within)
            .keep_alive_while_idle(true);
        let (within, longest, wire) = (self.connect_within, self.longest_wait, self.wire.clone());
        let opening = Opening { within, longest, wire, pause: Arc::default() };
        let connect = move |uri: Uri| opening.clone().open(uri);
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
    }
}

/// Opens the connections to one address.
#[derive(Clone)]
struct Opening {
    within: Duration,
    longest: Duration,
    wire: Wire,
    pause: Arc<Mutex<Pause>>,
}

/// The wait between attempts to open a connection.
#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    wait: Duration,
    why: String,
}

impl Pause {
    /// Fails while the wait lasts.
    fn check(&self, now: Instant) -> io::Result<()> {
        let waits = |left| io::Error::other(format!("{}; not tried again for {left:?}", self.why));
        self.left(now).map_or(Ok(()), |left| Err(waits(left)))
    }

    /// What is left of the wait at `now`.
    fn left(&self, now: Instant) -> Option<Duration> {
        self.until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
    }

    fn failed(&mut self, now: Instant, why: &io::Error, longest: Duration) {
        self.wait = (self.wait * 2).clamp(FIRST_WAIT.min(longest), longest);
        self.until = Some(now + self.wait);
        self.why = why.to_string();
    }
}

type Connected = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

impl Opening {
    fn open(self, uri: Uri) -> Connected {
        Box::pin(async move {
            self.pause().check(Instant::now())?;
            let opened = self.attempt(&uri).await;
            match &opened {
                Ok(_) => *self.pause() = Pause::default(),
                Err(e) => self.pause().failed(Instant::now(), e, self.longest),
            }
            opened
        })
    }

    async fn attempt(&self, uri: &Uri) -> io::Result<TokioIo<Stream>> {
        let address = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {:?}", self.within));
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            self.wire.connect(stream, address).await
        };
        Ok(TokioIo::new(timeout(self.within, connect).await.map_err(late)??))
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_end() {
        let (mut pause, now, longest) = (Pause::default(), Instant::now(), Duration::from_millis(50));
        assert_eq!(pause.left(now), None);
        for wait in [5, 10, 20, 40, 50, 50] {
            pause.failed(now, &io::Error::other("gone"), longest);
            assert_eq!(pause.left(now), Some(Duration::from_millis(wait)));
            assert_eq!(pause.left(now + Duration::from_millis(wait)), None);
        }
        pause = Pause::default();
        pause.failed(now, &io::Error::other("gone"), Duration::from_millis(1));
        assert_eq!(pause.left(now), Some(Duration::from_millis(1)));
    }
}
