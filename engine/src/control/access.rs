//! Who is known to the cluster: users, their sessions and tokens, roles, the keys that sign tokens, and the audit log. A part
//! of the replicated state; `apply/access` and `apply/sessions` are its only writers.
//!
//! Nothing here is cached: a user who is gone has no session, and a token is as good as its session. What a principal may
//! do is looked up with each call.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1 as api;
use imbl::{OrdMap, OrdSet};

use super::limits;
use super::rights::{self, Principal, Rights};
use crate::auth::word;

/// Events of one command have numbers from its index times this.
pub(super) const EVENTS_OF_A_COMMAND: u64 = 4_096;

/// Who is known. [`Access::default`] is nobody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub(super) users: OrdMap<Arc<str>, Arc<wire::UserRecord>>,
    pub(super) sessions: OrdMap<u64, Arc<wire::SessionRecord>>,
    /// Those that are not built in.
    pub(super) roles: OrdMap<Arc<str>, Rights>,
    pub(super) keys: OrdMap<Arc<str>, Arc<wire::SigningKeyRecord>>,
    pub(super) registration: bool,
    /// Events that are not in the store yet, by their numbers.
    pub(super) audit: OrdMap<u64, Arc<api::AuditEvent>>,
    // What follows is derived from the above.
    /// Sessions by user.
    pub(super) sessions_of: OrdSet<(Arc<str>, u64)>,
    /// Sessions by when they end.
    pub(super) ends: OrdSet<(u64, u64)>,
    /// Users by the service accounts whose tokens are theirs.
    pub(super) accounts: OrdMap<Arc<str>, Arc<str>>,
}

