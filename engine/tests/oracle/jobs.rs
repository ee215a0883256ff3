//! The central property: what a job leaves is what the oracle says, and the same bytes however it was run.

use gristmill_engine::app::{Format, Shuffle};
use gristmill_engine::data::compress::Compression;
use gristmill_engine::data::words::Isa;
use proptest::prelude::*;

use crate::apps::*;
use crate::naive::{hashed_parts, records};
use crate::world::{Outcome, Run, Shape, World, any_run, cases};

/// Bytes that are full of separators, and of keys that come back.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => Just(b'\n'), 2 => Just(b'\r'), 2 => Just(0), 4 => Just(b':'), 6 => b'a'..b'd', 1 => any::<u8>(),
    ];
    let word = prop::collection::vec(b'x'..=b'z', 14..19);
    let piece = prop_oneof![8 => byte.prop_map(|b| vec![b]), 1 => word];
    prop::collection::vec(piece, 0..300).prop_map(|pieces| pieces.concat())
}

/// Contents of inputs: a few, many small ones, or one that is large enough to be mapped.
fn inputs() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let large = (text(), prop::collection::vec(text(), 0..3)).prop_map(|(unit, mut others)| {
        others.push(unit.repeat(270_000 / unit.len().max(1) * usize::from(unit.len() > 50)));
        others
    });
    prop_oneof![6 => prop::collection::vec(text(), 0..5), 1 => prop::collection::vec(text(), 5..60), 1 => large]
}

/// Everything about a case but the app.
#[derive(Clone, Debug)]
struct Case {
    inputs: Vec<Vec<u8>>,
    stored: Vec<Option<Compression>>,
    shape: Shape,
    runs: Vec<Run>,
    keys: Keys,
}

fn case() -> impl Strategy<Value = Case> {
    let format = prop_oneof![4 => Just(Format::Lines), 1 => Just(Format::Whole), 1 => Just(Format::Nul), 1 => (1usize..9).prop_map(Format::Fixed)];
    let reducers = prop_oneof![6 => (1u32..9).prop_map(Some), 1 => (9u32..1000).prop_map(Some), 1 => Just(None)];
    let compress = prop::sample::select(vec![None, None, None, Some(Compression::Gzip), Some(Compression::Zstd)]);
    let keys = prop_oneof![3 => Just(Keys::Within), 3 => Just(Keys::Made), 1 => (1usize..40).prop_map(Keys::Padded)];
    let shape = (format, reducers, compress, keys);
    (inputs(), prop::collection::vec(any::<u8>(), 60), shape).prop_flat_map(|(mut inputs, kinds, shape)| {
        let (format, reducers, compress, keys) = shape;
        if let Format::Fixed(n) = format {
            inputs.iter_mut().for_each(|bytes| bytes.truncate(bytes.len() / n * n));
        }
        let stored = |kind: &u8| Compression::ALL.get(usize::from(*kind)).copied();
        let stored = kinds.iter().map(|kind| stored(&(kind % 16))).collect::<Vec<_>>();
        let shape = Shape { reducers, format, compress, skip: 0 };
        let most = inputs.iter().map(Vec::len).max().unwrap_or(0);
        let runs = prop::collection::vec(any_run(most), 2);
        (Just(inputs), runs).prop_map(move |(inputs, runs)| Case { inputs, stored: stored.clone(), shape, runs, keys })
    })
}

/// Runs a listing in every way of the case and compares it with the oracle.
fn check<K: Kind>(case: &Case) -> Result<(), TestCaseError> {
    let stored = case.inputs.iter().zip(&case.stored).map(|(bytes, kind)| (bytes.as_slice(), *kind));
    let world = World::stored(stored);
    let app = || Listing::<K>::new(case.keys);
    let records = records(case.shape.format, &case.inputs);
    let (want, emitted) = expected(&app(), &records);
    let first = world.run(app(), case.shape, Run::PLAIN)?;
    check_parts::<K>(&first, want)?;
    for run in &case.runs {
        let other = world.run(app(), case.shape, *run)?;
        prop_assert_eq!(&first.files, &other.files, "{:?}", run);
        prop_assert_eq!(other.report.emitted, emitted);
        prop_assert_eq!(other.report.input_bytes, case.inputs.iter().map(|i| i.len() as u64).sum::<u64>());
        let count = |name: &str| other.manifest.counters.get(name).copied().unwrap_or(0);
        prop_assert_eq!(count("records"), records.len() as i64);
        prop_assert_eq!(count("bytes"), records.iter().map(|r| r.bytes.len() as i64).sum::<i64>());
    }
    Ok(())
}

