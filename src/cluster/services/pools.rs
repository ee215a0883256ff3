//! `gristmill.v1.Pools` on the listener: here, or passed on to who leads.

use gristmill_proto::v1 as api;
use gristmill_proto::v1::pools_client::PoolsClient;
use gristmill_proto::v1::pools_server::Pools;
use tonic::{Request, Response, Status};

use super::{Asked, Master, who};

#[tonic::async_trait]
impl Pools for Master {
    async fn list(&self, request: Request<api::ListPoolsRequest>) -> Result<Response<api::ListPoolsResponse>, Status> {
        let asked = &Asked::of(&request);
        let here = async { self.node.pools().await.map(|pools| api::ListPoolsResponse { pools }) };
        let there = |to| async move { PoolsClient::new(to).list(asked.request(api::ListPoolsRequest {})).await };
        self.here_or(asked, here, there).await
    }

    async fn set(&self, request: Request<api::SetPoolRequest>) -> Result<Response<api::Pool>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let here = self.node.set_pool(&who, request.clone());
        let there = |to| async move { PoolsClient::new(to).set(asked.request(request)).await };
        self.here_or(asked, here, there).await
    }

    async fn add(&self, request: Request<api::AddWorkersRequest>) -> Result<Response<api::Pool>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let add = request.clone();
        let there = |to| async move { PoolsClient::new(to).add(asked.request(request)).await };
        self.here_or(asked, self.node.add_workers(&who, &add), there).await
    }

    async fn remove(&self, request: Request<api::RemoveWorkerRequest>) -> Result<Response<api::Pool>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let name = request.worker.clone();
        let there = |to| async move { PoolsClient::new(to).remove(asked.request(request)).await };
        self.here_or(asked, self.node.remove_worker(&who, &name), there).await
    }
}
