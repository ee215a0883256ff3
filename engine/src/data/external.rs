//! Spilling tables and logs as sorted runs, and reducing what a merge of runs gives.

use super::emit::Spill;
use super::group::Stored;
use super::hash::{partition_of, range_start, stable_hash};
use super::item::{Item, fill_in, sort};
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
    pub(crate) app: &'j A,
}

impl<A: App, M: Slots<Value = Stored<A>>> Spill<M> for TableSpill<'_, A> {
    fn spill(&mut self, table: &Table<M::Slot>, slots: &M) -> Result<(), Error> {
        let mut run = self.runs.create(self.order)?;
        self.order.1 += 1;
        let mut value_bytes = Vec::new();
        let mut inline = [0; INLINE];
        let mut apart = if table.is_reseeded() { apart(self.app, table, self.parts) } else { Vec::new() };
        for part in 0..self.parts {
            let mut items = match apart.get_mut(part as usize) {
                Some(items) => std::mem::take(items),
                None => in_range(table, part as usize, self.parts as usize),
            };
            // SAFETY: the table and what its values refer to are alive; an entry in use has a slot.
            unsafe {
                fill_in(&mut items);
                // No key is twice in a table.
                sort(&mut items, &|_| 0);
                for item in items {
                    let key = item.bytes(&mut inline);
                    for value in slots.values(item.kept.slot.assume_init_ref()) {
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

type EntryItem<'t, S> = Item<&'t Entry<S>>;

/// The entries of a part, which lie together in a table with the stable hash.
fn in_range<S: Copy>(table: &Table<S>, part: usize, parts: usize) -> Vec<EntryItem<'_, S>> {
    let entries = table.range(range_start(part, parts), range_start(part + 1, parts));
    entries.map(|entry| Item::new(&entry.key, entry)).collect()
}

/// The entries of each part of a table that places keys by a hash of its own.
fn apart<'t, A: App, S: Copy>(app: &A, table: &'t Table<S>, parts: u32) -> Vec<Vec<EntryItem<'t, S>>> {
    let mut apart = vec![Vec::new(); parts as usize];
    let mut inline = [0; INLINE];
    for entry in table.iter() {
        // SAFETY: the table is alive.
        let key = unsafe { entry.key.bytes(&mut inline) };
        let part = if A::PARTITIONS {
            app.partition(key, parts).min(parts - 1)
        } else {
            partition_of(stable_hash(key), parts)
        };
        apart[part as usize].push(Item::new(&entry.key, entry));
    }
    apart
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
    let mut part = 0;
    for (range, blocks) in log.ranges().iter().enumerate() {
        // SAFETY: the log and its input are alive.
        let sorted = unsafe { known.sort(&mut sorter, blocks, ranges.skip(range)) };
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
