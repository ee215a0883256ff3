//! A key on its way from a table to be reduced, and how such keys are sorted.
//!
//! An item holds 16 bytes of its key, which mostly decide. Among long keys with equal ones the next 16 bytes take
//! their place, and so on: most keys are read where they lie once, however much they have in common.

use super::table::{INLINE, Key, LONG};

/// How many rounds of 16 bytes before plain comparison takes over: a bound on recursion for long common prefixes.
const ROUNDS: usize = 6;
/// Most items that are sorted by insertion.
const FEW: usize = 20;
/// Items between the one that is read and the one whose key is fetched for later.
const AHEAD: usize = 16;

/// A key of a table and what is kept of its slot.
pub(crate) struct Item<K> {
    /// Sixteen bytes of the key, big-endian, padded with zeros: the first ones, of a long key any that decided.
    words: [u64; 2],
    /// Length + 1 of an inline key; else the address of the key and `LONG`.
    tag: u64,
    pub(crate) kept: K,
}

impl<K: Copy> Clone for Item<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K: Copy> Copy for Item<K> {}

impl<K: Copy> Item<K> {
    /// Of a long key the first eight bytes only: where it lies is not touched before [`fill_in`].
    #[inline(always)]
    pub(crate) fn new(key: &Key, kept: K) -> Self {
        let words = [first_bytes(key), if key.is_long() { 0 } else { key.words[1].swap_bytes() }];
        let tag = if key.is_long() { key.words[0] << 8 | LONG } else { key.tag & 0xff };
        Self { words, tag, kept }
    }

    /// The first eight bytes, before items are sorted.
    #[inline(always)]
    pub(crate) fn first_bytes(&self) -> u64 {
        self.words[0]
    }

    #[inline(always)]
    fn is_long(&self) -> bool {
        self.tag & 0xff == LONG
    }

    #[inline(always)]
    fn number(&self) -> u128 {
        u128::from(self.words[0]) << 64 | u128::from(self.words[1])
    }

    /// # Safety
    /// It must be a long key, and its arena alive for `'a`.
    #[inline(always)]
    unsafe fn long<'a>(&self) -> &'a [u8] {
        // SAFETY: passed on to the caller.
        unsafe { Key { words: [self.tag >> 8, 0], tag: LONG }.long() }
    }

    /// The key's bytes; `inline` is room for those of an inline key.
    ///
    /// # Safety
    /// The arena of a long key must be alive for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn bytes<'a>(&self, inline: &'a mut [u8; INLINE]) -> &'a [u8] {
        if self.is_long() {
            // SAFETY: passed on to the caller.
            return unsafe { self.long() };
        }
        *inline = self.number().to_be_bytes();
        &inline[..self.len_inline()]
    }

    fn len_inline(&self) -> usize {
        ((self.tag & 0xff) as usize).saturating_sub(1).min(INLINE)
    }

    /// # Safety
    /// The arena of a long key must be alive.
    #[inline(always)]
    unsafe fn len(&self) -> usize {
        // SAFETY: passed on to the caller.
        if self.is_long() { unsafe { self.long().len() } } else { self.len_inline() }
    }

    /// Whether two items of the same sorted items have the same key.
    ///
    /// # Safety
    /// The arenas of long keys must be alive.
    #[inline(always)]
    pub(crate) unsafe fn same(&self, other: &Self) -> bool {
        // SAFETY: passed on to the caller.
        self.words == other.words && unsafe { self.same_rest(other) }
    }

    /// # Safety
    /// As above.
    #[inline(never)]
    unsafe fn same_rest(&self, other: &Self) -> bool {
        if self.is_long() && other.is_long() {
            // SAFETY: passed on to the caller.
            unsafe { self.long() == other.long() }
        } else {
            self.tag & 0xff == other.tag & 0xff
        }
    }

    /// Sees to it that the start of a long key will be in the cache.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        if self.is_long() {
            use std::arch::x86_64::*;
            let start = std::ptr::without_provenance::<i8>((self.tag >> 8) as usize);
            // SAFETY: a prefetch never faults.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(start);
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
            }
        }
    }
}

/// The first eight bytes of a key so that they compare as a number.
#[inline(always)]
pub(crate) fn first_bytes(key: &Key) -> u64 {
    key.words[usize::from(key.is_long())].swap_bytes()
}

/// Makes items ready to be sorted: takes the second eight bytes of long keys from where they lie.
///
/// # Safety
/// The arenas of long keys must be alive.
pub(crate) unsafe fn fill_in<K: Copy>(items: &mut [Item<K>]) {
    // SAFETY: passed on to the caller.
    unsafe { take_words(items, 0) }
}

/// Takes the bytes of long keys from `done` on, several keys at a time. They must have more than `done` bytes.
///
/// # Safety
/// As above.
unsafe fn take_words<K: Copy>(items: &mut [Item<K>], done: usize) {
    for i in 0..items.len() {
        if let Some(next) = items.get(i + AHEAD) {
            next.prefetch();
        }
        let item = &mut items[i];
        if item.is_long() {
            // SAFETY: passed on to the caller.
            let number = number_at(unsafe { item.long() }, done);
            item.words = [(number >> 64) as u64, number as u64];
        }
    }
}

/// Sixteen bytes of a long key from `done` on, padded with zeros, so that they compare as a number.
#[inline(always)]
fn number_at(key: &[u8], done: usize) -> u128 {
    if let Some(bytes) = key.get(done..).and_then(<[u8]>::first_chunk) {
        return u128::from_be_bytes(*bytes);
    }
    let last = key.last_chunk().map_or(0, |last| u128::from_be_bytes(*last));
    last.checked_shl(8 * (INLINE + done).saturating_sub(key.len()) as u32).unwrap_or(0)
}

