//! What is known of attempts at tasks from outside: what masters and workers say to each other, and which objects are
//! copied to where readers find them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gristmill_engine::control::commit::ROOT;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::Stage;
use gristmill_proto::internal::v1::task_report::End;

use crate::invariants::{Violation, violation};
use crate::marks::sometimes;
use crate::runtime::now;
use crate::said::Said;

/// Of an attempt: term and counter.
pub(crate) type AttemptId = (u64, u64);

/// An attempt, as it was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) job: u64,
    pub(crate) stage: Stage,
    epoch: u32,
    pub(crate) partition: u32,
    /// The worker's.
    pub(crate) incarnation: u64,
}

/// How a worker said that it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Done { digest: Vec<u8>, length: u64 },
    Failed,
}

/// What is known of all attempts.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    given: BTreeMap<AttemptId, Given>,
    ended: BTreeMap<AttemptId, Ended>,
    /// In how many polls the leader heard that it is done, and the last of them, with its time.
    heard: BTreeMap<AttemptId, (u32, u64, Duration)>,
    /// The attempt of which a worker was told that it counts: by job, epoch and part.
    counted: BTreeMap<(u64, u32, u32), AttemptId>,
    /// What only a worker that was given up has said to be done, in the poll that told it so.
    dead: BTreeSet<AttemptId>,
    /// The attempt of each part that was copied to where readers look.
    published: BTreeMap<(String, u32), AttemptId>,
}

pub(crate) fn id(attempt: wire::Attempt) -> AttemptId {
    (attempt.term, attempt.counter)
}

/// Job, partition and attempt of an object that a reduce attempt left, by its name.
fn part_of(name: &str) -> Option<(String, u32, AttemptId)> {
    let (job, file) = name.strip_prefix(ROOT)?.rsplit_once('/')?;
    let job = job.rsplit_once('/')?.1;
    let (part, attempt) = file.strip_prefix("part-")?.split_once('.')?;
    let (term, counter) = attempt.split_once('-')?;
    Some((job.into(), part.parse().ok()?, (term.parse().ok()?, counter.parse().ok()?)))
}

impl Attempts {
    /// Hears what nodes say.
    pub(crate) fn hear(&mut self, said: &Said) -> Vec<Violation> {
        match said {
            Said::Poll(poll) => poll.reports.iter().filter_map(|report| self.report(poll.sequence, report)).collect(),
            Said::Answer(incarnation, answer) => {
                let tasks = answer.assignments.iter().filter_map(|assignment| assignment.task.as_ref());
                let mut found: Vec<Violation> = tasks.filter_map(|task| self.give(*incarnation, task)).collect();
                found.extend(counted_in(answer).filter_map(|attempt| self.count(attempt)));
                let places = answer.segments.iter().flat_map(|update| &update.places);
                found.extend(places.filter_map(|place| self.place(id(place.attempt?))));
                if !answer.fenced.is_empty() {
                    self.fence(*incarnation, answer.sequence);
                }
                found
            }
            Said::Asked(_) | Said::Promised(..) | Said::Holds(..) => Vec::new(),
        }
    }

    /// An attempt, as it was given out.
    pub(crate) fn given(&self, attempt: AttemptId) -> Option<Given> {
        self.given.get(&attempt).copied()
    }

    fn give(&mut self, incarnation: u64, task: &wire::Task) -> Option<Violation> {
        let attempt = id(task.attempt?);
        let wire::Task { job, epoch, partition, .. } = *task;
        let given = Given { job, stage: task.stage(), epoch, partition, incarnation };
        if epoch > 0 {
            sometimes("another epoch");
        }
        let open = |(other, of): (&AttemptId, &Given)| {
            let same = (of.job, of.stage, of.epoch, of.partition) == (job, given.stage, epoch, partition);
            same && of.incarnation != incarnation && *other != attempt && !self.ended.contains_key(other)
        };
        if self.given.iter().rev().take(64).any(open) {
            sometimes("a second attempt beside the first");
        }
        let before = *self.given.entry(attempt).or_insert(given);
        let what = format!("attempt {attempt:?} is given out as {given:?}, and was as {before:?}");
        (before != given).then(|| violation(5, what))
    }

