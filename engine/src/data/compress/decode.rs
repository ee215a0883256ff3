//! The decoder jobs read through: joins the frames of a file, decides what may follow a
//! frame, and turns every flaw into an [`Error`] that says where it lies.

use std::io::{self, Read};
use std::sync::Arc;

use super::compressed::Compressed;
use super::frames::{Codec, codec};
use super::{Compression, Error, lz4};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BZIP2_MAGIC: &[u8] = b"BZh";
const LZ4_MAGIC: &[u8] = &[0x04, 0x22, 0x4d, 0x18];
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const LZ4_LEGACY_MAGIC: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
/// Behind a first byte of 0x50 to 0x5f, for zstd and lz4 alike.
const SKIPPABLE_MAGIC_TAIL: &[u8] = &[0x2a, 0x4d, 0x18];
/// Magic number and content length of a skippable frame.
const SKIPPABLE_HEADER_LEN: usize = 8;

/// Reads the decompressed content of all frames of a compressed file, one after another.
///
/// The end is reported only after the last frame is complete and its checksums held: a
/// file that is cut short, even to no bytes at all, or goes on with anything but another
/// frame is an error. Zero bytes after the last gzip member are taken as padding, as GNU
/// gzip does. The LZ4 format leaves its checksums to the writer (the `lz4` tool writes
/// one); in frames without them a flipped byte can go unseen.
///
/// Memory is bounded by the format: 128 MiB of window for zstd
/// ([`ZSTD_WINDOW_LOG_MAX`](super::ZSTD_WINDOW_LOG_MAX)), 13 MiB for lz4, 4 MiB for
/// bzip2, well under 1 MiB for gzip.
///
/// # Errors
///
/// [`Read::read`] gives an [`io::Error`] around an [`Error`]; its kind is `UnexpectedEof`
/// for a truncated file, `InvalidData` for a corrupt one or one with trailing garbage,
/// `Unsupported`, or that of the failed read. Every later call gives the same error.
pub struct Decoder<'s> {
    codec: Box<dyn Codec<'s> + 's>,
    kind: Compression,
    name: Arc<str>,
    state: State,
}

enum State {
    /// Nothing was read yet.
    Fresh,
    Within,
    /// At least one frame is complete.
    Between,
    Ended,
    Failed(Error),
}

/// What the bytes at a frame boundary are.
enum Next {
    Frame,
    Skippable,
    Padding,
    Legacy,
    End,
    Foreign,
}

impl<'s> Decoder<'s> {
    /// A decoder of `inner`, which errors will call `name`.
    ///
    /// # Errors
    ///
    /// Only if the codec cannot be set up; `inner` is not read yet.
    pub fn new(kind: Compression, inner: Box<dyn Read + Send + 's>, name: Arc<str>) -> io::Result<Self> {
        Ok(Self { codec: codec(kind, Compressed::new(inner))?, kind, name, state: State::Fresh })
    }

    /// Compressed bytes consumed so far, for progress.
    pub fn compressed_offset(&mut self) -> u64 {
        self.codec.compressed().offset()
    }

    fn advance(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        loop {
            match &self.state {
                State::Within => {
                    let read = self.codec.read_frame(out);
                    match read.map_err(|error| self.codec_error(&error))? {
                        0 => self.state = State::Between,
                        len => return Ok(len),
                    }
                }
                State::Fresh => self.next_frame(true)?,
                State::Between => self.next_frame(false)?,
                State::Ended => return Ok(0),
                State::Failed(error) => return Err(error.clone()),
            }
        }
    }

    fn next_frame(&mut self, fresh: bool) -> Result<(), Error> {
        let head = self.codec.compressed().peek(4);
        let next = head.map(|head| recognise(self.kind, head));
        match next.map_err(|error| self.codec_error(&error))? {
            Next::Frame => {
                let opened = self.codec.open_frame();
                opened.map_err(|error| self.codec_error(&error))?;
                self.state = State::Within;
            }
            Next::Skippable => {
                self.skip_frame()?;
                self.state = State::Between;
            }
            Next::End if fresh => return Err(self.truncated()),
            Next::End => self.state = State::Ended,
            Next::Padding if !fresh => {
                self.skip_padding()?;
                self.state = State::Ended;
            }
            Next::Legacy => {
                return Err(self.unsupported(
                    "a legacy lz4 frame, whose end and content cannot be verified,",
                    "recompress the file with 'lz4' and without -l",
                ));
            }
            Next::Padding | Next::Foreign if fresh => {
                return Err(self.corrupt(format!("it does not begin like {} data", self.kind)));
            }
            Next::Padding | Next::Foreign => return Err(self.trailing_garbage()),
        }
        Ok(())
    }

