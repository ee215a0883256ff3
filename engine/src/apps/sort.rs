//! Sorting of records in total order (OSDI 2004, section 5.3; the TeraSort benchmark).

use crate::app::{App, Bytes, Chunk, Emit, Output, Shuffle, Values};
use crate::job::{AppJob, Job};

/// Sort records; all parts together are in order
///
/// Compares raw bytes; records with equal keys stay in input order. Records are lines without the line feed and a carriage
/// return before it: lines that end in CR LF come out with LF.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Sort {
    /// Sort by these bytes of each record, counted from 1: 1-10, 5 (one byte), or 5- (to the end)
    #[arg(long, value_name = "FROM-TO", conflicts_with = "field")]
    pub key: Option<Bytes1>,
    /// Sort by this field, counted from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub field: Option<u32>,
    /// The byte between fields; by default a TAB, which can be written as \t
    #[arg(long, value_name = "CHAR", default_value = "\\t", hide_default_value = true, requires = "field")]
    #[arg(value_parser = separator)]
    pub separator: u8,
    /// Compare as decimal numbers (an optional minus, digits, one dot) of any length
    #[arg(long, short)]
    pub numeric: bool,
    /// Largest first
    #[arg(long, short)]
    pub reverse: bool,
    /// Keep the first of records with equal keys
    #[arg(long, short)]
    pub unique: bool,
}

/// A range of bytes, counted from 1 as `--key` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes1 {
    from: usize,
    to: usize,
}

impl std::str::FromStr for Bytes1 {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let number = |s: &str| s.parse::<usize>().ok().filter(|n| *n > 0);
        let range = match s.split_once('-') {
            None => number(s).map(|n| (n, n)),
            Some((from, "")) => number(from).map(|n| (n, usize::MAX)),
            Some((from, to)) => number(from).zip(number(to)),
        };
        let (from, to) = range.filter(|(from, to)| from <= to).ok_or("bytes are given as 1-10, 5 or 5-")?;
        Ok(Self { from, to })
    }
}

fn separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        b"\\0" => Ok(0),
        b"\\\\" => Ok(b'\\'),
        _ => Err("it must be one byte, or \\t for a TAB, \\0 for a NUL".into()),
    }
}

impl Sort {
    pub(super) fn job(self) -> Result<Box<dyn Job>, String> {
        let whole = self.key.is_none() && self.field.is_none() && !self.numeric && !self.reverse && !self.unique;
        Ok(if whole { Box::new(AppJob(SortWhole)) } else { Box::new(AppJob(SortBy(self))) })
    }
}

/// By the whole record: the key says everything.
struct SortWhole;

impl App for SortWhole {
    type Value = ();
    const SHUFFLE: Shuffle = Shuffle::Sort;

    #[inline]
    fn map<E: Emit<()>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        chunk.records().for_each(|record| out.emit(record, ()));
    }

    #[inline]
    fn reduce<V: Values<()>>(&self, record: &[u8], values: &mut V, out: &mut Output<'_>) {
        while values.next().is_some() {
            out.record(record);
        }
    }
}

/// By a key within the record, or one made of it.
struct SortBy(Sort);

impl App for SortBy {
    type Value = Bytes;
    const SHUFFLE: Shuffle = Shuffle::Sort;

    #[inline]
    fn map<E: Emit<Bytes>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let mut made = Vec::new();
        for record in chunk.records() {
            let key = match (self.0.key, self.0.field) {
                (Some(range), _) => &record[(range.from - 1).min(record.len())..range.to.min(record.len())],
                (_, Some(n)) => match record.split(|b| *b == self.0.separator).nth(n as usize - 1) {
                    Some(field) => field,
                    None => {
                        out.bad_record(record, format_args!("it has no field {n}"));
                        continue;
                    }
                },
                _ => record,
            };
            if !self.0.numeric && !self.0.reverse {
                out.emit(key, record);
                continue;
            }
            made.clear();
            if !self.0.numeric {
                made.extend_from_slice(key);
            } else if !number(key, &mut made) {
                out.bad_record(record, format_args!("'{}' is not a number", key.escape_ascii()));
                continue;
            }
            if self.0.reverse {
                invert(&mut made);
            }
            out.emit(&made, record);
        }
    }

    #[inline]
    fn reduce<V: Values<Bytes>>(&self, _: &[u8], records: &mut V, out: &mut Output<'_>) {
        while let Some(record) = records.next() {
            out.record(record);
            if self.0.unique {
                return;
            }
        }
    }
}

