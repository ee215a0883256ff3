//! The leader: what it hears goes in with the time, what is to be done comes out.
//!
//! A [`Master`] does no I/O and knows no clock. It is made when a node becomes leader and dropped when it is not any
//! more. It proposes what workers report, gives out tasks, and says what is to be planned, published and retired. It is
//! level-triggered: whatever it does follows from the [`State`] and from what workers said last, so that a lost effect is
//! done again, and a new leader begins where the old one was. Every effect may be carried out any number of times.
//!
//! Polls are in `poll`, tasks given out in `assign`, changes of the state in `sync`, what time brings in `tick`, one
//! thing at a time for each job in `errand`, proposals in `outbox`.

mod assign;
mod errand;
mod outbox;
mod poll;
pub mod pool;
mod progress;
mod sync;
mod tick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{JobError, JobEvent};

use super::apply::Touch;
use super::commit::Publication;
use super::fleet::Fleet;
use super::history;
use super::ids::{AttemptId, Digest, TaskId};
use super::job::Job;
use super::run::{Run, Running};
use super::schedule::Shares;
use super::state::State;
use super::task::By;
use errand::Errand;
use outbox::Outbox;

pub use super::run::Plan;
pub use super::schedule::backup::Backups;

/// How the leader behaves. Nothing of it is in the state: leaders may differ.
#[derive(Clone, Debug)]
pub struct Config {
    /// A worker that is not heard for so long is taken for dead.
    pub lease: Duration,
    /// A poll is answered at the latest after this, with nothing if need be. Much less than the lease.
    pub poll_wait: Duration,
    /// How often [`Input::Tick`] comes.
    pub tick: Duration,
    /// Before something that failed is tried again; doubled each time, up to 64 times this.
    pub retry: Duration,
    /// Reducers may begin when so many percent of the maps are done.
    pub slow_start_percent: u32,
    /// Reducers of jobs whose maps are not all done hold at most so many percent of all slots.
    pub early_percent: u64,
    /// For so long a task that failed is not given to a worker on which it failed.
    pub avoid: Duration,
    /// A job ends when for so long no worker has offered the build that it needs.
    pub unserved: Duration,
    /// How often what zombies left in the store is looked for: those of jobs that ended long ago as well.
    pub sweep: Duration,
    /// Second attempts.
    pub backups: Backups,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            poll_wait: Duration::from_secs(3),
            tick: Duration::from_millis(200),
            retry: Duration::from_millis(500),
            slow_start_percent: 10,
            early_percent: 25,
            avoid: Duration::from_secs(5),
            unserved: Duration::from_secs(600),
            sweep: Duration::from_secs(600),
            backups: Backups::default(),
        }
    }
}

/// A leadership. A node may lead a term more than once, when something in between made it doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reign {
    /// The term.
    pub term: u64,
    /// How often this node has led it before.
    pub before: u64,
    /// How many attempts it has given out then.
    pub given_out: u64,
}

impl From<u64> for Reign {
    /// The first leadership of a term.
    fn from(term: u64) -> Self {
        Self { term, ..Self::default() }
    }
}

/// The time of an input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic, from any beginning. Leases and patience go by this alone.
    pub mono: Duration,
    /// The wall clock in milliseconds since 1970, for commands.
    pub wall_ms: u64,
}

