//! Invariant 13: Replicas that applied the same index hold the same state, then and after any restart.

use std::collections::BTreeMap;

use super::{Violation, violation};
use crate::cluster::Cluster;

#[derive(Default)]
pub(super) struct Watch {
    /// By index.
    digests: BTreeMap<u64, [u8; 16]>,
}

impl Watch {
    pub(super) fn look(&mut self, cluster: &Cluster) -> Vec<Violation> {
        let holds =
            cluster.masters().filter_map(|machine| Some((machine, cluster.handle(machine.node)?.fingerprint())));
        holds.filter_map(|(machine, (index, digest))| self.holds(&machine.address, index, digest)).collect()
    }

    fn holds(&mut self, who: &str, index: u64, digest: [u8; 16]) -> Option<Violation> {
        let first = *self.digests.entry(index).or_insert(digest);
        let what = || format!("{who} holds another state at index {index} than was seen there before");
        (first != digest).then(|| violation(13, what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_index_has_one_state() {
        let mut watch = Watch::default();
        assert_eq!(watch.holds("m1", 1, [1; 16]), None);
        assert_eq!(watch.holds("m2", 2, [2; 16]), None, "it is ahead");
        assert_eq!(watch.holds("m2", 1, [1; 16]), None, "it has gone back to what was there");
        assert_eq!(watch.holds("m3", 1, [3; 16]).map(|found| found.invariant), Some(13));
    }
}
