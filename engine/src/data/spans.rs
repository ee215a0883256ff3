//! Hands units of input to threads: each works through a span of neighbouring units, and one that is done takes the
//! back half of the longest span left.
//!
//! A span's units are in input order, and spans are disjoint: what was made of the spans, put together by where they
//! begin, is in input order, with nothing recorded per value.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::output::lock;

/// The units of a job, divided among threads.
pub(crate) struct Spans {
    /// Next unit and end of each thread's span.
    left: Mutex<Vec<(u64, u64)>>,
    units: u64,
    claimed: AtomicU64,
}

/// A unit to map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) unit: u64,
    /// Whether it begins a span of its own.
    pub(crate) fresh: bool,
}

impl Spans {
    pub(crate) fn new(units: u64, threads: usize) -> Self {
        let threads = threads.max(1) as u64;
        let start = |i: u64| (u128::from(units) * u128::from(i) / u128::from(threads)) as u64;
        let left = (0..threads).map(|i| (start(i), start(i + 1))).collect();
        Self { left: Mutex::new(left), units, claimed: AtomicU64::new(0) }
    }

    /// The next unit for a thread; `None` when all are taken. `fresh` on a thread's first claim as on any steal.
    pub(crate) fn claim(&self, thread: usize, first: bool) -> Option<Claim> {
        let mut left = lock(&self.left);
        let mut fresh = first;
        if left[thread].0 == left[thread].1 {
            let victim = (0..left.len()).max_by_key(|i| left[*i].1 - left[*i].0)?;
            let (next, end) = left[victim];
            if next == end {
                return None;
            }
            let middle = next + (end - next) / 2;
            left[victim].1 = middle;
            left[thread] = (middle, end);
            fresh = true;
        }
        let unit = left[thread].0;
        left[thread].0 += 1;
        self.claimed.fetch_add(1, Ordering::Relaxed);
        Some(Claim { unit, fresh })
    }

    /// The share of all units that has been claimed, 0 to 1.
    pub(crate) fn done(&self) -> f64 {
        self.claimed.load(Ordering::Relaxed) as f64 / self.units.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_unit_once_and_spans_in_order(
            units in 0u64..200, threads in 1usize..6, turns in prop::collection::vec(0usize..6, 0..400),
        ) {
            let spans = Spans::new(units, threads);
            let mut seen: Vec<(u64, Vec<u64>)> = Vec::new();
            let mut own = vec![None; threads];
            let rest = (0..threads).flat_map(|t| std::iter::repeat_n(t, units as usize + 1));
            for thread in turns.into_iter().filter(|t| *t < threads).chain(rest) {
                let Some(claim) = spans.claim(thread, own[thread].is_none()) else { continue };
                if claim.fresh {
                    own[thread] = Some(seen.len());
                    seen.push((claim.unit, Vec::new()));
                }
                seen[own[thread].unwrap()].1.push(claim.unit);
            }
            seen.sort();
            let all: Vec<u64> = seen.into_iter().flat_map(|(_, units)| units).collect();
            prop_assert_eq!(all, (0..units).collect::<Vec<_>>());
        }
    }
}
