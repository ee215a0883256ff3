//! The log as openraft sees it: appends are readable at once from memory, durable when the writer says so.
//!
//! What is not yet in the database, and some of what is, is kept in a tail in memory; older entries are read from the
//! database. All changes go through the writer's queue, in the order in which openraft makes them.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, TryStreamExt as _, stream};
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt as _;
use openraft_rt::{AsyncRuntime, MpscSender as _, OptionalSend};

use super::Error;
use super::frame::{self, Frame, MAX_PAYLOAD_BYTES, NO_HASH, Tip};
use super::head::Head;
use super::read::Reader;
use super::writer::{Done, Queue, Write};
use crate::disk::Kv;
use crate::message;
use crate::planted::{Bug, planted};
use crate::types::{Entry, LogId, Types, Vote};

/// Bytes of entries kept in memory although they are in the database, for the followers and the state machine.
const MAX_TAIL_BYTES: usize = 16 << 20;

/// Bytes of entries after which a read that may be short stops.
const MAX_SHORT_READ_BYTES: usize = 1 << 20;

/// The log, for openraft and for the node.
pub(crate) struct Store<Rt: AsyncRuntime, K> {
    kv: K,
    pub(super) shared: Arc<Shared>,
    queue: Queue<Rt>,
}

impl<Rt: AsyncRuntime, K: Clone> Clone for Store<Rt, K> {
    fn clone(&self) -> Self {
        Self { kv: self.kv.clone(), shared: self.shared.clone(), queue: self.queue.clone() }
    }
}

/// What store, readers and writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The log as openraft made it, ahead of what is written.
    head: Head,
    /// The head that was last made durable.
    synced: Head,
    /// Neighbouring entries up to the last.
    tail: VecDeque<Kept>,
    tail_bytes: usize,
    /// Entries before this index are in the database.
    written: u64,
    /// Counts truncations and purges: a read that met one may have to be repeated.
    epoch: u64,
    ended: Option<String>,
    /// Bytes of the frames in the database.
    used: u64,
    /// How often the database was rebuilt.
    rebuilds: u64,
    /// Whether the first entry of an empty log may have any index, and which one it had. openraft's suite does that;
    /// in earnest it would be entries that are missing.
    gap_allowed: bool,
    gap_until: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    entry: Entry,
    tip: Tip,
    bytes: usize,
}

impl Shared {
    pub(crate) fn new(head: Head) -> Self {
        let written = head.next_index();
        let synced = head.clone();
        let state = State {
            head,
            synced,
            tail: VecDeque::new(),
            tail_bytes: 0,
            written,
            epoch: 0,
            ended: None,
            used: 0,
            rebuilds: 0,
            gap_allowed: false,
            gap_until: 0,
        };
        Self { state: Mutex::new(state) }
    }

    #[cfg(test)]
    pub(super) fn allow_gap_at_start(&self) {
        self.lock().gap_allowed = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.lock().head.committed
    }

    /// Entries before `next` are in the database.
    pub(crate) fn written(&self, next: u64) {
        let mut state = self.lock();
        state.written = next;
        state.shorten();
    }

    /// `head` is durable.
    pub(crate) fn synced(&self, head: &Head) {
        self.lock().synced = head.clone();
    }

    /// The frames in the database have so many bytes.
    pub(crate) fn used(&self, bytes: u64) {
        self.lock().used = bytes;
    }

    /// The database was rebuilt.
    pub(crate) fn rebuilt(&self) {
        self.lock().rebuilds += 1;
    }

    pub(crate) fn end(&self, why: &str) {
        self.lock().ended = Some(why.to_string());
    }
}

impl State {
    fn usable(&self) -> Result<(), Error> {
        self.ended.clone().map_or(Ok(()), |why| Err(Error::Ended(why)))
    }

    fn tail_start(&self) -> u64 {
        self.tail.front().map_or(self.head.next_index(), |kept| kept.tip.id.index())
    }

    fn pop_front(&mut self) {
        if let Some(kept) = self.tail.pop_front() {
            self.tail_bytes -= kept.bytes;
        }
    }

    /// Drops the oldest entries from the tail that are in the database, beyond the bound.
    fn shorten(&mut self) {
        while self.tail_bytes > MAX_TAIL_BYTES && self.tail_start() < self.written {
            self.pop_front();
        }
    }

