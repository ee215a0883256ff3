//! The one writer of a log: group commit.
//!
//! It takes all that waits, writes one batch, makes it durable, moves the mark, and only then tells those who wait, in
//! order. A failed write or sync ends it for good: what the disk holds then is unknown, and a retry that succeeds would
//! prove nothing (Rebello et al., "Can applications recover from fsync failures?", ATC 2020).

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt as _;
use openraft::type_config::alias::{MpscReceiverOf, MpscSenderOf, OneshotSenderOf};
use openraft_rt::{AsyncRuntime, MpscReceiver as _, OneshotSender as _, TryRecvError};

use super::Error;
use super::frame::{self, Tip};
use super::head::{self, Head};
use super::mark::Mark;
use super::store::{Shared, Store};
use crate::disk::{Batch, Files, Kv, Pair};
use crate::planted::{Bug, planted};
use crate::types::{Types, Vote};

/// Writes that may wait for the writer; beyond it, openraft waits.
pub(crate) const MAX_WAITING_WRITES: usize = 1024;

/// Bytes of frames after which a group takes no more. One write may be larger.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Keys of purged entries removed in one batch, so that removal never holds back a commit for long. More where a batch
/// adds more: removal must keep pace.
const KEYS_REMOVED_AT_A_TIME: usize = 256;

/// A database is rebuilt only when it takes so many times what is in it: then a rebuild writes a fraction of what was
/// written since the last.
const REBUILD_FACTOR: u64 = 4;

/// What the writer is asked for, in the order it must happen.
pub(crate) enum Write<Rt: AsyncRuntime> {
    Append {
        frames: Vec<(Tip, Vec<u8>)>,
        done: IOFlushed<Types<Rt>>,
    },
    Vote {
        vote: Vote,
        done: Done<Rt>,
    },
    /// Keep entries up to this one.
    Truncate {
        last: Option<Tip>,
        done: Done<Rt>,
    },
    /// Drop entries up to this one; the log then ends at `last`.
    Purge {
        upto: Tip,
        last: Tip,
    },
    /// Write what is left and let go of the database.
    Stop {
        done: Done<Rt>,
    },
}

pub(crate) type Done<Rt> = OneshotSenderOf<Types<Rt>, Result<(), Error>>;
pub(crate) type Queue<Rt> = MpscSenderOf<Types<Rt>, Write<Rt>>;

/// Whom to tell when a group is durable.
enum Waiting<Rt: AsyncRuntime> {
    Flushed(IOFlushed<Types<Rt>>),
    Done(Done<Rt>),
}

impl<Rt: AsyncRuntime> Waiting<Rt> {
    fn tell(self, result: Result<(), Error>) {
        match self {
            Self::Flushed(flushed) => flushed.io_completed(result.map_err(Into::into)),
            // Who does not wait any more does not need to know.
            Self::Done(done) => drop(done.send(result)),
        }
    }
}

pub(crate) struct Writer<Rt: AsyncRuntime, K, F> {
    queue: MpscReceiverOf<Types<Rt>, Write<Rt>>,
    kv: K,
    mark: Mark<F>,
    shared: Arc<Shared>,
    /// The head as of the batch being built.
    head: Head,
    batch: Batch,
    batch_bytes: usize,
    waiting: Vec<Waiting<Rt>>,
    /// Whether purged entries may still be in the database.
    leftovers: bool,
    /// What the durable head says was purged: what it does not say is purged must be there after a crash.
    purged: Option<Tip>,
    stopping: bool,
    size: Size,
}

/// What is known of the size of the database, to tell when a rebuild pays.
#[derive(Debug)]
pub(crate) struct Size {
    /// Bytes of the frames in it.
    used: u64,
    /// It is never rebuilt while it takes less.
    floor: u64,
    /// What it took after the last rebuild.
    rebuilt: u64,
}

impl Size {
    pub(crate) fn new(used: u64, floor: u64) -> Self {
        Self { used, floor, rebuilt: 0 }
    }

    /// The most bytes that the database may take on the disk when old entries have been removed.
    fn bound(&self) -> u64 {
        // Twice what it took at best: or one whose pairs take much room would be rebuilt again and again.
        self.floor.max(self.used * REBUILD_FACTOR).max(self.rebuilt * 2)
    }
}