    /// A worker is told that an attempt counts.
    fn count(&mut self, attempt: AttemptId) -> Option<Violation> {
        let given = self.given(attempt)?;
        if self.dead.contains(&attempt) || matches!(self.ended.get(&attempt), Some(Ended::Failed)) {
            let what = format!("attempt {attempt:?} at {given:?} counts, and has failed or is of a dead worker");
            return Some(violation(4, what));
        }
        if given.stage != Stage::Reduce {
            // A map may have to be done again.
            return None;
        }
        let first = *self.counted.entry((given.job, given.epoch, given.partition)).or_insert(attempt);
        let what = format!("attempts {first:?} and {attempt:?} at {given:?} both count");
        (first != attempt).then(|| violation(3, what))
    }

    /// A reducer is told that the segments of an attempt are to be read.
    fn place(&self, attempt: AttemptId) -> Option<Violation> {
        let is_dead = self.dead.contains(&attempt) || matches!(self.ended.get(&attempt), Some(Ended::Failed));
        let what =
            || format!("segments of attempt {attempt:?} are to be read, which has failed or is of a dead worker");
        is_dead.then(|| violation(4, what()))
    }

    /// A worker is told, in answer to a poll, that it was given up: what it said there for the first time never counts. If
    /// the answer was not made at once, it was given up only after it had said so, and what it said may count.
    fn fence(&mut self, incarnation: u64, sequence: u64) {
        let of_it = |attempt: &AttemptId| self.given.get(attempt).is_some_and(|of| of.incarnation == incarnation);
        let only_there = self.heard.iter().filter(|(_, heard)| **heard == (1, sequence, now()));
        let dead: Vec<AttemptId> = only_there.map(|(attempt, _)| *attempt).filter(of_it).collect();
        self.dead.extend(dead);
    }

    fn report(&mut self, sequence: u64, report: &wire::TaskReport) -> Option<Violation> {
        let attempt = id(report.task.as_ref()?.attempt?);
        let ended = match report.end.as_ref()? {
            End::Done(done) => Ended::Done { digest: done.digest.to_vec(), length: done.length },
            End::Failure(_) => {
                sometimes("an attempt fails");
                Ended::Failed
            }
            End::Moved(_) => {
                sometimes("segments are moved to the store");
                return None;
            }
        };
        let heard = self.heard.entry(attempt).or_default();
        *heard = (heard.0 + 1, sequence, now());
        let before = self.ended.entry(attempt).or_insert_with(|| ended.clone());
        let what = format!("attempt {attempt:?} has ended as {before:?} and as {ended:?}");
        (*before != ended).then(|| violation(5, what))
    }

    /// An object is copied, or somebody tried to; `bytes` is how long the copy is, if there is one.
    pub(crate) fn copied(&mut self, from: &str, bytes: Option<u64>) -> Option<Violation> {
        let (job, part, attempt) = part_of(from)?;
        let Some(given) = self.given.get(&attempt) else {
            return Some(violation(4, format!("{from} is published, of an attempt that nobody gave out")));
        };
        let number = job.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
        if (number, given.stage, given.partition) != (Some(given.job), Stage::Reduce, part) {
            return Some(violation(4, format!("{from} is published, of an attempt at {given:?}")));
        }
        if self.dead.contains(&attempt) {
            return Some(violation(
                4,
                format!("{from} is published, of a worker that was given up before it was done"),
            ));
        }
        match self.ended.get(&attempt) {
            Some(Ended::Done { length, .. }) if bytes.is_none_or(|bytes| bytes == *length) => {}
            ended => return Some(violation(3, format!("{from} of {bytes:?} bytes is published, of {ended:?}"))),
        }
        if let Some(counted) = self.counted.get(&(given.job, given.epoch, part)).filter(|counted| **counted != attempt)
        {
            return Some(violation(3, format!("{from} is published, and attempt {counted:?} was said to count")));
        }
        let first = *self.published.entry((job, part)).or_insert(attempt);
        (first != attempt).then(|| violation(3, format!("{from} is published, and was of attempt {first:?}")))
    }
}

