//! The reverse web-link graph: for each target, the documents that link to it (OSDI 2004, section 2.3).

use std::collections::HashSet;

use regex::bytes::Regex;

use super::text::{put_name, put_text};
use crate::app::{App, Bytes, Chunk, Emit, Format, Output, Shuffle, Values};
use crate::job::{AppJob, Job};

/// List the sources that link to each target
///
/// Links are the href attributes of HTML documents, without fragments; a source is an input file. Prints target, TAB,
/// and its sources separated by commas, each once, in the order of the input; commas, percent signs and control
/// characters in sources are written as %XX, as are control characters in targets. A link must lie within a record,
/// which is a whole file unless --input-format says otherwise.
#[derive(Clone, Debug, clap::Args)]
pub struct ReverseLinks {
    /// Input is lines of source, TAB, target instead of HTML
    #[arg(long)]
    pub edges: bool,
}

/// The app with what it needs ready.
struct Links {
    edges: bool,
    href: Regex,
}

impl ReverseLinks {
    pub(super) fn job(self) -> Result<Box<dyn Job>, String> {
        let href = r##"(?i-u)\shref\s*=\s*(?:"([^"#]*)|'([^'#]*)|([^\s"'>#]+))"##;
        let href = Regex::new(href).map_err(|e| e.to_string())?;
        Ok(Box::new(AppJob(Links { edges: self.edges, href })))
    }
}

impl App for Links {
    type Value = Bytes;
    const SHUFFLE: Shuffle = Shuffle::Group;

    fn map<E: Emit<Bytes>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        if self.edges {
            for line in chunk.records() {
                match memchr::memchr(b'\t', line) {
                    Some(tab) => out.emit(&line[tab + 1..], &line[..tab]),
                    None => out.bad_record(line, "no TAB between source and target"),
                }
            }
            return;
        }
        for link in chunk.records().flat_map(|record| self.href.captures_iter(record)) {
            let target = (1..=3).find_map(|group| link.get(group)).map_or(&b""[..], |m| m.as_bytes());
            if !target.trim_ascii().is_empty() {
                out.emit(target.trim_ascii(), chunk.input_name().as_bytes());
            }
        }
    }

    fn reduce<V: Values<Bytes>>(&self, target: &[u8], sources: &mut V, out: &mut Output<'_>) {
        put_text(target, |text| out.put(text));
        let mut separator = b"\t";
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        let mut last = Vec::new();
        while let Some(source) = sources.next() {
            // One document often links to the same target again and again.
            if (last == source && !seen.is_empty()) || seen.contains(source) {
                continue;
            }
            out.put(separator);
            separator = b",";
            put_name(source, |text| out.put(text));
            seen.insert(source.into());
            last.clear();
            last.extend_from_slice(source);
        }
        out.put(b"\n");
        out.end();
    }

    fn format(&self) -> Format {
        if self.edges { Format::Lines } else { Format::Whole }
    }
}
