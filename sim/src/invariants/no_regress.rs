//! Invariant 14: Vote and log never go backwards over a restart: a master that led is never again in an earlier term, no term has two
//! leaders, and what a quorum had applied is there again.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::{Seen, Violation, violation};
use crate::cluster::Cluster;

#[derive(Default)]
pub(super) struct Watch {
    /// The newest term that each member led, by its id.
    led: BTreeMap<u64, u64>,
    /// Who led a term.
    leaders: BTreeMap<u64, u64>,
}

/// A folder that lost what was acknowledged, though its disk kept what it had promised.
pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let surprises = seen.cluster.surprises.lock().unwrap_or_else(PoisonError::into_inner);
    surprises.iter().map(|what| violation(14, what.clone())).collect()
}

impl Watch {
    pub(super) fn look(&mut self, cluster: &Cluster) -> Vec<Violation> {
        let mut found = Vec::new();
        for machine in cluster.masters() {
            let Some(master) = cluster.handle(machine.node) else { continue };
            let (id, leadership) = (master.log().identity().node, master.log().leadership());
            let led = self.led.entry(id).or_default();
            if leadership.term < *led {
                let what = format!("{} is in term {} and has led term {led}", machine.address, leadership.term);
                found.push(violation(14, what));
            }
            if leadership.here && master.log().has_quorum() {
                *led = leadership.term.max(*led);
                let first = *self.leaders.entry(leadership.term).or_insert(id);
                if first != id {
                    let what = format!("term {} is led by {first:016x} and by {id:016x}", leadership.term);
                    found.push(violation(14, what));
                }
            }
        }
        found
    }
}
