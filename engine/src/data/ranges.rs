//! Ranges of keys, fitted to a sample: what a sorting job keeps apart from the start, so that each range can be sorted
//! and reduced by itself.
//!
//! Ranges are for speed alone. They are not parts: those are divided by keys of the sample, wherever in a range such a
//! key may be. A sample that was not like the rest makes some ranges larger than others, never wrong.

use super::buckets::Buckets;
use super::sort::prefix_of;

/// Longest common beginning of keys that is passed over, in bytes.
const LONGEST_COMMON: usize = 256;

/// A division of all keys into ranges, numbered in the order of keys.
pub(crate) struct Ranges {
    /// What the sampled keys begin with.
    common: Vec<u8>,
    /// Divides keys that begin so by the eight bytes after.
    buckets: Buckets,
}

impl Ranges {
    /// One range for all keys, more or less: for when nothing is known of them.
    pub(crate) fn one() -> Self {
        Self { common: Vec::new(), buckets: Buckets::fit(&[], 0, 1) }
    }

    /// Fits ranges of about `each` of `n` keys to a sorted sample of them.
    pub(crate) fn fit(sample: &[Vec<u8>], n: usize, each: usize) -> Self {
        let (Some(first), Some(last)) = (sample.first(), sample.last()) else { return Self::one() };
        let same = first.iter().zip(last).take_while(|(a, b)| a == b).count().min(LONGEST_COMMON);
        let prefixes: Vec<u64> = sample.iter().map(|key| prefix_of(&key[same..])).collect();
        Self { common: first[..same].to_vec(), buckets: Buckets::fit(&prefixes, n, each) }
    }

    /// How many ranges there are.
    pub(crate) fn count(&self) -> usize {
        // One more on each side for keys that begin otherwise.
        self.buckets.count() + 2
    }

    /// The range of a key, and the eight bytes that order it there: those after the first [`Ranges::skip`].
    #[inline(always)]
    pub(crate) fn of(&self, key: &[u8]) -> (u64, usize) {
        if self.common.is_empty() {
            let prefix = prefix_of(key);
            return (prefix, self.buckets.of(prefix) + 1);
        }
        self.of_rest(key)
    }

    fn of_rest(&self, key: &[u8]) -> (u64, usize) {
        match key.strip_prefix(self.common.as_slice()) {
            Some(rest) => {
                let prefix = prefix_of(rest);
                (prefix, self.buckets.of(prefix) + 1)
            }
            None if key < self.common.as_slice() => (prefix_of(key), 0),
            None => (prefix_of(key), self.count() - 1),
        }
    }

    /// How many bytes all keys of a range have in common, as far as it is known.
    pub(crate) fn skip(&self, range: usize) -> usize {
        if range == 0 || range == self.count() - 1 { 0 } else { self.common.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..12)
    }

    proptest! {
        #[test]
        fn ranges_are_in_the_order_of_keys(
            common in key(), sample in prop::collection::vec(key(), 0..40),
            with in prop::collection::vec(key(), 0..40), without in prop::collection::vec(key(), 0..40),
        ) {
            let lead = |k: Vec<u8>| [common.clone(), k].concat();
            let mut sample: Vec<Vec<u8>> = sample.into_iter().map(lead).collect();
            sample.sort();
            let ranges = Ranges::fit(&sample, 1 << 20, 100);
            let mut keys: Vec<Vec<u8>> = with.into_iter().map(lead).chain(without).collect();
            keys.sort();
            let places: Vec<(usize, u64)> = keys.iter().map(|k| ranges.of(k)).map(|(p, r)| (r, p)).collect();
            prop_assert!(places.is_sorted());
            for (key, (range, prefix)) in keys.iter().zip(places) {
                prop_assert!(range < ranges.count());
                prop_assert_eq!(prefix, prefix_of(&key[ranges.skip(range)..]));
            }
        }
    }
}
