//! The shell of a master: a member of the replicated log, and while it leads, a [`Master`] that is told what happens and
//! whose effects are carried out here.
//!
//! `errands` does for jobs what takes the store: plans, publications, histories; `api` is what clients may ask, `access` and
//! `users` who they are, `gate` who is let in, `audit` what is written down of it; `pools` makes and removes workers,
//! `backup` puts the state into the store. A master that does not lead answers with who does; whoever carries requests here
//! passes them on.

mod access;
mod api;
mod audit;
mod backup;
mod errands;
mod gate;
mod halves;
mod level;
mod pools;
mod told;
mod users;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_channel::oneshot;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::internal::v1::task_report::End;
use gristmill_raft::node::Disks;
use gristmill_raft::planted::{Bug, planted};
use gristmill_raft::runtime::{AsyncRuntime, Select2};
use gristmill_raft::{Identity, Node};
use prost::Message as _;

pub use api::{ApiError, Code};
pub use told::LogReader;

use super::clock;
use super::env::{Env, Note};
use super::pods::Pods;
use super::point::Point;
use super::replica::{News, Replica};
use super::rpc::CallError;
use super::signal::Signal;
use super::turns::Turns;
use crate::auth::Secret;
use crate::auth::attempts::Attempts;
use crate::auth::password::Cost;
use crate::control::apply::Touch;
use crate::control::ids;
use crate::control::ids::TaskId;
use crate::control::master::{Config, Effect, Input, Master, Now, Proposed, Reign, Setback};
use crate::control::rights::Principal;
use crate::control::state::State;
use access::HASHING;
use audit::Events;
use gate::Gate;
#[cfg(feature = "bench")]
pub(crate) use gate::tokens::Tokens;
use pools::Known;

/// The world of a master: that of any node, and what its log is kept on and spoken over.
pub trait MasterEnv: Env {
    /// The replicated log's world.
    type Log: gristmill_raft::Env<Rt = Self::Rt>;
}

/// How a master behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The replicated log.
    pub log: gristmill_raft::Options,
    /// The leader.
    pub leader: Config,
    /// Users.
    pub accounts: Accounts,
    /// Whatever makes workers; none: they come by themselves.
    pub pods: Option<Arc<dyn Pods>>,
}

/// How a master deals with users.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// What a guess at a password costs.
    pub cost: Cost,
    /// Where there is no user, one is made.
    pub first: bool,
    /// That one's password; none: one is made up and told.
    pub password: Option<Secret>,
    /// The password that one gets when this master first leads.
    pub reset: Option<Secret>,
}

type Log<E> = Node<<E as MasterEnv>::Log, Replica<<E as Env>::Rt>>;

/// How long whoever asks waits for an election.
const LED_WITHIN: Duration = Duration::from_secs(3);
/// A loop that takes this much longer than it should was not running: what leases say then is not to be believed.
const ASLEEP: Duration = Duration::from_secs(2);

/// A master. Clones are handles to the same one.
pub struct MasterNode<E: MasterEnv> {
    inner: Arc<Inner<E>>,
}

impl<E: MasterEnv> Clone for MasterNode<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<E: MasterEnv> {
    env: E,
    log: Log<E>,
    news: Arc<News<E::Rt>>,
    options: Options,
    begun: <E::Rt as AsyncRuntime>::Instant,
    leading: Mutex<Option<Leading>>,
    /// How the term that was led last would be led once more.
    next_reign: Mutex<Reign>,
    /// The leader's view of things has changed: watchers look.
    changed: Signal<E::Rt>,
    stop: Signal<E::Rt>,
    gate: Gate<E::Rt>,
    /// Failures to log in.
    attempts: Mutex<Attempts>,
    /// Passwords that are hashed.
    hashes: Arc<Turns>,
    /// Backups that are taken.
    backups: Arc<Turns>,
    events: Mutex<Events>,
    pools: Mutex<Known>,
}

/// While this node leads.
struct Leading {
    master: Master,
    /// Who waits for an answer to a poll: by incarnation, the poll's sequence and where to answer.
    polls: BTreeMap<u64, (u64, oneshot::Sender<wire::PollAnswer>)>,
}

