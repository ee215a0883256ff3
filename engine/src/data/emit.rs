//! From an app's `emit` into a table, in batches.
//!
//! Emitting loads the key, hashes it and prefetches its home; the probe waits until a batch is full, when the entry
//! has arrived in the cache. The whole of `App::map` runs inside one function per instruction set, so that the
//! emitter, the tokenizer and the app's own loop are compiled together. The emitter's buffers live in the [`Mapper`],
//! which outlives the chunks of a span.

use std::fmt::Display;
use std::mem::MaybeUninit;

use super::arena::Arena;
use super::chunk::Chunk;
use super::group::Stored;
use super::hash::{Placing, Seed, hash_long, hash_short, pack};
use super::table::{Entry, INLINE, Key, LONG, Slots, Table, first_word};
use super::words::Isa;
use crate::app::{App, Emit};
use crate::error::Error;
use crate::value::{Stable, Value};

/// Pairs that wait for their probe. Enough to hide the memory's latency, few enough for the L1 cache.
const BATCH: usize = 128;
/// As above, for keys that are not inline.
const LONG_BATCH: usize = 64;
/// Bytes of long keys that may wait when they are not part of the chunk.
const LONG_ROOM: usize = 64 << 10;
/// How far a probe may go in the quick path.
const NEAR: usize = 500;

/// What came of records beside pairs.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) emitted: u64,
    pub(crate) counters: Vec<(&'static str, u64)>,
    pub(crate) bad: Vec<Bad>,
}

/// A bad record: where in its chunk, why, and its bytes.
pub(crate) struct Bad {
    pub(crate) at: usize,
    pub(crate) reason: String,
    pub(crate) record: Vec<u8>,
}

/// Most bad records that a job may pass over. A bound on memory.
pub(crate) const MOST_BAD: usize = 100_000;

impl Tally {
    pub(crate) fn count(&mut self, name: &'static str, n: u64) {
        match self.counters.iter_mut().find(|(other, _)| *other == name) {
            Some((_, total)) => *total += n,
            None => self.counters.push((name, n)),
        }
    }

    #[cold]
    pub(crate) fn bad(&mut self, chunk: &Chunk<'_>, record: &[u8], reason: impl Display) {
        // More than that fail any job.
        if self.bad.len() <= MOST_BAD {
            let at = (record.as_ptr() as usize).wrapping_sub(chunk.bytes().as_ptr() as usize);
            let at = if at <= chunk.bytes().len() { at } else { 0 };
            self.bad.push(Bad { at, reason: reason.to_string(), record: record.to_vec() });
        }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        self.emitted += other.emitted;
        for (name, n) in other.counters {
            self.count(name, n);
        }
    }
}

/// Takes a full table away as a sorted run.
pub(crate) trait Spill<M: Slots> {
    fn spill(&mut self, table: &Table<M::Slot>, slots: &M) -> Result<(), Error>;
}

#[repr(C)]
struct Pending<V> {
    key: Key,
    value: V,
}

struct PendingLong<V> {
    /// `words[0]` is the address of the key's bytes.
    key: Key,
    len: usize,
    value: V,
}

/// The table of one span of input, and what is needed to fill it.
pub(crate) struct Mapper<'j, A: App, M: Slots<Value = Stored<A>>> {
    app: &'j A,
    isa: Isa,
    parts: u32,
    placing: Placing,
    pub(crate) table: Table<M::Slot>,
    pub(crate) slots: M,
    pub(crate) values: Arena,
    /// The values before spills: pairs that waited then went into the next table.
    earlier: Vec<Arena>,
    /// How many of those no waiting pair refers to: they go with the table.
    settled: usize,
    /// Bytes that the table may hold before it is spilled.
    budget: usize,
    /// The share of the input that is done, 0 to 1: growth looks ahead.
    pub(crate) done: f64,
    pub(crate) tally: Tally,
    spill: Box<dyn Spill<M> + Send + 'j>,
    pub(crate) error: Option<Error>,
    waiting: Box<Waiting<Stored<A>>>,
}

struct Waiting<V> {
    short: [MaybeUninit<Pending<V>>; BATCH],
    long: Vec<PendingLong<V>>,
    long_bytes: Vec<u8>,
}

// SAFETY: the addresses among the waiting pairs are used up before a chunk ends, on the thread that filled them.
unsafe impl<V: Send> Send for Waiting<V> {}

