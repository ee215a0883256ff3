//! Makes a log and opens one: the checks that stand between a disk and a vote.
//!
//! Everything that was acknowledged must be there, or the log is refused: a node that forgot would let a quorum forget
//! (Ongaro, "Consensus: bridging theory and practice", 2014, §3.8).

use openraft_rt::AsyncRuntime;

use super::Error;
use super::frame::{self, HEADER_BYTES, NO_HASH, Tip};
use super::head::{self, Head};
use super::mark::Mark;
use super::read::Reader;
use super::store::Store;
use super::writer::{Size, Writer};
use crate::disk::{Batch, Files, Kv};
use crate::message;
use crate::node::id;
use crate::planted::{Bug, planted};
use crate::types::{Payload, StoredMembership, Vote};

/// What a check of a log found.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) head: Head,
    pub(crate) mark: Head,
    pub(crate) entries: u64,
    pub(crate) payload_bytes: u64,
    /// The newest membership that an entry says.
    pub(crate) membership: Option<StoredMembership>,
}

/// Writes an empty log of `node` to an empty database.
pub(crate) async fn create<K: Kv, F: Files>(kv: &K, files: &F, node: u64) -> Result<(), Error> {
    create_voted(kv, files, node, None).await
}

/// As [`create`], of a node that has voted already.
pub(crate) async fn create_voted<K: Kv, F: Files>(
    kv: &K,
    files: &F,
    node: u64,
    vote: Option<Vote>,
) -> Result<(), Error> {
    if !is_new(kv, files)? {
        return Err(Error::loss("an empty folder to make a new log in", "a log whose identity is missing"));
    }
    let (mut mark, _) = Mark::open(files.clone())?;
    let head = Head { node, write: 1, vote, ..Head::default() };
    let mut batch = Batch::default();
    batch.put(head::KEY, head.encode());
    kv.write(batch).await?;
    kv.barrier().await?;
    mark.write(&head).await
}

/// Whether this is empty or what an interrupted creation leaves; anything more is somebody's log.
pub(crate) fn is_new<K: Kv, F: Files>(kv: &K, files: &F) -> Result<bool, Error> {
    let (_, marked) = Mark::open(files.clone())?;
    let found = kv.get(head::KEY)?.map(|bytes| Head::decode(&bytes));
    let fresh = |head: &Head| head.write <= 1;
    let entries = kv.range(&frame::key(0, 0), frame::END_OF_KEYS, 1)?;
    Ok(entries.is_empty()
        && match (&marked, &found) {
            (None, None) => true,
            (None, Some(Ok(head))) => fresh(head),
            (Some(mark), Some(Ok(head))) => fresh(mark) && fresh(head),
            _ => false,
        })
}

/// Reads everything and compares it with the mark. Writes nothing. A folder put together from those of two nodes is
/// refused: either may have promised what the other does not know.
pub(crate) fn check<K: Kv, F: Files>(kv: &K, files: &F, node: u64) -> Result<Checked, Error> {
    let (_, marked) = Mark::open(files.clone())?;
    let found = match kv.get(head::KEY)? {
        Some(bytes) => Head::decode(&bytes),
        None => Err("none".to_string()),
    };
    let (mark, mut head) = match (marked, found) {
        (Some(mark), Ok(head)) => (mark, head),
        (Some(mark), Err(problem)) => return Err(Error::loss(format!("{mark} (from the mark)"), problem)),
        (None, Ok(head)) => return Err(Error::loss("a mark", format!("none; {head} (in the database)"))),
        (None, Err(problem)) => return Err(Error::loss("a mark and a head", format!("no mark; {problem}"))),
    };
    if !planted(Bug::MarkIgnored) {
        head.check_against(&mark)?;
    }
    if head.node != node {
        return Err(Error::loss(format!("the log of {}", id(node)), format!("that of {}", id(head.node))));
    }

    let before = head.purged.as_ref().map_or(NO_HASH, |tip| tip.hash);
    let mut reader = Reader::new(kv, head.first_index(), head.next_index(), Some(before));
    let mut last = head.purged.clone();
    let (mut entries, mut payload_bytes, mut membership) = (0, 0, None);
    loop {
        let frame = match reader.next() {
            Err(_) if planted(Bug::BadFrameSkipped) => {
                head.last = last.clone();
                head.committed = head.committed.min(last.as_ref().map(|tip| tip.id));
                break;
            }
            frame => frame?,
        };
        let Some(frame) = frame else { break };
        (entries, payload_bytes) = (entries + 1, payload_bytes + frame.payload.len() as u64);
        let index = frame.tip.id.index();
        if last.as_ref().is_some_and(|last| last.id > frame.tip.id) {
            return Err(Error::loss("terms that grow", format!("entry {index} of an older term than the one before")));
        }
        let payload = message::decode_payload(frame.payload)
            .map_err(|e| Error::loss(format!("an entry {index} that this release can read"), crate::chain(&e)))?;
        if let Payload::Membership(said) = payload {
            membership = Some(StoredMembership::new(Some(frame.tip.id), said));
        }
        last = Some(frame.tip);
    }
    if last != head.last {
        return Err(Error::loss(head.to_string(), describe(last.as_ref())));
    }
    if let Some(committed) = head.committed.filter(|id| Some(id) > last.as_ref().map(|tip| &tip.id)) {
        return Err(Error::loss(format!("entries up to the committed {committed}"), describe(last.as_ref())));
    }
    Ok(Checked { head, mark, entries, payload_bytes, membership })
}

fn describe(last: Option<&Tip>) -> String {
    last.map_or("no entries".to_string(), |tip| format!("entries that end in another {}", tip.id))
}

/// Whose logs the tests of this module have.
#[cfg(test)]
pub(super) const NODE: u64 = 5;

/// Checks a log and starts its writer.
#[cfg(test)]
pub(crate) async fn open<Rt: AsyncRuntime, K: Kv, F: Files>(
    kv: K,
    files: F,
    floor: u64,
) -> Result<Store<Rt, K>, Error> {
    let checked = check(&kv, &files, NODE)?;
    start(kv, files, checked, floor).await
}

/// Starts the writer of a log that [`check`] found to be whole. Its database is not rebuilt below `floor` bytes.
pub(crate) async fn start<Rt: AsyncRuntime, K: Kv, F: Files>(
    kv: K,
    files: F,
    checked: Checked,
    floor: u64,
) -> Result<Store<Rt, K>, Error> {
    let Checked { head, entries, payload_bytes, .. } = checked;
    remove_leftovers(&kv, &head).await?;
    // A process may have ended between a write and its sync: what it left is read as if it were durable, and is promised
    // from here on. So it has to be.
    kv.barrier().await?;
    let (mut mark, marked) = Mark::open(files)?;
    if let Some(marked) = marked {
        mark.settle(&marked).await?;
    }
    mark.write(&head).await?;
    let used = payload_bytes + entries * HEADER_BYTES as u64;
    Ok(Writer::start(kv, mark, head, Size::new(used, floor)))
}

/// Entries that were purged or truncated, of which a crash left some.
async fn remove_leftovers<K: Kv>(kv: &K, head: &Head) -> Result<(), Error> {
    let ranges = [(frame::key(0, 0).to_vec(), frame::key(head.first_index(), 0).to_vec()), {
        (frame::key(head.next_index(), 0).to_vec(), frame::END_OF_KEYS.to_vec())
    }];
    for (from, to) in ranges {
        while super::writer::delete_some(kv, &from, &to).await? {}
    }
    Ok(())
}
