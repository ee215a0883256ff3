//! Words and how often they are there, as `gristmill run wordcount` counts them.

use std::io::Write;

use gristmill_guest::{App, Pairs, Sums, Task, Values};

/// The words of a task.
struct WordCount {
    words: Sums,
}

/// Words that are held at a time.
const MOST: usize = 500_000;

impl App for WordCount {
    fn begin(_: Task<'_>) -> Result<Self, String> {
        Ok(Self { words: Sums::new(MOST) })
    }

    fn map(&mut self, records: &[u8], out: &mut Pairs) -> Result<(), String> {
        // Where the word at hand begins; whether there is one.
        let (mut start, mut within) = (0, false);
        for (n, stretch) in records.chunks(64).enumerate() {
            let bits = in_words(stretch);
            // A bit for each byte that is in a word becomes one for each place where a word begins or ends.
            let mut edges = bits ^ (bits << 1 | u64::from(within));
            within = bits >> 63 == 1;
            let ends = edges & !bits;
            while edges != 0 {
                let at = n * 64 + edges.trailing_zeros() as usize;
                if ends & edges & edges.wrapping_neg() != 0 {
                    self.words.add(records, (start, at), 1, out);
                } else {
                    start = at;
                }
                edges &= edges - 1;
            }
        }
        if within {
            self.words.add(records, (start, records.len()), 1, out);
        }
        Ok(())
    }

    fn mapped(&mut self, out: &mut Pairs) -> Result<(), String> {
        self.words.hand_on(out);
        gristmill_guest::count("wordcount", "tasks", 1);
        Ok(())
    }

    fn reduce(&mut self, key: &[u8], values: Values<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(key);
        writeln!(out, "\t{}", sum(values)?).map_err(|e| e.to_string())
    }
}

/// A bit for each of at most 64 bytes that is in a word: an ASCII letter or digit.
#[cfg(not(target_arch = "wasm32"))]
fn in_words(bytes: &[u8]) -> u64 {
    let bit = |(at, byte): (usize, &u8)| u64::from(byte.is_ascii_alphanumeric()) << at;
    bytes.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
}

/// The same for 16 bytes at a time.
#[cfg(target_arch = "wasm32")]
#[target_feature(enable = "simd128")]
fn in_words(bytes: &[u8]) -> u64 {
    use std::arch::wasm32::{u8x16_bitmask, u8x16_lt, u8x16_splat, u8x16_sub, u64x2, v128_or};
    let mut padded = [0; 64];
    let bytes = bytes.first_chunk().unwrap_or_else(|| {
        padded[..bytes.len()].copy_from_slice(bytes);
        &padded
    });
    bytes.chunks_exact(16).enumerate().fold(0, |all, (n, sixteen)| {
        let [low, high] = [0, 8].map(|at| sixteen[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight)));
        let bytes = u64x2(low, high);
        let letters = u8x16_sub(v128_or(bytes, u8x16_splat(32)), u8x16_splat(b'a'));
        let digits = u8x16_sub(bytes, u8x16_splat(b'0'));
        let either = v128_or(u8x16_lt(letters, u8x16_splat(26)), u8x16_lt(digits, u8x16_splat(10)));
        all | u64::from(u8x16_bitmask(either)) << (16 * n)
    })
}

fn sum(mut values: Values<'_>) -> Result<u64, String> {
    values.try_fold(0, |sum, value| {
        let count = value.try_into().map_err(|_| format!("a count of {} bytes", value.len()))?;
        Ok(sum + u64::from_le_bytes(count))
    })
}

gristmill_guest::export!(WordCount);
