//! Starting a node: identity, checks, log, state machine, openraft.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt as _;
use openraft::{Config, SnapshotPolicy};
use openraft_rt::{AsyncRuntime, WatchReceiver as _};
use rand::Rng as _;

use super::{Env, Error, Inner, Node, Raft};
use crate::disk::{Files, Kv};
use crate::identity::Identity;
use crate::log::{self, open};
use crate::machine::{Machine, StateMachine};
use crate::peer::{Addresses, Factory, Peers};
use crate::snapshot;
use crate::types::Types;

/// Entries after which a snapshot is written, whatever their size: it bounds the time of a restart.
const SNAPSHOT_AFTER_ENTRIES: u64 = 100_000;

/// The most entries that go to a follower in one message.
const MAX_ENTRIES_IN_A_MESSAGE: u64 = 512;

/// Commands that may wait for the node's attention; beyond it, proposals wait outside.
const MAX_WAITING_COMMANDS: u64 = 16_384;

/// How a node behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster that the folder must belong to, or will if it is new.
    pub cluster: u64,
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// The shortest time without it after which a follower stands for election. At least three heartbeats.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
    /// Bytes of commands after which a snapshot is written.
    pub snapshot_bytes: u64,
    /// Entries kept although a snapshot covers them, so that a follower that was away for a moment needs no snapshot.
    pub kept_entries: u64,
    /// The database of the log is rebuilt once it takes more than this on the disk and more than four times what is in
    /// it. (sled's file grows and does not shrink by itself.)
    pub rebuild_above_bytes: u64,
}

impl Options {
    /// The defaults for a cluster on machines of their own: a heartbeat of 20 ms, an election after 100 to 150 ms, a
    /// snapshot after 64 MiB.
    pub fn new(cluster: u64) -> Self {
        Self {
            cluster,
            heartbeat: Duration::from_millis(20),
            election_min: Duration::from_millis(100),
            election_max: Duration::from_millis(150),
            snapshot_bytes: 64 << 20,
            kept_entries: 1000,
            rebuild_above_bytes: 64 << 20,
        }
    }

    fn config(&self) -> Result<Config, Error> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let heartbeat = ms(self.heartbeat);
        let config = Config {
            cluster_name: format!("{:016x}", self.cluster),
            heartbeat_interval: heartbeat,
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            // Until the other side has stored and restored all of a snapshot; the seam bounds a stall.
            install_snapshot_timeout: ms(self.election_max) * 20,
            max_payload_entries: MAX_ENTRIES_IN_A_MESSAGE,
            replication_lag_threshold: self.kept_entries.max(SNAPSHOT_AFTER_ENTRIES) * 2,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER_ENTRIES),
            max_in_snapshot_log_to_keep: self.kept_entries,
            purge_batch_size: (self.kept_entries / 4).clamp(1, 256),
            api_channel_size: Some(MAX_WAITING_COMMANDS),
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            // A peer that is away is asked again soon: it may be back any moment.
            backoff: format!("{}ms {}ms ..{}ms", heartbeat, heartbeat * 2, heartbeat * 10),
            ..Config::default()
        };
        config.validate().map_err(|e| Error::Refused(format!("these times make no sense: {e}")))
    }
}

/// What a node keeps its things on.
#[derive(Debug, Clone)]
pub struct Disks<K, F> {
    /// The database of the log.
    pub kv: K,
    /// The folder around it.
    pub files: F,
}

/// The identity of the folder; a new one, with an empty log, if the folder is new.
async fn identify<Rt: AsyncRuntime, K: Kv, F: Files>(disks: &Disks<K, F>, cluster: u64) -> Result<Identity, Error> {
    if let Some(identity) = Identity::read(&disks.files)? {
        return Ok(identity.check(cluster)?);
    }
    // 0 is left out, so that a message without an id is not taken for one.
    let identity = Identity { node: Rt::thread_rng().next_u64().max(1), cluster };
    let created = open::create(&disks.kv, &disks.files, identity.node).await;
    created.map_err(|source| Error::Log { node: None, source })?;
    identity.write(&disks.files).await?;
    Ok(identity)
}

