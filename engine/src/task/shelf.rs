//! The file of a map task: a segment for each part, one after the other in the order of parts.
//!
//! Parts are made on several threads at once. The first that is not complete goes straight into the file; those after
//! it wait, in memory while they are small and in files without names once they are not.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::data::digest::{Digest, Digester, Digesting};
use crate::data::output::{Close, lock};
use crate::data::segment;
use crate::error::Error;
use crate::scratch::{self, Scratch, Temporary};

/// Bytes of a part that wait in memory; more go to scratch.
const WAITING: usize = 1 << 20;
/// Bytes that are copied at once.
const COPY: usize = 256 << 10;

/// Where the segment of a part is in the file of its map task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentEntry {
    /// Its first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Pairs.
    pub records: u64,
    /// Digest of those bytes.
    pub digest: Digest,
}

/// The file under construction.
pub(super) struct Shelf {
    scratch: Arc<dyn Scratch>,
    name: String,
    state: Mutex<State>,
}

struct State {
    file: Digesting<Box<dyn Write + Send>>,
    /// The first part that is not complete: it has the file.
    next: usize,
    waiting: Vec<Waiting>,
    done: Vec<Option<SegmentEntry>>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    spilled: Option<(Box<dyn Temporary>, u64)>,
}

impl Shelf {
    pub(super) fn create(scratch: Arc<dyn Scratch>, name: &str, parts: u32) -> Result<Arc<Self>, Error> {
        let file = Digesting::new(scratch.create(name)?);
        let waiting = (0..parts).map(|_| Waiting::default()).collect();
        let state = Mutex::new(State { file, next: 0, waiting, done: vec![None; parts as usize] });
        Ok(Arc::new(Self { scratch, name: name.into(), state }))
    }

    /// What takes the pairs of a part.
    pub(super) fn part(self: &Arc<Self>, part: usize) -> Box<dyn Close> {
        Box::new(Pairs { shelf: self.clone(), part, segment: None })
    }

    /// All segments, and the digest of the whole file.
    pub(super) fn finish(&self) -> Result<(Vec<SegmentEntry>, Digest), Error> {
        let mut state = lock(&self.state);
        state.file.flush().map_err(scratch::Error::at("write", self.scratch.place(&self.name)))?;
        let all: Option<Vec<SegmentEntry>> = state.done.iter().copied().collect();
        let all = all.ok_or_else(|| Error::Usage("a part of a map task was not ended; report this as a bug".into()))?;
        Ok((all, state.file.digester.finish()))
    }

    fn write(&self, part: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.next == part {
            return state.file.write_all(bytes);
        }
        state.waiting[part].add(bytes, &*self.scratch)
    }

    fn end(&self, part: usize, entry: SegmentEntry) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.done[part] = Some(entry);
        if state.next != part {
            return Ok(());
        }
        let end = state.done.len();
        while state.next < end && state.done[state.next].is_some() {
            state.next += 1;
            let next = state.next;
            if next < end {
                let waiting = std::mem::take(&mut state.waiting[next]);
                waiting.write_to(&mut state.file)?;
            }
        }
        // Only now is it known where they begin.
        let mut offset = 0;
        for entry in state.done.iter_mut().map_while(Option::as_mut) {
            entry.offset = offset;
            offset += entry.len;
        }
        Ok(())
    }
}

impl Waiting {
    fn add(&mut self, bytes: &[u8], scratch: &dyn Scratch) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() < WAITING {
            return Ok(());
        }
        let (file, len) = match &mut self.spilled {
            Some(spilled) => spilled,
            None => self.spilled.insert((scratch.temporary().map_err(io::Error::other)?, 0)),
        };
        file.write_all(&self.bytes)?;
        *len += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    fn write_to(self, out: &mut impl Write) -> io::Result<()> {
        if let Some((file, len)) = self.spilled {
            let mut buffer = vec![0; COPY];
            let mut at = 0;
            while at < len {
                let n = (len - at).min(COPY as u64) as usize;
                file.read_exact_at(&mut buffer[..n], at)?;
                out.write_all(&buffer[..n])?;
                at += n as u64;
            }
        }
        out.write_all(&self.bytes)
    }
}

