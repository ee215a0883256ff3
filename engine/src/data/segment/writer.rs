//! Writing a segment: prefix coding, cutting into blocks, compression, checksums.

use std::io::{self, Write};

use lz4_flex::block::{CompressTable, compress_into, compress_into_with_table, get_maximum_output_size};

use super::{
    BLOCK_TARGET, FIELDS_LEN, HEADER_LEN, Header, MAX_BLOCK, MAX_LENGTHS, Summary, Totals, block_crc, fit, trim,
};

/// Writes one segment to `W`, starting wherever `W` stands.
///
/// Each block goes out in one or two large writes, so `W` needs no buffer of its own. Held in
/// memory: one block raw, one compressed (about 64 KiB each unless a record is larger), one key.
#[derive(Debug)]
pub struct Writer<W: Write> {
    sink: W,
    /// The open block: records coded so far.
    raw: Vec<u8>,
    /// Number of records in `raw`.
    records: u32,
    /// A block as it goes out: header, then compressed bytes.
    packed: Vec<u8>,
    table: Table,
    effort: Effort,
    /// Blocks to store as they are, before compression is tried again.
    pass_over: u32,
    last_key: Vec<u8>,
    totals: Totals,
}

/// When compression is worth its time.
#[derive(Clone, Copy, Debug)]
enum Effort {
    /// For what crosses a network: where it saves a sixteenth of a block.
    Always,
    /// For what stays on this machine, whose disk is about as fast as LZ4: where it saves a half. Blocks that follow one
    /// that did not are not even tried.
    Local,
}

/// Blocks that are stored as they are after one that was not worth compressing, in a local segment.
const PASS_OVER: u32 = 15;

impl<W: Write> Writer<W> {
    /// Starts a segment; nothing is written before the first block is full.
    pub fn new(sink: W) -> Self {
        Self::with(sink, Effort::Always)
    }

    /// Starts a segment that this machine will read back: it is compressed only where that saves half of the bytes.
    pub fn local(sink: W) -> Self {
        Self::with(sink, Effort::Local)
    }

