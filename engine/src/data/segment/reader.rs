//! Reading a segment: every length is checked before memory is taken for it, every block before a
//! record of it is given out, every total before the end is reported.

use std::{cmp::Ordering, collections::TryReserveError, ops::Range, sync::Arc};

use lz4_flex::block::decompress_into;

use super::{
    Error, FIELDS_LEN, FOOTER_LEN, Fault, HEADER_LEN, Header, MAX_BLOCK, Part, ReadAt, Summary, Totals, block_crc, fit,
    trim, u32_at,
};
use crate::data::merge::Cursor;

/// Most raw bytes one stored byte of LZ4 can stand for: a length byte of 255 in a match.
const MAX_EXPANSION: usize = 255;

/// Fewest raw bytes of a record: three lengths of one byte, empty suffix and value.
const MIN_RECORD: usize = 3;

/// Reads one segment from front to back.
///
/// Held in memory: one block stored, one raw (about 64 KiB each unless a record is larger), one
/// key. An error is final: [`next`](Self::next) reports it again when called again, though a source
/// that recovers is given another chance.
#[derive(Debug)]
pub struct Reader<R: ReadAt> {
    src: R,
    name: Arc<str>,
    /// Where in `src` the segment starts.
    offset: u64,
    /// What the footer says, and what was met so far.
    footer: Totals,
    seen: Totals,

    stored: Vec<u8>,
    /// The current block, decompressed; `block_at` is where in `src` it starts.
    raw: Vec<u8>,
    block_at: u64,
    /// Where in `raw` the next record starts, and how many are left.
    at: usize,
    left: u32,

    key: Vec<u8>,
    /// Where in `raw` the current value lies.
    value: Range<usize>,
}

impl<R: ReadAt> Reader<R> {
    /// Opens the segment that takes up `len` bytes of `src` from byte `offset` on. `name` is what
    /// errors call the source, as a rule its file name.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] when the footer cannot be read, [`Error::Damaged`] or [`Error::Version`]
    /// when it is none of this version or does not fit `len`. The blocks are not looked at yet.
    pub fn open(src: R, offset: u64, len: u64, name: impl Into<Arc<str>>) -> Result<Self, Error> {
        let name = name.into();
        let (footer, room) = match (len.checked_sub(FOOTER_LEN as u64), offset.checked_add(len)) {
            (Some(room), Some(_)) => (read_footer(&src, offset + room, &name)?, room),
            _ => return Err(damaged(&name, Part::Segment, offset, Fault::Range { len })),
        };
        if footer.blocks_len != room {
            let fault = Fault::Length { found: footer.blocks_len, room };
            return Err(damaged(&name, Part::Footer, offset + room, fault));
        }
        Ok(Self {
            src,
            name,
            offset,
            footer,
            seen: Totals::default(),
            stored: Vec::new(),
            raw: Vec::new(),
            block_at: offset,
            at: 0,
            left: 0,
            key: Vec::new(),
            value: 0..0,
        })
    }

    /// What the footer says the segment holds; the blocks have been found to agree once
    /// [`next`](Self::next) has returned `false`.
    pub fn summary(&self) -> Summary {
        self.footer.summary()
    }

