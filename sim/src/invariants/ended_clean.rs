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
    let kept = |name: &str| name.split('/').any(|part| part == "history" || part == "logs");
    let stored = objects(seen.store(), &root).into_keys().filter(|name| !kept(name));
    let scratch = seen.cluster.workers().filter_map(|machine| Some((machine, machine.scratch()?)));
    let files = scratch.flat_map(|(machine, scratch)| {
        let files = scratch.list("").unwrap_or_default();
        let kept = |(name, _): &(String, u64)| name.starts_with("inputs/");
        files.into_iter().filter(move |file| !kept(file)).map(move |(name, _)| format!("{name} on {}", machine.address))
    });
    stored.chain(files).collect()
}