impl<'j, A: App, M: Slots<Value = Stored<A>>> Mapper<'j, A, M> {
    pub(crate) fn new(
        app: &'j A,
        slots: M,
        (isa, parts): (Isa, u32),
        budget: usize,
        spill: Box<dyn Spill<M> + Send + 'j>,
    ) -> Self {
        Self {
            app,
            isa,
            parts,
            placing: Placing::new(if A::PARTITIONS { parts } else { 1 }),
            table: Table::new(),
            slots,
            values: Arena::default(),
            earlier: Vec::new(),
            settled: 0,
            budget: if A::Value::REFERS { budget / 2 } else { budget },
            done: 1.0,
            tally: Tally::default(),
            spill,
            error: None,
            waiting: Box::new(Waiting {
                short: [const { MaybeUninit::uninit() }; BATCH],
                long: Vec::with_capacity(LONG_BATCH),
                long_bytes: Vec::new(),
            }),
        }
    }

    /// Maps one chunk. `stable` says which bytes of it outlive the mapper.
    pub(crate) fn map(&mut self, chunk: &Chunk<'_>, stable: Stable) {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` is only made where the machine has it.
            Isa::Avx512 => unsafe { map_avx512(self, chunk, stable) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { map_avx2(self, chunk, stable) },
            #[cfg(target_arch = "x86_64")]
            Isa::Sse2 => run::<A, M, SSE2>(self, chunk, stable),
            _ => run::<A, M, PORTABLE>(self, chunk, stable),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes() + self.slots.bytes() + self.values.bytes()
    }

    /// Sees to it that `n` more keys fit: grows the table, or spills it when the budget is used up.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, n: usize) {
        if self.bytes() > self.budget || self.slots.is_full() {
            self.spill();
        }
        while !self.table.has_room(n) {
            let homes = self.next_size();
            if self.bytes() + Table::<M::Slot>::bytes_at(homes) <= self.budget || self.table.used < BATCH {
                self.table.grow(homes);
            } else {
                self.spill();
            }
        }
    }

    /// Doubles the table, or more if the input that is left seems to hold many more keys: distinct keys grow about
    /// as the 0.7th power of the input (Heaps' law).
    fn next_size(&self) -> usize {
        let (now, least) = (self.table.homes(), self.table.homes() * 2);
        let keys = self.table.used as f64 * self.done.clamp(1e-3, 1.0).recip().powf(0.7);
        let ahead = ((keys * 2.0) as usize).min(now * 64).next_power_of_two().max(least);
        // Looking ahead must not be what makes the table spill.
        let fits = |homes: &usize| self.bytes() + Table::<M::Slot>::bytes_at(*homes) <= self.budget / 2;
        std::iter::successors(Some(ahead), |h| Some(h / 2)).take_while(|h| *h > least).find(fits).unwrap_or(least)
    }

    /// Hands everything in the table to the spill and begins again.
    pub(crate) fn spill(&mut self) {
        if self.table.used == 0 {
            return;
        }
        if self.error.is_none() {
            self.error = self.spill.spill(&self.table, &self.slots).err();
        }
        self.table.clear();
        self.slots.clear();
        self.earlier.drain(..std::mem::take(&mut self.settled));
        self.earlier.push(std::mem::take(&mut self.values));
    }
}

