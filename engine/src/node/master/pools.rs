//! The leader's care for pools: looks at what there is, has `control::pools::decide` say what is to be done, and does it
//! through the seam of pods. Also what clients may ask about pools.
//!
//! Before anything is made or deleted a quorum confirms that this node still leads. That leaves a moment in which another
//! one may begin to; what both do then is the same by name, and what one of them deletes, it deletes by UID.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action as Command;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1 as api;
use gristmill_raft::runtime::{AsyncRuntime, Select2};
use prost::Message as _;

use super::api::refused;
use super::{ApiError, Code, Inner, Input, MasterEnv, MasterNode};
use crate::control::commit;
use crate::control::limits::INCIDENT_BYTES;
use crate::control::master::pool::{News, Notices, Seated};
use crate::control::pools::decide::{Action, Decided, Memory, OUT_OF_MEMORY, Standing, View, decide};
use crate::control::pools::{Pool, Reason};
use crate::control::rights::Principal;
use crate::control::state::State;
use crate::control::task::cut;
use crate::node::env::Note;
use crate::node::pods::{Event, Pods, Refusal};

/// Between two looks, if nothing is heard.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at least: what comes in a burst is looked at once.
const GATHER: Duration = Duration::from_millis(50);
/// Calls to whoever keeps pods, at a time.
const AT_ONCE: usize = 32;
/// Bytes of what a pod said last that are kept.
const WORDS: u32 = 64 << 10;
/// Lines of it.
const LINES: usize = 200;
/// Bytes of it that are looked at for the last line.
const LAST_LINE: u32 = 1 << 10;

/// What is known of pools while this node leads, for those who ask.
#[derive(Debug, Default)]
pub(super) struct Known {
    standings: Vec<Standing>,
    /// What is wrong with all of them.
    trouble: Option<String>,
}

impl Decided for State {
    fn of(&self, pool: &str) -> Option<&wire::PoolRecord> {
        self.pool(pool)
    }
}

/// What came of a call.
enum Done {
    /// A pod was made.
    Made { pool: String },
    /// A pod that came to nothing, by UID, is deleted; this is its last line.
    Said { pod: String, line: String },
}

/// One leadership's.
struct Care {
    term: u64,
    memory: Memory,
    /// The last thing that was told to people, not to tell it twice.
    told: String,
    /// Leavings that were told.
    leaving: BTreeMap<u64, Reason>,
}

impl<E: MasterEnv> Inner<E> {
    /// Cares for pools whenever this node leads, until it ends.
    pub(super) async fn keep_pools(self: Arc<Self>, pods: Arc<dyn Pods>) {
        let (mut stop, mut changed) = (self.stop.listen(), self.changed.listen());
        let mut care: Option<Care> = None;
        while self.log.ended().is_none() {
            let term = self.leading().as_ref().map(|leading| leading.master.term());
            if care.as_ref().map(|care| care.term) != term {
                care = term.map(|term| Care {
                    term,
                    memory: Memory::default(),
                    told: String::new(),
                    leaving: BTreeMap::new(),
                });
                pods.lead(self.state().cluster(), term);
                *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
            }
            if let Some(care) = &mut care {
                self.look(care, &*pods).await;
            }
            let heard = E::Rt::select2(pods.changed(), changed.heard());
            if let Select2::First(()) = E::Rt::select2(stop.heard(), E::Rt::select2(heard, E::Rt::sleep(LOOK))).await {
                break;
            }
            E::Rt::sleep(GATHER).await;
        }
        pods.lead(0, None);
    }

