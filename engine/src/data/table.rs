//! The combining table: open addressing over huge pages, one per thread and span of input.
//!
//! An entry holds a key of at most 16 bytes inline (a longer one in the arena), 56 bits of its hash with its length,
//! and its slot: the accumulator or list that the job keeps for a key. The home of a key is given by the top bits of
//! its hash, so that a walk over the table goes in hash order: a partition is a run of slots, and tables merge by
//! walking side by side. Batches of pending pairs are probed by `emit`, not here.

use super::arena::{Arena, KeyPtr};
use super::hash::{Seed, hash_long, hash_short};
use super::pages::Pages;
use std::mem::MaybeUninit;

/// Low byte of the tag of a key that is in the arena.
pub(crate) const LONG: u64 = 0xff;
/// Longest key that is kept inline, in bytes.
pub(crate) const INLINE: usize = 16;
/// Slots behind the last home, so that a probe never wraps around.
const SLACK: usize = 1024;
/// A key this far from its home, at half load, is no accident (expected: about 90 slots at 2^26 keys).
const HOSTILE: usize = 512;
const SMALLEST: usize = 1 << 12;

/// What is known of a key: words and tag.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Key {
    /// Inline: the key's bytes, little-endian, padded with zeros. Long: arena address and first eight bytes.
    pub(crate) words: [u64; 2],
    /// Top 56 bits of the hash; below them, length + 1 of an inline key, or [`LONG`]. 0: no key.
    pub(crate) tag: u64,
}

#[repr(C)]
pub(crate) struct Entry<S> {
    pub(crate) key: Key,
    pub(crate) slot: MaybeUninit<S>,
}

impl<S> Entry<S> {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.key.tag == 0
    }
}

impl Key {
    #[inline(always)]
    pub(crate) fn short(words: [u64; 2], len: usize, hash: u64) -> Self {
        Self { words, tag: (hash & !0xff) | (len as u64 + 1) }
    }

    #[inline(always)]
    pub(crate) fn is_long(&self) -> bool {
        self.tag & 0xff == LONG
    }

    /// The 56 bits of the hash.
    #[inline(always)]
    pub(crate) fn hash(&self) -> u64 {
        self.tag >> 8
    }

    /// # Safety
    /// The arena of a long key must be alive for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn long<'a>(&self) -> &'a [u8] {
        // SAFETY: passed on to the caller.
        unsafe { KeyPtr(self.words[0]).key() }
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
        inline[..8].copy_from_slice(&self.words[0].to_le_bytes());
        inline[8..].copy_from_slice(&self.words[1].to_le_bytes());
        &inline[..((self.tag & 0xff) as usize).saturating_sub(1).min(INLINE)]
    }
}

/// What a job keeps for each key.
pub(crate) trait Slots {
    type Value: Copy;
    type Slot: Copy;

    fn first(&mut self, value: Self::Value) -> Self::Slot;
    fn add(&mut self, slot: &mut Self::Slot, value: Self::Value);
    /// Bytes of memory held beside the table.
    fn bytes(&self) -> usize;
    /// Forgets everything, for the table to begin again.
    fn clear(&mut self);
    /// The values of a slot, in the order in which they were added.
    fn values<'s>(&'s self, slot: &'s Self::Slot) -> impl Iterator<Item = Self::Value> + 's;
    /// Whether another batch of values may not fit any more.
    fn is_full(&self) -> bool {
        false
    }
}

pub(crate) struct Table<S> {
    entries: Pages<Entry<S>>,
    /// Homes: a power of two.
    homes: usize,
    slack: usize,
    shift: u32,
    pub(crate) used: usize,
    pub(crate) keys: Arena,
    pub(crate) seed: Seed,
}

// SAFETY: the entries are plain data (`Slots::Slot` is `Copy`) that point into memory owned beside them.
unsafe impl<S: Copy> Send for Table<S> {}
// SAFETY: as above; shared access only reads.
unsafe impl<S: Copy> Sync for Table<S> {}

impl<S: Copy> Table<S> {
    pub(crate) fn new() -> Self {
        Self::with(SMALLEST, SLACK, Seed::STABLE)
    }

    fn with(homes: usize, slack: usize, seed: Seed) -> Self {
        let homes = homes.max(SMALLEST).next_power_of_two();
        let mut entries = Pages::zeroed(homes + slack);
        entries.touch();
        Self { entries, homes, slack, shift: u64::BITS - homes.trailing_zeros(), used: 0, keys: Arena::default(), seed }
    }

    /// Bytes of memory, if the table had `homes` homes.
    pub(crate) fn bytes_at(homes: usize) -> usize {
        (homes + SLACK) * size_of::<Entry<S>>()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.bytes() + self.keys.bytes()
    }

    pub(crate) fn homes(&self) -> usize {
        self.homes
    }

    /// Whether keys are placed by a random hash because some chose theirs to collide.
    pub(crate) fn is_reseeded(&self) -> bool {
        self.seed != Seed::STABLE
    }

