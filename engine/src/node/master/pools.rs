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
/// Bytes of the last of them where that is told.
const LAST_LINE: usize = 256;

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
    /// Nothing to be told.
    Nothing,
    /// A pod was made.
    Made { pool: String },
    /// A pod that came to nothing, by UID, is deleted; this is its last line.
    Said { pod: String, line: String },
}

/// What a call was for that was refused.
enum Wanted {
    /// A pod of this pool.
    Pod { pool: String },
    /// The end of this pod, by name.
    End { pod: String },
}

/// Pods that have ended, by UID: the jobs that had something there, and why it ended.
type Lost = BTreeMap<String, (BTreeSet<u64>, String)>;

/// One leadership's.
struct Care {
    term: u64,
    memory: Memory,
    /// The last trouble that was told to people, not to tell it twice.
    told: String,
    /// What jobs were told last.
    notices: Option<Vec<Notices>>,
    /// The last refusal to delete a pod that was told.
    refused: String,
    /// Leavings that were told.
    leaving: BTreeMap<u64, Reason>,
    lost: Lost,
}

impl<E: MasterEnv> Inner<E> {
    /// Cares for pools whenever this node leads, until it ends.
    pub(super) async fn keep_pools(self: Arc<Self>, pods: Arc<dyn Pods>) {
        let (mut stop, mut changed) = (self.stop.listen(), self.changed.listen());
        let mut care: Option<Care> = None;
        while self.log.ended().is_none() {
            // Pods carry the cluster's id, which a new one has in a moment.
            let cluster = self.state().cluster();
            let term = self.leading().as_ref().map(|leading| leading.master.term()).filter(|_| cluster != 0);
            if care.as_ref().map(|care| care.term) != term {
                care = term.map(|term| Care {
                    term,
                    memory: Memory::default(),
                    told: String::new(),
                    notices: None,
                    refused: String::new(),
                    leaving: BTreeMap::new(),
                    lost: Lost::new(),
                });
                pods.lead(cluster, term);
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
            (Err(why), _) | (_, Err(why)) => return self.know(care, None, Some(why.to_string())),
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
        self.know(care, Some(standings), pods.trouble().map(|why| why.to_string()));
        self.learn(&state, &pools, &there, &workers).await;
        if actions.is_empty() {
            return;
        }
        // Whoever was deposed must not go on.
        if self.log.read(|_| ()).await.is_err() || self.log.leadership().term != care.term {
            return;
        }
        let (mut makes, mut deletes) = (Vec::new(), Vec::new());
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
                    // Before jobs forget what ran there. Its words are fetched when it is deleted.
                    care.lost.insert(pod.1, (self.jobs_on(incarnation), why.clone()));
                    self.tell(Input::Pools(News::Gone { incarnation, why, out_of_memory }));
                }
                Action::Make(_) => makes.push(action),
                Action::Delete { .. } => deletes.push(action),
            }
        }
        care.leaving.retain(|incarnation, _| workers.iter().any(|worker| worker.incarnation == *incarnation));
        care.lost.retain(|uid, _| there.iter().any(|pod| pod.uid == *uid));
        let (term, lost) = (care.term, &care.lost);
        let calls = makes.into_iter().chain(deletes);
        let mut done = stream::iter(calls).map(|call| self.call(pods, call, term, lost)).buffer_unordered(AT_ONCE);
        let (mut made, mut said, mut refusals) = (BTreeMap::<String, u32>::new(), Vec::new(), Vec::new());
        while let Some(done) = done.next().await {
            match done {
                Ok(Done::Made { pool }) => *made.entry(pool).or_default() += 1,
                Ok(Done::Said { pod, line }) => said.push((pod, line)),
                Ok(Done::Nothing) => {}
                Err(refused) => refusals.push(refused),
            }
        }
        drop(done);
        for (pod, line) in said {
            let seat = there.iter().find(|there| there.uid == pod).and_then(|pod| pod.seat.as_ref());
            seat.into_iter().for_each(|seat| care.memory.said(&seat.pool, &line));
        }
        // Calls may have taken their time.
        let now = self.now().mono;
        let mut kept = String::new();
        for (what, refusal) in refusals {
            match what {
                Wanted::Pod { pool } => {
                    let wait = if let Refusal::Later(_, wait) = &refusal { *wait } else { None };
                    care.memory.failed(&pool, refusal.reason().clone(), now, wait);
                }
                Wanted::End { pod } => kept = format!("pod {pod} cannot be deleted: {}", refusal.reason()),
            }
        }
        if !kept.is_empty() && kept != care.refused {
            self.env.note(Note::Trouble { what: kept.clone() });
        }
        care.refused = kept;
        for (pool, pods_made) in made {
            let text = format!("made {pods_made} pods of pool {pool}");
            pods.tell(&Event { pod: None, reason: "ScaledUp".into(), text, warning: false }).await;
        }
    }

    /// Whether this node still leads in this term, as far as it can know without asking.
    fn leads(&self, term: u64) -> bool {
        let leads = self.leading().as_ref().is_some_and(|leading| leading.master.term() == term);
        leads && self.has_quorum() && self.log.leadership().term == term
    }

    /// Makes or deletes a pod, if that is still to be: many are done at a time, and each may wait.
    async fn call(&self, pods: &dyn Pods, action: Action, term: u64, lost: &Lost) -> Result<Done, (Wanted, Refusal)> {
        if !self.leads(term) {
            return Ok(Done::Nothing);
        }
        match action {
            Action::Make(seat) => match pods.make(&seat, term).await {
                Ok(()) => Ok(Done::Made { pool: seat.pool }),
                Err(refusal) => Err((Wanted::Pod { pool: seat.pool }, refusal)),
            },
            Action::Delete { name, uid, why, failed, unused } => {
                let mut done = Done::Nothing;
                if failed {
                    let words = pods.last_words(&name, &uid, WORDS).await;
                    if let Some((jobs, why)) = lost.get(&uid) {
                        self.keep_words(jobs, (&name, &uid), why, &words).await;
                    }
                    let line =
                        words.lines().rfind(|line| !line.trim().is_empty()).map(|line| cut(line.into(), LAST_LINE));
                    let more = line.as_ref().map(|line| format!("; it said last: {line}"));
                    let text = cut(why + &more.unwrap_or_default(), 1 << 10);
                    let pod = Some((name.clone(), uid.clone()));
                    pods.tell(&Event { pod, reason: "WorkerLost".into(), text, warning: true }).await;
                    done = line.map_or(Done::Nothing, |line| Done::Said { pod: uid.clone(), line });
                }
                let works = || {
                    let leading = self.leading();
                    leading
                        .as_ref()
                        .is_some_and(|l| l.master.seated().any(|worker| worker.uid == uid && !worker.draining))
                };
                if !self.leads(term) || (unused && works()) {
                    return Ok(Done::Nothing);
                }
                match pods.delete(&name, &uid).await {
                    Ok(()) => Ok(done),
                    Err(refusal) => Err((Wanted::End { pod: name }, refusal)),
                }
            }
            _ => Ok(Done::Nothing),
        }
    }

    /// Jobs that have something on a worker.
    fn jobs_on(&self, incarnation: u64) -> BTreeSet<u64> {
        let state = self.state();
        let running: BTreeSet<u64> = match self.leading().as_ref() {
            Some(leading) => {
                let on = leading.master.running().filter(|(_, _, worker, _)| *worker == incarnation);
                on.map(|(_, task, ..)| task.job).collect()
            }
            None => return BTreeSet::new(),
        };
        let holding = state.jobs().filter(|job| job.is_open() && job.maps_on(incarnation).next().is_some());
        holding.map(|job| job.id).chain(running).collect()
    }

    /// Puts what a pod said last where the logs of these jobs are.
    async fn keep_words(&self, jobs: &BTreeSet<u64>, (name, uid): (&str, &str), why: &str, words: &str) {
        if jobs.is_empty() {
            return;
        }
        let (time_ms, task) = (self.env.wall_ms(), format!("pod {name}"));
        let skipped = words.lines().count().saturating_sub(LINES);
        let lines = [why].into_iter().chain(words.lines().skip(skipped)).map(|line| api::LogLine {
            time_ms,
            task: task.clone(),
            worker: name.to_string(),
            line: line.to_string(),
            ..Default::default()
        });
        let file = Arc::new(wire::LogFile { lines: lines.collect() }.encode_to_vec());
        for job in jobs {
            let name = commit::log_of_pod(self.state().cluster(), *job, uid);
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
            let own = self.env.apps().offers();
            let names = |apps: &[wire::AppOffer]| apps.iter().map(|app| app.name.clone()).collect::<BTreeSet<_>>();
            // Before any worker of this file has been there: what workers of the one before had, unless these were of this
            // program. Its image is that of masters as a rule, and goes with theirs.
            let apps = match (offered, known) {
                (Some(info), _) => info.apps.clone(),
                (None, Some(known)) if known.generation == pool.generation && !known.apps.is_empty() => {
                    known.apps.clone()
                }
                (None, Some(known)) if !known.apps.is_empty() && names(&known.apps) != names(&own) => {
                    known.apps.clone()
                }
                (None, _) => own,
            };
            let record = wire::PoolRecord {
                apps,
                capabilities: pool.capabilities.clone(),
                name: pool.name.clone(),
                generation: pool.generation,
                ..known.cloned().unwrap_or_default()
            };
            if known != Some(&record) {
                // The next look tries again.
                let _ = self.propose(&Principal::system(), Command::LearnPool(record)).await;
            }
        }
        for gone in state.pools().filter(|known| !pools.iter().any(|pool| pool.name == known.name)) {
            let remove = wire::RemovePool { name: gone.name.clone() };
            let _ = self.propose(&Principal::system(), Command::RemovePool(remove)).await;
        }
    }

    /// Keeps how pools are for those who ask, and tells jobs that wait what is wrong, once.
    fn know(self: &Arc<Self>, care: &mut Care, standings: Option<Vec<Standing>>, trouble: Option<String>) {
        let what = trouble.clone().unwrap_or_default();
        if care.told != what {
            if trouble.is_some() {
                self.env.note(Note::Trouble { what: format!("pools: {what}") });
            }
            care.told = what;
        }
        let general = trouble.iter().map(|what| Notices {
            general: true,
            lines: vec![format!("pools: {what}")],
            ..Notices::default()
        });
        let own = standings.iter().flatten().filter(|standing| !standing.notices.is_empty()).map(|standing| Notices {
            general: false,
            capabilities: standing.capabilities.clone(),
            lines: standing.notices.clone(),
        });
        let notices: Vec<Notices> = general.chain(own).collect();
        {
            let mut known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            known.standings = standings.unwrap_or_else(|| std::mem::take(&mut known.standings));
            known.trouble = trouble;
        }
        if care.notices.as_ref() != Some(&notices) {
            care.notices = Some(notices.clone());
            self.tell(Input::Pools(News::Notices(notices)));
        }
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
        let before = match self.inner.state().pool(&set.name) {
            Some(known) if !set.reset => (known.min, known.max, known.idle_ms),
            _ => (None, None, None),
        };
        let record = wire::SetPool {
            name: set.name.clone(),
            min: set.min.or(before.0),
            max: set.max.or(before.1),
            idle_ms: set.idle_ms.or(before.2),
        };
        // What is not decided is the file's.
        if let (Some(min), None) = (record.min, record.max)
            && min > now.max
            && !set.reset
        {
            let what = format!("pool {} has at most {} workers: it cannot have {min} always", now.name, now.max);
            return Err(refused(Code::Invalid, what, "give --max as well"));
        }
        match self.inner.propose(who, Command::SetPool(record)).await? {
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
        let pool = self.as_decided(&add.pool).await?;
        let min = pool.min.saturating_add(add.count);
        let (min, max) = (Some(min), (min > pool.max).then_some(min));
        self.set_pool(who, api::SetPoolRequest { name: add.pool.clone(), min, max, ..Default::default() }).await
    }

    /// A pool with what was decided of it last, which may be more than the last look knew.
    async fn as_decided(&self, name: &str) -> Result<api::Pool, ApiError> {
        let pool = self.pool(name).await?;
        let known = self.inner.state().pool(name).cloned().unwrap_or_default();
        Ok(api::Pool { min: known.min.unwrap_or(pool.min), max: known.max.unwrap_or(pool.max), ..pool })
    }

    /// `Pools.Remove`.
    ///
    /// # Errors
    /// That there is no such worker, that it is of no pool, or that this master does not lead.
    pub async fn remove_worker(&self, who: &Principal, name: &str) -> Result<api::Pool, ApiError> {
        self.confirm().await?;
        let none = || refused(Code::NotFound, format!("no worker is called {name}"), "see `gristmill workers`");
        let seated: Vec<Seated> =
            self.inner.leading().as_ref().map(|l| l.master.seated().collect()).unwrap_or_default();
        let worker = seated.iter().find(|worker| worker.name == name).ok_or_else(none)?;
        let pods = self.inner.options.pods.as_ref().and_then(|pods| pods.pods().ok()).unwrap_or_default();
        let pool_of = |uid: &str| {
            let seat = pods.iter().find(|pod| pod.uid == uid).and_then(|pod| pod.seat.as_ref());
            seat.map(|seat| seat.pool.as_str())
        };
        let of_none =
            || refused(Code::State, format!("worker {name} is of no pool"), "drain it with `gristmill worker drain`");
        let pool = self.as_decided(pool_of(&worker.uid).ok_or_else(of_none)?).await?;
        let stays = |other: &&Seated| !other.draining && pool_of(&other.uid) == Some(pool.name.as_str());
        let others = seated.iter().filter(stays).filter(|other| other.uid != worker.uid).count();
        let mut told = pool.clone();
        if pool.min as usize > others {
            let min = Some(u32::try_from(others).unwrap_or(pool.min));
            told = self.set_pool(who, api::SetPoolRequest { name: pool.name, min, ..Default::default() }).await?;
        }
        // It finishes what it runs.
        self.inner.tell(Input::Pools(News::Retire { incarnation: worker.incarnation }));
        Ok(told)
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
