//! Users, roles, tokens for machines and keys: `gristmill.v1.Users`, below any transport.
//!
//! Whether the caller may is decided before (`control::rights`); what nobody may, as to give more than one has, where it is
//! applied (`control/apply/access.rs`).

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1 as api;

use super::access::senseless;
use super::api::refused;
use super::{ApiError, Code, Inner, MasterEnv, MasterNode};
use crate::auth::password::{self, MADE_UP};
use crate::auth::token::SigningKey;
use crate::auth::{Secret, word};
use crate::control::access::Access;
use crate::control::rights::{BUILT_IN, Principal, Right, Rights};
use crate::control::state::State;

/// How long a machine's token holds if nothing is said, in seconds.
const TOKEN_S: u64 = 30 * 24 * 60 * 60;

impl<E: MasterEnv> Inner<E> {
    /// A password that is given, or one that is made up and to be told.
    pub(super) fn given(&self, password: String) -> (Secret, String) {
        if password.is_empty() {
            let made = password::made_up(&self.random::<MADE_UP>());
            let told = made.expose().to_string();
            return (made, told);
        }
        (password.into(), String::new())
    }

    /// A new key to sign tokens with.
    pub(super) fn signing_key(&self) -> Result<wire::SigningKeyRecord, ApiError> {
        let broken = || refused(Code::Unknown, "no key can be made", "try again");
        let key = SigningKey::new(&self.random::<32>()).ok_or_else(broken)?;
        let kid: String = self.random::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(wire::SigningKeyRecord {
            kid,
            secret: key.secret.to_vec().into(),
            public: key.public.into(),
            ..Default::default()
        })
    }

    async fn carried_out(self: &Arc<Self>, who: &Principal, action: Action) -> Result<(), ApiError> {
        match self.propose(who, action).await? {
            Outcome::Refused(no) => Err(no.into()),
            Outcome::Accepted(_) => Ok(()),
            _ => Err(senseless()),
        }
    }

    fn access<T>(&self, look: impl FnOnce(&Access) -> T) -> T {
        self.log.read_stale(|replica| look(replica.state.access()))
    }
}

/// A user as administrators see it.
fn told(state: &State, user: &wire::UserRecord) -> api::User {
    api::User {
        name: user.name.clone(),
        role: user.role.clone(),
        disabled: user.disabled,
        must_change: user.must_change,
        created_ms: user.created_ms,
        prefix: user.prefix.clone(),
        quota: user.quota,
        sessions: state.access().sessions_of(&user.name).count() as u32,
        jobs: state.jobs_of(&user.name),
        service_account: user.service_account.clone(),
    }
}

fn session(record: &wire::SessionRecord) -> api::Session {
    api::Session {
        id: format!("{:x}", record.id),
        user: record.user.clone(),
        token: record.token,
        label: record.label.clone(),
        role: record.role.clone(),
        created_ms: record.created_ms,
        used_ms: record.used_ms,
        expires_ms: record.expires_ms,
    }
}

fn no_session(id: &str) -> ApiError {
    refused(Code::NotFound, format!("there is no session {id} that you may end"), "see `gristmill user sessions`")
}

impl<E: MasterEnv> MasterNode<E> {
    /// `Users.Add`.
    ///
    /// # Errors
    /// That there is such a user, or cannot be; that this master does not lead.
    pub async fn add_user(
        &self,
        who: &Principal,
        request: api::AddUserRequest,
    ) -> Result<api::AddUserResponse, ApiError> {
        self.confirm().await?;
        let (password, told) = self.inner.given(request.password);
        let user = wire::UserRecord {
            name: request.name,
            role: request.role,
            verifier: self.inner.verifier(password).await?,
            must_change: !request.keep_password || !told.is_empty(),
            quota: request.quota,
            prefix: request.prefix,
            service_account: request.service_account,
            ..Default::default()
        };
        let add = wire::AddUser { user: Some(user), ..Default::default() };
        self.inner.carried_out(who, Action::AddUser(add)).await?;
        Ok(api::AddUserResponse { password: told })
    }

