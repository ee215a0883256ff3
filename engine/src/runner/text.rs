//! Records of text, as scripts read and write them: lines, divided into key and value at a separator.
//!
//! [`Text`] is Hadoop Streaming's contract as data. [`Pairs`] is the app that takes lines apart, brings keys together and
//! puts lines together again; the scripts themselves run before it ([`super::feed`]) and behind it ([`super::job`]).

use std::sync::Arc;

use super::keys::{Comparator, Partition, find, part_before, width};
use super::packed;
use crate::app::{App, Bytes, Chunk, Emit, Output, Shuffle, Values};
use crate::error::Error;

/// A line of a script may be this long, in bytes. A bound on memory.
pub(crate) const LONGEST_LINE: usize = 256 << 20;

/// Where a line is divided into key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// What stands between fields, of one byte or more.
    pub separator: Vec<u8>,
    /// How many of them are the key. A line with no more is all key, and its value empty.
    pub keys: u32,
}

impl Default for Fields {
    fn default() -> Self {
        Self { separator: b"\t".to_vec(), keys: 1 }
    }
}

impl Fields {
    /// The key of a line, and its value if it has one.
    #[inline]
    pub(crate) fn split<'l>(&self, line: &'l [u8]) -> (&'l [u8], Option<&'l [u8]>) {
        let mut at = 0;
        for n in 1..=self.keys {
            let Some(found) = find(&line[at..], &self.separator) else { break };
            if n == self.keys {
                return (&line[..at + found], Some(&line[at + found + self.separator.len()..]));
            }
            at += found + self.separator.len();
        }
        (line, None)
    }
}

/// What a mapper reads of the input's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fed {
    /// The lines as they are (`TextInputFormat`).
    #[default]
    Lines,
    /// Key and value of each (`KeyValueTextInputFormat`), which are divided at the first separator.
    Pairs {
        /// What divides the input's lines.
        separator: Vec<u8>,
        /// What stands between key and value for the mapper.
        between: Vec<u8>,
    },
}

/// How lines of the output are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What stands between key and value.
    pub separator: Vec<u8>,
    /// A line without a value has no separator at its end either.
    pub bare: bool,
    /// A line is all key.
    pub key_only: bool,
}

impl Default for Written {
    fn default() -> Self {
        Self { separator: b"\t".to_vec(), bare: false, key_only: false }
    }
}

impl Written {
    /// Appends a line of the output, from a line that a script wrote.
    pub(crate) fn line(&self, line: &[u8], fields: &Fields, out: &mut Vec<u8>) {
        let (key, value) = if self.key_only { (line, None) } else { fields.split(line) };
        self.pair(key, value, out);
        out.push(b'\n');
    }

    fn pair(&self, key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        if value.is_some() || !(self.bare || self.key_only) {
            out.extend_from_slice(&self.separator);
        }
        out.extend_from_slice(value.unwrap_or_default());
    }
}

/// How a job's lines are taken apart, brought together and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// What mappers read.
    pub fed: Fed,
    /// Where lines of mappers are divided.
    pub mapped: Fields,
    /// What stands between key and value for reducers and combiners.
    pub between: Between,
    /// Where lines of reducers and combiners are divided.
    pub reduced: Fields,
    /// How the output is written.
    pub written: Written,
    /// Which part a key belongs to.
    pub partition: Partition,
    /// What keys are sorted by.
    pub comparator: Comparator,
}

/// What stands between key and value; a tab, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Between(pub Vec<u8>);

impl Default for Between {
    fn default() -> Self {
        Self(b"\t".to_vec())
    }
}

/// Calls `f` with each line. Lines end at LF, CR or CRLF; the last one need not.
#[inline(always)]
pub(crate) fn lines<'b>(mut bytes: &'b [u8], mut f: impl FnMut(&'b [u8])) {
    while !bytes.is_empty() {
        let Some(at) = memchr::memchr2(b'\n', b'\r', bytes) else { return f(bytes) };
        f(&bytes[..at]);
        let ends = if bytes[at..].starts_with(b"\r\n") { 2 } else { 1 };
        bytes = &bytes[at + ends..];
    }
}

/// Lines that come in blocks. Their length was seen to when they were written.
#[derive(Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

