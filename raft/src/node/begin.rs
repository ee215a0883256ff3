//! Makes the folder of a node whose cluster begins with a state that is there already, as one of a backup.
//!
//! The folder is that of a node which was given a snapshot of the state and has no entry behind it. The snapshot's membership
//! is the node alone: it elects itself, and others join it as they join any cluster. What the state means, and how far its
//! term and index must be from those of any cluster that had it before, the caller knows.

use std::collections::{BTreeMap, BTreeSet};

use openraft_rt::AsyncRuntime;
use rand::Rng as _;

use super::{Disks, Error};
use crate::disk::{Files, Kv};
use crate::identity::Identity;
use crate::log::open;
use crate::message;
use crate::snapshot::{self, Kind, Unfinished};
use crate::types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote};

/// How a cluster begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Its id, which no other cluster has or had.
    pub cluster: u64,
    /// Where the node is reached.
    pub address: String,
    /// The term of the state's last command. Every leader of the cluster has a later one.
    pub term: u64,
    /// The index of the state's last command, below 2^63. Every command of the cluster has a later one.
    pub index: u64,
}

/// Makes a node in an empty folder that begins a cluster with `state`: chunks as a state machine's snapshot gives them. The node
/// is started from the folder afterwards, as any other. The identity is written last: a folder in which this was interrupted
/// has none, and must be emptied before it is used.
///
/// # Errors
///
/// [`Error::Refused`] if the folder is a node's already or the index is too high; else what the disk says.
pub async fn begin<Rt: AsyncRuntime, K: Kv, F: Files>(
    disks: &Disks<K, F>,
    beginning: &Beginning,
    state: &mut (dyn Iterator<Item = Vec<u8>> + Send),
) -> Result<Identity, Error> {
    if let Some(identity) = Identity::read(&disks.files)? {
        let told = format!("the folder is that of {} already", super::id(identity.node));
        return Err(Error::Refused(told));
    }
    let &Beginning { cluster, term, index, .. } = beginning;
    message::check_index(index).map_err(|e| Error::Refused(crate::chain(&e)))?;
    // 0 is left out, as in a folder that begins with nothing.
    let identity = Identity { node: Rt::thread_rng().next_u64().max(1), cluster };
    let node = Some(identity.node);
    let in_snapshot = |source| Error::Snapshot { node, source };
    snapshot::remove_unfinished(&disks.files).await.map_err(in_snapshot)?;

    // Without a vote in the state's term the node would stand for election in an earlier one.
    let vote = Some(Vote::new(term, identity.node));
    let created = open::create_voted(&disks.kv, &disks.files, identity.node, vote).await;
    created.map_err(|source| Error::Log { node, source })?;

    let last = LogId::new_term_index(term, index);
    let members = BTreeMap::from([(identity.node, Member { address: beginning.address.clone() })]);
    let membership = Membership::new(vec![BTreeSet::from([identity.node])], members);
    let membership = membership.map_err(|e| Error::Refused(e.to_string()))?;
    let last_membership = StoredMembership::new(Some(last), membership);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
    let unfinished = Unfinished::begin(disks.files.clone(), Kind::Built).await.map_err(in_snapshot)?;
    unfinished.write(&meta, state).await.map_err(in_snapshot)?;
    identity.write(&disks.files).await?;
    Ok(identity)
}
