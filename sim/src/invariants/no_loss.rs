//! Invariant 1: An acknowledged job is never lost, and after the last fault heals every job ends: well, unless it cannot.

use gristmill_proto::v1::JobState;

use super::{Seen, Violation, violation};

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    let mut found = Vec::new();
    if ledger.busy > 0 {
        found.push(violation(1, format!("{} users wait for ever", ledger.busy)));
    }
    for (id, job) in &ledger.jobs {
        let is_hopeless = job.wish.is_hopeless(&seen.users.inputs);
        let excused = is_hopeless || job.error.contains("the output cannot be published");
        match job.state {
            JobState::Completed => {}
            JobState::Cancelled if job.cancel_asked => {}
            JobState::Failed if excused => {}
            state => found.push(violation(1, format!("{id} is {state:?} at the end: {}", job.error))),
        }
        if is_hopeless && job.state == JobState::Completed {
            found.push(violation(1, format!("{id} has completed without its input, or with bad records")));
        }
    }
    found
}
