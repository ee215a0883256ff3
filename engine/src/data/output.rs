//! What reducers write into ([`Output`]), and parts made of pieces that are finished out of order (`Part`).
//!
//! Pieces of one part are reduced by several threads at once. A piece is written as soon as those before it have
//! been; until then it waits in memory. Bytes therefore do not depend on threads. Where output goes is the business
//! of `Sink`; committing a folder of parts is that of `commit`.

#![expect(clippy::disallowed_types, reason = "parts are written here")]

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

use rustix::fs::{FallocateFlags, fallocate};

use super::compress::Encoder;

/// Bytes after which a reducer's output is handed on, where it may be: so much is written while it is in the cache.
const FLUSH: usize = 512 << 10;
/// A part of a file that is this long gets room ahead of its writes, in bytes.
const ROOM_FROM: u64 = 1 << 20;
/// Most room that is made ahead, in bytes.
const MOST_ROOM: u64 = 16 << 20;

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
        // SAFETY: there is room for as many bytes, which no slice of ours holds.
        unsafe {
            let at = self.buf.len();
            copy(bytes.as_ptr(), self.buf.as_mut_ptr().add(at), bytes.len());
            self.buf.set_len(at + bytes.len());
        }
    }

    #[cold]
    #[inline(never)]
    fn full(&mut self, n: usize) {
        match &mut self.flush {
            Some(flush) if self.buf.len() >= FLUSH / 2 => {
                flush(&mut self.buf);
                self.buf.reserve(n.max(FLUSH));
            }
            _ => self.buf.reserve(n),
        }
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

    /// The best records, in the order in which they came.
    pub(crate) fn into_ranked(self) -> Vec<Ranked> {
        self.top.map_or(Vec::new(), Top::into_arrived)
    }

    /// What ends a record of the input, if anything does.
    pub fn separator(&self) -> Option<u8> {
        self.separator
    }
}

/// Copies bytes, without a call where they are few: 16 at a time, the last of which may overlap those before.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, n: usize) {
    type Word = [u8; 16];
    // SAFETY: every word lies within the `n` bytes.
    unsafe {
        if !(size_of::<Word>()..=8 * size_of::<Word>()).contains(&n) {
            return std::ptr::copy_nonoverlapping(from, to, n);
        }
        let mut at = 0;
        while at + size_of::<Word>() < n {
            to.add(at).cast::<Word>().write_unaligned(from.add(at).cast::<Word>().read_unaligned());
            at += size_of::<Word>();
        }
        let last = n - size_of::<Word>();
        to.add(last).cast::<Word>().write_unaligned(from.add(last).cast::<Word>().read_unaligned());
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
    /// In the order of their arrival: the best so far, and what has come since they were picked.
    best: Vec<Ranked>,
    /// The lowest score of those that were picked: a later record must have more.
    bar: Option<u64>,
}

impl Top {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, score: 0, best: Vec::new(), bar: None }
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
            self.best.push(ranked);
            // Seldom, so that each record is looked at a few times only.
            if self.best.len() >= self.most.saturating_mul(2).max(64) {
                self.pick();
            }
        }
    }

    fn admits(&self, score: u64) -> bool {
        self.most > 0 && self.bar.is_none_or(|bar| score > bar)
    }

    /// Lets all go but the best.
    fn pick(&mut self) {
        if self.best.len() <= self.most {
            return;
        }
        let mut scores: Vec<u64> = self.best.iter().map(|r| r.score).collect();
        let (better, bar, _) = scores.select_nth_unstable_by(self.most - 1, |a, b| b.cmp(a));
        let bar = *bar;
        let mut at_bar = self.most - better.iter().filter(|score| **score > bar).count();
        self.best.retain(|r| {
            let first = r.score == bar && at_bar > 0;
            at_bar -= usize::from(first);
            first || r.score > bar
        });
        self.bar = Some(bar);
    }

    /// The best records, the best first.
    pub(crate) fn into_best(mut self) -> Vec<Ranked> {
        self.pick();
        self.best.sort_by_key(|r| std::cmp::Reverse(r.score));
        self.best
    }

    /// The best records, in the order in which they came.
    fn into_arrived(mut self) -> Vec<Ranked> {
        self.pick();
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
    /// Pieces that wait for those before them.
    early: BTreeMap<usize, Piece>,
    written: PartSummary,
    /// Where the room of the file ends that was made ahead.
    room: u64,
}

enum Stream {
    Plain(Box<dyn Write + Send>),
    Compressed(Box<Encoder<File>>),
}

#[derive(Default)]
struct Piece {
    bytes: VecDeque<Vec<u8>>,
    records: u64,
    whole: bool,
}

impl Part {
    pub(crate) fn new(sink: Sink) -> Self {
        let (file, stream) = match sink {
            Sink::File(file) => (Some(file), None),
            Sink::Stream(w) => (None, Some(Stream::Plain(w))),
            Sink::Compressed(w) => (None, Some(Stream::Compressed(w))),
        };
        let written = PartSummary { records: 0, bytes: 0, crc32c: 0 };
        let state = State { stream, next: 0, early: BTreeMap::new(), written, room: ROOM_FROM };
        Self { file, state: Mutex::new(state) }
    }