impl<Rt: AsyncRuntime, K: Kv, F: Files> Writer<Rt, K, F> {
    /// Starts the writer of a checked log.
    pub(crate) fn start(kv: K, mark: Mark<F>, head: Head, size: Size) -> Store<Rt, K> {
        let (send, queue) = Types::<Rt>::mpsc(MAX_WAITING_WRITES);
        let shared = Arc::new(Shared::new(head.clone()));
        shared.used(size.used);
        let store = Store::new(kv.clone(), shared.clone(), send);
        let purged = head.purged.clone();
        let writer = Self {
            queue,
            kv,
            mark,
            shared,
            head,
            purged,
            batch: Batch::default(),
            batch_bytes: 0,
            waiting: Vec::new(),
            leftovers: false,
            stopping: false,
            size,
        };
        drop(Rt::spawn(writer.run()));
        store
    }

    async fn run(mut self) {
        let ended = loop {
            let first = match self.next().await {
                Ok(first) => first,
                Err(Disconnected) => break Ok(()),
            };
            match self.commit(first).await {
                Ok(()) if self.stopping => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = &ended {
            self.shared.end(&crate::chain(error));
        }
        self.kv.close().await;
        self.tell(&ended);
        // Whoever comes later is told the same.
        let error = ended.err().unwrap_or_else(|| Error::Ended("it was stopped".to_string()));
        while let Some(write) = self.queue.recv().await {
            self.waiting.extend(write.into_waiting());
            self.tell(&Err(error.clone()));
        }
    }

    /// The next write, or `None` if nothing waits but purged entries are still to be removed.
    async fn next(&mut self) -> Result<Option<Write<Rt>>, Disconnected> {
        if !self.leftovers {
            return self.queue.recv().await.map(Some).ok_or(Disconnected);
        }
        match self.queue.try_recv() {
            Ok(write) => Ok(Some(write)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Disconnected),
        }
    }

    /// Writes `first` and whatever waits behind it as one group.
    async fn commit(&mut self, first: Option<Write<Rt>>) -> Result<(), Error> {
        let mut next = first;
        while let Some(write) = next {
            self.add(write).await?;
            let full = self.stopping || self.batch_bytes >= MAX_GROUP_BYTES;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        let all_removed = self.leftovers && self.remove_leftovers()?;
        self.finish_group().await?;
        if all_removed {
            self.bound_size().await?;
        }
        Ok(())
    }

    /// Writes the batch; makes it durable and says so if somebody waits for that, or if entries can only be removed then.
    async fn finish_group(&mut self) -> Result<(), Error> {
        let written = self.write();
        if self.waiting.is_empty() && self.purged == self.head.purged {
            return written.await;
        }
        // Both are queued at once; the disk does them in this order.
        let synced = self.kv.barrier();
        written.await?;
        if planted(Bug::AppendBeforeSync) {
            let waiting = std::mem::take(&mut self.waiting);
            let (appends, others) = waiting.into_iter().partition(|w| matches!(w, Waiting::Flushed(_)));
            self.waiting = others;
            Vec::into_iter(appends).for_each(|append| append.tell(Ok(())));
        }
        synced.await?;
        self.mark.write(&stored(&self.head)).await?;
        self.shared.synced(&self.head);
        self.purged = self.head.purged.clone();
        if !self.stopping {
            self.tell(&Ok(()));
        }
        Ok(())
    }

    /// Rebuilds the database if it has become too large. The best moment is when old entries have just been removed: there
    /// is least to copy. Commits wait meanwhile.
    async fn bound_size(&mut self) -> Result<(), Error> {
        if self.kv.bytes_on_disk()? > self.size.bound() {
            self.kv.rebuild().await?;
            self.size.rebuilt = self.kv.bytes_on_disk()?;
            self.shared.rebuilt();
        }
        Ok(())
    }

    /// Puts a write into the batch.
    async fn add(&mut self, write: Write<Rt>) -> Result<(), Error> {
        match write {
            Write::Append { frames, done } => {
                self.waiting.push(Waiting::Flushed(done));
                for (tip, frame) in frames {
                    frame::put(&mut self.batch, tip.id.index(), &frame);
                    self.batch_bytes += frame.len();
                    self.size.used += frame.len() as u64;
                    self.head.last = Some(tip);
                }
            }
            Write::Vote { vote, done } => {
                self.waiting.push(Waiting::Done(done));
                if !planted(Bug::VoteNotWritten) {
                    self.head.vote = Some(vote);
                }
            }
            Write::Truncate { last, done } => {
                self.waiting.push(Waiting::Done(done));
                self.truncate(last).await?;
            }
            Write::Purge { upto, last } => {
                self.head.purged = Some(upto);
                self.head.last = Some(last);
                self.leftovers = true;
            }
            Write::Stop { done } => {
                self.waiting.push(Waiting::Done(done));
                self.stopping = true;
            }
        }
        Ok(())
    }

    /// Removes everything after `last`, once the head that says so is durable: a batch that is torn by a crash must not
    /// leave a head that speaks of entries which are gone.
    async fn truncate(&mut self, last: Option<Tip>) -> Result<(), Error> {
        // What is in the batch must be in the database, or its keys are not found.
        self.write().await?;
        self.head.last = last;
        self.write().await?;
        self.kv.barrier().await?;
        let mut from = frame::key(self.head.next_index(), 0).to_vec();
        loop {
            let pairs = self.kv.range(&from, frame::END_OF_KEYS, KEYS_REMOVED_AT_A_TIME)?;
            let Some((key, _)) = pairs.last() else { return Ok(()) };
            from = [key, &[0][..]].concat();
            self.delete(pairs);
        }
    }

    /// Puts the removal of some purged entries into the batch, of those that the durable head says are purged. Gives whether
    /// these were the last of them.
    fn remove_leftovers(&mut self) -> Result<bool, Error> {
        let to = frame::key(head::next(self.purged.as_ref()), 0);
        let is_durable = self.purged == self.head.purged;
        let wanted = self.batch.ops.len() * 2;
        let mut from = frame::key(0, 0).to_vec();
        let mut removed = 0;
        loop {
            let pairs = self.kv.range(&from, &to, KEYS_REMOVED_AT_A_TIME)?;
            removed += pairs.len();
            let more = pairs.len() == KEYS_REMOVED_AT_A_TIME;
            self.leftovers = more || !is_durable;
            from = pairs.last().map(|(key, _)| [key, &[0][..]].concat()).unwrap_or_default();
            self.delete(pairs);
            if !more || removed >= wanted {
                return Ok(!more);
            }
        }
    }

    fn delete(&mut self, pairs: Vec<Pair>) {
        for (key, value) in pairs {
            self.size.used = self.size.used.saturating_sub(value.len() as u64);
            self.batch.delete(key);
        }
    }

    /// Writes the batch with its head, not yet durably. Work begins with the call.
    fn write(&mut self) -> impl Future<Output = Result<(), Error>> + Send + use<Rt, K, F> {
        self.head.write += 1;
        // Never beyond what this batch has: a commit index without its entries would stop the next start.
        self.head.committed = self.shared.committed().min(self.head.last.as_ref().map(|tip| tip.id));
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.shared.used(self.size.used);
        batch.put(head::KEY, stored(&self.head).encode());
        let (written, shared, last) = (self.kv.write(batch), self.shared.clone(), self.head.next_index());
        async move {
            written.await?;
            shared.written(last);
            Ok(())
        }
    }

    fn tell(&mut self, result: &Result<(), Error>) {
        for waiting in self.waiting.drain(..) {
            waiting.tell(result.clone());
        }
    }
}

/// The head as it is written.
fn stored(head: &Head) -> Cow<'_, Head> {
    match planted(Bug::PurgeNotWritten) {
        true => Cow::Owned(Head { purged: None, ..head.clone() }),
        false => Cow::Borrowed(head),
    }
}

/// The store is gone.
struct Disconnected;

impl<Rt: AsyncRuntime> Write<Rt> {
    fn into_waiting(self) -> Option<Waiting<Rt>> {
        match self {
            Self::Append { done, .. } => Some(Waiting::Flushed(done)),
            Self::Vote { done, .. } | Self::Truncate { done, .. } | Self::Stop { done } => Some(Waiting::Done(done)),
            Self::Purge { .. } => None,
        }
    }
}

/// Removes some of the keys in a range; says whether there are more.
pub(crate) async fn delete_some<K: Kv>(kv: &K, from: &[u8], to: &[u8]) -> Result<bool, Error> {
    let pairs = kv.range(from, to, KEYS_REMOVED_AT_A_TIME)?;
    if pairs.is_empty() {
        return Ok(false);
    }
    let mut batch = Batch::default();
    pairs.into_iter().for_each(|(key, _)| batch.delete(key));
    kv.write(batch).await?;
    Ok(true)
}
