//! Spilling tables and logs as sorted runs, and reducing what a merge of runs gives.

use super::emit::Spill;
use super::gather::{second_word, sort_words};
use super::group::Stored;
use super::hash::{HASH_BITS, partition_of, range_start, stable_hash};
use super::log::{Entry as LogEntry, Known, Log};
use super::merge::Cursor;
use super::output::Output;
use super::ranges::Ranges;
use super::runs::{Order, Runs};
use super::sort::Sorter;
use super::table::{Entry, INLINE, Slots, Table};
use crate::app::{App, Values};
use crate::error::Error;
use crate::value::Value;

/// Spills the tables of one span.
pub(crate) struct TableSpill<'j, A> {
    pub(crate) runs: &'j Runs,
    pub(crate) parts: u32,
    /// Where the span begins, and how often it was spilled.
    pub(crate) order: Order,
    pub(crate) app: std::marker::PhantomData<fn(A)>,
}

impl<A: App, M: Slots<Value = Stored<A>>> Spill<M> for TableSpill<'_, A> {
    fn spill(&mut self, table: &Table<M::Slot>, slots: &M) -> Result<(), Error> {
        let mut run = self.runs.create(self.order)?;
        self.order.1 += 1;
        let mut value_bytes = Vec::new();
        let mut inline = [0; INLINE];
        for part in 0..self.parts {
            let mut entries = entries_of(table, part, self.parts);
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| bytes_of(a.1).cmp(bytes_of(b.1))));
            for (_, entry) in entries {
                // SAFETY: the table and what its values refer to are alive; an entry in use has a slot.
                unsafe {
                    let key = entry.key.bytes(&mut inline);
                    for value in slots.values(entry.slot.assume_init_ref()) {
                        value_bytes.clear();
                        A::Value::encode(A::Value::load(&value), &mut value_bytes);
                        run.push(part, key, &value_bytes)?;
                    }
                }
            }
        }
        run.finish()
    }
}

type Sortable<'t, S> = (([u64; 2], u8), &'t Entry<S>);

/// The entries of a partition, with what mostly decides their order.
fn entries_of<S: Copy>(table: &Table<S>, part: u32, parts: u32) -> Vec<Sortable<'_, S>> {
    if !table.is_reseeded() {
        let (low, high) = (range_start(part as usize, parts as usize), range_start(part as usize + 1, parts as usize));
        debug_assert!(high <= 1 << HASH_BITS);
        return table.range(low, high).map(sortable).collect();
    }
    let mut inline = [0; INLINE];
    let ours = table.iter().filter(|e| {
        // SAFETY: the table is alive.
        partition_of(stable_hash(unsafe { e.key.bytes(&mut inline) }), parts) == part
    });
    ours.map(sortable).collect()
}

fn sortable<S>(entry: &Entry<S>) -> Sortable<'_, S> {
    let (mut words, tag) = sort_words(&entry.key);
    if entry.key.is_long() {
        words[1] = second_word(bytes_of(entry));
    }
    ((words, (tag & 0xff) as u8), entry)
}

/// The bytes of a long key; nothing for an inline one, whose words and length say all.
fn bytes_of<S>(entry: &Entry<S>) -> &[u8] {
    // SAFETY: the table is alive.
    if entry.key.is_long() { unsafe { entry.key.long() } } else { &[] }
}

/// Writes a log as a run: sorted, in the parts that `splitters` divide.
pub(crate) fn spill_log(
    log: &Log,
    ranges: &Ranges,
    known: &Known,
    splitters: &[Vec<u8>],
    runs: &Runs,
    order: Order,
) -> Result<(), Error> {
    let mut run = runs.create(order)?;
    let mut sorter = Sorter::default();
    // SAFETY: the log and its input are alive.
    let key = |e: &LogEntry| -> *const [u8] { unsafe { known.key(e) } };
    let mut part = 0;
    for (range, blocks) in log.ranges().iter().enumerate() {
        let sorted = sorter.sort(blocks, &key, ranges.skip(range));
        for (i, entry) in sorted.iter().enumerate() {
            known.prefetch(sorted, i);
            // SAFETY: as above.
            let (key, value) = unsafe { known.pair(entry) };
            // A splitter is the first key of its part.
            part += splitters[part..].iter().take_while(|s| s.as_slice() <= key).count();
            run.push(part as u32, key, value)?;
        }
    }
    run.finish()
}

