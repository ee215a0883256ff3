//! Invariant 12: Status reads that promise freshness are linearizable: of two looks at a job of which one was answered before the
//! other was asked, the later does not show an earlier state, and a job that was acknowledged is there.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_proto::v1::JobState;

use super::{Seen, Violation, violation};
use crate::workload::Look;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    let mut by_job = BTreeMap::<&str, Vec<&Look>>::new();
    ledger.looks.iter().for_each(|look| by_job.entry(&look.job).or_default().push(look));
    by_job.into_iter().filter_map(|(job, looks)| of_one(job, looks)).collect()
}

fn of_one(job: &str, mut looks: Vec<&Look>) -> Option<Violation> {
    if let Some(look) = looks.iter().find(|look| look.state.is_none()) {
        return Some(violation(12, format!("{job} was acknowledged, and at {:?} there is none", look.asked)));
    }
    // The newest state among looks that were answered before this one was asked.
    let mut answered: Vec<(Duration, JobState)> = looks.iter().filter_map(|l| Some((l.answered, l.state?))).collect();
    answered.sort_unstable();
    looks.sort_by_key(|look| look.asked);
    let (mut newest, mut before) = (JobState::Unspecified, answered.into_iter().peekable());
    for look in looks {
        while let Some((_, state)) = before.next_if(|(at, _)| *at < look.asked) {
            newest = newest.max(state);
        }
        let state = look.state.unwrap_or_default();
        if state < newest {
            return Some(violation(12, format!("{job} was {newest:?}, and at {:?} it is {state:?}", look.asked)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(asked: u64, answered: u64, state: JobState) -> Look {
        let ms = Duration::from_millis;
        Look { job: "j".into(), asked: ms(asked), answered: ms(answered), state: Some(state) }
    }

    #[test]
    fn looks_at_the_same_time_may_differ_later_ones_may_not_go_back() {
        let (queued, mapping) = (JobState::Queued, JobState::Mapping);
        let both = [look(0, 10, mapping), look(5, 15, queued)];
        assert_eq!(of_one("j", both.iter().collect()), None);
        let back = [look(0, 10, mapping), look(11, 15, queued)];
        assert_eq!(of_one("j", back.iter().collect()).unwrap().invariant, 12);
        let lost = [Look { state: None, ..look(0, 1, queued) }];
        assert_eq!(of_one("j", lost.iter().collect()).unwrap().invariant, 12);
    }
}
