//! Whether a node does its part, for those that keep it running: as gRPC (`grpc.health.v1`) and as two pages of HTTP for
//! probes. And what it offers, for those that explore (`grpc.reflection.v1`).
//!
//! A node is alive as long as it answers, whatever it waits for: to start it again would bring no quorum. It is ready once it
//! does its part: a master knows of a leader and has, since it was started, applied all that was acknowledged before; a worker
//! is one of the cluster's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use gristmill_engine::node::env::Note;
use gristmill_engine::node::master::MasterNode;
use gristmill_engine::node::rpc::CallError;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::masters_client::MastersClient;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::{Builder, Error};

use super::answer;
use super::channels::{Channels, Lane};
use super::world::World;

/// How often it is looked at whether there is a leader.
const LOOK: Duration = Duration::from_millis(500);
/// How long the leader may take to say how far its log goes.
const WITHIN: Duration = Duration::from_secs(2);

/// The service that tells of the calls of `gristmill.v1`.
pub(super) fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>, Error> {
    Builder::configure().register_encoded_file_descriptor_set(gristmill_proto::DESCRIPTORS).build_v1()
}

/// Whether a node is ready. Clones are about the same one.
#[derive(Debug, Clone)]
pub(super) struct Ready(Arc<Mutex<Option<String>>>);

impl Ready {
    /// It is not, because of this: one line.
    pub(super) fn not_yet(why: &str) -> Self {
        Self(Arc::new(Mutex::new(Some(why.into()))))
    }

    /// From now on it is not because of this, or it is.
    pub(super) fn set(&self, why_not: Option<&str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why_not.map(String::from);
    }

    /// What a worker notes of itself.
    pub(super) fn hear(&self, note: &Note) {
        match note {
            Note::Registered { .. } => self.set(None),
            Note::Fenced { .. } => self.set(Some("the cluster has given this worker up; it begins anew")),
            _ => {}
        }
    }

    fn why_not(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds `GET /healthz` and `GET /readyz`, which are answered to whoever can reach the node and say nothing else.
pub(super) fn probed(routes: Routes, ready: Ready) -> Routes {
    let is_ready = move || {
        let why_not = ready.why_not();
        async move {
            match why_not {
                None => (StatusCode::OK, "ok\n".to_string()).into_response(),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
            }
        }
    };
    let router = routes.into_axum_router().route("/healthz", get(|| async { "ok\n" }));
    Routes::from(router.route("/readyz", get(is_ready)))
}

/// The service that tells how the node is. The node as a whole, the service "", serves as long as it answers; a master's
/// services serve while it knows of a leader, so that clients may be sent elsewhere meanwhile. What `ready` is told goes
/// further: see above.
pub(super) fn health(
    master: Option<&MasterNode<World>>,
    channels: &Channels,
    ready: &Ready,
) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    if let Some(node) = master.cloned() {
        let (channels, ready) = (channels.clone(), ready.clone());
        tokio::spawn(async move {
            let mut caught_up = false;
            while node.log().ended().is_none() {
                let led = node.log().leadership().leader.is_some();
                let status = if led { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status("gristmill.v1.Jobs", status).await;
                reporter.set_service_status("gristmill.v1.Cluster", status).await;
                caught_up = caught_up || (led && has_caught_up(&node, &channels).await);
                ready.set(match (led, caught_up) {
                    (false, _) => Some("this master knows of no leader"),
                    (true, false) => Some("this master has not applied all of the log yet"),
                    (true, true) => None,
                });
                tokio::time::sleep(LOOK).await;
            }
            ready.set(Some("this master has ended"));
        });
    }
    service
}

/// Whether a master has applied all that was acknowledged anywhere before this was asked. It is not while that is not known.
async fn has_caught_up(node: &MasterNode<World>, channels: &Channels) -> bool {
    let leader = match node.read_index().await {
        // It leads, and has applied all before it answers.
        Ok(_) => return true,
        Err(CallError::NotLeader { leader: Some(leader) }) => leader,
        Err(_) => return false,
    };
    let Ok(channel) = channels.to(&leader, Lane::Calls) else { return false };
    let asked = answer::request(wire::ReadIndexRequest {}, WITHIN);
    let index = answer::within(WITHIN, MastersClient::new(channel).read_index(asked)).await.map(|answer| answer.index);
    index.is_ok_and(|index| node.log().metrics().applied.is_some_and(|applied| applied >= index))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn probes_are_told_apart() {
        let ready = Ready::not_yet("it waits");
        let routes = probed(Routes::default(), ready.clone()).prepare();
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            let code = answer.status().as_u16();
            (code, String::from_utf8(to_bytes(Body::new(answer.into_body()), 1000).await.unwrap().to_vec()).unwrap())
        };
        assert_eq!(ask("/healthz").await, (200, "ok\n".into()));
        assert_eq!(ask("/readyz").await, (503, "it waits\n".into()));
        ready.set(None);
        assert_eq!(ask("/readyz").await, (200, "ok\n".into()));
        ready.set(Some("it has ended"));
        assert_eq!(ask("/readyz").await, (503, "it has ended\n".into()));
        assert_eq!(ask("/healthz").await.0, 200);
    }
}
