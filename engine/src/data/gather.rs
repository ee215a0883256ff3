//! From the tables of all spans to sorted groups of equal keys, and through `App::reduce` into pieces of parts.
//!
//! A partition is a range of every table. Its entries are scattered into buckets by the first bytes of their keys and
//! sorted there while they are in the cache; equal keys of different tables become neighbours, in the order of the
//! input. Nothing is serialised. When memory does not allow it, the tables have been spilled and `runs` takes over.

use super::buckets::Buckets;
use super::emit::Mapper;
use super::group::{Fold, Group, List, Stored};
use super::hash::range_start;
use super::output::Output;
use super::scatter::{Scan, Scattered, scatter};
use super::table::{Entry, INLINE, Key, LONG, Slots, Table};
use crate::app::{App, Values};
use crate::exec::Exec;
use crate::value::Value;

/// Keys in a bucket: few enough that sorting them is insertion.
const EACH: usize = 8;
/// Keys to fit buckets to.
const SAMPLE: usize = 1 << 14;

/// A key of a table on its way to be reduced.
pub(crate) struct Item<K> {
    /// The key's first 16 bytes, big-endian, padded with zeros.
    words: [u64; 2],
    /// Length + 1 of an inline key; else the address of the key and `LONG`.
    tag: u64,
    kept: K,
}

impl<K: Copy> Clone for Item<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K: Copy> Copy for Item<K> {}

/// How the slots of a kind of table are carried to the reducer.
pub(crate) trait Gather<A: App>: Slots<Value = Stored<A>> + Sync {
    type Kept: Copy + Send + Sync;

    fn keep(slot: &Self::Slot, table: usize) -> Self::Kept;
    /// The table that it is from, where that matters.
    fn table(kept: &Self::Kept) -> usize;
    fn reduce(app: &A, key: &[u8], items: &[Item<Self::Kept>], tables: &[&Self], out: &mut Output<'_>);
}

impl<A: App> Gather<A> for Fold<'_, A> {
    type Kept = Stored<A>;

    #[inline(always)]
    fn keep(slot: &Stored<A>, _: usize) -> Stored<A> {
        *slot
    }
    #[inline(always)]
    fn table(_: &Stored<A>) -> usize {
        0
    }
    #[inline(always)]
    fn reduce(app: &A, key: &[u8], items: &[Item<Stored<A>>], _: &[&Self], out: &mut Output<'_>) {
        let mut values = items.iter().map(|i| i.kept);
        let Some(mut total) = values.next() else { return };
        for value in values {
            app.combine(&mut total, value);
        }
        app.reduce(key, &mut StoredValues::<A, _> { values: Some(total).into_iter(), current: total }, out);
    }
}

/// A list and the number of the table that it is in.
#[derive(Clone, Copy)]
pub(crate) struct KeptList<V> {
    list: *const List<V>,
    table: u32,
}

// SAFETY: points into a table that is alive and no longer written while lists are reduced.
unsafe impl<V: Sync> Send for KeptList<V> {}
// SAFETY: as above.
unsafe impl<V: Sync> Sync for KeptList<V> {}

impl<A: App> Gather<A> for Group<'_, A> {
    type Kept = KeptList<Stored<A>>;

    #[inline(always)]
    fn keep(slot: &List<Stored<A>>, table: usize) -> Self::Kept {
        KeptList { list: slot, table: table as u32 }
    }
    #[inline(always)]
    fn table(kept: &Self::Kept) -> usize {
        kept.table as usize
    }
    #[inline(always)]
    fn reduce(app: &A, key: &[u8], items: &[Item<Self::Kept>], tables: &[&Self], out: &mut Output<'_>) {
        let lists = items.iter().flat_map(|i| {
            // SAFETY: `keep` took the address of a slot in a table that the caller holds.
            tables[i.kept.table as usize].values(unsafe { &*i.kept.list })
        });
        let Some(first) = items.first() else { return };
        // SAFETY: as above.
        let current = unsafe { (*first.kept.list).last };
        app.reduce(key, &mut StoredValues::<A, _> { values: lists, current }, out);
    }
}

/// Values in memory.
struct StoredValues<A: App, I> {
    values: I,
    current: Stored<A>,
}

impl<A: App, I: Iterator<Item = Stored<A>>> Values<A::Value> for StoredValues<A, I> {
    #[inline(always)]
    fn next(&mut self) -> Option<<A::Value as Value>::Ref<'_>> {
        self.current = self.values.next()?;
        // SAFETY: tables, arenas and pinned input are alive while values are reduced.
        Some(unsafe { A::Value::load(&self.current) })
    }
}

/// One partition of one table.
struct PartOf<'t, A: App, M: Gather<A>> {
    table: &'t Table<M::Slot>,
    number: usize,
    part: usize,
    parts: usize,
    app: std::marker::PhantomData<fn(A)>,
}

