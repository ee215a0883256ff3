//! What happened, as a hash over all of it and as a story of the few things that a person wants to read.

use std::time::Duration;

use crate::runtime::NodeId;

/// The trace of one run.
pub(crate) struct Trace {
    hash: u64,
    events: Vec<(Duration, NodeId, String)>,
}

/// Of a run's story no more is kept; the hash has all of it.
const MOST_EVENTS: usize = 100_000;

impl Default for Trace {
    fn default() -> Self {
        // FNV-1a's basis and prime (Fowler, Noll, Vo).
        Self { hash: 0xcbf2_9ce4_8422_2325, events: Vec::new() }
    }
}

impl Trace {
    pub(crate) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for eight in bytes.chunks(8) {
            let mut number = [0; 8];
            number[..eight.len()].copy_from_slice(eight);
            self.mix(u64::from_le_bytes(number));
        }
    }

    pub(crate) fn event(&mut self, now: Duration, node: NodeId, what: String) {
        self.mix_bytes(what.as_bytes());
        if self.events.len() < MOST_EVENTS {
            self.events.push((now, node, what));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> &[(Duration, NodeId, String)] {
        &self.events
    }
}
