//! One run: a cluster is made, users work, faults happen, all heals, everything comes to its end, and what should hold is
//! looked at.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::faults;
use crate::invariants::{self, BOUND, Seen, Violation, Watches};
use crate::plan::Plan;
use crate::runtime::{NodeId, OUTSIDE, SimRuntime, Simulation, here, now, record, spawn_on};
use crate::said::Said;
use crate::workload::Users;

/// Between looks at all masters.
const LOOK: Duration = Duration::from_millis(250);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Over everything that happened.
    pub hash: u64,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// By true time in there.
    pub time: Duration,
    /// How often a task was polled.
    pub polls: u64,
    /// Jobs that were taken, and those of them that completed.
    pub jobs: (usize, usize),
    /// Processes that were started again though nobody had meant them to end.
    pub restarts: u32,
    /// What it reached of what must be reached in some run.
    pub marks: BTreeSet<&'static str>,
    /// The story: when, where (by name), what.
    pub events: Vec<Event>,
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// True time since the beginning.
    pub at: Duration,
    /// The node's name; empty: the world around the cluster.
    pub at_node: String,
    /// One line.
    pub what: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a plan. Everything beyond it follows from the seed.
pub fn run(seed: u64, plan: &Plan) -> Outcome {
    let simulation = Simulation::new(seed);
    let watches: Arc<Mutex<Watches>> = Arc::default();
    let store = Arc::new(Mutex::new(None));
    let (watching, stored) = (watches.clone(), store.clone());
    let cluster = Cluster::new(seed, plan, move |change, happened| {
        if let Some(store) = &*lock(&stored) {
            lock(&watching).changed(change, happened, store);
        }
    });
    let (hearing, stored, listens) = (watches.clone(), store.clone(), Arc::downgrade(&cluster));
    cluster.network.overhear(move |said| {
        if let Some(store) = &*lock(&stored) {
            lock(&hearing).hear(said, store);
        }
        if let (Said::Promised(asked, _), Some(cluster)) = (said, listens.upgrade()) {
            cluster.has_promised(here(), asked.is_vote);
        }
    });
    *lock(&store) = Some(cluster.store.memory().clone());
    let users = Users::new(cluster.clone(), seed);
    simulation.block_on(story(&cluster, &users, plan, &watches));
    let ended = simulation.ended();
    let seen = Seen { users: &users, cluster: &cluster };
    let mut violations = lock(&watches).found().to_vec();
    violations.extend(invariants::check(&seen, &ended));
    let name = |node: NodeId| match node {
        OUTSIDE => String::new(),
        node => cluster.machine(node).address.clone(),
    };
    let event =
        |(at, node, what): &(Duration, NodeId, String)| Event { at: *at, at_node: name(*node), what: what.clone() };
    let events = ended.events.iter().map(event).collect();
    let ledger = users.ledger();
    let completed = ledger.jobs.values().filter(|job| job.state == gristmill_proto::v1::JobState::Completed).count();
    let jobs = (ledger.jobs.len(), completed);
    drop(ledger);
    let (hash, time, polls, restarts) = (ended.hash, ended.time, ended.polls, cluster.restarts());
    // Cycles of handles end with their tasks, and those with the simulation.
    cluster.machines.iter().for_each(|machine| cluster.stop(machine.node, crate::plan::Death::Process));
    *lock(&store) = None;
    Outcome { hash, violations, time, polls, jobs, restarts, marks: ended.marks, events }
}

/// From the beginning until everything came to its end, or had time enough for it.
async fn story(cluster: &Arc<Cluster>, users: &Users, plan: &Plan, watches: &Arc<Mutex<Watches>>) {
    users.put_inputs().await;
    cluster.begin().await;
    let (looking, watched) = (cluster.clone(), watches.clone());
    drop(spawn_on(OUTSIDE, async move {
        loop {
            SimRuntime::sleep(LOOK).await;
            lock(&watched).look(&looking);
        }
    }));
    users.begin(plan.users, plan.jobs, plan.time);
    faults::inflict(cluster, plan).await;
    faults::heal(cluster);
    lock(watches).healed();
    let healed = now();
    let rests = || users.ledger().busy == 0 && invariants::is_clean(&Seen { users, cluster });
    while now() < healed + BOUND {
        if rests() {
            record("all is done");
            return;
        }
        SimRuntime::sleep(LOOK).await;
    }
    record("time is over");
}