/// Why a token that was once good is so no more. What is told of it is the same for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Access {
    /// A user.
    pub fn user(&self, name: &str) -> Option<&Arc<wire::UserRecord>> {
        self.users.get(name)
    }

    /// All users by name, from after this one on.
    pub fn users_after(&self, name: &str) -> impl Iterator<Item = &Arc<wire::UserRecord>> {
        let from = (std::ops::Bound::Excluded(Arc::<str>::from(name)), std::ops::Bound::Unbounded);
        self.users.range(from).map(|(_, user)| user)
    }

    /// Whether somebody may do everything, and so manage the others.
    pub fn has_administrator(&self) -> bool {
        self.users.values().any(|user| !user.disabled && self.rights_of(&user.role) == Rights::ALL)
    }

    /// A session or machine's token.
    pub fn session(&self, id: u64) -> Option<&Arc<wire::SessionRecord>> {
        self.sessions.get(&id)
    }

    /// Those of a user, oldest first.
    pub fn sessions_of(&self, user: &str) -> impl Iterator<Item = &Arc<wire::SessionRecord>> {
        let name: Arc<str> = user.into();
        let range = (name.clone(), 0)..=(name, u64::MAX);
        self.sessions_of.range(range).filter_map(|(_, id)| self.sessions.get(id))
    }

    /// What a role allows; nothing if there is none of this name.
    pub fn rights_of(&self, role: &str) -> Rights {
        rights::built_in(role).or_else(|| self.roles.get(role).copied()).unwrap_or_default()
    }

    /// Whether there is such a role.
    pub fn has_role(&self, role: &str) -> bool {
        rights::built_in(role).is_some() || self.roles.contains_key(role)
    }

    /// Roles that are not built in, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, Rights)> {
        self.roles.iter().map(|(name, rights)| (name.as_ref(), *rights))
    }

    /// Whether whoever can reach a master may become a user.
    pub fn registration(&self) -> bool {
        self.registration
    }

    /// The key that signs now.
    pub fn signing_key(&self) -> Option<&wire::SigningKeyRecord> {
        self.keys.values().find(|key| key.expires_ms == 0).map(Arc::as_ref)
    }

    /// Keys whose signatures hold at this time.
    pub fn keys(&self, now_ms: u64) -> impl Iterator<Item = &wire::SigningKeyRecord> {
        self.keys.values().map(Arc::as_ref).filter(move |key| key.expires_ms == 0 || key.expires_ms > now_ms)
    }

    /// The public key of this number, if its signatures hold at this time.
    pub fn public_key(&self, kid: &str, now_ms: u64) -> Option<&[u8]> {
        let key = self.keys.get(kid).filter(|key| key.expires_ms == 0 || key.expires_ms > now_ms)?;
        Some(&key.public)
    }

    /// Events that are not in the store yet, oldest first, from this number on.
    pub fn events_from(&self, id: u64) -> impl Iterator<Item = &Arc<api::AuditEvent>> {
        self.audit.range(id..).map(|(_, event)| event)
    }

    /// How many there are.
    pub fn events(&self) -> usize {
        self.audit.len()
    }

    /// Who has this session, at this time.
    ///
    /// # Errors
    /// [`Gone`]: it has ended, or its user may not be here.
    pub fn principal(&self, session: u64, now_ms: u64) -> Result<Principal, Gone> {
        let session = self.sessions.get(&session).filter(|session| session.expires_ms > now_ms).ok_or(Gone)?;
        let user = self.users.get(session.user.as_str()).filter(|user| !user.disabled).ok_or(Gone)?;
        let mut rights = self.rights_of(&user.role);
        let mut role = &user.role;
        if !session.role.is_empty() {
            rights = rights.both(self.rights_of(&session.role));
            role = &session.role;
        }
        if user.must_change {
            rights = Rights::default();
        }
        Ok(Principal {
            name: user.name.as_str().into(),
            role: role.as_str().into(),
            rights,
            session: session.id,
            account: "".into(),
            prefix: user.prefix.as_str().into(),
            must_change: user.must_change,
            expires_ms: session.expires_ms,
            from: "".into(),
        })
    }

    /// Who has this machine's token, at this time.
    ///
    /// # Errors
    /// As [`Access::principal`]; that it is no token of the cluster's.
    pub fn machine(&self, session: u64, digest: &[u8; 32], now_ms: u64) -> Result<Principal, Gone> {
        let of_machine = self.sessions.get(&session).filter(|session| session.token);
        of_machine.filter(|session| word::same(&session.secret, digest)).ok_or(Gone)?;
        self.principal(session, now_ms)
    }

    /// Who a service account is; whoever asks has proved to be it. What is true of passwords does not matter.
    ///
    /// # Errors
    /// [`Gone`]: it is nobody's, or its user may not be here.
    pub fn of_account(&self, account: &str) -> Result<Principal, Gone> {
        let name = self.accounts.get(account).ok_or(Gone)?;
        self.by_account(name)
    }

    /// A user who came with the token of a service account.
    pub(super) fn by_account(&self, name: &str) -> Result<Principal, Gone> {
        let here = |user: &&Arc<wire::UserRecord>| !user.disabled && !user.service_account.is_empty();
        let user = self.users.get(name).filter(here).ok_or(Gone)?;
        Ok(Principal {
            account: user.service_account.as_str().into(),
            prefix: user.prefix.as_str().into(),
            ..Principal::with(&user.name, &user.role, self.rights_of(&user.role))
        })
    }

    /// Whether somebody of this name may ask for something now: what was decided before is looked at once more where it is
    /// applied. Where nobody is known, and to whoever needs no login, all is allowed.
    pub(super) fn is_here(&self, name: &str) -> bool {
        let nobodys = self.users.is_empty() || matches!(name, rights::ANONYMOUS | rights::SYSTEM);
        nobodys || self.users.get(name).is_some_and(|user| !user.disabled)
    }

    /// A user's quota.
    pub fn quota(&self, name: &str) -> api::Quota {
        self.users.get(name).and_then(|user| user.quota).unwrap_or_default()
    }

    /// Puts a user in the place of the one of this name, if there is one.
    pub(super) fn insert_user(&mut self, user: wire::UserRecord) {
        let name: Arc<str> = user.name.as_str().into();
        self.release_account(&name);
        if !user.service_account.is_empty() {
            self.accounts.insert(user.service_account.as_str().into(), name.clone());
        }
        self.users.insert(name, Arc::new(user));
    }

    /// Removes a user, whose sessions are another matter.
    pub(super) fn remove_user(&mut self, name: &str) {
        self.release_account(name);
        self.users.remove(name);
    }

    fn release_account(&mut self, name: &str) {
        if let Some(user) = self.users.get(name).cloned() {
            self.accounts.remove(user.service_account.as_str());
        }
    }

    pub(super) fn insert_session(&mut self, session: wire::SessionRecord) {
        self.sessions_of.insert((session.user.as_str().into(), session.id));
        self.ends.insert((session.expires_ms, session.id));
        self.sessions.insert(session.id, Arc::new(session));
    }

    pub(super) fn end_session(&mut self, id: u64) -> bool {
        let Some(session) = self.sessions.remove(&id) else { return false };
        self.sessions_of.remove(&(session.user.as_str().into(), id));
        self.ends.remove(&(session.expires_ms, id));
        true
    }

    /// Ends all sessions and tokens of a user but this one.
    pub(super) fn end_sessions(&mut self, user: &str, keep: u64) -> u32 {
        let all: Vec<u64> = self.sessions_of(user).map(|session| session.id).filter(|id| *id != keep).collect();
        all.into_iter().map(|id| u32::from(self.end_session(id))).sum()
    }

    /// Forgets sessions and keys whose time is over.
    pub(super) fn forget_ended(&mut self, now_ms: u64) {
        while let Some((ends_ms, id)) = self.ends.get_min().copied().filter(|(ends_ms, _)| *ends_ms <= now_ms) {
            self.ends.remove(&(ends_ms, id));
            self.end_session(id);
        }
        let over = |key: &wire::SigningKeyRecord| key.expires_ms != 0 && key.expires_ms <= now_ms;
        let over: Vec<Arc<str>> = self.keys.iter().filter(|(_, key)| over(key)).map(|(kid, _)| kid.clone()).collect();
        over.iter().for_each(|kid| drop(self.keys.remove(kid)));
    }

    /// Writes an event down. The oldest goes if there are too many: the leader puts them into the store before.
    pub(super) fn note(&mut self, event: api::AuditEvent) {
        self.audit.insert(event.id, Arc::new(event));
        while self.audit.len() > limits::AUDIT {
            let Some(oldest) = self.audit.get_min().map(|(id, _)| *id) else { break };
            self.audit.remove(&oldest);
        }
    }
}
