//! A chunk: whole records of one input, as an app sees them, and where inputs are cut into records.
//!
//! A record belongs to the chunk that holds its first byte. Cutting looks at the bytes around a nominal border only,
//! so that any chunk can be found without reading those before it.

use std::fmt;
use std::str::FromStr;

use super::words::{self, ByteSet, Isa};

/// How an input is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// Up to a line feed, which is not part of the record; nor is a carriage return before it.
    #[default]
    Lines,
    /// The whole input is one record.
    Whole,
    /// Every record has this many bytes. An input of another length is an error.
    Fixed(usize),
    /// Up to a NUL byte, which is not part of the record.
    Nul,
}

impl FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "lines" => Ok(Self::Lines),
            "whole" => Ok(Self::Whole),
            "nul" => Ok(Self::Nul),
            _ => s
                .strip_prefix("fixed:")
                .and_then(|n| n.parse().ok())
                .filter(|n| (1..=1 << 30).contains(n))
                .map(Self::Fixed)
                .ok_or_else(|| format!("'{s}' is not lines, whole, nul or fixed:N with N from 1 to 2^30 bytes")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("lines"),
            Self::Whole => f.write_str("whole"),
            Self::Fixed(n) => write!(f, "fixed:{n}"),
            Self::Nul => f.write_str("nul"),
        }
    }
}

impl Format {
    /// The byte that ends a record, where one does.
    pub(crate) fn separator(self) -> Option<u8> {
        match self {
            Self::Lines => Some(b'\n'),
            Self::Nul => Some(0),
            Self::Whole | Self::Fixed(_) => None,
        }
    }

    /// The records whose first byte lies in `start..end` of `input`, as a range of bytes.
    ///
    /// Reads `start - 1..end` and on to the end of the last record, no more: a record of a gigabyte costs the chunks
    /// within it one look at their own bytes.
    pub(crate) fn cut(self, input: &[u8], start: usize, end: usize) -> std::ops::Range<usize> {
        let end = end.min(input.len());
        match self {
            Self::Whole => {
                if start == 0 {
                    0..input.len()
                } else {
                    0..0
                }
            }
            Self::Fixed(n) => {
                let (from, to) = (start.div_ceil(n) * n, end.div_ceil(n) * n);
                if from < to { from..to.min(input.len()) } else { 0..0 }
            }
            Self::Lines => cut_at(b'\n', input, start, end),
            Self::Nul => cut_at(0, input, start, end),
        }
    }

    /// How many bytes of `bytes`, which begin with a record, are whole records. 0 when not even one is complete.
    pub(crate) fn complete(self, bytes: &[u8]) -> usize {
        match self {
            Self::Whole => 0,
            Self::Fixed(n) => bytes.len() / n * n,
            Self::Lines | Self::Nul => self.separator().and_then(|s| memchr::memrchr(s, bytes)).map_or(0, |at| at + 1),
        }
    }
}

fn cut_at(separator: u8, input: &[u8], start: usize, end: usize) -> std::ops::Range<usize> {
    let from = match start {
        0 => 0,
        _ => match memchr::memchr(separator, &input[start - 1..end.max(start) - 1]) {
            Some(n) => start + n,
            None => return 0..0,
        },
    };
    if from >= end {
        return 0..0;
    }
    let to = memchr::memchr(separator, &input[end - 1..]).map_or(input.len(), |n| end + n);
    from..to
}

/// Number of an input in the sorted list of all inputs of the job.
pub type InputId = u32;

/// Whole records of one input.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'c> {
    bytes: &'c [u8],
    format: Format,
    isa: Isa,
    input: InputId,
    name: &'c str,
    offset: u64,
}

impl<'c> Chunk<'c> {
    /// A chunk of `bytes`, which are whole records of the input `input` named `name`.
    pub fn new(bytes: &'c [u8], format: Format, input: InputId, name: &'c str) -> Self {
        Self::new_with(bytes, format, input, name, Isa::best())
    }

    pub(crate) fn new_with(bytes: &'c [u8], format: Format, input: InputId, name: &'c str, isa: Isa) -> Self {
        Self { bytes, format, isa, input, name, offset: 0 }
    }

    pub(crate) fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Offset of the first byte in the (decompressed) input.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How the input is cut into records.
    pub fn format(&self) -> Format {
        self.format
    }

