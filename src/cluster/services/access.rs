//! `gristmill.v1.Access` on the listener: here, or passed on to who leads.

use gristmill_proto::v1 as api;
use gristmill_proto::v1::access_client::AccessClient;
use gristmill_proto::v1::access_server::Access;
use tonic::{Request, Response, Status};

use super::{Asked, Master, guard, of_api, who};

#[tonic::async_trait]
impl Access for Master {
    async fn login(&self, request: Request<api::LoginRequest>) -> Result<Response<api::TokenResponse>, Status> {
        let (asked, from) = (&Asked::of(&request), guard::from(&request));
        let (request, here) = (request.get_ref().clone(), request.into_inner());
        let there = |to| async move { AccessClient::new(to).login(asked.request(request)).await };
        self.here_or(asked, self.node.login(&from, here), there).await
    }

    async fn refresh(&self, request: Request<api::RefreshRequest>) -> Result<Response<api::TokenResponse>, Status> {
        let (asked, from) = (&Asked::of(&request), guard::from(&request));
        let (request, here) = (request.get_ref().clone(), request.into_inner());
        let there = |to| async move { AccessClient::new(to).refresh(asked.request(request)).await };
        self.here_or(asked, self.node.refresh(&from, here), there).await
    }

    async fn logout(&self, request: Request<api::LogoutRequest>) -> Result<Response<api::LogoutResponse>, Status> {
        let (asked, who, request) = (&Asked::of(&request), who(&request)?, request.into_inner());
        let there = |to| async move { AccessClient::new(to).logout(asked.request(request)).await };
        self.here_or(asked, self.node.logout(&who, request), there).await
    }

    async fn who_am_i(&self, request: Request<api::WhoAmIRequest>) -> Result<Response<api::WhoAmIResponse>, Status> {
        Ok(Response::new(self.node.who_am_i(&who(&request)?)))
    }

    async fn change_password(
        &self,
        request: Request<api::ChangePasswordRequest>,
    ) -> Result<Response<api::ChangePasswordResponse>, Status> {
        let (asked, who) = (&Asked::of(&request), who(&request)?);
        let (request, here) = (request.get_ref().clone(), request.into_inner());
        let there = |to| async move { AccessClient::new(to).change_password(asked.request(request)).await };
        self.here_or(asked, self.node.change_password(&who, here), there).await
    }

    async fn register(
        &self,
        request: Request<api::RegisterRequest>,
    ) -> Result<Response<api::RegisterResponse>, Status> {
        let (asked, from) = (&Asked::of(&request), guard::from(&request));
        let (request, here) = (request.get_ref().clone(), request.into_inner());
        let there = |to| async move { AccessClient::new(to).register(asked.request(request)).await };
        self.here_or(asked, self.node.register_user(&from, here), there).await
    }

    async fn validate(
        &self,
        request: Request<api::ValidateRequest>,
    ) -> Result<Response<api::ValidateResponse>, Status> {
        self.node.validate(request.into_inner()).await.map(Response::new).map_err(of_api)
    }

    async fn jwks(&self, _: Request<api::JwksRequest>) -> Result<Response<api::JwksResponse>, Status> {
        Ok(Response::new(self.node.jwks()))
    }
}
