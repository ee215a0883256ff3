//! Streams about jobs: what happened to them, and what their tasks said.

use std::time::Duration;

use gristmill_engine::control::rights::Principal;
use gristmill_engine::node::master::ApiError;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::jobs_client::JobsClient;
use tonic::{Code, Response, Status};

use super::{Answers, Asked, Lane, Master, of_api};

/// How often followed logs are looked for.
const LOOK: Duration = Duration::from_millis(500);

impl Master {
    /// `Jobs.History`, here or from the leader.
    pub(super) async fn events(
        &self,
        asked: &Asked,
        who: &Principal,
        request: api::HistoryRequest,
    ) -> Result<Response<Answers<api::JobEvent>>, Status> {
        let leader = match self.node.events(who, &request.job).await {
            Ok(events) => return Ok(Response::new(Box::pin(tokio_stream::iter(events.into_iter().map(Ok))))),
            Err(ApiError::NotLeader { leader: Some(leader) }) if !asked.passed_on => leader,
            Err(e) => return Err(of_api(e)),
        };
        let channel = self.channels.to(&leader, Lane::Calls).map_err(|e| Status::internal(e.to_string()))?;
        let late = |_| Status::deadline_exceeded(format!("the leader at {leader} did not answer"));
        let mut client = JobsClient::new(channel);
        let answers = client.history(asked.request(request));
        let answers = tokio::time::timeout_at(asked.until, answers).await.map_err(late)??;
        Ok(Response::new(Box::pin(answers.into_inner())))
    }

    /// `Jobs.Logs`: from the store, by whichever master was asked.
    pub(super) async fn task_logs(
        &self,
        asked: Asked,
        who: Principal,
        request: api::LogsRequest,
    ) -> Result<Response<Answers<api::LogLine>>, Status> {
        // That there is such a job.
        self.job(&asked, &who, request.job.clone()).await?;
        let mut logs = self.node.logs(&request.job, &request.task).map_err(of_api)?;
        let (send, receive) = tokio::sync::mpsc::channel(64);
        let master = self.clone();
        tokio::spawn(async move {
            loop {
                // Asked before the logs are read, so that what was said at the end is read.
                let over = match master.has_ended(&asked.anew(), &who, &request.job).await {
                    Ok(ended) => ended || !request.follow,
                    Err(status) => {
                        let _ = send.send(Err(status)).await;
                        return;
                    }
                };
                loop {
                    let lines = logs.next().await.map_err(of_api);
                    let none = lines.as_ref().is_ok_and(Vec::is_empty);
                    let failed = lines.is_err();
                    let lines = lines.map_or_else(|e| vec![Err(e)], |lines| lines.into_iter().map(Ok).collect());
                    for line in lines {
                        if send.send(line).await.is_err() {
                            return;
                        }
                    }
                    if failed {
                        return;
                    }
                    if none {
                        break;
                    }
                }
                if over || send.is_closed() {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }

    /// Whether nothing more is to be expected of a job. While nobody leads that is not known.
    async fn has_ended(&self, asked: &Asked, who: &Principal, job: &str) -> Result<bool, Status> {
        match self.seen(asked, who, job).await {
            Ok(job) => Ok(job.state() >= api::JobState::Completed),
            Err(status) if status.code() == Code::Unauthenticated => Err(status),
            // Without a leader the job is not known to have ended; without a majority, nor is it who may see it.
            Err(status) => self.node.is_still_here(who).await.map(|()| false).map_err(|_| status),
        }
    }
}
