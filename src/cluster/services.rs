//! The services of masters and workers on the node's listener. Each decodes nothing and decides nothing: it maps statuses,
//! gives deadlines, and passes on to the leader what only that one can answer.

mod told;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::node::master::{ApiError, Code as Kind, MasterNode};
use gristmill_engine::node::rpc::CallError;
use gristmill_engine::node::worker::Worker;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::segments_server::{Segments, SegmentsServer};
use gristmill_proto::internal::v1::workers_server::{Workers, WorkersServer};
use gristmill_proto::prost::Message as _;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::cluster_client::ClusterClient;
use gristmill_proto::v1::cluster_server::{Cluster, ClusterServer};
use gristmill_proto::v1::jobs_client::JobsClient;
use gristmill_proto::v1::jobs_server::{Jobs, JobsServer};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::answer;
use super::channels::{Channels, Lane};
use super::data;
use super::store::Shared;
use super::world::World;

/// How often at most a watched job is told of.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// How long a watched job may be told of nothing new.
const WATCH_AT_LEAST: Duration = Duration::from_secs(2);
/// How long a call may take that was passed on.
const PASSED_ON: Duration = Duration::from_secs(30);
/// Until there are users, everybody is this one.
const EVERYBODY: &str = "anonymous";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn of_call(e: CallError) -> Status {
    match e {
        CallError::NotLeader { leader } => answer::not_leader(leader.as_deref()),
        CallError::Refused(why) => Status::failed_precondition(why),
        CallError::NotSent(why) => Status::unavailable(why),
        CallError::Unknown(why) => Status::unknown(why),
    }
}

fn of_api(e: ApiError) -> Status {
    let ApiError::Refused { code, .. } = &e else {
        let ApiError::NotLeader { leader } = e else { return Status::internal(e.to_string()) };
        return answer::not_leader(leader.as_deref());
    };
    let code = match code {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::AlreadyExists,
        Kind::Limit => Code::ResourceExhausted,
        Kind::State => Code::FailedPrecondition,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unknown => Code::Unknown,
    };
    Status::new(code, e.to_string())
}

/// What a master offers.
#[derive(Clone)]
pub struct Master {
    node: MasterNode<World>,
    channels: Channels,
    store: Shared,
}

impl Master {
    /// Services around a node; `channels` reach the others, `store` has results.
    pub fn new(node: MasterNode<World>, channels: Channels, store: Shared) -> Self {
        Self { node, channels, store }
    }

    /// All of them.
    pub fn services(&self) -> (WorkersServer<Self>, JobsServer<Self>, ClusterServer<Self>) {
        (WorkersServer::new(self.clone()), JobsServer::new(self.clone()), ClusterServer::new(self.clone()))
    }

    /// The answer of this node, or of the leader if this is not the one.
    async fn here_or<T, F>(
        &self,
        here: impl Future<Output = Result<T, ApiError>>,
        there: impl FnOnce(Channel) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let leader = match here.await {
            Ok(answer) => return Ok(Response::new(answer)),
            Err(ApiError::NotLeader { leader: Some(leader) }) => leader,
            Err(e) => return Err(of_api(e)),
        };
        let channel = self.channels.to(&leader, Lane::Calls).map_err(|e| Status::internal(e.to_string()))?;
        let late = |_| Status::deadline_exceeded(format!("the leader at {leader} did not answer"));
        tokio::time::timeout(PASSED_ON, there(channel)).await.map_err(late)?
    }
}

#[tonic::async_trait]
impl Workers for Master {
    async fn register(&self, request: Request<wire::Register>) -> Result<Response<wire::Registered>, Status> {
        self.node.register(request.into_inner()).await.map(Response::new).map_err(of_call)
    }

    async fn poll(&self, request: Request<wire::Poll>) -> Result<Response<wire::PollAnswer>, Status> {
        self.node.poll(request.into_inner()).await.map(Response::new).map_err(of_call)
    }
}

#[tonic::async_trait]
impl Jobs for Master {
    type WatchStream = Answers<api::JobStatus>;
    type ResultStream = Answers<api::Chunk>;
    type LogsStream = Answers<api::LogLine>;
    type HistoryStream = Answers<api::JobEvent>;

    async fn submit(&self, request: Request<api::SubmitRequest>) -> Result<Response<api::SubmitResponse>, Status> {
        let request = request.into_inner();
        let here = self.node.submit(EVERYBODY, request.clone());
        self.here_or(here, |to| async move { JobsClient::new(to).submit(request).await }).await
    }

    async fn get(&self, request: Request<api::GetJobRequest>) -> Result<Response<api::JobStatus>, Status> {
        let request = request.into_inner();
        let job = request.job.clone();
        self.here_or(self.node.job(&job), |to| async move { JobsClient::new(to).get(request).await }).await
    }

