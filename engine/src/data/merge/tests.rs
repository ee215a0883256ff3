//! A merge is a stable sort of its inputs put end to end.

use std::{cell::Cell, convert::Infallible};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::data::segment::{Reader, Writer};

type Record = (Vec<u8>, Vec<u8>);

/// A sorted run in memory.
struct Run {
    records: Vec<Record>,
    next: usize,
}

impl Cursor for Run {
    type Error = Infallible;

    fn advance(&mut self) -> Result<bool, Infallible> {
        self.next += 1;
        Ok(self.next <= self.records.len())
    }

    fn key(&self) -> &[u8] {
        &self.records[self.next - 1].0
    }

    fn value(&self) -> &[u8] {
        &self.records[self.next - 1].1
    }
}

/// Runs with the given keys, sorted, and values that tell every record from every other.
fn runs(keys: Vec<Vec<Vec<u8>>>) -> Vec<Vec<Record>> {
    let number = |(run, mut keys): (usize, Vec<Vec<u8>>)| {
        keys.sort();
        let value = |n: usize| [run.to_be_bytes(), n.to_be_bytes()].concat();
        keys.into_iter().enumerate().map(|(n, key)| (key, value(n))).collect()
    };
    keys.into_iter().enumerate().map(number).collect()
}

fn cursors(runs: &[Vec<Record>]) -> Vec<Run> {
    runs.iter().map(|records| Run { records: records.clone(), next: 0 }).collect()
}

fn drain<C: Cursor>(mut merge: Merge<C>) -> Vec<Record>
where
    C::Error: std::fmt::Debug,
{
    assert!(merge.key().is_empty() && merge.value().is_empty());
    let mut records = Vec::new();
    while merge.advance().unwrap() {
        records.push((merge.key().to_vec(), merge.value().to_vec()));
    }
    assert!(!merge.advance().unwrap(), "the end is not final");
    assert!(merge.key().is_empty() && merge.value().is_empty());
    records
}

fn oracle(runs: &[Vec<Record>]) -> Vec<Record> {
    let mut records = runs.concat();
    records.sort_by(|a, b| a.0.cmp(&b.0));
    records
}

/// Keys where prefixes mislead: ties, zero bytes against the end, eight bytes 0xff and more.
fn some_keys() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let byte = || prop_oneof![Just(0u8), Just(1), Just(255)];
    let key = prop_oneof![vec(byte(), 0..3), vec(byte(), 7..10), vec(Just(255u8), 7..10)];
    vec(vec(key, 0..12), 0..20)
}

#[test]
fn thousands_of_cursors() {
    let keys = (0..3000u32).map(|n| {
        let key = |m: u32| (n.wrapping_mul(2654435761).wrapping_add(m << 20) >> 12).to_be_bytes();
        (0..n % 4).map(|m| key(m).to_vec()).collect()
    });
    let runs = runs(keys.collect());
    assert!(drain(Merge::new(cursors(&runs)).unwrap()) == oracle(&runs));
}

/// A key that counts how often it is looked at, with a prefix of its own or none.
struct Counted<'a> {
    keys: Vec<Vec<u8>>,
    next: usize,
    looks: &'a Cell<usize>,
}

impl Cursor for Counted<'_> {
    type Error = Infallible;

    fn advance(&mut self) -> Result<bool, Infallible> {
        self.next += 1;
        Ok(self.next <= self.keys.len())
    }

    fn key(&self) -> &[u8] {
        self.looks.set(self.looks.get() + 1);
        &self.keys[self.next - 1]
    }

    fn value(&self) -> &[u8] {
        &[]
    }
}

/// Looks at keys while merging `k` cursors of `n` keys each, made by `key` from cursor and number.
fn looks(k: usize, n: usize, key: impl Fn(usize, usize) -> Vec<u8>) -> usize {
    let looks = Cell::new(0);
    let cursors = (0..k).map(|c| {
        let keys = (0..n).map(|m| key(c, m)).collect();
        Counted { keys, next: 0, looks: &looks }
    });
    let mut merge = Merge::new(cursors.collect()).unwrap();
    while merge.advance().unwrap() {}
    looks.get()
}

#[test]
fn distinct_prefixes_need_no_key_bytes() {
    let spread = |c: usize, m: usize| (m * 64 + c).to_be_bytes().to_vec();
    assert_eq!(looks(64, 100, spread), 64 * 100, "only the prefix of each key may be taken");
}

#[test]
fn a_record_takes_at_most_log_k_comparisons() {
    let same = |_: usize, m: usize| [&[7; 8][..], &m.to_be_bytes()].concat();
    let records = 64 * 100;
    // One look for the prefix and two for each of 6 matches; the set-up plays 63 more matches.
    assert!(looks(64, 100, same) <= records * (1 + 2 * 6) + 63 * 2);
}

#[test]
fn errors_come_through_and_can_be_retried() {
    struct Failing(u32);
    impl Cursor for Failing {
        type Error = u32;
        fn advance(&mut self) -> Result<bool, u32> {
            self.0 += 1;
            if self.0 == 2 { Err(2) } else { Ok(self.0 <= 3) }
        }
        fn key(&self) -> &[u8] {
            b"k"
        }
        fn value(&self) -> &[u8] {
            b"v"
        }
    }
    let mut merge = Merge::new(vec![Failing(0), Failing(2)]).unwrap();
    assert_eq!(merge.advance(), Ok(true));
    assert_eq!(merge.advance(), Err(2));
    assert_eq!(merge.advance(), Ok(true), "the failed cursor moves on");
    assert_eq!(merge.advance(), Ok(true), "the other cursor is still there");
    assert_eq!(merge.advance(), Ok(false));
    assert_eq!(Merge::new(vec![Failing(1)]).err(), Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn equals_a_stable_sort(keys in some_keys()) {
        let runs = runs(keys);
        prop_assert_eq!(drain(Merge::new(cursors(&runs)).unwrap()), oracle(&runs));
    }

    #[test]
    fn nests(keys in some_keys(), width in 1usize..5) {
        let runs = runs(keys);
        let inner = runs.chunks(width).map(|part| {
            let merge = Merge::new(cursors(part)).unwrap();
            Box::new(merge) as Box<dyn Cursor<Error = Infallible>>
        });
        prop_assert_eq!(drain(Merge::new(inner.collect()).unwrap()), oracle(&runs));
    }

    #[test]
    fn merges_segments(keys in some_keys()) {
        let runs = runs(keys);
        let readers = runs.iter().map(|records| {
            let mut writer = Writer::new(Vec::new());
            for (key, value) in records {
                writer.push(key, value).unwrap();
            }
            let (bytes, summary) = writer.finish().unwrap();
            Reader::open(bytes, 0, summary.bytes, "run").unwrap()
        });
        prop_assert_eq!(drain(Merge::new(readers.collect()).unwrap()), oracle(&runs));
    }
}