impl<E: MasterEnv> MasterNode<E> {
    /// The cluster's id, as names of jobs begin with it; 0 before there is one.
    pub fn cluster(&self) -> u64 {
        self.inner.state().cluster()
    }

    /// Opens the node's folder and joins its log. Nothing leads before [`MasterNode::run`].
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start(
        env: E,
        options: Options,
        disks: Disks<<E::Log as gristmill_raft::Env>::Kv, <E::Log as gristmill_raft::Env>::Files>,
        net: impl FnOnce(Identity) -> <E::Log as gristmill_raft::Env>::Net,
    ) -> Result<Self, gristmill_raft::Error> {
        let news: Arc<News<E::Rt>> = Arc::default();
        let log = Node::start(disks, net, Replica::new(news.clone(), env.level()), &options.log).await?;
        let begun = clock::now::<E::Rt>();
        let (leading, next_reign, changed, stop) = Default::default();
        let (gate, attempts, events) = Default::default();
        let hashes = Turns::new(HASHING.0, HASHING.1);
        // One at a time takes the node's disk.
        let backups = Turns::new(1, 0);
        let inner = Inner {
            env,
            log,
            news,
            options,
            begun,
            leading,
            next_reign,
            changed,
            stop,
            gate,
            attempts,
            hashes,
            backups,
            events,
            pools: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The node of the replicated log.
    pub fn log(&self) -> &Log<E> {
        &self.inner.log
    }

    /// Leads whenever the log says so, until the node ends. Gives why it ended.
    pub async fn run(&self) -> String {
        let inner = &self.inner;
        drop(E::Rt::spawn(inner.clone().keep_level()));
        drop(E::Rt::spawn(inner.clone().keep_access()));
        if let Some(pods) = inner.options.pods.clone() {
            drop(E::Rt::spawn(inner.clone().keep_pools(pods)));
        }
        let mut applied = inner.news.applied.listen();
        let mut stop = inner.stop.listen();
        let mut watch = inner.log.watch();
        let tick = inner.options.leader.tick;
        let mut next_tick = clock::now::<E::Rt>() + tick;
        loop {
            if let Some(why) = inner.log.ended() {
                inner.step_down();
                return why;
            }
            if clock::now::<E::Rt>() > next_tick + ASLEEP {
                inner.step_down();
            }
            inner.follow().await;
            let something = E::Rt::select3(applied.heard(), watch.changed(), E::Rt::sleep_until(next_tick));
            if let Select2::First(()) = E::Rt::select2(stop.heard(), something).await {
                inner.step_down();
                return "it was stopped".to_string();
            }
            inner.tell_applied();
            if clock::now::<E::Rt>() >= next_tick {
                inner.tell(Input::Tick);
                next_tick = clock::now::<E::Rt>() + tick;
            }
        }
    }

    /// Hands leadership over if this node has it, and ends.
    pub async fn stop(&self) {
        let inner = &self.inner;
        if let Some(heir) = inner.log.heir() {
            // If it does not work out, an election follows.
            let _ = inner.log.transfer_leadership(heir.id, Duration::from_secs(2)).await;
        }
        inner.stop.raise();
        inner.log.stop().await;
    }

    /// Answers a worker's registration.
    ///
    /// # Errors
    /// [`CallError::NotLeader`], or that the outcome is not known.
    pub async fn register(&self, request: wire::Register) -> Result<wire::Registered, CallError> {
        if !self.inner.has_quorum() {
            return Err(self.inner.not_leader());
        }
        if let Some(address) = self.inner.namesake(&request) {
            let refused = format!(
                "a worker called {} lives at {address}; give this one another --name, or wait until that one has ended",
                request.name
            );
            return Ok(wire::Registered { incarnation: 0, refused });
        }
        let reply = self.inner.propose(&Principal::system(), wire::command::Action::RegisterWorker(request)).await?;
        Ok(match reply {
            Outcome::Registered(registered) => registered,
            Outcome::Refused(refused) => wire::Registered { incarnation: 0, refused: refused.message },
            _ => wire::Registered { incarnation: 0, refused: "the master answered something else".into() },
        })
    }

    /// Answers a worker's poll, when there is something to say or after a while.
    ///
    /// # Errors
    /// [`CallError::NotLeader`], also if this node only believes that it leads.
    pub async fn poll(&self, poll: wire::Poll) -> Result<wire::PollAnswer, CallError> {
        let (incarnation, sequence) = (poll.incarnation, poll.sequence);
        let (answer, answered) = oneshot::channel();
        if !self.inner.has_quorum() {
            return Err(self.inner.not_leader());
        }
        {
            let mut leading = self.inner.leading();
            let Some(leading) = leading.as_mut() else { return Err(self.inner.not_leader()) };
            if leading.polls.get(&incarnation).is_none_or(|(newest, _)| *newest < sequence) {
                leading.polls.insert(incarnation, (sequence, answer));
            }
        }
        let closed = Closed { node: self, incarnation, sequence };
        self.inner.reached_by(&poll);
        self.inner.tell(Input::Poll(poll));
        let answer = answered.await.map_err(|_| self.inner.not_leader());
        std::mem::forget(closed);
        let answer = answer?;
        // What ends an incarnation must be true of the cluster, not only of what this node knows.
        let ends = !answer.fenced.is_empty() || answer.drained;
        let lives = |replica: &Replica<E::Rt>| replica.state.worker(incarnation).is_some();
        if ends && self.inner.log.read(lives).await.unwrap_or(true) {
            return Err(self.inner.not_leader());
        }
        Ok(answer)
    }
}

/// Tells the leader when nobody waits for a poll's answer any more.
struct Closed<'n, E: MasterEnv> {
    node: &'n MasterNode<E>,
    incarnation: u64,
    sequence: u64,
}

impl<E: MasterEnv> Drop for Closed<'_, E> {
    fn drop(&mut self) {
        let Self { incarnation, sequence, .. } = *self;
        let inner = &self.node.inner;
        if let Some(leading) = inner.leading().as_mut()
            && leading.polls.get(&incarnation).is_some_and(|(of, _)| *of == sequence)
        {
            leading.polls.remove(&incarnation);
        }
        inner.tell(Input::PollClosed { incarnation, sequence });
    }
}

