//! From tables and logs to output: gathering keys, sorting them, reducing.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use gristmill_engine::app::{App, Bytes, Chunk, Emit, Format, Output, Shuffle, Values};
use gristmill_engine::apps::WordCount;
use gristmill_engine::bench::{Logged, Tables};
use gristmill_engine::data::words::Isa;
use gristmill_engine::exec::Exec;

use crate::input;
use crate::map::{CountLines, WordLines};

pub(crate) fn benches(criterion: &mut Criterion) {
    let (text, urls) = (input::text(input::size()), input::urls(input::size()));
    tables(criterion, "words", &WordCount::default(), &text);
    tables(criterion, "long keys", &CountLines, &urls);
    tables(criterion, "lists", &WordLines, &text);
    logs(criterion, "records", &SortRecords, Format::Fixed(input::RECORD), &input::records(input::size()));
    logs(criterion, "lines", &SortLines, Format::Lines, &urls);
}

/// This thread and no other: figures are those of one core.
struct Alone;

impl Exec for Alone {
    fn threads(&self) -> usize {
        1
    }
    fn run(&self, n: usize, slice: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(slice);
    }
}

const PARTS: usize = 4;

/// Two tables, as of two threads, into parts.
fn tables<A: App>(criterion: &mut Criterion, name: &str, app: &A, text: &[u8]) {
    let half = text[..text.len() / 2].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let (first, second) = text.split_at(half);
    let tables = Tables::map(app, &[first, second], Isa::best());
    assert!(tables.reduce(app, &Alone, PARTS) > 0, "{name}: nothing to reduce");
    let mut group = criterion.benchmark_group("reduce");
    group.throughput(Throughput::Elements(tables.found()));
    group.bench_function(name, |b| b.iter(|| black_box(&tables).reduce(app, &Alone, PARTS)));
}

/// Sorts records of a fixed length by the key that they begin with.
pub(crate) struct SortRecords;

impl App for SortRecords {
    type Value = Bytes;
    const SHUFFLE: Shuffle = Shuffle::Sort;

    #[inline]
    fn map<E: Emit<Bytes>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        chunk.records().for_each(|record| out.emit(&record[..input::RECORD_KEY], record));
    }
    fn reduce<V: Values<Bytes>>(&self, _: &[u8], values: &mut V, out: &mut Output<'_>) {
        while let Some(record) = values.next() {
            out.put(record);
            out.end();
        }
    }
}

/// Sorts whole lines.
struct SortLines;

impl App for SortLines {
    type Value = ();
    const SHUFFLE: Shuffle = Shuffle::Sort;

    #[inline]
    fn map<E: Emit<()>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        chunk.records().for_each(|line| out.emit(line, ()));
    }
    fn reduce<V: Values<()>>(&self, line: &[u8], values: &mut V, out: &mut Output<'_>) {
        values.iter().for_each(|()| out.line(line));
    }
}

fn logs<A: App>(criterion: &mut Criterion, name: &str, app: &A, format: Format, bytes: &[u8]) {
    let logged = Logged::map(app, format, bytes);
    // Sorting neither adds nor loses a byte.
    assert_eq!(logged.reduce(app, &Alone), bytes.len() as u64, "{name}");
    let mut group = criterion.benchmark_group("sort");
    group.throughput(Throughput::Elements(logged.found()));
    group.bench_function(name, |b| b.iter(|| black_box(&logged).reduce(app, &Alone)));
}