    /// Hands in bytes of a piece, of which more may come: one that is whole has `records`. `spare` takes buffers that
    /// are done with.
    pub(crate) fn submit(&self, number: usize, bytes: Vec<u8>, records: Option<u64>, spare: &Spare) -> io::Result<()> {
        let mut state = lock(&self.state);
        let piece = state.early.entry(number).or_default();
        piece.bytes.push_back(bytes);
        if let Some(records) = records {
            (piece.records, piece.whole) = (records, true);
        }
        loop {
            let next = state.next;
            let Some(piece) = state.early.get_mut(&next) else { return Ok(()) };
            if let Some(bytes) = piece.bytes.pop_front() {
                state = self.write(state, &bytes)?;
                spare.put(bytes);
            } else if piece.whole {
                state.written.records += piece.records;
                state.early.remove(&next);
                state.next += 1;
            } else {
                return Ok(());
            }
        }
    }

    /// Appends bytes of the piece that is next, before it is whole. For parts that one thread writes alone.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(lock(&self.state), bytes).map(|_| ())
    }

    /// Writes what comes next. Into a file at its own offset, so that others need not wait.
    fn write<'p>(&'p self, mut state: MutexGuard<'p, State>, bytes: &[u8]) -> io::Result<MutexGuard<'p, State>> {
        let at = state.written.bytes;
        state.written.bytes += bytes.len() as u64;
        state.written.crc32c = crc32c::crc32c_append(state.written.crc32c, bytes);
        let Some(file) = &self.file else {
            state.write(bytes)?;
            return Ok(state);
        };
        state.make_room(file);
        drop(state);
        file.write_all_at(bytes, at)?;
        Ok(lock(&self.state))
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
        if let Some(file) = &self.file {
            // Gives back the room that was not used.
            file.set_len(state.written.bytes)?;
        }
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

    /// Asks for room ahead of the writes of a long file: into extents that are there already, ext4 and XFS write a
    /// quarter to a third faster. A file system that cannot, or that is nearly full, writes without.
    fn make_room(&mut self, file: &File) {
        let end = self.written.bytes;
        if end <= self.room {
            return;
        }
        let more = (end / 4).min(MOST_ROOM);
        self.room = match fallocate(file, FallocateFlags::KEEP_SIZE, self.room, end + more - self.room) {
            Ok(()) => end + more,
            Err(_) => u64::MAX,
        };
    }
}

/// A lock whose holder panicked guards nothing that matters: the job has failed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests look at files")]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn pieces_are_in_order_whoever_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let part = Part::new(Sink::File(File::create(&path).unwrap()));
        let spare = Spare::default();
        let submit = |n, bytes: &[u8], records| part.submit(n, bytes.to_vec(), records, &spare).unwrap();
        submit(1, b"c", None);
        submit(0, b"a", None);
        submit(2, b"", Some(0));
        submit(1, b"d", Some(2));
        submit(0, b"b", Some(3));
        submit(3, b"e", Some(1));
        let summary = part.finish(false).unwrap();
        assert_eq!((summary.records, summary.bytes, summary.crc32c), (6, 5, crc32c::crc32c(b"abcde")));
        assert_eq!(std::fs::read(&path).unwrap(), b"abcde");
    }

    #[test]
    fn room_made_ahead_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let part = Part::new(Sink::File(File::create(&path).unwrap()));
        let megabyte = vec![7; 1 << 20];
        (0..9).for_each(|_| part.append(&megabyte).unwrap());
        part.append(b"end").unwrap();
        part.finish(true).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!(file.len(), (9 << 20) + 3);
        assert!(file.blocks() * 512 < (9 << 20) + (256 << 10), "{} bytes on disk", file.blocks() * 512);
    }

    #[test]
    fn the_best_of_many_are_kept_in_their_order() {
        let scores: Vec<u64> = (0..3000u64).map(|i| i.wrapping_mul(0x9e37_79b9) % 1009).collect();
        for most in [0, 1, 2, 31, 700, 3000, 5000] {
            let mut top = Top::new(most);
            scores.iter().enumerate().for_each(|(i, s)| top.add(Ranked { score: *s, record: i.to_string().into() }));
            let mut want: Vec<(u64, usize)> = scores.iter().copied().zip(0..).collect();
            want.sort_by_key(|(score, i)| (std::cmp::Reverse(*score), *i));
            want.truncate(most);
            let want: Vec<(u64, Vec<u8>)> = want.into_iter().map(|(s, i)| (s, i.to_string().into())).collect();
            let got: Vec<(u64, Vec<u8>)> = top.into_best().into_iter().map(|r| (r.score, r.record)).collect();
            assert!(got == want, "the best {most}");
        }
    }

    #[test]
    fn few_bytes_and_many_are_copied_alike() {
        let bytes: Vec<u8> = (0..=255).cycle().take(300).collect();
        for n in 0..bytes.len() {
            let mut out = Output::new(&[], None, None);
            out.put(&bytes[..n]);
            out.put(&bytes[1..][..n / 2]);
            assert_eq!(out.buf, [&bytes[..n], &bytes[1..][..n / 2]].concat());
        }
    }
}
