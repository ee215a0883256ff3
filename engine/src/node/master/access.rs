//! Logging in and out, and what everybody may do with one's own password: `gristmill.v1.Access`, below any transport.
//!
//! Passwords are hashed on threads of their own, few at a time, whatever comes in: the leader has other work. A login that
//! fails is answered after the same time, whatever was wrong with it.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1 as api;
use gristmill_raft::runtime::AsyncRuntime;
use rand::Rng as _;
use zeroize::Zeroizing;

use super::api::refused;
use super::{ApiError, Code, Inner, MasterEnv, MasterNode};
use crate::auth::attempts::Attempts;
use crate::auth::password::{self, BYTES, Cost};
use crate::auth::token::{self, Claims};
use crate::auth::{Secret, word};
use crate::control::limits::SHORT_NAME_BYTES;
use crate::control::rights::{Principal, Rights};
use crate::node::clock;

/// A login that fails is answered no sooner.
const FAILED_AFTER: Duration = Duration::from_millis(400);
/// Passwords that are hashed at a time, and others that may wait for their turn.
pub(super) const HASHING: (usize, usize) = (1, 16);

fn wrong() -> ApiError {
    refused(Code::Unauthenticated, "the user or the password is wrong", "see to both, or ask an administrator")
}

fn too_many(wait: Duration) -> ApiError {
    let what = "too many attempts have failed of late";
    refused(Code::Limit, what, &format!("try again in {} s", wait.as_secs() + 1))
}

pub(super) fn senseless() -> ApiError {
    refused(Code::Unknown, "the reply makes no sense", "try again")
}

/// Whether a password can be one.
///
/// # Errors
/// What it must be.
pub(super) fn check_length(password: &Secret) -> Result<(), ApiError> {
    if BYTES.contains(&password.expose().len()) {
        return Ok(());
    }
    let what = format!("a password has {} to {} bytes", BYTES.start(), BYTES.end());
    Err(refused(Code::Invalid, what, "take a longer one: some words, for example"))
}

impl<E: MasterEnv> Inner<E> {
    pub(super) fn random<const N: usize>(&self) -> Zeroizing<[u8; N]> {
        let mut bytes = Zeroizing::new([0; N]);
        E::Rt::thread_rng().fill_bytes(&mut *bytes);
        bytes
    }

    pub(super) fn cost(&self) -> Cost {
        self.options.accounts.cost
    }

    /// Does something with a password when it is its turn.
    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let busy = || refused(Code::Limit, "too many people log in at this time", "try again in a few seconds");
        let turn = self.hashes.take().await.ok_or_else(busy)?;
        // The turn is over when the work is, whether or not anybody waits for it.
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        let done = self.env.hashing(work).await;
        done.ok_or_else(|| refused(Code::Unknown, "the master panicked over a password", "try again"))
    }

    /// The verifier of a new password.
    pub(super) async fn verifier(&self, password: Secret) -> Result<String, ApiError> {
        check_length(&password)?;
        let (salt, cost) = (self.random::<16>(), self.cost());
        let made = self.hashing(move || password::verifier(&password, &salt, cost)).await?;
        made.ok_or_else(|| refused(Code::Invalid, "the cost of passwords is impossible", "see --password-cost"))
    }

    /// Whether a password is right, for a user who may not even be there.
    async fn is_right(&self, password: Secret, verifier: String) -> Result<bool, ApiError> {
        let cost = self.cost();
        self.hashing(move || password::is_right(&password, &verifier, cost)).await
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a try, before it is made.
    fn may_try(&self, user: &str, from: &str) -> Result<(), ApiError> {
        self.attempts().begin(user, from, self.now().mono).map_err(too_many)
    }

    /// A password that was tried: whether it is that of a user who may log in. Failures count, and wait.
    async fn tried(&self, user: &str, from: &str, password: Secret) -> Result<Arc<wire::UserRecord>, ApiError> {
        let begun = clock::now::<E::Rt>();
        self.may_try(user, from)?;
        let known = self.log.read_stale(|replica| replica.state.access().user(user).cloned());
        let verifier = known.as_ref().map(|user| user.verifier.clone()).unwrap_or_default();
        let right = self.is_right(password, verifier).await?;
        if let Some(known) = known.filter(|known| right && !known.disabled) {
            self.attempts().succeeded(user, from, self.now().mono);
            return Ok(known);
        }
        E::Rt::sleep_until(begun + FAILED_AFTER).await;
        Err(wrong())
    }

    /// An access token for a session.
    fn signed(&self, session: u64) -> Option<(Secret, Arc<wire::SessionRecord>, Arc<wire::UserRecord>, u64)> {
        let now_s = self.time_ms() / 1000;
        self.log.read_stale(|replica| {
            let access = replica.state.access();
            let session = access.session(session)?.clone();
            let user = access.user(&session.user)?.clone();
            let key = access.signing_key()?;
            let claims = Claims::new(replica.state.cluster(), &user.name, &user.role, session.id, now_s);
            let signed = token::sign(&claims, &key.kid, &key.secret)?;
            Some((signed, session, user, claims.exp * 1000))
        })
    }

    fn tokens(&self, session: u64, next: &Zeroizing<[u8; 32]>) -> Result<api::TokenResponse, ApiError> {
        let ended = || refused(Code::Unauthenticated, "the session has ended", "log in again");
        let (signed, session, user, expires_ms) = self.signed(session).ok_or_else(ended)?;
        Ok(api::TokenResponse {
            access_token: signed.expose().to_string(),
            expires_ms,
            refresh_token: word::make(word::Kind::Refresh, session.id, next).expose().to_string(),
            session_expires_ms: session.expires_ms,
            must_change: user.must_change,
            user: user.name.clone(),
        })
    }
}