/// What the leader hears.
#[expect(clippy::large_enum_variant, reason = "one at a time, made and taken apart at once")]
#[derive(Clone, Debug)]
pub enum Input {
    /// Commands have been applied here, whoever proposed them. To be told in order; several may be told as one.
    Applied {
        /// The state behind them.
        state: State,
        /// What they touched.
        touched: Vec<Touch>,
    },
    /// A worker polls. Exactly one [`Effect::Answer`] with its sequence follows, now or later.
    Poll(wire::Poll),
    /// Nobody waits for the answer to this poll any more.
    PollClosed {
        /// The worker.
        incarnation: u64,
        /// Of the poll.
        sequence: u64,
    },
    /// [`Effect::Plan`] or [`Effect::LoadPlan`] came to this. The plan's object is in the store.
    Planned {
        /// The job.
        job: u64,
        /// The plan.
        result: Result<Plan, Setback>,
    },
    /// [`Effect::Judge`] came to this: the error with which the job ends.
    Judged {
        /// The job.
        job: u64,
        /// Which record was the first too many.
        result: Result<JobError, Setback>,
    },
    /// [`Effect::Publish`] came to this.
    Published {
        /// The job.
        job: u64,
        /// The output is there, whole; or is not.
        result: Result<(), Setback>,
    },
    /// [`Effect::Retire`] came to this.
    Retired {
        /// The job.
        job: u64,
        /// The digest of its history.
        result: Result<Digest, Setback>,
    },
    /// [`Effect::Propose`] came to this.
    Proposed {
        /// Of the proposal.
        ticket: u64,
        /// What became of it.
        outcome: Proposed,
    },
    /// What those who make workers found out.
    Pools(pool::News),
    /// Time has passed: every [`Config::tick`].
    Tick,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// It was applied. That says nothing of its reply.
    Applied,
    /// It was not and never will be.
    Refused,
    /// It may have been, or may be later.
    Unknown,
    /// This node does not lead.
    NotLeader,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Setback {
    /// It may go well another time.
    Later(String),
    /// It never will: the job fails. Of a publication only if the output's name is taken by what is not ours.
    Never(JobError),
}

/// What is to be done for the leader. Anything but an answer may be done late, twice, or after it was deposed.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Propose a command to the log and tell what became of it.
    Propose {
        /// For [`Input::Proposed`].
        ticket: u64,
        /// The command.
        command: wire::Command,
        /// What became of it is told no sooner than this after now, so that more gathers meanwhile.
        pause: Duration,
    },
    /// Answer a worker's poll.
    Answer {
        /// The worker.
        incarnation: u64,
        /// The answer; its sequence is the poll's.
        answer: wire::PollAnswer,
    },
    /// List a job's inputs, divide them, put the plan into the store.
    Plan(Arc<Job>),
    /// Read the plan of a job that the state says it has.
    LoadPlan(Arc<Job>),
    /// Find out which bad record was the first too many for a job.
    Judge(Arc<Job>),
    /// Publish a decided output.
    Publish(Publication),
    /// Store a job's history, then delete what its attempts left in the store.
    Retire(Arc<Job>),
    /// Delete what jobs with a number of at most `upto`, but those in `keep`, left in the store: zombies may have written
    /// after a job was retired.
    Sweep {
        /// The newest job that may be deleted.
        upto: u64,
        /// Jobs that are not archived.
        keep: BTreeSet<u64>,
    },
    /// This node does not lead: drop the master.
    StepDown,
}

/// What a leader knows of a worker. A new leader begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// It gets no tasks for now, because too many failed on it.
    pub set_aside: bool,
    /// Since it was last heard of.
    pub silent: Duration,
    /// Attempts that were done.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
}

/// The leader of a cluster.
#[derive(Debug)]
pub struct Master {
    config: Config,
    reign: Reign,
    now: Now,
    state: State,
    fleet: Fleet,
    runs: BTreeMap<u64, Run>,
    attempts: BTreeMap<AttemptId, Running>,
    shares: Shares,
    errands: BTreeMap<u64, Errand>,
    outbox: Outbox,
    missing: BTreeMap<(u64, u32), poll::Missing>,
    /// Attempts given out in this term.
    counter: u64,
    /// Attempts that run and were begun while maps were missing.
    early: u64,
    /// Workers whose answer is to be sent.
    ready: BTreeSet<u64>,
    /// Workers that have just polled.
    hungry: BTreeSet<u64>,
    /// Something new can be run: look at all idle workers.
    wake: bool,
    swept: Option<Duration>,
    /// Why workers leave or are gone, as those know who make them.
    fates: BTreeMap<u64, String>,
    pool_notices: Vec<pool::Notices>,
    effects: Vec<Effect>,
}

