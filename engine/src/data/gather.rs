//! From the tables of all spans to sorted groups of equal keys, and through `App::reduce` into pieces of parts.
//!
//! A partition is a range of every table. Its entries are scattered into buckets by the first bytes of their keys and
//! sorted there while they are in the cache; equal keys of different tables become neighbours, in the order of the
//! input. Nothing is serialised. When memory does not allow it, the tables have been spilled and `runs` takes over.

use super::buckets::Buckets;
use super::emit::Mapper;
use super::group::{Fold, Group, List, Stored};
use super::hash::range_start;
use super::item::{Item, fill_in, first_bytes, sort};
use super::output::Output;
use super::scatter::{Scan, Scatter};
use super::table::{INLINE, Slots, Table};
use crate::app::{App, Values};
use crate::exec::Exec;
use crate::value::Value;

/// Keys in a bucket: few enough that sorting them is insertion.
const EACH: usize = 8;
/// Keys to fit buckets to.
const SAMPLE: usize = 1 << 14;
/// Keys between the one that is reduced and the one that is fetched for later.
const AHEAD: usize = 8;

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
pub(crate) struct PartOf<'t, A: App, M: Gather<A>> {
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
            // SAFETY: an entry in use has a slot.
            visit(Item::new(&entry.key, M::keep(unsafe { entry.slot.assume_init_ref() }, self.number)));
        }
    }
}

/// The entries of all tables, to be scattered by part and first bytes.
#[expect(clippy::type_complexity, reason = "a closure has no shorter name")]
pub(crate) fn scatter_tables<'t, A: App, M: Gather<A> + Send>(
    exec: &dyn Exec,
    mappers: &'t [Mapper<'_, A, M>],
    parts: usize,
) -> Scatter<PartOf<'t, A, M>, impl Fn(&Item<M::Kept>) -> usize + Sync> {
    let used: usize = mappers.iter().map(|m| m.table.used).sum();
    let step = (used / SAMPLE).max(1);
    let sample: Vec<u64> =
        mappers.iter().flat_map(|m| m.table.iter().step_by(step)).map(|e| first_bytes(&e.key)).collect();
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
    let buckets = fitted.count();
    Scatter::new(exec, scans, parts, buckets, move |item: &Item<M::Kept>| fitted.of(item.first_bytes()))
}

/// Sorts the buckets of a group and reduces its keys.
pub(crate) fn reduce_group<A: App, M: Gather<A>>(
    app: &A,
    group: &mut super::scatter::Group<'_, Item<M::Kept>>,
    slots: &[&M],
    out: &mut Output<'_>,
) {
    let mut inline = [0; INLINE];
    // SAFETY: tables are alive with their arenas.
    unsafe {
        fill_in(group.items);
        group.each_bucket(|bucket| sort(bucket, &M::table));
        let mut rest = &*group.items;
        while let Some(first) = rest.first() {
            if let Some(next) = rest.get(AHEAD) {
                next.prefetch();
            }
            let n = 1 + rest[1..].iter().take_while(|i| i.same(first)).count();
            let (items, others) = rest.split_at(n);
            M::reduce(app, first.bytes(&mut inline), items, slots, out);
            rest = others;
        }
    }
}
