//! What is known of attempts at tasks from outside: what masters and workers say to each other, and which objects are
//! copied to where readers find them.

use std::collections::BTreeMap;

use gristmill_engine::control::commit::ROOT;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::Stage;
use gristmill_proto::internal::v1::task_report::End;

use crate::invariants::{Violation, violation};

/// Something that was said, when it was said: whether it was heard is another matter.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// A worker to the leader.
    Poll(wire::Poll),
    /// The leader to a worker of this incarnation.
    Answer(u64, wire::PollAnswer),
}

/// Of an attempt: term and counter.
type AttemptId = (u64, u64);

/// An attempt, as it was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    task: (u64, i32, u32, u32),
    /// The worker's.
    incarnation: u64,
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
    /// The attempt of each part that was copied to where readers look.
    published: BTreeMap<(String, u32), AttemptId>,
}

fn id(attempt: wire::Attempt) -> AttemptId {
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
            Said::Poll(poll) => poll.reports.iter().filter_map(|report| self.report(report)).collect(),
            Said::Answer(incarnation, answer) => {
                let tasks = answer.assignments.iter().filter_map(|assignment| assignment.task.as_ref());
                tasks.filter_map(|task| self.give(*incarnation, task)).collect()
            }
        }
    }

    fn give(&mut self, incarnation: u64, task: &wire::Task) -> Option<Violation> {
        let attempt = id(task.attempt?);
        let given = Given { task: (task.job, task.stage, task.epoch, task.partition), incarnation };
        let before = self.given.entry(attempt).or_insert_with(|| given.clone());
        let what = format!("attempt {attempt:?} is given out as {given:?}, and was as {before:?}");
        (*before != given).then(|| violation(5, what))
    }

    fn report(&mut self, report: &wire::TaskReport) -> Option<Violation> {
        let attempt = id(report.task.as_ref()?.attempt?);
        let ended = match report.end.as_ref()? {
            End::Done(done) => Ended::Done { digest: done.digest.to_vec(), length: done.length },
            End::Failure(_) => Ended::Failed,
            End::Moved(_) => return None,
        };
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
        if (number, given.task.1, given.task.3) != (Some(given.task.0), Stage::Reduce as i32, part) {
            return Some(violation(4, format!("{from} is published, of an attempt at {given:?}")));
        }
        match self.ended.get(&attempt) {
            Some(Ended::Done { length, .. }) if bytes.is_none_or(|bytes| bytes == *length) => {}
            ended => return Some(violation(3, format!("{from} of {bytes:?} bytes is published, of {ended:?}"))),
        }
        let first = *self.published.entry((job, part)).or_insert(attempt);
        (first != attempt).then(|| violation(3, format!("{from} is published, and was of attempt {first:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