    /// Passes over a skippable frame: magic number, 32-bit little-endian length, content.
    fn skip_frame(&mut self) -> Result<(), Error> {
        let head = self.codec.compressed().peek(SKIPPABLE_HEADER_LEN);
        let len = head.map(|head| match *head {
            [_, _, _, _, a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            // Cut within the header: a length that cannot be skipped either.
            _ => u64::from(u32::MAX),
        });
        let len = len.map_err(|error| self.codec_error(&error))?;
        let compressed = self.codec.compressed();
        match compressed.skip(len + SKIPPABLE_HEADER_LEN as u64) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.truncated()),
            Err(error) => Err(self.codec_error(&error)),
        }
    }

    /// Passes over zero bytes up to the end of the file.
    fn skip_padding(&mut self) -> Result<(), Error> {
        let compressed = self.codec.compressed();
        loop {
            let next = compressed.peek(1).map(|bytes| bytes.first().copied());
            match next {
                Ok(None) => return Ok(()),
                Ok(Some(0)) => {
                    if let Err(error) = compressed.skip(1) {
                        return Err(self.codec_error(&error));
                    }
                }
                Ok(Some(_)) => return Err(self.trailing_garbage()),
                Err(error) => return Err(self.codec_error(&error)),
            }
        }
    }

    /// What an error that came up through the codec means.
    fn codec_error(&mut self, error: &io::Error) -> Error {
        if let Some(source) = self.codec.compressed().failure().cloned() {
            return Error::Read { name: Arc::clone(&self.name), offset: self.compressed_offset(), source };
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return self.truncated();
        }
        let cause = lz4::cause(error).unwrap_or_else(|| error.to_string().to_lowercase());
        if self.kind == Compression::Zstd && cause.contains("too much memory") {
            // The crate passes zstd's error on as text only; a test pins the words.
            return self.unsupported(
                "a zstd frame with a window over 128 MiB",
                "recompress the file with 'zstd --long=27' or a smaller window",
            );
        }
        if lz4::needs_dictionary(error) {
            return self.unsupported("an lz4 frame that needs a dictionary", "recompress the file without one");
        }
        self.corrupt(cause)
    }

    fn corrupt(&mut self, cause: String) -> Error {
        Error::Corrupt { name: Arc::clone(&self.name), compression: self.kind, offset: self.compressed_offset(), cause }
    }

    fn truncated(&mut self) -> Error {
        let compressed = self.codec.compressed();
        // Bytes looked at but not consumed belong to the file's length too.
        let unread = compressed.peek(SKIPPABLE_HEADER_LEN).map_or(0, <[u8]>::len);
        Error::Truncated {
            name: Arc::clone(&self.name),
            compression: self.kind,
            offset: self.compressed_offset() + unread as u64,
        }
    }

    fn trailing_garbage(&mut self) -> Error {
        Error::TrailingGarbage {
            name: Arc::clone(&self.name),
            compression: self.kind,
            offset: self.compressed_offset(),
        }
    }

    fn unsupported(&mut self, feature: &'static str, advice: &'static str) -> Error {
        Error::Unsupported { name: Arc::clone(&self.name), offset: self.compressed_offset(), feature, advice }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.advance(out).map_err(|error| {
            self.state = State::Failed(error.clone());
            error.into()
        })
    }
}

/// The tool that made data which begins like this: no text does, for the magic numbers hold bytes that are not UTF-8 or
/// are control characters, and that of bzip2 is ten bytes long.
pub(crate) fn tool_of(head: &[u8]) -> Option<&'static str> {
    let is_bzip2 = head.starts_with(BZIP2_MAGIC) && head.get(4..10) == Some(b"1AY&SY".as_slice());
    let magics = [(GZIP_MAGIC, "gzip"), (ZSTD_MAGIC, "zstd"), (LZ4_MAGIC, "lz4"), (XZ_MAGIC, "xz")];
    let of = magics.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, tool)| *tool);
    of.or(is_bzip2.then_some("bzip2"))
}

/// Tells what starts with `head`: the next four bytes, fewer at the end of the file.
fn recognise(kind: Compression, head: &[u8]) -> Next {
    let magic = match kind {
        Compression::Gzip => GZIP_MAGIC,
        Compression::Zstd => ZSTD_MAGIC,
        Compression::Bzip2 => BZIP2_MAGIC,
        Compression::Lz4 => LZ4_MAGIC,
    };
    let skippable = matches!(kind, Compression::Zstd | Compression::Lz4);
    match head {
        [] => Next::End,
        // A cut magic number opens a frame, which is then found to be truncated.
        _ if starts_alike(head, magic) => Next::Frame,
        [0, ..] if kind == Compression::Gzip => Next::Padding,
        [0x50..=0x5f, tail @ ..] if skippable && starts_alike(tail, SKIPPABLE_MAGIC_TAIL) => Next::Skippable,
        _ if kind == Compression::Lz4 && head == LZ4_LEGACY_MAGIC => Next::Legacy,
        _ => Next::Foreign,
    }
}

/// Whether two byte strings agree as far as the shorter one goes.
fn starts_alike(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}
