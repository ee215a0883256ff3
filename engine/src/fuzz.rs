//! Doors for the workspace's fuzz targets to what meets foreign bytes inside of the engine, behind the feature `fuzz`.
//!
//! Nothing is done here; each function is the inner one under a public name. No part of the interface: it changes with
//! the engine.

use std::ops::Range;

use crate::app::{Chunk, Format};
use crate::data::segment::sealed;
use crate::data::words::Isa;

pub use sealed::Block;

/// The records whose first byte lies in `start..end` of `input`, as a range of bytes.
pub fn cut(format: Format, input: &[u8], start: usize, end: usize) -> Range<usize> {
    format.cut(input, start, end)
}

/// How many bytes of `bytes`, which begin with a record, are whole records.
pub fn complete(format: Format, bytes: &[u8]) -> usize {
    format.complete(bytes)
}

/// A chunk that an app would read with `isa`.
pub fn chunk(bytes: &[u8], format: Format, isa: Isa) -> Chunk<'_> {
    Chunk::new_with(bytes, format, 0, "fuzz", isa)
}

/// A segment of these blocks under checksums that hold, with these totals in its footer: records, keys, bytes of both.
pub fn segment_of(blocks: &[Block<'_>], totals: [u64; 3]) -> Vec<u8> {
    sealed::segment_of(blocks, totals)
}
