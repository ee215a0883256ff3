//! Masters and workers as simulated machines: starting, killing, pausing and replacing their processes.
//!
//! What the processes do is the engine's and raft's own code. What is here is what an operator and a machine do: a
//! process that ended is started again, a folder that a master refuses is replaced and its member with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gristmill_engine::apps;
use gristmill_engine::auth::password::Cost;
use gristmill_engine::control::master::Config;
use gristmill_engine::node::env::Apps;
use gristmill_engine::node::master::{Accounts, MasterNode, Options};
use gristmill_engine::node::worker::{self, Worker};
use gristmill_engine::scratch;
use gristmill_engine::store::Publish;
use gristmill_proto::internal::v1 as wire;
use gristmill_raft::model::{Disk, Faults};
use gristmill_raft::net::Peer;
use gristmill_raft::node::Disks;
use openraft_rt::AsyncRuntime as _;

use crate::fickle;
use crate::marks::sometimes;
use crate::net::{Network, Offer, Weather};
use crate::picky;
use crate::plan::{Death, Plan, Who};
use crate::points::{ENTRIES_TAKEN, Points, SUBMITTING, VOTE_GRANTED};
use crate::runtime::{NodeId, OUTSIDE, SimRuntime, in_node, is_alive, kill, now, record, revive, spawn_on};
use crate::said::Said;
use crate::store::{Change, SharedStore, StoreWeather};
use crate::world::{Inner, World};

/// The cluster's id.
pub(crate) const CLUSTER: u64 = 0x6715_7311;
/// The password of the first user, until that one changes it.
pub(crate) const FIRST_PASSWORD: &str = "the first password";
/// What a master says that found less in its folder than it had acknowledged.
const FORGOT: &str = "must not come back with it";
/// Of what an operator asks a master.
const ASK: Duration = Duration::from_secs(2);
/// How often is looked who has to be started.
const LOOK: Duration = Duration::from_millis(50);
/// How long a leader is cut off that takes a job: others elect one meanwhile, and who asked still waits.
const CUT_OFF: Duration = Duration::from_millis(1_500);
/// From the end of a process to the start of the next, when nobody meant it to end.
const RESTART: Duration = Duration::from_millis(300);

/// A machine.
pub(crate) struct Machine {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    wall_offset_ms: Arc<AtomicI64>,
    /// The furthest that its clock of the day was ever ahead.
    wall_ahead_ms: AtomicI64,
    /// Whether a process should run, or nobody is to start one yet.
    is_wanted: AtomicBool,
    /// Whether somebody is replacing its folder.
    is_replaced: AtomicBool,
    kind: Kind,
}

enum Kind {
    Master {
        disk: Disk<SimRuntime>,
        /// The member that its folder is, once it has started.
        member: Mutex<Option<u64>>,
        /// Why its folder is not taken, if it is not.
        refused: Mutex<Option<String>>,
        /// Members that its folders were and that are still to be removed.
        gone: Mutex<Vec<u64>>,
    },
    Worker {
        scratch: scratch::Memory,
        is_full: Arc<AtomicBool>,
        handle: Mutex<Option<Worker<World>>>,
    },
}