    /// Moves to the next record; `false` at the end, which is reported only when the totals of all
    /// records are those of the footer.
    ///
    /// # Errors
    ///
    /// Any [`Error`]. Records given out before were as written.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "records are borrowed from the reader, which an Iterator cannot express"
    )]
    pub fn next(&mut self) -> Result<bool, Error> {
        if self.left == 0 && !self.load_block()? {
            return Ok(false);
        }
        if !self.step() {
            return Err(self.record_error());
        }
        Ok(true)
    }

    /// Key of the current record; of no meaning unless the last [`next`](Self::next) returned
    /// `true`.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Value of the current record; of no meaning unless the last [`next`](Self::next) returned
    /// `true`.
    #[inline]
    pub fn value(&self) -> &[u8] {
        &self.raw[self.value.clone()]
    }

    /// Decodes the record at `at`; `false`, with nothing changed, if there is no valid one. The
    /// reason is worked out by [`record_error`](Self::record_error), off the hot path.
    #[inline]
    fn step(&mut self) -> bool {
        let Some(record) = self.decode() else {
            return false;
        };
        let suffix = &self.raw[record.suffix.clone()];
        let order = suffix.cmp(&self.key[record.shared..]);
        if order == Ordering::Less {
            return false;
        }
        self.key.truncate(record.shared);
        self.key.extend_from_slice(suffix);
        self.at = record.value.end;
        self.left -= 1;
        self.seen.add_record(order == Ordering::Greater, self.key.len() + record.value.len());
        self.value = record.value;
        true
    }

    /// The record at `at`, in bounds but of unchecked order.
    #[inline]
    fn decode(&self) -> Option<Record> {
        let (at, [shared, suffix_len, value_len]) = lengths(&self.raw, self.at)?;
        // Three lengths of 32 bits cannot overflow the sum of 64; on narrower machines they might.
        let value_at = at.checked_add(suffix_len)?;
        let end = value_at.checked_add(value_len)?;
        let most_shared = if self.at == 0 { 0 } else { self.key.len() };
        let last_fits = self.left > 1 || end == self.raw.len();
        (shared <= most_shared && end <= self.raw.len() && last_fits).then_some(Record {
            shared,
            suffix: at..value_at,
            value: value_at..end,
        })
    }

    #[cold]
    fn record_error(&self) -> Error {
        match self.decode() {
            None => self.block_error(Fault::Record { at: self.at }),
            Some(_) => Error::Unsorted { name: self.name.clone(), at: self.block_at, record: self.seen.records },
        }
    }

    /// Makes the next block current; `false` if there is none and the totals are right.
    #[cold]
    fn load_block(&mut self) -> Result<bool, Error> {
        self.value = 0..0;
        let room = self.footer.blocks_len - self.seen.blocks_len;
        if room == 0 {
            return self.check_totals().map(|()| false);
        }
        self.block_at = self.offset + self.seen.blocks_len;
        let (header, fields) = self.read_header(room)?;
        let crc = self.read_stored(&header, &fields)?;
        self.decompress(&header)?;
        self.seen.add_block(header.stored_len, crc);
        self.left = header.records;
        self.at = 0;
        trim(&mut self.key);
        Ok(true)
    }

    /// Reads the header at `block_at`, `room` bytes before the footer, and checks its lengths.
    fn read_header(&self, room: u64) -> Result<(Header, [u8; HEADER_LEN]), Error> {
        let mut bytes = [0; HEADER_LEN];
        if room < HEADER_LEN as u64 {
            return Err(self.block_error(Fault::Length { found: HEADER_LEN as u64, room }));
        }
        read(&self.src, &mut bytes, self.block_at, &self.name)?;
        let header = Header::decode(&bytes);
        let Header { raw_len, stored_len, compressed, records } = header;
        let room = room - HEADER_LEN as u64;
        let least_stored = if compressed { raw_len.div_ceil(MAX_EXPANSION) } else { raw_len };
        let possible = raw_len <= MAX_BLOCK
            && (least_stored..=raw_len).contains(&stored_len)
            && stored_len as u64 <= room
            && (1..=raw_len / MIN_RECORD).contains(&(records as usize));
        if !possible {
            return Err(self.block_error(Fault::Header { raw_len, stored_len, room, records }));
        }
        Ok((header, bytes))
    }

    /// Reads the stored bytes, checks them and returns their checksum. Bytes stored as they are go
    /// straight to `raw`.
    fn read_stored(&mut self, header: &Header, head: &[u8; HEADER_LEN]) -> Result<u32, Error> {
        let buf = if header.compressed { &mut self.stored } else { &mut self.raw };
        let len = header.stored_len;
        fit(buf, len).map_err(|e| no_memory(&self.name, self.block_at, len, e))?;
        read(&self.src, buf, self.block_at + HEADER_LEN as u64, &self.name)?;
        let computed = block_crc(self.seen.blocks_crc, &head[..FIELDS_LEN], buf);
        let stored = u32_at(head, FIELDS_LEN);
        if stored != computed {
            return Err(self.block_error(Fault::Checksum { stored, computed }));
        }
        Ok(computed)
    }

    fn decompress(&mut self, header: &Header) -> Result<(), Error> {
        if !header.compressed {
            return Ok(());
        }
        let raw_len = header.raw_len;
        fit(&mut self.raw, raw_len).map_err(|e| no_memory(&self.name, self.block_at, raw_len, e))?;
        match decompress_into(&self.stored, &mut self.raw) {
            Ok(len) if len == raw_len => Ok(()),
            _ => Err(self.block_error(Fault::Compression { raw_len })),
        }
    }

    /// Bytes of memory held for blocks and keys.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.stored.capacity() + self.raw.capacity() + self.key.capacity()
    }

    fn check_totals(&self) -> Result<(), Error> {
        let (footer, seen) = (&self.footer, &self.seen);
        let totals = [
            ("number of blocks", footer.blocks, seen.blocks),
            ("checksum of the blocks", footer.blocks_crc.into(), seen.blocks_crc.into()),
            ("number of records", footer.records, seen.records),
            ("number of keys", footer.keys, seen.keys),
            ("bytes of keys and values", footer.raw_bytes, seen.raw_bytes),
        ];
        match totals.into_iter().find(|(_, footer, found)| footer != found) {
            None => Ok(()),
            Some((what, footer, found)) => {
                let at = self.offset + self.footer.blocks_len;
                let fault = Fault::Total { what, footer, found };
                Err(damaged(&self.name, Part::Footer, at, fault))
            }
        }
    }

    #[cold]
    fn block_error(&self, fault: Fault) -> Error {
        damaged(&self.name, Part::Block, self.block_at, fault)
    }
}

