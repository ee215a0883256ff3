//! A connection as HTTP reads it: first what was read to see which version it is, then the rest; of one of HTTP/1 with an
//! eye on how long the head of a request takes.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::wire::Stream;

/// What a connection of HTTP/2 begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads the first bytes: the preface, or what tells that it is none.
///
/// # Errors
/// Those of the connection; that it ended before.
pub(super) async fn begun(stream: &mut Stream) -> io::Result<Bytes> {
    let mut bytes = [0; PREFACE.len()];
    let mut into = ReadBuf::new(&mut bytes);
    loop {
        let had = into.filled().len();
        poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut into)).await?;
        let got = into.filled();
        if got.len() == had {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if got.len() == PREFACE.len() || !PREFACE.starts_with(got) {
            return Ok(Bytes::copy_from_slice(got));
        }
    }
}

/// Whose turn it is on a connection of HTTP/1: even while a request is awaited, odd while one is answered.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU64);

impl Turn {
    /// A request's head has come. It is answered for as long as the guard lives.
    pub(super) fn answers(self: &Arc<Self>) -> Answers {
        self.0.fetch_add(1, Relaxed);
        Answers(self.clone())
    }

    /// The number of the request that is awaited.
    fn awaited(&self) -> Option<u64> {
        let turn = self.0.load(Relaxed);
        turn.is_multiple_of(2).then_some(turn)
    }
}

/// A request is answered.
#[derive(Debug)]
pub(super) struct Answers(Arc<Turn>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Relaxed);
    }
}

/// Until when the head of a request has to be there.
#[derive(Debug)]
pub(super) struct Watch {
    turn: Arc<Turn>,
    within: Duration,
    /// Which one, and its end.
    late: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Watch {
    /// The first head has until `first`, each later one `within` from its first byte.
    pub(super) fn new(turn: Arc<Turn>, first: Instant, within: Duration) -> Self {
        Self { turn, within, late: Some((0, Box::pin(sleep_until(first)))) }
    }

    /// Whether the time is over. `came`: something was read just now.
    fn is_over(&mut self, cx: &mut Context<'_>, came: bool) -> bool {
        let awaited = self.turn.awaited();
        self.late.take_if(|(which, _)| Some(*which) != awaited);
        let Some(which) = awaited else { return false };
        if came && self.late.is_none() {
            self.late = Some((which, Box::pin(sleep_until(Instant::now() + self.within))));
        }
        self.late.as_mut().is_some_and(|(_, late)| late.as_mut().poll(cx).is_ready())
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Begun {
    /// What of it was read already.
    begun: Bytes,
    stream: Stream,
    watch: Option<Watch>,
}

impl Begun {
    pub(super) fn new(begun: Bytes, stream: Stream, watch: Option<Watch>) -> Self {
        Self { begun, stream, watch }
    }
}

impl AsyncRead for Begun {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let had = into.filled().len();
        let read = if me.begun.is_empty() {
            Pin::new(&mut me.stream).poll_read(cx, into)
        } else {
            let n = me.begun.len().min(into.remaining());
            into.put_slice(&me.begun[..n]);
            me.begun.advance(n);
            Poll::Ready(Ok(()))
        };
        let came = into.filled().len() > had;
        if me.watch.as_mut().is_some_and(|watch| watch.is_over(cx, came)) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        ready!(read)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
