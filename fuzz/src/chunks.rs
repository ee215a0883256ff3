//! The chunk splitter: any bytes, any chunk size, any format. Chunks one after the other are the input, their records
//! are those of a splitter that reads byte by byte, and their words do not depend on the instruction set.
//!
//! Input: format, its record length, chunk size (two bytes), text.

use gristmill_engine::app::{ByteSet, Format};
use gristmill_engine::data::words::Isa;
use gristmill_engine::fuzz;

use crate::bytes::Bytes;

/// Cuts the input every way and compares.
pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let (format, size) = (data.byte(), usize::from(data.byte()) + 1);
    let format = [Format::Lines, Format::Nul, Format::Whole, Format::Fixed(size)][usize::from(format % 4)];
    let size = data.number().max(1);
    let text = match format {
        Format::Fixed(n) => &data.0[..data.0.len() / n * n],
        _ => data.0,
    };
    let want = records(format, text);
    assert_eq!(cut(format, text, size), want, "{format}, chunks of {size}");
    if format != Format::Whole {
        assert_eq!(streamed(format, text, size), want, "{format}, read by {size}");
    }
    check_words(&want, format, text, data.0.len() as u8);
}

type Records<'t> = Vec<&'t [u8]>;

/// The records of chunks as a job cuts a mapped file.
fn cut(format: Format, text: &[u8], size: usize) -> Records<'_> {
    let (mut all, mut end) = (Vec::new(), 0);
    for start in (0..text.len()).step_by(size) {
        let range = fuzz::cut(format, text, start, start + size);
        if !range.is_empty() {
            assert_eq!(range.start, end, "chunks follow each other");
            end = range.end;
            all.extend(fuzz::chunk(&text[range], format, Isa::best()).records());
        }
    }
    assert_eq!(end, text.len(), "chunks are all of the input");
    all
}

/// The records of chunks as a job cuts a stream that gives `size` bytes at a time.
fn streamed(format: Format, text: &[u8], size: usize) -> Records<'_> {
    let (mut all, mut from) = (Vec::new(), 0);
    for end in (0..text.len()).step_by(size).map(|at| (at + size).min(text.len())) {
        let whole = fuzz::complete(format, &text[from..end]);
        all.extend(fuzz::chunk(&text[from..from + whole], format, Isa::best()).records());
        from += whole;
    }
    all.extend(fuzz::chunk(&text[from..], format, Isa::best()).records());
    all
}

/// The records as they are defined.
fn records(format: Format, text: &[u8]) -> Records<'_> {
    let (mut all, mut start) = (Vec::new(), 0);
    for at in 0..text.len() {
        let (end, next) = match format {
            Format::Lines if text[at] == b'\n' => (at, at + 1),
            Format::Nul if text[at] == 0 => (at, at + 1),
            Format::Fixed(n) if at + 1 - start == n => (at + 1, at + 1),
            _ if at + 1 == text.len() => (at + 1, at + 1),
            _ => continue,
        };
        let record = &text[start..end];
        let carriage = format == Format::Lines && record.ends_with(b"\r");
        all.push(if carriage { &record[..record.len() - 1] } else { record });
        start = next;
    }
    all
}

/// Words of records and tokens of a text, of every instruction set, against runs found byte by byte.
fn check_words(records: &[&[u8]], format: Format, text: &[u8], class: u8) {
    let set = ByteSet::new(|byte| byte & 7 == class & 7 || byte == class);
    let alphanumeric: Records<'_> = records.iter().flat_map(|r| runs(r, |byte| byte.is_ascii_alphanumeric())).collect();
    for isa in Isa::available() {
        let (mut words, mut tokens) = (Vec::new(), Vec::new());
        fuzz::chunk(text, format, isa).words(|word| words.push(word));
        fuzz::chunk(text, Format::Whole, isa).tokens(&set, |token| tokens.push(token));
        assert_eq!(words, alphanumeric, "words, {isa:?}");
        assert_eq!(tokens, runs(text, |byte| set.contains(byte)), "tokens, {isa:?}");
    }
}

fn runs(text: &[u8], member: impl Fn(u8) -> bool) -> Records<'_> {
    text.split(|byte| !member(*byte)).filter(|run| !run.is_empty()).collect()
}