    /// One look, and what follows from it.
    async fn look(self: &Arc<Self>, care: &mut Care, pods: &dyn Pods) {
        let (pools, there) = match (pods.pools(), pods.pods()) {
            (Ok(pools), Ok(there)) => (pools, there),
            (Err(why), _) | (_, Err(why)) => return self.tell_trouble(care, Some(why.to_string())),
        };
        let Some((workers, demand)) = self
            .leading()
            .as_ref()
            .map(|leading| (leading.master.seated().collect::<Vec<Seated>>(), leading.master.demand()))
        else {
            return;
        };
        let state = self.state();
        let drained: BTreeSet<&str> = state.drained().map(|(_, uid)| uid).filter(|uid| !uid.is_empty()).collect();
        let now = self.now().mono;
        let view = View {
            pools: &pools,
            decided: &state,
            pods: &there,
            workers: &workers,
            demand: &demand,
            drained: &drained,
            now,
        };
        let (actions, standings) = decide(view, &mut care.memory);
        self.know(&standings);
        self.tell_trouble(care, None);
        self.learn(&state, &pools, &there, &workers).await;
        if actions.is_empty() {
            return;
        }
        // Whoever was deposed must not go on.
        if self.log.read(|_| ()).await.is_err() || self.log.leadership().term != care.term {
            return;
        }
        let mut calls = Vec::new();
        for action in actions {
            match action {
                Action::Retire { incarnation } => self.tell(Input::Pools(News::Retire { incarnation })),
                Action::Leaves { incarnation, why } => {
                    if care.leaving.insert(incarnation, why.clone()).as_ref() != Some(&why) {
                        let why = cut(why.to_string(), INCIDENT_BYTES);
                        self.tell(Input::Pools(News::Leaves { incarnation, why }));
                    }
                }
                Action::Gone { incarnation, why, pod } => {
                    let out_of_memory = why.word == OUT_OF_MEMORY;
                    let why = cut(format!("pod {} has ended: {why}", pod.0), INCIDENT_BYTES);
                    self.keep_words(pods, incarnation, &pod, &why).await;
                    self.tell(Input::Pools(News::Gone { incarnation, why, out_of_memory }));
                }
                Action::Make(_) | Action::Delete { .. } => calls.push(action),
            }
        }
        care.leaving.retain(|incarnation, _| workers.iter().any(|worker| worker.incarnation == *incarnation));
        let term = care.term;
        let mut done = stream::iter(calls).map(|call| self.call(pods, call, term)).buffer_unordered(AT_ONCE);
        let (mut made, mut refusals) = (BTreeMap::<String, u32>::new(), Vec::new());
        while let Some(done) = done.next().await {
            match done {
                Ok(Some(Done::Made { pool })) => *made.entry(pool).or_default() += 1,
                Ok(Some(Done::Said { pod, line })) => {
                    let seat = there.iter().find(|there| there.uid == pod).and_then(|pod| pod.seat.as_ref());
                    seat.into_iter().for_each(|seat| care.memory.said(&seat.pool, &line));
                }
                Ok(None) => {}
                Err(refused) => refusals.push(refused),
            }
        }
        drop(done);
        for (pool, refusal) in refusals {
            let wait = if let Refusal::Later(_, wait) = &refusal { *wait } else { None };
            care.memory.failed(&pool, refusal.reason().clone(), now, wait);
        }
        for (pool, pods_made) in made {
            let text = format!("made {pods_made} pods of pool {pool}");
            pods.tell(&Event { pod: None, reason: "ScaledUp".into(), text, warning: false }).await;
        }
    }

    /// Makes or deletes a pod. An error names the pool in which none was made.
    async fn call(&self, pods: &dyn Pods, action: Action, term: u64) -> Result<Option<Done>, (String, Refusal)> {
        match action {
            Action::Make(seat) => match pods.make(&seat, term).await {
                Ok(()) => Ok(Some(Done::Made { pool: seat.pool })),
                Err(refusal) => Err((seat.pool, refusal)),
            },
            Action::Delete { name, uid, why, failed } => {
                let mut said = None;
                if failed {
                    let words = pods.last_words(&name, &uid, LAST_LINE).await;
                    said = words.lines().rfind(|line| !line.trim().is_empty()).map(str::to_string);
                    let more = said.as_ref().map(|line| format!("; it said last: {line}"));
                    let text = cut(why + &more.unwrap_or_default(), 1 << 10);
                    let event = Event {
                        pod: Some((name.clone(), uid.clone())),
                        reason: "WorkerLost".into(),
                        text,
                        warning: true,
                    };
                    pods.tell(&event).await;
                }
                // The next look tries again.
                let _ = pods.delete(&name, &uid).await;
                Ok(said.map(|line| Done::Said { pod: uid, line }))
            }
            _ => Ok(None),
        }
    }