impl<R: ReadAt> Cursor for Reader<R> {
    type Error = Error;

    #[inline]
    fn advance(&mut self) -> Result<bool, Error> {
        self.next()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.key()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.value()
    }
}

/// A record as it lies in a raw block.
struct Record {
    shared: usize,
    suffix: Range<usize>,
    value: Range<usize>,
}

/// The three lengths at `at` and where they end.
#[inline]
fn lengths(raw: &[u8], at: usize) -> Option<(usize, [usize; 3])> {
    let rest = raw.get(at..)?;
    if let Some(&[a, b, c]) = rest.first_chunk()
        && (a | b | c) < 0x80
    {
        return Some((at + 3, [a, b, c].map(usize::from)));
    }
    let mut bytes = rest.iter();
    let lengths = [varint(&mut bytes)?, varint(&mut bytes)?, varint(&mut bytes)?];
    Some((raw.len() - bytes.len(), lengths))
}

/// A LEB128 number of at most 32 bits.
#[inline]
fn varint(bytes: &mut std::slice::Iter<'_, u8>) -> Option<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(u32::try_from(number).ok()?).ok();
        }
    }
    None
}

fn read_footer(src: &impl ReadAt, at: u64, name: &Arc<str>) -> Result<Totals, Error> {
    let mut bytes = [0; FOOTER_LEN];
    read(src, &mut bytes, at, name)?;
    Totals::from_footer(&bytes).map_err(|fault| match fault {
        Fault::Version { found } => Error::Version { name: name.clone(), at, found },
        fault => damaged(name, Part::Footer, at, fault),
    })
}

fn read(src: &impl ReadAt, buf: &mut [u8], at: u64, name: &Arc<str>) -> Result<(), Error> {
    let len = buf.len() as u64;
    src.read_exact_at(buf, at).map_err(|cause| Error::Read { name: name.clone(), at, len, cause })
}

#[cold]
fn damaged(name: &Arc<str>, part: Part, at: u64, fault: Fault) -> Error {
    Error::Damaged { name: name.clone(), part, at, fault }
}

#[cold]
fn no_memory(name: &Arc<str>, at: u64, bytes: usize, _: TryReserveError) -> Error {
    Error::Memory { name: name.clone(), at, bytes }
}
