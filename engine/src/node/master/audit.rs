//! The audit log's way: what users did beside the replicated log, and what was refused to them, goes to who leads; who
//! leads puts the oldest into the store. And the first administrator, without whom nobody could log in.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1 as api;
use gristmill_raft::runtime::{AsyncRuntime as _, Select2};
use prost::Message as _;

use super::api::refused;
use super::{ApiError, Code, Inner, MasterEnv, MasterNode};
use crate::auth::Secret;
use crate::control::apply::bounded;
use crate::control::commit;
use crate::control::limits::{AUDIT, AUDIT_EVENTS, AUDIT_FILE};
use crate::control::rights::Principal;
use crate::node::env::Note;
use crate::node::objects;
use crate::node::rpc::{CallError, Method, Net as _};
use crate::store::{self, Kind};

/// Between two looks whether there is something to do.
const LOOK: Duration = Duration::from_millis(500);
/// Events that are handed over together: at most 2 KiB each, of a command of 1 MiB.
const AT_ONCE: usize = 400;
/// Files of events that are put into the store at one look.
const FILES: usize = 8;
/// How long the leader may take to hear of events.
const WITHIN: Duration = Duration::from_secs(2);
/// The user that is made where there is none.
const FIRST: &str = "admin";

/// Events that wait for their way into the log.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<api::AuditEvent>,
    /// Beyond those that can wait.
    left_out: u32,
}

impl Events {
    /// One more. Those that are alike, one after the other, are one.
    fn push(&mut self, event: api::AuditEvent) {
        let room = self.waiting.len() < AUDIT_EVENTS - 1;
        match self.waiting.back_mut().filter(|last| alike(last, &event)) {
            Some(last) => last.times = last.times.saturating_add(event.times),
            None if room => self.waiting.push_back(event),
            None => self.left_out = self.left_out.saturating_add(event.times),
        }
    }

    /// Some of them, which fit into one command.
    fn take(&mut self, now_ms: u64) -> Vec<api::AuditEvent> {
        let some = self.waiting.len().min(AT_ONCE);
        let mut all: Vec<_> = self.waiting.drain(..some).collect();
        let times = std::mem::take(&mut self.left_out);
        if times > 0 {
            let refused = "more than could be written down".to_string();
            all.push(api::AuditEvent { time_ms: now_ms, refused, times, ..Default::default() });
        }
        all
    }
}

/// Whether two events differ in nothing but when they were.
fn alike(one: &api::AuditEvent, other: &api::AuditEvent) -> bool {
    let of = |e: &api::AuditEvent| api::AuditEvent { time_ms: 0, times: 0, ..e.clone() };
    of(one) == of(other)
}

impl<E: MasterEnv> MasterNode<E> {
    /// Writes down that something was refused.
    pub fn refusal(&self, user: &str, session: &str, from: &str, action: &str, target: &str, why: &ApiError) {
        let why = match why {
            // Nothing was refused; somebody else answers, or the caller tries again.
            ApiError::NotLeader { .. } | ApiError::Refused { code: Code::Unavailable | Code::Unknown, .. } => return,
            ApiError::Refused { message, .. } => message.clone(),
        };
        self.inner.event(api::AuditEvent {
            user: user.into(),
            session: session.into(),
            from: from.into(),
            action: action.into(),
            target: target.into(),
            refused: why,
            ..Default::default()
        });
    }

    /// Writes down that something was refused to somebody who is known.
    pub fn denied(&self, who: &Principal, action: &str, target: &str, why: &ApiError) {
        self.refusal(&who.name, &session(who), &who.from, action, target, why);
    }

    /// Writes down that somebody did something beside the replicated log.
    pub fn done(&self, who: &Principal, action: &str, target: &str) {
        let (user, session, from) = (who.name.to_string(), session(who), who.from.to_string());
        let (action, target) = (action.to_string(), target.to_string());
        self.inner.event(api::AuditEvent { user, session, from, action, target, ..Default::default() });
    }