/// The values of one key as a merge gives them.
struct MergedValues<'m, A: App, C> {
    merge: &'m mut C,
    key: &'m [u8],
    /// Whether the merge stands on a value that was not given out yet.
    pending: bool,
    /// Whether the merge stands on the first record of the next key, or at the end (`None`).
    ended: Option<bool>,
    failed: &'m mut Option<Error>,
    app: std::marker::PhantomData<fn(A)>,
}

impl<A: App, C: Cursor<Error: Into<Error>>> MergedValues<'_, A, C> {
    /// Moves to the next value of the key; false when there is none.
    fn step(&mut self) -> bool {
        if std::mem::take(&mut self.pending) {
            return true;
        }
        if self.ended.is_some() || self.failed.is_some() {
            return false;
        }
        match self.merge.advance() {
            Ok(true) if self.merge.key() == self.key => true,
            Ok(more) => {
                self.ended = Some(more);
                false
            }
            Err(e) => {
                *self.failed = Some(e.into());
                false
            }
        }
    }
}

impl<A: App, C: Cursor<Error: Into<Error>>> Values<A::Value> for MergedValues<'_, A, C> {
    fn next(&mut self) -> Option<<A::Value as Value>::Ref<'_>> {
        if !self.step() {
            return None;
        }
        let value = A::Value::decode(self.merge.value());
        if value.is_none() {
            *self.failed = Some(Error::Usage("a run holds a value that the app's type cannot read".into()));
        }
        value
    }
}

/// Reduces all keys of a merge.
pub(crate) fn reduce_merge<A: App, C: Cursor<Error: Into<Error>>>(
    app: &A,
    mut merge: C,
    out: &mut Output<'_>,
    mut each_key: impl FnMut(&mut Output<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut key = Vec::new();
    let mut more = merge.advance().map_err(Into::into)?;
    while more {
        key.clear();
        key.extend_from_slice(merge.key());
        let mut failed = None;
        let mut values = MergedValues::<A, C> {
            merge: &mut merge,
            key: &key,
            pending: true,
            ended: None,
            failed: &mut failed,
            app: std::marker::PhantomData,
        };
        app.reduce(&key, &mut values, out);
        // What the app did not look at is passed over.
        while values.step() {}
        more = values.ended.unwrap_or(false);
        if let Some(e) = failed {
            return Err(e);
        }
        each_key(out)?;
    }
    Ok(())
}

/// Reduces the sorted entries of a log.
pub(crate) fn reduce_entries<A: App>(app: &A, entries: &[LogEntry], known: &Known, out: &mut Output<'_>) {
    use super::sort::Prefixed;
    let mut at = 0;
    while at < entries.len() {
        // SAFETY: the log and its input are alive.
        let key = unsafe { known.key(&entries[at]) };
        // SAFETY: as above.
        let same = |e: &LogEntry| e.prefix() == entries[at].prefix() && unsafe { known.key(e) } == key;
        let n = 1 + entries[at + 1..].iter().take_while(|e| same(e)).count();
        let mut values = EntryValues { entries, at, end: at + n, known };
        app.reduce(key, &mut values, out);
        at += n;
    }
}

struct EntryValues<'l> {
    entries: &'l [LogEntry],
    at: usize,
    end: usize,
    known: &'l Known,
}

impl<V: Value> Values<V> for EntryValues<'_> {
    #[inline(always)]
    fn next(&mut self) -> Option<V::Ref<'_>> {
        if self.at == self.end {
            return None;
        }
        self.known.prefetch(self.entries, self.at);
        // SAFETY: the log and its input are alive.
        let (_, value) = unsafe { self.known.pair(&self.entries[self.at]) };
        self.at += 1;
        V::decode(value)
    }
}
