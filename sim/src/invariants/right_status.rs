//! Invariant 2, too: what is said of a job that has completed is what is there: each task is done and counted once, however
//! many attempts there were.

use gristmill_proto::v1::{JobStatus, TaskCounts};

use super::{Seen, Violation, violation};
use crate::picky;
use crate::reference::App;
use crate::workload::Half;

/// What a job has left, by the bytes in the store and the reference.
#[derive(Default)]
struct Left {
    /// `None`: nobody can foretell it.
    records: Option<u64>,
    bad_records: u64,
    /// Records that the app counts.
    taken: u64,
}

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    let mut found = Vec::new();
    for (id, job) in &ledger.jobs {
        let Some(status) = &job.completed else { continue };
        let (wish, inputs) = (&job.wish, &*seen.users.inputs);
        let lines = wish.lines(inputs);
        let taken = match (&wish.app, wish.half) {
            // Its reducers have no counters.
            (App::Picky(_), Half::Both | Half::Map) => lines.iter().filter_map(|line| count_of(line)).sum(),
            _ => 0,
        };
        let left = Left {
            records: (wish.app != App::Fickle && wish.half != Half::Map).then_some(lines.len() as u64),
            bad_records: wish.bad_records(inputs) as u64,
            taken,
        };
        if let Err(why) = agrees(status, &left) {
            found.push(violation(2, format!("{id} ({wish}) has completed, and its status says: {why}")));
        }
    }
    found
}

/// What a line of the reference says after its last tab.
fn count_of(line: &str) -> Option<u64> {
    line.rsplit_once('\t')?.1.parse().ok()
}

fn agrees(status: &JobStatus, left: &Left) -> Result<(), String> {
    let open = |tasks: &Option<TaskCounts>| tasks.as_ref().is_some_and(|tasks| tasks.done != tasks.total);
    if open(&status.maps) || open(&status.reduces) {
        return Err(format!("{:?} maps and {:?} reduces", status.maps, status.reduces));
    }
    let taken = status.counters.get(picky::TAKEN).copied().unwrap_or(0);
    let all = [
        ("output records", status.output_records, left.records.unwrap_or(status.output_records)),
        ("bad records", status.bad_records, left.bad_records),
        ("records that its maps counted", taken, left.taken),
    ];
    match all.into_iter().find(|(_, said, left)| said != left) {
        Some((what, said, left)) => Err(format!("{said} {what}, and there are {left}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_there() {
        let counted = |n| [(picky::TAKEN.to_string(), n)].into();
        let status = JobStatus { output_records: 3, bad_records: 1, counters: counted(7), ..JobStatus::default() };
        let left = |records, bad_records, taken| Left { records, bad_records, taken };
        assert_eq!(agrees(&status, &left(Some(3), 1, 7)), Ok(()));
        assert_eq!(agrees(&status, &left(None, 1, 7)), Ok(()), "nobody knows how many");
        assert!(agrees(&status, &left(Some(2), 1, 7)).unwrap_err().contains("3 output records, and there are 2"));
        assert!(agrees(&status, &left(Some(3), 2, 7)).unwrap_err().contains("1 bad records"));
        assert!(agrees(&status, &left(Some(3), 1, 8)).unwrap_err().contains("7 records that its maps counted"));
        let reduces = Some(TaskCounts { total: 3, done: 2, ..TaskCounts::default() });
        assert!(agrees(&JobStatus { reduces, ..status }, &left(Some(3), 1, 7)).is_err(), "one is not done");
        assert_eq!(count_of("a\tb\t12"), Some(12));
    }
}