impl Lines {
    /// Calls `f` with whole lines, one or more at a time.
    pub(crate) fn push(&mut self, block: &[u8], mut f: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        // Up to a line feed: a carriage return at a block's end may have one behind it.
        let Some(last) = memchr::memrchr(b'\n', block) else {
            self.rest.extend_from_slice(block);
            return Ok(());
        };
        let mut whole = &block[..=last];
        if !self.rest.is_empty() {
            let first = memchr::memchr(b'\n', whole).map_or(whole.len(), |at| at + 1);
            self.rest.extend_from_slice(&whole[..first]);
            whole = &whole[first..];
            f(&self.rest)?;
            self.rest.clear();
        }
        if !whole.is_empty() {
            f(whole)?;
        }
        self.rest.extend_from_slice(&block[last + 1..]);
        Ok(())
    }

    /// The last line, if no end of it came.
    pub(crate) fn finish(self, f: impl FnOnce(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { f(&self.rest) }
    }
}

/// What code reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Lines, which hold a key and a value.
    Text(Arc<Text>),
    /// Keys and values (see [`super::packed`]), and finished lines where they are the output.
    Packed,
}

/// What becomes of a key and its values when they are together.
pub(crate) enum Then {
    /// Lines for a script, with this between key and value.
    Script(Vec<u8>),
    /// Lines of the output.
    Output(Written),
}

/// The app that brings the keys of pairs together.
pub(crate) enum Pairs {
    /// Lines that are divided into pairs.
    Text(TextPairs),
    /// Packed ones, with the number of their part in so many bytes of the key.
    Packed {
        /// How many.
        width: usize,
    },
}

/// Lines as pairs.
pub(crate) struct TextPairs {
    text: Arc<Text>,
    fields: Fields,
    then: Then,
    parts: u32,
    width: usize,
}

impl Pairs {
    /// Pairs of lines divided so, in `parts` parts.
    pub(crate) fn of_text(text: Arc<Text>, fields: Fields, then: Then, parts: u32) -> Self {
        Self::Text(TextPairs { text, fields, then, parts, width: width(parts) })
    }

    /// Pairs of packed records, in `parts` parts.
    pub(crate) fn packed(parts: u32) -> Self {
        Self::Packed { width: width(parts) }
    }

    fn width(&self) -> usize {
        match self {
            Self::Text(text) => text.width,
            Self::Packed { width } => *width,
        }
    }
}

impl TextPairs {
    /// Whether a key is given to the engine as it is.
    fn is_plain(&self) -> bool {
        self.text.comparator == Comparator::Bytes
    }

    /// What the engine sorts a key by.
    fn encode(&self, key: &[u8], out: &mut Vec<u8>) {
        out.clear();
        if self.width > 0 {
            let part = self.text.partition.of(key, self.parts);
            out.extend_from_slice(&part.to_be_bytes()[4 - self.width..]);
        }
        self.text.comparator.encode(key, out);
    }

    fn write(&self, key: &[u8], value: &[u8], line: &mut Vec<u8>) {
        match &self.then {
            Then::Script(between) => {
                line.extend_from_slice(key);
                line.extend_from_slice(between);
                line.extend_from_slice(value);
            }
            Then::Output(written) => {
                let bare = written.bare || written.key_only;
                written.pair(key, (!value.is_empty() || !bare).then_some(value), line);
            }
        }
    }
}

impl App for Pairs {
    type Value = Bytes;
    const SHUFFLE: Shuffle = Shuffle::Group;
    const PARTITIONS: bool = true;

    fn map<E: Emit<Bytes>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        match self {
            Self::Text(text) => text.map(chunk, out),
            Self::Packed { .. } => {
                let left = packed::each(chunk.bytes(), |key, value| out.emit(key, value));
                debug_assert!(left.is_empty(), "chunks hold whole records");
            }
        }
    }

    fn partition(&self, key: &[u8], _: u32) -> u32 {
        part_before(key, self.width())
    }

    fn reduce<V: Values<Bytes>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        match self {
            Self::Text(text) => text.reduce(key, values, out),
            Self::Packed { width } => {
                let key = key.get(*width..).unwrap_or_default();
                while let Some(value) = values.next() {
                    out.framed(key, |buf| buf.extend_from_slice(value));
                }
            }
        }
    }
}

