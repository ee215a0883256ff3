//! Words of text, as several apps count them.

use crate::app::{Chunk, Format};

/// What counts as a word.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Words {
    /// Count words that differ in case only as one, in lower case
    #[arg(long, short = 'i')]
    pub ignore_case: bool,
    /// Words of any script: runs of Unicode letters and digits; bytes that are not UTF-8 separate
    #[arg(long)]
    pub unicode: bool,
}

impl Words {
    /// Calls `f` with each word of a chunk.
    #[inline(always)]
    pub fn each(&self, chunk: &Chunk<'_>, mut f: impl FnMut(&[u8])) {
        match (self.unicode, self.ignore_case) {
            (false, false) => chunk.words(f),
            (false, true) => {
                let mut lower = Vec::new();
                chunk.words(|word| {
                    lower.clear();
                    lower.extend_from_slice(word);
                    lower.make_ascii_lowercase();
                    f(&lower);
                });
            }
            (true, ignore_case) => match chunk.format() {
                Format::Fixed(_) => chunk.records().for_each(|record| unicode(record, ignore_case, &mut f)),
                // What ends their records is in no word.
                Format::Lines | Format::Nul | Format::Whole => unicode(chunk.bytes(), ignore_case, &mut f),
            },
        }
    }
}

fn unicode(bytes: &[u8], ignore_case: bool, f: &mut dyn FnMut(&[u8])) {
    for text in bytes.utf8_chunks() {
        for word in text.valid().split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            if ignore_case { f(word.to_lowercase().as_bytes()) } else { f(word.as_bytes()) }
        }
    }
}

/// Puts a name where lists are separated by `,`: that, `%` and control characters are escaped as in URLs.
pub(crate) fn put_name(name: &[u8], put: impl FnMut(&[u8])) {
    escaped(name, |b| matches!(b, b',' | b'%') || b.is_ascii_control(), put);
}

/// Puts text that is read up to a TAB or the end of the line: control characters are escaped as in URLs.
pub(crate) fn put_text(text: &[u8], put: impl FnMut(&[u8])) {
    escaped(text, |b| b.is_ascii_control(), put);
}

fn escaped(text: &[u8], special: impl Fn(u8) -> bool, mut put: impl FnMut(&[u8])) {
    let mut rest = text;
    while !rest.is_empty() {
        let n = rest.iter().position(|b| special(*b)).unwrap_or(rest.len());
        put(&rest[..n]);
        rest = &rest[n..];
        if let Some((byte, others)) = rest.split_first() {
            put(format!("%{byte:02X}").as_bytes());
            rest = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[u8], ignore_case: bool, unicode: bool) -> Vec<String> {
        let chunk = Chunk::new(text, Format::Lines, 0, "");
        let mut all = Vec::new();
        Words { ignore_case, unicode }.each(&chunk, |w| all.push(String::from_utf8_lossy(w).into_owned()));
        all
    }

    #[test]
    fn words_of_each_kind() {
        let text = "Don't \u{c9}t\u{e9} x_1 \u{a0}B2".as_bytes();
        assert_eq!(words(text, false, false), ["Don", "t", "t", "x", "1", "B2"]);
        assert_eq!(words(text, true, false), ["don", "t", "t", "x", "1", "b2"]);
        assert_eq!(words(text, false, true), ["Don", "t", "\u{c9}t\u{e9}", "x", "1", "B2"]);
        assert_eq!(words(text, true, true), ["don", "t", "\u{e9}t\u{e9}", "x", "1", "b2"]);
        assert_eq!(words(b"ab\xffcd", false, true), ["ab", "cd"]);
    }
}
