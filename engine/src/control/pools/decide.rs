//! What is to be done about pools: which pods to make, which workers to let go, which pods to delete, and what to tell.
//!
//! [`decide`] is level-triggered: it looks at all that is there and says what is missing or too much, so that whatever was
//! not done, or done twice, comes right the next time. What it remembers ([`Memory`]) are times alone, and a new leader
//! does without.
//!
//! A worker is never taken from its work: it gets nothing new, finishes, hands over what others need, and then its pod is
//! deleted. Only pods that have no worker are deleted at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;

use super::plan::{Plan, by_ability, notices, standing, wanted};
use super::{Phase, Pod, Pool, Reason, Seat};
use crate::control::master::pool::{Demand, Seated};
use crate::control::task::cut;

/// How long a pool makes nothing after a pod came to nothing; doubled with each in a row, up to 32 times this.
const PAUSE: Duration = Duration::from_secs(5);
/// A worker that ended so soon counts as one that came to nothing.
const SOON: Duration = Duration::from_secs(30);
/// A pool that nothing has come to nothing in for so long after its last pause is well again, whether or not it made any.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Bytes of a reason's text.
const TEXT: usize = 256;
/// What a container is called that ran out of memory (Kubernetes, `ContainerStateTerminated.reason`).
pub const OUT_OF_MEMORY: &str = "OOMKilled";

/// What there is.
#[derive(Clone, Copy, Debug)]
pub struct View<'v> {
    /// As their files have them.
    pub pools: &'v [Pool],
    /// What was decided of them since, by name.
    pub decided: &'v dyn Decided,
    /// All of this cluster.
    pub pods: &'v [Pod],
    /// Workers in pods.
    pub workers: &'v [Seated],
    /// What waits for slots.
    pub demand: &'v [Demand],
    /// UIDs of pods whose workers have drained.
    pub drained: &'v BTreeSet<&'v str>,
    /// Monotonic.
    pub now: Duration,
}

/// Where what was decided of pools is looked up.
pub trait Decided: std::fmt::Debug {
    /// Of the pool of this name.
    fn of(&self, pool: &str) -> Option<&wire::PoolRecord>;
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make this pod.
    Make(Seat),
    /// Delete this pod: its worker is no more, never was, or has drained.
    Delete {
        /// Its name.
        name: String,
        /// And no other of that name.
        uid: String,
        /// One line.
        why: String,
        /// It ended by itself or came to nothing: what it said last is worth keeping.
        failed: bool,
        /// Only as long as it has no worker: one may come of it until this is done.
        unused: bool,
    },
    /// Let a worker finish, and drain.
    Retire {
        /// Of its registration.
        incarnation: u64,
    },
    /// A worker's pod has ended: it is gone.
    Gone {
        /// Of its registration.
        incarnation: u64,
        /// Why.
        why: Reason,
        /// Of the pod.
        pod: (String, String),
    },
    /// A worker's pod is being deleted by somebody else, with notice.
    Leaves {
        /// Of its registration.
        incarnation: u64,
        /// Why.
        why: Reason,
    },
}

/// How a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// What holds now, and whether any of it was decided in place of the file.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// An idle worker beyond the least drains after so long.
    pub idle: Duration,
    /// Whether any of these was decided in place of the file.
    pub decided: bool,
    /// How many workers there should be.
    pub wanted: u32,
    /// Pods without a worker yet.
    pub pending: u32,
    /// Workers that take tasks.
    pub ready: u32,
    /// Workers and pods that end.
    pub ending: u32,
    /// Tasks that one worker runs at a time.
    pub slots: u32,
    /// What its workers have.
    pub capabilities: Vec<String>,
    /// What is wrong, one line each.
    pub notices: Vec<String>,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Memory {
    /// When each pod was first seen.
    seen: BTreeMap<String, Duration>,
    /// When each pod's worker was first and last seen.
    worked: BTreeMap<String, (Duration, Duration)>,
    /// How often each pod was to be deleted that is still there, and until when it is not tried again.
    deleted: BTreeMap<String, (u32, Duration)>,
    pub(super) pauses: BTreeMap<String, Pause>,
    /// Pods whose end was counted.
    counted: BTreeSet<String>,
}

/// None is made for a while.
#[derive(Debug)]
pub(super) struct Pause {
    in_a_row: u32,
    /// Of the last that came to nothing.
    since: Duration,
    pub(super) until: Duration,
    pub(super) why: Reason,
}

impl Memory {
    /// A pod of this pool came to nothing, or was refused: for a while none is made.
    pub fn failed(&mut self, pool: &str, why: Reason, now: Duration, at_least: Option<Duration>) {
        let new = Pause { in_a_row: 0, since: now, until: now, why: why.clone() };
        let pause = self.pauses.entry(pool.into()).or_insert(new);
        pause.since = now;
        // Those that were made together fail together.
        if now >= pause.until {
            let doubled = PAUSE * (1 << pause.in_a_row.min(5));
            pause.until = now + doubled.max(at_least.unwrap_or_default());
            pause.in_a_row += 1;
        }
        pause.why = why;
    }

