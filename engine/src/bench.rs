//! Doors for the workspace's benches to the hot paths inside of the engine, behind the feature `bench`.
//!
//! Each does one stretch of a job's way on bytes in memory, with the code that a job runs, and returns a number that
//! depends on all of the work. Files, memory budgets and spilling are left out. No part of the interface: it changes
//! with the engine.

use std::marker::PhantomData;

use crate::app::{App, Chunk, Format, Output, Shuffle};
use crate::control::state::State;
use crate::data::emit::{Mapper, Spill, Tally};
use crate::data::external::reduce_entries;
use crate::data::gather::{Gather, reduce_group, scatter_tables};
use crate::data::group::{Fold, Group, Stored};
use crate::data::hash::{partition_of, stable_hash};
use crate::data::log::{Entry, Known, Log, LogEmitter, Shapes};
use crate::data::ranges::Ranges;
use crate::data::scatter::Scattered;
use crate::data::sort::Sorter;
use crate::data::table::{Slots, Table};
use crate::data::tasks::Division;
use crate::data::words::Isa;
use crate::error::Error;
use crate::exec::Exec;
use crate::node::master::Tokens;
use crate::value::Stable;

/// Bytes of a chunk, as a job has them unless told otherwise.
const CHUNK: usize = 1 << 20;
/// Memory for the lists of a grouping table: address space, taken as it is used.
const LISTS: usize = 1 << 30;
/// Keys that are reduced in one go.
const PIECE: usize = 1 << 14;

/// The ranges of the chunks of `size` bytes of an input, as a job cuts it.
fn cuts(format: Format, input: &[u8], size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let starts = (0..input.len()).step_by(size);
    starts.map(move |start| format.cut(input, start, start.saturating_add(size))).filter(|r| !r.is_empty())
}

/// Cuts `input` into chunks of about `size` bytes and returns how many there are.
pub fn cut(format: Format, input: &[u8], size: usize) -> usize {
    cuts(format, input, size).count()
}

/// The sum of the partitions of all keys.
pub fn partition(keys: &[&[u8]], partitions: u32) -> u64 {
    keys.iter().map(|key| u64::from(partition_of(stable_hash(key), partitions))).sum()
}

/// Tables that a folding or grouping app filled.
pub struct Tables<'j, A: App>(Kind<'j, A>);

enum Kind<'j, A: App> {
    Fold(Vec<Mapper<'j, A, Fold<'j, A>>>),
    Group(Vec<Mapper<'j, A, Group<'j, A>>>),
}

impl<'j, A: App> Tables<'j, A> {
    /// Maps lines with `isa` into a table of its own for each of `inputs`.
    pub fn map(app: &'j A, inputs: &[&[u8]], isa: Isa) -> Self {
        match A::SHUFFLE {
            Shuffle::Fold => Self(Kind::Fold(map(app, inputs, isa, || Fold(app)))),
            Shuffle::Group | Shuffle::Sort => Self(Kind::Group(map(app, inputs, isa, || Group::new(app, LISTS)))),
        }
    }

    /// Keys in the tables, and what the app counted.
    pub fn found(&self) -> u64 {
        match &self.0 {
            Kind::Fold(mappers) => mappers.iter().map(found).sum(),
            Kind::Group(mappers) => mappers.iter().map(found).sum(),
        }
    }

    /// Gathers, sorts and reduces all keys into `parts`; the bytes of output.
    pub fn reduce(&self, app: &A, exec: &dyn Exec, parts: usize) -> u64 {
        match &self.0 {
            Kind::Fold(mappers) => reduce(app, exec, mappers, parts),
            Kind::Group(mappers) => reduce(app, exec, mappers, parts),
        }
    }
}

/// A table that is never full.
struct Never;

impl<M: Slots> Spill<M> for Never {
    fn spill(&mut self, _: &Table<M::Slot>, _: &M) -> Result<(), Error> {
        Err(Error::Usage("a bench with more data than a table takes".into()))
    }
}

fn map<'j, A: App, M: Slots<Value = Stored<A>> + 'j>(
    app: &'j A,
    inputs: &[&[u8]],
    isa: Isa,
    slots: impl Fn() -> M,
) -> Vec<Mapper<'j, A, M>> {
    let map_one = |(number, input): (usize, &&[u8])| {
        let mut mapper = Mapper::new(app, slots(), (isa, 1), usize::MAX / 4, Box::new(Never));
        for range in cuts(Format::Lines, input, CHUNK) {
            mapper.done = range.start as f64 / input.len() as f64;
            let chunk = Chunk::new_with(&input[range.clone()], Format::Lines, number as u32, "", isa);
            mapper.map(&chunk.at(range.start as u64), Stable::NONE);
        }
        assert!(mapper.error.is_none(), "{:?}", mapper.error);
        mapper
    };
    inputs.iter().enumerate().map(map_one).collect()
}

