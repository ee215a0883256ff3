//! What reducers write into ([`Output`]), and parts made of pieces that are finished out of order (`Part`).
//!
//! Pieces of one part are reduced by several threads at once. A piece is written as soon as those before it have
//! been; until then it waits in memory. Bytes therefore do not depend on threads. Where output goes is the business
//! of `Sink`; committing a folder of parts is that of `commit`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use super::compress::Encoder;

/// Bytes after which a reducer's output is handed on, where it may be.
const FLUSH: usize = 1 << 20;

/// Takes a full buffer and leaves it empty.
type Flush<'f> = dyn FnMut(&mut Vec<u8>) + 'f;

/// Where [`crate::app::App::reduce`] writes. A record is what is put until [`Output::end`]; `pair` and the like do
/// both.
pub struct Output<'o> {
    pub(crate) buf: Vec<u8>,
    pub(crate) records: u64,
    names: &'o [String],
    /// What ends a record of the input.
    separator: Option<u8>,
    /// Takes full buffers while a group is still being reduced.
    flush: Option<&'o mut Flush<'o>>,
    top: Option<Top>,
}

impl<'o> Output<'o> {
    pub(crate) fn new(names: &'o [String], separator: Option<u8>, top: Option<usize>) -> Self {
        Self { buf: Vec::new(), records: 0, names, separator, flush: None, top: top.map(Top::new) }
    }

    /// Hands on full buffers, unless records must be ranked first.
    pub(crate) fn flushing(mut self, flush: &'o mut Flush<'o>) -> Self {
        self.flush = self.top.is_none().then_some(flush);
        self.buf.reserve(FLUSH);
        self
    }

    /// Appends to the current record.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) {
        if self.buf.capacity() - self.buf.len() < bytes.len() {
            self.full(bytes.len());
        }
        self.buf.extend_from_slice(bytes);
    }

    #[cold]
    #[inline(never)]
    fn full(&mut self, n: usize) {
        match &mut self.flush {
            Some(flush) if self.buf.len() >= FLUSH / 2 => flush(&mut self.buf),
            _ => {}
        }
        self.buf.reserve(n);
    }

    /// Appends a number in decimal.
    #[inline]
    pub fn number(&mut self, n: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = n;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }

    /// Ends the current record as it stands, with no separator.
    #[inline(always)]
    pub fn end(&mut self) {
        self.records += 1;
        if let Some(top) = &mut self.top {
            top.offer(&mut self.buf);
        }
    }

    /// A record of `key`, TAB, `n` in decimal, LF.
    #[inline]
    pub fn pair(&mut self, key: &[u8], n: u64) {
        self.put(key);
        self.put(b"\t");
        self.number(n);
        self.put(b"\n");
        self.end();
    }

    /// A record of `bytes` and LF.
    #[inline]
    pub fn line(&mut self, bytes: &[u8]) {
        self.put(bytes);
        self.put(b"\n");
        self.end();
    }

    /// A record as the input has them: `bytes` and the separator of the input's format, if it has one.
    #[inline]
    pub fn record(&mut self, bytes: &[u8]) {
        self.put(bytes);
        if let Some(separator) = self.separator {
            self.put(&[separator]);
        }
        self.end();
    }

    /// Says how high the record that is being put ranks, for [`crate::app::App::top`].
    pub fn rank(&mut self, score: u64) {
        if let Some(top) = &mut self.top {
            top.score = score;
        }
    }

    /// The name of an input by its number, as the user gave it.
    pub fn input_name(&self, input: u32) -> &'o str {
        self.names.get(input as usize).map_or("", String::as_str)
    }

    /// The best records kept, best first, and the number of records.
    pub(crate) fn into_ranked(self) -> Vec<Ranked> {
        self.top.map_or(Vec::new(), |t| t.best)
    }
}

/// A record with its score.
pub(crate) struct Ranked {
    pub(crate) score: u64,
    pub(crate) record: Vec<u8>,
}

/// The records with the highest scores; among equals, the first.
pub(crate) struct Top {
    most: usize,
    score: u64,
    best: Vec<Ranked>,
}

impl Top {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, score: 0, best: Vec::new() }
    }

    fn offer(&mut self, buf: &mut Vec<u8>) {
        let score = std::mem::take(&mut self.score);
        if self.admits(score) {
            self.add(Ranked { score, record: std::mem::take(buf) });
        }
        buf.clear();
    }

    /// Adds a record that comes after all that were added before.
    pub(crate) fn add(&mut self, ranked: Ranked) {
        if self.admits(ranked.score) {
            let at = self.best.partition_point(|r| r.score >= ranked.score);
            self.best.insert(at, ranked);
            self.best.truncate(self.most);
        }
    }

    fn admits(&self, score: u64) -> bool {
        self.most > 0 && (self.best.len() < self.most || self.best.last().is_some_and(|worst| worst.score < score))
    }

    pub(crate) fn into_best(self) -> Vec<Ranked> {
        self.best
    }
}

