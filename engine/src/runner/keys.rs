//! Which part a key of text belongs to, and what it sorts by: Hadoop's partitioners and comparators.
//!
//! The engine sorts keys by their raw bytes and knows nothing of fields. A key is therefore given to it as its part's
//! number (as many bytes as the number of parts needs, none for one part), then what it sorts by: the key itself, or its
//! fields in an encoding whose bytes are in the order of the comparator. In the second case the key travels with the value,
//! and keys that compare equal are one group, as Hadoop leaves their order open.
//!
//! Sources: Hadoop's `HashPartitioner` over `Text.hashCode`, `KeyFieldBasedPartitioner`, `KeyFieldBasedComparator` and
//! `KeyFieldHelper`.

/// A byte range of a key, in Hadoop's words `-k f[.c][nr][,f[.c][nr]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Its first field, from 1.
    pub first_field: usize,
    /// The first byte in that, from 1.
    pub first_byte: usize,
    /// Its last field; `None` is the end of the key.
    pub last_field: Option<usize>,
    /// The last byte in that; `None` is the end of the field.
    pub last_byte: Option<usize>,
    /// Compared as a number.
    pub numeric: bool,
    /// Compared the other way round.
    pub reverse: bool,
}

impl KeySpec {
    /// The first `fields` fields.
    pub fn fields(fields: usize) -> Self {
        Self {
            first_field: 1,
            first_byte: 1,
            last_field: Some(fields),
            last_byte: None,
            numeric: false,
            reverse: false,
        }
    }

    /// The bytes of `key` that it selects; `None` where the key has not as many fields or bytes.
    fn of<'k>(&self, key: &'k [u8], separator: &[u8]) -> Option<&'k [u8]> {
        // The start may lie beyond its field, as in Hadoop.
        let (field, _) = nth(key, separator, self.first_field)?;
        let start = field.saturating_add(self.first_byte - 1);
        if start >= key.len() {
            return None;
        }
        let end = match self.last_field {
            None => key.len(),
            Some(last) => match (nth(key, separator, last), self.last_byte) {
                (None, _) => key.len(),
                (Some((at, len)), None) => at + len,
                (Some((at, _)), Some(byte)) => at.saturating_add(byte).min(key.len()),
            },
        };
        key.get(start..end)
    }
}

/// Where the n-th field of a key begins, from 1, and its length.
fn nth(key: &[u8], separator: &[u8], n: usize) -> Option<(usize, usize)> {
    let mut at = 0;
    for _ in 1..n {
        at += find(&key[at..], separator)? + separator.len();
    }
    Some((at, find(&key[at..], separator).unwrap_or(key.len() - at)))
}

/// Where `separator` is first found.
pub(crate) fn find(bytes: &[u8], separator: &[u8]) -> Option<usize> {
    match *separator {
        [] => None,
        [one] => memchr::memchr(one, bytes),
        _ => memchr::memmem::find(bytes, separator),
    }
}

/// Which part a key belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Partition {
    /// By the hash of all its bytes, as Hadoop's `HashPartitioner` over `Text`.
    #[default]
    Whole,
    /// By the hash of some of its fields, as `KeyFieldBasedPartitioner`.
    Fields {
        /// Which; none is the whole key as Java hashes a string.
        keys: Vec<KeySpec>,
        /// What stands between fields.
        separator: Vec<u8>,
    },
}

impl Partition {
    pub(crate) fn of(&self, key: &[u8], parts: u32) -> u32 {
        let hash = match self {
            Self::Whole => mixed(1, key),
            Self::Fields { keys, .. } if keys.is_empty() => java_hash(key),
            Self::Fields { keys, separator } => keys.iter().filter_map(|spec| spec.of(key, separator)).fold(0, mixed),
        };
        (hash & 0x7fff_ffff) % parts.max(1)
    }
}

/// `31 h + b` over signed bytes, as Java's `WritableComparator.hashBytes`.
#[inline]
fn mixed(seed: u32, bytes: &[u8]) -> u32 {
    let step = |h: u32, b: &u8| h.wrapping_mul(31).wrapping_add(*b as i8 as u32);
    bytes.iter().fold(seed, step)
}

/// Java's `String.hashCode` of the text: over UTF-16.
fn java_hash(key: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(key);
    text.encode_utf16().fold(0, |h: u32, unit| h.wrapping_mul(31).wrapping_add(u32::from(unit)))
}

