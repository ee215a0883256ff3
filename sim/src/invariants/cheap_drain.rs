//! Invariant 17: A worker that drains costs no recomputation: when it is told that it may end, the segments of its maps
//! that may still be needed are in the store, and none of these maps is given out again for that.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_engine::control::commit;
use gristmill_engine::control::ids;
use gristmill_engine::store::{Memory, Name, Store as _};
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::Stage;

use futures_util::FutureExt as _;

use super::{Violation, violation};
use crate::attempts::{AttemptId, Attempts, counted_in, id};
use crate::cluster::CLUSTER;
use crate::marks::sometimes;
use crate::said::Said;

#[derive(Default)]
pub(super) struct Watch {
    /// Of each map of a job, the attempt that was last said to count, and whose it is.
    counted: BTreeMap<(u64, u32), (AttemptId, u64)>,
    /// Attempts whose segments somebody has missed.
    missed: BTreeSet<AttemptId>,
    /// Maps whose segments were nowhere else when their worker was let go.
    lost: BTreeMap<(u64, u32), AttemptId>,
}

impl Watch {
    /// Hears what was said, once `attempts` has.
    pub(super) fn hear(&mut self, said: &Said, attempts: &Attempts, store: &Memory) -> Option<Violation> {
        match said {
            Said::Poll(poll) => {
                self.missed.extend(poll.missing.iter().filter_map(|missing| missing.attempt).map(id));
                None
            }
            Said::Answer(incarnation, answer) => {
                let maps = counted_in(answer).filter_map(|attempt| Some((attempt, attempts.given(attempt)?)));
                for (attempt, given) in maps.filter(|(_, given)| given.stage == Stage::Map) {
                    self.counted.insert((given.job, given.partition), (attempt, given.incarnation));
                }
                if answer.drained {
                    sometimes("a worker has drained");
                    self.let_go(*incarnation, store);
                }
                let tasks = answer.assignments.iter().filter_map(|assignment| assignment.task);
                tasks.filter(|task| task.stage() == Stage::Map).find_map(|task| self.given_out(&task))
            }
            Said::Asked(_) | Said::Promised(..) | Said::Holds(..) => None,
        }
    }

    fn let_go(&mut self, incarnation: u64, store: &Memory) {
        for (&(job, map), &(attempt, of)) in &self.counted {
            let (term, counter) = attempt;
            let name = commit::segments(CLUSTER, job, map, ids::AttemptId { term, counter });
            let is_there =
                || Name::new(&name).is_ok_and(|name| matches!(store.head(&name).now_or_never(), Some(Ok(_))));
            if of == incarnation && !self.missed.contains(&attempt) && !is_there() {
                self.lost.insert((job, map), attempt);
            }
        }
    }

    fn given_out(&self, task: &wire::Task) -> Option<Violation> {
        let attempt = self.lost.get(&(task.job, task.partition))?;
        let is_same = self.counted.get(&(task.job, task.partition)).is_some_and(|(counted, _)| counted == attempt);
        let what = format!(
            "map {} of job {} is done again: the worker of attempt {attempt:?} has drained",
            task.partition, task.job
        );
        is_same.then(|| violation(17, what))
    }
}

#[cfg(test)]
mod tests {
    use gristmill_engine::store::Publish;

    use super::*;
    use crate::runtime::Simulation;

    #[test]
    fn what_a_drained_worker_took_with_it_may_not_be_needed() {
        let _simulation = Simulation::new(0);
        let (mut attempts, mut watch) = (Attempts::default(), Watch::default());
        let store = Memory::new(Publish::Rename);
        let mut say = |answer: wire::PollAnswer| {
            let said = Said::Answer(5, answer);
            attempts.hear(&said);
            watch.hear(&said, &attempts, &store).map(|found| found.invariant)
        };
        let attempt = |counter| wire::Attempt { term: 1, counter };
        let give = |partition, counter| {
            let attempt = Some(attempt(counter));
            let task = wire::Task { job: 7, stage: Stage::Map.into(), epoch: 0, partition, attempt };
            let assignments = vec![wire::Assignment { task: Some(task), ..Default::default() }];
            wire::PollAnswer { assignments, ..Default::default() }
        };
        for map in 0..2 {
            assert_eq!(say(give(map, 1 + u64::from(map))), None);
        }
        let settled = (1..=2).map(attempt).collect();
        assert_eq!(say(wire::PollAnswer { settled, ..Default::default() }), None);
        let name = commit::segments(CLUSTER, 7, 0, ids::AttemptId { term: 1, counter: 1 });
        let put = store.put(&Name::new(&name).unwrap(), std::sync::Arc::new(Vec::<u8>::new())).now_or_never();
        assert!(matches!(put, Some(Ok(()))));
        assert_eq!(say(wire::PollAnswer { drained: true, ..Default::default() }), None);
        assert_eq!(say(give(0, 3)), None, "it was in the store");
        assert_eq!(say(give(1, 4)), Some(17));
    }
}