impl TextPairs {
    fn map<E: Emit<Bytes>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let (mut made, mut carried) = (Vec::new(), Vec::new());
        let (plain, as_it_is) = (self.is_plain(), self.is_plain() && self.width == 0);
        lines(chunk.bytes(), |line| {
            let (key, value) = self.fields.split(line);
            let value = value.unwrap_or_default();
            if as_it_is {
                return out.emit(key, value);
            }
            self.encode(key, &mut made);
            if plain {
                return out.emit(&made, value);
            }
            // Of a key that compares equal to others only what it sorts by is left: it goes with the value.
            carried.clear();
            carried.extend_from_slice(&(key.len() as u32).to_le_bytes());
            carried.extend_from_slice(key);
            carried.extend_from_slice(value);
            out.emit(&made, &carried);
        });
    }

    fn reduce<V: Values<Bytes>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        let (plain, mut line) = (self.is_plain(), Vec::new());
        while let Some(value) = values.next() {
            line.clear();
            if plain {
                self.write(key.get(self.width..).unwrap_or_default(), value, &mut line);
            } else {
                let (len, rest) = value.split_first_chunk().unwrap_or((&[0; 4], value));
                let (key, value) = rest.split_at(rest.len().min(u32::from_le_bytes(*len) as usize));
                self.write(key, value, &mut line);
            }
            out.line(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_divided_at_the_nth_separator() {
        let by = |separator: &str, keys| Fields { separator: separator.into(), keys };
        let split = |fields: Fields, line: &'static str| {
            let (key, value) = fields.split(line.as_bytes());
            (key.escape_ascii().to_string(), value.map(|v| v.escape_ascii().to_string()))
        };
        let pair = |key: &str, value: Option<&str>| (key.to_string(), value.map(String::from));
        assert_eq!(split(Fields::default(), "k\tv\tw"), pair("k", Some("v\\tw")));
        assert_eq!(split(Fields::default(), "k\t"), pair("k", Some("")));
        assert_eq!(split(Fields::default(), "k"), pair("k", None));
        assert_eq!(split(Fields::default(), "\tv"), pair("", Some("v")));
        assert_eq!(split(by(".", 2), "a.b.c.d"), pair("a.b", Some("c.d")));
        assert_eq!(split(by(".", 4), "a.b.c.d"), pair("a.b.c.d", None));
        assert_eq!(split(by("::", 1), "a:b::c"), pair("a:b", Some("c")));
        assert_eq!(split(by(".", 0), "a.b"), pair("a.b", None));
    }

    #[test]
    fn lines_end_at_any_of_three_ends() {
        let all = |text: &'static str| {
            let mut all = Vec::new();
            lines(text.as_bytes(), |line| all.push(String::from_utf8_lossy(line).into_owned()));
            all
        };
        assert_eq!(all("a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
        assert_eq!(all("\n\r\n\r"), ["", "", ""]);
        assert_eq!(all(""), [""; 0]);
    }

    #[test]
    fn blocks_are_cut_at_lines() {
        let text = b"one\r\ntwo\nthree\n\nfour\r\nfive";
        for size in 1..text.len() + 1 {
            let (mut cut, mut got) = (Lines::default(), Vec::new());
            let mut take = |bytes: &[u8]| {
                lines(bytes, |line| got.push(String::from_utf8_lossy(line).into_owned()));
                Ok(())
            };
            for block in text.chunks(size) {
                cut.push(block, &mut take).unwrap();
            }
            cut.finish(&mut take).unwrap();
            assert_eq!(got, ["one", "two", "three", "", "four", "five"], "blocks of {size}");
        }
    }

    #[test]
    fn a_line_without_a_value_ends_in_a_separator_unless_told_otherwise() {
        let write = |written: &Written, line: &str| {
            let mut out = Vec::new();
            written.line(line.as_bytes(), &Fields::default(), &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        let plain = Written::default();
        let bare = Written { bare: true, ..Written::default() };
        let other = Written { separator: b": ".to_vec(), ..Written::default() };
        let key_only = Written { key_only: true, ..Written::default() };
        assert_eq!([write(&plain, "k\tv"), write(&plain, "k"), write(&plain, "k\t")], ["k\tv\n", "k\t\n", "k\t\n"]);
        assert_eq!([write(&bare, "k\tv"), write(&bare, "k"), write(&bare, "k\t")], ["k\tv\n", "k\n", "k\t\n"]);
        assert_eq!([write(&other, "k\tv"), write(&other, "k")], ["k: v\n", "k: \n"]);
        assert_eq!([write(&key_only, "k\tv"), write(&key_only, "k")], ["k\tv\n", "k\n"]);
    }
}