    /// What the pod said last that this pool pauses for, as one line: it may say more than its cluster knows. Of pods that
    /// failed together the first is heard.
    pub fn said(&mut self, pool: &str, words: &str) {
        const SAID: &str = "it said last: ";
        if let Some(pause) = self.pauses.get_mut(pool).filter(|pause| !pause.why.text.contains(SAID)) {
            let text = &mut pause.why.text;
            let between = if text.is_empty() { "" } else { "; " };
            *text = cut(format!("{text}{between}{SAID}{words}"), TEXT);
        }
    }
}

impl Memory {
    /// Whether it is time for this. What was deleted in vain is deleted again, less and less often, and without a word.
    fn is_due(&mut self, action: &mut Action, now: Duration) -> bool {
        let Action::Delete { uid, failed, .. } = action else { return true };
        let (times, next) = self.deleted.entry(uid.clone()).or_insert((0, now));
        let due = now >= *next;
        if due {
            *next = now + PAUSE * (1 << (*times).min(5));
            *failed &= *times == 0;
            *times += 1;
        }
        due
    }
}

/// A pod with what is known of its worker.
pub(super) struct Seen<'v> {
    pub(super) pod: &'v Pod,
    pub(super) seat: &'v Seat,
    pub(super) worker: Option<&'v Seated>,
    pub(super) age: Duration,
}

impl Seen<'_> {
    pub(super) fn idle(&self) -> Option<Duration> {
        self.worker.and_then(|worker| worker.idle)
    }
}

/// Says what is to be done, and how each pool is.
pub fn decide(view: View<'_>, memory: &mut Memory) -> (Vec<Action>, Vec<Standing>) {
    let mut actions = Vec::new();
    remember(view, memory);
    let workers: BTreeMap<&str, &Seated> = view.workers.iter().map(|worker| (worker.uid.as_str(), worker)).collect();
    let mut live = BTreeMap::<&str, Vec<Seen<'_>>>::new();
    let mut taken = BTreeSet::new();
    let mut ending = BTreeMap::<&str, (u32, u32)>::new();
    let limits: BTreeMap<&str, &Pool> = view.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
    for pod in view.pods {
        let worker = workers.get(pod.uid.as_str()).copied();
        let age = view.now.saturating_sub(memory.seen.get(&pod.uid).copied().unwrap_or(view.now));
        let silent = memory.worked.get(&pod.uid).map(|(_, last)| view.now.saturating_sub(*last));
        let pool = pod.seat.as_ref().and_then(|seat| limits.get(seat.pool.as_str()).copied());
        taken.extend(pod.seat.as_ref());
        if let Some(fate) = fate(pod, worker, pool, (age, silent), view.drained) {
            if let (Some(pool), Fate::Failed(why) | Fate::TooLate(why)) = (pool, &fate)
                && memory.counted.insert(pod.uid.clone())
                && memory.worked.get(&pod.uid).is_none_or(|(began, _)| view.now < *began + SOON)
            {
                memory.failed(&pool.name, why.clone(), view.now, None);
            }
            if let Some(pool) = pool {
                let (ending, draining) = ending.entry(pool.name.as_str()).or_default();
                *ending += 1;
                *draining += u32::from(matches!(fate, Fate::Draining));
            }
            actions.extend(fate.actions(pod, worker));
        } else if let (Some(seat), Some(_)) = (&pod.seat, pool) {
            live.entry(seat.pool.as_str()).or_default().push(Seen { pod, seat, worker, age });
        }
    }
    let mut unmet: Vec<u64> = view.demand.iter().map(|demand| demand.waiting).collect();
    let mut standings = Vec::new();
    for pool in by_ability(view.pools) {
        let pods = live.remove(pool.name.as_str()).unwrap_or_default();
        let decided = view.decided.of(&pool.name);
        let mut standing = standing(pool, decided, &pods);
        let (all, draining) = ending.get(pool.name.as_str()).copied().unwrap_or_default();
        standing.ending += all;
        standing.wanted = wanted(&standing, decided, &pods, view.demand, &mut unmet);
        let plan = Plan { pool, standing: &standing, pods: &pods, draining, taken: &taken, now: view.now };
        actions.extend(plan.actions(memory));
        standing.notices = notices(&pool.name, &pods, memory.pauses.get(&pool.name), view.now);
        standings.push(standing);
    }
    standings.sort_by(|a, b| a.name.cmp(&b.name));
    actions.retain_mut(|action| memory.is_due(action, view.now));
    (actions, standings)
}