const PORTABLE: u8 = 0;
#[cfg(target_arch = "x86_64")]
const SSE2: u8 = 1;
#[cfg(target_arch = "x86_64")]
const AVX2: u8 = 2;
#[cfg(target_arch = "x86_64")]
const AVX512: u8 = 3;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
fn map_avx512<A: App, M: Slots<Value = Stored<A>>>(mapper: &mut Mapper<'_, A, M>, chunk: &Chunk<'_>, stable: Stable) {
    run::<A, M, AVX512>(mapper, chunk, stable)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn map_avx2<A: App, M: Slots<Value = Stored<A>>>(mapper: &mut Mapper<'_, A, M>, chunk: &Chunk<'_>, stable: Stable) {
    run::<A, M, AVX2>(mapper, chunk, stable)
}

#[inline(always)]
fn run<A: App, M: Slots<Value = Stored<A>>, const ISA: u8>(
    mapper: &mut Mapper<'_, A, M>,
    chunk: &Chunk<'_>,
    stable: Stable,
) {
    let app = mapper.app;
    let bytes = chunk.bytes();
    let mut emitter = Emitter::<A, M, ISA> {
        waiting: 0,
        start: mapper.table.start(),
        shift: mapper.table.shift(),
        seed: mapper.table.seed,
        loads_from: bytes.as_ptr() as usize,
        loads: bytes.len().saturating_sub(INLINE - 1),
        chunk,
        stable,
        mapper,
    };
    app.map(chunk, &mut emitter);
    emitter.flush();
    emitter.flush_long();
}

/// What an app sees as `impl Emit`.
struct Emitter<'m, 'j, 'c, A: App, M: Slots<Value = Stored<A>>, const ISA: u8> {
    waiting: usize,
    /// The table's entries, shift and seed: here, so that emitting need not go through the mapper.
    start: *mut Entry<M::Slot>,
    shift: u32,
    seed: Seed,
    /// Sixteen bytes may be loaded from `loads` addresses from here on.
    loads_from: usize,
    loads: usize,
    chunk: &'m Chunk<'c>,
    stable: Stable,
    mapper: &'m mut Mapper<'j, A, M>,
}