/// Where the bytes of one part go.
pub(crate) enum Sink {
    /// A file of its own: pieces are written side by side, each at its offset.
    File(File),
    /// One piece after the other: standard output, or what a test looks at.
    Stream(Box<dyn Write + Send>),
    /// A compressed file.
    Compressed(Box<Encoder<File>>),
}

/// What is known of a part when it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PartSummary {
    /// Records.
    pub records: u64,
    /// Bytes, before compression.
    pub bytes: u64,
    /// CRC32C (RFC 3720) of those bytes.
    pub crc32c: u32,
}

/// Buffers to use again: a fresh one of a megabyte costs as much in page faults as filling it.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// More are let go. There is one a thread in use, and a few wait for their turn to be written.
    const MOST: usize = 64;
    /// Larger ones are let go, so that one large record does not stay in memory.
    const LARGEST: usize = 8 << 20;

    pub(crate) fn get(&self) -> Vec<u8> {
        lock(&self.0).pop().unwrap_or_default()
    }

    pub(crate) fn put(&self, mut buffer: Vec<u8>) {
        let mut all = lock(&self.0);
        if all.len() < Self::MOST && buffer.capacity() <= Self::LARGEST {
            buffer.clear();
            all.push(buffer);
        }
    }
}

/// A part under construction. Pieces are numbered from 0 and may be submitted in any order.
pub(crate) struct Part {
    file: Option<File>,
    state: Mutex<State>,
}

struct State {
    stream: Option<Stream>,
    next: usize,
    early: BTreeMap<usize, Piece>,
    written: PartSummary,
}

enum Stream {
    Plain(Box<dyn Write + Send>),
    Compressed(Box<Encoder<File>>),
}

struct Piece {
    bytes: Vec<u8>,
    records: u64,
}

impl Part {
    pub(crate) fn new(sink: Sink) -> Self {
        let (file, stream) = match sink {
            Sink::File(file) => (Some(file), None),
            Sink::Stream(w) => (None, Some(Stream::Plain(w))),
            Sink::Compressed(w) => (None, Some(Stream::Compressed(w))),
        };
        let written = PartSummary { records: 0, bytes: 0, crc32c: 0 };
        Self { file, state: Mutex::new(State { stream, next: 0, early: BTreeMap::new(), written }) }
    }

    /// Hands in a whole piece. `spare` takes buffers that are done with.
    pub(crate) fn submit(&self, number: usize, bytes: Vec<u8>, records: u64, spare: &Spare) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.early.insert(number, Piece { bytes, records });
        loop {
            let next = state.next;
            let Some(piece) = state.early.remove(&next) else { return Ok(()) };
            let at = state.written.bytes;
            state.written.records += piece.records;
            state.written.bytes += piece.bytes.len() as u64;
            state.written.crc32c = crc32c::crc32c_append(state.written.crc32c, &piece.bytes);
            state.next += 1;
            match &self.file {
                // At its own offset: others need not wait.
                Some(file) => {
                    drop(state);
                    file.write_all_at(&piece.bytes, at)?;
                    state = lock(&self.state);
                }
                None => state.write(&piece.bytes)?,
            }
            spare.put(piece.bytes);
        }
    }

    /// Appends bytes of the piece that is next, before it is whole. For parts that one thread writes alone.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let at = state.written.bytes;
        state.written.bytes += bytes.len() as u64;
        state.written.crc32c = crc32c::crc32c_append(state.written.crc32c, bytes);
        match &self.file {
            Some(file) => file.write_all_at(bytes, at),
            None => state.write(bytes),
        }
    }

    /// Counts records whose bytes were appended.
    pub(crate) fn count(&self, records: u64) {
        lock(&self.state).written.records += records;
    }

    /// Ends the part. `sync` makes it durable.
    pub(crate) fn finish(&self, sync: bool) -> io::Result<PartSummary> {
        let mut state = lock(&self.state);
        let file = match state.stream.take() {
            Some(Stream::Plain(mut w)) => {
                w.flush()?;
                None
            }
            Some(Stream::Compressed(w)) => Some(w.finish()?),
            None => None,
        };
        match file.as_ref().or(self.file.as_ref()) {
            Some(file) if sync => file.sync_all()?,
            _ => {}
        }
        Ok(state.written)
    }
}

impl State {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Some(Stream::Plain(w)) => w.write_all(bytes),
            Some(Stream::Compressed(w)) => w.write_all(bytes),
            None => Ok(()),
        }
    }
}

/// A lock whose holder panicked guards nothing that matters: the job has failed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
