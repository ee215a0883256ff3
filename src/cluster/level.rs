//! Says which feature level this node's build understands.

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::masters_server::{Masters, MastersServer};
use tonic::{Request, Response, Status};

/// What a master of this level answers.
pub(crate) struct Level(u32);

/// The service of a master that understands this level.
pub(crate) fn service(level: u32) -> MastersServer<Level> {
    MastersServer::new(Level(level))
}

#[tonic::async_trait]
impl Masters for Level {
    async fn level(&self, _: Request<wire::LevelRequest>) -> Result<Response<wire::LevelAnswer>, Status> {
        Ok(Response::new(wire::LevelAnswer { level: self.0 }))
    }
}
