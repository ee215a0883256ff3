//! One pool: how many workers it should have, and which of those that are there go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;

use super::decide::{Action, Memory, Pause, Seen, Standing};
use super::{Pool, Reason, Seat};
use crate::control::master::pool::Demand;
use crate::control::state::has_all;

/// A worker of an older file is idle for so long before it goes, or for as long as others: while it is given tasks of jobs that
/// were begun with it, nobody else may be able to do them.
const OUTDATED_IDLE: Duration = Duration::from_secs(10);
/// Notices of a pool.
const NOTICES: usize = 16;

/// Pools that can do the least first: what others can do is left for jobs that need it.
pub(super) fn by_ability(pools: &[Pool]) -> Vec<&Pool> {
    let mut sorted: Vec<&Pool> = pools.iter().collect();
    sorted.sort_by(|a, b| (a.capabilities.len(), &a.name).cmp(&(b.capabilities.len(), &b.name)));
    sorted
}

pub(super) fn standing(pool: &Pool, decided: Option<&wire::PoolRecord>, pods: &[Seen<'_>]) -> Standing {
    let idle = decided.and_then(|decided| decided.idle_ms).map(Duration::from_millis);
    let (low, high) = (decided.and_then(|decided| decided.min), decided.and_then(|decided| decided.max));
    let max = high.unwrap_or_else(|| pool.max.max(low.unwrap_or(0)));
    let ready = pods.iter().filter(|seen| seen.worker.is_some()).count() as u32;
    Standing {
        name: pool.name.clone(),
        min: low.unwrap_or(pool.min).min(max),
        max,
        idle: idle.unwrap_or(pool.idle),
        decided: low.is_some() || high.is_some() || idle.is_some(),
        wanted: 0,
        pending: pods.len() as u32 - ready,
        ready,
        ending: 0,
        slots: pool.slots.max(1),
        capabilities: pool.capabilities.clone(),
        notices: Vec::new(),
    }
}

/// How many workers a pool should have, taking on of the demand what it can do and has room for.
pub(super) fn wanted(
    standing: &Standing,
    decided: Option<&wire::PoolRecord>,
    pods: &[Seen<'_>],
    demand: &[Demand],
    unmet: &mut [u64],
) -> u32 {
    let slots = u64::from(standing.slots);
    let busy: u64 = pods.iter().filter_map(|seen| seen.worker).map(|worker| u64::from(worker.busy)).sum();
    let mut left = (u64::from(standing.max) * slots).saturating_sub(busy);
    let mut taken = 0;
    for (demand, unmet) in demand.iter().zip(unmet) {
        // What it offers is not known before one of its workers has been here.
        let apps = decided.map(|decided| decided.apps.as_slice()).unwrap_or_default();
        let offers =
            |offer: &wire::AppOffer| (offer.name.as_str(), offer.build.as_str()) == (&demand.app.0, &demand.app.1);
        let can = has_all(&standing.capabilities, &demand.requires) && (apps.is_empty() || apps.iter().any(offers));
        let some = if can { left.min(*unmet) } else { 0 };
        (left, taken, *unmet) = (left - some, taken + some, *unmet - some);
    }
    let workers = (busy + taken).div_ceil(slots);
    u32::try_from(workers).unwrap_or(u32::MAX).clamp(standing.min, standing.max)
}

/// One pool, and what there is of it.
pub(super) struct Plan<'p> {
    pub(super) pool: &'p Pool,
    pub(super) standing: &'p Standing,
    pub(super) pods: &'p [Seen<'p>],
    /// Its workers that finish what they have, to go then.
    pub(super) draining: u32,
    pub(super) taken: &'p BTreeSet<&'p Seat>,
    pub(super) now: Duration,
}

impl Plan<'_> {
    pub(super) fn actions(&self, memory: &Memory) -> Vec<Action> {
        let outdated = |seen: &&Seen<'_>| seen.seat.generation != self.pool.generation;
        let there = self.pods.len() as u32;
        // Of pods that are to be replaced, one at a time has its successor beside it.
        let spare = u32::from(self.pods.iter().any(|seen| outdated(&seen)));
        let goal = self.standing.wanted + spare.min(self.standing.wanted);
        if there < goal {
            return self.make(goal - there, memory);
        }
        let successors_ready = self.pods.iter().filter(|seen| !outdated(seen)).all(|seen| seen.worker.is_some());
        // A successor that is on its way is no surplus: what it is to replace stays until it works.
        let coming = if successors_ready { 0 } else { spare };
        let mut surplus = (there - self.standing.wanted).saturating_sub(coming);
        let above_max = there.saturating_sub(self.standing.max + spare);
        let mut actions = Vec::new();
        // Those that wait first, then outdated ones, then the newest.
        let mut pods: Vec<&Seen<'_>> = self.pods.iter().collect();
        pods.sort_by_key(|seen| (seen.worker.is_some(), !outdated(seen), std::cmp::Reverse(seen.seat.index)));
        for seen in pods {
            if surplus == 0 {
                break;
            }
            let must = (actions.len() as u32) < above_max;
            let enough = if outdated(&seen) { self.standing.idle.min(OUTDATED_IDLE) } else { self.standing.idle };
            let action = match seen.worker {
                None if must || outdated(&seen) || seen.age >= self.standing.idle => Action::Delete {
                    name: seen.pod.name.clone(),
                    uid: seen.pod.uid.clone(),
                    why: "it is not needed any more".into(),
                    failed: false,
                    unused: true,
                },
                Some(worker) if must || seen.idle().is_some_and(|idle| idle >= enough) => {
                    Action::Retire { incarnation: worker.incarnation }
                }
                _ => continue,
            };
            actions.push(action);
            surplus -= 1;
        }
        actions
    }

    fn make(&self, missing: u32, memory: &Memory) -> Vec<Action> {
        if memory.pauses.get(&self.pool.name).is_some_and(|pause| self.now < pause.until) {
            return Vec::new();
        }
        // Those that drain are there as well; but they may take their time, and work waits for others.
        let spared = 1 + self.standing.max / 4;
        let most = (self.standing.max + spared).saturating_sub(self.pods.len() as u32 + self.draining);
        let room = self.pool.pending.max(1).saturating_sub(self.standing.pending).min(most);
        let seat = |index| Seat { pool: self.pool.name.clone(), generation: self.pool.generation, index };
        let free = (0..).map(seat).filter(|seat| !self.taken.contains(seat));
        free.take(missing.min(room) as usize).map(Action::Make).collect()
    }
}

/// What is wrong with a pool, one line each.
pub(super) fn notices(pool: &str, pods: &[Seen<'_>], pause: Option<&Pause>, now: Duration) -> Vec<String> {
    let mut waiting = BTreeMap::<&Reason, u32>::new();
    for reason in pods.iter().filter(|seen| seen.worker.is_none()).filter_map(|seen| seen.pod.reason.as_ref()) {
        *waiting.entry(reason).or_default() += 1;
    }
    let waiting = waiting.into_iter().map(|(reason, pods)| {
        let pods = if pods == 1 { "a pod waits".to_string() } else { format!("{pods} pods wait") };
        format!("pool {pool}: {pods}: {reason}")
    });
    let paused = pause.map(|pause| {
        let left = pause.until.saturating_sub(now).as_secs_f64().ceil();
        let next = if left > 0.0 { format!("; the next one in {left} s") } else { String::new() };
        format!("pool {pool}: the last try for a worker came to nothing: {}{next}", pause.why)
    });
    paused.into_iter().chain(waiting).take(NOTICES).collect()
}