    /// Takes in what another master has to write down.
    ///
    /// # Errors
    /// That this master does not lead, or that it is not known whether it was done.
    pub async fn note_audit(&self, note: wire::NoteAudit) -> Result<(), CallError> {
        self.inner.propose(&Principal::system(), Action::NoteAudit(note)).await.map(drop)
    }

    /// `Users.Audit`: events from this number on, some at a time, oldest first; nothing when there are no more.
    ///
    /// # Errors
    /// That they cannot be read now, or that this master does not lead.
    pub async fn audit(&self, from: u64) -> Result<Vec<api::AuditEvent>, ApiError> {
        self.confirm().await?;
        let state = self.inner.state();
        let unreadable =
            |e: store::Error| refused(Code::Unavailable, format!("the audit log cannot be read: {e}"), "try again");
        let prefix = commit::audit(state.cluster());
        let env = &self.inner.env;
        let files = objects::patiently::<E::Rt, _, _>(|| store::list_all(env.store(), &prefix)).await;
        // They are named after the last event in them.
        let last = |name: &str| name.rsplit_once('/').and_then(|(_, last)| last.parse::<u64>().ok());
        let files = files.map_err(unreadable)?;
        if let Some((name, _)) = files.iter().find(|(name, _)| last(name.as_str()).is_some_and(|last| last >= from)) {
            let file = objects::whole(env, name.as_str()).await.map_err(unreadable)?;
            let file = wire::AuditFile::decode(&file[..]);
            let file = file.map_err(|e| unreadable(store::Error::new(Kind::Corrupt, format!("{name}: {e}"))))?;
            return Ok(file.events.into_iter().filter(|event| event.id >= from).collect());
        }
        Ok(state.access().events_from(from).take(AUDIT_FILE).map(|event| (**event).clone()).collect())
    }
}

fn session(who: &Principal) -> String {
    if who.session == 0 { String::new() } else { format!("{:x}", who.session) }
}

impl<E: MasterEnv> Inner<E> {
    fn event(&self, event: api::AuditEvent) {
        // Whoever is refused may have named anything.
        let event = bounded(api::AuditEvent { time_ms: self.env.wall_ms(), times: 1, ..event });
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Looks again and again whether there is something to do, until the node ends.
    pub(super) async fn keep_access(self: Arc<Self>) {
        let mut stop = self.stop.listen();
        let mut resets = self.options.accounts.reset.clone();
        while self.log.ended().is_none() {
            // Whoever waits to log in for the first time waits no longer than must be.
            let nobody = self.options.accounts.first && self.log.read_stale(|r| !r.state.access().has_administrator());
            let look = if nobody { LOOK / 10 } else { LOOK };
            if let Select2::First(()) = E::Rt::select2(stop.heard(), E::Rt::sleep(look)).await {
                return;
            }
            self.hand_over().await;
            if self.leading().is_none() || self.state().level() == 0 {
                continue;
            }
            if self.options.accounts.first && !self.state().access().has_administrator() {
                self.make_first().await;
            }
            // Users may have been made where nobody had to log in.
            if self.options.accounts.first && self.state().access().signing_key().is_none() {
                self.make_key().await;
            }
            if let Some(password) = resets.take() {
                self.reset_first(password).await;
            }
            for _ in 0..FILES {
                self.archive_audit().await;
            }
        }
    }

    /// Gives events to who leads. What could not be given is lost with the process alone.
    async fn hand_over(self: &Arc<Self>) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take(self.env.wall_ms());
        if events.is_empty() {
            return;
        }
        let note = wire::NoteAudit { events };
        let done = match self.propose(&Principal::system(), Action::NoteAudit(note.clone())).await {
            Err(CallError::NotLeader { leader: Some(leader) }) => {
                let asked = Bytes::from(note.encode_to_vec());
                self.env.net().call(&leader, Method::Audit, asked, WITHIN).await.map(drop)
            }
            done => done.map(drop),
        };
        // What may have been written down is written down once more rather than not at all; what is refused would be so again.
        if done.as_ref().is_err_and(|e| !matches!(e, CallError::Refused(_))) {
            let mut waiting = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            note.events.into_iter().for_each(|event| waiting.push(event));
        }
    }

