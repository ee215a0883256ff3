//! The only writer of the state: one command after the other, the same everywhere.
//!
//! It is total: a command that makes no sense changes nothing and says why in its reply. The one exception is a command
//! that this build does not understand. To pass over it would make this node differ from the others in silence, so it
//! is a [`Halt`], after which the node must end.
//!
//! Submission is in `submit`, the ends of jobs in `end`, workers in `workers`, tasks in `tasks`; users are in `access`, their
//! sessions in `sessions`, pools of workers are in `pools`, and `audit` writes down what users did. `restored` is no command: it
//! makes of a backup's state the one that a new cluster begins with, before there is a log.

mod access;
mod audit;
mod end;
mod pools;
mod restored;
mod sessions;
mod submit;
mod tasks;
mod workers;

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_raft::planted::{self, Bug, planted};
use prost::Message as _;

pub(crate) use audit::bounded;
pub use restored::Ended;

use super::ids::TaskId;
use super::limits;
use super::state::State;

/// A reason to end the node at once, without a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Its bytes are none of a command, or of one that a later release added.
    #[error(
        "the command at index {index} is unknown to this build (feature level {}); start a newer one here",
        limits::LEVEL
    )]
    Unknown {
        /// Of the entry.
        index: u64,
    },
    /// It needs a higher feature level than this build has.
    #[error(
        "the command at index {index} needs feature level {level}, this build has {}; start a newer one here",
        limits::LEVEL
    )]
    Level {
        /// Of the entry.
        index: u64,
        /// What it needs.
        level: u32,
    },
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// For whoever proposed it.
    pub reply: wire::Reply,
    /// What is not as it was before, for the leader.
    pub touched: Vec<Touch>,
}

/// A part of the state that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A job: it is there, has another state or epoch, or is gone.
    Job(u64),
    /// A task's facts.
    Task(TaskId),
    /// A worker: it is there, drains, or is gone.
    Worker(u64),
    /// What was decided of some pool.
    Pools,
}

/// What was done, or why nothing was.
pub(super) type Decision<T> = Result<T, wire::Refused>;

pub(super) fn refused(code: Code, message: String, next_step: &str) -> wire::Refused {
    wire::Refused { code: code.into(), message, next_step: next_step.into() }
}

const ACCEPTED: Outcome = Outcome::Accepted(wire::Accepted { already: false });
const ALREADY: Outcome = Outcome::Accepted(wire::Accepted { already: true });

/// A command on its way.
struct Step {
    index: u64,
    principal: Arc<str>,
    /// The principal's session, and where its call came from.
    session: u64,
    from: Arc<str>,
    /// The principal came with the token of a service account.
    account: bool,
    touched: Vec<Touch>,
}

impl State {
    /// Applies the command at `index` of the log.
    ///
    /// # Errors
    /// [`Halt`]: this build does not understand the command. The state is as before and must not be used any more.
    pub fn apply(&mut self, index: u64, command: &[u8]) -> Result<Applied, Halt> {
        let command = wire::Command::decode(command).map_err(|_| Halt::Unknown { index })?;
        if command.level > self.understands.0 {
            return Err(Halt::Level { index, level: command.level });
        }
        let action = command.action.ok_or(Halt::Unknown { index })?;
        understood(index, &action, self.understands.0)?;
        let now_ms = if planted(Bug::ApplyByClock) { planted::clock_ms() } else { command.now_ms };
        self.now_ms = self.now_ms.max(now_ms);
        self.applied = index;
        let principal = super::task::cut(command.principal, limits::SHORT_NAME_BYTES).into();
        let from = super::task::cut(command.from, limits::LONG_NAME_BYTES).into();
        let (session, account) = (command.session, command.account);
        let mut step = Step { index, principal, session, from, account, touched: Vec::new() };
        let told = audit::told(self.cluster, &action);
        let outcome = self.act(&mut step, action).unwrap_or_else(Outcome::Refused);
        if let Some(told) = told {
            self.write_down(&step, told, &outcome);
        }
        Ok(Applied { reply: wire::Reply { outcome: Some(outcome) }, touched: step.touched })
    }

    fn act(&mut self, step: &mut Step, action: Action) -> Decision<Outcome> {
        match action {
            Action::InitCluster(init) => Ok(self.init(&init)),
            Action::RaiseLevel(raise) => Ok(self.raise(raise.level)),
            Action::SubmitJob(submit) => self.submit(step, submit),
            Action::RetryJob(retry) => self.retry(step, &retry),
            Action::PlanJob(plan) => self.plan(step, plan),
            Action::CancelJob(cancel) => self.cancel(step, cancel),
            Action::JobPublished(published) => self.published(step, published.job),
            Action::FailJob(fail) => self.fail(step, fail),
            Action::ArchiveJob(archive) => self.archive_job(step, &archive),
            Action::RegisterWorker(info) => self.register(step, info),
            Action::RemoveWorker(remove) => Ok(self.remove(step, remove)),
            Action::DrainWorker(drain) => self.drain(step, drain),
            Action::WorkerDrained(drained) => self.worker_drained(step, drained.incarnation),
            Action::TaskChanges(changes) => Ok(self.change_tasks(step, changes)),
            Action::AddUser(add) => self.add_user(step, add),
            Action::ChangeUser(change) => self.change_user(step, change),
            Action::RemoveUser(remove) => self.remove_user(step, &remove.name),
            Action::OpenSession(open) => self.open_session(step, open),
            Action::RefreshSession(refresh) => self.refresh_session(refresh),
            Action::EndSessions(end) => self.end_sessions(step, &end),
            Action::PutRole(role) => self.put_role(step, &role),
            Action::RemoveRole(role) => self.remove_role(step, &role.name),
            Action::RotateKeys(rotate) => self.rotate_keys(rotate),
            Action::SetPolicy(policy) => self.set_policy(policy),
            Action::NoteAudit(note) => self.note_audit(step, note),
            Action::ArchiveAudit(archive) => self.archive_audit(archive.upto),
            Action::LearnPool(pool) => self.learn_pool(step, pool),
            Action::SetPool(set) => self.set_pool(step, &set),
            Action::RemovePool(remove) => Ok(self.remove_pool(step, &remove.name)),
        }
    }

    fn init(&mut self, init: &wire::InitCluster) -> Outcome {
        if self.cluster != 0 {
            return ALREADY;
        }
        self.cluster = init.cluster.max(1);
        self.level = init.level.max(1);
        ACCEPTED
    }

    fn raise(&mut self, level: u32) -> Outcome {
        if level <= self.level {
            return ALREADY;
        }
        self.level = level;
        ACCEPTED
    }
}

/// Whether all of a command is known to this build.
fn understood(index: u64, action: &Action, up_to: u32) -> Result<(), Halt> {
    let known = match action {
        Action::TaskChanges(changes) => changes.changes.iter().all(|change| change.what.is_some()),
        Action::InitCluster(wire::InitCluster { level, .. }) | Action::RaiseLevel(wire::RaiseLevel { level }) => {
            let level = *level;
            return if level > up_to { Err(Halt::Level { index, level }) } else { Ok(()) };
        }
        _ => true,
    };
    if known { Ok(()) } else { Err(Halt::Unknown { index }) }
}
