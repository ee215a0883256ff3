//! The oracle: MapReduce as anybody would write it in an afternoon, over vectors and maps.

use std::collections::BTreeMap;

use gristmill_engine::app::Format;

/// A record with the number of its input and its offset there.
#[derive(Clone, Copy, Debug)]
pub struct Record<'i> {
    pub input: u32,
    pub offset: u64,
    pub bytes: &'i [u8],
}

/// The records of all inputs, in order.
pub fn records(format: Format, inputs: &[Vec<u8>]) -> Vec<Record<'_>> {
    let mut all = Vec::new();
    for (input, bytes) in inputs.iter().enumerate() {
        let mut offset = 0;
        while offset < bytes.len() {
            let rest = &bytes[offset..];
            let (len, step) = match format {
                Format::Whole => (rest.len(), rest.len()),
                Format::Fixed(n) => (n, n),
                Format::Lines => ended_by(b'\n', rest),
                Format::Nul => ended_by(0, rest),
            };
            let mut record = &rest[..len];
            if format == Format::Lines && record.ends_with(b"\r") {
                record = &record[..len - 1];
            }
            all.push(Record { input: input as u32, offset: offset as u64, bytes: record });
            offset += step;
        }
    }
    all
}

fn ended_by(separator: u8, bytes: &[u8]) -> (usize, usize) {
    let len = bytes.iter().position(|b| *b == separator).unwrap_or(bytes.len());
    (len, len + 1)
}

/// The part that a key belongs to: the top 56 bits of its hash, in equal ranges.
pub fn part_of(key: &[u8], parts: u32) -> usize {
    let hash = u128::from(gristmill_engine::data::hash::stable_hash(key) >> 8);
    (hash * u128::from(parts) / (1 << 56)) as usize
}

/// Parts of an output that the stable hash divides, from the bytes that each key comes to.
pub fn hashed_parts(parts: u32, keys: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(); parts as usize];
    for (key, bytes) in keys.into_iter().collect::<BTreeMap<_, _>>() {
        all[part_of(&key, parts)].extend(bytes);
    }
    all
}

/// Pairs by key, the values of each in order.
pub fn grouped<V>(pairs: impl IntoIterator<Item = (Vec<u8>, V)>) -> BTreeMap<Vec<u8>, Vec<V>> {
    let mut all: BTreeMap<Vec<u8>, Vec<V>> = BTreeMap::new();
    for (key, value) in pairs {
        all.entry(key).or_default().push(value);
    }
    all
}
