//! The services of masters and workers on the node's listener. Each decodes nothing and decides nothing: it maps statuses,
//! gives deadlines, and passes on to the leader what only that one can answer.

mod access;
mod pools;
mod told;
mod users;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::control::rights::{Principal, Right};
use gristmill_engine::node::master::{ApiError, Code as Kind, MasterNode};
use gristmill_engine::node::rpc::CallError;
use gristmill_engine::node::worker::Worker;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::segments_server::{Segments, SegmentsServer};
use gristmill_proto::internal::v1::workers_server::{Workers, WorkersServer};
use gristmill_proto::prost::Message as _;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::access_server::AccessServer;
use gristmill_proto::v1::cluster_client::ClusterClient;
use gristmill_proto::v1::cluster_server::{Cluster, ClusterServer};
use gristmill_proto::v1::jobs_client::JobsClient;
use gristmill_proto::v1::jobs_server::{Jobs, JobsServer};
use gristmill_proto::v1::pools_server::PoolsServer;
use gristmill_proto::v1::users_server::UsersServer;
use tokio::time::{Instant, timeout_at};
use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::answer;
use super::channels::{Channels, Lane};
use super::data::{self, Data};
use super::guard::{self, who};
use super::store::Shared;
use super::world::World;

/// The pause between two looks at a watched job: an eighth of the time that it has been watched, within these bounds. Who
/// waits for a small job hears of its end at once, and a large one costs few looks.
const WATCH_EVERY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long a watched job may be told of nothing new.
const WATCH_AT_LEAST: Duration = Duration::from_secs(2);
/// How long a call may take whose caller does not say.
const WITHIN: Duration = Duration::from_secs(30);
/// The header of a call that another master passed on.
const PASSED_ON: &str = "gristmill-passed-on";
/// Whose reasons of errors these are.
const DOMAIN: &str = "gristmill";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) fn of_call(e: CallError) -> Status {
    match e {
        CallError::NotLeader { leader } => answer::not_leader(leader.as_deref()),
        CallError::Refused(why) => Status::failed_precondition(why),
        CallError::NotSent(why) => Status::unavailable(why),
        CallError::Unknown(why) => Status::unknown(why),
    }
}

pub(super) fn of_api(e: ApiError) -> Status {
    let text = e.to_string();
    let (kind, next_step) = match e {
        ApiError::NotLeader { leader } => return answer::not_leader(leader.as_deref()),
        ApiError::Refused { code, next_step, .. } => (code, next_step),
    };
    let (code, reason) = match kind {
        Kind::Invalid => (Code::InvalidArgument, "INVALID"),
        Kind::NotFound => (Code::NotFound, "NOT_FOUND"),
        Kind::Conflict => (Code::AlreadyExists, "CONFLICT"),
        Kind::Limit => (Code::ResourceExhausted, "LIMIT"),
        Kind::State => (Code::FailedPrecondition, "STATE"),
        Kind::Denied => (Code::PermissionDenied, "DENIED"),
        Kind::Unauthenticated => (Code::Unauthenticated, "UNAUTHENTICATED"),
        Kind::Unavailable => (Code::Unavailable, "UNAVAILABLE"),
        Kind::Unknown => (Code::Unknown, "UNKNOWN"),
    };
    let next_step = Some(("next_step".to_string(), next_step)).filter(|(_, step)| !step.is_empty());
    let details = ErrorDetails::with_error_info(reason, DOMAIN, next_step.into_iter().collect::<HashMap<_, _>>());
    Status::with_error_details(code, text, details)
}

/// How a call may be answered.
#[derive(Debug, Clone)]
struct Asked {
    /// As its caller says, or after a while.
    until: Instant,
    /// Another master passed it on: this one does not, so that two that each take the other for the leader end it.
    passed_on: bool,
    /// What the caller has shown.
    bearer: Option<MetadataValue<Ascii>>,
    /// Where the call came from.
    from: Arc<str>,
}

impl Asked {
    fn of<T>(request: &Request<T>) -> Self {
        let said = request.metadata().get("grpc-timeout").and_then(|said| timeout_of(said.to_str().ok()?));
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let bearer = request.metadata().get("authorization").cloned();
        Self { until: Instant::now() + said.unwrap_or(WITHIN), passed_on, bearer, from: guard::from(request) }
    }

    /// What is passed on has as much time as is left. Who leads asks once more who the caller is.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = answer::request(message, self.until.saturating_duration_since(Instant::now()));
        let metadata = request.metadata_mut();
        metadata.insert(PASSED_ON, MetadataValue::from_static("1"));
        if let Some(bearer) = self.bearer.clone() {
            metadata.insert("authorization", bearer);
        }
        if let Ok(from) = self.from.parse() {
            metadata.insert(guard::FROM, from);
        }
        request
    }

    /// The same call once more, with another deadline.
    fn anew(&self) -> Self {
        Self { until: Instant::now() + WITHIN, ..self.clone() }
    }
}

