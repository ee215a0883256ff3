//! Sorting of references to keys: entries of eight key bytes and an address, sorted stably without touching the keys
//! where eight bytes decide, and eight more at a time where they do not.

/// An entry to sort.
pub(crate) trait Prefixed {
    fn prefix(&self) -> u64;
    fn set_prefix(&mut self, prefix: u64);
}

/// How many rounds of eight bytes before plain comparison takes over: a bound on recursion for long common prefixes.
const ROUNDS: usize = 6;

/// Sorts `entries` by their keys' raw bytes; equal keys stay in order. On entry the prefixes are the keys' first eight
/// bytes, big-endian, padded with zeros. On return a prefix says only this: entries with different prefixes have
/// different keys.
pub(crate) fn sort<E: Prefixed + Copy, K>(entries: &mut [E], key: &K)
where
    K: Fn(&E) -> *const [u8],
{
    sort_from(entries, key, 0)
}

fn sort_from<E: Prefixed + Copy, K: Fn(&E) -> *const [u8]>(entries: &mut [E], key: &K, round: usize) {
    if entries.len() < 2 {
        return;
    }
    entries.sort_by_key(Prefixed::prefix);
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let prefix = first.prefix();
        let n = rest.iter().position(|e| e.prefix() != prefix).unwrap_or(rest.len());
        let (ties, others) = rest.split_at_mut(n);
        if n > 1 {
            resolve(ties, key, round + 1);
        }
        rest = others;
    }
}

/// Sorts entries whose first `8 * round` key bytes are equal when padded with zeros.
fn resolve<E: Prefixed + Copy, K: Fn(&E) -> *const [u8]>(ties: &mut [E], key: &K, round: usize) {
    let done = 8 * round;
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
    sort_from(longer, key, round);
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

    fn check(keys: &[Vec<u8>]) {
        let mut entries: Vec<Entry<'_>> = keys.iter().enumerate().map(|(i, k)| Entry(prefix_of(k), k, i)).collect();
        let mut want = entries.clone();
        want.sort_by_key(|e| e.1);
        sort(&mut entries, &|e| e.1);
        let places = |entries: &[Entry<'_>]| entries.iter().map(|e| e.2).collect::<Vec<_>>();
        assert_eq!(places(&entries), places(&want));
        for pair in entries.windows(2) {
            assert!(pair[0].0 == pair[1].0 || pair[0].1 != pair[1].1, "{:?}", (pair[0].1, pair[1].1));
        }
    }

    proptest! {
        #[test]
        fn as_a_stable_sort_does(
            keys in prop::collection::vec((0usize..100, prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff)], 0..6)), 0..200)
        ) {
            // Long common prefixes of zeros, where padding and lengths matter.
            let keys: Vec<Vec<u8>> = keys.into_iter().map(|(n, tail)| [vec![0; n], tail].concat()).collect();
            check(&keys);
        }
    }

    #[test]
    fn equal_keys_of_a_mebibyte() {
        check(&[vec![7; 1 << 20], vec![7; (1 << 20) - 1], vec![7; 1 << 20]]);
    }
}
