//! Compressed input: foreign bytes, and content that was compressed and then damaged. What the decoder accepts is what
//! the codec's own crate makes of it (for LZ4, whose crate stops in the middle of some frames, what `lz4` does).
//!
//! Input: codec and whether the rest is compressed already, size of reads, changes, the rest.

use std::io::{self, Cursor, Read, Write};

use gristmill_engine::data::compress::{Compression, Decoder};

use crate::bytes::Bytes;
use crate::lz4;
use crate::memory::largest_while;

/// More is not decoded: content can be a thousand times as large as what it is stored in.
const MOST: u64 = 1 << 20;
/// What a decoder may ask Rust's allocator for at once, beside its output. zstd's window is the codec's own to bound.
const LARGEST: usize = 16 << 20;

/// Decodes and compares.
pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let (how, step, changes) = (data.byte(), usize::from(data.byte()) * 7 + 1, data.byte() % 4);
    let kind = Compression::ALL[usize::from(how % 4)];
    let changes: Vec<_> = (0..changes).map(|_| (data.number(), data.byte())).collect();
    if how & 4 == 0 {
        // Any outcome will do, as long as both agree on it.
        let _ = compare(kind, data.0.to_vec(), step);
        return;
    }
    let content = data.0;
    let mut file = compressed(kind, content);
    if how & 8 != 0 {
        file = file.repeat(2);
    }
    for (at, mask) in &changes {
        let at = at % file.len();
        file[at] ^= mask;
    }
    let sound = changes.iter().all(|(_, mask)| *mask == 0);
    let whole = if how & 8 != 0 { content.repeat(2) } else { content.to_vec() };
    match compare(kind, file, step) {
        Ok(got) => assert!(got == whole, "{kind}: damage that checksums cover gives other content"),
        Err(e) => assert!(!sound, "{kind}: {e}"),
    }
}

/// Decodes `file` by reads of `step` bytes. If that is the whole content, the reference has the same.
fn compare(kind: Compression, file: Vec<u8>, step: usize) -> io::Result<Vec<u8>> {
    let mut got = Ok(Vec::new());
    let largest = largest_while(|| got = decode(kind, file.clone(), step));
    assert!(largest <= LARGEST, "{kind}: {largest} bytes at once");
    // How closely zstd looks depends on whether the whole content fits into the buffer.
    let theirs = [step, 64, MOST as usize].map(|step| reference(kind, &file, step));
    match &got {
        Ok(got) => {
            let agrees = theirs.iter().any(|theirs| theirs.as_ref().is_ok_and(|theirs| theirs == got));
            let cut = got.len() as u64 == MOST;
            assert!(agrees || cut || is_padded(kind, &file), "{kind}: accepted {}", file.escape_ascii());
        }
        Err(e) => {
            let refused = theirs.iter().any(io::Result::is_err);
            assert!(refused || is_stricter(kind, e), "{kind}: refused {}: {e}", file.escape_ascii());
        }
    }
    got
}

fn decode(kind: Compression, file: Vec<u8>, step: usize) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::new(kind, Box::new(Cursor::new(file)), "fuzz".into())?;
    let (mut content, mut buffer) = (Vec::new(), vec![0; step]);
    while content.len() < MOST as usize {
        let room = step.min(MOST as usize - content.len());
        match decoder.read(&mut buffer[..room]) {
            Ok(0) => {
                assert_eq!(decoder.read(&mut buffer)?, 0, "an end is final");
                break;
            }
            Ok(n) => content.extend_from_slice(&buffer[..n]),
            Err(e) => {
                assert!(decoder.read(&mut buffer).is_err(), "an error is final");
                return Err(e);
            }
        }
    }
    Ok(content)
}

/// What the codec's own crate decodes, all frames of it, by reads of `step` bytes.
fn reference(kind: Compression, file: &[u8], step: usize) -> io::Result<Vec<u8>> {
    let mut decoder: Box<dyn Read + '_> = match kind {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(file)),
        Compression::Lz4 => return lz4::content(file, MOST as usize).ok_or(io::ErrorKind::InvalidData.into()),
    };
    let (mut content, mut buffer) = (Vec::new(), vec![0; step]);
    while content.len() < MOST as usize {
        let room = step.min(MOST as usize - content.len());
        match decoder.read(&mut buffer[..room])? {
            0 => break,
            n => content.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(content)
}

/// gzip members that zeros follow: GNU gzip takes them for padding, the crate for a bad member.
fn is_padded(kind: Compression, file: &[u8]) -> bool {
    kind == Compression::Gzip && file.ends_with(&[0])
}

/// Refusals that are ours alone. The crates take a file of no bytes, or one that ends inside a frame, for complete; the
/// reference for LZ4 looks at no checksum.
fn is_stricter(kind: Compression, error: &io::Error) -> bool {
    kind == Compression::Lz4
        || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::Unsupported)
        || error.to_string().contains("trailing garbage")
}

fn compressed(kind: Compression, content: &[u8]) -> Vec<u8> {
    let written = (|| match kind {
        Compression::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(content)?;
            writer.finish()
        }
        Compression::Zstd => {
            let mut writer = zstd::Encoder::new(Vec::new(), 1)?;
            writer.include_checksum(true)?;
            writer.write_all(content)?;
            writer.finish()
        }
        Compression::Bzip2 => {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            writer.write_all(content)?;
            writer.finish()
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new().content_checksum(true);
            let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            writer.write_all(content)?;
            Ok(writer.finish()?)
        }
    })();
    written.expect("a vector takes everything")
}
