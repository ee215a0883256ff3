//! Commands about users, roles, keys and the policy.
//!
//! Whoever proposes one has decided that its principal may; that nobody gives another more than one has, and that an
//! administrator remains, is looked at here, where commands are one after the other.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::internal::v1::reply::Outcome;
use imbl::OrdMap;

use super::{ACCEPTED, ALREADY, Decision, Step, refused};
use crate::control::limits;
use crate::control::rights::{self, Right, Rights};
use crate::control::state::State;
use crate::control::task::cut;

pub(super) fn no_user(name: &str) -> wire::Refused {
    refused(Code::NotFound, format!("there is no user {name:?}"), "see `gristmill user ls`")
}

/// Whether a user or role may be called so.
fn check_name(name: &str) -> Decision<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let reserved = matches!(name, rights::ANONYMOUS | rights::SYSTEM | "shared");
    let good = name.bytes().all(plain) && name.starts_with(|c: char| c.is_ascii_lowercase());
    if good && name.len() <= limits::SHORT_NAME_BYTES && !reserved {
        return Ok(());
    }
    let rule = "a name has small letters, digits, '-', '_' and '.', at most 64, begins with a letter, and is none of anonymous, system, shared";
    Err(refused(Code::Invalid, format!("nobody can be called {name:?}"), rule))
}

fn check_prefix(prefix: &str) -> Decision<()> {
    let inner = prefix.strip_suffix('/').unwrap_or_default();
    let parts = inner.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let theirs = inner.starts_with('.') || prefix.starts_with(rights::SHARED);
    if parts && !theirs && prefix.len() <= limits::NAME_BYTES / 2 {
        return Ok(());
    }
    Err(refused(
        Code::Invalid,
        format!("{prefix:?} is no prefix of files"),
        "name a folder, as in \"ann/\", but not shared/",
    ))
}