    fn with(sink: W, effort: Effort) -> Self {
        Self {
            sink,
            raw: Vec::new(),
            records: 0,
            packed: Vec::new(),
            table: Table::default(),
            effort,
            pass_over: 0,
            last_key: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Adds a record. Keys must come in non-decreasing order of their bytes; debug builds assert
    /// it, in others the reader refuses the segment.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when key and value are longer than [`MAX_BLOCK`] less
    /// [`MAX_LENGTHS`] together; the record is left out and the writer is still good. Otherwise
    /// what the sink reports; the bytes it got by then are no segment and must be thrown away.
    #[inline]
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let common = common_prefix(&self.last_key, key);
        let new_key = common < key.len() || common < self.last_key.len();
        debug_assert!(
            self.totals.records == 0 || self.last_key[common..] <= key[common..],
            "keys must be pushed in order"
        );

        let mut shared = common;
        if !self.has_room(key.len() - common, value.len()) {
            check_size(key, value)?;
            self.close_block()?;
        }
        if self.records == 0 {
            shared = 0;
        }

        let suffix = &key[shared..];
        self.raw.reserve(MAX_LENGTHS + suffix.len() + value.len());
        put_lengths(&mut self.raw, [shared, suffix.len(), value.len()]);
        self.raw.extend_from_slice(suffix);
        self.raw.extend_from_slice(value);
        self.records += 1;
        self.totals.add_record(new_key, key.len() + value.len());

        self.last_key.truncate(common);
        self.last_key.extend_from_slice(&key[common..]);
        Ok(())
    }

    /// Writes what is still held and the footer, and gives back the sink, unflushed.
    ///
    /// # Errors
    ///
    /// What the sink reports; the bytes it got are no segment then.
    pub fn finish(mut self) -> io::Result<(W, Summary)> {
        self.close_block()?;
        self.sink.write_all(&self.totals.to_footer())?;
        Ok((self.sink, self.totals.summary()))
    }

    /// Whether a record of these lengths fits into the open block. The sum saturates instead of
    /// wrapping for absurd lengths.
    fn has_room(&self, suffix_len: usize, value_len: usize) -> bool {
        let record = suffix_len.saturating_add(value_len).saturating_add(MAX_LENGTHS);
        record <= BLOCK_TARGET.saturating_sub(self.raw.len())
    }

    /// Compresses the open block into `packed`, behind room for a header; its length, where that is worth it.
    fn compress(&mut self) -> io::Result<Option<usize>> {
        let raw_len = self.raw.len();
        fit(&mut self.packed, HEADER_LEN + get_maximum_output_size(raw_len))?;
        if self.pass_over > 0 {
            self.pass_over -= 1;
            return Ok(None);
        }
        let packed_len = self.table.compress(&self.raw, &mut self.packed[HEADER_LEN..])?;
        let (saved, pass_over) = match self.effort {
            Effort::Always => (raw_len.div_ceil(16), 0),
            Effort::Local => (raw_len.div_ceil(2), PASS_OVER),
        };
        if packed_len + saved <= raw_len {
            return Ok(Some(packed_len));
        }
        self.pass_over = pass_over;
        Ok(None)
    }

    #[cold]
    fn close_block(&mut self) -> io::Result<()> {
        if self.records == 0 {
            return Ok(());
        }
        let raw_len = self.raw.len();
        let packed_len = self.compress()?;
        let compressed = packed_len.is_some();
        let stored_len = packed_len.unwrap_or(raw_len);
        let header = Header { raw_len, stored_len, compressed, records: self.records };

        let (head, body) = self.packed.split_at_mut(HEADER_LEN);
        let stored = if compressed { &body[..stored_len] } else { &self.raw[..] };
        head[..FIELDS_LEN].copy_from_slice(&header.encode());
        let crc = block_crc(self.totals.blocks_crc, &head[..FIELDS_LEN], stored);
        head[FIELDS_LEN..].copy_from_slice(&crc.to_le_bytes());

        if compressed {
            self.sink.write_all(&self.packed[..HEADER_LEN + stored_len])?;
        } else {
            self.sink.write_all(head)?;
            self.sink.write_all(stored)?;
        }
        self.totals.add_block(stored_len, crc);
        self.records = 0;
        trim(&mut self.raw);
        trim(&mut self.last_key);
        self.raw.clear();
        Ok(())
    }
}

/// The LZ4 hash table for blocks of ordinary size, kept from block to block.
struct Table(CompressTable);

impl Default for Table {
    fn default() -> Self {
        Self(CompressTable::small())
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

impl Table {
    fn compress(&mut self, raw: &[u8], out: &mut [u8]) -> io::Result<usize> {
        // A larger input would turn the kept table into a large one for good; such blocks are long
        // enough to pay for a table of their own.
        let packed = if raw.len() <= BLOCK_TARGET {
            compress_into_with_table(raw, out, &mut self.0)
        } else {
            compress_into(raw, out)
        };
        packed.map_err(io::Error::other)
    }
}

/// Refuses a record that no block can hold. Records that fit into an open block are within the
/// bound anyway, so only the others come here.
#[cold]
fn check_size(key: &[u8], value: &[u8]) -> io::Result<()> {
    let len = key.len().saturating_add(value.len());
    if len <= MAX_BLOCK - MAX_LENGTHS {
        return Ok(());
    }
    let most = MAX_BLOCK - MAX_LENGTHS;
    let text = format!("record of {len} bytes is larger than {most}; emit smaller values");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Number of leading bytes `a` and `b` have in common. Eight at a time, since keys with long common
/// prefixes (URLs, paths) are what prefix coding is for.
#[inline]
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    while let (Some(x), Some(y)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return at + (differ.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

/// Appends three lengths, each at most [`MAX_BLOCK`], as varints.
#[inline]
fn put_lengths(out: &mut Vec<u8>, lengths: [usize; 3]) {
    if lengths.iter().all(|&len| len < 0x80) {
        out.extend_from_slice(&lengths.map(|len| len as u8));
        return;
    }
    for mut len in lengths {
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
    }
}
