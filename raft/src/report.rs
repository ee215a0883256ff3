//! What is in a node's folder, checked: for people, and for the check before a node serves.

use std::fmt;

use crate::disk::{Files, Kv};
use crate::identity::{self, Identity};
use crate::log::open::{self, Checked};
use crate::net::Peer;
use crate::node::{Error, check_coverage, id};
use crate::snapshot;
use crate::types::{LogId, StoredMembership};

/// A term and an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The term of the leader that made the entry.
    pub term: u64,
    /// The index of the entry.
    pub index: u64,
}

impl Place {
    fn of(id: &LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of term {}", self.index, self.term)
    }
}

/// The content of a folder that passed every check: whatever was acknowledged is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose it is.
    pub identity: Identity,
    /// Entries in the log.
    pub entries: u64,
    /// Bytes of what they say.
    pub payload_bytes: u64,
    /// The last entry that was purged.
    pub purged: Option<Place>,
    /// The last entry.
    pub last: Option<Place>,
    /// The hash of the last entry and, through it, of all before.
    pub chain: [u8; 16],
    /// An entry known to be committed.
    pub committed: Option<Place>,
    /// The term of the last vote, for whom it was, and whether a quorum agreed.
    pub vote: Option<(u64, u64, bool)>,
    /// Batches written.
    pub write: u64,
    /// Batches written as the mark outside of the database says. Never more.
    pub marked_write: u64,
    /// Members with a vote, by the newest entry or snapshot that says.
    pub voters: Vec<Peer>,
    /// Members without.
    pub learners: Vec<Peer>,
    /// What the newest snapshot covers, and its bytes.
    pub snapshot: Option<(Option<Place>, u64)>,
    /// Bytes of the database.
    pub log_bytes: u64,
    /// Bytes of the other files.
    pub file_bytes: u64,
}

/// Reads and checks everything in a folder. Writes nothing through the seams.
///
/// # Errors
///
/// Those of [`crate::Node::start`].
pub fn check<K: Kv, F: Files>(kv: &K, files: &F) -> Result<Report, Error> {
    let identity = Identity::read(files)?.ok_or(identity::Error::None)?;
    let node = Some(identity.node);
    let checked = open::check(kv, files, identity.node).map_err(|source| Error::Log { node, source })?;
    let snapshot = snapshot::newest(files).map_err(|source| Error::Snapshot { node, source })?;
    let covered = snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
    check_coverage(checked.head.purged.as_ref().map(|tip| tip.id), covered)
        .map_err(|source| Error::Log { node, source })?;
    let Checked { head, mark, entries, payload_bytes, membership } = checked;
    let membership = membership.or_else(|| snapshot.as_ref().map(|(meta, _)| meta.last_membership.clone()));
    let (voters, learners) = members(&membership.unwrap_or_default());
    Ok(Report {
        identity,
        entries,
        payload_bytes,
        purged: head.purged.as_ref().map(|tip| Place::of(&tip.id)),
        last: head.last.as_ref().map(|tip| Place::of(&tip.id)),
        chain: head.last_hash(),
        committed: head.committed.as_ref().map(Place::of),
        vote: head.vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for, vote.committed)),
        write: head.write,
        marked_write: mark.write,
        voters,
        learners,
        snapshot: snapshot.map(|(meta, sealed)| (meta.last_log_id.as_ref().map(Place::of), sealed.bytes)),
        log_bytes: kv.bytes_on_disk()?,
        file_bytes: files.list()?.iter().map(|file| file.bytes).sum(),
    })
}

fn members(stored: &StoredMembership) -> (Vec<Peer>, Vec<Peer>) {
    let peer = |id: u64| Peer { id, address: stored.get_node(&id).map(|m| m.address.clone()).unwrap_or_default() };
    let membership = stored.membership();
    (membership.voter_ids().map(peer).collect(), membership.learner_ids().map(peer).collect())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |place: &Option<Place>| place.map_or("none".to_string(), |place| format!("entry {place}"));
        writeln!(f, "{} of cluster {:016x}", id(self.identity.node), self.identity.cluster)?;
        match self.vote {
            Some((term, node, quorum)) => {
                let granted = if quorum { ", granted by a quorum" } else { "" };
                writeln!(f, "vote       term {term} for {}{granted}", id(node))?;
            }
            None => writeln!(f, "vote       none")?,
        }
        let chain: String = self.chain.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(f, "log        {} entries, {} bytes, up to {}", self.entries, self.payload_bytes, place(&self.last))?;
        writeln!(f, "chain      {chain}")?;
        writeln!(f, "purged     up to {}", place(&self.purged))?;
        writeln!(f, "committed  at least {}", place(&self.committed))?;
        match &self.snapshot {
            Some((last, bytes)) => writeln!(f, "snapshot   up to {}, {bytes} bytes", place(last))?,
            None => writeln!(f, "snapshot   none")?,
        }
        for (what, peers) in [("voter", &self.voters), ("learner", &self.learners)] {
            for peer in peers {
                writeln!(f, "{what:<10} {} at {}", id(peer.id), peer.address)?;
            }
        }
        writeln!(f, "writes     {}, {} by the mark", self.write, self.marked_write)?;
        write!(f, "size       {} bytes of database, {} of other files", self.log_bytes, self.file_bytes)
    }
}