/// Notes what is new, and forgets what is gone.
fn remember(view: View<'_>, memory: &mut Memory) {
    let there: BTreeSet<&str> = view.pods.iter().map(|pod| pod.uid.as_str()).collect();
    memory.seen.retain(|uid, _| there.contains(uid.as_str()));
    memory.worked.retain(|uid, _| there.contains(uid.as_str()));
    memory.counted.retain(|uid| there.contains(uid.as_str()));
    for pod in view.pods {
        memory.seen.entry(pod.uid.clone()).or_insert(view.now);
    }
    memory.deleted.retain(|uid, _| there.contains(uid.as_str()));
    memory.pauses.retain(|_, pause| view.now < pause.until + FORGOTTEN);
    let pools: BTreeMap<&str, &str> =
        view.pods.iter().filter_map(|pod| Some((pod.uid.as_str(), pod.seat.as_ref()?.pool.as_str()))).collect();
    for worker in view.workers.iter().filter(|worker| there.contains(worker.uid.as_str())) {
        let (began, last) = memory.worked.entry(worker.uid.clone()).or_insert((view.now, view.now));
        *last = view.now;
        let stays = view.now >= *began + SOON;
        // A pool is well again in which a worker stays that began after the last that did not.
        if let Some(pool) = pools.get(worker.uid.as_str())
            && stays
            && memory.pauses.get(*pool).is_some_and(|pause| *began > pause.since)
        {
            memory.pauses.remove(*pool);
        }
    }
}

/// What becomes of a pod that does not count any more.
enum Fate {
    /// Its worker has drained.
    Drained,
    /// It has ended.
    Failed(Reason),
    /// It has not begun to work in time, or is not heard of any more.
    TooLate(Reason),
    /// Somebody deletes it, or is about to.
    Leaving(Option<Reason>),
    /// No pool has it.
    Stray,
    /// Its worker ends.
    Draining,
}

fn fate(
    pod: &Pod,
    worker: Option<&Seated>,
    pool: Option<&Pool>,
    (age, silent): (Duration, Option<Duration>),
    drained: &BTreeSet<&str>,
) -> Option<Fate> {
    let ended = || Reason { word: "Ended".into(), text: "the pod has ended".into() };
    if drained.contains(pod.uid.as_str()) {
        return Some(Fate::Drained);
    }
    if pod.phase == Phase::Ended {
        return Some(Fate::Failed(pod.reason.clone().unwrap_or_else(ended)));
    }
    if pod.leaving {
        return Some(Fate::Leaving(pod.reason.clone()));
    }
    let Some(pool) = pool else { return Some(Fate::Stray) };
    if worker.is_some_and(|worker| worker.draining) {
        return Some(Fate::Draining);
    }
    // One that worked may be cut off for a while.
    if worker.is_none() && silent.unwrap_or(age) >= pool.start_within {
        let why = pod.reason.as_ref().map_or_else(|| "no reason is told".to_string(), Reason::to_string);
        let seconds = pool.start_within.as_secs();
        let (word, text) = match silent {
            Some(_) => ("WorkerSilent", format!("its worker has not been heard of for {seconds} s: {why}")),
            None => ("StartTooSlow", format!("no worker came of it in {seconds} s: {why}")),
        };
        return Some(Fate::TooLate(Reason { word: word.into(), text }));
    }
    None
}

impl Fate {
    fn actions(self, pod: &Pod, worker: Option<&Seated>) -> Vec<Action> {
        let delete = |why: String, failed, unused| {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            Action::Delete { name, uid, why, failed, unused }
        };
        match (self, worker) {
            // Once it is on its way it needs nothing more.
            (Self::Drained, _) if pod.leaving => Vec::new(),
            (Self::Drained, _) => vec![delete("its worker has drained".into(), false, false)],
            (Self::Failed(why), worker) => {
                let end = (!pod.leaving).then(|| delete(why.to_string(), true, false));
                let pod = (pod.name.clone(), pod.uid.clone());
                let gone = worker.map(|worker| Action::Gone { incarnation: worker.incarnation, why, pod });
                gone.into_iter().chain(end).collect()
            }
            (Self::TooLate(why), _) => vec![delete(why.to_string(), true, true)],
            (Self::Leaving(why), Some(worker)) => {
                let unknown = Reason { word: "Deleted".into(), text: "somebody deleted its pod".into() };
                vec![Action::Leaves { incarnation: worker.incarnation, why: why.unwrap_or(unknown) }]
            }
            (Self::Stray, Some(worker)) if !worker.draining => vec![Action::Retire { incarnation: worker.incarnation }],
            (Self::Stray, None) => vec![delete("no pool has it".into(), false, true)],
            _ => Vec::new(),
        }
    }
}
