//! From bytes of input to tables: cutting, records, tokens, combining, partitions.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use gristmill_engine::app::{App, ByteSet, Chunk, Emit, Format, Output, Shuffle, Values};
use gristmill_engine::apps::WordCount;
use gristmill_engine::bench::{Logged, Tables, cut, partition};
use gristmill_engine::data::words::Isa;

use crate::input;

pub(crate) fn benches(criterion: &mut Criterion) {
    split(criterion);
    tokenise(criterion);
    map_combine(criterion);
    map_log(criterion);
    partitions(criterion);
}

fn split(criterion: &mut Criterion) {
    let text = input::text(input::size());
    let mut group = criterion.benchmark_group("split");
    // Far smaller chunks than a job's: what is measured is the search for their borders.
    let chunks = cut(Format::Lines, &text, 4 << 10);
    group.throughput(Throughput::Elements(chunks as u64));
    group.bench_function("cut", |b| b.iter(|| cut(Format::Lines, black_box(&text), 4 << 10)));
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("records", |b| {
        b.iter(|| {
            let chunk = Chunk::new(black_box(&text), Format::Lines, 0, "");
            chunk.records().fold(0, |sum, line| sum + line.len() + 1)
        });
    });
}

/// Finds tokens and emits nothing: what an app's loop costs before the table.
struct Tokens(Option<ByteSet>);

impl App for Tokens {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    #[inline]
    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let mut bytes = 0;
        match &self.0 {
            None => chunk.words(|word| bytes += word.len() as u64),
            Some(set) => chunk.tokens(set, |token| bytes += token.len() as u64),
        }
        out.count("bytes", bytes);
    }
    fn combine(&self, _: &mut u64, _: u64) -> bool {
        true
    }
    fn reduce<V: Values<u64>>(&self, _: &[u8], _: &mut V, _: &mut Output<'_>) {}
}

fn tokenise(criterion: &mut Criterion) {
    let text = input::text(input::size());
    let set = ByteSet::new(|b| b.is_ascii_alphanumeric() || b"_-'".contains(&b) || b >= 0x80);
    let mut group = criterion.benchmark_group("tokenise");
    group.throughput(Throughput::Bytes(text.len() as u64));
    for (name, app) in [("words", Tokens(None)), ("tokens", Tokens(Some(set)))] {
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new(name, format!("{isa:?}")), |b| {
                b.iter(|| Tables::map(&app, &[black_box(&text)], isa).found());
            });
        }
    }
}

/// Counts lines.
pub(crate) struct CountLines;

impl App for CountLines {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    #[inline]
    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        chunk.records().for_each(|line| out.emit(line, 1));
    }
    #[inline]
    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }
    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        out.pair(key, values.iter().sum());
    }
}

/// Lists the lines of each word, with nothing to combine.
pub(crate) struct WordLines;

impl App for WordLines {
    type Value = u32;
    const SHUFFLE: Shuffle = Shuffle::Group;

    #[inline]
    fn map<E: Emit<u32>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let mut n = 0;
        chunk.words(|word| {
            n += 1;
            out.emit(word, n);
        });
    }
    fn reduce<V: Values<u32>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        out.put(key);
        for n in values.iter() {
            out.put(b" ");
            out.number(u64::from(n));
        }
        out.line(b"");
    }
}

fn map_combine(criterion: &mut Criterion) {
    let (text, urls) = (input::text(input::size()), input::urls(input::size()));
    let isa = Isa::best();
    let mut group = criterion.benchmark_group("map_combine");
    group.throughput(Throughput::Bytes(text.len() as u64));
    let count = WordCount::default();
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("words", format!("{isa:?}")), |b| {
            b.iter(|| Tables::map(&count, &[black_box(&text)], isa).found());
        });
    }
    group.bench_function("lists", |b| b.iter(|| Tables::map(&WordLines, &[black_box(&text)], isa).found()));
    group.throughput(Throughput::Bytes(urls.len() as u64));
    group.bench_function("long keys", |b| b.iter(|| Tables::map(&CountLines, &[black_box(&urls)], isa).found()));
}

fn map_log(criterion: &mut Criterion) {
    let records = input::records(input::size());
    let mut group = criterion.benchmark_group("map_log");
    group.throughput(Throughput::Bytes(records.len() as u64));
    let format = Format::Fixed(input::RECORD);
    let app = crate::reduce::SortRecords;
    group.bench_function("records", |b| b.iter(|| Logged::map(&app, format, black_box(&records)).found()));
}

fn partitions(criterion: &mut Criterion) {
    let (text, urls) = (input::text(input::size()), input::urls(input::size()));
    let mut group = criterion.benchmark_group("partition");
    for (name, keys) in [("words", input::words(&text)), ("long keys", input::lines(&urls))] {
        group.throughput(Throughput::Elements(keys.len() as u64));
        group.bench_function(name, |b| b.iter(|| partition(black_box(&keys), 16)));
    }
}