/// A time as gRPC writes it: up to eight digits and a unit ("PROTOCOL-HTTP2.md", Timeout).
fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?).filter(|(digits, _)| digits.len() <= 8)?;
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// What a master offers.
#[derive(Clone)]
pub struct Master {
    node: MasterNode<World>,
    channels: Channels,
    store: Shared,
    files: Data,
}

impl Master {
    /// Services around a node; `channels` reach the others, `store` has results, `files` counts what users store.
    pub(super) fn new(node: MasterNode<World>, channels: Channels, store: Shared, files: Data) -> Self {
        Self { node, channels, store, files }
    }

    /// Adds all that clients may ask.
    pub(super) fn public(&self, routes: Routes) -> Routes {
        let routes = routes.add_service(JobsServer::new(self.clone())).add_service(ClusterServer::new(self.clone()));
        let routes = routes.add_service(PoolsServer::new(self.clone()));
        routes.add_service(AccessServer::new(self.clone())).add_service(UsersServer::new(self.clone()))
    }

    /// What workers may ask.
    pub(super) fn workers(&self) -> WorkersServer<Self> {
        WorkersServer::new(self.clone())
    }

    /// The answer of this node, or of the leader if this is not the one.
    async fn here_or<T, F>(
        &self,
        asked: &Asked,
        here: impl Future<Output = Result<T, ApiError>>,
        there: impl FnOnce(Channel) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let late = |_| Status::deadline_exceeded("no answer in time; whether it was done is not known");
        let leader = match timeout_at(asked.until, here).await.map_err(late)? {
            Ok(answer) => return Ok(Response::new(answer)),
            Err(ApiError::NotLeader { .. }) if asked.passed_on => {
                return Err(Status::unavailable("the leadership changes; try again"));
            }
            Err(ApiError::NotLeader { leader: Some(leader) }) => leader,
            Err(e) => return Err(of_api(e)),
        };
        let channel = self.channels.to(&leader, Lane::Calls).map_err(|e| Status::internal(e.to_string()))?;
        let late = |_| Status::deadline_exceeded(format!("the leader at {leader} did not answer in time"));
        timeout_at(asked.until, there(channel)).await.map_err(late)?
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
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        self.files.has_room(&who, self.quota(&who)).await?;
        let here = self.node.submit(&who, request.clone());
        let there = |to| async move { JobsClient::new(to).submit(asked.request(request)).await };
        self.here_or(asked, here, there).await
    }

