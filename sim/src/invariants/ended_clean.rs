//! Invariant 15: Scratch and temporaries of ended jobs are gone in bounded time.

use gristmill_engine::scratch::Scratch as _;

use super::{Seen, Violation, objects, violation};

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    // What has not ended has temporaries; that is for another invariant to tell.
    if seen.users.ledger().busy > 0 {
        return Vec::new();
    }
    left(seen).into_iter().map(|what| violation(15, format!("{what} is left"))).collect()
}

/// What is left of jobs, in the store and on scratch, beside outputs, what is kept of a job, and inputs, of which a worker
/// keeps as many as it may for the next job.
pub(super) fn left(seen: &Seen<'_>) -> Vec<String> {
    let root = format!("{}/", gristmill_engine::control::commit::ROOT);
    let stored = objects(seen.store(), &root).into_keys().filter(|name| is_temporary(name));
    let scratch = seen.cluster.workers().filter_map(|machine| Some((machine, machine.scratch()?)));
    let files = scratch.flat_map(|(machine, scratch)| {
        let files = scratch.list("").unwrap_or_default().into_iter().map(|(name, _)| name);
        files.filter(|name| is_scratch(name)).map(move |name| format!("{name} on {}", machine.address))
    });
    stored.chain(files).collect()
}

/// Whether an object of the cluster's own is of no use when its job has ended.
fn is_temporary(name: &str) -> bool {
    !name.split('/').any(|part| part == "history" || part == "logs")
}

/// Whether a worker's file is of no use when its job has ended.
fn is_scratch(name: &str) -> bool {
    !name.starts_with("inputs/")
}

#[cfg(test)]
mod tests {
    use gristmill_engine::control::{commit, ids::AttemptId};

    use super::*;

    #[test]
    fn what_jobs_leave_is_told_from_what_is_kept_of_them() {
        let attempt = AttemptId { term: 1, counter: 2 };
        assert!(is_temporary(&commit::segments(1, 7, 0, attempt)));
        assert!(!is_temporary(&commit::history(1, 7)));
        assert!(is_scratch("jobs/7/map-0") && !is_scratch("inputs/1"));
    }
}
