//! What one node bears of those who connect to it. Kept in one place, since they only mean something together.

use std::sync::LazyLock;
use std::time::Duration;

/// Most bytes of a request's head.
pub(super) const HEAD_BYTES: u32 = 16 << 10;
/// Most headers of a request.
pub(super) const HEADERS: usize = 100;
/// Most bytes of the one that says who asks.
pub(super) const CREDENTIALS_BYTES: usize = 8 << 10;
/// Bytes that may come in over one connection without having been taken. Twice the largest message.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Of which one call or stream may have so many.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Most bytes of a frame of HTTP/2; one that is larger ends the connection.
pub(super) const FRAME_BYTES: u32 = 16 << 10;
/// Calls and streams that may run over one connection at a time.
pub(super) const STREAMS: u32 = 1024;
/// Those that the other end has given up again before they were looked at; with one more the connection ends.
pub(super) const RESET_STREAMS: usize = 20;
/// As above, of those that this end gave up because they broke the protocol.
pub(super) const BROKEN_STREAMS: usize = 256;
/// Bytes of a connection of HTTP/1 that are read ahead or wait to be written.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

/// What tests make smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) struct Bounds {
    /// Connections that are open at a time.
    pub connections: usize,
    /// The head of a request: of the first one counted from the connection's opening, of each later one from its first byte.
    pub head: Duration,
    /// Between two requests of a connection of HTTP/1.
    pub idle: Duration,
    /// The whole body of a request that is JSON.
    pub body: Duration,
    /// The next piece of a file that comes in.
    pub silence: Duration,
}

impl Bounds {
    /// Those of every release.
    pub(in crate::cluster) const RELEASED: Self = Self {
        connections: 16_384,
        head: Duration::from_secs(15),
        idle: Duration::from_secs(75),
        body: Duration::from_secs(30),
        silence: Duration::from_secs(60),
    };
}

/// Those of this process.
pub(in crate::cluster) fn bounds() -> &'static Bounds {
    static BOUNDS: LazyLock<Bounds> = LazyLock::new(|| {
        #[cfg(feature = "failpoints")]
        return super::super::failpoint::bounds();
        #[cfg(not(feature = "failpoints"))]
        Bounds::RELEASED
    });
    &BOUNDS
}
