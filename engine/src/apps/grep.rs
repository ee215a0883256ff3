//! Distributed grep (OSDI 2004, section 2.3): what matches a regular expression, counted, or the lines that match.
//!
//! A match never spans records. Where the expression allows, a whole chunk is searched at once, which is as fast as
//! the searcher can go: line feeds are taken out of its classes and its anchors are those of lines. Otherwise, and
//! for other formats than lines, each record is searched by itself.

use regex_automata::meta::Regex;
use regex_syntax::hir::{Class, ClassBytesRange, ClassUnicodeRange, Hir, HirKind, Look};

use crate::app::{App, Bytes, Chunk, Emit, Format, Output, Shuffle, Values};
use crate::job::{AppJob, Job};

/// Count what matches a regular expression, or print the lines that match
///
/// Prints match, TAB, count; with --lines the matching records in input order. Syntax: that of Rust's regex crate.
#[derive(Clone, Debug, clap::Args)]
pub struct Grep {
    /// Regular expression
    pub pattern: String,
    /// Print matching records instead of counts; lines that end in CR LF come out with LF
    #[arg(long)]
    pub lines: bool,
    /// Print the input's name and a colon before each record
    #[arg(long, short = 'H', requires = "lines")]
    pub with_filename: bool,
    /// Records that do not match
    #[arg(long, short = 'v', requires = "lines")]
    pub invert_match: bool,
    /// Letters match whatever their case
    #[arg(long, short)]
    pub ignore_case: bool,
    /// The pattern is a plain string
    #[arg(long, short = 'F')]
    pub fixed_string: bool,
}

impl Grep {
    pub(super) fn job(self) -> Result<Box<dyn Job>, String> {
        let search = Search::new(&self)?;
        Ok(if self.lines {
            Box::new(AppJob(Lines { search, names: self.with_filename, invert: self.invert_match }))
        } else {
            Box::new(AppJob(Count { search }))
        })
    }
}

/// A compiled expression.
struct Search {
    /// For a record by itself, whatever it holds.
    record: Regex,
    /// For lines, and for chunks of them as a whole, where the expression allows.
    lines: Option<Regex>,
}

impl Search {
    fn new(flags: &Grep) -> Result<Self, String> {
        let pattern = if flags.fixed_string { regex_syntax::escape(&flags.pattern) } else { flags.pattern.clone() };
        let parse = |s: &str| {
            regex_syntax::ParserBuilder::new()
                .utf8(false)
                .multi_line(true)
                .crlf(true)
                .case_insensitive(flags.ignore_case)
                .build()
                .parse(s)
                .map_err(|e| format!("pattern '{}': {}", flags.pattern, last_line(&e.to_string())))
        };
        let hir = parse(&pattern)?;
        let compile = |hir: &Hir| {
            Regex::builder()
                .configure(Regex::config().utf8_empty(false).nfa_size_limit(Some(64 << 20)))
                .build_from_hir(hir)
                .map_err(|e| format!("pattern '{}': {e}", flags.pattern))
        };
        let within = within_lines(&hir);
        Ok(Self { record: compile(&hir)?, lines: within.as_ref().map(compile).transpose()? })
    }

    /// What to search the records of a chunk with.
    fn regex(&self, format: Format) -> &Regex {
        self.lines.as_ref().filter(|_| format == Format::Lines).unwrap_or(&self.record)
    }

    fn by_chunk(&self, chunk: &Chunk<'_>) -> bool {
        self.lines.is_some() && chunk.format() == Format::Lines
    }
}

/// The last line of a message of several, which holds its sense.
fn last_line(message: &str) -> &str {
    let line = message.lines().last().unwrap_or(message);
    line.strip_prefix("error: ").unwrap_or(line)
}

/// The expression with line ends taken out of its classes, if it then matches the same in a text as in its lines.
fn within_lines(hir: &Hir) -> Option<Hir> {
    let ends = |bytes: &[u8]| bytes.iter().any(|b| matches!(b, b'\n' | b'\r'));
    Some(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if ends(&literal.0) => return None,
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(class) => Hir::class(without_ends(class)),
        // The text's start and end are not those of its lines, and a line may end in CR LF.
        HirKind::Look(Look::Start | Look::End | Look::EndLF) => return None,
        HirKind::Look(look) => Hir::look(*look),
        HirKind::Repetition(r) => {
            let mut inner = r.clone();
            inner.sub = Box::new(within_lines(&r.sub)?);
            Hir::repetition(inner)
        }
        HirKind::Capture(c) => within_lines(&c.sub)?,
        HirKind::Concat(all) => Hir::concat(all.iter().map(within_lines).collect::<Option<_>>()?),
        HirKind::Alternation(all) => Hir::alternation(all.iter().map(within_lines).collect::<Option<_>>()?),
    })
}