/// Masters, workers, and what is between them.
pub(crate) struct Cluster {
    seed: u64,
    slots: u32,
    speed: u32,
    age: u16,
    pub(crate) network: Network,
    pub(crate) store: SharedStore,
    pub(crate) points: Points,
    pub(crate) machines: Vec<Machine>,
    apps: Arc<Apps>,
    /// Masters that may have forgotten something, and for how many reasons: of others nothing is taken away meanwhile.
    forgetful: Mutex<BTreeMap<NodeId, u32>>,
    /// Folders that were refused though nothing had damaged them.
    pub(crate) surprises: Mutex<Vec<String>>,
    restarts: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn leader_config() -> Config {
    let ms = Duration::from_millis;
    // A lease of seconds, so that a run of seconds sees the end of some; reducers that begin early also in small clusters.
    let (lease, poll_wait, tick, retry, sweep) = (ms(2_000), ms(600), ms(100), ms(200), ms(10_000));
    Config { lease, poll_wait, tick, retry, sweep, early_percent: 60, ..Config::default() }
}

/// Passwords that are hashed in no time: how long a guess takes is not what is tried here.
fn accounts() -> Accounts {
    let cost = Cost { memory_kib: 8, passes: 1 };
    Accounts { cost, first: true, password: Some(FIRST_PASSWORD.to_string().into()), reset: None }
}

fn log_options() -> gristmill_raft::Options {
    let ms = Duration::from_millis;
    let (heartbeat, election_min, election_max) = (ms(50), ms(200), ms(400));
    let options = gristmill_raft::Options::new(CLUSTER);
    // Snapshots and purges within a run.
    gristmill_raft::Options {
        heartbeat,
        election_min,
        election_max,
        snapshot_bytes: 4 << 10,
        kept_entries: 10,
        ..options
    }
}

impl Cluster {
    /// Machines without processes. `changed` hears of every change in the store.
    pub(crate) fn new(seed: u64, plan: &Plan, changed: impl Fn(&Change, bool) + Send + Sync + 'static) -> Arc<Self> {
        let network = Network::new(seed, Weather::default());
        let publish = if plan.copies { Publish::Copy } else { Publish::Rename };
        let masters = (0..u32::from(plan.masters)).map(|n| Machine::master(seed, n));
        let machines: Vec<Machine> = masters.chain((0..u32::from(plan.workers.max(1))).map(Machine::worker)).collect();
        machines.iter().for_each(|machine| network.place(&machine.address, machine.node));
        Arc::new(Self {
            seed,
            slots: u32::from(plan.slots.max(1)),
            speed: plan.speed.max(1),
            age: plan.age,
            network,
            store: SharedStore::new(publish, StoreWeather::default(), changed),
            points: Points::default(),
            machines,
            apps: Arc::new(Apps::new(apps::all().into_iter().chain([fickle::entry(), picky::entry()]), "simulated")),
            forgetful: Mutex::default(),
            surprises: Mutex::default(),
            restarts: AtomicU32::new(0),
        })
    }

