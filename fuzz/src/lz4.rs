//! The content of LZ4 frames as the format defines it, whatever their checksums say: a plain reference.
//!
//! Fields as in the LZ4 frame format 1.6.

use lz4_flex::block::decompress_with_dict;

use crate::bytes::Bytes;

/// How far back a block may refer to those before it.
const WINDOW: usize = 64 << 10;

/// The content of all frames of a file, cut at `most` bytes; nothing if they are malformed.
pub(crate) fn content(file: &[u8], most: usize) -> Option<Vec<u8>> {
    let (mut file, mut content) = (Bytes(file), Vec::new());
    while !file.is_empty() && content.len() < most {
        match *file.exactly(4)? {
            [0x04, 0x22, 0x4d, 0x18] => frame(&mut file, &mut content, most)?,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                let len = number(&mut file)? as usize;
                file.exactly(len)?;
            }
            _ => return None,
        }
    }
    content.truncate(most);
    Some(content)
}

fn number(file: &mut Bytes<'_>) -> Option<u32> {
    Some(u32::from_le_bytes(*file.exactly(4)?.first_chunk()?))
}

fn frame(file: &mut Bytes<'_>, content: &mut Vec<u8>, most: usize) -> Option<()> {
    let [flags, size] = *file.exactly(2)?.first_chunk()?;
    let largest = (1 << 8) << (2 * (size >> 4 & 7));
    // Content size, dictionary, checksum of the header.
    file.exactly(if flags & 8 != 0 { 8 } else { 0 } + if flags & 1 != 0 { 4 } else { 0 } + 1)?;
    let start = content.len();
    loop {
        let size = number(file)?;
        if size == 0 {
            file.exactly(if flags & 4 != 0 { 4 } else { 0 })?;
            return Some(());
        }
        let block = file.exactly((size & 0x7fff_ffff) as usize)?;
        file.exactly(if flags & 16 != 0 { 4 } else { 0 })?;
        if size >> 31 != 0 {
            content.extend_from_slice(block);
        } else {
            let linked = if flags & 32 == 0 { start.max(content.len().saturating_sub(WINDOW)) } else { content.len() };
            let raw = decompress_with_dict(block, largest, &content[linked..]).ok()?;
            content.extend_from_slice(&raw);
        }
        if content.len() >= most {
            // The rest is not looked at; nor does the decoder look at it.
            file.take(usize::MAX);
            return Some(());
        }
    }
}