    async fn list(&self, request: Request<api::ListJobsRequest>) -> Result<Response<api::ListJobsResponse>, Status> {
        let request = request.into_inner();
        let here = request.clone();
        self.here_or(self.node.jobs(&here), |to| async move { JobsClient::new(to).list(request).await }).await
    }

    async fn watch(&self, request: Request<api::WatchJobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let job = request.into_inner().job;
        let (send, receive) = tokio::sync::mpsc::channel(2);
        let master = self.clone();
        tokio::spawn(async move {
            let mut told: Option<api::JobStatus> = None;
            loop {
                let request = Request::new(api::GetJobRequest { job: job.clone() });
                let now = match master.get(request).await {
                    Ok(now) => now.into_inner(),
                    Err(status) => {
                        let _ = send.send(Err(status)).await;
                        return;
                    }
                };
                let over = now.state() >= api::JobState::Completed;
                if told.as_ref() != Some(&now) {
                    told = Some(now.clone());
                    if send.send(Ok(now)).await.is_err() {
                        return;
                    }
                }
                if over || send.is_closed() {
                    return;
                }
                let change = master.node.changed(WATCH_AT_LEAST);
                tokio::join!(change, tokio::time::sleep(WATCH_EVERY));
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }

    async fn cancel(&self, request: Request<api::CancelJobRequest>) -> Result<Response<api::JobStatus>, Status> {
        let request = request.into_inner();
        let job = request.job.clone();
        let here = self.node.cancel(EVERYBODY, &job, request.reason.clone());
        self.here_or(here, |to| async move { JobsClient::new(to).cancel(request).await }).await
    }

    async fn retry(&self, request: Request<api::RetryJobRequest>) -> Result<Response<api::SubmitResponse>, Status> {
        let request = request.into_inner();
        let (job, key) = (request.job.clone(), request.key.clone());
        let here = self.node.retry(EVERYBODY, &job, key);
        self.here_or(here, |to| async move { JobsClient::new(to).retry(request).await }).await
    }

    async fn result(&self, request: Request<api::ResultRequest>) -> Result<Response<Self::ResultStream>, Status> {
        let api::ResultRequest { job, part } = request.into_inner();
        let job = self.get(Request::new(api::GetJobRequest { job })).await?.into_inner();
        data::result(self.store.clone(), &job, part).await.map(Response::new)
    }

    async fn logs(&self, request: Request<api::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        self.task_logs(request.into_inner()).await
    }

    async fn history(&self, request: Request<api::HistoryRequest>) -> Result<Response<Self::HistoryStream>, Status> {
        self.events(request.into_inner()).await
    }
}

#[tonic::async_trait]
impl Cluster for Master {
    async fn status(&self, request: Request<api::StatusRequest>) -> Result<Response<api::ClusterStatus>, Status> {
        let request = request.into_inner();
        self.here_or(self.node.status(), |to| async move { ClusterClient::new(to).status(request).await }).await
    }

    async fn workers(&self, request: Request<api::WorkersRequest>) -> Result<Response<api::WorkersResponse>, Status> {
        let request = request.into_inner();
        self.here_or(self.node.workers(), |to| async move { ClusterClient::new(to).workers(request).await }).await
    }

    async fn drain(&self, request: Request<api::DrainRequest>) -> Result<Response<api::DrainResponse>, Status> {
        let request = request.into_inner();
        let name = request.worker.clone();
        let here = async { self.node.drain(EVERYBODY, &name).await.map(|()| api::DrainResponse {}) };
        self.here_or(here, |to| async move { ClusterClient::new(to).drain(request).await }).await
    }

    async fn apps(&self, _: Request<api::AppsRequest>) -> Result<Response<api::AppsResponse>, Status> {
        let workers = self.workers(Request::new(api::WorkersRequest {})).await?.into_inner().workers;
        let mut count = std::collections::BTreeMap::<String, u32>::new();
        workers.into_iter().flat_map(|w| w.apps).for_each(|app| *count.entry(app).or_default() += 1);
        let app = |(name, workers)| api::AppInfo { name, workers, digests: Vec::new() };
        Ok(Response::new(api::AppsResponse { apps: count.into_iter().map(app).collect() }))
    }
}

/// What a worker offers.
pub struct Shelf(pub Worker<World>);

impl Shelf {
    /// The service.
    pub fn service(self) -> SegmentsServer<Self> {
        SegmentsServer::new(self)
    }
}

#[tonic::async_trait]
impl Segments for Shelf {
    type FetchStream = Answers<wire::SegmentPiece>;

    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let pieces = self.0.fetch(Bytes::from(request.into_inner().encode_to_vec()));
        let decoded = pieces.map(|piece| {
            let piece = piece.map_err(of_call)?;
            wire::SegmentPiece::decode(piece).map_err(|e| Status::internal(e.to_string()))
        });
        Ok(Response::new(Box::pin(decoded)))
    }
}
