//! The stable hash of keys, and how it divides them among partitions.
//!
//! Version 1, fixed for ever: the same key goes to the same part in every process and release. A multiply-and-fold
//! of 16-byte blocks, in the manner of wyhash's `mum`; it is quick, not secret. A table under attack by chosen keys
//! takes a random `Seed` instead and asks for the stable hash again only to partition.

/// Version of the stable hash. It stands in manifests; a change of the function changes it.
pub const HASH_VERSION: u32 = 1;

/// The two words that the key's halves are mixed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) u64, pub(crate) u64);

impl Seed {
    pub(crate) const STABLE: Self = Self(0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93);

    /// A seed that an attacker cannot guess, if `secret` is.
    pub(crate) fn secret(secret: u64) -> Self {
        let a = fold(secret ^ Self::STABLE.0, Self::STABLE.1);
        Self(a | 1, fold(a, secret ^ Self::STABLE.1) | 1)
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hash of a key of at most 16 bytes, given as two little-endian words padded with zeros.
#[inline(always)]
pub(crate) fn hash_short(key: [u64; 2], seed: Seed) -> u64 {
    fold(key[0] ^ seed.0, key[1] ^ seed.1)
}

/// Hash of a key of more than 16 bytes.
#[inline]
pub(crate) fn hash_long(key: &[u8], seed: Seed) -> u64 {
    let mut state = key.len() as u64 ^ seed.0;
    let (blocks, rest) = key.as_chunks::<16>();
    for block in blocks {
        let [a, b] = words(block);
        state = fold(a ^ state, b ^ seed.1);
    }
    // The last 16 bytes again, overlapping: cheaper than padding, and every byte counts.
    if !rest.is_empty()
        && let Some(last) = key.last_chunk::<16>()
    {
        let [a, b] = words(last);
        state = fold(a ^ state, b ^ seed.1);
    }
    fold(state ^ seed.1, seed.0)
}

#[inline(always)]
fn words(block: &[u8; 16]) -> [u64; 2] {
    let whole = u128::from_le_bytes(*block);
    [whole as u64, (whole >> 64) as u64]
}

/// A key of at most 16 bytes as two little-endian words padded with zeros, by loads that stay within it.
#[inline(always)]
pub(crate) fn pack(key: &[u8]) -> [u64; 2] {
    let n = key.len();
    if let (Some(first), Some(last)) = (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        let high = u64::from_le_bytes(*last).checked_shr(8 * (16 - n as u32)).unwrap_or(0);
        return [u64::from_le_bytes(*first), high];
    }
    if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        let (first, last) = (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)));
        return [first | last << (8 * (n - 4)), 0];
    }
    match *key {
        [] => [0, 0],
        [a] => [u64::from(a), 0],
        [a, b] => [u64::from(a) | u64::from(b) << 8, 0],
        [a, b, c, ..] => [u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16, 0],
    }
}

/// The stable hash of any key. Its top 56 bits decide the partition.
pub fn stable_hash(key: &[u8]) -> u64 {
    seeded_hash(key, Seed::STABLE)
}

pub(crate) fn seeded_hash(key: &[u8], seed: Seed) -> u64 {
    if key.len() <= 16 { hash_short(pack(key), seed) } else { hash_long(key, seed) }
}

/// Bits of the hash that tables keep and partitions use.
pub(crate) const HASH_BITS: u32 = 56;

/// The partition of a hash among `partitions`: equal ranges of the hash, in order.
#[inline(always)]
pub(crate) fn partition_of(hash: u64, partitions: u32) -> u32 {
    ((u128::from(hash >> (64 - HASH_BITS)) * u128::from(partitions)) >> HASH_BITS) as u32
}

/// The first 56-bit hash of range `i` of `ranges` equal ones. [`partition_of`] is its inverse.
pub(crate) fn range_start(i: usize, ranges: usize) -> u64 {
    ((i as u128) << HASH_BITS).div_ceil(ranges as u128) as u64
}

/// Hashes that lie within the range of the part that an app gives a key, so that a partition is a range of every table
/// here too. Keys of one part keep the order of their own hashes.
pub(crate) struct Placing {
    /// Where each part's range begins, and the end.
    starts: Vec<u64>,
}

impl Placing {
    pub(crate) fn new(parts: u32) -> Self {
        Self { starts: (0..=parts as usize).map(|part| range_start(part, parts as usize)).collect() }
    }

    /// The hash of a key of this part; of the last part, if there are not as many.
    #[inline(always)]
    pub(crate) fn within(&self, part: u32, hash: u64) -> u64 {
        let part = (part as usize).min(self.starts.len() - 2);
        let (start, end) = (self.starts[part], self.starts[part + 1]);
        let at = (u128::from(hash) * u128::from(end - start)) >> u64::BITS;
        (start + at as u64) << (u64::BITS - HASH_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_never_changes() {
        // Worked out by a program in another language from the description above.
        let vectors: &[(&[u8], u64)] = &[
            (b"", 0xc9d8_74ca_57d9_e055),
            (b"a", 0x8952_ed58_5372_fb36),
            (b"gristmill", 0xf24b_30d1_02f5_6f35),
            (b"sixteen bytes ok", 0x3d48_4a28_b447_c447),
            (b"more than sixteen bytes", 0x5b09_270e_1618_6cbe),
        ];
        let got: Vec<String> = vectors.iter().map(|(k, _)| format!("{:#x}", stable_hash(k))).collect();
        let want: Vec<String> = vectors.iter().map(|(_, h)| format!("{h:#x}")).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn packing_pads_with_zeros() {
        let key: Vec<u8> = (1..=16).collect();
        for n in 0..=16 {
            let mut padded = [0u8; 16];
            padded[..n].copy_from_slice(&key[..n]);
            assert_eq!(pack(&key[..n]), words(&padded), "{n}");
        }
    }

    #[test]
    fn every_byte_of_a_long_key_counts() {
        let key = vec![7u8; 45];
        for i in 0..key.len() {
            let mut other = key.clone();
            other[i] ^= 1;
            assert_ne!(stable_hash(&key), stable_hash(&other), "byte {i}");
        }
        assert_ne!(stable_hash(&key), stable_hash(&key[1..]));
    }

    #[test]
    fn partitions_are_ranges_of_the_hash() {
        for partitions in [1u32, 2, 3, 7, 1000] {
            for i in 0..partitions {
                let start = range_start(i as usize, partitions as usize);
                assert_eq!(partition_of(start << 8, partitions), i);
                if i > 0 {
                    assert_eq!(partition_of((start - 1) << 8, partitions), i - 1);
                }
            }
        }
    }

    #[test]
    fn a_hash_within_a_part_is_in_its_range() {
        for parts in [1u32, 2, 3, 7, 1000] {
            let placing = Placing::new(parts);
            for part in 0..parts {
                for hash in [0, 1, u64::MAX / 3, u64::MAX - 1, u64::MAX] {
                    assert_eq!(partition_of(placing.within(part, hash), parts), part, "{hash:#x} of {parts}");
                }
            }
            assert_eq!(partition_of(placing.within(parts + 5, 7), parts), parts - 1);
            assert!(placing.within(0, 1 << 40) < placing.within(0, u64::MAX));
        }
    }
}