    async fn get(&self, request: Request<api::GetJobRequest>) -> Result<Response<api::JobStatus>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        self.job(asked, &who, request.job).await.map(Response::new)
    }

    async fn list(&self, request: Request<api::ListJobsRequest>) -> Result<Response<api::ListJobsResponse>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let here = request.clone();
        let there = |to| async move { JobsClient::new(to).list(asked.request(request)).await };
        self.here_or(asked, self.node.jobs(&who, &here), there).await
    }

    async fn watch(&self, request: Request<api::WatchJobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (asked, who, job) = (Asked::of(&request), who(&request)?, request.into_inner().job);
        let (send, receive) = tokio::sync::mpsc::channel(2);
        let master = self.clone();
        tokio::spawn(async move {
            let (begun, mut told) = (tokio::time::Instant::now(), None::<api::JobStatus>);
            loop {
                // From before the look: what happens during it is not missed.
                let change = master.node.changed(WATCH_AT_LEAST);
                let now = match master.seen(&asked.anew(), &who, &job).await {
                    Ok(now) => now,
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
                let pause = (begun.elapsed() / 8).clamp(WATCH_EVERY.0, WATCH_EVERY.1);
                tokio::join!(change, tokio::time::sleep(pause));
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }

    async fn cancel(&self, request: Request<api::CancelJobRequest>) -> Result<Response<api::JobStatus>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let job = request.job.clone();
        let here = self.node.cancel(&who, &job, request.reason.clone());
        let there = |to| async move { JobsClient::new(to).cancel(asked.request(request)).await };
        self.here_or(asked, here, there).await
    }

    async fn retry(&self, request: Request<api::RetryJobRequest>) -> Result<Response<api::SubmitResponse>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        self.files.has_room(&who, self.quota(&who)).await?;
        let (job, key) = (request.job.clone(), request.key.clone());
        let there = |to| async move { JobsClient::new(to).retry(asked.request(request)).await };
        self.here_or(asked, self.node.retry(&who, &job, key), there).await
    }

    async fn result(&self, request: Request<api::ResultRequest>) -> Result<Response<Self::ResultStream>, Status> {
        let (asked, who) = (&Asked::of(&request), who(&request)?);
        let api::ResultRequest { job, part } = request.into_inner();
        let job = self.job(asked, &who, job).await?;
        // Who sees a job need not see what it made.
        if !who.may(Right::JobsRead, Right::DataReadAny, &job.principal) {
            let what =
                format!("job {} is {}'s: it takes the right data.read.any to see its result", job.id, job.principal);
            return Err(Status::permission_denied(what));
        }
        let reader = data::Reader::new(&self.node, &who);
        data::result(self.store.clone(), &job, part, reader).await.map(Response::new)
    }

    async fn logs(&self, request: Request<api::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let (asked, who) = (Asked::of(&request), who(&request)?);
        self.task_logs(asked, who, request.into_inner()).await
    }

    async fn history(&self, request: Request<api::HistoryRequest>) -> Result<Response<Self::HistoryStream>, Status> {
        let (asked, who) = (Asked::of(&request), who(&request)?);
        self.events(&asked, &who, request.into_inner()).await
    }
}

impl Master {
    /// A job, here or from the leader.
    async fn job(&self, asked: &Asked, who: &Principal, job: String) -> Result<api::JobStatus, Status> {
        let request = api::GetJobRequest { job: job.clone() };
        let there = |to| async move { JobsClient::new(to).get(asked.request(request)).await };
        self.here_or(asked, self.node.job(who, &job), there).await.map(Response::into_inner)
    }

    /// The same for somebody who asked a while ago, and may not be here any more.
    async fn seen(&self, asked: &Asked, who: &Principal, job: &str) -> Result<api::JobStatus, Status> {
        self.node.is_still_here(who).await.map_err(of_api)?;
        self.job(asked, who, job.to_string()).await
    }

    fn quota(&self, who: &Principal) -> api::Quota {
        self.node.who_am_i(who).quota.unwrap_or_default()
    }
}

#[tonic::async_trait]
impl Cluster for Master {
    async fn status(&self, request: Request<api::StatusRequest>) -> Result<Response<api::ClusterStatus>, Status> {
        let (asked, request) = (&Asked::of(&request), request.into_inner());
        let there = |to| async move { ClusterClient::new(to).status(asked.request(request)).await };
        self.here_or(asked, self.node.status(), there).await
    }

    async fn workers(&self, request: Request<api::WorkersRequest>) -> Result<Response<api::WorkersResponse>, Status> {
        let asked = &Asked::of(&request);
        let there = |to| async move { ClusterClient::new(to).workers(asked.request(api::WorkersRequest {})).await };
        self.here_or(asked, self.node.workers(), there).await
    }

    async fn drain(&self, request: Request<api::DrainRequest>) -> Result<Response<api::DrainResponse>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let name = request.worker.clone();
        let here = async { self.node.drain(&who, &name).await.map(|()| api::DrainResponse {}) };
        let there = |to| async move { ClusterClient::new(to).drain(asked.request(request)).await };
        self.here_or(asked, here, there).await
    }

    async fn backup(&self, request: Request<api::BackupRequest>) -> Result<Response<api::BackupInfo>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let here = self.node.backup(&who, request.clone());
        let there = |to| async move { ClusterClient::new(to).backup(asked.request(request)).await };
        self.here_or(asked, here, there).await
    }

    async fn backups(&self, request: Request<api::BackupsRequest>) -> Result<Response<api::BackupsResponse>, Status> {
        let asked = &Asked::of(&request);
        let there = |to| async move { ClusterClient::new(to).backups(asked.request(api::BackupsRequest {})).await };
        self.here_or(asked, self.node.backups(), there).await
    }

    async fn apps(&self, request: Request<api::AppsRequest>) -> Result<Response<api::AppsResponse>, Status> {
        let asked = &Asked::of(&request);
        let there = |to| async move { ClusterClient::new(to).workers(asked.request(api::WorkersRequest {})).await };
        let workers = self.here_or(asked, self.node.workers(), there).await?.into_inner().workers;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_as_grpc_writes_it() {
        for (text, time) in [
            ("5S", Some(Duration::from_secs(5))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("250m", Some(Duration::from_millis(250))),
            ("1u", Some(Duration::from_micros(1))),
            ("999999999S", None),
            ("S", None),
            ("", None),
            ("5x", None),
            ("5\u{e9}", None),
        ] {
            assert_eq!(timeout_of(text), time, "{text}");
        }
    }

    #[test]
    fn a_call_that_was_passed_on_says_so_and_keeps_its_deadline() {
        let first = answer::request((), Duration::from_secs(7));
        let asked = Asked::of(&first);
        assert!(!asked.passed_on);
        let onward = Asked::of(&asked.request(()));
        let left = onward.until.saturating_duration_since(asked.until);
        assert!(onward.passed_on && left < Duration::from_secs(1), "{left:?}");
    }
}