fn check_parts<K: Kind>(got: &Outcome, want: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.manifest.records, want.len() as u64);
    prop_assert_eq!(got.manifest.parts.iter().map(|p| p.summary.bytes).sum::<u64>(), got.manifest.bytes);
    for (entry, part) in got.manifest.parts.iter().zip(&got.parts) {
        prop_assert_eq!((entry.summary.bytes, entry.summary.crc32c), (part.len() as u64, crc32c::crc32c(part)));
    }
    if K::SHUFFLE == Shuffle::Sort {
        let all: Vec<u8> = want.into_iter().flat_map(|(_, bytes)| bytes).collect();
        prop_assert_eq!(got.all().escape_ascii().to_string(), all.escape_ascii().to_string());
    } else {
        prop_assert_eq!(&got.parts, &hashed_parts(got.parts.len() as u32, want));
    }
    Ok(())
}

macro_rules! whole_jobs {
    ($($name:ident: $kind:ty),* $(,)?) => {
        proptest! {
            #![proptest_config(cases(24))]
            $(#[test]
            fn $name(case in case()) {
                check::<$kind>(&case)?;
            })*
        }
    };
}

every_kind!(whole_jobs);

/// What each number of parts must come to, from one to the most that there may be.
#[test]
fn every_number_of_parts() {
    let text: Vec<u8> = (0..400).flat_map(|i| format!("key{}:{i}\n", i * i % 97).into_bytes()).collect();
    let inputs = vec![text];
    let world = World::of(&inputs);
    for parts in [1, 2, 3, 7, 64, 999, 1000, 10_000] {
        let records = records(Format::Lines, &inputs);
        let group = world.run(Listing::<Places>::new(Keys::Within), Shape::parts(parts), Run::tight()).unwrap();
        let (want, _) = expected(&Listing::<Places>::new(Keys::Within), &records);
        assert_eq!(group.parts, hashed_parts(parts, want));
        let sort = world.run(Listing::<SortedPlaces>::new(Keys::Within), Shape::parts(parts), Run::tight()).unwrap();
        let (want, _) = expected(&Listing::<SortedPlaces>::new(Keys::Within), &records);
        assert_eq!(sort.parts.len(), parts as usize);
        assert_eq!(sort.all(), want.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<u8>>());
    }
}

/// Keys of every length around the sizes at which they are kept differently, and of a mebibyte.
#[test]
fn keys_of_every_length() {
    let lengths = (0..40).chain([63, 64, 65, 255, 256, 257, 4096, 1 << 20]);
    let line = |n: usize| [[vec![b'k'; n], b":1\n".to_vec()].concat(), [vec![0; n], b":2\n".to_vec()].concat()];
    let text: Vec<u8> = lengths.flat_map(line).flatten().collect();
    let inputs = vec![text.clone(), text];
    let world = World::of(&inputs);
    let records = records(Format::Lines, &inputs);
    for isa in Isa::available() {
        for keys in [Keys::Within, Keys::Made] {
            let run = Run { threads: 2, chunk: 100_000, isa, ..Run::PLAIN };
            let group = world.run(Listing::<Tails>::new(keys), Shape::parts(3), run).unwrap();
            assert!(group.parts == hashed_parts(3, expected(&Listing::<Tails>::new(keys), &records).0), "{isa:?}");
            let sort = world.run(Listing::<SortedTails>::new(keys), Shape::parts(3), run).unwrap();
            let want = expected(&Listing::<SortedTails>::new(keys), &records).0;
            assert!(sort.all() == want.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<u8>>(), "{isa:?}");
        }
    }
}

/// A stream takes the parts one after the other, spilled or not.
#[test]
fn a_stream_is_all_parts_in_order() {
    let text: Vec<u8> = (0..2000).flat_map(|i| format!("{}:{i}\n", i % 300).into_bytes()).collect();
    let world = World::of(&[text]);
    for run in [Run::PLAIN, Run::tight()] {
        for parts in [1, 5, 40] {
            check_stream::<Sum>(&world, Keys::Within, parts, run);
            check_stream::<LongTails>(&world, Keys::Made, parts, run);
            check_stream::<SortedLong>(&world, Keys::Made, parts, run);
            check_stream::<SortedKeys>(&world, Keys::Within, parts, run);
        }
    }
}

fn check_stream<K: Kind>(world: &World, keys: Keys, parts: u32, run: Run) {
    let folder = world.run(Listing::<K>::new(keys), Shape::parts(parts), Run::PLAIN).unwrap();
    let job = gristmill_engine::job::AppJob(Listing::<K>::new(keys));
    let (report, bytes) = world.stream(&job, Shape::parts(parts), run);
    assert!(bytes == folder.all(), "{parts} parts, {run:?}");
    assert_eq!((report.output_bytes, report.output_records), (folder.manifest.bytes, folder.manifest.records));
}