    /// All bytes, separators included.
    #[inline(always)]
    pub fn bytes(&self) -> &'c [u8] {
        self.bytes
    }

    /// The number of this input in the sorted list of inputs.
    #[inline(always)]
    pub fn input(&self) -> InputId {
        self.input
    }

    /// The input's name as the user gave it.
    pub fn input_name(&self) -> &'c str {
        self.name
    }

    /// Calls `f` with each maximal run of ASCII letters and digits within a record.
    #[inline(always)]
    pub fn words(&self, mut f: impl FnMut(&'c [u8])) {
        match self.format {
            Format::Fixed(_) => self.each_record(&mut |record| words::words(Isa::Portable, record, &mut f)),
            _ => words::words(self.isa, self.bytes, f),
        }
    }

    /// Calls `f` with each maximal run of bytes of `set` within a record.
    #[inline(always)]
    pub fn tokens(&self, set: &ByteSet, mut f: impl FnMut(&'c [u8])) {
        let borders_hold = match self.format {
            Format::Whole => true,
            Format::Lines => !set.contains(b'\n') && !set.contains(b'\r'),
            Format::Nul => !set.contains(0),
            Format::Fixed(_) => false,
        };
        match borders_hold {
            true => words::tokens(self.isa, set, self.bytes, f),
            false => self.each_record(&mut |record| words::tokens(Isa::Portable, set, record, &mut f)),
        }
    }

    /// Where nothing between two records ends a word, each must be looked at by itself. Rare, so kept out of the way of
    /// the loops over whole chunks.
    #[cold]
    #[inline(never)]
    fn each_record(&self, f: &mut dyn FnMut(&'c [u8])) {
        self.records().for_each(f);
    }

    /// The records, without their separators.
    #[inline(always)]
    pub fn records(&self) -> Records<'c> {
        let size = match self.format {
            Format::Whole => self.bytes.len(),
            Format::Fixed(n) => n,
            Format::Lines | Format::Nul => 0,
        };
        Records { rest: self.bytes, size, separators: Separators::of(self.format.separator().unwrap_or(0), self.bytes) }
    }
}

/// Iterator over the records of a [`Chunk`].
#[derive(Debug)]
pub struct Records<'c> {
    rest: &'c [u8],
    /// Length of every record, or 0 where separators tell.
    size: usize,
    separators: Separators<'c>,
}

impl<'c> Iterator for Records<'c> {
    type Item = &'c [u8];

    #[inline(always)]
    fn next(&mut self) -> Option<&'c [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        if self.size > 0 {
            let (record, rest) = self.rest.split_at_checked(self.size).unwrap_or((self.rest, &[]));
            self.rest = rest;
            return Some(record);
        }
        let (record, rest) = match self.separators.next() {
            Some(end) => {
                let at = end - (self.separators.bytes.len() - self.rest.len());
                (&self.rest[..at], &self.rest[at + 1..])
            }
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        match record {
            [line @ .., b'\r'] if self.separators.byte == b'\n' => Some(line),
            _ => Some(record),
        }
    }
}

/// Positions of a byte, by masks of 64 bytes: most records are short, and a search per record would cost more than
/// the record.
#[derive(Debug)]
struct Separators<'c> {
    bytes: &'c [u8],
    byte: u8,
    mask: u64,
    /// Where the next mask begins.
    next: usize,
}

impl<'c> Separators<'c> {
    #[inline(always)]
    fn of(byte: u8, bytes: &'c [u8]) -> Self {
        Self { bytes, byte, mask: 0, next: 0 }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.mask == 0 {
            if self.next >= self.bytes.len() {
                return None;
            }
            let block = &self.bytes[self.next..];
            self.mask = match block.first_chunk() {
                Some(block) => mask_of(self.byte, block),
                None => {
                    let mut last = [!self.byte; 64];
                    last[..block.len()].copy_from_slice(block);
                    mask_of(self.byte, &last)
                }
            };
            self.next += 64;
        }
        let at = self.next - 64 + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(at)
    }
}

