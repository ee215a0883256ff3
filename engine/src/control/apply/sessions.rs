//! Commands about sessions and tokens for machines.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::internal::v1::reply::Outcome;

use super::access::no_user;
use super::{ACCEPTED, ALREADY, Decision, Step, refused};
use crate::auth::word;
use crate::control::limits;
use crate::control::rights::SYSTEM;
use crate::control::state::State;
use crate::control::task::cut;

/// The same whatever is wrong with a session.
pub(super) fn gone() -> wire::Refused {
    refused(Code::Unauthenticated, "the session has ended".into(), "log in again")
}

impl State {
    pub(super) fn open_session(&mut self, step: &Step, open: wire::OpenSession) -> Decision<Outcome> {
        let mut session = open.session.unwrap_or_default();
        let user = self.access.users.get(session.user.as_str()).ok_or_else(|| no_user(&session.user))?;
        // It may have been disabled, or have got another password, while this one was looked at.
        if user.disabled || (!session.token && user.verifier != open.verifier) {
            return Err(gone());
        }
        if session.token && *step.principal != *SYSTEM {
            // Who asks may have ended since; and what a token could make would outlive it.
            let parent = self.access.sessions.get(&step.session).filter(|parent| parent.user == session.user);
            if !parent.is_some_and(|parent| !parent.token && parent.expires_ms > self.now_ms) {
                return Err(gone());
            }
        }
        if session.secret.len() != 32 {
            return Err(refused(Code::Invalid, "the session has no secret".into(), ""));
        }
        if !session.role.is_empty() && !self.access.has_role(&session.role) {
            let message = format!("there is no role {:?}", session.role);
            return Err(refused(Code::NotFound, message, "see `gristmill role ls`"));
        }
        let now_ms = self.now_ms;
        self.access.forget_ended(now_ms);
        let alike = self.access.sessions_of(&session.user).filter(|other| other.token == session.token);
        let alike: Vec<u64> = alike.map(|other| other.id).collect();
        match alike.first() {
            Some(oldest) if alike.len() >= limits::SESSIONS_OF_A_USER && !session.token => {
                self.access.end_session(*oldest);
            }
            Some(_) if alike.len() >= limits::SESSIONS_OF_A_USER => {
                let message = format!("{} has {} tokens", session.user, alike.len());
                return Err(refused(Code::Limit, message, "end those that are not needed"));
            }
            _ => {}
        }
        if self.access.sessions.len() >= limits::SESSIONS {
            let message = format!("there are {} sessions", limits::SESSIONS);
            return Err(refused(Code::Limit, message, "try again later"));
        }
        let holds_ms = session.expires_ms.saturating_sub(now_ms);
        session.expires_ms = match session.token {
            true => now_ms.saturating_add(holds_ms.clamp(*limits::TOKEN_MS.start(), *limits::TOKEN_MS.end())),
            false => now_ms.saturating_add(limits::SESSION_MS),
        };
        (session.id, session.created_ms, session.used_ms) = (step.index, now_ms, now_ms);
        session.before = bytes::Bytes::new();
        session.label = cut(session.label, limits::LONG_NAME_BYTES);
        self.access.insert_session(session);
        Ok(Outcome::Opened(step.index))
    }

    /// A word is good for once, and that before the last for a moment: whoever shows an older one has it from somebody
    /// else, or somebody else has this one's.
    pub(super) fn refresh_session(&mut self, refresh: wire::RefreshSession) -> Decision<Outcome> {
        let now_ms = self.now_ms;
        let principal = self.access.principal(refresh.session, now_ms);
        let session = self.access.sessions.get(&refresh.session).filter(|session| !session.token && principal.is_ok());
        let mut session = wire::SessionRecord::clone(session.ok_or_else(gone)?);
        let is_last = word::same(&session.secret, &refresh.shown);
        let is_before = word::same(&session.before, &refresh.shown);
        let again = is_before && now_ms < session.used_ms.saturating_add(limits::REFRESH_AGAIN_MS);
        if refresh.next.len() != 32 || !(is_last || again) {
            if is_before {
                self.access.end_session(session.id);
            }
            return Err(gone());
        }
        if is_last {
            session.before = session.secret;
            session.used_ms = now_ms;
        }
        session.secret = refresh.next;
        self.access.sessions.insert(session.id, Arc::new(session));
        Ok(Outcome::Opened(refresh.session))
    }

    pub(super) fn end_sessions(&mut self, step: &Step, end: &wire::EndSessions) -> Decision<Outcome> {
        let role = self.access.users.get(end.user.as_str()).map(|user| user.role.clone()).unwrap_or_default();
        if *step.principal != *end.user {
            self.check_takes(step, &role)?;
        }
        let ended = match end.session {
            0 => self.access.end_sessions(&end.user, 0),
            id => {
                let of_user = self.access.sessions.get(&id).is_some_and(|session| session.user == end.user);
                u32::from(of_user && self.access.end_session(id))
            }
        };
        Ok(if ended == 0 { ALREADY } else { ACCEPTED })
    }
}