impl<A: App, M: Gather<A>> Scan for PartOf<'_, A, M> {
    type Item = Item<M::Kept>;

    fn part(&self) -> usize {
        self.part
    }

    fn scan(&self, mut visit: impl FnMut(Self::Item)) {
        let (low, high) = (range_start(self.part, self.parts), range_start(self.part + 1, self.parts));
        for entry in self.table.range(low, high) {
            visit(item::<A, M>(entry, self.number));
        }
    }
}

#[inline(always)]
fn item<A: App, M: Gather<A>>(entry: &Entry<M::Slot>, table: usize) -> Item<M::Kept> {
    let (words, tag) = sort_words(&entry.key);
    // SAFETY: an entry in use has a slot.
    Item { words, tag, kept: M::keep(unsafe { entry.slot.assume_init_ref() }, table) }
}

/// A key's first 16 bytes so that they compare as numbers, of a long key the first 8 only, and what tells keys with
/// equal ones apart. Long keys lie somewhere in memory: they are not touched before their bucket is sorted.
#[inline(always)]
pub(crate) fn sort_words(key: &Key) -> ([u64; 2], u64) {
    if key.is_long() {
        ([key.words[1].swap_bytes(), 0], key.words[0] << 8 | LONG)
    } else {
        ([key.words[0].swap_bytes(), key.words[1].swap_bytes()], key.tag & 0xff)
    }
}

/// Bytes 8 to 15 of a long key so that they compare as a number.
pub(crate) fn second_word(key: &[u8]) -> u64 {
    key.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Takes the second words of long keys from where they lie, several at a time.
fn fill_in<K>(items: &mut [Item<K>]) {
    const AHEAD: usize = 16;
    for i in 0..items.len() {
        if let Some(next) = items.get(i + AHEAD)
            && next.tag & 0xff == LONG
        {
            prefetch(next.tag >> 8);
        }
        let item = &mut items[i];
        if item.tag & 0xff == LONG {
            // SAFETY: tables are alive with their arenas.
            item.words[1] = second_word(unsafe { item.key().long() });
        }
    }
}

fn prefetch(address: u64) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        let start = std::ptr::without_provenance::<i8>(address as usize);
        // SAFETY: a prefetch never faults.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start);
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl<K> Item<K> {
    fn key(&self) -> Key {
        if self.tag & 0xff == LONG {
            Key { words: [self.tag >> 8, self.words[0].swap_bytes()], tag: self.tag & 0xff }
        } else {
            Key { words: [self.words[0].swap_bytes(), self.words[1].swap_bytes()], tag: self.tag }
        }
    }

    #[inline(always)]
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        self.words.cmp(&other.words).then_with(|| self.compare_rest(other))
    }

    /// Compares keys whose first 16 bytes are equal when padded with zeros.
    #[inline(never)]
    fn compare_rest(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b) = (self.key(), other.key());
        if a.is_long() && b.is_long() {
            // SAFETY: tables are alive with their arenas.
            unsafe { a.long()[INLINE..].cmp(&b.long()[INLINE..]) }
        } else {
            (self.tag & 0xff).cmp(&(other.tag & 0xff))
        }
    }
}

/// Scatters the entries of all tables by part and first bytes.
pub(crate) fn scatter_tables<A: App, M: Gather<A> + Send>(
    exec: &dyn Exec,
    mappers: &[Mapper<'_, A, M>],
    parts: usize,
) -> Scattered<Item<M::Kept>> {
    let used: usize = mappers.iter().map(|m| m.table.used).sum();
    let step = (used / SAMPLE).max(1);
    let sample: Vec<u64> =
        mappers.iter().flat_map(|m| m.table.iter().step_by(step)).map(|e| sort_words(&e.key).0[0]).collect();
    let fitted = Buckets::fit(&sample, used / parts, EACH);
    let scans: Vec<PartOf<'_, A, M>> = (0..parts)
        .flat_map(|part| {
            mappers.iter().enumerate().map(move |(number, m)| PartOf {
                table: &m.table,
                number,
                part,
                parts,
                app: std::marker::PhantomData,
            })
        })
        .collect();
    scatter(exec, &scans, parts, fitted.count(), |item| fitted.of(item.words[0]))
}

/// Sorts the buckets of a group and reduces its keys.
pub(crate) fn reduce_group<A: App, M: Gather<A>>(
    app: &A,
    group: &mut super::scatter::Group<'_, Item<M::Kept>>,
    slots: &[&M],
    out: &mut Output<'_>,
) {
    fill_in(group.items);
    group.each_bucket(|bucket| {
        bucket.sort_unstable_by(|a, b| a.compare(b).then_with(|| M::table(&a.kept).cmp(&M::table(&b.kept))));
    });
    let mut inline = [0; INLINE];
    let mut rest = &*group.items;
    while let Some(first) = rest.first() {
        let n = 1 + rest[1..].iter().take_while(|i| i.compare(first).is_eq()).count();
        let (items, others) = rest.split_at(n);
        // SAFETY: tables are alive with their arenas.
        let key = first.key();
        let key = unsafe { key.bytes(&mut inline) };
        M::reduce(app, key, items, slots, out);
        rest = others;
    }
}
