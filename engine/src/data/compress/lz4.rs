//! LZ4 frames. The crate's decoder reads the end of the file inside a frame as a regular
//! end, so a [`Walker`] below it follows the frame's fields and knows where it stands.
//!
//! Fields as in the LZ4 frame format 1.6: magic, flags, rest of the descriptor, blocks
//! each led by its size, a zero size as end mark, content checksum.

use std::io::{self, Read};
use std::mem;

use lz4_flex::frame::{Error as FrameError, FrameDecoder};

use super::compressed::Compressed;
use super::frames::Codec;

pub(super) struct Lz4<'s>(FrameDecoder<Walker<'s>>);

impl<'s> Lz4<'s> {
    pub(super) fn new(compressed: Compressed<'s>) -> Self {
        Self(FrameDecoder::new(Walker::new(compressed)))
    }
}

impl<'s> Codec<'s> for Lz4<'s> {
    fn compressed(&mut self) -> &mut Compressed<'s> {
        &mut self.0.get_mut().compressed
    }

    fn open_frame(&mut self) -> io::Result<()> {
        let compressed = mem::take(self.compressed());
        // A new decoder for each frame: the crate's keeps its buffers, and breaks an
        // assertion of its own when the next frame's blocks are of another size.
        *self = Self::new(compressed);
        self.0.get_mut().enter(Field::Magic, 4);
        Ok(())
    }

    fn read_frame(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.0.read(out)?;
            if len > 0 || self.0.get_ref().field == Field::Done {
                return Ok(len);
            }
            // Within the frame, nothing decoded is either the end of the file or an
            // empty block, which the format allows.
            if self.compressed().peek(1)?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The words for what the crate's decoder found, or `None` if it is not one of its errors.
pub(super) fn cause(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<FrameError>()?;
    Some(match error {
        FrameError::DecompressionError(error) => format!("bad block: {error}").to_lowercase(),
        FrameError::UnsupportedBlocksize(_) => "invalid block size in the frame header".into(),
        FrameError::UnsupportedVersion(_) => "invalid version in the frame header".into(),
        FrameError::ReservedBitsSet => "reserved bits are set in the frame header".into(),
        FrameError::HeaderChecksumError => "the frame header does not match its checksum".into(),
        FrameError::BlockTooBig => "a block is larger than the frame header allows".into(),
        FrameError::BlockChecksumError => "a block does not match its checksum".into(),
        FrameError::ContentChecksumError => "the content does not match its checksum".into(),
        FrameError::ContentLengthError { expected, actual } => {
            format!("the frame holds {actual} bytes where its header says {expected}")
        }
        other => format!("{other:?}").to_lowercase(),
    })
}

/// Whether a sound frame was refused because it was made with a dictionary.
pub(super) fn needs_dictionary(error: &io::Error) -> bool {
    let frame = error.get_ref().and_then(|e| e.downcast_ref::<FrameError>());
    matches!(frame, Some(FrameError::DictionaryNotSupported))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Magic,
    Flags,
    Descriptor,
    BlockSize,
    Block,
    ContentChecksum,
    /// The frame is over.
    Done,
}

/// Passes a frame's bytes on, never more than one field at a time.
struct Walker<'s> {
    compressed: Compressed<'s>,
    field: Field,
    /// Bytes of the field still to come.
    left: u64,
    /// The field's last four bytes, as a little-endian number once it is complete.
    value: [u8; 4],
    block_checksums: bool,
    content_checksum: bool,
}

impl<'s> Walker<'s> {
    fn new(compressed: Compressed<'s>) -> Self {
        Self { compressed, field: Field::Done, left: 0, value: [0; 4], block_checksums: false, content_checksum: false }
    }

    fn enter(&mut self, field: Field, len: u64) {
        self.field = field;
        self.left = len;
    }

    fn pass(&mut self, bytes: &[u8]) {
        for &byte in &bytes[bytes.len().saturating_sub(4)..] {
            self.value = [self.value[1], self.value[2], self.value[3], byte];
        }
        self.left -= bytes.len() as u64;
        while self.left == 0 && self.field != Field::Done {
            self.next_field();
        }
    }

    fn next_field(&mut self) {
        match self.field {
            Field::Magic => self.enter(Field::Flags, 1),
            Field::Flags => {
                let flags = self.value[3];
                self.block_checksums = flags & 0x10 != 0;
                self.content_checksum = flags & 0x04 != 0;
                let content_size = if flags & 0x08 != 0 { 8 } else { 0 };
                let dictionary_id = if flags & 0x01 != 0 { 4 } else { 0 };
                // Block size byte and header checksum around the optional fields.
                self.enter(Field::Descriptor, 2 + content_size + dictionary_id);
            }
            Field::Descriptor | Field::Block => self.enter(Field::BlockSize, 4),
            Field::BlockSize => self.enter_block(u32::from_le_bytes(self.value)),
            Field::ContentChecksum | Field::Done => self.enter(Field::Done, 0),
        }
    }

    fn enter_block(&mut self, size: u32) {
        if size == 0 {
            let len = if self.content_checksum { 4 } else { 0 };
            self.enter(Field::ContentChecksum, len);
        } else {
            // The highest bit only says that the block is stored as it is.
            let checksum = if self.block_checksums { 4 } else { 0 };
            self.enter(Field::Block, u64::from(size & 0x7fff_ffff) + checksum);
        }
    }
}

impl Read for Walker<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).map_or(out.len(), |left| left.min(out.len()));
        let len = self.compressed.read(&mut out[..limit])?;
        self.pass(&out[..len]);
        Ok(len)
    }
}