impl<E: MasterEnv> Inner<E> {
    fn leading(&self) -> MutexGuard<'_, Option<Leading>> {
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let mono = clock::now::<E::Rt>() - self.begun;
        Now { mono, wall_ms: self.env.wall_ms() }
    }

    fn not_leader(&self) -> CallError {
        let leadership = self.log.leadership();
        let leader = leadership.leader.filter(|_| !leadership.here).map(|peer| peer.address);
        CallError::NotLeader { leader }
    }

    /// Whether this node may act as the leader: a quorum has said so lately.
    fn has_quorum(&self) -> bool {
        self.log.has_quorum()
    }

    /// Where a worker of the same name and another folder is, if one is alive. Without this, two of one name would end each
    /// other's incarnations for ever.
    fn namesake(&self, request: &wire::Register) -> Option<String> {
        let other = |info: &&wire::Register| {
            info.name == request.name && info.folder != request.folder && info.folder != 0 && request.folder != 0
        };
        let state = self.state();
        let mut infos = state.workers().filter_map(|worker| worker.info.as_ref());
        infos.find(other).map(|info| info.address.clone())
    }

    /// The state here, which may be old.
    fn state(&self) -> State {
        self.log.read_stale(|replica| replica.state.clone())
    }

    /// Begins or ends to lead, as the log has it.
    async fn follow(self: &Arc<Self>) {
        let leadership = self.log.leadership();
        let leads = self.leading().as_ref().map(|leading| leading.master.term());
        if !self.has_quorum() {
            self.step_down();
            return;
        }
        if leads == Some(leadership.term) {
            return;
        }
        self.step_down();
        // What is applied from here on is told; what is told twice does no harm.
        self.news.take();
        // What earlier leaders committed is applied here before this one begins.
        let Ok(state) = self.log.read(|replica| replica.state.clone()).await else { return };
        if self.log.leadership().term != leadership.term {
            return;
        }
        self.env.note(Note::Leads { term: leadership.term });
        let again = *self.next_reign.lock().unwrap_or_else(PoisonError::into_inner);
        let reign = if again.term == leadership.term { again } else { leadership.term.into() };
        let (master, effects) = Master::lead(self.now(), reign, state, self.options.leader.clone());
        *self.leading() = Some(Leading { master, polls: BTreeMap::new() });
        self.carry_out(effects);
    }

    fn step_down(&self) {
        let before = self.leading().take();
        if let Some(before) = before {
            *self.next_reign.lock().unwrap_or_else(PoisonError::into_inner) = before.master.next_reign();
            self.env.note(Note::Follows);
            self.changed.raise();
        }
    }

    /// Tells the leader something and does what follows. A node that only believes that it leads leads no longer: one that
    /// begins anew, here or elsewhere, derives all from the state and from what workers say.
    fn tell(self: &Arc<Self>, input: Input) {
        if !self.has_quorum() {
            return self.step_down();
        }
        let effects = {
            let mut leading = self.leading();
            let Some(leading) = leading.as_mut() else { return };
            leading.master.handle(self.now(), input)
        };
        self.carry_out(effects);
    }

    /// Tells the leader what was applied since the last time.
    fn tell_applied(self: &Arc<Self>) {
        if !self.has_quorum() {
            return self.step_down();
        }
        let effects = {
            let mut leading = self.leading();
            let Some(leading) = leading.as_mut() else { return };
            // Under the lock, so that what is touched goes in in order.
            let touched = self.news.take();
            let state = self.state();
            let touched = touched.unwrap_or_else(|| everything(&state));
            if touched.is_empty() {
                return;
            }
            leading.master.handle(self.now(), Input::Applied { state, touched })
        };
        self.carry_out(effects);
        self.changed.raise();
    }

    fn carry_out(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let node = self.clone();
            match effect {
                Effect::Answer { incarnation, answer } => {
                    self.reached_with(&answer);
                    self.answer(incarnation, answer);
                }
                Effect::StepDown => self.step_down(),
                Effect::Propose { ticket, command, pause } => {
                    drop(E::Rt::spawn(async move { node.propose_for_leader(ticket, command, pause).await }));
                }
                Effect::Plan(of) => {
                    let (job, work) = (of.id, async move { node.plan(&of).await });
                    self.errand("planning", job, work, move |result| Input::Planned { job, result });
                }
                Effect::LoadPlan(of) => {
                    let (job, work) = (of.id, async move { node.load_plan(&of).await });
                    self.errand("loading the plan of", job, work, move |result| Input::Planned { job, result });
                }
                Effect::Judge(of) => {
                    let (job, work) = (of.id, async move { node.judge(&of).await });
                    self.errand("finding the bad record of", job, work, move |result| Input::Judged { job, result });
                }
                Effect::Publish(of) => {
                    let (job, work) = (of.job, async move { node.publish(&of).await });
                    self.errand("publishing", job, work, move |result| Input::Published { job, result });
                }
                Effect::Retire(of) => {
                    let (job, work) = (of.id, async move { node.retire(&of).await });
                    self.errand("retiring", job, work, move |result| Input::Retired { job, result });
                }
                Effect::Sweep { upto, keep } => drop(E::Rt::spawn(async move { node.sweep(upto, &keep).await })),
            }
        }
    }

    /// Does something for a job and tells the leader what came of it, whatever that is. What is tried again should be seen
    /// by an operator.
    fn errand<T: Send + 'static>(
        self: &Arc<Self>,
        doing: &'static str,
        job: u64,
        work: impl Future<Output = Result<T, Setback>> + Send + 'static,
        input: impl FnOnce(Result<T, Setback>) -> Input + Send + 'static,
    ) {
        let (node, work) = (self.clone(), E::Rt::spawn(work));
        drop(E::Rt::spawn(async move {
            let result = work.await.unwrap_or_else(|_| Err(Setback::Later("the master panicked over it".into())));
            if let Err(Setback::Later(why)) = &result {
                node.env.note(Note::Trouble { what: format!("{doing} job {job} failed: {why}") });
            }
            node.tell(input(result));
        }));
    }

    fn reached_by(&self, poll: &wire::Poll) {
        for report in poll.reports.iter().filter(|report| matches!(report.end, Some(End::Done(_)))) {
            match report.task.map(|task| task.stage()) {
                Some(wire::Stage::Map) => self.env.reached(Point::MapReported),
                Some(wire::Stage::Reduce) => self.env.reached(Point::ReduceReported),
                _ => {}
            }
        }
    }

    fn reached_with(&self, answer: &wire::PollAnswer) {
        for assignment in &answer.assignments {
            match assignment.task.map(|task| task.stage()) {
                Some(wire::Stage::Map) => self.env.reached(Point::MapAssigned),
                Some(wire::Stage::Reduce) => self.env.reached(Point::ReduceAssigned),
                _ => {}
            }
        }
    }

    fn answer(&self, incarnation: u64, answer: wire::PollAnswer) {
        let mut leading = self.leading();
        let Some(leading) = leading.as_mut() else { return };
        if leading.polls.get(&incarnation).is_some_and(|(sequence, _)| *sequence == answer.sequence)
            && let Some((_, waiting)) = leading.polls.remove(&incarnation)
        {
            // Who does not wait any more has told or will.
            let _ = waiting.send(answer);
        }
    }

    async fn propose_for_leader(self: &Arc<Self>, ticket: u64, command: wire::Command, pause: Duration) {
        use gristmill_raft::Error::{NotLeader, Refused};
        let told_from = clock::now::<E::Rt>() + pause;
        let outcome = match self.log.propose(command.encode_to_vec()).await {
            Ok(_) => Proposed::Applied,
            Err(NotLeader { .. }) => Proposed::NotLeader,
            Err(Refused(_)) => Proposed::Refused,
            Err(_) => Proposed::Unknown,
        };
        self.tell_applied();
        if !pause.is_zero() {
            E::Rt::sleep_until(told_from).await;
        }
        self.tell(Input::Proposed { ticket, outcome });
    }

    /// Proposes for a client or a worker, and gives what it came to.
    async fn propose(self: &Arc<Self>, who: &Principal, action: wire::command::Action) -> Result<Outcome, CallError> {
        use gristmill_raft::Error::{NotLeader, Refused};
        let (now_ms, principal, from) = (self.env.wall_ms(), who.name.to_string(), who.from.to_string());
        let (session, account, action) = (who.session, who.is_account(), Some(action));
        let command = wire::Command { now_ms, principal, level: 1, session, from, account, action };
        let reply = match self.log.propose(command.encode_to_vec()).await {
            Ok(reply) => reply,
            Err(NotLeader { leader }) => {
                return Err(CallError::NotLeader { leader: leader.map(|peer| peer.address) });
            }
            Err(Refused(why)) => return Err(CallError::Refused(why)),
            Err(e) if planted(Bug::UnknownIsRefused) => return Err(CallError::Refused(e.to_string())),
            Err(e) => return Err(CallError::Unknown(e.to_string())),
        };
        self.tell_applied();
        let reply = wire::Reply::decode(reply).ok().and_then(|reply| reply.outcome);
        reply.ok_or_else(|| CallError::Unknown("the reply to a command makes no sense".into()))
    }
}

/// All that there is.
fn everything(state: &State) -> Vec<Touch> {
    let jobs = state.jobs().flat_map(|job| {
        let task = |stage, partition| Touch::Task(TaskId { job: job.id, stage, partition });
        let maps = (0..job.maps.len() as u32).map(move |map| task(ids::Stage::Map, map));
        let reduces = (0..job.reduces.len() as u32).map(move |part| task(ids::Stage::Reduce, part));
        [Touch::Job(job.id)].into_iter().chain(maps).chain(reduces)
    });
    jobs.chain(state.workers().map(|worker| Touch::Worker(worker.incarnation))).collect()
}