    /// Puts what a pod said last where the logs of the jobs are that had something on it.
    async fn keep_words(&self, pods: &dyn Pods, incarnation: u64, (name, uid): &(String, String), why: &str) {
        let state = self.state();
        let running: BTreeSet<u64> = match self.leading().as_ref() {
            Some(leading) => {
                let on = leading.master.running().filter(|(_, _, worker, _)| *worker == incarnation);
                on.map(|(_, task, ..)| task.job).collect()
            }
            None => return,
        };
        let holding = state.jobs().filter(|job| job.is_open() && job.maps_on(incarnation).next().is_some());
        let jobs: BTreeSet<u64> = holding.map(|job| job.id).chain(running).collect();
        if jobs.is_empty() {
            return;
        }
        let words = pods.last_words(name, uid, WORDS).await;
        let (time_ms, task) = (self.env.wall_ms(), format!("pod {name}"));
        let skipped = words.lines().count().saturating_sub(LINES);
        let lines = [why].into_iter().chain(words.lines().skip(skipped)).map(|line| api::LogLine {
            time_ms,
            task: task.clone(),
            worker: name.clone(),
            line: line.to_string(),
            ..Default::default()
        });
        let file = Arc::new(wire::LogFile { lines: lines.collect() }.encode_to_vec());
        for job in jobs {
            let name = commit::log_of_pod(state.cluster(), job, uid);
            if let Err(e) = crate::node::objects::put(&self.env, &name, file.clone()).await {
                self.env.note(Note::Trouble { what: format!("cannot keep the log of {task}: {e}") });
            }
        }
    }

    /// Remembers what the workers of each pool offer, so that jobs may be submitted when there are none.
    async fn learn(
        self: &Arc<Self>,
        state: &State,
        pools: &[Pool],
        pods: &[crate::node::pods::Pod],
        workers: &[Seated],
    ) {
        for pool in pools {
            let of_pool = |worker: &&Seated| {
                let pod = pods.iter().find(|pod| pod.uid == worker.uid);
                let seat = pod.and_then(|pod| pod.seat.as_ref());
                seat.is_some_and(|seat| seat.pool == pool.name && seat.generation == pool.generation)
            };
            let worker = workers.iter().filter(of_pool).max_by_key(|worker| worker.incarnation);
            let offered =
                worker.and_then(|worker| state.worker(worker.incarnation)).and_then(|worker| worker.info.as_ref());
            let known = state.pool(&pool.name);
            // Before any worker has been there: what this build has, which the pool's image is as a rule.
            let apps = match (offered, known) {
                (Some(info), _) => info.apps.clone(),
                (None, Some(known)) if !known.apps.is_empty() => known.apps.clone(),
                (None, _) => self.env.apps().offers(),
            };
            let record = wire::PoolRecord {
                apps,
                capabilities: pool.capabilities.clone(),
                name: pool.name.clone(),
                ..known.cloned().unwrap_or_default()
            };
            if known != Some(&record) {
                // The next look tries again.
                let _ = self.propose(&Principal::system(), Command::PutPool(record)).await;
            }
        }
        for gone in state.pools().filter(|known| !pools.iter().any(|pool| pool.name == known.name)) {
            let remove = wire::RemovePool { name: gone.name.clone() };
            let _ = self.propose(&Principal::system(), Command::RemovePool(remove)).await;
        }
    }

    fn know(self: &Arc<Self>, standings: &[Standing]) {
        let notices: Vec<Notices> = standings
            .iter()
            .filter(|standing| !standing.notices.is_empty())
            .map(|standing| Notices { capabilities: standing.capabilities.clone(), lines: standing.notices.clone() })
            .collect();
        let before = {
            let mut known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut known.standings, standings.to_vec())
        };
        let was = before.iter().map(|standing| &standing.notices);
        if !was.eq(standings.iter().map(|standing| &standing.notices)) {
            self.tell(Input::Pools(News::Notices(notices)));
        }
    }

    /// Says what is wrong with pools as a whole, once.
    fn tell_trouble(self: &Arc<Self>, care: &mut Care, trouble: Option<String>) {
        let what = trouble.clone().unwrap_or_default();
        if care.told == what {
            return;
        }
        care.told.clone_from(&what);
        if trouble.is_some() {
            self.env.note(Note::Trouble { what: format!("pools: {what}") });
            let notices = Notices { capabilities: Vec::new(), lines: vec![format!("pools: {what}")] };
            self.tell(Input::Pools(News::Notices(vec![notices])));
        }
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
    }
}

fn no_pool(name: &str) -> ApiError {
    refused(Code::NotFound, format!("no pool is called {name}"), "see `gristmill worker pool ls`")
}

