//! The audit log: what users changed, and what was refused to them.
//!
//! A user's command is an event by itself, whether it is carried out or not. What is done beside the log, as to files, and
//! what is refused before it, comes as [`wire::NoteAudit`]. No event has a secret in it: only names are written down.

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1 as api;

use super::{ACCEPTED, Decision, Step};
use crate::control::access::EVENTS_OF_A_COMMAND;
use crate::control::ids::job_name;
use crate::control::limits;
use crate::control::rights::SYSTEM;
use crate::control::state::State;
use crate::control::task::cut;

/// How a user's command is called, and what it is about; `None`: it is nothing to remember.
pub(super) fn told(cluster: u64, action: &Action) -> Option<(&'static str, String)> {
    let job = |job: u64| job_name(cluster, job);
    Some(match action {
        Action::SubmitJob(submit) => {
            ("Jobs/Submit", submit.spec.as_ref().map(|spec| spec.output.clone()).unwrap_or_default())
        }
        Action::RetryJob(retry) => ("Jobs/Retry", job(retry.job)),
        Action::CancelJob(cancel) => ("Jobs/Cancel", job(cancel.job)),
        Action::DrainWorker(drain) => ("Cluster/Drain", drain.incarnation.to_string()),
        // What is learned of a pool comes from the leader itself.
        Action::SetPool(set) => ("Pools/Set", changed_pool(set)),
        Action::AddUser(add) => {
            let name = add.user.as_ref().map(|user| user.name.clone()).unwrap_or_default();
            (if add.registers { "Access/Register" } else { "Users/Add" }, name)
        }
        Action::ChangeUser(change) if change.same_password => return None,
        Action::ChangeUser(change) => match (&change.verifier, change.must_change) {
            (Some(_), Some(true)) => ("Users/ResetPassword", change.name.clone()),
            (Some(_), _) => ("Access/ChangePassword", change.name.clone()),
            _ => ("Users/Change", changed(change)),
        },
        Action::RemoveUser(remove) => ("Users/Remove", remove.name.clone()),
        Action::OpenSession(open) => {
            let session = open.session.as_ref();
            let user = session.map(|session| session.user.clone()).unwrap_or_default();
            let token = session.is_some_and(|session| session.token);
            (if token { "Users/CreateToken" } else { "Access/Login" }, user)
        }
        Action::EndSessions(end) if end.session == 0 => ("Access/Logout", end.user.clone()),
        Action::EndSessions(end) => ("Users/EndSession", format!("{} {:x}", end.user, end.session)),
        Action::PutRole(role) => ("Users/PutRole", format!("{}: {}", role.name, role.rights.join(" "))),
        Action::RemoveRole(role) => ("Users/RemoveRole", role.name.clone()),
        Action::RotateKeys(rotate) => {
            ("Users/RotateKeys", rotate.key.as_ref().map(|key| key.kid.clone()).unwrap_or_default())
        }
        Action::SetPolicy(policy) => ("Users/SetPolicy", format!("registration={}", policy.registration)),
        _ => return None,
    })
}

fn changed_pool(pool: &wire::SetPool) -> String {
    let said = |name: &str, value: Option<u64>| value.map(|value| format!(" {name}={value}"));
    let (min, max) = (pool.min.map(u64::from), pool.max.map(u64::from));
    let parts = [said("min", min), said("max", max), said("idle_ms", pool.idle_ms)];
    [Some(pool.name.clone())].into_iter().chain(parts).flatten().collect()
}

fn changed(change: &wire::ChangeUser) -> String {
    let role = change.role.as_ref().map(|role| format!(" role={role:?}"));
    let disabled = change.disabled.map(|disabled| format!(" disabled={disabled}"));
    let prefix = change.prefix.as_ref().map(|prefix| format!(" prefix={prefix:?}"));
    let account = change.service_account.as_ref().map(|account| format!(" service_account={account:?}"));
    let quota = change.quota.map(|quota| {
        let api::Quota { jobs, cores, stored_bytes, submissions_a_minute } = quota;
        format!(" jobs={jobs} cores={cores} stored_bytes={stored_bytes} submissions_a_minute={submissions_a_minute}")
    });
    [Some(change.name.clone()), role, disabled, prefix, account, quota].into_iter().flatten().collect()
}

impl State {
    /// Writes down what a user's command came to.
    pub(super) fn write_down(&mut self, step: &Step, (action, target): (&str, String), outcome: &Outcome) {
        let refused = match outcome {
            Outcome::Refused(no) => no.message.clone(),
            _ => String::new(),
        };
        // Nobody is known before a session is there.
        let user = if *step.principal == *SYSTEM { String::new() } else { step.principal.to_string() };
        self.access.note(bounded(api::AuditEvent {
            id: step.index.saturating_mul(EVENTS_OF_A_COMMAND),
            time_ms: self.now_ms,
            user,
            session: if step.session == 0 { String::new() } else { format!("{:x}", step.session) },
            from: step.from.to_string(),
            action: action.to_string(),
            target,
            refused,
            times: 1,
        }));
    }

    pub(super) fn note_audit(&mut self, step: &Step, note: wire::NoteAudit) -> Decision<Outcome> {
        for (n, event) in (0..).zip(note.events.into_iter().take(limits::AUDIT_EVENTS)) {
            let id = step.index.saturating_mul(EVENTS_OF_A_COMMAND).saturating_add(n);
            self.access.note(bounded(api::AuditEvent { id, times: event.times.max(1), ..event }));
        }
        Ok(ACCEPTED)
    }

    pub(super) fn archive_audit(&mut self, upto: u64) -> Decision<Outcome> {
        while let Some(oldest) = self.access.audit.get_min().map(|(id, _)| *id).filter(|id| *id <= upto) {
            self.access.audit.remove(&oldest);
        }
        Ok(ACCEPTED)
    }
}

/// Within the bounds of an event.
pub(crate) fn bounded(event: api::AuditEvent) -> api::AuditEvent {
    let short = |text| cut(text, limits::LONG_NAME_BYTES);
    api::AuditEvent {
        user: short(event.user),
        session: short(event.session),
        from: short(event.from),
        action: short(event.action),
        target: cut(event.target, limits::AUDIT_BYTES),
        refused: cut(event.refused, limits::AUDIT_BYTES),
        ..event
    }
}
