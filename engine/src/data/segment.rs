//! Segment: the sorted output of one map task, or of one spill, for one partition.
//!
//! A segment is a self-contained run of bytes: blocks of prefix-coded, LZ4-compressed records, then
//! a fixed-size footer. Several may lie end to end in one file; who keeps the file keeps the range
//! of each. [`Writer`] makes one from records already in key order, [`Reader`] gives them back and
//! refuses whatever is not exactly what was written. Sorting belongs to the caller, merging to
//! [`merge`](super::merge).
//!
//! # Layout
//!
//! All integers are little-endian.
//!
//! ```text
//! segment: block* footer
//! block:   raw_len u32 | stored_len u32, bit 31 set: not compressed | records u32 | crc u32 | stored
//! raw:     (shared varint, suffix_len varint, value_len varint, suffix, value)*
//! footer:  records u64 | keys u64 | raw_bytes u64 | blocks u64 | blocks_len u64 | blocks_crc u32
//!          | crc u32 over the 44 bytes before it | version u32 | magic [u8; 8]
//! ```
//!
//! * `shared` counts the leading bytes a key has in common with the key before it in its block, 0 at
//!   the start of a block; the coding is that of LevelDB's table format, without restart points
//!   inside a block. Varints are LEB128 of at most 32 bits.
//! * Compression is the LZ4 block format, kept only where it saves at least 1/16 of a block (1/2 in a segment that stays
//!   on one machine).
//! * `crc` of a block is the CRC32C (RFC 3720) of the header fields before it and the stored bytes,
//!   continued from the `crc` of the block before, 0 for the first. A missing, repeated or moved
//!   block therefore fails at the place where it is met, not only at the end; `blocks_crc` is the
//!   `crc` of the last block and pins where the chain ends.
//! * Version and magic come last, so that a reader knows a later version whose footer is longer.

mod error;
mod read_at;
mod reader;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod sealed;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::TryReserveError;

pub use error::{Error, Fault, Part};
pub use read_at::ReadAt;
pub use reader::Reader;
pub use writer::Writer;

/// Most bytes a block may hold before compression (1 GiB), and so the bound on one record: key,
/// value and [`MAX_LENGTHS`] together.
pub const MAX_BLOCK: usize = 1 << 30;

/// Most bytes the three lengths before a record take.
pub const MAX_LENGTHS: usize = 3 * 5;

/// Bytes of a footer, and so the length of the segment that holds no record.
pub const FOOTER_LEN: usize = CRC_AT + 4 + 4 + MAGIC.len();

/// Raw bytes a block grows to, unless it holds a single larger record. Two short of 64 KiB because
/// below 65535 bytes LZ4 makes do with a hash table of 16-bit entries, which is faster.
const BLOCK_TARGET: usize = (1 << 16) - 2;

/// Buffers above this are let go once blocks are of ordinary size again, so that one huge record
/// does not pin its memory for the rest of the job.
const KEEP: usize = 4 << 16;

const HEADER_LEN: usize = FIELDS_LEN + 4;
const FIELDS_LEN: usize = 12;
/// Where in a footer its own checksum stands: after five counts and the checksum of the blocks.
const CRC_AT: usize = 5 * 8 + 4;
const STORED_RAW: u32 = 1 << 31;
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"GRISTSEG";

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of records.
    pub records: u64,
    /// Number of distinct keys.
    pub keys: u64,
    /// Bytes of all keys and values, before coding and compression.
    pub raw_bytes: u64,
    /// Bytes of the whole segment, footer included.
    pub bytes: u64,
}

/// Totals over the blocks of a segment. The writer and the reader both keep a running one; at the
/// end the first is stored and the second must equal it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    records: u64,
    keys: u64,
    raw_bytes: u64,
    blocks: u64,
    blocks_len: u64,
    blocks_crc: u32,
}

impl Totals {
    fn add_record(&mut self, new_key: bool, raw_bytes: usize) {
        self.keys += u64::from(new_key || self.records == 0);
        self.records += 1;
        self.raw_bytes += raw_bytes as u64;
    }

