//! Proposals. What happens to tasks is gathered while one batch is under way, and longer if batches follow each other
//! closely, so that a busy cluster makes few entries and a quiet one waits for nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::task_change::What;
use prost::Message as _;

use super::{Effect, Master, Proposed};
use crate::control::ids::AttemptId;
use crate::control::limits::CHANGES;

/// Bytes of one batch; a command has at most 1 MiB.
const BATCH_BYTES: usize = 512 << 10;
/// Between batches, once there were [`BURST`] closer ones: an entry costs the masters much more than what is in it.
const PACE: Duration = Duration::from_millis(20);
/// Batches that may follow each other without a pause: those of a few small jobs.
const BURST: u32 = 10;

/// Changes that wait, and proposals that are under way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    changes: VecDeque<wire::TaskChange>,
    /// What waits or is under way, by attempt and kind, so that repeated reports are proposed once.
    known: BTreeSet<(AttemptId, Kind)>,
    sending: bool,
    /// When the next batch would be due if there had been one in each [`PACE`] (the generic cell rate algorithm: ITU-T
    /// I.371, annex A).
    due: Duration,
    tickets: BTreeMap<u64, Ticket>,
    last: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    End,
    Lost,
    Moved,
    Fetched,
    Gone,
}

/// What a proposal was about.
#[derive(Debug)]
pub(super) enum Ticket {
    Changes(Vec<wire::TaskChange>),
    Job(u64),
    Worker,
}

fn key(change: &wire::TaskChange) -> Option<(AttemptId, Kind)> {
    let kind = match change.what.as_ref()? {
        What::Done(_) | What::Failure(_) => Kind::End,
        What::Lost(_) => Kind::Lost,
        What::Moved(_) => Kind::Moved,
        What::Fetched(_) => Kind::Fetched,
        What::Gone(_) => Kind::Gone,
    };
    Some((change.task?.attempt?.into(), kind))
}

impl Master {
    /// Proposes a change with the next batch.
    pub(super) fn change(&mut self, task: wire::Task, worker: u64, what: What) {
        let change = self.told(task, worker, what);
        if key(&change).is_some_and(|key| self.outbox.known.insert(key)) {
            self.outbox.changes.push_back(change);
        }
    }

    /// A change, with what only the leader knows of its attempt.
    fn told(&self, task: wire::Task, worker: u64, what: What) -> wire::TaskChange {
        let attempt = task.attempt.map(AttemptId::from);
        let running = attempt.and_then(|attempt| self.attempts.get(&attempt));
        let (given_ms, backup) = running.map_or((0, false), |running| (running.given_ms, running.backup));
        let others = running.and_then(|running| Some(self.runs.get(&running.task.job)?.attempts_of(running.task)));
        let beside = others.into_iter().flatten().find(|other| Some(**other) != attempt);
        let rival = |other: &AttemptId| {
            let running = self.attempts.get(other)?;
            let (worker, given_ms, backup) = (running.worker, running.given_ms, running.backup);
            Some(wire::Rival { attempt: Some((*other).into()), worker, given_ms, backup })
        };
        let beside = beside.filter(|_| matches!(what, What::Done(_))).and_then(rival);
        wire::TaskChange { task: Some(task), worker, given_ms, backup, beside, what: Some(what) }
    }

    /// Sends what has gathered, unless a batch is under way.
    pub(super) fn send_changes(&mut self) {
        if self.outbox.sending || self.outbox.changes.is_empty() {
            return;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(change) = self.outbox.changes.front() {
            bytes += change.encoded_len() + 8;
            if !batch.is_empty() && (bytes > BATCH_BYTES || batch.len() == CHANGES) {
                break;
            }
            batch.extend(self.outbox.changes.pop_front());
        }
        self.outbox.sending = true;
        let now = self.now.mono;
        self.outbox.due = self.outbox.due.max(now) + PACE;
        let pause = self.outbox.due.saturating_sub(now + PACE * BURST);
        let action = Action::TaskChanges(wire::TaskChanges { changes: batch.clone() });
        self.send(Ticket::Changes(batch), action, pause);
    }

    pub(super) fn propose(&mut self, about: Ticket, action: Action) {
        self.send(about, action, Duration::ZERO);
    }

    fn send(&mut self, about: Ticket, action: Action, pause: Duration) {
        self.outbox.last += 1;
        let ticket = self.outbox.last;
        self.outbox.tickets.insert(ticket, about);
        let principal = "system".to_string();
        let (now_ms, action) = (self.now.wall_ms, Some(action));
        let command = wire::Command { now_ms, principal, level: 1, action, ..Default::default() };
        self.effects.push(Effect::Propose { ticket, command, pause });
    }

    pub(super) fn proposed(&mut self, ticket: u64, outcome: Proposed) {
        let Some(about) = self.outbox.tickets.remove(&ticket) else { return };
        if outcome == Proposed::NotLeader {
            self.effects.push(Effect::StepDown);
        }
        match about {
            Ticket::Changes(changes) => {
                self.outbox.sending = false;
                for change in changes.iter().rev() {
                    if outcome == Proposed::Unknown {
                        // Whether it was applied or not: to apply it again does no harm.
                        self.outbox.changes.push_front(change.clone());
                    } else if let Some(key) = key(change) {
                        self.outbox.known.remove(&key);
                    }
                }
            }
            Ticket::Job(job) => self.errand_over(job, outcome == Proposed::Applied),
            Ticket::Worker => {}
        }
    }
}
