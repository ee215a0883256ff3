//! What can be wrong with a segment, as told to the person who has to act on it.

use std::{fmt, io, sync::Arc};

use super::VERSION;

/// Why a segment could not be read. Each is one line: the file, the byte offset in it, what is
/// wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// The source did not give the bytes asked for. The text includes the cause, which is
    /// therefore no [`source`](std::error::Error::source).
    #[error(
        "{name}: cannot read {len} bytes at byte {at}: {cause}; check the disk and the file, then run the job again"
    )]
    Read { name: Arc<str>, at: u64, len: u64, cause: io::Error },

    /// The bytes are not those that were written.
    #[error("{name}: {part} at byte {at}: {fault}; the file was damaged after it was written, run the job again")]
    Damaged { name: Arc<str>, part: Part, at: u64, fault: Fault },

    /// The segment is of a format version this program does not know.
    #[error(
        "{name}: footer at byte {at}: segment version {found}, this program reads version {VERSION}; run the whole job with one version of gristmill"
    )]
    Version { name: Arc<str>, at: u64, found: u32 },

    /// The checksums hold, but a key is smaller than the one before it. `record` counts from 0 at
    /// the start of the segment, `at` is where the block starts.
    #[error(
        "{name}: block at byte {at}: the key of record {record} is smaller than the one before; the segment was written unsorted, report this as a bug"
    )]
    Unsorted { name: Arc<str>, at: u64, record: u64 },

    /// No memory for a block.
    #[error(
        "{name}: block at byte {at}: no memory for {bytes} bytes; run fewer tasks at once or give the worker more memory"
    )]
    Memory { name: Arc<str>, at: u64, bytes: usize },
}

/// The part of a segment an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The range given for the segment as a whole.
    Segment,
    /// One block.
    Block,
    /// The footer.
    Footer,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Segment => "segment",
            Part::Block => "block",
            Part::Footer => "footer",
        })
    }
}

/// How a part of a segment differs from anything a writer makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Fault {
    /// The range cannot hold a footer, or runs past the last possible offset.
    #[error("a range of {len} bytes cannot hold a segment")]
    Range { len: u64 },
    /// The last bytes are not those every segment ends with.
    #[error("no segment ends here")]
    Magic,
    /// A footer of another version; reported as [`Error::Version`].
    #[error("segment version {found}")]
    Version { found: u32 },
    /// Stored and computed CRC32C differ.
    #[error("checksum mismatch (stored 0x{stored:08x}, computed 0x{computed:08x})")]
    Checksum { stored: u32, computed: u32 },
    /// The footer and the range disagree on the length.
    #[error("blocks of {found} bytes in a segment with room for {room}")]
    Length { found: u64, room: u64 },
    /// A block header with lengths that no block has or that do not fit the rest of the segment.
    #[error("impossible lengths (raw {raw_len}, stored {stored_len}, room {room}, records {records})")]
    Header { raw_len: usize, stored_len: usize, room: u64, records: u32 },
    /// LZ4 refuses the stored bytes, or they expand to another length.
    #[error("stored bytes do not decompress to {raw_len} bytes")]
    Compression { raw_len: usize },
    /// A record runs past its block, shares more than the key before it has, or is the last and
    /// leaves bytes over; `at` counts from the start of the raw block.
    #[error("malformed record at raw byte {at}")]
    Record { at: usize },
    /// A total of the footer is not that of the blocks.
    #[error("{what} should be {footer}, the blocks have {found}")]
    Total { what: &'static str, footer: u64, found: u64 },
}