    /// Makes the first user, and says its password, unless that was given.
    async fn make_first(self: &Arc<Self>) {
        let given = self.options.accounts.password.clone();
        let (password, told) = self.given(given.map(|given| given.expose().to_string()).unwrap_or_default());
        let made = async {
            let user = wire::UserRecord {
                name: FIRST.into(),
                role: "admin".into(),
                verifier: self.verifier(password).await?,
                must_change: true,
                ..Default::default()
            };
            let add = wire::AddUser { user: Some(user), first: true, registers: false, key: Some(self.signing_key()?) };
            Ok::<_, ApiError>(self.propose(&Principal::system(), Action::AddUser(add)).await?)
        };
        match made.await {
            Ok(Outcome::Accepted(wire::Accepted { already: false })) => {
                let password = (!told.is_empty()).then(|| Secret::from(told));
                self.env.note(Note::FirstUser { name: FIRST.into(), password });
            }
            // The next look does it.
            Ok(_) | Err(ApiError::NotLeader { .. }) => {}
            Err(e) => self.env.note(Note::Trouble { what: format!("no user can be made: {e}") }),
        }
    }

    /// Makes a key that signs tokens. What does not work, the next look does.
    async fn make_key(self: &Arc<Self>) {
        let Ok(key) = self.signing_key() else { return };
        let rotate = wire::RotateKeys { key: Some(key), at_once: false };
        let _ = self.propose(&Principal::system(), Action::RotateKeys(rotate)).await;
    }

    /// Gives the first user a password that the operator of this machine named: for who lost it.
    async fn reset_first(self: &Arc<Self>, password: Secret) {
        let changed = async {
            let change = wire::ChangeUser {
                name: FIRST.into(),
                role: Some("admin".into()),
                disabled: Some(false),
                verifier: Some(self.verifier(password).await?),
                must_change: Some(true),
                ..Default::default()
            };
            match self.propose(&Principal::system(), Action::ChangeUser(change)).await? {
                Outcome::Refused(no) => Err(no.into()),
                _ => Ok::<_, ApiError>(()),
            }
        };
        let what = match changed.await {
            Ok(()) => {
                format!("the password of {FIRST} is the one that was given; it is to be changed at the next login")
            }
            Err(e) => format!("the password of {FIRST} was not changed: {e}"),
        };
        self.env.note(Note::Trouble { what });
    }

    /// Puts the oldest events into the store once there are many.
    async fn archive_audit(self: &Arc<Self>) {
        let state = self.state();
        if state.access().events() < AUDIT / 2 {
            return;
        }
        let events: Vec<_> = state.access().events_from(0).take(AUDIT_FILE).map(|event| (**event).clone()).collect();
        let Some(upto) = events.last().map(|event| event.id) else { return };
        let name = format!("{}{upto:020}", commit::audit(state.cluster()));
        let file = Arc::new(wire::AuditFile { events }.encode_to_vec());
        match objects::put(&self.env, &name, file).await {
            // If it comes to nothing, the next look finds the file there.
            Ok(()) => drop(self.propose(&Principal::system(), Action::ArchiveAudit(wire::ArchiveAudit { upto })).await),
            Err(e) => self.env.note(Note::Trouble { what: format!("the audit log is not put into the store: {e}") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_are_alike_are_one_and_their_number_is_bounded() {
        let event = |target: &str| api::AuditEvent { target: target.into(), times: 1, ..Default::default() };
        let mut events = Events::default();
        for target in ["a", "a", "b", "a"] {
            events.push(event(target));
        }
        let taken: Vec<_> = events.take(0).into_iter().map(|event| (event.target, event.times)).collect();
        assert_eq!(taken, [("a".to_string(), 2), ("b".into(), 1), ("a".into(), 1)]);
        for n in 0..2 * AUDIT_EVENTS {
            events.push(event(&n.to_string()));
        }
        let taken = events.take(7);
        assert_eq!((taken.len(), taken[AT_ONCE].times as usize), (AT_ONCE + 1, AUDIT_EVENTS + 1));
        let rest = events.take(7).len() + events.take(7).len() + events.take(7).len();
        assert_eq!(AT_ONCE + rest, AUDIT_EVENTS - 1);
    }
}
