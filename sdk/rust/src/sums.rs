//! Numbers that are summed by key within a task, so that it hands on a pair for each key and not for each time it is there.

use crate::Pairs;

/// Bytes of a key that stand in its slot.
const INLINE: usize = 16;
/// Keys that wait to be looked up together.
const ASKED: usize = 128;

/// What is held of a key: all of a short one, padded with zeros, and the beginning of a long one.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Slot {
    head: [u64; 2],
    /// 0: no key.
    sum: u64,
    len: u32,
    /// Where a long key is.
    at: u32,
}

#[derive(Clone, Copy, Default)]
struct Asked {
    head: [u64; 2],
    len: u32,
    home: u32,
    n: u64,
}

/// Sums of numbers by key. What is not handed on is not in the output: call [`Sums::hand_on`] when the map ends.
///
/// A table of open addressing, of 32 bytes a slot and at most half full. Short keys are looked up many at a time, since memory
/// answers many questions in the time of one.
pub struct Sums {
    slots: Vec<Slot>,
    shift: u32,
    used: usize,
    /// Long keys, one behind the other.
    long: Vec<u8>,
    asked: [Asked; ASKED],
    waiting: usize,
}

/// Ones for each of so many bytes.
const MASKS: [[u64; 2]; INLINE + 1] = {
    let mut all = [[u64::MAX; 2]; INLINE + 1];
    let mut n = 0;
    while n < INLINE {
        all[n] = if n < 8 { [(1 << (8 * n)) - 1, 0] } else { [u64::MAX, (1 << (8 * (n - 8))) - 1] };
        n += 1;
    }
    all
};

fn eight(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight))
}

impl Sums {
    /// Room for about so many keys; when there are more, all are handed on and it begins anew. 32 to 64 bytes each.
    pub fn new(keys: usize) -> Self {
        let slots = (2 * keys).clamp(1 << 10, 1 << 26).next_power_of_two();
        let shift = u64::BITS - slots.trailing_zeros();
        let (slots, long) = (vec![Slot::default(); slots], Vec::new());
        Self { slots, shift, used: 0, long, asked: [Asked::default(); ASKED], waiting: 0 }
    }

    /// Adds a number, of at least 1, to that of the key `bytes[start..end]`. It is quickest where 16 bytes follow on `start`.
    pub fn add(&mut self, bytes: &[u8], (start, end): (usize, usize), n: u64, out: &mut Pairs) {
        let key = &bytes[start..end];
        let mask = MASKS[key.len().min(INLINE)];
        let head = match bytes.get(start..start + INLINE) {
            Some(bytes) => [eight(bytes) & mask[0], eight(&bytes[8..]) & mask[1]],
            None => {
                let mut padded = [0; INLINE];
                padded[..key.len().min(INLINE)].copy_from_slice(&key[..key.len().min(INLINE)]);
                [eight(&padded), eight(&padded[8..])]
            }
        };
        let hash = head[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ head[1].wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let hash = (hash ^ hash >> 32).wrapping_mul(0x9fb2_1c65_1e98_df25);
        let (len, home) = (key.len() as u32, (hash >> self.shift) as u32);
        if key.len() > INLINE {
            return self.find(&Asked { head, len, home, n }, key, out);
        }
        self.asked[self.waiting] = Asked { head, len, home, n };
        self.waiting = (self.waiting + 1) % ASKED;
        if self.waiting == 0 {
            self.find_all(ASKED, out);
        }
    }

    /// Looks up so many keys.
    fn find_all(&mut self, n: usize, out: &mut Pairs) {
        let asked = self.asked;
        let slots = &self.slots[..];
        // Behind the last are some of before.
        let sums = asked.iter().map(|asked| slots[asked.home as usize & (slots.len() - 1)].sum);
        // Nobody wants to know, but whoever is asked must answer.
        std::hint::black_box(sums.fold(0, u64::wrapping_add));
        asked[..n].iter().for_each(|asked| self.find(asked, &[], out));
    }

    /// Looks up a key; `key` is that of a long one.
    fn find(&mut self, asked: &Asked, key: &[u8], out: &mut Pairs) {
        let last = self.slots.len() - 1;
        let mut at = asked.home as usize & last;
        loop {
            let slot = &mut self.slots[at];
            if slot.sum == 0 {
                break;
            }
            if slot.head == asked.head
                && slot.len == asked.len
                && (key.is_empty() || self.long[slot.at as usize..].starts_with(key))
            {
                slot.sum = slot.sum.saturating_add(asked.n);
                return;
            }
            at = (at + 1) & last;
        }
        if self.used >= self.slots.len() / 2 || self.long.len() > self.slots.len() * size_of::<Slot>() {
            self.hand_on_found(out);
            at = asked.home as usize & last;
        }
        let Asked { head, len, n, .. } = *asked;
        self.slots[at] = Slot { head, sum: n.max(1), len, at: self.long.len() as u32 };
        self.long.extend_from_slice(key);
        self.used += 1;
    }

    /// Hands on all keys, with their sums in 64 bits, little-endian; none is held afterwards.
    pub fn hand_on(&mut self, out: &mut Pairs) {
        let waiting = std::mem::take(&mut self.waiting);
        self.find_all(waiting, out);
        self.hand_on_found(out);
    }

    fn hand_on_found(&mut self, out: &mut Pairs) {
        let mut short = [0; INLINE];
        for slot in self.slots.iter_mut().filter(|slot| slot.sum > 0) {
            let len = slot.len as usize;
            let key = if len > INLINE {
                &self.long[slot.at as usize..][..len]
            } else {
                short[..8].copy_from_slice(&slot.head[0].to_le_bytes());
                short[8..].copy_from_slice(&slot.head[1].to_le_bytes());
                &short[..len]
            };
            out.push(key, &slot.sum.to_le_bytes());
            slot.sum = 0;
        }
        self.long.clear();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn sums_are_those_of_a_map_whatever_the_keys() {
        let text: String = (0..40_000u64).map(|n| format!("{:0w$} ", n * n % 3000, w = n as usize % 40)).collect();
        for room in [1, 600, 100_000] {
            let (mut sums, mut out, mut want) = (Sums::new(room), Pairs::default(), BTreeMap::new());
            let mut start = 0;
            for key in text.split_inclusive(' ') {
                let end = start + key.len() - 1;
                sums.add(text.as_bytes(), (start, end), key.len() as u64, &mut out);
                *want.entry(key.as_bytes()[..key.len() - 1].to_vec()).or_insert(0) += key.len() as u64;
                start += key.len();
            }
            sums.hand_on(&mut out);
            let mut got: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            let mut bytes = &out.0[..];
            while let Some(((key, value), rest)) = crate::pairs::first(bytes) {
                *got.entry(key.to_vec()).or_insert(0) += u64::from_le_bytes(value.try_into().unwrap());
                bytes = rest;
            }
            assert_eq!(got, want, "room for {room}");
        }
    }
}
