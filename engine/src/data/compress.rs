//! Compressed inputs and outputs: which codec a file name asks for, a streaming
//! [`Decoder`] that never ends silently, and an [`Encoder`] for outputs.
//!
//! Formats: gzip (RFC 1952), Zstandard (RFC 8878), bzip2, and the LZ4 frame format
//! (lz4/doc/lz4_Frame_format.md, version 1.6). A compressed file cannot be cut into
//! splits, so one reader takes it from its first byte to its last. Opening files,
//! and reading a codec that only the content tells, is left out.

mod compressed;
mod decode;
mod encode;
mod frames;
mod lz4;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

pub use decode::Decoder;
pub(crate) use decode::tool_of;
pub use encode::Encoder;

/// Largest zstd window a [`Decoder`] accepts: 2^27 bytes = 128 MiB, what `zstd -d`
/// accepts too unless it is given `--long=28` or more.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// A codec, as told by a file's extension or by a job's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// As written by bzip2 1.0.
    Bzip2,
    /// The LZ4 frame format.
    Lz4,
}

impl Compression {
    /// All codecs, in the order they are listed to a user.
    pub const ALL: [Self; 4] = [Self::Gzip, Self::Zstd, Self::Bzip2, Self::Lz4];

    /// The codec a path's last extension stands for, in any ASCII case: `.gz`, `.gzip`,
    /// `.zst`, `.zstd`, `.bz2` and `.lz4`; `None` for every other name.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        let is = |name: &str| extension.eq_ignore_ascii_case(OsStr::new(name));
        if is("gz") || is("gzip") {
            Some(Self::Gzip)
        } else if is("zst") || is("zstd") {
            Some(Self::Zstd)
        } else if is("bz2") {
            Some(Self::Bzip2)
        } else if is("lz4") {
            Some(Self::Lz4)
        } else {
            None
        }
    }

    /// The extension of files written with this codec, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zstd => "zst",
            Self::Bzip2 => "bz2",
            Self::Lz4 => "lz4",
        }
    }

    /// The codec's name, which is also that of its command line tool.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
        }
    }
}

/// How a file is unpacked whose extension stands for a packed format that is not read; `None` for every other name.
pub fn unpacker(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "xz" | "lzma" => "xz -d",
        "tgz" => "tar -xzf",
        "tbz" | "tbz2" => "tar -xjf",
        "txz" => "tar -xJf",
        "tzst" => "tar --zstd -xf",
        "zip" => "unzip",
        "7z" => "7z x",
        "br" => "brotli -d",
        _ => return None,
    })
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A codec name that is none of [`Compression::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}; choose gzip, zstd, bzip2 or lz4")]
pub struct UnknownCompression(pub String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Self::ALL.into_iter().find(|c| c.name() == name).ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// Why a compressed input could not be read to its end.
///
/// A [`Decoder`] hands it out inside an [`io::Error`], from which
/// `error.get_ref().and_then(|e| e.downcast_ref::<compress::Error>())` takes it back.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// A header, a block or a checksum is wrong.
    #[error(
        "{name}: corrupt {compression} data near byte {offset} of the compressed file: {cause}; \
         check the file with '{compression} -t'"
    )]
    Corrupt {
        name: Arc<str>,
        compression: Compression,
        /// Compressed bytes consumed when the flaw showed; it lies at or before this.
        offset: u64,
        /// What the codec said. Text, as the codecs have no error type in common.
        cause: String,
    },

    /// The file ends inside a member, or holds none at all.
    #[error(
        "{name}: truncated {compression} data: the compressed file ends at byte {offset}, \
         before its content does; write or copy the file again"
    )]
    Truncated {
        name: Arc<str>,
        compression: Compression,
        /// Length of the compressed file in bytes.
        offset: u64,
    },

    /// What follows the last complete member is not the codec's data.
    #[error(
        "{name}: trailing garbage at byte {offset} of the compressed file, after complete \
         {compression} data; cut the file there or write it again"
    )]
    TrailingGarbage {
        name: Arc<str>,
        compression: Compression,
        /// Where the complete data ends, in compressed bytes.
        offset: u64,
    },

    /// The data may be sound, but uses a feature that is not read.
    #[error("{name}: {feature} near byte {offset} of the compressed file; {advice}")]
    Unsupported {
        name: Arc<str>,
        /// Compressed bytes consumed before the feature was met.
        offset: u64,
        feature: &'static str,
        advice: &'static str,
    },

    /// The compressed bytes could not be read; nothing is known of their content.
    #[error("{name}: read failed at byte {offset} of the compressed file; check where it is stored")]
    Read {
        name: Arc<str>,
        /// Compressed bytes consumed before the failure.
        offset: u64,
        #[source]
        source: Arc<io::Error>,
    },
}

impl Error {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Corrupt { .. } | Self::TrailingGarbage { .. } => io::ErrorKind::InvalidData,
            Self::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            Self::Unsupported { .. } => io::ErrorKind::Unsupported,
            Self::Read { source, .. } => source.kind(),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests;
