//! The world of masters and workers in production: Tokio, gRPC, the shared store, scratch in a folder, rayon.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gristmill_engine::exec::{Exec, Threads};
use gristmill_engine::node::env::{Apps, Env, Note};
use gristmill_engine::node::master::MasterEnv;
use gristmill_engine::node::rpc::{CallError, MAX_MESSAGE_BYTES, Method, Net};
use gristmill_engine::scratch::Scratch;
use gristmill_raft::net::{BoxStream, Error};
use gristmill_raft::tokio::TokioRuntime;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use super::Production;
use super::answer;
use super::channels::{Channels, Lane};
use super::raw::Raw;
use super::store::Shared;

/// How far threads that hash passwords step back: what nodes owe each other goes first.
const PATIENT: i32 = 10;

/// What a node sees.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    net: Grpcs,
    store: Shared,
    scratch: Arc<dyn Scratch>,
    apps: Apps,
    /// Threads for one task.
    threads: usize,
    /// Pools that no task uses.
    pools: Mutex<Vec<Threads>>,
    notes: Box<dyn Fn(Note) + Send + Sync>,
}

impl World {
    /// A node's world. `threads` is how many of them one task gets.
    pub fn new(
        channels: Channels,
        store: Shared,
        scratch: Arc<dyn Scratch>,
        apps: Apps,
        threads: usize,
        notes: impl Fn(Note) + Send + Sync + 'static,
    ) -> Self {
        let pools = Mutex::default();
        Self(Arc::new(Inner { net: Grpcs(channels), store, scratch, apps, threads, pools, notes: Box::new(notes) }))
    }
}

impl Inner {
    fn pool(&self) -> std::io::Result<Threads> {
        let kept = self.pools.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| Threads::new(self.threads), Ok)
    }
}

impl Env for World {
    type Rt = TokioRuntime;
    type Net = Grpcs;
    type Store = Shared;

    fn net(&self) -> &Grpcs {
        &self.0.net
    }

    fn store(&self) -> &Shared {
        &self.0.store
    }

    fn scratch(&self) -> &Arc<dyn Scratch> {
        &self.0.scratch
    }

    fn apps(&self) -> &Apps {
        &self.0.apps
    }

    fn offload<T: Send + 'static>(
        &self,
        _: u64,
        work: impl FnOnce(&dyn Exec) -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            let pool = inner.pool().ok()?;
            let done = work(&pool);
            inner.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
            Some(done)
        });
        async move { done.await.ok().flatten() }
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        let done = tokio::task::spawn_blocking(work);
        async move { done.await.ok() }
    }

    fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        let (send, done) = tokio::sync::oneshot::channel();
        // A thread of its own, because it steps back behind all others and could not come forward again. If it does not
        // begin, nothing is sent.
        let _ = std::thread::Builder::new().name("password".into()).spawn(move || {
            let _ = rustix::process::nice(PATIENT);
            let _ = send.send(work());
        });
        async move { done.await.ok() }
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        #[cfg(feature = "failpoints")]
        let now_ms = now_ms.saturating_add(super::failpoint::ahead_ms());
        now_ms
    }

    fn note(&self, note: Note) {
        (self.0.notes)(note);
    }

    #[cfg(feature = "failpoints")]
    fn level(&self) -> u32 {
        super::failpoint::level()
    }

    #[cfg(feature = "failpoints")]
    fn reached(&self, point: gristmill_engine::node::point::Point) {
        super::failpoint::reached(point);
    }
}

impl MasterEnv for World {
    type Log = Production;
}

/// Other nodes over gRPC.
#[derive(Clone)]
pub struct Grpcs(Channels);

impl Grpcs {
    fn client(&self, to: &str, lane: Lane) -> Result<Grpc<tonic::transport::Channel>, CallError> {
        let channel = self.0.to(to, lane).map_err(|e| CallError::NotSent(e.to_string()))?;
        let most = MAX_MESSAGE_BYTES + 1024;
        Ok(Grpc::new(channel).max_decoding_message_size(most).max_encoding_message_size(most))
    }
}

/// What a status says about a call.
fn failed(status: &Status) -> CallError {
    if let Some(leader) = answer::elsewhere(status) {
        return CallError::NotLeader { leader };
    }
    match answer::outcome(status) {
        Error::NotSent(why) => CallError::NotSent(why),
        Error::Unknown(why) => CallError::Unknown(why),
        Error::Refused(why) => CallError::Refused(why),
    }
}

async fn ready(client: &mut Grpc<tonic::transport::Channel>) -> Result<(), CallError> {
    client.ready().await.map_err(|e| CallError::NotSent(e.to_string()))
}

impl Net for Grpcs {
    fn call(
        &self,
        to: &str,
        method: Method,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<> {
        let client = self.client(to, Lane::Calls);
        async move {
            let mut client = client?;
            let call = async {
                ready(&mut client).await?;
                let path = PathAndQuery::from_static(method.path());
                let answer = client.unary(answer::request(request, within), path, Raw).await;
                answer.map(tonic::Response::into_inner).map_err(|status| failed(&status))
            };
            let late = |_| CallError::Unknown(format!("nothing within {within:?}"));
            timeout(within, call).await.map_err(late)?
        }
    }

    fn fetch(
        &self,
        to: &str,
        method: Method,
        request: Bytes,
        stall: Duration,
    ) -> BoxStream<'static, Result<Bytes, CallError>> {
        let client = self.client(to, Lane::Bulk);
        let begin = async move {
            let mut client = client?;
            ready(&mut client).await?;
            let path = PathAndQuery::from_static(method.path());
            let answers = client.server_streaming(Request::new(request), path, Raw).await;
            answers.map(tonic::Response::into_inner).map_err(|status| failed(&status))
        };
        let late = move || CallError::Unknown(format!("nothing within {stall:?}"));
        let begun = async move { timeout(stall, begin).await.map_err(|_| late())? };
        Box::pin(async_stream(begun, stall))
    }
}

/// The items of a stream that is yet to begin; ends with the first error.
fn async_stream(
    begun: impl Future<Output = Result<tonic::Streaming<Bytes>, CallError>> + Send + 'static,
    stall: Duration,
) -> impl tokio_stream::Stream<Item = Result<Bytes, CallError>> + Send + 'static {
    let (send, receive) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        let mut answers = match begun.await {
            Ok(answers) => answers,
            Err(e) => {
                let _ = send.send(Err(e)).await;
                return;
            }
        };
        loop {
            let next = match timeout(stall, answers.next()).await {
                Ok(None) => return,
                Ok(Some(answer)) => answer.map_err(|status| failed(&status)),
                Err(_) => Err(CallError::Unknown(format!("nothing within {stall:?}"))),
            };
            let over = next.is_err();
            // Nobody who listens any more needs more.
            if send.send(next).await.is_err() || over {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receive)
}
