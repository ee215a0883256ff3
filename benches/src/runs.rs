//! Sorted runs: writing and reading segments, merging many of them.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use gristmill_engine::data::merge::Merge;
use gristmill_engine::data::segment::{Reader, Writer};

use crate::input;

pub(crate) fn benches(criterion: &mut Criterion) {
    let (text, urls) = (input::text(input::size()), input::urls(input::size()));
    let sets = [("words", sorted(input::words(&text))), ("long keys", sorted(input::lines(&urls)))];
    for (name, keys) in &sets {
        write_and_read(criterion, name, keys);
    }
    merge(criterion, &sets[0].1);
}

fn sorted(mut keys: Vec<&[u8]>) -> Vec<&[u8]> {
    keys.sort_unstable();
    keys
}

/// A segment of the keys, each with a counter for a value.
fn write(into: Vec<u8>, keys: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::new(into);
    for key in keys {
        writer.push(key, &1u64.to_le_bytes()).expect("memory takes it");
    }
    writer.finish().expect("memory takes it").0
}

fn open(segment: &[u8]) -> Reader<&[u8]> {
    Reader::open(segment, 0, segment.len() as u64, "a bench").expect("a segment as written")
}

/// Bytes of keys and values.
fn raw_bytes(keys: &[&[u8]]) -> u64 {
    keys.iter().map(|key| key.len() as u64 + 8).sum()
}

fn write_and_read(criterion: &mut Criterion, name: &str, keys: &[&[u8]]) {
    let segment = write(Vec::new(), keys);
    let mut writing = criterion.benchmark_group("run_write");
    writing.throughput(Throughput::Bytes(raw_bytes(keys)));
    writing.bench_function(name, |b| {
        let room = || Vec::with_capacity(segment.len());
        b.iter_batched(room, |room| write(room, black_box(keys)), BatchSize::LargeInput);
    });
    writing.finish();
    let mut reading = criterion.benchmark_group("run_read");
    reading.throughput(Throughput::Bytes(raw_bytes(keys)));
    reading.bench_function(name, |b| {
        b.iter(|| {
            let mut reader = open(black_box(&segment));
            let mut bytes = 0;
            while reader.next().expect("a segment as written") {
                bytes += reader.key().len() + reader.value().len();
            }
            bytes
        });
    });
}

fn merge(criterion: &mut Criterion, keys: &[&[u8]]) {
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(keys.len() as u64));
    for k in [2, 16, 256] {
        // Dealt out at random: each segment has its share of everything.
        let mut random = input::Random::new(k);
        let mut dealt = vec![Vec::new(); k as usize];
        keys.iter().for_each(|key| dealt[random.below(k) as usize].push(*key));
        let segments: Vec<Vec<u8>> = dealt.iter().map(|keys| write(Vec::new(), keys)).collect();
        group.bench_function(BenchmarkId::from_parameter(k), |b| {
            b.iter(|| {
                let readers = black_box(&segments).iter().map(|s| open(s)).collect();
                let mut merge = Merge::new(readers).expect("segments as written");
                let mut bytes = 0;
                while merge.advance().expect("segments as written") {
                    bytes += merge.key().len() + merge.value().len();
                }
                bytes
            });
        });
    }
}
