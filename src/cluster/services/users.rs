//! `gristmill.v1.Users` on the listener: here, or passed on to who leads.

use gristmill_engine::control::rights::Principal;
use gristmill_engine::node::master::ApiError;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::users_client::UsersClient;
use gristmill_proto::v1::users_server::Users;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, Asked, Lane, Master, of_api, who};

/// A call that is done here, with who asks and what, or passed on.
macro_rules! done {
    ($master:ident, $request:ident, $call:ident, |$who:ident, $message:ident| $here:expr) => {{
        let (asked, $who) = (&Asked::of(&$request), &who(&$request)?);
        let (again, $message) = ($request.get_ref().clone(), $request.into_inner());
        let there = |to| async move { UsersClient::new(to).$call(asked.request(again)).await };
        $master.here_or(asked, async { Ok::<_, ApiError>($here) }, there).await
    }};
}

#[tonic::async_trait]
impl Users for Master {
    async fn add(&self, request: Request<api::AddUserRequest>) -> Result<Response<api::AddUserResponse>, Status> {
        done!(self, request, add, |who, it| self.node.add_user(who, it).await?)
    }

    async fn list(&self, request: Request<api::ListUsersRequest>) -> Result<Response<api::ListUsersResponse>, Status> {
        done!(self, request, list, |_who, it| self.node.users(&it).await?)
    }

    async fn change(&self, request: Request<api::ChangeUserRequest>) -> Result<Response<api::User>, Status> {
        done!(self, request, change, |who, it| self.node.change_user(who, it).await?)
    }

    async fn remove(
        &self,
        request: Request<api::RemoveUserRequest>,
    ) -> Result<Response<api::RemoveUserResponse>, Status> {
        done!(self, request, remove, |who, it| self
            .node
            .remove_user(who, it.name)
            .await
            .map(|()| api::RemoveUserResponse {})?)
    }

    async fn reset_password(
        &self,
        request: Request<api::ResetPasswordRequest>,
    ) -> Result<Response<api::ResetPasswordResponse>, Status> {
        done!(self, request, reset_password, |who, it| self.node.reset_password(who, it).await?)
    }

    async fn sessions(
        &self,
        request: Request<api::SessionsRequest>,
    ) -> Result<Response<api::SessionsResponse>, Status> {
        done!(self, request, sessions, |who, it| self.node.sessions(who, &it.user).await?)
    }

    async fn end_session(
        &self,
        request: Request<api::EndSessionRequest>,
    ) -> Result<Response<api::EndSessionResponse>, Status> {
        done!(self, request, end_session, |who, it| self
            .node
            .end_session(who, &it.session)
            .await
            .map(|()| api::EndSessionResponse {})?)
    }

    async fn create_token(
        &self,
        request: Request<api::CreateTokenRequest>,
    ) -> Result<Response<api::CreateTokenResponse>, Status> {
        done!(self, request, create_token, |who, it| self.node.create_token(who, it).await?)
    }

    async fn roles(&self, request: Request<api::RolesRequest>) -> Result<Response<api::RolesResponse>, Status> {
        done!(self, request, roles, |_who, _it| self.node.roles().await?)
    }

    async fn put_role(&self, request: Request<api::Role>) -> Result<Response<api::PutRoleResponse>, Status> {
        done!(self, request, put_role, |who, it| self.node.put_role(who, it).await.map(|()| api::PutRoleResponse {})?)
    }

    async fn remove_role(
        &self,
        request: Request<api::RemoveRoleRequest>,
    ) -> Result<Response<api::RemoveRoleResponse>, Status> {
        done!(self, request, remove_role, |who, it| self
            .node
            .remove_role(who, it.name)
            .await
            .map(|()| api::RemoveRoleResponse {})?)
    }

    async fn keys(&self, request: Request<api::KeysRequest>) -> Result<Response<api::KeysResponse>, Status> {
        done!(self, request, keys, |_who, _it| self.node.keys().await?)
    }

    async fn rotate_keys(
        &self,
        request: Request<api::RotateKeysRequest>,
    ) -> Result<Response<api::RotateKeysResponse>, Status> {
        done!(self, request, rotate_keys, |who, it| self.node.rotate_keys(who, it.at_once).await?)
    }

    async fn policy(&self, request: Request<api::PolicyRequest>) -> Result<Response<api::AccessPolicy>, Status> {
        done!(self, request, policy, |_who, _it| self.node.policy().await?)
    }

    async fn set_policy(&self, request: Request<api::AccessPolicy>) -> Result<Response<api::AccessPolicy>, Status> {
        done!(self, request, set_policy, |who, it| self.node.set_policy(who, it).await?)
    }

    type AuditStream = Answers<api::AuditEvent>;

    async fn audit(&self, request: Request<api::AuditRequest>) -> Result<Response<Self::AuditStream>, Status> {
        let (asked, who, request) = (Asked::of(&request), who(&request)?, request.into_inner());
        let leader = match self.node.audit(request.from).await {
            Ok(events) => return Ok(Response::new(self.all_from(events, who, request))),
            Err(ApiError::NotLeader { leader: Some(leader) }) if !asked.passed_on => leader,
            Err(e) => return Err(of_api(e)),
        };
        let channel = self.channels.to(&leader, Lane::Calls).map_err(|e| Status::internal(e.to_string()))?;
        let late = |_| Status::deadline_exceeded(format!("the leader at {leader} did not answer"));
        let mut client = UsersClient::new(channel);
        let answers =
            tokio::time::timeout_at(asked.until, client.audit(asked.request(request))).await.map_err(late)??;
        Ok(Response::new(Box::pin(answers.into_inner())))
    }
}

impl Master {
    /// These events, and all that follow them until now.
    fn all_from(
        &self,
        mut events: Vec<api::AuditEvent>,
        who: Principal,
        request: api::AuditRequest,
    ) -> Answers<api::AuditEvent> {
        let (send, receive) = tokio::sync::mpsc::channel(64);
        let master = self.clone();
        tokio::spawn(async move {
            while let Some(last) = events.last().map(|event| event.id) {
                let wanted = |event: &api::AuditEvent| request.user.is_empty() || event.user == request.user;
                for event in events.into_iter().filter(wanted) {
                    if send.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                let next = async {
                    master.node.is_still_here(&who).await?;
                    master.node.audit(last + 1).await
                };
                match next.await {
                    Ok(more) => events = more,
                    Err(e) => {
                        let _ = send.send(Err(of_api(e))).await;
                        return;
                    }
                }
            }
        });
        Box::pin(ReceiverStream::new(receive))
    }
}