impl Master {
    /// Begins to lead. `state` must hold every command that was committed in earlier terms: the shell waits until the
    /// first entry of the term has been applied.
    pub fn lead(now: Now, reign: impl Into<Reign>, state: State, config: Config) -> (Self, Vec<Effect>) {
        let reign = reign.into();
        let mut master = Self {
            config,
            reign,
            now,
            state,
            fleet: Fleet::default(),
            runs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            shares: Shares::default(),
            errands: BTreeMap::new(),
            outbox: Outbox::default(),
            missing: BTreeMap::new(),
            counter: reign.given_out,
            early: 0,
            ready: BTreeSet::new(),
            hungry: BTreeSet::new(),
            wake: false,
            swept: None,
            fates: BTreeMap::new(),
            pool_notices: Vec::new(),
            effects: Vec::new(),
        };
        let workers: Vec<u64> = master.state.workers().map(|worker| worker.incarnation).collect();
        let jobs: Vec<u64> = master.state.jobs().map(|job| job.id).collect();
        workers.into_iter().for_each(|worker| master.sync_worker(worker));
        jobs.into_iter().for_each(|job| master.sync_job(job));
        // What ran before may still run: workers have a lease's time to say so, or until all have been heard.
        let open: Vec<u64> = master.runs.keys().copied().collect();
        for job in open {
            if let Some(run) = master.runs.get_mut(&job) {
                run.held_until = now.mono + master.config.lease;
            }
            master.sync_runnable(job);
        }
        let effects = master.finish();
        (master, effects)
    }

    /// Takes in what happened and gives what is to be done.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.now = Now { mono: self.now.mono.max(now.mono), wall_ms: now.wall_ms };
        match input {
            Input::Applied { state, touched } => self.applied(state, &touched),
            Input::Poll(poll) => self.poll(poll),
            Input::PollClosed { incarnation, sequence } => self.poll_closed(incarnation, sequence),
            Input::Planned { job, result } => self.planned(job, result),
            Input::Judged { job, result } => self.judged(job, result),
            Input::Published { job, result } => self.published(job, result),
            Input::Retired { job, result } => self.retired(job, result),
            Input::Proposed { ticket, outcome } => self.proposed(ticket, outcome),
            Input::Pools(news) => self.pools(news),
            Input::Tick => self.tick(),
        }
        self.finish()
    }

    /// The term that it leads.
    pub fn term(&self) -> u64 {
        self.reign.term
    }

    /// The leadership of the same term that may follow this one.
    pub fn next_reign(&self) -> Reign {
        Reign { term: self.reign.term, before: self.reign.before + 1, given_out: self.counter }
    }

    /// The number of a run's first list of segments, which no other list of the run has.
    fn first_list(&self) -> u64 {
        (self.reign.term << 32) + (self.reign.before << 16)
    }

    /// The state as it was told last.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Attempts that run as far as is known: task, worker, parts in a million.
    pub fn running(&self) -> impl Iterator<Item = (AttemptId, TaskId, u64, u32)> + '_ {
        self.attempts.iter().map(|(id, running)| (*id, running.task, running.worker, running.progress_ppm))
    }

    /// A worker with what the leader alone knows of it.
    pub fn worker(&self, incarnation: u64) -> Option<WorkerView> {
        let worker = self.fleet.workers.get(&incarnation)?;
        let heard_at = worker.lease_until.saturating_sub(self.config.lease);
        Some(WorkerView {
            set_aside: worker.is_aside(self.now.mono),
            silent: self.now.mono.saturating_sub(heard_at),
            done: worker.done,
            failed: worker.failed,
        })
    }

    /// What happened to a job so far, what runs included; oldest first.
    pub fn events(&self, job: u64) -> Option<Vec<JobEvent>> {
        let mut events = history::events(self.state.cluster(), self.state.job(job)?);
        let attempts = self.runs.get(&job).into_iter().flat_map(|run| run.attempts.values().flatten());
        for (attempt, running) in attempts.filter_map(|attempt| Some((*attempt, self.attempts.get(attempt)?))) {
            let worker = self.fleet.workers.get(&running.worker).map(|worker| worker.name.as_str().into());
            let (given_ms, backup) = (running.given_ms, running.backup);
            let by = By { worker: worker.unwrap_or_default(), given_ms, ended_ms: 0, backup };
            events.extend(history::given(running.task.stage, running.task.partition, attempt, &by));
        }
        events.sort_by_key(|event| event.time_ms);
        Some(events)
    }

    fn finish(&mut self) -> Vec<Effect> {
        self.dispatch();
        self.send_changes();
        self.send_answers();
        std::mem::take(&mut self.effects)
    }
}
