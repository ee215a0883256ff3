//! The high-water mark: a copy of the head outside of the database, durable before anything is acknowledged.
//!
//! The database can lose its end together with its own record of where the end was; the mark remembers. Two slots are
//! written in turn, each with a count and a CRC, so that a torn write leaves the one before.

use prost::Message;

use super::Error;
use super::head::Head;
use crate::disk::Files;

/// The file.
pub(crate) const FILE: &str = "mark";

/// Slots lie in pages of their own.
const SLOT_BYTES: u64 = 4096;

/// Longest content of a slot: a head is below 200 bytes.
const MAX_CONTENT_BYTES: usize = 1024;

/// Writes marks.
#[derive(Debug)]
pub(crate) struct Mark<F> {
    files: F,
    count: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Slot {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(bytes = "vec", tag = "2")]
    head: Vec<u8>,
}

impl<F: Files> Mark<F> {
    /// Reads the mark. `None` if the file is not there or nothing was ever written to it whole.
    pub(crate) fn open(files: F) -> Result<(Self, Option<Head>), Error> {
        let mut newest = None;
        let mut problems = Vec::new();
        for slot in 0..2 {
            match read_slot(&files, slot)? {
                Ok(Some(found)) if newest.as_ref().is_none_or(|(count, _)| *count < found.0) => newest = Some(found),
                Ok(_) => {}
                Err(problem) => problems.push(format!("slot {slot}: {problem}")),
            }
        }
        // One bad slot is what a crash while writing it leaves; two are not: see `Mark::settle`.
        if newest.is_none() && problems.len() == 2 {
            return Err(Error::loss("a mark with at least one good slot", problems.join(", ")));
        }
        let count = newest.as_ref().map_or(0, |(count, _)| *count);
        Ok((Self { files, count }, newest.map(|(_, head)| head)))
    }

    /// Makes the mark that was read durable, which a process that was killed within a write has not. Before the other slot is
    /// written: a loss of power may tear all that is not durable, and one of the two must be. `head` is the mark's.
    pub(crate) async fn settle(&mut self, head: &Head) -> Result<(), Error> {
        // The same bytes in the same place: of those a torn write makes nothing else.
        self.count = self.count.saturating_sub(1);
        self.write(head).await
    }

    /// Makes `head` the mark, durably.
    pub(crate) async fn write(&mut self, head: &Head) -> Result<(), Error> {
        self.count += 1;
        let content = Slot { count: self.count, head: head.encode() }.encode_to_vec();
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
        let crc = crc32c::crc32c(&content).to_be_bytes();
        let bytes = [&length, &crc, &content[..]].concat();
        Ok(self.files.overwrite(FILE, self.count % 2 * SLOT_BYTES, bytes).await?)
    }
}

/// What is in a slot: its count and head, nothing, or what is wrong with it.
fn read_slot<F: Files>(files: &F, slot: u64) -> Result<Result<Option<(u64, Head)>, String>, Error> {
    let bytes = files.read(FILE, slot * SLOT_BYTES, 8 + MAX_CONTENT_BYTES)?.unwrap_or_default();
    // A file that ends before the slot, or the hole that the second slot's write leaves in place of the first.
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Ok(None));
    }
    Ok(parse_slot(&bytes).map(Some))
}

fn parse_slot(bytes: &[u8]) -> Result<(u64, Head), String> {
    let header = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let (Some(length), Some(crc)) = (header(0), header(4)) else {
        return Err(format!("{} bytes", bytes.len()));
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let content = bytes.get(8..).and_then(|rest| rest.get(..length)).ok_or_else(|| format!("a length of {length}"))?;
    if crc32c::crc32c(content) != crc {
        return Err("a wrong checksum".to_string());
    }
    let slot = Slot::decode(content).map_err(|e| e.to_string())?;
    Ok((slot.count, Head::decode(&slot.head)?))
}
