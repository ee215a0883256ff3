//! Invariant 12, too: what was refused has not happened: every job that left something, an output or its history, is one of
//! which somebody was told that it was taken.

use std::collections::BTreeSet;

use gristmill_engine::control::commit::{ROOT, history};

use super::{Manifest, SUCCESS, Seen, Violation, objects, violation};
use crate::cluster::CLUSTER;

/// How long a key stands for its job, less what a run takes, in milliseconds.
const KEY_LIFE_MS: i64 = (24 * 60 - 10) * 60 * 1000;

pub(super) fn check(seen: &Seen<'_>) -> Option<Violation> {
    let ledger = seen.users.ledger();
    // Who still waits has not been told everything.
    if ledger.busy > 0 {
        return None;
    }
    // For a master whose clock of the day jumps over the life of a key, a second try is another submission.
    if seen.cluster.masters().any(|master| master.wall_ahead_ms() > KEY_LIFE_MS) {
        return None;
    }
    let outputs = objects(seen.store(), "out/").into_iter().filter(|(name, _)| name.ends_with(SUCCESS));
    let published = outputs.filter_map(|(_, bytes)| Some(serde_json::from_slice::<Manifest>(&bytes).ok()?.job));
    let histories = objects(seen.store(), &format!("{ROOT}/")).into_keys().filter_map(|name| job_of_history(&name));
    let known: BTreeSet<&str> = ledger.jobs.keys().map(String::as_str).collect();
    judge(published.chain(histories), &known, ledger.unsure)
}

/// `unsure` jobs may be what a try came to whose answer was lost.
fn judge(there: impl Iterator<Item = String>, known: &BTreeSet<&str>, unsure: usize) -> Option<Violation> {
    let unknown: BTreeSet<String> = there.filter(|job| !known.contains(job.as_str())).collect();
    let what = || format!("nobody was told that {unknown:?} were taken, and {unsure} refusals may have come too late");
    (unknown.len() > unsure).then(|| violation(12, what()))
}

/// The id of the job whose history has this name.
fn job_of_history(name: &str) -> Option<String> {
    let number: u64 = name.rsplit_once('/')?.1.parse().ok()?;
    (name == history(CLUSTER, number)).then(|| format!("{CLUSTER:016x}-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_something_was_taken() {
        let there = || ["j-1", "j-2"].map(String::from).into_iter();
        assert_eq!(judge(there(), &["j-1", "j-2", "j-3"].into(), 0), None);
        assert_eq!(judge(there(), &["j-1"].into(), 1), None, "it may be one that was said to be refused later");
        assert_eq!(judge(there(), &["j-1"].into(), 0).map(|found| found.invariant), Some(12));
        assert_eq!(job_of_history(&history(CLUSTER, 7)), Some(format!("{CLUSTER:016x}-7")));
        assert_eq!(job_of_history("history/seven"), None);
    }
}
