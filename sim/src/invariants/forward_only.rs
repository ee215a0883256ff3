//! Invariant 11: Job ids are unique; states move only along the arrows: what has ended ends once.

use std::collections::BTreeMap;

use gristmill_proto::v1::JobState;

use super::{Seen, Violation, violation};

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    let mut found: Vec<Violation> =
        ledger.contradictions.iter().map(|(invariant, what)| violation(*invariant, what.clone())).collect();
    let mut ends = BTreeMap::<&str, JobState>::new();
    for look in &ledger.looks {
        let Some(state) = look.state.filter(|state| *state >= JobState::Completed) else { continue };
        let first = *ends.entry(&look.job).or_insert(state);
        if first != state {
            found.push(violation(11, format!("{} has ended as {first:?} and as {state:?}", look.job)));
        }
    }
    found
}