    fn append(&mut self, entry: Entry) -> Result<(Tip, Vec<u8>), Error> {
        let id = entry.log_id();
        let gap = self.gap_allowed && self.head.last.is_none();
        if gap {
            self.gap_until = id.index();
        } else if id.index() != self.head.next_index() || Some(&id) <= self.head.last.as_ref().map(|tip| &tip.id) {
            return Err(Error::Misuse(format!("append entry {id} to {}", self.head)));
        }
        let payload = message::encode_payload(&entry.payload);
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(Error::Misuse(format!("take an entry of {} bytes", payload.len())));
        }
        let (frame, tip) = frame::encode(&id, &self.head.last_hash(), &payload);
        self.head.last = Some(tip.clone());
        self.tail_bytes += frame.len();
        self.tail.push_back(Kept { entry, tip: tip.clone(), bytes: frame.len() });
        Ok((tip, frame))
    }
}

impl<Rt: AsyncRuntime, K: Kv> Store<Rt, K> {
    pub(crate) fn new(kv: K, shared: Arc<Shared>, queue: Queue<Rt>) -> Self {
        Self { kv, shared, queue }
    }

    /// Bytes of the database on disk.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64, Error> {
        Ok(self.kv.bytes_on_disk()?)
    }

    /// Bytes of the entries in the database, and how often it was rebuilt since the start.
    pub(crate) fn used(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.used, state.rebuilds)
    }

    /// How many batches were made durable.
    pub(crate) fn writes(&self) -> u64 {
        self.shared.lock().synced.write
    }

    /// What was made durable last.
    pub(crate) fn synced(&self) -> Head {
        self.shared.lock().synced.clone()
    }

    /// Why the log has ended, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        self.shared.lock().ended.clone()
    }

    /// Writes what is left and closes the database.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        self.ask(|done| Write::Stop { done }).await
    }

    async fn send(&self, write: Write<Rt>) -> Result<(), Error> {
        self.queue.send(write).await.map_err(|_| Error::Ended("its writer is gone".to_string()))
    }

    /// Sends a write and waits until it is durable.
    async fn ask(&self, write: impl FnOnce(Done<Rt>) -> Write<Rt>) -> Result<(), Error> {
        let (done, told) = Types::<Rt>::oneshot();
        self.send(write(done)).await?;
        told.await.unwrap_or_else(|_| Err(Error::Ended("its writer is gone".to_string())))
    }

    /// The tip at `index`, which is in the log or was purged last.
    fn tip_at(&self, index: u64) -> Result<Tip, Error> {
        let state = self.shared.lock();
        if let Some(purged) = state.head.purged.as_ref().filter(|tip| tip.id.index() == index) {
            return Ok(purged.clone());
        }
        let start = state.tail_start();
        if index >= start
            && let Some(kept) = usize::try_from(index - start).ok().and_then(|at| state.tail.get(at))
        {
            return Ok(kept.tip.clone());
        }
        drop(state);
        let frame = Reader::new(&self.kv, index, index + 1, None).next()?;
        Ok(frame.ok_or_else(|| Error::loss(format!("entry {index}"), "none"))?.tip)
    }

    /// All entries in `start..end` that the log has, but no more than fit into `max_bytes` (one at least).
    fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        loop {
            let (from_disk, mut from_tail, epoch) = {
                let state = self.shared.lock();
                state.usable()?;
                let first = state.head.first_index().max(state.gap_until);
                let (start, end) = (start.max(first), end.min(state.head.next_index()));
                let tail_start = state.tail_start();
                let skip = usize::try_from(start.saturating_sub(tail_start)).unwrap_or(usize::MAX);
                let take = usize::try_from(end.saturating_sub(start.max(tail_start))).unwrap_or(usize::MAX);
                let tail: Vec<_> = state.tail.iter().skip(skip).take(take).cloned().collect();
                ((start, end.min(tail_start)), tail, state.epoch)
            };
            match self.read_disk(from_disk, max_bytes) {
                Ok((mut entries, bytes)) => {
                    let complete = entries.len() as u64 == from_disk.1.saturating_sub(from_disk.0);
                    let mut left = max_bytes.saturating_sub(bytes);
                    from_tail.retain(|kept| {
                        let fits = complete && kept.bytes <= left;
                        left = if fits { left - kept.bytes } else { 0 };
                        fits
                    });
                    entries.extend(from_tail.into_iter().map(|kept| kept.entry));
                    return Ok(entries);
                }
                Err(error) if self.shared.lock().epoch == epoch => return Err(error),
                // Truncated or purged meanwhile: what was looked for need not be there any more.
                Err(_) => {}
            }
        }
    }

    /// The first entries in `start..end`: 1 MiB of them, or one.
    fn read_some(&self, start: u64, end: u64) -> Result<Vec<Entry>, Error> {
        let entries = self.read(start, end, MAX_SHORT_READ_BYTES)?;
        if entries.is_empty() && start < end { self.read(start, start + 1, usize::MAX) } else { Ok(entries) }
    }

    fn read_disk(&self, (start, end): (u64, u64), max_bytes: usize) -> Result<(Vec<Entry>, usize), Error> {
        let mut reader = Reader::new(&self.kv, start, end, None);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(frame) = reader.next()?
        {
            bytes += frame.payload.len();
            entries.push(to_entry(frame)?);
        }
        Ok((entries, bytes))
    }
}