/// Whether a service account can be called so: a namespace is a label of DNS and a name some of them (RFC 1123).
fn check_account(account: &str) -> Decision<()> {
    let label = |part: &str| {
        let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    let good = |(namespace, name): (&str, &str)| {
        label(namespace) && namespace.len() <= 63 && name.split('.').all(label) && name.len() <= 253
    };
    if account.len() <= limits::ACCOUNT_BYTES && account.split_once('/').is_some_and(good) {
        return Ok(());
    }
    let message = format!("{:?} is no service account", cut(account.to_string(), limits::LONG_NAME_BYTES));
    Err(refused(Code::Invalid, message, "name it as NAMESPACE/NAME, as in \"batch/loader\""))
}

impl State {
    pub(super) fn add_user(&mut self, step: &Step, add: wire::AddUser) -> Decision<Outcome> {
        let mut user = add.user.unwrap_or_default();
        check_name(&user.name)?;
        if add.first && self.access.has_administrator() {
            return Ok(ALREADY);
        }
        let given = !user.role.is_empty() || !user.service_account.is_empty();
        if add.registers && (!self.access.registration || given) {
            return Err(refused(Code::Denied, "nobody may register here".into(), "ask an administrator for a user"));
        }
        if self.access.users.contains_key(user.name.as_str()) {
            return Err(refused(Code::Conflict, format!("there is a user {:?}", user.name), "take another name"));
        }
        if self.access.users.len() >= limits::USERS {
            let message = format!("there are {} users", limits::USERS);
            return Err(refused(Code::Limit, message, "remove those that are not needed"));
        }
        if user.prefix.is_empty() {
            user.prefix = format!("{}/", user.name);
        }
        self.check_prefix(step, &user)?;
        if !add.first && !add.registers {
            self.check_gives(step, &user.role)?;
        }
        self.check_binds(&user.name, &user.service_account)?;
        if let Some(key) = add.key.filter(|_| self.access.keys.is_empty()) {
            self.insert_key(key);
        }
        user.created_ms = self.now_ms;
        self.access.insert_user(user);
        Ok(ACCEPTED)
    }

    pub(super) fn change_user(&mut self, step: &Step, change: wire::ChangeUser) -> Decision<Outcome> {
        let before = self.access.users.get(change.name.as_str()).cloned();
        let before = before.ok_or_else(|| no_user(&change.name))?;
        let mut user = (*before).clone();
        self.check_verifier(step, &user, &change)?;
        if let Some(role) = change.role {
            self.check_gives(step, &role)?;
            self.check_takes(step, &user.role)?;
            user.role = role;
        }
        if change.disabled.is_some() || change.quota.is_some() || change.prefix.is_some() {
            self.check_takes(step, &user.role)?;
        }
        user.disabled = change.disabled.unwrap_or(user.disabled);
        user.quota = change.quota.or(user.quota);
        if let Some(prefix) = change.prefix {
            user.prefix = prefix;
            self.check_prefix(step, &user)?;
        }
        if let Some(account) = change.service_account {
            // Whoever has the account has all that the user may, who asks with less than that at times.
            self.check_takes(step, &user.role)?;
            self.check_binds(&user.name, &account)?;
            user.service_account = account;
        }
        user.verifier = change.verifier.unwrap_or(user.verifier);
        user.must_change = change.must_change.unwrap_or(user.must_change);
        if user == *before {
            return Ok(ALREADY);
        }
        self.check_admin_remains(&user.name, Some(&user))?;
        let other = before.role != user.role || before.service_account != user.service_account;
        let ends = other || user.disabled || (before.verifier != user.verifier && !change.same_password);
        if ends {
            self.access.end_sessions(&user.name, change.keep_session);
        }
        self.access.insert_user(user);
        Ok(ACCEPTED)
    }

    /// Who may give a user this verifier: whoever has just shown the password that the user has still, in a session that is
    /// no machine's; or who may take the user's role, even if that is one's own, of which a token may have less.
    fn check_verifier(&self, step: &Step, user: &wire::UserRecord, change: &wire::ChangeUser) -> Decision<()> {
        if change.verifier.is_none() && change.must_change.is_none() {
            return Ok(());
        }
        let of_session = |session: &Arc<wire::SessionRecord>| session.user == user.name && !session.token;
        let own = change.keep_session != 0
            && change.keep_session == step.session
            && self.access.sessions.get(&step.session).is_some_and(of_session);
        if own || change.same_password {
            return if change.shown == user.verifier { Ok(()) } else { Err(super::sessions::gone()) };
        }
        self.check_takes(step, &user.role)
    }

    /// That a prefix is one, is not mixed up with another user's, and, if it is not the name, is given by somebody to whom
    /// all files are open.
    fn check_prefix(&self, step: &Step, user: &wire::UserRecord) -> Decision<()> {
        check_prefix(&user.prefix)?;
        if user.prefix != format!("{}/", user.name) {
            self.check_has(step, Rights::these(&[Right::DataReadAny, Right::DataWriteAny]))?;
        }
        let mixed = |other: &&Arc<wire::UserRecord>| {
            let within = other.prefix.starts_with(&user.prefix) || user.prefix.starts_with(&other.prefix);
            other.name != user.name && within
        };
        match self.access.users.values().find(mixed) {
            Some(other) => {
                let message =
                    format!("{} and {} of {} are one within the other", user.prefix, other.prefix, other.name);
                Err(refused(Code::Conflict, message, "take another prefix, or another name"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn remove_user(&mut self, step: &Step, name: &str) -> Decision<Outcome> {
        let user = self.access.users.get(name).cloned().ok_or_else(|| no_user(name))?;
        self.check_takes(step, &user.role)?;
        self.check_admin_remains(name, None)?;
        self.access.end_sessions(name, 0);
        self.access.remove_user(name);
        Ok(ACCEPTED)
    }

    /// That a user may have this service account: nobody else has it.
    fn check_binds(&self, user: &str, account: &str) -> Decision<()> {
        if account.is_empty() {
            return Ok(());
        }
        check_account(account)?;
        match self.access.accounts.get(account) {
            Some(other) if **other != *user => {
                let message = format!("the service account {account} is {other}'s");
                Err(refused(Code::Conflict, message, "take it from that user first"))
            }
            _ => Ok(()),
        }
    }

    /// That whoever asks has all that a role allows: nobody gives more than that, nor a role that is none.
    fn check_gives(&self, step: &Step, role: &str) -> Decision<()> {
        if !role.is_empty() && !self.access.has_role(role) {
            return Err(refused(Code::NotFound, format!("there is no role {role:?}"), "see `gristmill role ls`"));
        }
        self.check_has(step, self.access.rights_of(role))
    }

    /// The same for a role that is taken from somebody, or whose password is set.
    pub(super) fn check_takes(&self, step: &Step, role: &str) -> Decision<()> {
        self.check_has(step, self.access.rights_of(role))
    }

    fn check_has(&self, step: &Step, needed: Rights) -> Decision<()> {
        let theirs = match &*step.principal {
            rights::SYSTEM | rights::ANONYMOUS => Rights::ALL,
            // There is no session that could have ended: the user is looked at instead.
            name if step.account && step.session == 0 => {
                self.access.by_account(name).map(|who| who.rights).unwrap_or_default()
            }
            // A machine's token may be good for less than its user.
            _ => self.access.principal(step.session, self.now_ms).map(|who| who.rights).unwrap_or_default(),
        };
        match needed.names().find(|name| !Right::of(name).is_some_and(|right| theirs.has(right))) {
            Some(lacks) => {
                let message = format!("it takes the right {lacks} to give or take it");
                Err(refused(Code::Denied, message, "ask somebody who has it"))
            }
            None => Ok(()),
        }
    }

    /// That after this change somebody may still manage users.
    fn check_admin_remains(&self, name: &str, after: Option<&wire::UserRecord>) -> Decision<()> {
        let manages = |user: &wire::UserRecord| !user.disabled && self.access.rights_of(&user.role) == Rights::ALL;
        let was = self.access.users.get(name).is_some_and(|user| manages(user));
        let others = || self.access.users.values().any(|user| user.name != name && manages(user));
        if was && !after.is_some_and(manages) && !others() {
            let message = format!("{name} is the last administrator");
            return Err(refused(Code::State, message, "give somebody else the role admin first"));
        }
        Ok(())
    }

    pub(super) fn put_role(&mut self, step: &Step, role: &wire::RoleRecord) -> Decision<Outcome> {
        check_name(&role.name)?;
        if rights::built_in(&role.name).is_some() {
            return Err(refused(Code::Conflict, format!("role {} is built in", role.name), "take another name"));
        }
        let rights = Rights::of(role.rights.iter().map(String::as_str)).map_err(|name| {
            refused(Code::Invalid, format!("there is no right {name:?}"), "see `gristmill role rights`")
        })?;
        self.check_has(step, rights)?;
        self.check_has(step, self.access.rights_of(&role.name))?;
        let whole = self.access.rights_of(&role.name) == Rights::ALL && rights != Rights::ALL;
        let manages = |user: &&Arc<wire::UserRecord>| {
            !user.disabled && user.role != role.name && self.access.rights_of(&user.role) == Rights::ALL
        };
        if whole && !self.access.users.values().any(|user| manages(&user)) {
            let message = format!("without all rights in {} there is no administrator", role.name);
            return Err(refused(Code::State, message, "give somebody the role admin first"));
        }
        let is_new = !self.access.roles.contains_key(role.name.as_str());
        if is_new && self.access.roles.len() >= limits::ROLES {
            let message = format!("there are {} roles", limits::ROLES);
            return Err(refused(Code::Limit, message, "remove those that are not needed"));
        }
        match self.access.roles.insert(role.name.as_str().into(), rights) {
            Some(before) if before == rights => Ok(ALREADY),
            _ => Ok(ACCEPTED),
        }
    }

    pub(super) fn remove_role(&mut self, step: &Step, name: &str) -> Decision<Outcome> {
        if !self.access.roles.contains_key(name) {
            let message = format!("there is no role {name:?} that can be removed");
            return Err(refused(Code::NotFound, message, "see `gristmill role ls`"));
        }
        self.check_takes(step, name)?;
        if let Some(user) = self.access.users.values().find(|user| user.role == name) {
            let message = format!("{} has the role {name}", user.name);
            return Err(refused(Code::State, message, "give those who have it another role first"));
        }
        self.access.roles.remove(name);
        Ok(ACCEPTED)
    }

    pub(super) fn rotate_keys(&mut self, rotate: wire::RotateKeys) -> Decision<Outcome> {
        let key = rotate.key.unwrap_or_default();
        if key.kid.is_empty() || key.public.len() != 32 || self.access.keys.contains_key(key.kid.as_str()) {
            return Err(refused(Code::Invalid, "the key makes no sense".into(), "try again"));
        }
        let now_ms = self.now_ms;
        self.access.forget_ended(now_ms);
        if rotate.at_once {
            self.access.keys = OrdMap::new();
        }
        if self.access.keys.len() >= limits::SIGNING_KEYS {
            let message = format!("{} keys have been made within an hour", limits::SIGNING_KEYS);
            return Err(refused(Code::Limit, message, "wait until earlier ones have expired, or rotate at once"));
        }
        let until = now_ms.saturating_add(limits::KEY_OVERLAP_MS);
        let signing = self.access.signing_key().map(|key| wire::SigningKeyRecord { expires_ms: until, ..key.clone() });
        if let Some(before) = signing {
            self.access.keys.insert(before.kid.as_str().into(), Arc::new(before));
        }
        self.insert_key(key);
        Ok(ACCEPTED)
    }

    fn insert_key(&mut self, mut key: wire::SigningKeyRecord) {
        (key.created_ms, key.expires_ms) = (self.now_ms, 0);
        key.kid = cut(key.kid, limits::SHORT_NAME_BYTES);
        self.access.keys.insert(key.kid.as_str().into(), Arc::new(key));
    }

    pub(super) fn set_policy(&mut self, policy: wire::PolicyRecord) -> Decision<Outcome> {
        let before = std::mem::replace(&mut self.access.registration, policy.registration);
        Ok(if before == policy.registration { ALREADY } else { ACCEPTED })
    }
}