    /// Whether `n` more keys keep the table at most half full.
    #[inline(always)]
    pub(crate) fn has_room(&self, n: usize) -> bool {
        self.used + n <= self.homes / 2
    }

    /// Forgets all keys.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.used = 0;
        self.keys = Arena::default();
    }

    #[inline(always)]
    pub(crate) fn home(&self, tag: u64) -> *mut Entry<S> {
        // SAFETY: the top bits of the tag are below `homes`.
        unsafe { self.entries.as_ptr().add((tag >> self.shift) as usize) }
    }

    #[inline(always)]
    pub(crate) fn shift(&self) -> u32 {
        self.shift
    }

    pub(crate) fn start(&self) -> *mut Entry<S> {
        self.entries.as_ptr()
    }

    /// All entries in use, in the order of their hashes' top bits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<S>> {
        // SAFETY: zeroed memory is an empty entry.
        self.entries.iter().map(|e| unsafe { e.assume_init_ref() }).filter(|e| !e.is_empty())
    }

    /// The entries whose 56-bit hash is in `low..high`, roughly in that order. For tables with the stable seed.
    pub(crate) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = &Entry<S>> {
        let first = (low << 8 >> self.shift) as usize;
        let last = ((high << 8).wrapping_sub(1) >> self.shift) as usize;
        // SAFETY: zeroed memory is an empty entry.
        let entries = self.entries[first..].iter().map(|e| unsafe { e.assume_init_ref() }).enumerate();
        // Beyond the last home of the range its keys go on up to the first empty entry.
        entries
            .take_while(move |(i, e)| first + i <= last || !e.is_empty())
            .map(|(_, e)| e)
            .filter(move |e| !e.is_empty() && (low..high).contains(&e.key.hash()))
    }

    /// Moves all entries to a table of at least `homes` homes.
    #[cold]
    #[inline(never)]
    pub(crate) fn grow(&mut self, homes: usize) {
        self.rebuild(homes, self.slack, self.seed);
    }

    /// Places all keys anew by a hash that nobody can foresee. The answer to keys chosen to collide.
    #[cold]
    #[inline(never)]
    fn reseed(&mut self) {
        let secret = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), self.used);
        self.rebuild(self.homes, self.slack, Seed::secret(secret));
    }

    fn rebuild(&mut self, homes: usize, slack: usize, seed: Seed) {
        let mut to = Self::with(homes, slack, seed);
        let mut full = false;
        for entry in self.iter() {
            let key = if seed == self.seed { entry.key } else { rehashed(&entry.key, seed) };
            let mut at = to.home(key.tag);
            let end = to.last();
            // SAFETY: `at` stays below `last`, which is within the new table.
            unsafe {
                while !(*at).is_empty() && at < end {
                    at = at.add(1);
                }
                full |= !(*at).is_empty();
                std::ptr::copy_nonoverlapping(entry, at, 1);
                (*at).key = key;
            }
        }
        if full {
            // Clustered at the very end of the table: more slack always helps.
            return self.rebuild(homes, slack * 4, seed);
        }
        to.used = self.used;
        to.keys = std::mem::take(&mut self.keys);
        let old = std::mem::replace(self, to).entries;
        // Where keys are long they are about to need as much.
        if self.keys.bytes() > old.bytes() / 2 {
            self.keys.take_over(old.into_bytes());
        }
    }

    /// The last entry, which stays empty: the end of every probe.
    #[inline(always)]
    pub(crate) fn last(&self) -> *mut Entry<S> {
        // SAFETY: the table has `homes + slack` entries.
        unsafe { self.entries.as_ptr().add(self.homes + self.slack - 1) }
    }

    /// A key of the other hash, if the table was reseeded since it was hashed.
    fn current(&self, key: &Key, long: &[u8]) -> Key {
        match (self.is_reseeded(), key.is_long()) {
            (false, _) => *key,
            (true, false) => rehashed(key, self.seed),
            (true, true) => Key { words: key.words, tag: hash_long(long, self.seed) | LONG },
        }
    }

    /// Adds a value. `long` holds the bytes of a long key; `key.words[0]` of such a key is set here.
    ///
    /// The careful path: it copes with full slack and hostile keys. `hashed` is the seed that the key was hashed with.
    pub(crate) fn add<M: Slots<Slot = S>>(
        &mut self,
        key: Key,
        hashed: Seed,
        long: &[u8],
        value: M::Value,
        slots: &mut M,
    ) {
        let key = if hashed == self.seed { key } else { self.current(&key, long) };
        let mut at = self.home(key.tag);
        let end = self.last();
        let mut steps = 0;
        loop {
            // SAFETY: `at` is at most `last`.
            let entry = unsafe { &mut *at };
            if entry.is_empty() && at != end {
                entry.key = key;
                if key.is_long() {
                    entry.key.words[0] = self.keys.put_key(long).0;
                }
                entry.slot.write(slots.first(value));
                self.used += 1;
                if steps > HOSTILE && !self.is_reseeded() {
                    self.reseed();
                }
                return;
            }
            // SAFETY: long keys of the table are in its own arena.
            if entry.key.tag == key.tag && unsafe { same(entry, &key, long) } {
                // SAFETY: an entry in use has a slot.
                slots.add(unsafe { entry.slot.assume_init_mut() }, value);
                return;
            }
            if at == end {
                self.rebuild(self.homes, self.slack * 4, self.seed);
                return self.add(key, self.seed, long, value, slots);
            }
            // SAFETY: below `last`.
            at = unsafe { at.add(1) };
            steps += 1;
        }
    }
}

