//! Whether a node does its part, for those that keep it running (`grpc.health.v1`), and what it offers, for those that
//! explore (`grpc.reflection.v1`).

use std::time::Duration;

use gristmill_engine::node::master::MasterNode;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::{Builder, Error};

use super::world::World;

/// How often it is looked at whether there is a leader.
const LOOK: Duration = Duration::from_millis(500);

/// The service that tells of the calls of `gristmill.v1`.
pub(super) fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>, Error> {
    Builder::configure().register_encoded_file_descriptor_set(gristmill_proto::DESCRIPTORS).build_v1()
}

/// The service that tells how the node is. The node as a whole, the service "", serves as long as it answers; a master's
/// services serve while it knows of a leader, so that clients may be sent elsewhere meanwhile.
pub(super) fn health(master: Option<&MasterNode<World>>) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    if let Some(node) = master.cloned() {
        tokio::spawn(async move {
            while node.log().ended().is_none() {
                let led = node.log().leadership().leader.is_some();
                let status = if led { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status("gristmill.v1.Jobs", status).await;
                reporter.set_service_status("gristmill.v1.Cluster", status).await;
                tokio::time::sleep(LOOK).await;
            }
        });
    }
    service
}
