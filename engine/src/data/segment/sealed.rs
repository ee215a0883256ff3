//! Segments of arbitrary blocks under checksums that hold, as only a fault in the writer, or malice, would make them.
//! For the tests and the fuzz targets: they reach what lies behind the checksums.

use super::{Header, Totals, block_crc};

/// A segment of one block that is stored as it is.
#[cfg(test)]
pub(super) fn seal(raw: &[u8], records: u32, totals: Totals) -> Vec<u8> {
    let (raw_len, stored_len) = (raw.len(), raw.len());
    seal_block(Header { raw_len, stored_len, compressed: false, records }, raw, totals)
}

/// A segment of one block with the counts of `totals`.
#[cfg(test)]
pub(super) fn seal_block(header: Header, stored: &[u8], totals: Totals) -> Vec<u8> {
    let mut sealed = Sealed::new(totals);
    sealed.push(header, stored);
    sealed.finish()
}

/// A segment being sealed, block after block.
struct Sealed {
    bytes: Vec<u8>,
    totals: Totals,
}

impl Sealed {
    fn new(totals: Totals) -> Self {
        Self { bytes: Vec::new(), totals }
    }

    fn push(&mut self, header: Header, stored: &[u8]) {
        let fields = header.encode();
        let crc = block_crc(self.totals.blocks_crc, &fields, stored);
        self.totals.add_block(stored.len(), crc);
        self.bytes.extend([&fields[..], &crc.to_le_bytes(), stored].concat());
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.extend(self.totals.to_footer());
        self.bytes
    }
}

/// A block as it is stored.
#[cfg(feature = "fuzz")]
#[derive(Clone, Copy, Debug)]
pub struct Block<'b> {
    /// Length that the header gives for the raw bytes; that of `stored` where they are not compressed.
    pub raw_len: usize,
    /// Whether the header calls the bytes compressed.
    pub compressed: bool,
    /// Number of records that the header gives.
    pub records: u32,
    /// The bytes.
    pub stored: &'b [u8],
}

/// A segment of these blocks whose footer gives these totals: records, keys, bytes of both.
#[cfg(feature = "fuzz")]
pub(crate) fn segment_of(blocks: &[Block<'_>], [records, keys, raw_bytes]: [u64; 3]) -> Vec<u8> {
    let mut sealed = Sealed::new(Totals { records, keys, raw_bytes, ..Totals::default() });
    for Block { raw_len, compressed, records, stored } in blocks.iter().copied() {
        let raw_len = if compressed { raw_len } else { stored.len() };
        sealed.push(Header { raw_len, stored_len: stored.len(), compressed, records }, stored);
    }
    sealed.finish()
}