/// Takes the framed pairs of one part and codes them as a segment.
struct Pairs {
    shelf: Arc<Shelf>,
    part: usize,
    /// Made with the first pair: there may be ten thousand parts.
    segment: Option<segment::Writer<Slot>>,
}

/// Where a part's segment goes.
struct Slot {
    shelf: Arc<Shelf>,
    part: usize,
    digester: Digester,
}

impl Pairs {
    fn segment(&mut self) -> &mut segment::Writer<Slot> {
        let slot = || Slot { shelf: self.shelf.clone(), part: self.part, digester: Digester::default() };
        self.segment.get_or_insert_with(|| segment::Writer::new(slot()))
    }
}

impl Write for Pairs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let segment = self.segment();
        let mut rest = bytes;
        while !rest.is_empty() {
            let ([key, value], pairs) =
                rest.split_first_chunk::<8>().map(|(head, pairs)| (lengths(head), pairs)).ok_or_else(torn)?;
            let (key, pairs) = pairs.split_at_checked(key).ok_or_else(torn)?;
            let (value, pairs) = pairs.split_at_checked(value).ok_or_else(torn)?;
            segment.push(key, value)?;
            rest = pairs;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lengths(head: &[u8; 8]) -> [usize; 2] {
    let [a, b, c, d, e, f, g, h] = *head;
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])].map(|n| n as usize)
}

fn torn() -> io::Error {
    io::Error::other("a pair was torn apart; report this as a bug")
}

impl Close for Pairs {
    fn close(mut self: Box<Self>) -> io::Result<()> {
        self.segment();
        let Some(segment) = self.segment.take() else { return Ok(()) };
        let (slot, summary) = segment.finish()?;
        let digest = slot.digester.finish();
        self.shelf.end(self.part, SegmentEntry { offset: 0, len: summary.bytes, records: summary.records, digest })
    }
}

impl Write for Slot {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shelf.write(self.part, bytes)?;
        self.digester.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Memory;

    #[test]
    fn segments_lie_in_the_order_of_parts_whoever_ends_first() {
        let files: Vec<Vec<u8>> = [[0usize, 1, 2, 3], [3, 1, 2, 0], [2, 3, 0, 1]]
            .map(|order| {
                let scratch = Memory::default();
                let shelf = Shelf::create(Arc::new(scratch.clone()), "map", 4).unwrap();
                for part in order {
                    let mut pairs = shelf.part(part);
                    // Part 2 is more than waits in memory, and does not compress.
                    for n in 0..[3u64, 0, 20_000, 1][part] {
                        let value: Vec<u8> =
                            (0..16u64).flat_map(|i| Digest::of(&(n * 16 + i).to_le_bytes()).0).collect();
                        let head = [8u32.to_le_bytes(), (value.len() as u32).to_le_bytes()].concat();
                        pairs.write_all(&[head, n.to_be_bytes().to_vec(), value].concat()).unwrap();
                    }
                    pairs.close().unwrap();
                }
                let (entries, digest) = shelf.finish().unwrap();
                let file = scratch.map("map").unwrap();
                assert_eq!(Digest::of(file.bytes()), digest);
                let mut at = 0;
                for (entry, records) in entries.iter().zip([3, 0, 20_000, 1]) {
                    assert_eq!((entry.offset, entry.records), (at, records));
                    let bytes = &file.bytes()[at as usize..][..entry.len as usize];
                    assert_eq!(Digest::of(bytes), entry.digest);
                    let reader = segment::Reader::open(bytes, 0, entry.len, "test").unwrap();
                    assert_eq!(reader.summary().records, records);
                    at += entry.len;
                }
                assert_eq!(at, file.bytes().len() as u64);
                file.bytes().to_vec()
            })
            .to_vec();
        assert!(files[0].len() > 2 * WAITING && files.iter().all(|file| *file == files[0]));
    }
}
