//! Jobs that must spill: more keys or values than the least memory holds, so that every thread writes runs, however fast
//! it is. What they leave is what the oracle says and what a job in memory leaves.

use gristmill_engine::app::{Format, Shuffle};
use gristmill_engine::data::words::Isa;

use crate::apps::*;
use crate::naive::{hashed_parts, records};
use crate::world::{LEAST_MEMORY, Outcome, Run, Shape, World};

/// Bytes put before each key. 5000 different keys of this size are more than all threads may hold together.
const PAD: usize = 2500;
const KEYS: usize = 5000;

/// Lines of keys in no order, many of which come back long after they were spilled, in a mapped file and a small one.
pub fn inputs() -> Vec<Vec<u8>> {
    let line = |i: usize| format!("{:04}:{i:05}{:w$}\n", i * 7919 % KEYS, "", w = i % 80).into_bytes();
    let (large, small) = (0..6000, 6000..6500);
    vec![large.flat_map(line).collect(), small.flat_map(line).collect()]
}

/// Ways to run that differ in how many runs there are and whose they are.
pub fn tight() -> impl Iterator<Item = Run> {
    let run = |(threads, chunk)| Run { threads, chunk, memory: LEAST_MEMORY, isa: Isa::best() };
    [(1, 1 << 20), (2, 10_000), (8, 3000)].into_iter().map(run)
}

/// What a listing must come to over these inputs.
fn wanted<K: Kind>(app: &Listing<K>, inputs: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    expected(app, &records(Format::Lines, inputs)).0
}

fn check<K: Kind>(keys: Keys, inputs: &[Vec<u8>], parts: u32, runs: impl Iterator<Item = Run>) {
    let world = World::of(inputs);
    let want = wanted(&Listing::<K>::new(keys), inputs);
    for run in runs {
        let got = world.run(Listing::<K>::new(keys), Shape::parts(parts), run).unwrap();
        assert!(got.report.spilled_runs >= 2, "{run:?}: {} runs", got.report.spilled_runs);
        assert_same::<K>(&got, parts, &want, run);
    }
}

fn assert_same<K: Kind>(got: &Outcome, parts: u32, want: &[(Vec<u8>, Vec<u8>)], run: Run) {
    if K::SHUFFLE == Shuffle::Sort {
        let all: Vec<u8> = want.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        assert!(got.all() == all, "{parts} parts, {run:?}");
        assert_eq!(got.parts.len(), parts as usize);
    } else {
        assert!(got.parts == hashed_parts(parts, want.iter().cloned()), "{parts} parts, {run:?}");
    }
}

macro_rules! spilled {
    ($($name:ident: $kind:ty),* $(,)?) => {$(
        #[test]
        fn $name() {
            check::<$kind>(Keys::Padded(PAD), &inputs(), 3, tight());
        }
    )*};
}

every_kind!(spilled);

/// Few keys with long values, rather than long keys.
#[test]
fn long_values_of_short_keys() {
    let text: Vec<u8> = (0..180).flat_map(|i| format!("{}:{i}\n", i * i % 23).into_bytes()).collect();
    let inputs = vec![text.clone(), text];
    for keys in [Keys::Within, Keys::Made] {
        let runs = || tight().map(|run| Run { chunk: run.chunk.min(200), ..run });
        check::<LongTails>(keys, &inputs, 2, runs());
        check::<SortedLong>(keys, &inputs, 2, runs());
    }
}

/// Pairs with keys of more than 16 bytes wait apart from the others, while those make the table spill again and again.
#[test]
fn values_of_pairs_that_wait_over_several_spills() {
    let line = |i: u32| match i % 20 {
        0 => format!("a key of more than sixteen bytes {}:{i}\n", i % 7),
        _ => format!("key {}:{i}\n", i % 11),
    };
    let inputs = vec![(0..3000).flat_map(|i| line(i).into_bytes()).collect::<Vec<_>>()];
    for keys in [Keys::Within, Keys::Made] {
        let run = Run { threads: 8, chunk: 1 << 20, ..Run::tight() };
        check::<MiddleTails>(keys, &inputs, 2, [run].into_iter());
    }
}

/// Input that is too large to be kept in memory: values that lie in it are copied before its pages are given back.
#[test]
fn values_of_input_that_is_not_kept() {
    let line = |i: u32| format!("{}:{:0100}\n", i.wrapping_mul(2_654_435_761) % 50, i).into_bytes();
    let inputs = vec![(0..70_000).flat_map(line).collect::<Vec<_>>()];
    assert!(inputs[0].len() as u64 > LEAST_MEMORY / 3);
    check::<Tails>(Keys::Within, &inputs, 2, [Run { threads: 2, chunk: 100_000, ..Run::tight() }].into_iter());
}

/// Every run has a segment for each part, most of them empty where there are many.
#[test]
fn runs_of_every_number_of_parts() {
    let inputs = inputs();
    for parts in [1, 2, 100, 1000] {
        let run = Run { threads: 2, chunk: 10_000, ..Run::tight() };
        check::<Places>(Keys::Padded(PAD), &inputs, parts, [run].into_iter());
        check::<SortedPlaces>(Keys::Padded(PAD), &inputs, parts, [run].into_iter());
    }
}

/// An app that reads one value of each key, or none, leaves the others to be passed over.
#[test]
fn values_that_nobody_reads() {
    let inputs = inputs();
    let world = World::of(&inputs);
    for reads in [0, 1] {
        let app = || Listing::<Places> { reads, ..Listing::new(Keys::Padded(PAD)) };
        let want = wanted(&app(), &inputs);
        for run in tight() {
            let got = world.run(app(), Shape::parts(3), run).unwrap();
            assert!(got.report.spilled_runs >= 2);
            assert_same::<Places>(&got, 3, &want, run);
        }
    }
}
