//! The connections to other nodes: two for every address, opened when first used.
//!
//! Calls and bulk data go over different connections, so that a heartbeat never waits behind the bytes of a snapshot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::transport::Channel;

use super::address;
use super::connector::Connector;

/// The most addresses to which connections are kept; the one not used for longest goes first. What still runs over its
/// connections ends well: they close with the last call.
pub const MAX_ADDRESSES: usize = 256;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Messages that somebody waits for.
    Calls,
    /// Many bytes.
    Bulk,
}

struct Pair {
    calls: Channel,
    bulk: Channel,
    used: u64,
}

#[derive(Default)]
struct Kept {
    pairs: BTreeMap<String, Pair>,
    clock: u64,
}

/// Connections to other nodes. Clones share them. Services of other kinds use them too: give a generated client the
/// channel, and [`super::answer::within`] its future.
#[derive(Clone)]
pub struct Channels {
    connector: Connector,
    kept: Arc<Mutex<Kept>>,
}

impl Channels {
    /// No connections yet.
    pub fn new(connector: Connector) -> Self {
        Self { connector, kept: Arc::default() }
    }

    /// The connection to `address` for this purpose.
    ///
    /// # Errors
    ///
    /// If the address is none or must not be spoken to.
    pub fn to(&self, address: &str, lane: Lane) -> Result<Channel, address::Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let clock = kept.clock;
        if !kept.pairs.contains_key(address) {
            let (calls, bulk) = (self.connector.channel(address)?, self.connector.channel(address)?);
            kept.make_room();
            kept.pairs.insert(address.to_string(), Pair { calls, bulk, used: clock });
        }
        let Some(pair) = kept.pairs.get_mut(address) else { return self.connector.channel(address) };
        pair.used = clock;
        Ok(match lane {
            Lane::Calls => pair.calls.clone(),
            Lane::Bulk => pair.bulk.clone(),
        })
    }
}

impl Kept {
    fn make_room(&mut self) {
        while self.pairs.len() >= MAX_ADDRESSES {
            let oldest = self.pairs.iter().min_by_key(|(_, pair)| pair.used).map(|(address, _)| address.clone());
            let Some(oldest) = oldest else { return };
            self.pairs.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_address_not_used_for_longest_makes_room() {
        let channels = Channels::new(Connector::new(Duration::from_millis(100)));
        let address = |n: usize| format!("127.0.0.1:{}", 1000 + n);
        for n in 0..MAX_ADDRESSES {
            channels.to(&address(n), Lane::Calls).unwrap();
        }
        channels.to(&address(0), Lane::Bulk).unwrap();
        channels.to(&address(MAX_ADDRESSES), Lane::Calls).unwrap();
        let kept = channels.kept.lock().unwrap();
        assert_eq!(kept.pairs.len(), MAX_ADDRESSES);
        assert!(kept.pairs.contains_key(&address(0)) && !kept.pairs.contains_key(&address(1)));
    }
}