    fn add_block(&mut self, stored_len: usize, crc: u32) {
        self.blocks += 1;
        self.blocks_len += (HEADER_LEN + stored_len) as u64;
        self.blocks_crc = crc;
    }

    fn summary(&self) -> Summary {
        Summary {
            records: self.records,
            keys: self.keys,
            raw_bytes: self.raw_bytes,
            bytes: self.blocks_len + FOOTER_LEN as u64,
        }
    }

    fn to_footer(self) -> [u8; FOOTER_LEN] {
        let mut footer = [0; FOOTER_LEN];
        let counts = [self.records, self.keys, self.raw_bytes, self.blocks, self.blocks_len];
        for (field, count) in footer.chunks_exact_mut(8).zip(counts) {
            field.copy_from_slice(&count.to_le_bytes());
        }
        footer[CRC_AT - 4..CRC_AT].copy_from_slice(&self.blocks_crc.to_le_bytes());
        let crc = crc32c::crc32c(&footer[..CRC_AT]);
        footer[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        footer[CRC_AT + 4..CRC_AT + 8].copy_from_slice(&VERSION.to_le_bytes());
        footer[CRC_AT + 8..].copy_from_slice(&MAGIC);
        footer
    }

    /// Reads a footer. Magic and version are compared before the checksum, since the place of the
    /// checksum is known for this version only.
    fn from_footer(footer: &[u8; FOOTER_LEN]) -> Result<Self, Fault> {
        if footer[CRC_AT + 8..] != MAGIC {
            return Err(Fault::Magic);
        }
        let version = u32_at(footer, CRC_AT + 4);
        if version != VERSION {
            return Err(Fault::Version { found: version });
        }
        let (stored, computed) = (u32_at(footer, CRC_AT), crc32c::crc32c(&footer[..CRC_AT]));
        if stored != computed {
            return Err(Fault::Checksum { stored, computed });
        }
        Ok(Self {
            records: u64_at(footer, 0),
            keys: u64_at(footer, 8),
            raw_bytes: u64_at(footer, 16),
            blocks: u64_at(footer, 24),
            blocks_len: u64_at(footer, 32),
            blocks_crc: u32_at(footer, 40),
        })
    }
}

/// The fields of a block header that its checksum covers.
#[derive(Clone, Copy, Debug)]
struct Header {
    raw_len: usize,
    stored_len: usize,
    compressed: bool,
    records: u32,
}

impl Header {
    /// Encodes the fields; both lengths must be at most [`MAX_BLOCK`].
    fn encode(&self) -> [u8; FIELDS_LEN] {
        let flag = if self.compressed { 0 } else { STORED_RAW };
        let mut fields = [0; FIELDS_LEN];
        fields[..4].copy_from_slice(&(self.raw_len as u32).to_le_bytes());
        fields[4..8].copy_from_slice(&(self.stored_len as u32 | flag).to_le_bytes());
        fields[8..].copy_from_slice(&self.records.to_le_bytes());
        fields
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let stored = u32_at(bytes, 4);
        Self {
            raw_len: u32_at(bytes, 0) as usize,
            stored_len: (stored & !STORED_RAW) as usize,
            compressed: stored & STORED_RAW == 0,
            records: u32_at(bytes, 8),
        }
    }
}

/// The checksum of a block that follows a block with checksum `previous`.
fn block_crc(previous: u32, fields: &[u8], stored: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(previous, fields), stored)
}

/// Gives `buf` the length `len`, letting go of an outsized allocation where an ordinary one will
/// do. The bytes are whatever was there before: clearing 64 KiB per block would show.
fn fit(buf: &mut Vec<u8>, len: usize) -> Result<(), TryReserveError> {
    if len <= KEEP && buf.capacity() > KEEP {
        *buf = Vec::new();
    }
    buf.try_reserve(len.saturating_sub(buf.len()))?;
    buf.resize(len, 0);
    Ok(())
}

/// Lets go of the spare part of an outsized allocation.
fn trim(buf: &mut Vec<u8>) {
    if buf.len() <= KEEP && buf.capacity() > KEEP {
        buf.shrink_to(KEEP);
    }
}

/// The integer at `at`; callers pass arrays and offsets of fixed size, within bounds.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

/// As [`u32_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}