fn without_ends(class: &Class) -> Class {
    let mut class = class.clone();
    match &mut class {
        Class::Unicode(set) => {
            let ends = [ClassUnicodeRange::new('\n', '\n'), ClassUnicodeRange::new('\r', '\r')];
            set.difference(&regex_syntax::hir::ClassUnicode::new(ends));
        }
        Class::Bytes(set) => {
            let ends = [ClassBytesRange::new(b'\n', b'\n'), ClassBytesRange::new(b'\r', b'\r')];
            set.difference(&regex_syntax::hir::ClassBytes::new(ends));
        }
    }
    class
}

/// How often each match occurs.
struct Count {
    search: Search,
}

impl App for Count {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let regex = self.search.regex(chunk.format());
        let mut count = |text: &[u8]| {
            for found in regex.find_iter(text).filter(|m| !m.is_empty()) {
                out.emit(&text[found.range()], 1);
            }
        };
        if self.search.by_chunk(chunk) {
            count(chunk.bytes());
        } else {
            chunk.records().for_each(count);
        }
    }

    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        out.pair(key, values.iter().sum());
    }
}

/// The records that match, in the order of the input: their keys are input and offset.
struct Lines {
    search: Search,
    names: bool,
    invert: bool,
}

impl App for Lines {
    type Value = Bytes;
    const SHUFFLE: Shuffle = Shuffle::Sort;

    fn map<E: Emit<Bytes>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let mut put = |record: &[u8]| {
            let at = chunk.offset() + (record.as_ptr() as usize - chunk.bytes().as_ptr() as usize) as u64;
            let mut key = [0; 12];
            key[..4].copy_from_slice(&chunk.input().to_be_bytes());
            key[4..].copy_from_slice(&at.to_be_bytes());
            out.emit(&key, record);
        };
        let regex = self.search.regex(chunk.format());
        if !self.invert && self.search.by_chunk(chunk) {
            let text = chunk.bytes();
            let mut at = 0;
            while let Some(found) = regex.find(regex_automata::Input::new(text).range(at..)) {
                let start = memchr::memrchr(b'\n', &text[..found.start()]).map_or(0, |n| n + 1);
                let end = memchr::memchr(b'\n', &text[found.start()..]).map_or(text.len(), |n| found.start() + n);
                let line = text[start..end].strip_suffix(b"\r").unwrap_or(&text[start..end]);
                // An empty match behind the last line feed is on no line, and one behind a CR may be none of its line.
                if start < text.len() && (!found.is_empty() || regex.is_match(line)) {
                    put(line);
                }
                at = end + 1;
                if at >= text.len() {
                    break;
                }
            }
            return;
        }
        for record in chunk.records() {
            if regex.is_match(record) != self.invert {
                put(record);
            }
        }
    }

    fn reduce<V: Values<Bytes>>(&self, key: &[u8], records: &mut V, out: &mut Output<'_>) {
        while let Some(record) = records.next() {
            if let (true, Some(input)) = (self.names, key.first_chunk::<4>()) {
                out.put(out.input_name(u32::from_be_bytes(*input)).as_bytes());
                out.put(b":");
            }
            out.record(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(pattern: &str) -> Search {
        let flags = Grep {
            pattern: pattern.into(),
            lines: false,
            with_filename: false,
            invert_match: false,
            ignore_case: false,
            fixed_string: false,
        };
        Search::new(&flags).unwrap()
    }

    fn found(search: &Search, text: &[u8]) -> Vec<Vec<u8>> {
        search
            .regex(Format::Lines)
            .find_iter(text)
            .filter(|m| !m.is_empty())
            .map(|m| text[m.range()].to_vec())
            .collect()
    }

    #[test]
    fn searching_a_chunk_finds_what_its_lines_hold() {
        let text = b"one two\n\n\ttwo  three\r\nthree\xff one";
        let lines = |s: &Search| {
            let chunk = Chunk::new(text, Format::Lines, 0, "");
            chunk.records().flat_map(|r| found(s, r)).collect::<Vec<_>>()
        };
        for pattern in [
            "two",
            r"o\w*",
            r"\s+",
            r"[^o]+",
            ".*",
            "(?s).*",
            r"^\w+",
            r"\w+$",
            r"(?s)one.*three",
            "e|two  t",
            r"\bthree\b",
            r"(?-u:\xff)",
            "(t)(w)(o)",
            "t{1,2}",
        ] {
            let s = search(pattern);
            assert!(s.lines.is_some(), "{pattern}");
            assert_eq!(found(&s, text), lines(&s), "{pattern}");
        }
        for pattern in [r"\Aone", r"one\z", r"two\n", r"(?-R)three$"] {
            assert!(search(pattern).lines.is_none(), "{pattern}");
        }
    }
}
