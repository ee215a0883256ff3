//! Sorting of references to keys: entries of eight key bytes and an address, sorted stably without touching the keys
//! where eight bytes decide, and eight more at a time where they do not. [`Sorter`] does so for the many entries of a
//! range.

/// An entry to sort.
pub(crate) trait Prefixed {
    fn prefix(&self) -> u64;
    fn set_prefix(&mut self, prefix: u64);
}

/// How many rounds of eight bytes before plain comparison takes over: a bound on recursion for long common prefixes.
const ROUNDS: usize = 6;
/// Entries in a bucket, about.
const EACH: usize = 4;
/// Most entries that are sorted by insertion.
const FEW: usize = 20;
/// Most bits of a bucket's number: their histogram fits the L1 cache.
const BUCKET_BITS: u32 = 13;

/// Sorts the entries of a range, with room that is used again.
pub(crate) struct Sorter<E> {
    sorted: Vec<E>,
    ends: Vec<u32>,
}

impl<E> Default for Sorter<E> {
    fn default() -> Self {
        Self { sorted: Vec::new(), ends: Vec::new() }
    }
}

impl<E: Prefixed + Copy> Sorter<E> {
    /// The entries of `blocks`, fewer than 2^32, sorted as by [`sort`]. They are spread over small buckets first, by
    /// the bits in which their prefixes differ.
    pub(crate) fn sort<K: Fn(&E) -> *const [u8]>(&mut self, blocks: &[&[E]], key: &K, from: usize) -> &mut [E] {
        let n: usize = blocks.iter().map(|b| b.len()).sum();
        let all = || blocks.iter().copied().flatten();
        self.sorted.clear();
        self.sorted.reserve(n);
        let bits = (n / EACH).max(1).ilog2().min(BUCKET_BITS);
        let (low, high) = all().map(Prefixed::prefix).fold((u64::MAX, 0), |(l, h), p| (l.min(p), h.max(p)));
        if bits < 2 || low == high {
            blocks.iter().for_each(|b| self.sorted.extend_from_slice(b));
            sort(&mut self.sorted, key, from);
            return &mut self.sorted;
        }
        let shift = (high - low).leading_zeros();
        let bucket = |e: &E| ((e.prefix() - low) << shift >> (64 - bits)) as usize;
        self.ends.clear();
        self.ends.resize(1 << bits, 0);
        let ends = &mut self.ends[..1 << bits];
        all().for_each(|e| ends[bucket(e)] += 1);
        let mut at = 0;
        // First where each bucket begins; once it is filled, where it ends.
        ends.iter_mut().for_each(|end| at += std::mem::replace(end, at));
        let room = self.sorted.spare_capacity_mut();
        for e in all() {
            let at = &mut ends[bucket(e)];
            room[*at as usize].write(*e);
            *at += 1;
        }
        // SAFETY: each entry went to a place of its own below `n`.
        unsafe { self.sorted.set_len(n) };
        let mut start = 0;
        for end in ends {
            sort(&mut self.sorted[start..*end as usize], key, from);
            start = *end as usize;
        }
        &mut self.sorted
    }
}

/// Sorts `entries` by their keys' raw bytes; equal keys stay in order. On entry the keys' first `from` bytes are the
/// same, and the prefixes are the eight bytes after, big-endian, padded with zeros. On return a prefix says only this:
/// entries with different prefixes have different keys.
pub(crate) fn sort<E: Prefixed + Copy, K>(entries: &mut [E], key: &K, from: usize)
where
    K: Fn(&E) -> *const [u8],
{
    sort_from(entries, key, from, 0)
}

fn sort_from<E: Prefixed + Copy, K>(entries: &mut [E], key: &K, from: usize, round: usize)
where
    K: Fn(&E) -> *const [u8],
{
    if entries.len() <= FEW {
        if !insert(entries) {
            return;
        }
    } else {
        entries.sort_by_key(Prefixed::prefix);
    }
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let prefix = first.prefix();
        let n = rest.iter().position(|e| e.prefix() != prefix).unwrap_or(rest.len());
        let (ties, others) = rest.split_at_mut(n);
        if n > 1 {
            resolve(ties, key, from + 8, round + 1);
        }
        rest = others;
    }
}