impl<A: App, M: Slots<Value = Stored<A>>, const ISA: u8> Emitter<'_, '_, '_, A, M, ISA> {
    /// The key's bytes in two words.
    #[inline(always)]
    fn load(&self, key: &[u8]) -> [u64; 2] {
        #[cfg(target_arch = "x86_64")]
        if ISA == AVX512 {
            // SAFETY: this emitter runs inside a function that has the features.
            return unsafe { load_masked(key) };
        } else if ISA != PORTABLE && (key.as_ptr() as usize).wrapping_sub(self.loads_from) < self.loads {
            // SAFETY: all sixteen bytes are within the chunk.
            return unsafe { load_within(key) };
        }
        pack(key)
    }

    /// The hash by which a key is placed: where the app says which part it belongs to, one of that part's range. A table
    /// with a seed of its own keeps no ranges.
    #[inline(always)]
    fn placed(&self, key: &[u8], hash: u64) -> u64 {
        if const { A::PARTITIONS } && self.seed == Seed::STABLE {
            return self.mapper.placing.within(self.mapper.app.partition(key, self.mapper.parts), hash);
        }
        hash
    }

    #[inline(always)]
    fn prefetch(&self, tag: u64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch never faults.
        unsafe {
            use std::arch::x86_64::*;
            _mm_prefetch::<_MM_HINT_T0>(self.start.wrapping_add((tag >> self.shift) as usize).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = tag;
    }

    #[inline(always)]
    fn flush(&mut self) {
        match ISA {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this emitter runs inside a function that has the features.
            AVX512 => unsafe { flush_avx512(self) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            AVX2 => unsafe { flush_avx2(self) },
            _ => flush_plain(self),
        }
    }

    /// Probes all waiting pairs with inline keys.
    #[inline(always)]
    fn probe(&mut self) {
        let n = std::mem::take(&mut self.waiting);
        let mapper = &mut *self.mapper;
        mapper.tally.emitted += n as u64;
        if !mapper.table.has_room(n) || mapper.slots.is_full() || mapper.bytes() > mapper.budget {
            mapper.make_room(n);
        }
        let Mapper { table, slots, waiting, .. } = mapper;
        let (start, shift, last) = (table.start(), table.shift(), table.last());
        let mut used = table.used;
        let mut left = waiting.short[..n].iter();
        let mut careful = self.seed != table.seed;
        'pairs: while !careful && let Some(pending) = left.as_slice().first() {
            // SAFETY: the first `n` were written.
            let Pending { key, value } = unsafe { pending.assume_init_ref() };
            // SAFETY: the top bits of a tag are a home of the table, and probes stop at `last`.
            unsafe {
                let home = start.add((key.tag >> shift) as usize);
                let mut at = home;
                loop {
                    let entry = &mut *at;
                    if entry.key.tag == key.tag && entry.key.words == key.words {
                        slots.add(entry.slot.assume_init_mut(), *value);
                        break;
                    }
                    if entry.is_empty() {
                        if at.offset_from_unsigned(home) > NEAR || at == last {
                            careful = true;
                            continue 'pairs;
                        }
                        entry.key = *key;
                        entry.slot.write(slots.first(*value));
                        used += 1;
                        break;
                    }
                    at = at.add(1);
                }
            }
            left.next();
        }
        table.used = used;
        for pending in left {
            // SAFETY: as above.
            let Pending { key, value } = unsafe { pending.assume_init_ref() };
            table.add(*key, self.seed, &[], *value, slots);
        }
        self.after();
    }

    /// Takes over what the table has become.
    #[inline(always)]
    fn after(&mut self) {
        let mapper = &mut *self.mapper;
        (self.start, self.shift) = (mapper.table.start(), mapper.table.shift());
        if self.waiting == 0 && mapper.waiting.long.is_empty() {
            mapper.settled = mapper.earlier.len();
            // A new seed is for pairs to come; those that still wait were hashed with the old one.
            self.seed = mapper.table.seed;
        } else if mapper.earlier.len() > mapper.settled {
            self.settle();
        }
    }

    /// Probes the pairs of the other kind too: they must not wait over more spills than their values are kept.
    #[cold]
    #[inline(never)]
    fn settle(&mut self) {
        if self.waiting > 0 { self.flush() } else { self.flush_long() }
    }

    /// A key of more than 16 bytes.
    #[inline(never)]
    fn emit_long(&mut self, key: &[u8], value: <A::Value as Value>::Ref<'_>) {
        let within =
            (key.as_ptr() as usize).wrapping_sub(self.chunk.bytes().as_ptr() as usize) < self.chunk.bytes().len();
        let mut start = key.as_ptr();
        if !within {
            let room = &mut self.mapper.waiting.long_bytes;
            room.reserve_exact(LONG_ROOM.saturating_sub(room.len()));
            if room.capacity() - room.len() < key.len() {
                // What waits points into the room: it must not move.
                self.flush_long();
                self.mapper.waiting.long_bytes.reserve_exact(key.len());
            }
            let room = &mut self.mapper.waiting.long_bytes;
            let at = room.len();
            room.extend_from_slice(key);
            start = room[at..].as_ptr();
        }
        // Only now: a flush may change the seed, and lets go of values that nobody waits for.
        let value = A::Value::store(value, self.stable, &mut self.mapper.values);
        let tag = self.placed(key, hash_long(key, self.seed)) | LONG;
        self.prefetch(tag);
        let words = [start.expose_provenance() as u64, first_word(key)];
        self.mapper.waiting.long.push(PendingLong { key: Key { words, tag }, len: key.len(), value });
        if self.mapper.waiting.long.len() == LONG_BATCH {
            self.flush_long();
        }
    }

    /// Probes all waiting pairs with long keys: first for the keys that they may equal, so that those bytes are
    /// fetched side by side, then for good.
    #[inline(never)]
    fn flush_long(&mut self) {
        let n = self.mapper.waiting.long.len();
        self.mapper.tally.emitted += n as u64;
        let mapper = &mut *self.mapper;
        if !mapper.table.has_room(n) || mapper.slots.is_full() || mapper.bytes() > mapper.budget {
            mapper.make_room(n);
        }
        let Mapper { table, slots, waiting, .. } = mapper;
        if table.seed == self.seed {
            for pending in &waiting.long {
                prefetch_key(table, &pending.key);
            }
        }
        for PendingLong { key, len, value } in waiting.long.drain(..) {
            let bytes = std::ptr::with_exposed_provenance::<u8>(key.words[0] as usize);
            // SAFETY: the key's bytes are in the chunk or in `long_bytes`, which is not touched in between.
            let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
            table.add(key, self.seed, bytes, value, slots);
        }
        waiting.long_bytes.clear();
        self.after();
    }
}

/// Prefetches the bytes of the key that `key` is likely to meet.
fn prefetch_key<S: Copy>(table: &Table<S>, key: &Key) {
    let mut at = table.home(key.tag);
    for _ in 0..4 {
        // SAFETY: four entries from any home on are within the table.
        let entry = unsafe { &*at };
        if entry.key.tag == key.tag {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch never faults.
            unsafe {
                use std::arch::x86_64::*;
                let start = std::ptr::without_provenance::<i8>(entry.key.words[0] as usize);
                _mm_prefetch::<_MM_HINT_T0>(start);
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
            }
            return;
        }
        if entry.is_empty() {
            return;
        }
        // SAFETY: as above.
        at = unsafe { at.add(1) };
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
fn flush_avx512<A: App, M: Slots<Value = Stored<A>>, const ISA: u8>(emitter: &mut Emitter<'_, '_, '_, A, M, ISA>) {
    emitter.probe()
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn flush_avx2<A: App, M: Slots<Value = Stored<A>>, const ISA: u8>(emitter: &mut Emitter<'_, '_, '_, A, M, ISA>) {
    emitter.probe()
}

#[inline(never)]
fn flush_plain<A: App, M: Slots<Value = Stored<A>>, const ISA: u8>(emitter: &mut Emitter<'_, '_, '_, A, M, ISA>) {
    emitter.probe()
}

impl<A: App, M: Slots<Value = Stored<A>>, const ISA: u8> Emit<A::Value> for Emitter<'_, '_, '_, A, M, ISA> {
    #[inline(always)]
    fn emit(&mut self, key: &[u8], value: <A::Value as Value>::Ref<'_>) {
        if key.len() > INLINE {
            return self.emit_long(key, value);
        }
        let value = A::Value::store(value, self.stable, &mut self.mapper.values);
        let words = self.load(key);
        let key = Key::short(words, key.len(), self.placed(key, hash_short(words, self.seed)));
        self.prefetch(key.tag);
        let n = self.waiting;
        self.waiting = n + 1;
        // SAFETY: a flush sets `waiting` to zero as soon as it reaches the batch's size.
        unsafe { self.mapper.waiting.short.get_unchecked_mut(n).write(Pending { key, value }) };
        if n + 1 == BATCH {
            self.flush();
        }
    }

    fn count(&mut self, counter: &'static str, n: u64) {
        self.mapper.tally.count(counter, n);
    }

    fn bad_record(&mut self, record: &[u8], reason: impl Display) {
        self.mapper.tally.bad(self.chunk, record, reason);
    }
}

/// # Safety
/// Sixteen bytes must be readable at the key's start.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load_within(key: &[u8]) -> [u64; 2] {
    use std::arch::x86_64::*;
    /// Sixteen bytes from `16 - n` on are `n` times 0xff, then zeros.
    const WINDOW: [u8; 32] = {
        let mut w = [0; 32];
        let mut i = 0;
        while i < 16 {
            w[i] = 0xff;
            i += 1;
        }
        w
    };
    // SAFETY: by contract for the key; the window has 32 bytes and the key at most 16.
    unsafe {
        let bytes = _mm_loadu_si128(key.as_ptr().cast());
        let keep = _mm_loadu_si128(WINDOW.as_ptr().add(16 - key.len()).cast());
        std::mem::transmute::<__m128i, [u64; 2]>(_mm_and_si128(bytes, keep))
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn load_masked(key: &[u8]) -> [u64; 2] {
    use std::arch::x86_64::*;
    let mask = _bzhi_u32(0xffff, key.len() as u32) as u16;
    // SAFETY: a masked load touches only the key's own bytes; both types are 16 plain bytes.
    unsafe { std::mem::transmute::<__m128i, [u64; 2]>(_mm_maskz_loadu_epi8(mask, key.as_ptr().cast())) }
}

#[cfg(test)]
mod tests {
    use super::super::table::same;
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn every_load_packs_the_same() {
        let bytes: Vec<u8> = (1..=48).collect();
        for at in 0..16 {
            for n in 0..=16 {
                let key = &bytes[at..at + n];
                // SAFETY: 32 more bytes follow.
                assert_eq!(unsafe { load_within(key) }, pack(key));
                if Isa::available().contains(&Isa::Avx512) {
                    // SAFETY: just checked.
                    assert_eq!(unsafe { load_masked(key) }, pack(key));
                }
            }
        }
    }

    #[test]
    fn same_compares_all_of_a_key() {
        let mut arena = Arena::default();
        let long = b"a key of more than sixteen bytes";
        let key = Key { words: [arena.put_key(long).0, first_word(long)], tag: LONG | 1 << 20 };
        let entry = Entry { key, slot: MaybeUninit::new(0u64) };
        // SAFETY: the arena is alive.
        unsafe {
            assert!(same(&entry, &key, long));
            assert!(!same(&entry, &key, b"a key of more than sixteen bytez"));
        }
    }
}
