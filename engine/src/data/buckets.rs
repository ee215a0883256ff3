//! An order-preserving scatter: from the first eight bytes of a key to one of many small buckets.
//!
//! Fitted to a sample. The sample's common leading bits are taken off, the next 12 bits pick a row, and a row that
//! the sample found dense is divided by the bits after. A bucket's keys then fit the cache and sort there. Keys that
//! the fit did not foresee only make some bucket larger, never wrong.

/// Rows, by the top bits of the adjusted prefix: few enough for the L1 cache.
const ROW_BITS: u32 = 12;
/// Most bits that divide one row.
const DIVIDE_BITS: u32 = 18;

/// The fitted map from prefixes to buckets.
pub(crate) struct Buckets {
    low: u64,
    high: u64,
    shift: u32,
    row_shift: u32,
    /// First bucket of each row, and how many bits divide it.
    rows: Vec<(u32, u32)>,
    count: usize,
}

impl Buckets {
    /// Fits to `sample` of a population of `n`, for about `each` keys a bucket.
    pub(crate) fn fit(sample: &[u64], n: usize, each: usize) -> Self {
        let low = sample.iter().copied().min().unwrap_or(0);
        let high = sample.iter().copied().max().unwrap_or(0);
        let shift = (high - low).leading_zeros().min(63);
        // Few keys want few rows: each costs a look.
        let row_bits = (n / each.max(1)).max(2).ilog2().clamp(1, ROW_BITS);
        let row_shift = 64 - row_bits;
        let mut seen = vec![0u32; 1 << row_bits];
        for prefix in sample {
            seen[((prefix - low) << shift >> row_shift) as usize] += 1;
        }
        let mut count = 0;
        let per_sample = n as f64 / sample.len().max(1) as f64 / each as f64;
        let rows = seen
            .iter()
            .map(|seen| {
                let want = f64::from(*seen) * per_sample;
                let bits = if want <= 1.0 { 0 } else { (want.log2().ceil() as u32).min(DIVIDE_BITS) };
                let first = count;
                count += 1 << bits;
                (first, bits)
            })
            .collect();
        Self { low, high, shift, row_shift, rows, count: count as usize }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The bucket of a prefix. Never decreases as the prefix rises.
    #[inline(always)]
    pub(crate) fn of(&self, prefix: u64) -> usize {
        let adjusted = (prefix.clamp(self.low, self.high) - self.low) << self.shift;
        let row = (adjusted >> self.row_shift) as usize;
        // SAFETY: there are `1 << (64 - row_shift)` rows.
        let (first, bits) = unsafe { *self.rows.get_unchecked(row) };
        let below = adjusted << (64 - self.row_shift);
        // Two shifts: `bits` may be zero, and a shift by 64 is not one.
        first as usize + (below >> 1 >> (63 - bits)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_is_kept_whatever_the_sample(
            sample in prop::collection::vec(any::<u64>(), 0..50),
            mut keys in prop::collection::vec(any::<u64>(), 0..200),
            common in 0u32..64, n in 0usize..1_000_000, each in 1usize..300,
        ) {
            let narrow = |k: u64| (k >> common) | 0x5a << 56;
            let sample: Vec<u64> = sample.into_iter().map(narrow).collect();
            let buckets = Buckets::fit(&sample, n, each);
            keys.extend(keys.clone().into_iter().map(narrow));
            keys.extend([0, u64::MAX]);
            keys.sort_unstable();
            let placed: Vec<usize> = keys.iter().map(|k| buckets.of(*k)).collect();
            prop_assert!(placed.is_sorted());
            prop_assert!(placed.iter().all(|b| *b < buckets.count()));
        }
    }

    #[test]
    fn a_common_prefix_does_not_crowd_the_buckets() {
        let keys: Vec<u64> = (0..100_000u64).map(|i| 0x2f75_7372_0000_0000 | i * 40_000).collect();
        let sample: Vec<u64> = keys.iter().copied().step_by(10).collect();
        let buckets = Buckets::fit(&sample, keys.len(), 64);
        let mut fill = vec![0; buckets.count()];
        for key in &keys {
            fill[buckets.of(*key)] += 1;
        }
        assert!(fill.iter().max() < Some(&1000), "{:?}", fill.iter().max());
    }
}