/// Fails unless a snapshot covers what was purged from the log.
pub(crate) fn check_coverage(
    purged: Option<crate::types::LogId>,
    snapshot: Option<crate::types::LogId>,
) -> Result<(), log::Error> {
    if purged <= snapshot {
        return Ok(());
    }
    let name = |id: Option<crate::types::LogId>| id.map_or("nothing".to_string(), |id| id.to_string());
    Err(log::Error::loss(
        format!("a snapshot up to {} or later, as the log begins behind it", name(purged)),
        format!("a snapshot up to {}", name(snapshot)),
    ))
}

impl<E: Env, S: StateMachine> Node<E, S> {
    /// Starts a node: makes an identity and an empty log if the folder is empty, checks everything that is there
    /// otherwise, and takes up its work. `state` is the state before the first command. `connect` is given the identity
    /// and makes the node's network.
    ///
    /// # Errors
    ///
    /// If the folder is another cluster's, or lost anything that was acknowledged: the message says what was expected,
    /// what was found and how to rejoin.
    pub async fn start(
        disks: Disks<E::Kv, E::Files>,
        connect: impl FnOnce(Identity) -> E::Net,
        state: S,
        options: &Options,
    ) -> Result<Self, Error> {
        let config = Arc::new(options.config()?);
        let identity = identify::<E::Rt, _, _>(&disks, options.cluster).await?;
        let node = Some(identity.node);
        let in_log = |source| Error::Log { node, source };
        let in_snapshot = |source| Error::Snapshot { node, source };
        snapshot::remove_unfinished(&disks.files).await.map_err(in_snapshot)?;
        let checked = open::check(&disks.kv, &disks.files, identity.node).map_err(in_log)?;
        let (tell, unsaved) = Types::<E::Rt>::watch_channel(0);
        let machine = Machine::open(state, disks.files.clone(), tell).map_err(in_snapshot)?;
        let covered = machine.snapshot().and_then(|(last, _)| last);
        check_coverage(checked.head.purged.as_ref().map(|tip| tip.id), covered).map_err(in_log)?;
        let store = open::start::<E::Rt, _, _>(disks.kv, disks.files.clone(), checked, options.rebuild_above_bytes);
        let store = store.await.map_err(in_log)?;
        let addresses = Addresses::default();
        let (net, addresses_of_peers) = (connect(identity), addresses.clone());
        let peers = Peers { net, cluster: identity.cluster, me: identity.node, addresses: addresses_of_peers };
        let network = Factory { peers, kinds: PhantomData };
        let raft = openraft::Raft::new(identity.node, config, network, store.clone(), machine.clone()).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(fatal) => {
                let _ = store.stop().await;
                return Err(Error::Ended(store.ended().unwrap_or_else(|| crate::chain(&fatal))));
            }
        };
        drop(E::Rt::spawn(snapshot_by_size::<E, S>(raft.clone(), unsaved, options.snapshot_bytes)));
        drop(E::Rt::spawn(follow_addresses::<E, S>(raft.clone(), addresses)));
        let inner = Inner {
            raft,
            store,
            machine,
            files: disks.files,
            identity,
            election: options.election_max,
            receiving: std::sync::atomic::AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Begins a snapshot whenever there are more bytes of commands than `limit` since the last one.
async fn snapshot_by_size<E: Env, S: StateMachine>(
    raft: Raft<E, S>,
    mut unsaved: openraft::type_config::alias::WatchReceiverOf<Types<E::Rt>, u64>,
    limit: u64,
) {
    let mut metrics = raft.metrics();
    loop {
        let more = unsaved.wait_until(|bytes| *bytes >= limit);
        let ended = metrics.wait_until(|m| m.running_state.is_err());
        match E::Rt::select2(Box::pin(more), Box::pin(ended)).await {
            openraft_rt::Select2::First(Ok(_)) if raft.trigger().snapshot().await.is_ok() => {}
            _ => return,
        }
        // What is reported next is counted from the new snapshot.
        if unsaved.changed().await.is_err() {
            return;
        }
    }
}

/// Takes over where members are, whenever there is another membership, until the node ends.
async fn follow_addresses<E: Env, S: StateMachine>(raft: Raft<E, S>, addresses: Addresses) {
    let mut metrics = raft.metrics();
    let mut known = None;
    loop {
        let newer = |m: &openraft::RaftMetrics<Types<E::Rt>>| {
            m.running_state.is_err() || Some(m.membership_config.log_id()) != known.as_ref()
        };
        let Ok(now) = metrics.wait_until(newer).await else { return };
        if now.running_state.is_err() {
            return;
        }
        addresses.set(&now.membership_config);
        known = Some(*now.membership_config.log_id());
    }
}