/// Bit `i` is set where `block[i]` is `byte`.
#[inline(always)]
fn mask_of(byte: u8, block: &[u8; 64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        let mut mask = 0u64;
        for (i, quarter) in block.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: SSE2 is part of x86-64, and 16 bytes are there.
            let bits = unsafe {
                let same = _mm_cmpeq_epi8(_mm_loadu_si128(quarter.as_ptr().cast()), _mm_set1_epi8(byte as i8));
                _mm_movemask_epi8(same) as u32
            };
            mask |= u64::from(bits) << (16 * i);
        }
        mask
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        block.iter().enumerate().fold(0, |mask, (i, b)| mask | u64::from(*b == byte) << i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(format: Format, bytes: &[u8]) -> Vec<Vec<u8>> {
        Chunk::new(bytes, format, 0, "").records().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn records_of_every_format() {
        type Row<'r> = (&'r str, &'r [u8], &'r [&'r [u8]]);
        let table: &[Row<'_>] = &[
            ("lines", b"", &[]),
            ("lines", b"\n", &[b""]),
            ("lines", b"a\nb", &[b"a", b"b"]),
            ("lines", b"a\r\n\r\nb\r", &[b"a", b"", b"b"]),
            ("lines", b"a\n\nb\n", &[b"a", b"", b"b"]),
            ("nul", b"a\r\0\n\0b", &[b"a\r", b"\n", b"b"]),
            ("fixed:2", b"abcd", &[b"ab", b"cd"]),
            ("whole", b"a\nb\n", &[b"a\nb\n"]),
        ];
        for (format, bytes, want) in table {
            let got = records(format.parse().unwrap(), bytes);
            assert_eq!(got, want.iter().map(|r| r.to_vec()).collect::<Vec<_>>(), "{format} {bytes:?}");
        }
    }

    #[test]
    fn words_and_tokens_stay_within_records() {
        let not_c = ByteSet::new(|byte| byte != b'c');
        type Row<'r> = (&'r str, &'r [u8], &'r [&'r [u8]], &'r [&'r [u8]]);
        let table: &[Row<'_>] = &[
            ("lines", b"ab\ncd", &[b"ab", b"cd"], &[b"ab", b"d"]),
            ("nul", b"ab\0cd", &[b"ab", b"cd"], &[b"ab", b"d"]),
            ("fixed:3", b"ab cdefgh", &[b"ab", b"cde", b"fgh"], &[b"ab ", b"de", b"fgh"]),
            ("whole", b"ab\ncd", &[b"ab", b"cd"], &[b"ab\n", b"d"]),
        ];
        for (format, bytes, words, tokens) in table {
            for isa in Isa::available() {
                let chunk = Chunk::new_with(bytes, format.parse().unwrap(), 0, "", isa);
                let (mut found, mut runs) = (Vec::new(), Vec::new());
                chunk.words(|word| found.push(word));
                chunk.tokens(&not_c, |token| runs.push(token));
                assert_eq!((&found[..], &runs[..]), (*words, *tokens), "{format}, {isa:?}");
            }
        }
    }

    #[test]
    fn formats_parse_and_print() {
        for text in ["lines", "whole", "nul", "fixed:100"] {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
        }
        for text in ["", "fixed", "fixed:0", "fixed:-1", "fixed:99999999999", "Lines"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
    }

    #[test]
    fn words_and_tokens_end_with_their_record() {
        let joined = |all: Vec<&[u8]>| all.iter().map(|w| w.escape_ascii().to_string()).collect::<Vec<_>>().join(" ");
        let words = |format: &str, bytes: &'static [u8]| {
            let mut all = Vec::new();
            Chunk::new(bytes, format.parse().unwrap(), 0, "").words(|w| all.push(w));
            joined(all)
        };
        assert_eq!(words("fixed:3", b"abcdef-gh"), "abc def gh");
        for (format, bytes) in [("lines", b"abc\ndef-gh" as &[u8]), ("nul", b"abc\0def-gh"), ("whole", b"abc def-gh")] {
            assert_eq!(words(format, bytes), "abc def gh", "{format}");
        }
        let all = ByteSet::new(|b| b != b'-');
        let tokens = |format: &str, bytes: &'static [u8]| {
            let mut found = Vec::new();
            Chunk::new(bytes, format.parse().unwrap(), 0, "").tokens(&all, |t| found.push(t));
            joined(found)
        };
        assert_eq!(tokens("fixed:3", b"abcdef-gh"), "abc def gh");
        assert_eq!(tokens("lines", b"abc\r\ndef-gh\n"), "abc def gh");
        assert_eq!(tokens("nul", b"abc\n\0def-gh\0"), "abc\\n def gh");
        assert_eq!(tokens("whole", b"abc\ndef-gh"), "abc\\ndef gh");
    }

    proptest! {
        #[test]
        fn chunks_hold_every_record_once(
            bytes in prop::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n'), 1 => Just(0), 1 => Just(b'\r')], 0..400),
            size in 1usize..100,
            format in prop_oneof![Just(Format::Lines), Just(Format::Nul), Just(Format::Whole), (1usize..9).prop_map(Format::Fixed)],
        ) {
            let bytes = match format { Format::Fixed(n) => &bytes[..bytes.len() / n * n], _ => &bytes[..] };
            let mut end = 0;
            let mut all = Vec::new();
            for i in 0..bytes.len().div_ceil(size) {
                let range = format.cut(bytes, i * size, (i + 1) * size);
                if !range.is_empty() {
                    prop_assert_eq!(range.start, end);
                    end = range.end;
                    all.extend(records(format, &bytes[range]));
                }
            }
            prop_assert_eq!(end, bytes.len());
            prop_assert_eq!(all, records(format, bytes));
        }
    }
}
