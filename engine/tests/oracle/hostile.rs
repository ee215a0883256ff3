//! Keys that somebody chose to collide under the stable hash, which is public and fixed for ever: whole jobs give the
//! right output, each key in its own part.

use gristmill_engine::app::Format;
use gristmill_engine::data::hash::stable_hash;

use crate::apps::*;
use crate::naive::{hashed_parts, part_of, records};
use crate::world::{Run, Shape, World};

/// Keys of each kind; more than any probe may pass.
const KEYS: u64 = 1500;
/// The hash mixes the first word of a key with this one: where they are equal the second word does not count.
const FIRST_WORD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The digits of a number as eight bytes.
fn digits(n: u64) -> [u8; 8] {
    let text = format!("{n:08}");
    text.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Keys of 16 bytes, all of hash zero.
fn short() -> Vec<Vec<u8>> {
    (0..KEYS).map(|n| [FIRST_WORD.to_le_bytes(), digits(n)].concat()).collect()
}

/// Keys of 32 bytes, all of one hash: their first block is mixed to zero.
fn long() -> Vec<Vec<u8>> {
    let block = |n| [(FIRST_WORD ^ 32).to_le_bytes(), digits(n)].concat();
    (0..KEYS).map(|n| [block(n), b"the second block".to_vec()].concat()).collect()
}

/// Keys whose hashes differ, but not in their top bits, as brute force finds them.
fn near() -> Vec<Vec<u8>> {
    let keys = (0u64..).map(|n| n.to_string().into_bytes());
    keys.filter(|key| stable_hash(key) >> 54 == 0x155).take(KEYS as usize).collect()
}

/// Lines of these keys among plain ones, in two files, each key several times.
fn text(keys: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let line = |(i, key): (usize, &Vec<u8>)| [key, format!(":{i}\nplain{}:{i}\n", i % 700).as_bytes()].concat();
    let one: Vec<u8> = keys.iter().enumerate().flat_map(line).collect();
    let other = keys.iter().rev().enumerate().flat_map(line).collect();
    vec![one, other]
}

fn check<K: Kind>(name: &str, keys: &[Vec<u8>]) {
    let inputs = text(keys);
    let world = World::of(&inputs);
    for made in [Keys::Within, Keys::Made] {
        let (want, _) = expected(&Listing::<K>::new(made), &records(Format::Lines, &inputs));
        for parts in [1, 7, 100] {
            let want = hashed_parts(parts, want.iter().cloned());
            for run in [Run::PLAIN, Run { threads: 2, ..Run::tight() }] {
                let got = world.run(Listing::<K>::new(made), Shape::parts(parts), run).unwrap();
                assert!(got.parts == want, "{name}, {made:?}, {parts} parts, {run:?}");
                // A table that hashes by a secret seed has its keys put in order by a run.
                assert!(got.report.spilled_runs > 0, "{name}: nobody noticed, {run:?}");
            }
        }
    }
}

#[test]
fn the_keys_collide() {
    let same = |keys: Vec<Vec<u8>>, bits: u32| {
        keys.iter().all(|k| stable_hash(k) >> (64 - bits) == stable_hash(&keys[0]) >> (64 - bits))
    };
    assert!(same(short(), 64) && same(long(), 64) && same(near(), 10));
    assert!(near().iter().map(|key| part_of(key, 1000)).all(|part| part == 333));
}

#[test]
fn short_keys_of_one_hash() {
    check::<Sum>("fold", &short());
    check::<Places>("group", &short());
}

#[test]
fn long_keys_of_one_hash() {
    check::<Sum>("fold", &long());
    check::<Tails>("group", &long());
}

#[test]
fn keys_that_share_the_top_of_their_hashes() {
    check::<Joined>("fold", &near());
    check::<Inputs>("group", &near());
}

/// Sorting hashes nothing, but all such keys share their first eight bytes.
#[test]
fn keys_that_sort_by_their_ends_only() {
    for keys in [short(), long()] {
        let inputs = text(&keys);
        let world = World::of(&inputs);
        let (want, _) = expected(&Listing::<SortedPlaces>::new(Keys::Within), &records(Format::Lines, &inputs));
        let want: Vec<u8> = want.into_iter().flat_map(|(_, bytes)| bytes).collect();
        for run in [Run::PLAIN, Run::tight()] {
            let got = world.run(Listing::<SortedPlaces>::new(Keys::Within), Shape::parts(40), run).unwrap();
            assert!(got.all() == want, "{run:?}");
        }
    }
}