impl<E: MasterEnv> MasterNode<E> {
    /// `Access.Login`, from this address.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`], [`Code::Limit`], or that this master does not lead.
    pub async fn login(&self, from: &str, request: api::LoginRequest) -> Result<api::TokenResponse, ApiError> {
        let (inner, name, password) = (&self.inner, request.user, Secret::from(request.password));
        if name.len() > SHORT_NAME_BYTES || password.expose().len() > *BYTES.end() {
            return Err(wrong());
        }
        // Before anything that costs the cluster more than this master.
        inner.attempts().check(&name, from, inner.now().mono).map_err(too_many)?;
        self.confirm().await?;
        let user = match inner.tried(&name, from, password.clone()).await {
            Ok(user) => user,
            Err(why) => {
                // Somebody may have typed a password as the name.
                let is_known = inner.log.read_stale(|replica| replica.state.access().user(&name).is_some());
                let name = if is_known { name.as_str() } else { "" };
                self.refusal(name, "", from, "Access/Login", name, &why);
                return Err(why);
            }
        };
        let next = inner.random::<32>();
        let session = wire::SessionRecord {
            user: user.name.clone(),
            secret: word::digest(&next).to_vec().into(),
            label: request.label,
            ..Default::default()
        };
        let open = wire::OpenSession { session: Some(session), verifier: user.verifier.clone() };
        let who = Principal { from: from.into(), ..Principal::with(&user.name, "", Rights::default()) };
        let opened = match inner.propose(&who, Action::OpenSession(open)).await? {
            Outcome::Opened(session) => session,
            Outcome::Refused(no) => return Err(no.into()),
            _ => return Err(senseless()),
        };
        if !inner.cost().made(&user.verifier) {
            self.hash_anew(&user, password).await;
        }
        inner.tokens(opened, &next)
    }

    /// The cost of passwords is another one than when this one was set. That this does not work is no harm.
    async fn hash_anew(&self, user: &wire::UserRecord, password: Secret) {
        let Ok(verifier) = self.inner.verifier(password).await else { return };
        let (name, same_password) = (user.name.clone(), true);
        let (verifier, shown) = (Some(verifier), user.verifier.clone());
        let change = wire::ChangeUser { name, verifier, same_password, shown, ..Default::default() };
        let _ = self.inner.propose(&Principal::system(), Action::ChangeUser(change)).await;
    }

    /// `Access.Refresh`.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`], or that this master does not lead.
    pub async fn refresh(&self, from: &str, request: api::RefreshRequest) -> Result<api::TokenResponse, ApiError> {
        let shown = Secret::from(request.refresh_token);
        let ended = || refused(Code::Unauthenticated, "the session has ended", "log in again");
        let (session, digest) = word::read(word::Kind::Refresh, shown.expose()).ok_or_else(ended)?;
        self.confirm().await?;
        // Who has neither of the last two words is not worth an entry of the log.
        let known = self.inner.log.read_stale(|replica| replica.state.access().session(session).cloned());
        let known = known.filter(|known| word::same(&known.secret, &digest) || word::same(&known.before, &digest));
        let user = known.ok_or_else(ended)?.user.clone();
        let next = self.inner.random::<32>();
        let refresh =
            wire::RefreshSession { session, shown: digest.to_vec().into(), next: word::digest(&next).to_vec().into() };
        match self.inner.propose(&Principal::system(), Action::RefreshSession(refresh)).await? {
            Outcome::Opened(session) => self.inner.tokens(session, &next),
            Outcome::Refused(no) => {
                let why = ApiError::from(no);
                self.refusal(&user, &format!("{session:x}"), from, "Access/Refresh", &user, &why);
                Err(why)
            }
            _ => Err(senseless()),
        }
    }

    /// `Access.Logout`. Of whoever has no session, nothing ends: of a service account neither, with `all` or without.
    ///
    /// # Errors
    /// That this master does not lead, or that it is not known whether it was done.
    pub async fn logout(&self, who: &Principal, request: api::LogoutRequest) -> Result<api::LogoutResponse, ApiError> {
        if who.session == 0 {
            return Ok(api::LogoutResponse { sessions: 0 });
        }
        self.confirm().await?;
        let name = who.name.to_string();
        if request.all && self.is_token(who.session) {
            let what = "a token for machines ends no other session";
            return Err(refused(Code::Denied, what, "log in with `gristmill login`"));
        }
        let sessions = match request.all {
            true => self.inner.log.read_stale(|replica| replica.state.access().sessions_of(&name).count()),
            false => 1,
        };
        let session = if request.all { 0 } else { who.session };
        let end = wire::EndSessions { session, user: name };
        match self.inner.propose(who, Action::EndSessions(end)).await? {
            Outcome::Refused(no) => Err(no.into()),
            _ => Ok(api::LogoutResponse { sessions: sessions as u32 }),
        }
    }

