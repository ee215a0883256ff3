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
        let mut found = Vec::new();
        for machine in cluster.masters() {
            let Some(master) = cluster.handle(machine.node) else { continue };
            let (index, digest) = master.fingerprint();
            let first = *self.digests.entry(index).or_insert(digest);
            if first != digest {
                let what =
                    format!("{} holds another state at index {index} than was seen there before", machine.address);
                found.push(violation(13, what));
            }
        }
        found
    }
}