/// A range as its first index and the one behind its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn to_entry(frame: Frame) -> Result<Entry, Error> {
    let id = frame.tip.id;
    let payload = message::decode_payload(frame.payload)
        .map_err(|e| Error::loss(format!("an entry {id} that this release can read"), crate::chain(&e)))?;
    Ok(Entry { log_id: id, payload })
}

impl<Rt: AsyncRuntime, K: Kv> RaftLogReader<Types<Rt>> for Store<Rt, K> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        Ok(self.read(start, end, usize::MAX)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read_some(start, end)?)
    }

    /// What the state machine applies, which may be very much after a restart: some at a time.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend {
        let (start, end) = bounds(&range);
        let store = self.clone();
        let pieces = stream::try_unfold((store, start), move |(store, next)| async move {
            let entries = if next < end { store.read_some(next, end)? } else { Vec::new() };
            let read = entries.last().map(|last| last.log_id.index() + 1);
            Ok::<_, io::Error>(read.map(|next| (stream::iter(entries.into_iter().map(Ok)), (store, next))))
        });
        pieces.try_flatten()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.lock().head.vote)
    }
}

impl<Rt: AsyncRuntime, K: Kv> RaftLogStorage<Types<Rt>> for Store<Rt, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<Rt>>, io::Error> {
        let state = self.shared.lock();
        let id = |tip: &Option<Tip>| tip.as_ref().map(|tip| tip.id);
        Ok(LogState { last_purged_log_id: id(&state.head.purged), last_log_id: id(&state.head.last) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if planted(Bug::VoteBeforeSync) {
            let (done, _) = Types::<Rt>::oneshot();
            self.send(Write::Vote { vote: *vote, done }).await?;
        } else {
            self.ask(|done| Write::Vote { vote: *vote, done }).await?;
        }
        self.shared.lock().head.vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // It goes out with the next batch: it saves work at the next start and is not needed for safety.
        self.shared.lock().head.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.lock().head.committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types<Rt>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let frames: Vec<_> = {
            let mut state = self.shared.lock();
            state.usable()?;
            entries.into_iter().map(|entry| state.append(entry)).collect::<Result<_, _>>()?
        };
        Ok(self.send(Write::Append { frames, done }).await?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        if last.is_some_and(|id| id.index() >= self.shared.lock().head.next_index()) {
            return Ok(());
        }
        let last = last.map(|id| self.tip_at(id.index())).transpose()?;
        {
            let mut state = self.shared.lock();
            state.usable()?;
            state.head.last = last.clone();
            let next = state.head.next_index();
            while state.tail.back().is_some_and(|kept| kept.tip.id.index() >= next) {
                state.tail_bytes -= state.tail.pop_back().map_or(0, |kept| kept.bytes);
            }
            state.written = state.written.min(next);
            state.epoch += 1;
        }
        Ok(self.ask(|done| Write::Truncate { last, done }).await?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let (next, gap) = {
            let state = self.shared.lock();
            (state.head.next_index(), state.gap_until)
        };
        // A snapshot may lie beyond the log: the log goes on behind it, with a chain that begins anew.
        let beyond = upto.index() >= next;
        let upto =
            if beyond || upto.index() < gap { Tip { id: upto, hash: NO_HASH } } else { self.tip_at(upto.index())? };
        let last = {
            let mut state = self.shared.lock();
            state.usable()?;
            if upto.id.index() < state.head.first_index() {
                return Ok(());
            }
            state.head.purged = Some(upto.clone());
            if beyond {
                state.head.last = Some(upto.clone());
            }
            while state.tail_start() <= upto.id.index() && !state.tail.is_empty() {
                state.pop_front();
            }
            state.written = state.written.max(upto.id.index() + 1);
            state.epoch += 1;
            state.head.last.clone()
        };
        let last = last.unwrap_or_else(|| upto.clone());
        Ok(self.send(Write::Purge { upto, last }).await?)
    }
}