    pub(crate) fn masters(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| matches!(machine.kind, Kind::Master { .. }))
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| matches!(machine.kind, Kind::Worker { .. }))
    }

    pub(crate) fn machine(&self, node: NodeId) -> &Machine {
        self.machines.iter().find(|machine| machine.node == node).expect("a machine of the cluster")
    }

    /// Who is meant, if there is such a node now.
    pub(crate) fn find(&self, who: Who) -> Option<NodeId> {
        let (masters, workers) = (self.masters().count(), self.workers().count());
        match who {
            Who::M(n) => self.masters().nth(usize::from(n) % masters).map(|m| m.node),
            Who::W(n) => self.workers().nth(usize::from(n) % workers).map(|m| m.node),
            Who::Leader => self.leader(),
        }
    }

    /// The master that leads, as far as it knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.masters().map(|m| m.node).find(|node| self.handle(*node).is_some_and(|m| m.log().leadership().here))
    }

    /// The handle of a master's process.
    pub(crate) fn handle(&self, node: NodeId) -> Option<MasterNode<World>> {
        match self.network.offer_of(node) {
            Some(Offer::Master(master)) if is_alive(node) => Some(master),
            _ => None,
        }
    }

    fn world(&self, machine: &Machine) -> World {
        let scratch: Arc<dyn scratch::Scratch> = match &machine.kind {
            Kind::Worker { scratch, .. } => Arc::new(scratch.clone()),
            Kind::Master { .. } => Arc::new(scratch::Memory::default()),
        };
        World(Arc::new(Inner {
            node: machine.node,
            network: self.network.clone(),
            store: self.store.seen_by(self.seed, machine.node),
            scratch,
            apps: self.apps.clone(),
            speed: self.speed,
            points: self.points.clone(),
            wall_offset_ms: machine.wall_offset_ms.clone(),
        }))
    }

    /// Starts a process on a machine that has none.
    pub(crate) fn start(self: &Arc<Self>, node: NodeId) {
        if is_alive(node) {
            return;
        }
        let machine = self.machine(node);
        machine.is_wanted.store(true, Relaxed);
        revive(node);
        let (cluster, world) = (self.clone(), self.world(machine));
        drop(spawn_on(node, async move {
            let machine = cluster.machine(node);
            match &machine.kind {
                Kind::Master { .. } => cluster.run_master(machine, world).await,
                Kind::Worker { handle, .. } => {
                    let worker = Worker::new(world, cluster.worker_options(machine));
                    *lock(handle) = Some(worker.clone());
                    cluster.network.offer(node, Offer::Worker(worker.clone()));
                    worker.run().await;
                    record("has ended");
                }
            }
            cluster.end(node, Death::Process);
        }));
    }

    fn worker_options(&self, machine: &Machine) -> worker::Options {
        worker::Options {
            name: machine.address.clone(),
            address: machine.address.clone(),
            slots: self.slots,
            masters: self.masters().map(|master| master.address.clone()).collect(),
            task_memory: 16 << 20,
            uid: String::new(),
            capabilities: Vec::new(),
            input_cache: 1 << 20,
            folder: u64::from(machine.node.0),
        }
    }

    async fn run_master(&self, machine: &Machine, world: World) {
        let Kind::Master { disk, member, refused, .. } = &machine.kind else { return };
        let (kv, files) = disk.boot();
        let options = Options { log: log_options(), leader: leader_config(), accounts: accounts(), pods: None };
        let network = self.network.clone();
        match MasterNode::start(world, options, Disks { kv, files }, |_| network).await {
            Ok(master) => {
                let id = master.log().identity().node;
                self.network.heard(|| Said::Holds(id, master.log().holds()));
                *lock(member) = Some(id);
                self.network.offer(machine.node, Offer::Master(master.clone()));
                let why = master.run().await;
                record(format!("has ended: {why}"));
            }
            Err(e) => {
                let causes = std::iter::successors(std::error::Error::source(&e), |cause| cause.source());
                let e = causes.fold(e.to_string(), |text, cause| format!("{text}: {cause}"));
                record(format!("does not start: {e}"));
                // Other reasons may pass: it is started again.
                if e.contains(FORGOT) {
                    sometimes("a folder is refused");
                    *lock(refused) = Some(e.clone());
                    if !lock(&self.forgetful).contains_key(&machine.node) {
                        lock(&self.surprises).push(format!("{}: {e}", machine.address));
                    }
                }
            }
        }
    }

    /// The end of a node's process. Does not return if a task of the node asks for it.
    pub(crate) fn end(&self, node: NodeId, death: Death) {
        if let Kind::Master { disk, .. } = &self.machine(node).kind {
            match death {
                Death::Process => disk.kill(),
                Death::Power => disk.crash(),
            }
        }
        // Its destructors are those of a dead node.
        let offer = self.network.withdraw(node);
        in_node(node, || drop(offer));
        kill(node);
    }

    /// A member of the log has bound itself by an answer, which is under way: it may lose power now.
    pub(crate) fn has_promised(self: &Arc<Self>, node: NodeId, is_vote: bool) {
        if !self.points.reached(if is_vote { VOTE_GRANTED } else { ENTRIES_TAKEN }) {
            return;
        }
        match is_vote {
            true => sometimes("a master that voted loses power"),
            false => sometimes("a master that took entries loses power"),
        }
        let cluster = self.clone();
        drop(spawn_on(OUTSIDE, async move {
            record(format!("{} loses power, having answered", cluster.machine(node).address));
            cluster.end(node, Death::Power);
        }));
    }

    /// A user submits something; `after` so long the leader may be cut off from the other masters.
    pub(crate) fn submitting(self: &Arc<Self>, after: Duration) {
        if !self.points.reached(SUBMITTING) {
            return;
        }
        let cluster = self.clone();
        drop(spawn_on(OUTSIDE, async move {
            SimRuntime::sleep(after).await;
            let Some(leader) = cluster.leader() else { return };
            sometimes("a leader is cut off while it takes a job");
            record(format!("{} is cut off from the other masters", cluster.machine(leader).address));
            let cut = |is_cut| {
                for other in cluster.masters().filter(|other| other.node != leader) {
                    cluster.network.cut(leader, other.node, is_cut);
                    cluster.network.cut(other.node, leader, is_cut);
                }
            };
            cut(true);
            SimRuntime::sleep(CUT_OFF).await;
            cut(false);
        }));
    }

    /// As [`Cluster::end`], and nobody starts another process before [`Cluster::start`].
    pub(crate) fn stop(&self, node: NodeId, death: Death) {
        self.machine(node).is_wanted.store(false, Relaxed);
        if is_alive(node) {
            self.end(node, death);
        }
    }

    /// Starts what ended by itself, and replaces folders that are refused, for ever.
    pub(crate) async fn operate(self: Arc<Self>) {
        loop {
            SimRuntime::sleep(LOOK).await;
            for machine in &self.machines {
                if is_alive(machine.node) || !machine.is_wanted.load(Relaxed) {
                    continue;
                }
                let refused = match &machine.kind {
                    Kind::Master { refused, .. } => lock(refused).take(),
                    Kind::Worker { .. } => None,
                };
                machine.is_wanted.store(false, Relaxed);
                let cluster = self.clone();
                let node = machine.node;
                self.restarts.fetch_add(1, Relaxed);
                drop(spawn_on(OUTSIDE, async move {
                    SimRuntime::sleep(RESTART).await;
                    match refused {
                        // Somebody else may have replaced it meanwhile.
                        Some(_) if !is_alive(node) => cluster.replace(node).await,
                        _ => cluster.start(node),
                    }
                }));
            }
        }
    }

    /// A master comes back with an empty folder under a new id, as an operator is told to do: the old member is removed
    /// first, because one that is gone counts for the quorum as long as it is one.
    pub(crate) async fn replace(self: Arc<Self>, node: NodeId) {
        let machine = self.machine(node);
        let Kind::Master { disk, member, gone, refused } = &machine.kind else { return self.start(node) };
        let is_first = {
            let mut gone = lock(gone);
            gone.extend(lock(member).take());
            !machine.is_replaced.swap(true, Relaxed)
        };
        if is_first {
            self.forgetting(node);
        }
        disk.wipe();
        // What was wrong with the old one is not with the new.
        lock(refused).take();
        record(format!("{}: its folder is replaced", machine.address));
        self.start(node);
        if !is_first {
            // Who is at it already takes this one in as well.
            return;
        }
        // Others have to be there for it; what was replaced once more meanwhile is removed as well.
        loop {
            SimRuntime::sleep(LOOK * 4).await;
            let (Some(new), Some(leader)) = (*lock(member), self.leader()) else { continue };
            let old = lock(gone).clone();
            let peer = Peer { id: new, address: machine.address.clone() };
            let removed = old.clone();
            let asked = self.network.ask(leader, Duration::from_secs(20), move |master| {
                let (old, peer) = (old.clone(), peer.clone());
                async move {
                    for old in old {
                        master.log().remove_member(old).await?;
                    }
                    master.log().add_member(&peer).await
                }
            });
            match asked.await {
                Some(Ok(())) => {
                    lock(gone).retain(|id| !removed.contains(id));
                    if *lock(member) == Some(new) {
                        break;
                    }
                }
                Some(Err(e)) => record(format!("{}: is not taken in yet: {e}", machine.address)),
                None => {}
            }
        }
        machine.is_replaced.store(false, Relaxed);
        sometimes("a folder is replaced");
        record(format!("{}: is a member again", machine.address));
        self.forgot_nothing(node);
    }

    /// Starts everything and makes the cluster.
    pub(crate) async fn begin(self: &Arc<Self>) {
        self.machines.iter().for_each(|machine| self.start(machine.node));
        let members: Vec<Peer> = loop {
            let peer = |machine: &Machine| match &machine.kind {
                Kind::Master { member, .. } => Some(Peer { id: (*lock(member))?, address: machine.address.clone() }),
                Kind::Worker { .. } => None,
            };
            let known: Vec<Peer> = self.masters().filter_map(peer).collect();
            if known.len() == self.masters().count() {
                break known;
            }
            SimRuntime::sleep(LOOK).await;
        };
        let first = self.machines[0].node;
        let made = self.network.ask(first, ASK, move |master| {
            let members = members.clone();
            async move { master.log().initialize(&members).await }
        });
        made.await.expect("a calm network").expect("an empty cluster");
        loop {
            SimRuntime::sleep(LOOK).await;
            let Some(leader) = self.leader() else { continue };
            if let Some(Ok(())) =
                self.network.ask(leader, ASK, |master| async move { master.init(CLUSTER).await }).await
            {
                break;
            }
        }
        self.grow_old().await;
        drop(spawn_on(OUTSIDE, self.clone().operate()));
        record(format!("the cluster is ready after {:?}", now()));
    }

    /// Fills the log with what changes nothing: that nothing has happened is written down.
    async fn grow_old(&self) {
        for _ in 0..self.age {
            let Some(leader) = self.leader() else { continue };
            let nothing =
                |master: MasterNode<World>| async move { master.note_audit(wire::NoteAudit::default()).await };
            self.network.ask(leader, ASK, nothing).await;
        }
    }

    /// Whether a master may lose what it has: at most one at a time, and none of a cluster that has no other.
    pub(crate) fn may_forget(&self, node: NodeId) -> bool {
        let forgetful = lock(&self.forgetful);
        self.masters().count() > 2 && forgetful.keys().all(|other| *other == node)
    }

    /// What a master has may be gone, for one more reason.
    pub(crate) fn forgetting(&self, node: NodeId) {
        *lock(&self.forgetful).entry(node).or_default() += 1;
    }

    /// One of the reasons is no more.
    pub(crate) fn forgot_nothing(&self, node: NodeId) {
        let mut forgetful = lock(&self.forgetful);
        let left = forgetful.get(&node).map_or(0, |reasons| reasons - 1);
        match left {
            0 => forgetful.remove(&node),
            _ => forgetful.insert(node, left),
        };
    }

    /// Waits until a master is a voter that has what a leader with a quorum had when this began.
    pub(crate) async fn remembers(&self, node: NodeId) {
        let committed = loop {
            SimRuntime::sleep(LOOK).await;
            let leader =
                self.leader().and_then(|leader| self.handle(leader)).filter(|leader| leader.log().has_quorum());
            if let Some(leader) = leader {
                break leader.log().metrics().committed;
            }
        };
        loop {
            SimRuntime::sleep(LOOK).await;
            let Some(master) = self.handle(node) else { continue };
            let (metrics, id) = (master.log().metrics(), master.log().identity().node);
            if metrics.applied >= committed && metrics.voters.iter().any(|voter| voter.id == id) {
                break;
            }
        }
    }

    pub(crate) fn disk(&self, node: NodeId) -> Option<&Disk<SimRuntime>> {
        match &self.machine(node).kind {
            Kind::Master { disk, .. } => Some(disk),
            Kind::Worker { .. } => None,
        }
    }

    pub(crate) fn worker(&self, node: NodeId) -> Option<Worker<World>> {
        match &self.machine(node).kind {
            Kind::Worker { handle, .. } => lock(handle).clone(),
            Kind::Master { .. } => None,
        }
    }

    /// How often a process was started again that nobody had meant to end.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts.load(Relaxed)
    }
}