/// Attempts of which an answer says that they count.
pub(crate) fn counted_in(answer: &wire::PollAnswer) -> impl Iterator<Item = AttemptId> {
    answer.settled.iter().filter(|attempt| !answer.discard.contains(attempt)).map(|attempt| id(*attempt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Simulation;

    fn task(partition: u32, counter: u64) -> wire::Task {
        let attempt = Some(wire::Attempt { term: 1, counter });
        wire::Task { job: 7, stage: Stage::Reduce.into(), epoch: 0, partition, attempt }
    }

    fn give(attempts: &mut Attempts, incarnation: u64, task: wire::Task) -> Vec<Violation> {
        let assignments = vec![wire::Assignment { task: Some(task), ..Default::default() }];
        attempts.hear(&Said::Answer(incarnation, wire::PollAnswer { assignments, ..Default::default() }))
    }

    fn end(attempts: &mut Attempts, task: wire::Task, length: u64) -> Vec<Violation> {
        let end = Some(End::Done(wire::Done { length, ..Default::default() }));
        let reports = vec![wire::TaskReport { task: Some(task), end, given_ms: 0 }];
        attempts.hear(&Said::Poll(wire::Poll { reports, ..Default::default() }))
    }

    fn name(part: u32, counter: u64) -> String {
        format!("{ROOT}/00000000000000aa/00000000000000aa-7/part-{part:05}.1-{counter}")
    }

    fn broken(found: Option<Violation>) -> Option<u8> {
        found.map(|violation| violation.invariant)
    }

    #[test]
    fn what_attempts_may_and_may_not_do() {
        let _simulation = Simulation::new(0);
        let mut attempts = Attempts::default();
        assert_eq!(broken(attempts.copied(&name(0, 1), Some(3))), Some(4), "nobody gave it out");
        assert!(give(&mut attempts, 5, task(0, 1)).is_empty() && give(&mut attempts, 5, task(0, 1)).is_empty());
        assert_eq!(give(&mut attempts, 6, task(0, 1))[0].invariant, 5, "to another one as well");
        assert_eq!(broken(attempts.copied(&name(0, 1), Some(3))), Some(3), "it has not ended");
        assert!(end(&mut attempts, task(0, 1), 3).is_empty());
        assert_eq!(broken(attempts.copied(&name(0, 1), Some(4))), Some(3), "other bytes");
        assert_eq!(broken(attempts.copied(&name(1, 1), Some(3))), Some(4), "another part");
        assert_eq!(attempts.copied(&name(0, 1), Some(3)), None);
        assert_eq!(attempts.copied(&name(0, 1), None), None, "once more");
        give(&mut attempts, 6, task(0, 2));
        end(&mut attempts, task(0, 2), 3);
        assert_eq!(broken(attempts.copied(&name(0, 2), None)), Some(3), "another attempt at the same part");
    }

    fn told(attempts: &mut Attempts, answer: wire::PollAnswer) -> Option<u8> {
        broken(attempts.hear(&Said::Answer(5, answer)).pop())
    }

    #[test]
    fn one_attempt_at_a_part_counts_and_none_of_a_worker_that_was_given_up() {
        let _simulation = Simulation::new(0);
        let mut attempts = Attempts::default();
        let settled = |counter, discard| wire::PollAnswer {
            settled: vec![wire::Attempt { term: 1, counter }],
            discard: Vec::from_iter(discard),
            ..Default::default()
        };
        for counter in 1..=4 {
            give(&mut attempts, 5, task(u32::from(counter > 2), counter));
            end(&mut attempts, task(u32::from(counter > 2), counter), 3);
        }
        assert_eq!(told(&mut attempts, settled(1, None)), None);
        assert_eq!(told(&mut attempts, settled(1, None)), None, "once more");
        let void = Some(wire::Attempt { term: 1, counter: 2 });
        assert_eq!(told(&mut attempts, settled(2, void)), None, "it does not count");
        assert_eq!(broken(attempts.copied(&name(0, 2), Some(3))), Some(3), "the other one counts");
        assert_eq!(told(&mut attempts, settled(2, None)), Some(3));
        end(&mut attempts, task(0, 1), 3);
        end(&mut attempts, task(1, 3), 3);
        assert_eq!(told(&mut attempts, wire::PollAnswer { fenced: "dead".into(), ..Default::default() }), None);
        assert_eq!(told(&mut attempts, settled(3, None)), None, "the leader had heard it before");
        assert_eq!(told(&mut attempts, settled(4, None)), Some(4));
        assert_eq!(broken(attempts.copied(&name(1, 4), Some(3))), Some(4));
        let places = |counter| {
            let attempt = Some(wire::Attempt { term: 1, counter });
            let places = vec![wire::SegmentPlace { attempt, ..Default::default() }];
            vec![wire::SegmentUpdate { places, ..Default::default() }]
        };
        assert_eq!(told(&mut attempts, wire::PollAnswer { segments: places(1), ..Default::default() }), None);
        assert_eq!(told(&mut attempts, wire::PollAnswer { segments: places(4), ..Default::default() }), Some(4));
    }
}