/// Sorts items by the bytes of their keys, those of one key by `place`. They must have been filled in.
///
/// # Safety
/// The arenas of long keys must be alive.
pub(crate) unsafe fn sort<K: Copy>(items: &mut [Item<K>], place: &dyn Fn(&K) -> usize) {
    // SAFETY: passed on to the caller.
    unsafe { sort_from(items, place, 0) }
}

/// Sorts items whose keys are the same up to the bytes in the items.
///
/// # Safety
/// As above.
unsafe fn sort_from<K: Copy>(items: &mut [Item<K>], place: &dyn Fn(&K) -> usize, round: usize) {
    if items.len() <= FEW {
        if !insert(items) {
            return;
        }
    } else {
        items.sort_unstable_by_key(Item::number);
    }
    let mut rest = items;
    while let Some(first) = rest.first() {
        let words = first.words;
        let n = rest.iter().position(|i| i.words != words).unwrap_or(rest.len());
        let (ties, others) = rest.split_at_mut(n);
        if n > 1 {
            // SAFETY: passed on to the caller.
            unsafe { resolve(ties, place, round + 1) };
        }
        rest = others;
    }
}

/// Sorts a few items by their words; whether any two are equal.
#[inline]
fn insert<K: Copy>(items: &mut [Item<K>]) -> bool {
    let mut ties = false;
    for i in 1..items.len() {
        let item = items[i];
        let number = item.number();
        let mut at = i;
        while at > 0 {
            let before = items[at - 1].number();
            if before <= number {
                ties |= before == number;
                break;
            }
            items[at] = items[at - 1];
            at -= 1;
        }
        items[at] = item;
    }
    ties
}

/// Sorts items whose keys are the same in the first `round * 16` bytes, when padded with zeros.
///
/// # Safety
/// As above.
unsafe fn resolve<K: Copy>(ties: &mut [Item<K>], place: &dyn Fn(&K) -> usize, round: usize) {
    let done = round * INLINE;
    // SAFETY: passed on to the caller.
    let len = |i: &Item<K>| unsafe { i.len() };
    // Keys that end here differ by length only: shorter ones are prefixes of longer ones.
    let class = |i: &Item<K>| len(i).min(done + 1);
    if !ties.is_sorted_by_key(class) {
        ties.sort_unstable_by_key(class);
    }
    let (ended, longer) = ties.split_at_mut(ties.partition_point(|i| len(i) <= done));
    if ended.len() > 1 {
        ended.sort_unstable_by_key(|i| (len(i), place(&i.kept)));
    }
    if longer.len() < 2 {
        return;
    }
    // SAFETY: passed on to the caller; an inline key has no more than `INLINE` bytes, so these are long.
    unsafe {
        if round > ROUNDS {
            longer.sort_unstable_by(|a, b| {
                a.long()[done..].cmp(&b.long()[done..]).then_with(|| place(&a.kept).cmp(&place(&b.kept)))
            });
        } else {
            take_words(longer, done);
            sort_from(longer, place, round);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Arena;
    use super::super::hash::{Seed, hash_short, pack};
    use super::super::table::first_word;
    use super::*;
    use proptest::prelude::*;

    fn key_of(bytes: &[u8], arena: &mut Arena) -> Key {
        if bytes.len() <= INLINE {
            let words = pack(bytes);
            return Key::short(words, bytes.len(), hash_short(words, Seed::STABLE));
        }
        Key { words: [arena.put_key(bytes).0, first_word(bytes)], tag: LONG }
    }

    /// Sorts keys, the place of each being its number from the end.
    fn check(keys: &[Vec<u8>]) {
        let mut arena = Arena::default();
        let item = |(i, bytes): (usize, &Vec<u8>)| Item::new(&key_of(bytes, &mut arena), i);
        let mut items: Vec<Item<usize>> = keys.iter().enumerate().map(item).collect();
        let mut want: Vec<(&[u8], usize)> = keys.iter().enumerate().map(|(i, k)| (&k[..], keys.len() - i)).collect();
        want.sort();
        let mut inline = [0; INLINE];
        // SAFETY: the arena is alive.
        unsafe {
            fill_in(&mut items);
            sort(&mut items, &|i| keys.len() - i);
            let got: Vec<_> = items.iter().map(|i| (i.bytes(&mut inline).to_vec(), keys.len() - i.kept)).collect();
            assert!(got.iter().map(|(k, p)| (&k[..], *p)).eq(want.iter().copied()), "{got:?}");
            for (items, keys) in items.windows(2).zip(got.windows(2)) {
                assert_eq!(items[0].same(&items[1]), keys[0].0 == keys[1].0, "{keys:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn as_a_stable_sort_does(
            keys in prop::collection::vec((0usize..200, prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff)], 0..6)), 0..200)
        ) {
            // Long common prefixes of zeros, where padding and lengths matter.
            let keys: Vec<Vec<u8>> = keys.into_iter().map(|(n, tail)| [vec![0; n], tail].concat()).collect();
            check(&keys);
        }
    }

    #[test]
    fn keys_of_all_lengths_that_are_prefixes_of_each_other() {
        let keys: Vec<Vec<u8>> = (0..300).rev().flat_map(|n| [vec![b'a'; n], vec![b'a'; n], vec![0; n]]).collect();
        check(&keys);
    }

    #[test]
    fn equal_keys_of_a_mebibyte() {
        check(&[vec![7; 1 << 20], vec![7; (1 << 20) - 1], vec![7; 1 << 20]]);
    }
}