    /// `Access.WhoAmI`.
    pub fn who_am_i(&self, who: &Principal) -> api::WhoAmIResponse {
        let quota = self.inner.log.read_stale(|replica| replica.state.access().quota(&who.name));
        api::WhoAmIResponse {
            user: who.name.to_string(),
            role: who.role.to_string(),
            rights: who.rights.names().map(String::from).collect(),
            session: if who.session == 0 { String::new() } else { format!("{:x}", who.session) },
            expires_ms: if who.session == 0 { 0 } else { who.expires_ms },
            must_change: who.must_change,
            prefix: who.prefix.to_string(),
            quota: Some(quota),
        }
    }

    /// `Access.ChangePassword`.
    ///
    /// # Errors
    /// That the old one is wrong or the new one none, or that this master does not lead.
    pub async fn change_password(
        &self,
        who: &Principal,
        request: api::ChangePasswordRequest,
    ) -> Result<api::ChangePasswordResponse, ApiError> {
        let (old, new) = (Secret::from(request.old_password), Secret::from(request.new_password));
        self.confirm().await?;
        if who.session == 0 || self.is_token(who.session) {
            let what = "a password is changed by whoever has logged in with it";
            return Err(refused(Code::Denied, what, "log in with `gristmill login`"));
        }
        check_length(&new)?;
        if old == new {
            return Err(refused(Code::Invalid, "the new password is the old one", "take another one"));
        }
        let shown = match self.inner.tried(&who.name, &who.from, old).await {
            Ok(user) => user.verifier.clone(),
            Err(why) => {
                self.denied(who, "Access/ChangePassword", &who.name, &why);
                return Err(why);
            }
        };
        let change = wire::ChangeUser {
            name: who.name.to_string(),
            verifier: Some(self.inner.verifier(new).await?),
            must_change: Some(false),
            keep_session: who.session,
            shown,
            ..Default::default()
        };
        match self.inner.propose(who, Action::ChangeUser(change)).await? {
            Outcome::Refused(no) => Err(no.into()),
            _ => Ok(api::ChangePasswordResponse {}),
        }
    }

    /// Whether a session is a token for machines.
    pub(super) fn is_token(&self, session: u64) -> bool {
        self.inner.log.read_stale(|replica| replica.state.access().session(session).is_some_and(|s| s.token))
    }

    /// `Access.Register`.
    ///
    /// # Errors
    /// That nobody may, that the name is taken or none, or that this master does not lead.
    pub async fn register_user(
        &self,
        from: &str,
        request: api::RegisterRequest,
    ) -> Result<api::RegisterResponse, ApiError> {
        let (name, password) = (request.user, Secret::from(request.password));
        self.confirm().await?;
        // Each counts as a failure: names are not to be tried, nor the state to be filled.
        self.inner.may_try(&format!(" registers from {from}"), from)?;
        if !self.inner.log.read_stale(|replica| replica.state.access().registration()) {
            return Err(refused(Code::Denied, "nobody may register here", "ask an administrator for a user"));
        }
        let verifier = self.inner.verifier(password).await?;
        let user = wire::UserRecord { name: name.clone(), verifier, ..Default::default() };
        let add = wire::AddUser { user: Some(user), registers: true, ..Default::default() };
        let who = Principal { from: from.into(), ..Principal::system() };
        match self.inner.propose(&who, Action::AddUser(add)).await? {
            Outcome::Refused(no) => Err(no.into()),
            _ => Ok(api::RegisterResponse {}),
        }
    }

    /// `Access.Validate`.
    ///
    /// # Errors
    /// That this master cannot know.
    pub async fn validate(&self, request: api::ValidateRequest) -> Result<api::ValidateResponse, ApiError> {
        let token = Secret::from(request.token);
        match self.authenticate(token.expose()).await {
            Ok(who) => Ok(api::ValidateResponse {
                active: true,
                user: who.name.to_string(),
                role: who.role.to_string(),
                rights: who.rights.names().map(String::from).collect(),
                expires_ms: who.expires_ms,
            }),
            Err(ApiError::Refused { code: Code::Unauthenticated, .. }) => Ok(api::ValidateResponse::default()),
            Err(e) => Err(e),
        }
    }

    /// `Access.Jwks`.
    pub fn jwks(&self) -> api::JwksResponse {
        let now_ms = self.inner.time_ms();
        let jwk = |key: &wire::SigningKeyRecord| api::Jwk {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: URL_SAFE_NO_PAD.encode(&key.public),
            kid: key.kid.clone(),
            alg: "EdDSA".into(),
            r#use: "sig".into(),
        };
        let keys = self.inner.log.read_stale(|replica| replica.state.access().keys(now_ms).map(jwk).collect());
        api::JwksResponse { keys }
    }
}
