//! Apps that say which part a key belongs to: every key is there, in order and with all its values in input order, in
//! memory, spilled, in tasks, and when all keys are in one part or collide.

use std::collections::BTreeMap;

use gristmill_engine::app::{App, Chunk, Emit, Format, Output, Shuffle, Value, Values};

use crate::apps::*;
use crate::naive::records;
use crate::spills;
use crate::world::{Run, Shape, World};

/// A listing whose keys are divided by their last byte, and all that end in 'z' beyond the last part.
struct Divided<K>(Listing<K>);

fn part(key: &[u8], parts: u32) -> u32 {
    match key.last() {
        None => 0,
        Some(b'z') => u32::MAX,
        Some(last) => u32::from(*last) % parts,
    }
}

impl<K: Kind> App for Divided<K> {
    type Value = K::Value;
    const SHUFFLE: Shuffle = K::SHUFFLE;
    const PARTITIONS: bool = true;

    fn map<E: Emit<K::Value>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        self.0.map(chunk, out);
    }
    fn combine(&self, acc: &mut <K::Value as Value>::Stored, value: <K::Value as Value>::Stored) -> bool {
        self.0.combine(acc, value)
    }
    fn partition(&self, key: &[u8], parts: u32) -> u32 {
        part(key, parts)
    }
    fn reduce<V: Values<K::Value>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        self.0.reduce(key, values, out);
    }
}

fn check<K: Kind>(keys: Keys, inputs: &[Vec<u8>], runs: &[Run], spills: bool) {
    let world = World::of(inputs);
    let (want, _) = expected(&Listing::<K>::new(keys), &records(Format::Lines, inputs));
    for parts in [1, 3, 100] {
        let mut all = vec![Vec::new(); parts as usize];
        for (key, bytes) in want.iter().cloned().collect::<BTreeMap<_, _>>() {
            all[part(&key, parts).min(parts - 1) as usize].extend(bytes);
        }
        for run in runs {
            let got = world.run(Divided(Listing::<K>::new(keys)), Shape::parts(parts), *run).unwrap();
            assert!(got.parts == all, "{parts} parts, {run:?}");
            assert!(!spills || got.report.spilled_runs > 0, "{run:?}");
        }
    }
}

/// Lines with keys of all lengths around the sizes at which they are kept differently.
fn lines() -> Vec<Vec<u8>> {
    let line = |i: usize| format!("{}{}:{i}\n", &"abcdefghijklmnopqrstuvwxyz"[..i * 31 % 27], i % 37).into_bytes();
    vec![(0..9000).flat_map(line).collect(), (9000..9100).flat_map(line).collect(), b":\nz:1\nyz:2\n".to_vec()]
}

#[test]
fn an_app_divides_its_keys() {
    let runs = [Run::PLAIN, Run { threads: 3, chunk: 5000, ..Run::PLAIN }];
    for keys in [Keys::Within, Keys::Made] {
        check::<Sum>(keys, &lines(), &runs, false);
        check::<Places>(keys, &lines(), &runs, false);
        check::<Tails>(keys, &lines(), &runs, false);
    }
}

#[test]
fn an_app_divides_keys_that_are_spilled() {
    let runs: Vec<Run> = spills::tight().collect();
    check::<Places>(Keys::Padded(2500), &spills::inputs(), &runs, true);
    check::<Tails>(Keys::Padded(2500), &spills::inputs(), &runs, true);
}

/// All keys in the last of a hundred parts take a hundredth of the table: it hashes by a seed of its own then.
#[test]
fn an_app_puts_all_keys_into_one_part() {
    let line = |i: usize| format!("{i}z:{i}\n").into_bytes();
    let inputs = vec![(0..60_000).flat_map(line).collect()];
    let runs = [Run::PLAIN, Run { threads: 2, ..Run::tight() }];
    check::<Sum>(Keys::Within, &inputs, &runs, false);
    check::<Places>(Keys::Made, &inputs, &runs, false);
}