/// # Safety
/// The arena of `entry` must be alive.
#[inline(always)]
pub(crate) unsafe fn same<S>(entry: &Entry<S>, key: &Key, long: &[u8]) -> bool {
    if key.is_long() {
        // SAFETY: passed on to the caller; equal tags, so the entry's key is long too.
        entry.key.words[1] == key.words[1] && unsafe { entry.key.long() } == long
    } else {
        entry.key.words == key.words
    }
}

fn rehashed(key: &Key, seed: Seed) -> Key {
    let hash = if key.is_long() {
        // SAFETY: keys are rehashed only while their arena is there.
        hash_long(unsafe { key.long() }, seed)
    } else {
        hash_short(key.words, seed)
    };
    Key { words: key.words, tag: (hash & !0xff) | (key.tag & 0xff) }
}

/// First eight bytes of a long key, little-endian.
#[inline(always)]
pub(crate) fn first_word(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |c| u64::from_le_bytes(*c))
}

#[cfg(test)]
mod tests {
    use super::super::hash::{pack, partition_of};
    use super::*;
    use std::collections::BTreeMap;

    struct Sum;
    impl Slots for Sum {
        type Value = u64;
        type Slot = u64;
        fn first(&mut self, value: u64) -> u64 {
            value
        }
        fn add(&mut self, slot: &mut u64, value: u64) {
            *slot += value;
        }
        fn bytes(&self) -> usize {
            0
        }
        fn clear(&mut self) {}
        fn values<'s>(&'s self, slot: &'s u64) -> impl Iterator<Item = u64> + 's {
            std::iter::once(*slot)
        }
    }

    fn key_of(bytes: &[u8], seed: Seed) -> Key {
        if bytes.len() <= INLINE {
            let words = pack(bytes);
            Key::short(words, bytes.len(), hash_short(words, seed))
        } else {
            Key { words: [0, first_word(bytes)], tag: hash_long(bytes, seed) | LONG }
        }
    }

    fn fill(table: &mut Table<u64>, keys: &[Vec<u8>]) -> BTreeMap<Vec<u8>, u64> {
        let mut want = BTreeMap::new();
        for (i, bytes) in keys.iter().enumerate() {
            if !table.has_room(1) {
                table.grow(table.homes() * 2);
            }
            table.add(key_of(bytes, Seed::STABLE), Seed::STABLE, bytes, i as u64, &mut Sum);
            *want.entry(bytes.clone()).or_default() += i as u64;
        }
        want
    }

    fn content<'a>(entries: impl Iterator<Item = &'a Entry<u64>>) -> BTreeMap<Vec<u8>, u64> {
        let mut inline = [0; INLINE];
        // SAFETY: entries in use, arena alive.
        entries.map(|e| unsafe { (e.key.bytes(&mut inline).to_vec(), e.slot.assume_init()) }).collect()
    }

    #[test]
    fn keys_of_all_lengths_with_nul_bytes_are_distinct() {
        let keys: Vec<Vec<u8>> = (0..40).flat_map(|n| [vec![0; n], vec![b'a'; n], vec![0; n]]).collect();
        let mut table = Table::new();
        let want = fill(&mut table, &keys);
        assert_eq!(content(table.iter()), want);
        assert_eq!(table.used, want.len());
    }

    #[test]
    fn growth_and_ranges_keep_every_key() {
        let keys: Vec<Vec<u8>> =
            (0..20_000u32).map(|i| format!("{:0w$}", i % 7000, w = i as usize % 24).into_bytes()).collect();
        let mut table = Table::new();
        let want = fill(&mut table, &keys);
        assert_eq!(content(table.iter()), want);
        let mut all = BTreeMap::new();
        for p in 0..7 {
            let (low, high) = (super::super::hash::range_start(p, 7), super::super::hash::range_start(p + 1, 7));
            let part = content(table.range(low, high));
            for key in part.keys() {
                assert_eq!(partition_of(super::super::hash::stable_hash(key), 7), p as u32);
            }
            all.extend(part);
        }
        assert_eq!(all, want);
    }

    #[test]
    fn hostile_keys_are_placed_by_a_random_hash() {
        // Inline keys whose first word cancels the seed all hash to zero.
        let keys: Vec<Vec<u8>> =
            (0..2000u64).map(|i| [Seed::STABLE.0.to_le_bytes(), (i + (1 << 60)).to_le_bytes()].concat()).collect();
        let mut table = Table::new();
        let want = fill(&mut table, &keys);
        assert!(table.is_reseeded());
        assert_eq!(content(table.iter()), want);
    }
}