impl<E: MasterEnv> MasterNode<E> {
    /// `Pools.List`.
    ///
    /// # Errors
    /// That this master does not lead, or makes no workers.
    pub async fn pools(&self) -> Result<Vec<api::Pool>, ApiError> {
        self.confirm().await?;
        if self.inner.options.pods.is_none() {
            let what = "this cluster's masters make no workers";
            return Err(refused(Code::State, what, "start them with --pools; see k8s/README.md"));
        }
        let known = self.inner.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.standings.iter().map(|standing| told(standing, known.trouble.as_ref())).collect())
    }

    async fn pool(&self, name: &str) -> Result<api::Pool, ApiError> {
        let found = self.pools().await?.into_iter().find(|pool| pool.name == name);
        found.ok_or_else(|| no_pool(name))
    }

    /// `Pools.Set`.
    ///
    /// # Errors
    /// That there is no such pool, that it cannot be so, or that this master does not lead.
    pub async fn set_pool(&self, who: &Principal, set: api::SetPoolRequest) -> Result<api::Pool, ApiError> {
        let now = self.pool(&set.name).await?;
        let known = self.inner.state().pool(&set.name).cloned().unwrap_or_default();
        let before = if set.reset { wire::PoolRecord { min: None, max: None, idle_ms: None, ..known } } else { known };
        let record = wire::PoolRecord {
            name: set.name.clone(),
            min: set.min.or(before.min),
            max: set.max.or(before.max),
            idle_ms: set.idle_ms.or(before.idle_ms),
            ..before
        };
        // What is not decided is the file's.
        if let (Some(min), None) = (record.min, record.max)
            && min > now.max
            && !set.reset
        {
            let what = format!("pool {} has at most {} workers: it cannot have {min} always", now.name, now.max);
            return Err(refused(Code::Invalid, what, "give --max as well"));
        }
        match self.inner.propose(who, Command::PutPool(record)).await? {
            Outcome::Refused(no) => Err(no.into()),
            _ => {
                let pool = self.pool(&set.name).await?;
                let state = self.inner.state();
                let known = state.pool(&set.name);
                let (min, max) = (known.and_then(|known| known.min), known.and_then(|known| known.max));
                let idle_ms = known.and_then(|known| known.idle_ms);
                // The next look will say the same.
                Ok(api::Pool {
                    set: min.is_some() || max.is_some() || idle_ms.is_some(),
                    min: min.unwrap_or(pool.min),
                    max: max.unwrap_or(pool.max),
                    idle_ms: idle_ms.unwrap_or(pool.idle_ms),
                    ..pool
                })
            }
        }
    }

    /// `Pools.Add`.
    ///
    /// # Errors
    /// As [`MasterNode::set_pool`].
    pub async fn add_workers(&self, who: &Principal, add: &api::AddWorkersRequest) -> Result<api::Pool, ApiError> {
        if !(1..=1000).contains(&add.count) {
            return Err(refused(Code::Invalid, "1 to 1000 workers can be added at once", ""));
        }
        let pool = self.pool(&add.pool).await?;
        let min = pool.min + add.count;
        let (min, max) = (Some(min), (min > pool.max).then_some(min));
        self.set_pool(who, api::SetPoolRequest { name: add.pool.clone(), min, max, ..Default::default() }).await
    }

    /// `Pools.Remove`.
    ///
    /// # Errors
    /// That there is no such worker, that it is of no pool, or that this master does not lead.
    pub async fn remove_worker(&self, who: &Principal, name: &str) -> Result<api::Pool, ApiError> {
        self.confirm().await?;
        let none = || refused(Code::NotFound, format!("no worker is called {name}"), "see `gristmill workers`");
        let worker = self.inner.leading().as_ref().and_then(|l| l.master.seated().find(|worker| worker.name == name));
        let worker = worker.ok_or_else(none)?;
        let pods = self.inner.options.pods.as_ref().and_then(|pods| pods.pods().ok()).unwrap_or_default();
        let seat = pods.into_iter().find(|pod| pod.uid == worker.uid).and_then(|pod| pod.seat);
        let of_none =
            || refused(Code::State, format!("worker {name} is of no pool"), "drain it with `gristmill worker drain`");
        let pool = self.pool(&seat.ok_or_else(of_none)?.pool).await?;
        self.drain(who, name).await?;
        if pool.min == 0 || pool.ready + pool.pending > pool.min {
            return Ok(pool);
        }
        let min = Some(pool.min - 1);
        self.set_pool(who, api::SetPoolRequest { name: pool.name, min, ..Default::default() }).await
    }
}

fn told(standing: &Standing, trouble: Option<&String>) -> api::Pool {
    api::Pool {
        name: standing.name.clone(),
        min: standing.min,
        max: standing.max,
        idle_ms: u64::try_from(standing.idle.as_millis()).unwrap_or(u64::MAX),
        set: standing.decided,
        wanted: standing.wanted,
        pending: standing.pending,
        ready: standing.ready,
        draining: standing.ending,
        slots: standing.slots,
        capabilities: standing.capabilities.clone(),
        notices: trouble.cloned().into_iter().chain(standing.notices.iter().cloned()).take(16).collect(),
    }
}