impl Machine {
    fn master(seed: u64, n: u32) -> Self {
        let disk = Disk::new(seed ^ u64::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        disk.set_faults(calm());
        let kind = Kind::Master { disk, member: Mutex::default(), refused: Mutex::default(), gone: Mutex::default() };
        Self::new(1 + n, format!("m{}", n + 1), kind)
    }

    fn worker(n: u32) -> Self {
        let is_full = Arc::new(AtomicBool::new(false));
        let full = is_full.clone();
        let scratch = scratch::Memory::failing(move |op, _| {
            let writes = matches!(op, scratch::Op::Create | scratch::Op::Write(_));
            (writes && full.load(Relaxed)).then(|| std::io::ErrorKind::StorageFull.into())
        });
        Self::new(101 + n, format!("w{}", n + 1), Kind::Worker { scratch, is_full, handle: Mutex::default() })
    }

    fn new(node: u32, address: String, kind: Kind) -> Self {
        let (wall_offset_ms, wall_ahead_ms, is_wanted, is_replaced) = Default::default();
        Self { node: NodeId(node), address, wall_offset_ms, wall_ahead_ms, is_wanted, is_replaced, kind }
    }

    /// Its clock of the day jumps.
    pub(crate) fn step_wall(&self, by_ms: i64) {
        let offset_ms = self.wall_offset_ms.fetch_add(by_ms, Relaxed) + by_ms;
        self.wall_ahead_ms.fetch_max(offset_ms, Relaxed);
    }

    /// The furthest that its clock of the day was ever ahead, in milliseconds.
    pub(crate) fn wall_ahead_ms(&self) -> i64 {
        self.wall_ahead_ms.load(Relaxed)
    }

    /// Nothing can be written to a worker's scratch, or it can again.
    pub(crate) fn fill_scratch(&self, full: bool) {
        if let Kind::Worker { is_full, .. } = &self.kind {
            is_full.store(full, Relaxed);
        }
    }

    /// Everything on a worker's disk is gone.
    pub(crate) fn wipe_scratch(&self) {
        if let Kind::Worker { scratch, .. } = &self.kind {
            scratch.wipe();
        }
    }

    /// What is left on a worker's disk.
    pub(crate) fn scratch(&self) -> Option<&scratch::Memory> {
        match &self.kind {
            Kind::Worker { scratch, .. } => Some(scratch),
            Kind::Master { .. } => None,
        }
    }
}

/// A disk that works, in the time that disks take.
pub(crate) fn calm() -> Faults {
    let us = Duration::from_micros;
    Faults { sync_min: us(200), sync_max: us(3_000), torn_batches: true, ..Faults::default() }
}
