//! The format of an entry in the database.
//!
//! A frame is `length u32 | term u64 | index u64 | previous frame's hash [16] | CRC32C u32 | payload`, big-endian. The
//! CRC covers all but itself. A frame's hash is the first 16 bytes of its SHA-256, so that a chain of frames can not
//! lose or gain one unseen. A frame lies in the database in chunks of 4 KiB under `'l' | index u64 | chunk u16`.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::disk::{Batch, MAX_VALUE_BYTES};
use crate::planted::{Bug, planted};
use crate::types::LogId;

/// The most bytes that an entry's payload may have.
pub(crate) const MAX_PAYLOAD_BYTES: usize = (1 << 20) + 1;

/// Bytes of a frame before its payload.
pub(crate) const HEADER_BYTES: usize = 40;
const CRC_AT: usize = 36;

/// Identifies a frame and all before it.
pub(crate) type Hash = [u8; 16];

/// What the first frame after nothing, or after a jump over entries never seen, has as its previous hash.
pub(crate) const NO_HASH: Hash = [0; 16];

/// The place of a frame in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) id: LogId,
    pub(crate) hash: Hash,
}

/// A frame as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) tip: Tip,
    pub(crate) previous: Hash,
    pub(crate) payload: Bytes,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("{0} bytes where a frame has at least {HEADER_BYTES}")]
    Short(usize),
    #[error("{found} bytes of payload where the frame says {expected}")]
    Length { expected: usize, found: usize },
    #[error("checksum {found:08x} where the frame says {expected:08x}")]
    Checksum { expected: u32, found: u32 },
}

/// The frame of an entry.
pub(crate) fn encode(id: &LogId, previous: &Hash, payload: &[u8]) -> (Vec<u8>, Tip) {
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&id.committed_leader_id().term.to_be_bytes());
    frame.extend_from_slice(&id.index().to_be_bytes());
    frame.extend_from_slice(previous);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), payload);
    frame.extend_from_slice(&crc.to_be_bytes());
    frame.extend_from_slice(payload);
    let hash = hash(&frame);
    (frame, Tip { id: *id, hash })
}

/// Checks a frame and takes it apart.
pub(crate) fn decode(frame: Vec<u8>) -> Result<Frame, Damage> {
    let (Some(length), Some(term), Some(index)) = (number(&frame, 0, 4), number(&frame, 4, 8), number(&frame, 12, 8))
    else {
        return Err(Damage::Short(frame.len()));
    };
    let (Some(previous), Some(expected)) = (frame.get(20..CRC_AT), number(&frame, CRC_AT, 4)) else {
        return Err(Damage::Short(frame.len()));
    };
    let previous: Hash = previous.try_into().unwrap_or(NO_HASH);
    let (found, length) = (frame.len() - HEADER_BYTES, usize::try_from(length).unwrap_or(usize::MAX));
    if found != length {
        return Err(Damage::Length { expected: length, found });
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC_AT]), &frame[HEADER_BYTES..]);
    if u64::from(crc) != expected {
        return Err(Damage::Checksum { expected: u32::try_from(expected).unwrap_or(0), found: crc });
    }
    let tip = Tip { id: LogId::new_term_index(term, index), hash: hash(&frame) };
    let payload = Bytes::from(frame).slice(HEADER_BYTES..);
    Ok(Frame { tip, previous, payload })
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn hash(frame: &[u8]) -> Hash {
    let digest = Sha256::digest(frame);
    let mut hash = NO_HASH;
    hash.copy_from_slice(&digest[..16]);
    hash
}

/// The key of a chunk of the entry at `index`.
pub(crate) fn key(index: u64, chunk: u16) -> [u8; 11] {
    let mut key = [b'l'; 11];
    let index = if planted(Bug::LittleEndianKeys) { index.swap_bytes() } else { index };
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// Behind the keys of all entries.
pub(crate) const END_OF_KEYS: &[u8] = b"m";

/// The index and chunk number of a key, or `None` if it is not one of an entry.
pub(crate) fn parse_key(key: &[u8]) -> Option<(u64, u16)> {
    if key.len() != 11 || key[0] != b'l' {
        return None;
    }
    let index = number(key, 1, 8)?;
    let index = if planted(Bug::LittleEndianKeys) { index.swap_bytes() } else { index };
    Some((index, u16::try_from(number(key, 9, 2)?).ok()?))
}

/// Puts a frame into `batch`, in chunks.
pub(crate) fn put(batch: &mut Batch, index: u64, frame: &[u8]) {
    for (chunk, bytes) in (0_u16..).zip(frame.chunks(MAX_VALUE_BYTES)) {
        batch.put(key(index, chunk), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_whole() {
        let id = LogId::new_term_index(7, 11);
        for length in [0, 1, 5000] {
            let payload = vec![3; length];
            let (bytes, tip) = encode(&id, &[9; 16], &payload);
            let frame = decode(bytes).unwrap();
            assert_eq!((frame.tip, frame.previous, &frame.payload[..]), (tip, [9; 16], &payload[..]));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let (bytes, _) = encode(&LogId::new_term_index(7, 11), &[9; 16], b"payload");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(bad).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(bytes[..length].to_vec()).is_err(), "{length} bytes");
        }
    }

    /// The format is for ever: these bytes are what an old database holds. (CRC and hash are from another program.)
    #[test]
    fn the_format_is_this() {
        let (bytes, tip) = encode(&LogId::new_term_index(1, 2), &NO_HASH, &[0]);
        let text = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let zeros = "0".repeat(32);
        assert_eq!(text(&bytes[..36]), format!("0000000100000000000000010000000000000002{zeros}"));
        assert_eq!(text(&bytes[36..]), "2de7efa300");
        assert_eq!(text(&tip.hash), "f9084365c26605f0fc8f401f9208f0cd");
        assert_eq!(text(&key(258, 3)), "6c00000000000001020003");
        assert_eq!(parse_key(&key(258, 3)), Some((258, 3)));
    }
}
