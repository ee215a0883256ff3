//! One connection from its opening to its end: the handshake, which version of HTTP it speaks, and its requests.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::Connected as _;
use tower::ServiceExt as _;

use super::super::http;
use super::super::wire::{Shown, Stream, Wire};
use super::bounds::{
    BROKEN_STREAMS, BUFFER_BYTES, Bounds, CONNECTION_WINDOW_BYTES, FRAME_BYTES, HEAD_BYTES, RESET_STREAMS,
    STREAM_WINDOW_BYTES, STREAMS,
};
use super::head;
use super::stream::{Answers, Begun, PREFACE, Turn, Watch, begun};

/// How often a connection of HTTP/2 is asked whether somebody is there, and how long it may take to answer: what a machine
/// that is gone had opened does not stay for ever, nor one that sends a frame byte by byte.
const PING: Duration = Duration::from_secs(5);

/// How a connection ended, as far as that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody was done with it, or went.
    Fine,
    /// No whole request came in time.
    Silent,
    /// What came is no HTTP.
    Malformed,
}

/// What all connections have.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) wire: Wire,
    pub(super) routes: Routes,
    pub(super) bounds: &'static Bounds,
    /// True at the end: what was begun is finished, and no more.
    pub(super) stopped: watch::Receiver<bool>,
}

/// Serves one connection to its end.
pub(super) async fn serve(mut door: Door, tcp: TcpStream) -> End {
    // Without it calls are slower, no more.
    let _ = tcp.set_nodelay(true);
    let first = Instant::now() + door.bounds.head;
    let wire = door.wire.clone();
    let opening = async {
        let mut stream = wire.accept(tcp).await?;
        let begun = begun(&mut stream).await?;
        io::Result::Ok((begun, stream))
    };
    let opened = tokio::select! {
        opened = timeout_at(first, opening) => opened,
        _ = door.stopped.wait_for(|stopped| *stopped) => return End::Fine,
    };
    match opened {
        Err(_) => End::Silent,
        Ok(Err(_)) => End::Fine,
        Ok(Ok((begun, stream))) if begun == PREFACE => two(door, begun, stream).await,
        Ok(Ok((begun, stream))) => one(door, begun, stream, first).await,
    }
}

/// HTTP/1.
async fn one(door: Door, begun: Bytes, stream: Stream, first: Instant) -> End {
    let (shown, turn, routes) = (stream.connect_info(), Arc::new(Turn::default()), door.routes);
    let stream = Begun::new(begun, stream, Some(Watch::new(turn.clone(), first, door.bounds.head)));
    let service = service_fn(move |request| answered(routes.clone(), shown, Some(turn.answers()), request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(door.bounds.idle)
        .max_header_size(HEAD_BYTES as usize)
        .max_buf_size(BUFFER_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let ended = until(connection, http1::Connection::graceful_shutdown, door.stopped).await;
    match ended {
        Err(e) if e.is_parse() => End::Malformed,
        Err(e) if is_late(&e) => End::Silent,
        _ => End::Fine,
    }
}

/// HTTP/2.
async fn two(door: Door, begun: Bytes, stream: Stream) -> End {
    let (shown, routes) = (stream.connect_info(), door.routes);
    let service = service_fn(move |request| answered(routes.clone(), shown, None, request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEAD_BYTES)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(BROKEN_STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let connection = builder.serve_connection(TokioIo::new(Begun::new(begun, stream, None)), service);
    // Whether the other end broke the protocol or the connection did is not told apart.
    let _ = until(connection, http2::Connection::graceful_shutdown, door.stopped).await;
    End::Fine
}

/// Lets a connection go on until it ends; once `stopped`, with no further request.
async fn until<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    mut stopped: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    finish(connection.as_mut());
    connection.await
}

/// Whether it was the head of a request that took too long.
fn is_late(e: &hyper::Error) -> bool {
    e.source().and_then(|e| e.downcast_ref::<io::Error>()).is_some_and(|e| e.kind() == ErrorKind::TimedOut)
}

/// One request.
async fn answered(
    routes: Routes,
    shown: Shown,
    answers: Option<Answers>,
    mut request: Request<Incoming>,
) -> Result<Response<Answered>, Infallible> {
    let closes = answers.is_some();
    let of = |body| Answered { body, _answers: answers };
    if let Err(status) = head::check(&request) {
        let mut refusal = http::refusal(&status).map(Body::new);
        if closes {
            // What follows was perhaps meant to belong to this one.
            refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return Ok(refusal.map(of));
    }
    request.extensions_mut().insert(shown);
    let within = head::deadline(request.headers());
    let answer = routes.oneshot(request);
    let Some(within) = within else { return Ok(answer.await?.map(of)) };
    match timeout(within, answer).await {
        Ok(answer) => Ok(answer?.map(of)),
        Err(_) => Ok(Status::cancelled("Timeout expired").into_http::<Body>().map(of)),
    }
}

/// The body of an answer. Once that is gone, a further request is awaited.
struct Answered {
    body: Body,
    _answers: Option<Answers>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
