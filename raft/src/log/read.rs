//! Reads frames out of the database, in order, and checks that they are the chain they should be.

use super::Error;
use super::frame::{self, Frame, Hash};
use crate::disk::Kv;

/// Chunks fetched at a time: up to 1 MiB.
const CHUNKS_AT_A_TIME: usize = 256;

/// Reads the frames of a range of indices, one after another.
#[derive(Debug)]
pub(crate) struct Reader<'a, K> {
    kv: &'a K,
    /// The index of the next frame.
    next: u64,
    /// The index after the last frame.
    end: u64,
    /// What the next frame must refer to. `None` if that is not known.
    expected: Option<Hash>,
    /// Chunks fetched and not used, the next one last.
    fetched: Vec<(u64, u16, Vec<u8>)>,
    /// Where to go on fetching.
    from: Vec<u8>,
    exhausted: bool,
}

impl<'a, K: Kv> Reader<'a, K> {
    pub(crate) fn new(kv: &'a K, start: u64, end: u64, expected: Option<Hash>) -> Self {
        let from = frame::key(start, 0).to_vec();
        Self { kv, next: start, end, expected, fetched: Vec::new(), from, exhausted: false }
    }

    /// The next frame; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Error> {
        if self.next >= self.end {
            return Ok(None);
        }
        let index = self.next;
        let frame = frame::decode(self.gather(index)?)
            .map_err(|damage| Error::loss(format!("a whole frame of entry {index}"), damage.to_string()))?;
        if frame.tip.id.index() != index {
            return Err(Error::loss(format!("entry {index}"), format!("entry {} in its place", frame.tip.id.index())));
        }
        if self.expected.is_some_and(|expected| expected != frame.previous) {
            let expected = format!("entry {index} to follow entry {}", index.wrapping_sub(1));
            return Err(Error::loss(expected, "an entry that follows another one"));
        }
        self.expected = Some(frame.tip.hash);
        self.next += 1;
        Ok(Some(frame))
    }

    /// The bytes of the frame at `index`, from all its chunks.
    fn gather(&mut self, index: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut chunks = 0_u16;
        while let Some((found, chunk)) = self.peek()? {
            if found != index {
                break;
            }
            if chunk != chunks {
                return Err(Error::loss(format!("chunk {chunks} of entry {index}"), format!("chunk {chunk}")));
            }
            bytes.extend(self.fetched.pop().map(|(_, _, value)| value).unwrap_or_default());
            chunks += 1;
        }
        if chunks == 0 {
            let found = self.peek()?.map_or("the end of the log".to_string(), |(next, _)| format!("entry {next}"));
            return Err(Error::loss(format!("entry {index}"), found));
        }
        Ok(bytes)
    }

    fn peek(&mut self) -> Result<Option<(u64, u16)>, Error> {
        if self.fetched.is_empty() && !self.exhausted {
            let to = frame::key(self.end, 0);
            let pairs = self.kv.range(&self.from, &to, CHUNKS_AT_A_TIME)?;
            self.exhausted = pairs.len() < CHUNKS_AT_A_TIME;
            for (key, value) in pairs.into_iter().rev() {
                let Some((index, chunk)) = frame::parse_key(&key) else {
                    return Err(Error::loss("keys of entries", format!("the key {key:02x?} among them")));
                };
                if self.fetched.is_empty() {
                    self.from = [&key[..], &[0]].concat();
                }
                self.fetched.push((index, chunk, value));
            }
        }
        Ok(self.fetched.last().map(|(index, chunk, _)| (*index, *chunk)))
    }
}
