//! Records of bytes, for code that speaks no text: each is a key and a value behind their lengths.
//!
//! A record is two lengths in 32 bits each, little-endian, then the key and the value, which may hold anything. A mapper's
//! key has the number of its part in front ([`number`]); keys are sorted by their raw bytes, and what else they
//! mean is the business of whoever writes and reads them.

use super::keys;

/// Bytes before a record.
pub const HEAD: usize = 8;

/// The part of a key by its bytes: the same for the same key, whoever asks.
pub fn part_of(key: &[u8], parts: u32) -> u32 {
    ((u64::from(crc32c::crc32c(key)) * u64::from(parts)) >> 32) as u32
}

/// Appends the number of a part, as it stands in front of a mapper's key.
pub fn number(part: u32, parts: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&part.to_be_bytes()[4 - keys::width(parts)..]);
}

/// Appends a record.
pub fn pack(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEAD + key.len() + value.len());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// The key and the value of the first record, and its length; `None` if it is not wholly there.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let ([a, b, c, d, e, f, g, h], rest) = bytes.split_first_chunk::<HEAD>()?;
    let [key, value] = [u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h])].map(|n| n as usize);
    let end = key.checked_add(value)?;
    let (key, value) = rest.get(..end)?.split_at(key);
    Some((key, value, HEAD + end))
}

/// Calls `f` with each of whole records; returns what is left behind them.
pub fn each<'b>(mut bytes: &'b [u8], mut f: impl FnMut(&'b [u8], &'b [u8])) -> &'b [u8] {
    while let Some((key, value, len)) = first(bytes) {
        f(key, value);
        bytes = &bytes[len..];
    }
    bytes
}

/// Records that come in blocks.
#[derive(Debug, Default)]
pub struct Records {
    /// The beginning of a record whose end has not come.
    rest: Vec<u8>,
}

impl Records {
    /// Calls `f` with whole records, one or more at a time.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn push<E>(&mut self, mut block: &[u8], mut f: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while !self.rest.is_empty() && !block.is_empty() {
            let want = match self.rest.first_chunk::<HEAD>() {
                None => HEAD,
                Some(_) => HEAD + lengths(&self.rest),
            };
            let take = (want - self.rest.len()).min(block.len());
            self.rest.extend_from_slice(&block[..take]);
            block = &block[take..];
            if self.rest.len() >= HEAD && self.rest.len() == HEAD + lengths(&self.rest) {
                f(&self.rest)?;
                self.rest.clear();
            }
        }
        let mut whole = 0;
        while let Some((.., len)) = first(&block[whole..]) {
            whole += len;
        }
        if whole > 0 {
            f(&block[..whole])?;
        }
        self.rest.extend_from_slice(&block[whole..]);
        Ok(())
    }

    /// As `push`, with the key and the value of each.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn push_each<E>(&mut self, block: &[u8], mut f: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.push(block, |whole| {
            let mut done = Ok(());
            each(whole, |key, value| {
                if done.is_ok() {
                    done = f(key, value);
                }
            });
            done
        })
    }
}

/// Bytes of key and value of a record whose head is there.
fn lengths(head: &[u8]) -> usize {
    let number = |at: usize| head[at..at + 4].iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
    number(0) + number(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_whole_however_blocks_are_cut() {
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..9).map(|n| (vec![b'k'; n], vec![n as u8; (n * 37) % 50])).collect();
        let mut all = Vec::new();
        pairs.iter().for_each(|(key, value)| pack(key, value, &mut all));
        for size in 1..=all.len() {
            let (mut records, mut got) = (Records::default(), Vec::new());
            for block in all.chunks(size) {
                let push = |key: &[u8], value: &[u8]| {
                    got.push((key.to_vec(), value.to_vec()));
                    Ok::<_, ()>(())
                };
                records.push_each(block, push).unwrap();
            }
            assert_eq!(got, pairs, "blocks of {size}");
        }
    }
}