    /// `Users.List`.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn users(&self, request: &api::ListUsersRequest) -> Result<api::ListUsersResponse, ApiError> {
        self.confirm().await?;
        let state = self.inner.state();
        let access = state.access();
        if !request.name.is_empty() {
            let users = access.user(&request.name).map(|user| told(&state, user)).into_iter().collect();
            return Ok(api::ListUsersResponse { users, next_page_token: String::new() });
        }
        let size = if request.page_size == 0 { 100 } else { request.page_size.min(1000) } as usize;
        let mut following = access.users_after(&request.page_token);
        let users: Vec<_> = following.by_ref().take(size).map(|user| told(&state, user)).collect();
        let last = users.last().filter(|_| following.next().is_some()).map(|user| user.name.clone());
        Ok(api::ListUsersResponse { users, next_page_token: last.unwrap_or_default() })
    }

    /// `Users.Change`.
    ///
    /// # Errors
    /// That there is no such user or role, or that nobody would manage users; that this master does not lead.
    pub async fn change_user(&self, who: &Principal, request: api::ChangeUserRequest) -> Result<api::User, ApiError> {
        self.confirm().await?;
        let api::ChangeUserRequest { name, role, disabled, quota, prefix, service_account } = request;
        let change = wire::ChangeUser {
            name: name.clone(),
            role,
            disabled,
            quota,
            prefix,
            service_account,
            ..Default::default()
        };
        self.inner.carried_out(who, Action::ChangeUser(change)).await?;
        let state = self.inner.state();
        Ok(state.access().user(&name).map(|user| told(&state, user)).unwrap_or_default())
    }

    /// `Users.Remove`.
    ///
    /// # Errors
    /// That there is no such user, or that nobody would manage users; that this master does not lead.
    pub async fn remove_user(&self, who: &Principal, name: String) -> Result<(), ApiError> {
        self.confirm().await?;
        self.inner.carried_out(who, Action::RemoveUser(wire::RemoveUser { name })).await
    }

    /// `Users.ResetPassword`.
    ///
    /// # Errors
    /// That there is no such user; that this master does not lead.
    pub async fn reset_password(
        &self,
        who: &Principal,
        request: api::ResetPasswordRequest,
    ) -> Result<api::ResetPasswordResponse, ApiError> {
        self.confirm().await?;
        let (password, told) = self.inner.given(request.password);
        let change = wire::ChangeUser {
            name: request.name,
            verifier: Some(self.inner.verifier(password).await?),
            must_change: Some(true),
            ..Default::default()
        };
        self.inner.carried_out(who, Action::ChangeUser(change)).await?;
        Ok(api::ResetPasswordResponse { password: told })
    }

    /// `Users.Sessions`.
    ///
    /// # Errors
    /// That they are another's; that this master does not lead.
    pub async fn sessions(&self, who: &Principal, user: &str) -> Result<api::SessionsResponse, ApiError> {
        self.confirm().await?;
        let user = if user.is_empty() { &who.name } else { user };
        if *user != *who.name && !who.rights.has(Right::UsersRead) {
            return Err(refused(Code::Denied, "it takes the right users.read to see another's sessions", ""));
        }
        let sessions = self.inner.access(|access| access.sessions_of(user).map(|record| session(record)).collect());
        Ok(api::SessionsResponse { sessions })
    }

    /// `Users.EndSession`.
    ///
    /// # Errors
    /// That there is none, or that it is another's; that this master does not lead.
    pub async fn end_session(&self, who: &Principal, id: &str) -> Result<(), ApiError> {
        self.confirm().await?;
        let number = u64::from_str_radix(id, 16).map_err(|_| no_session(id))?;
        let user = self.inner.access(|access| access.session(number).map(|session| session.user.clone()));
        // A token ends itself, and no other of its user's.
        let own = !self.is_token(who.session) || number == who.session;
        let may = |user: &String| (own && *user == *who.name) || who.rights.has(Right::UsersManage);
        let user = user.filter(may).ok_or_else(|| no_session(id))?;
        self.inner.carried_out(who, Action::EndSessions(wire::EndSessions { session: number, user })).await
    }

    /// `Users.CreateToken`.
    ///
    /// # Errors
    /// That there is no such role, or that nobody has logged in, as a service account has not; that this master does not lead.
    pub async fn create_token(
        &self,
        who: &Principal,
        request: api::CreateTokenRequest,
    ) -> Result<api::CreateTokenResponse, ApiError> {
        self.confirm().await?;
        if who.is_account() {
            let what = "a service account's token makes no other token";
            return Err(refused(Code::Denied, what, "log in with `gristmill login`"));
        }
        if who.session == 0 {
            return Err(refused(Code::State, "a token is of a user, and no login is needed here", "begin with users"));
        }
        if self.is_token(who.session) {
            let what = "a token for machines makes no other token";
            return Err(refused(Code::Denied, what, "log in with `gristmill login`"));
        }
        let ttl_s = if request.ttl_s == 0 { TOKEN_S } else { request.ttl_s };
        let random = self.inner.random::<32>();
        let role = request.role;
        let session = wire::SessionRecord {
            user: who.name.to_string(),
            token: true,
            secret: word::digest(&random).to_vec().into(),
            expires_ms: self.inner.time_ms().saturating_add(ttl_s.saturating_mul(1000)),
            role,
            label: request.label,
            ..Default::default()
        };
        let open = wire::OpenSession { session: Some(session), ..Default::default() };
        match self.inner.propose(who, Action::OpenSession(open)).await? {
            Outcome::Opened(id) => {
                let expires_ms = self.inner.access(|access| access.session(id).map_or(0, |session| session.expires_ms));
                let token = word::make(word::Kind::Machine, id, &random).expose().to_string();
                Ok(api::CreateTokenResponse { token, session: format!("{id:x}"), expires_ms })
            }
            Outcome::Refused(no) => Err(no.into()),
            _ => Err(senseless()),
        }
    }

    /// `Users.Roles`.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn roles(&self) -> Result<api::RolesResponse, ApiError> {
        self.confirm().await?;
        let role = |name: &str, rights: Rights, built_in: bool| api::Role {
            name: name.into(),
            rights: rights.names().map(String::from).collect(),
            built_in,
        };
        let mut roles: Vec<_> = BUILT_IN.iter().map(|(name, rights)| role(name, *rights, true)).collect();
        self.inner.access(|access| roles.extend(access.roles().map(|(name, rights)| role(name, rights, false))));
        Ok(api::RolesResponse { roles })
    }

    /// `Users.PutRole`.
    ///
    /// # Errors
    /// That a right is none or not the caller's; that this master does not lead.
    pub async fn put_role(&self, who: &Principal, role: api::Role) -> Result<(), ApiError> {
        self.confirm().await?;
        let record = wire::RoleRecord { name: role.name, rights: role.rights };
        self.inner.carried_out(who, Action::PutRole(record)).await
    }

    /// `Users.RemoveRole`.
    ///
    /// # Errors
    /// That somebody has it; that this master does not lead.
    pub async fn remove_role(&self, who: &Principal, name: String) -> Result<(), ApiError> {
        self.confirm().await?;
        self.inner.carried_out(who, Action::RemoveRole(wire::RemoveRole { name })).await
    }

    /// `Users.Keys`.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn keys(&self) -> Result<api::KeysResponse, ApiError> {
        self.confirm().await?;
        let now_ms = self.inner.time_ms();
        let key = |key: &wire::SigningKeyRecord| api::SigningKey {
            kid: key.kid.clone(),
            created_ms: key.created_ms,
            expires_ms: key.expires_ms,
        };
        Ok(api::KeysResponse { keys: self.inner.access(|access| access.keys(now_ms).map(key).collect()) })
    }

    /// `Users.RotateKeys`.
    ///
    /// # Errors
    /// That there are too many; that this master does not lead.
    pub async fn rotate_keys(&self, who: &Principal, at_once: bool) -> Result<api::RotateKeysResponse, ApiError> {
        self.confirm().await?;
        let key = self.inner.signing_key()?;
        let kid = key.kid.clone();
        self.inner.carried_out(who, Action::RotateKeys(wire::RotateKeys { key: Some(key), at_once })).await?;
        Ok(api::RotateKeysResponse { kid })
    }

    /// `Users.Policy`.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn policy(&self) -> Result<api::AccessPolicy, ApiError> {
        self.confirm().await?;
        Ok(api::AccessPolicy { registration: self.inner.access(Access::registration) })
    }

    /// `Users.SetPolicy`.
    ///
    /// # Errors
    /// That this master does not lead.
    pub async fn set_policy(&self, who: &Principal, policy: api::AccessPolicy) -> Result<api::AccessPolicy, ApiError> {
        self.confirm().await?;
        let record = wire::PolicyRecord { registration: policy.registration };
        self.inner.carried_out(who, Action::SetPolicy(record)).await?;
        Ok(policy)
    }
}
