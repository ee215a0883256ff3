//! What masters say to each other beside the log: which feature level each understands, how far one must have applied the
//! log to know all that was acknowledged, and what it has for the audit log.

use gristmill_engine::node::master::MasterNode;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::masters_server::{Masters, MastersServer};
use tonic::{Request, Response, Status};

use super::services::of_call;
use super::world::World;

/// What a master answers others.
pub(crate) struct Level {
    /// Up to which it understands commands.
    level: u32,
    node: MasterNode<World>,
}

/// The service of a master that understands this level.
pub(crate) fn service(level: u32, node: MasterNode<World>) -> MastersServer<Level> {
    MastersServer::new(Level { level, node })
}

#[tonic::async_trait]
impl Masters for Level {
    async fn level(&self, _: Request<wire::LevelRequest>) -> Result<Response<wire::LevelAnswer>, Status> {
        Ok(Response::new(wire::LevelAnswer { level: self.level }))
    }

    async fn read_index(&self, _: Request<wire::ReadIndexRequest>) -> Result<Response<wire::ReadIndexAnswer>, Status> {
        let index = self.node.read_index().await.map_err(of_call)?;
        Ok(Response::new(wire::ReadIndexAnswer { index }))
    }

    async fn audit(&self, request: Request<wire::NoteAudit>) -> Result<Response<wire::AuditAnswer>, Status> {
        self.node.note_audit(request.into_inner()).await.map_err(of_call)?;
        Ok(Response::new(wire::AuditAnswer {}))
    }
}