/// What keys are sorted by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Comparator {
    /// Their raw bytes.
    #[default]
    Bytes,
    /// Some of their fields, one after the other, as `KeyFieldBasedComparator`.
    Fields {
        /// Which, and how each is compared; none is the whole key as bytes.
        keys: Vec<KeySpec>,
        /// What stands between fields.
        separator: Vec<u8>,
    },
}

impl Comparator {
    /// Appends bytes that are in the order in which this compares keys.
    pub(crate) fn encode(&self, key: &[u8], out: &mut Vec<u8>) {
        let Self::Fields { keys, separator } = self else { return out.extend_from_slice(key) };
        for spec in keys {
            let from = out.len();
            match spec.of(key, separator) {
                // A field that is not there comes before all others.
                None => out.push(0),
                Some(field) => {
                    out.push(1);
                    if spec.numeric { number(field, out) } else { text(field, out) }
                }
            }
            if spec.reverse {
                out[from..].iter_mut().for_each(|b| *b = !*b);
            }
        }
    }
}

/// Bytes that end before any longer ones do: 0 as 0 255, and 0 0 at the end.
fn text(field: &[u8], out: &mut Vec<u8>) {
    for byte in field {
        out.push(*byte);
        if *byte == 0 {
            out.push(255);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// A number by its digits, of which there may be any number: blanks, a minus, digits, a dot, digits. What follows does not
/// count, and no digits are zero.
fn number(field: &[u8], out: &mut Vec<u8>) {
    let field = field.trim_ascii_start();
    let (negative, digits) = match field.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, field),
    };
    let digits_of = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (whole, rest) = digits.split_at(digits_of(digits));
    let zeros = whole.iter().take_while(|b| **b == b'0').count();
    let whole = &whole[zeros..];
    let fraction = rest.strip_prefix(b".").map_or(&b""[..], |rest| &rest[..digits_of(rest)]);
    let fraction = &fraction[..fraction.iter().rposition(|b| *b != b'0').map_or(0, |last| last + 1)];
    if whole.is_empty() && fraction.is_empty() {
        return out.push(1);
    }
    out.push(2);
    let from = out.len() - 1;
    out.extend_from_slice(&(whole.len() as u32).to_be_bytes());
    out.extend_from_slice(whole);
    out.extend_from_slice(fraction);
    out.push(0);
    if negative {
        out[from..].iter_mut().for_each(|b| *b = !*b);
        out[from] = 0;
    }
}

/// Bytes that hold the number of any of so many parts.
pub(crate) fn width(parts: u32) -> usize {
    match parts {
        0..=1 => 0,
        2..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    }
}

/// The part that stands before a key.
pub(crate) fn part_before(key: &[u8], width: usize) -> u32 {
    key.iter().take(width).fold(0, |part, byte| part << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(first: (usize, usize), last: Option<(usize, Option<usize>)>, flags: &str) -> KeySpec {
        KeySpec {
            first_field: first.0,
            first_byte: first.1,
            last_field: last.map(|l| l.0),
            last_byte: last.and_then(|l| l.1),
            numeric: flags.contains('n'),
            reverse: flags.contains('r'),
        }
    }

    #[test]
    fn keys_go_where_hadoop_sends_them() {
        // h = 31 h + b from 1, worked out by hand: "a" is 31 + 97 = 128, "ab" 128 * 31 + 98 = 4066.
        assert_eq!(Partition::Whole.of(b"a", 1000), 128);
        assert_eq!(Partition::Whole.of(b"ab", 1_000_000), 4066);
        assert_eq!(Partition::Whole.of(b"", 10), 1);
        // Bytes are signed: 0xff is -1, and 31 - 1 is 30.
        assert_eq!(Partition::Whole.of(&[0xff], 1000), 30);
        let by = |keys: &[KeySpec]| Partition::Fields { keys: keys.to_vec(), separator: b".".to_vec() };
        // No spec: as Java hashes strings. "ab" is 97 * 31 + 98.
        assert_eq!(by(&[]).of(b"ab", 1_000_000), 3105);
        assert_eq!(by(&[]).of(b"", 10), 0);
        assert_eq!(by(&[]).of("é".as_bytes(), 1000), 0xe9);
        // Fields from 0: "a" is 97.
        assert_eq!(by(&[KeySpec::fields(1)]).of(b"a.b.c", 1000), 97);
        assert_eq!(by(&[KeySpec::fields(2)]).of(b"a.b.c", 1_000_000), (97 * 31 + 46) * 31 + 98);
        assert_eq!(by(&[spec((3, 1), Some((3, None)), "")]).of(b"a.b", 1000), 0, "a field that is not there");
    }

    #[test]
    fn fields_are_selected() {
        let of = |first, last, key: &'static str| {
            spec(first, last, "").of(key.as_bytes(), b".").map(|b| String::from_utf8_lossy(b).into_owned())
        };
        assert_eq!(of((1, 1), None, "11.12.1.2").as_deref(), Some("11.12.1.2"));
        assert_eq!(of((2, 1), Some((2, None)), "11.12.1.2").as_deref(), Some("12"));
        assert_eq!(of((2, 2), Some((3, None)), "11.12.1.2").as_deref(), Some("2.1"));
        assert_eq!(of((2, 1), Some((2, Some(1))), "11.12.1.2").as_deref(), Some("1"));
        assert_eq!(of((2, 1), None, "11.12.1.2").as_deref(), Some("12.1.2"));
        assert_eq!(of((1, 1), Some((9, None)), "a.b").as_deref(), Some("a.b"));
        assert_eq!(of((3, 1), None, "a.b"), None);
        assert_eq!(of((1, 5), None, "abc.defg").as_deref(), Some("defg"), "beyond its field");
        assert_eq!(of((1, usize::MAX), Some((1, Some(usize::MAX))), "abc"), None);
        let wide = spec((2, 1), Some((2, None)), "").of(b"a::b::c", b"::");
        assert_eq!(wide, Some(&b"b"[..]));
    }

    /// The encoding of each key is below that of the next.
    fn ascends(comparator: &Comparator, keys: &[&str]) {
        let encode = |key: &&str| {
            let mut out = Vec::new();
            comparator.encode(key.as_bytes(), &mut out);
            out
        };
        let encoded: Vec<Vec<u8>> = keys.iter().map(encode).collect();
        for (i, pair) in encoded.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "{} before {}", keys[i], keys[i + 1]);
        }
    }

    #[test]
    fn encodings_are_in_the_order_of_the_comparator() {
        let by = |keys: &[KeySpec]| Comparator::Fields { keys: keys.to_vec(), separator: b"\t".to_vec() };
        let whole = |flags| by(&[spec((1, 1), None, flags)]);
        ascends(&Comparator::Bytes, &["", "a", "a\0", "ab", "b"]);
        ascends(&whole(""), &["a", "a\0", "a\0b", "a\u{1}", "ab", "b"]);
        ascends(&whole("r"), &["b", "ab", "a\u{1}", "a\0b", "a\0", "a"]);
        let numbers = ["-100", "-20.5", "-20.25", "-3", "-0.5", "0", "0.05", "0.5", "3", "20.25", "20.5", "100"];
        ascends(&whole("n"), &numbers);
        let mut down = numbers;
        down.reverse();
        ascends(&whole("nr"), &down);
        let mixed = by(&[spec((2, 1), Some((2, None)), "n"), spec((1, 1), Some((1, None)), "r")]);
        ascends(&mixed, &["a", "z\t9", "a\t9", "b\t10", "a\t10"]);
    }

    #[test]
    fn numbers_that_are_equal_are_one_key() {
        let by = Comparator::Fields { keys: vec![spec((1, 1), None, "n")], separator: b"\t".to_vec() };
        let encode = |key: &str| {
            let mut out = Vec::new();
            by.encode(key.as_bytes(), &mut out);
            out
        };
        for (a, b) in [("1", "01"), ("1", "1.0"), ("0", "-0"), ("0", "x"), ("7", "7e3"), (" 7", "7"), ("2.50", "2.5")] {
            assert_eq!(encode(a), encode(b), "{a} and {b}");
        }
    }

    #[test]
    fn the_part_stands_before_the_key() {
        assert_eq!([1, 2, 256, 257, 65_536, 65_537].map(width), [0, 1, 1, 2, 2, 4]);
        assert_eq!(part_before(b"\x01\x02key", 2), 258);
        assert_eq!(part_before(b"key", 0), 0);
    }
}
