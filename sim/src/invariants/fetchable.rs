//! Invariant 7: A map task that is done has output that can be fetched, or is rescheduled in bounded time: nobody says for
//! long that the segments of one attempt are missing, once all is well.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Violation, violation};
use crate::attempts::{AttemptId, id};
use crate::marks::sometimes;
use crate::said::Said;

/// Leases end in a tenth of this.
const LONG: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Watch {
    /// When somebody first missed the segments of an attempt at a map, since all is well.
    missed: BTreeMap<(u64, u32, AttemptId), Duration>,
    healed: bool,
    told: bool,
}

impl Watch {
    /// From here on nothing goes wrong.
    pub(super) fn healed(&mut self) {
        self.healed = true;
    }

    pub(super) fn hear(&mut self, said: &Said, now: Duration) -> Option<Violation> {
        let Said::Poll(poll) = said else { return None };
        for missing in &poll.missing {
            sometimes("segments are missing");
            let key = (missing.job, missing.map, id(missing.attempt?));
            if !self.healed || self.told {
                continue;
            }
            let since = *self.missed.entry(key).or_insert(now);
            if now > since + LONG {
                self.told = true;
                let (job, map, attempt) = key;
                let what = format!("map {map} of job {job} is missed since {since:?}, of attempt {attempt:?}");
                return Some(violation(7, what));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use gristmill_proto::internal::v1 as wire;

    use super::*;
    use crate::runtime::Simulation;

    #[test]
    fn segments_may_be_missed_for_a_while() {
        let _simulation = Simulation::new(0);
        let (mut watch, s) = (Watch::default(), Duration::from_secs);
        let said = |counter| {
            let attempt = Some(wire::Attempt { term: 1, counter });
            let missing = vec![wire::Missing { job: 1, map: 2, attempt, ..Default::default() }];
            Said::Poll(wire::Poll { missing, ..Default::default() })
        };
        assert_eq!(watch.hear(&said(1), s(0)), None);
        watch.healed();
        assert_eq!(watch.hear(&said(1), s(30)), None, "before, all sorts of things may have been wrong");
        assert_eq!(watch.hear(&said(2), s(45)), None, "of another attempt");
        assert_eq!(watch.hear(&said(1), s(51)).map(|found| found.invariant), Some(7));
    }
}
