//! Invariant 12, too: what was refused has not happened: every job that left something, an output or its history, is one of
//! which somebody was told that it was taken.

use std::collections::BTreeSet;

use gristmill_engine::control::commit::{ROOT, history};

use super::{Manifest, SUCCESS, Seen, Violation, objects, violation};
use crate::cluster::CLUSTER;

pub(super) fn check(seen: &Seen<'_>) -> Option<Violation> {
    let ledger = seen.users.ledger();
    // Who still waits has not been told everything.
    if ledger.busy > 0 {
        return None;
    }
    let outputs = objects(seen.store(), "out/").into_iter().filter(|(name, _)| name.ends_with(SUCCESS));
    let published = outputs.filter_map(|(_, bytes)| Some(serde_json::from_slice::<Manifest>(&bytes).ok()?.job));
    let histories = objects(seen.store(), &format!("{ROOT}/")).into_keys().filter_map(|name| job_of_history(&name));
    let known: BTreeSet<&str> = ledger.jobs.keys().map(String::as_str).collect();
    let unknown: BTreeSet<String> =
        published.chain(histories).filter(|job| !known.contains(job.as_str())).collect();
    // Those may be what a try came to whose answer was lost.
    let what = || {
        let unsure = ledger.unsure;
        format!("nobody was told that {unknown:?} were taken, and {unsure} refusals may have come too late")
    };
    (unknown.len() > ledger.unsure).then(|| violation(12, what()))
}

/// The id of the job whose history has this name.
fn job_of_history(name: &str) -> Option<String> {
    let number: u64 = name.rsplit_once('/')?.1.parse().ok()?;
    (name == history(CLUSTER, number)).then(|| format!("{CLUSTER:016x}-{number}"))
}