fn found<A: App, M: Slots<Value = Stored<A>>>(mapper: &Mapper<'_, A, M>) -> u64 {
    mapper.table.used as u64 + mapper.tally.counters.iter().map(|(_, n)| n).sum::<u64>()
}

fn reduce<A: App, M: Gather<A> + Send>(app: &A, exec: &dyn Exec, mappers: &[Mapper<'_, A, M>], parts: usize) -> u64 {
    let slots: Vec<&M> = mappers.iter().map(|m| &m.slots).collect();
    let scattered = scatter_tables(exec, mappers, parts).place_all(exec);
    each_group(scattered, PIECE, |group, out| reduce_group(app, group, &slots, out))
}

/// Reduces the groups of all parts one after the other; the bytes of output.
fn each_group<T: Copy>(
    mut scattered: Scattered<T>,
    each: usize,
    reduce: impl Fn(&mut crate::data::scatter::Group<'_, T>, &mut Output<'_>),
) -> u64 {
    let mut out = Output::new(&[], Some(b'\n'), None);
    let mut bytes = 0;
    for mut group in scattered.groups(each) {
        reduce(&mut group, &mut out);
        bytes += out.buf.len() as u64;
        out.buf.clear();
    }
    bytes
}

/// Entries in a range of a log.
const RANGE: usize = 1 << 12;

/// The log of a sorting app: references into its input.
pub struct Logged<'i> {
    log: Log,
    ranges: Ranges,
    known: Known,
    input: PhantomData<&'i [u8]>,
}

impl<'i> Logged<'i> {
    /// Maps all of `input` into a log of ranges that were fitted to it.
    pub fn map<A: App>(app: &A, format: Format, input: &'i [u8]) -> Self {
        let one = Self::in_ranges(app, format, input, Ranges::one());
        // SAFETY: log and input are alive.
        let keys = one.log.entries().step_by(64).map(|e| unsafe { one.known.key(e) }.to_vec());
        let mut sample: Vec<Vec<u8>> = keys.collect();
        sample.sort_unstable();
        Self::in_ranges(app, format, input, Ranges::fit(&sample, one.found() as usize, RANGE))
    }

    fn in_ranges<A: App>(app: &A, format: Format, input: &'i [u8], ranges: Ranges) -> Self {
        let (mut log, mut tally, shapes) = (Log::new(&ranges), Tally::default(), Shapes::default());
        for range in cuts(format, input, CHUNK) {
            let chunk = Chunk::new(&input[range.clone()], format, 0, "").at(range.start as u64);
            app.map(&chunk, &mut LogEmitter::new(&mut log, &mut tally, &ranges, &shapes, &chunk, Stable::of(input)));
        }
        Self { log, ranges, known: shapes.known(), input: PhantomData }
    }

    /// References in the log.
    pub fn found(&self) -> u64 {
        self.log.entries().count() as u64
    }

    /// Sorts the references range by range and reduces what they refer to; the bytes of output.
    pub fn reduce<A: App>(&self, app: &A, exec: &dyn Exec) -> u64 {
        let division = Division::new(exec, std::iter::once(&self.log));
        // SAFETY: log and input are alive: `self` has the one and borrows the other.
        let key = |e: &Entry| -> *const [u8] { unsafe { self.known.key(e) } };
        let (mut sorter, mut out) = (Sorter::default(), Output::new(&[], Some(b'\n'), None));
        let mut bytes = 0;
        for task in division.tasks(&self.ranges, &[]) {
            let sorted = sorter.sort(&task.blocks, &key, task.skip);
            reduce_entries(app, sorted, &self.known, &mut out);
            bytes += out.buf.len() as u64;
            out.buf.clear();
        }
        bytes
    }
}

/// Tokens as a master checks them before each call.
#[derive(Default)]
pub struct Checks(Tokens);

impl Checks {
    /// The length of the name of whoever has the token, by this state and time; 0: nobody.
    pub fn check(&self, state: &State, bearer: &str, now_ms: u64) -> usize {
        self.0.who_has(state, bearer, now_ms).map_or(0, |who| who.name.len())
    }
}