/// Sorts a few entries by their prefixes, stably; whether any two are equal.
#[inline]
fn insert<E: Prefixed + Copy>(entries: &mut [E]) -> bool {
    let mut ties = false;
    for i in 1..entries.len() {
        let entry = entries[i];
        let mut at = i;
        while at > 0 {
            let before = entries[at - 1].prefix();
            if before <= entry.prefix() {
                ties |= before == entry.prefix();
                break;
            }
            entries[at] = entries[at - 1];
            at -= 1;
        }
        entries[at] = entry;
    }
    ties
}

/// Sorts entries whose first `done` key bytes are equal when padded with zeros.
fn resolve<E: Prefixed + Copy, K: Fn(&E) -> *const [u8]>(ties: &mut [E], key: &K, done: usize, round: usize) {
    // SAFETY: `key` gives slices that live as long as the entries.
    let bytes = |e: &E| unsafe { &*key(e) };
    // Keys that end here differ by length only: shorter ones are prefixes of longer ones.
    let class = |e: &E| bytes(e).len().min(done + 1);
    if !ties.iter().map(class).is_sorted() {
        ties.sort_by_key(class);
    }
    let ended = ties.iter().position(|e| class(e) > done).unwrap_or(ties.len());
    // The prefix alone cannot tell such keys apart from each other, so make it: lengths do.
    for e in &mut ties[..ended] {
        e.set_prefix(bytes(e).len() as u64);
    }
    let longer = &mut ties[ended..];
    if round > ROUNDS {
        longer.sort_by(|a, b| bytes(a)[done..].cmp(&bytes(b)[done..]));
        // Equal prefixes make the reader compare whole keys.
        for e in longer {
            e.set_prefix(u64::MAX);
        }
        return;
    }
    for e in longer.iter_mut() {
        e.set_prefix(prefix_of(&bytes(e)[done..]));
    }
    sort_from(longer, key, done, round);
}

/// The first eight bytes of a key as a number that compares like them.
#[inline(always)]
pub(crate) fn prefix_of(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut padded = [0; 8];
            padded[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(padded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy)]
    struct Entry<'a>(u64, &'a [u8], usize);
    impl Prefixed for Entry<'_> {
        fn prefix(&self) -> u64 {
            self.0
        }
        fn set_prefix(&mut self, prefix: u64) {
            self.0 = prefix;
        }
    }

    /// Sorts keys whose first `from` bytes are the same, whole and in blocks.
    fn check(keys: &[Vec<u8>], from: usize) {
        let entry = |(i, k)| -> Entry<'_> {
            let k: &Vec<u8> = k;
            Entry(prefix_of(&k[from..]), k, i)
        };
        let mut entries: Vec<Entry<'_>> = keys.iter().enumerate().map(entry).collect();
        let mut want = entries.clone();
        want.sort_by_key(|e| e.1);
        let blocks: Vec<&[Entry<'_>]> = entries.chunks(7).collect();
        let mut sorter = Sorter::default();
        let sorted = sorter.sort(&blocks, &|e| e.1, from).to_vec();
        sort(&mut entries, &|e| e.1, from);
        let places = |entries: &[Entry<'_>]| entries.iter().map(|e| e.2).collect::<Vec<_>>();
        for got in [entries, sorted] {
            assert_eq!(places(&got), places(&want));
            for pair in got.windows(2) {
                assert!(pair[0].0 == pair[1].0 || pair[0].1 != pair[1].1, "{:?}", (pair[0].1, pair[1].1));
            }
        }
    }

    proptest! {
        #[test]
        fn as_a_stable_sort_does(
            keys in prop::collection::vec((0usize..100, prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff)], 0..6)), 0..200)
        ) {
            // Long common prefixes of zeros, where padding and lengths matter.
            let keys: Vec<Vec<u8>> = keys.into_iter().map(|(n, tail)| [vec![0; n], tail].concat()).collect();
            check(&keys, 0);
            let keys: Vec<Vec<u8>> = keys.iter().map(|k| [b"common", &k[..]].concat()).collect();
            check(&keys, 6);
        }
    }

    #[test]
    fn equal_keys_of_a_mebibyte() {
        check(&[vec![7; 1 << 20], vec![7; (1 << 20) - 1], vec![7; 1 << 20]], 0);
    }
}
