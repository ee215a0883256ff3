//! Invariant 14: Vote and log never go backwards over a restart: what a master promised in an answer it has when it is
//! started again, one that led is never again in an earlier term, and no term has two leaders.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use gristmill_raft::promise::{Asked, Promise};

use super::{Seen, Violation, violation};
use crate::cluster::Cluster;
use crate::marks::sometimes;
use crate::said::Said;

#[derive(Default)]
pub(super) struct Watch {
    /// The newest term that each member led, by its id.
    led: BTreeMap<u64, u64>,
    /// Who led a term.
    leaders: BTreeMap<u64, u64>,
    /// What each member has promised, by its id.
    promises: BTreeMap<u64, Promise>,
}

/// A folder that lost what was acknowledged, though its disk kept what it had promised.
pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let surprises = seen.cluster.surprises.lock().unwrap_or_else(PoisonError::into_inner);
    surprises.iter().map(|what| violation(14, what.clone())).collect()
}

impl Watch {
    pub(super) fn hear(&mut self, said: &Said) -> Option<Violation> {
        match said {
            Said::Asked(asked) => self.asked(asked),
            Said::Promised(asked, promise) => {
                let known = self.promises.entry(asked.node).or_default();
                if known.vote.zip(promise.vote).is_none_or(|(known, new)| new.may_follow(known)) {
                    known.vote = promise.vote;
                }
                known.last = known.last.max(promise.last);
            }
            Said::Holds(member, holds) => return self.holds(*member, holds),
            Said::Poll(_) | Said::Answer(..) => {}
        }
        None
    }

    /// A leader of a later term may take back entries that an earlier one made.
    fn asked(&mut self, asked: &Asked) {
        if let Some(known) = self.promises.get_mut(&asked.node)
            && !asked.is_vote
            && known.vote.is_none_or(|vote| vote.term < asked.vote.term)
        {
            known.last = None;
        }
    }

    fn holds(&mut self, member: u64, holds: &Promise) -> Option<Violation> {
        let promised = self.promises.get(&member)?;
        sometimes("a master has what it promised");
        let vote = promised.vote.is_none_or(|promised| holds.vote.is_some_and(|vote| vote.may_follow(promised)));
        let what = format!("member {member:016x} has {holds:?} after it was started, and had promised {promised:?}");
        (!vote || holds.last < promised.last).then(|| violation(14, what))
    }

    pub(super) fn look(&mut self, cluster: &Cluster) -> Vec<Violation> {
        let mut found = Vec::new();
        for machine in cluster.masters() {
            let Some(master) = cluster.handle(machine.node) else { continue };
            let (id, leadership) = (master.log().identity().node, master.log().leadership());
            let leads = leadership.here && master.log().has_quorum();
            found.extend(self.is_in(id, leadership.term, leads));
        }
        found
    }

    /// A member says which term it is in, and whether it leads it.
    fn is_in(&mut self, member: u64, term: u64, leads: bool) -> Option<Violation> {
        let led = self.led.entry(member).or_default();
        if term < *led {
            let what = format!("member {member:016x} is in term {term} and has led term {led}");
            return Some(violation(14, what));
        }
        if !leads {
            return None;
        }
        *led = term;
        let first = *self.leaders.entry(term).or_insert(member);
        let what = || format!("term {term} is led by {first:016x} and by {member:016x}");
        (first != member).then(|| violation(14, what()))
    }
}

#[cfg(test)]
mod tests {
    use gristmill_raft::promise::Ballot;

    use super::*;
    use crate::runtime::Simulation;

    #[test]
    fn a_promise_binds_until_a_later_leader_asks() {
        let _simulation = Simulation::new(0);
        let mut watch = Watch::default();
        let vote = |term| Some(Ballot { term, node: 1, committed: true });
        let promise = |term, last| Promise { vote: vote(term), last };
        watch.promises.insert(7, promise(1, Some((1, 4))));
        assert_eq!(watch.hear(&Said::Holds(7, promise(1, Some((1, 4))))), None);
        assert_eq!(watch.hear(&Said::Holds(7, promise(2, Some((1, 5))))), None);
        let broken = |found: Option<Violation>| found.map(|found| found.invariant);
        assert_eq!(broken(watch.hear(&Said::Holds(7, promise(1, Some((1, 3)))))), Some(14), "an entry is gone");
        assert_eq!(broken(watch.hear(&Said::Holds(7, promise(0, Some((1, 4)))))), Some(14), "the vote is gone");
        assert_eq!(watch.hear(&Said::Holds(8, promise(0, None))), None, "another one");
        let mut later = watch;
        later.promises.insert(7, promise(1, None));
        assert_eq!(later.hear(&Said::Holds(7, promise(1, Some((1, 3))))), None, "it was taken back");
    }

    #[test]
    fn a_term_has_one_leader_and_none_goes_back() {
        let mut watch = Watch::default();
        assert_eq!(watch.is_in(1, 3, true), None);
        assert_eq!(watch.is_in(2, 3, false), None);
        assert_eq!(watch.is_in(2, 4, true), None);
        assert_eq!(watch.is_in(1, 3, false), None, "it has not heard of it");
        assert_eq!(watch.is_in(1, 2, false).map(|found| found.invariant), Some(14), "it has led a later one");
        assert_eq!(watch.is_in(3, 4, true).map(|found| found.invariant), Some(14), "that one has a leader");
    }
}
