//! The control plane: what a cluster knows, and what its leader does about it. Synchronous and pure: no network, no
//! clock, no threads, no chance. `node/` carries its effects out, in production and in the simulator alike.
//!
//! Two halves meet here:
//!
//! - [`state::State`] is replicated. [`apply`] is its only writer, the same on every master at the same index of the log.
//! - [`master::Master`] is the leader's alone. Inputs and the time go in ([`master::Input`]), effects come out
//!   ([`master::Effect`]). It derives from the state what to do and keeps in memory what need not survive: heartbeats,
//!   progress, assignments. A new leader makes its own.
//!
//! # The way of a job
//!
//! 1. A client's request becomes a `SubmitJob` that any master's shell proposes. `apply` checks it (`spec`), finds the job
//!    of a key that it has seen in the last 24 hours, claims the output and those of the jobs after it, pins the app's
//!    build to one that a worker offers, and makes the job: *queued*. Its id is the index of the log.
//! 2. The shell of the leader tells its master what was applied. The master asks for a plan ([`master::Effect::Plan`]):
//!    inputs are listed, divided, and the plan put into the store under its digest. It proposes `PlanJob` with the
//!    digest and the numbers of tasks: *mapping*. The plan itself never enters the log; a new leader reads it back
//!    ([`master::Effect::LoadPlan`]).
//! 3. Workers register (`RegisterWorker`: the index is the incarnation) and poll. A poll waits until there is something to
//!    say. When tasks wait, `schedule` picks the user with fewest attempts, the job by priority and age, and of the job a
//!    task that suits the worker: the survey first, then maps whose object it holds, then parts, then second attempts
//!    for stragglers. The answer carries it under an attempt id that is never used again: (term, counter).
//! 4. A worker reports an end in each poll until the answer says that it is settled. The master gathers reports while one
//!    `TaskChanges` is under way and proposes them together. In `apply` the first end for a task wins, if the attempt is of
//!    the job's epoch, has not failed, and its worker lives. A map's segments stay where they are; the state notes
//!    attempt, worker and one digest.
//! 5. Reducers begin before all maps are done, on a bounded share of the slots. Each answer tells them which maps have been
//!    placed since the last ([`gristmill_proto::internal::v1::SegmentUpdate`]). Once every map has been done the job is
//!    *shuffling*, and when some reducer holds all segments, *reducing*.
//! 6. What goes wrong on the way: a task that fails waits for another worker, and after four such failures the job fails.
//!    A worker whose lease is over is removed (`RemoveWorker`), and its maps are *lost* to those jobs that may need
//!    them. They are done again unless every part that is left has its segments. The same digest replaces the
//!    place; another one raises the job's epoch, and all attempts of reducers are void, finished ones included.
//! 7. With the last part, inside the same `apply`, the job is *committing*: the output is decided, by attempts and digests.
//!    Nothing cancels it any more. The master asks for it to be published ([`master::Effect::Publish`]) until that is
//!    said to be done, and proposes `JobPublished`: *completed*. The job after it is submitted in the same step.
//! 8. The master asks for an ended job to be retired ([`master::Effect::Retire`]): its history goes to the store and what
//!    its attempts left is deleted. `ArchiveJob` then leaves a row of at most 200 bytes.
//!
//! # For who writes the shells
//!
//! `node/` wraps [`state::State`] as the log's state machine. For each entry: [`state::State::apply`]; encode the reply;
//! if this node leads, keep what was touched and, after a batch, hand it with a clone of the state to
//! [`master::Input::Applied`]. On [`apply::Halt`] end the process without a snapshot: the state lacks a command that others
//! have. [`state::State::snapshot`] is cheap, its iteration is not. Become leader: wait until the first entry of the term
//! is applied, then [`master::Master::lead`]. From then on, one input after the other under one lock; never hold it while an
//! effect is carried out. Deposed: drop the master, answer the waiting polls with an error. Submissions, cancellations and
//! registrations are proposed by the shell itself and reach the master as what was applied.
//!
//! An effect may be carried out twice, late, or by a leader that is none any more. Thus: [`master::Effect::Publish`] acts only
//! on a decided job and its sources are gone once the job is retired; attempts write objects of their own
//! ([`commit`]); what zombies leave is swept ([`master::Effect::Sweep`]).

pub mod access;
pub mod apply;
pub mod commit;
mod fleet;
pub mod history;
pub mod ids;
pub mod job;
pub mod limits;
pub mod master;
pub mod pools;
mod record;
pub mod rights;
mod run;
mod schedule;
pub mod snapshot;
pub(crate) mod spec;
pub mod state;
pub mod task;