/// Appends a decimal number as bytes that compare as it does: sign, number of integer digits, digits, fraction.
fn number(text: &[u8], out: &mut Vec<u8>) -> bool {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let dot = memchr::memchr(b'.', digits);
    let (whole, fraction) = dot.map_or((digits, &b""[..]), |at| (&digits[..at], &digits[at + 1..]));
    if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return false;
    }
    let whole = &whole[whole.iter().take_while(|d| **d == b'0').count()..];
    let fraction = &fraction[..fraction.len() - fraction.iter().rev().take_while(|d| **d == b'0').count()];
    if whole.is_empty() && fraction.is_empty() {
        out.push(1);
        return true;
    }
    let start = out.len();
    out.extend((whole.len() as u32).to_be_bytes());
    out.extend_from_slice(whole);
    out.extend_from_slice(fraction);
    if negative {
        out.push(0); // inverted, it sorts after any digit: -1 comes after -1.5
        out[start..].iter_mut().for_each(|b| *b = !*b);
    }
    out.insert(start, if negative { 0 } else { 2 });
    true
}

/// Turns a key into one that sorts in the opposite order, so that a prefix comes after what it begins.
fn invert(key: &mut Vec<u8>) {
    let mut out = Vec::with_capacity(key.len() + 1);
    for byte in key.iter().map(|b| !b) {
        // 0xff is left for the end; 0xfe begins a pair.
        match byte {
            0xfe | 0xff => out.extend([0xfe, byte]),
            _ => out.push(byte),
        }
    }
    out.push(0xff);
    *key = out;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(number(text.as_bytes(), &mut out), "{text}");
        out
    }

    #[test]
    fn numbers_compare_as_numbers() {
        let rising = [
            "-1000000000000000000000000001",
            "-10",
            "-9.51",
            "-9.5",
            "-9",
            "-1.5",
            "-1",
            "-0.5",
            "-0.05",
            "0",
            "0.05",
            "0.5",
            "1",
            "1.01",
            "1.1",
            "9",
            "10",
            "18446744073709551616",
            "1000000000000000000000000001",
        ];
        for pair in rising.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        for (a, b) in [("1", "01.0"), ("-0", "0.00"), (" 5 ", "5."), (".5", "0.50")] {
            assert_eq!(key(a), key(b), "{a} {b}");
        }
        for not in ["", "-", ".", "1e5", "--1", "1.2.3", "0x10", "+1"] {
            assert!(!number(not.as_bytes(), &mut Vec::new()), "{not}");
        }
    }

    #[test]
    fn ranges_of_bytes() {
        assert_eq!("1-10".parse(), Ok(Bytes1 { from: 1, to: 10 }));
        assert_eq!("7".parse(), Ok(Bytes1 { from: 7, to: 7 }));
        assert_eq!("3-".parse(), Ok(Bytes1 { from: 3, to: usize::MAX }));
        for not in ["", "0", "-5", "5-3", "a-b", "1-2-3"] {
            assert!(not.parse::<Bytes1>().is_err(), "{not}");
        }
    }

    proptest! {
        #[test]
        fn inverted_keys_sort_the_other_way(a in prop::collection::vec(prop_oneof![0u8..3, 253u8..], 0..6), b in prop::collection::vec(prop_oneof![0u8..3, 253u8..], 0..6)) {
            let (mut x, mut y) = (a.clone(), b.clone());
            invert(&mut x);
            invert(&mut y);
            prop_assert_eq!(a.cmp(&b), y.cmp(&x));
        }
    }
}
