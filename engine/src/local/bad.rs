//! Bad records: which of them are passed over, and which one fails the job.
//!
//! A job that passes over `n` fails for the next one in input order, whichever a thread meets first. So a job that has
//! met too many maps on up to the one that it would fail for: what lies before may hold others. What lies behind is
//! left out.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::app::Chunk;
use crate::data::emit::Bad;
use crate::data::output::lock;
use crate::error::{Error, excerpt};

/// Where something is in the input, to be compared: unit, input, offset, and number within its chunk.
type Place = (u64, u32, u64, usize);

/// A bad record.
#[derive(serde::Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct BadRecord {
    #[serde(skip)]
    place: Place,
    input: String,
    offset: u64,
    reason: String,
    /// The record's bytes, with those that are not printable ASCII escaped as in Rust.
    #[serde(serialize_with = "escaped")]
    record: Vec<u8>,
}

fn escaped<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&bytes.escape_ascii())
}

/// The first bad records that were met.
pub(super) struct BadRecords {
    /// How many are passed over.
    most: u64,
    /// Those, and one more if there is one.
    first: Mutex<BTreeSet<BadRecord>>,
    /// The unit of that one.
    last_unit: AtomicU64,
    /// Whether that one fails the run. Of a task it does not: the job decides, which knows those of all tasks.
    fails: bool,
}

impl BadRecords {
    pub(super) fn new(most: u64) -> Self {
        Self { most, first: Mutex::default(), last_unit: AtomicU64::new(u64::MAX), fails: true }
    }

    /// Those of a task.
    pub(super) fn of_task(self) -> Self {
        Self { fails: false, ..self }
    }

    /// Takes over what a chunk of a unit had.
    #[cold]
    pub(super) fn take(&self, unit: u64, chunk: &Chunk<'_>, bad: Vec<Bad>) {
        let mut first = lock(&self.first);
        for (n, Bad { at, reason, record }) in bad.into_iter().enumerate() {
            let offset = chunk.offset() + at as u64;
            let place = (unit, chunk.input(), offset, n);
            first.insert(BadRecord { place, input: chunk.input_name().into(), offset, reason, record });
            if first.len() as u64 > self.most.saturating_add(1) {
                first.pop_last();
            }
        }
        if let Some(fatal) = self.fatal(&first) {
            self.last_unit.store(fatal.place.0, Ordering::Relaxed);
        }
    }

    /// The record that fails the job, unless another one before it is met.
    fn fatal<'b>(&self, first: &'b BTreeSet<BadRecord>) -> Option<&'b BadRecord> {
        (first.len() as u64 > self.most).then(|| first.last()).flatten()
    }

    /// Whether the job fails for a record of an earlier unit.
    pub(super) fn are_before(&self, unit: u64) -> bool {
        self.last_unit.load(Ordering::Relaxed) < unit
    }

    /// Whether the job fails for a record before the end of a chunk.
    pub(super) fn are_before_end(&self, unit: u64, chunk: &Chunk<'_>) -> bool {
        let end = (unit, chunk.input(), chunk.offset() + chunk.bytes().len() as u64, 0);
        self.last_unit.load(Ordering::Relaxed) <= unit
            && self.fatal(&lock(&self.first)).is_some_and(|fatal| fatal.place < end)
    }

    /// The error, once all before it was mapped.
    pub(super) fn outcome(&self) -> Result<(), Error> {
        let first = lock(&self.first);
        let fatal = self.fatal(&first).filter(|_| self.fails);
        let Some(BadRecord { input, offset, reason, record, .. }) = fatal else { return Ok(()) };
        let (name, reason, excerpt) = (input.clone(), reason.clone(), excerpt(record));
        Err(Error::BadRecord { name, offset: *offset, reason, excerpt })
    }

    pub(super) fn count(&self) -> u64 {
        lock(&self.first).len() as u64
    }

    /// All of them in input order, each as a line of JSON.
    pub(super) fn lines(&self) -> serde_json::Result<Vec<u8>> {
        let mut lines = Vec::new();
        for record in lock(&self.first).iter() {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// A line of a file of bad records.
#[derive(serde::Deserialize)]
struct Line {
    input: String,
    offset: u64,
    reason: String,
    record: String,
}

/// The error of the bad record with this number, from 0 on, in a file of them; `None` if it has fewer, or is none.
pub(crate) fn error_of(lines: &[u8], number: usize) -> Option<Error> {
    let line = lines.split(|byte| *byte == b'\n').nth(number)?;
    let Line { input: name, offset, reason, record } = serde_json::from_slice(line).ok()?;
    Some(Error::BadRecord { name, offset, reason, excerpt: excerpt(&unescaped(&record)) })
}

/// The reverse of how records are escaped.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, taken) = match (first, after) {
            (b'\\', [b'x', high, low, ..]) => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16).unwrap_or(0) as u8;
                (digit(high) << 4 | digit(low), 4)
            }
            (b'\\', [escaped, ..]) => (
                match escaped {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    same => *same,
                },
                2,
            ),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_error_that_the_record_would_have_been() {
        let record: Vec<u8> = (0..=255).rev().collect();
        assert_eq!(unescaped(&record.escape_ascii().to_string()), record);
        let bad = |offset, record: &[u8]| {
            let (place, input, reason) = ((0, 0, offset, 0), "in/a".into(), "it \"broke\"".into());
            BadRecord { place, input, offset, reason, record: record.into() }
        };
        let all = BadRecords::new(1);
        lock(&all.first).extend([bad(7, b"a"), bad(9, &record)]);
        let (lines, error) = (all.lines().unwrap(), all.outcome().unwrap_err());
        assert_eq!(error_of(&lines, 1).unwrap().to_string(), error.to_string());
        assert!(error_of(&lines, 0).unwrap().to_string().contains("in/a at byte 7"));
        assert!(error_of(&lines, 2).is_none() && error_of(b"{", 0).is_none());
        assert!(all.of_task().outcome().is_ok(), "for the job to decide");
    }
}
