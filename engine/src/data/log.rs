//! The log of a sorting job: 16 bytes a pair, which refer to key and value where they lie in the input.
//!
//! An entry is the key's first eight bytes, the address of the value (or key, where the value is empty) and the
//! number of a shape: where the key lies relative to it, and both lengths. Records of one file have few shapes. Pairs
//! that do not lie in the input, or whose shape is one too many, are copied into the arena. Entries are kept apart by
//! the range of their key (`ranges`), so that each range can be sorted by itself, in the cache, without a pass that moves
//! all entries first. Sorting moves entries only; records are touched when they are written.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Mutex;

use super::arena::Arena;
use super::chunk::Chunk;
use super::emit::Tally;
use super::output::lock;
use super::pages::Pages;
use super::ranges::Ranges;
use super::sort::{Prefixed, Sorter};
use crate::app::Emit;
use crate::value::{Stable, Value};

/// Entries in a block, all of one range: 4 KiB.
const BLOCK: u32 = 1 << 8;
/// Entries in the pages that blocks are cut from: one huge page.
const PAGE: u32 = 1 << 17;
/// By so much each block is turned against the one before, in entries: one cache line. Ranges fill at about the same
/// speed; unturned, all would write to the same few sets of the cache.
const TURN: u32 = 4;
/// Shape of pairs in the arena.
const COPIED: u64 = 0xffff;
const SHAPE_BITS: u32 = 16;
/// How far ahead of its use the rest of a record is asked for, in entries; its start, twice as far.
const AHEAD: usize = 16;
/// Shapes that a thread remembers, by a hash of theirs.
const REMEMBERED: usize = 256;

/// A reference to a pair.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    prefix: u64,
    /// Address, then 16 bits of shape.
    place: u64,
}

impl Prefixed for Entry {
    #[inline(always)]
    fn prefix(&self) -> u64 {
        self.prefix
    }
    #[inline(always)]
    fn set_prefix(&mut self, prefix: u64) {
        self.prefix = prefix;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Shape {
    /// Address of the key less that of the value.
    key_at: isize,
    key_len: usize,
    value_len: usize,
}

/// The shapes of a job, numbered in the order of their discovery. Numbers mean nothing outside of the process.
#[derive(Default)]
pub(crate) struct Shapes {
    all: Mutex<(Vec<Shape>, HashMap<Shape, u64>)>,
}

impl Shapes {
    fn number(&self, shape: Shape) -> u64 {
        let (list, numbers) = &mut *lock(&self.all);
        if let Some(n) = numbers.get(&shape) {
            return *n;
        }
        let n = list.len() as u64;
        if n >= COPIED {
            return COPIED;
        }
        list.push(shape);
        numbers.insert(shape, n);
        n
    }

    /// All shapes so far, to read entries by.
    pub(crate) fn known(&self) -> Known {
        Known(lock(&self.all).0.clone())
    }
}

/// Shapes to read entries by.
pub(crate) struct Known(Vec<Shape>);

impl Known {
    /// # Safety
    /// The entry's shape must be known, and its input and arena alive for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn key<'a>(&self, entry: &Entry) -> &'a [u8] {
        // SAFETY: passed on to the caller.
        unsafe { self.pair(entry).0 }
    }

    /// # Safety
    /// As for [`Known::key`].
    #[inline(always)]
    pub(crate) unsafe fn pair<'a>(&self, entry: &Entry) -> (&'a [u8], &'a [u8]) {
        let start = std::ptr::with_exposed_provenance::<u8>((entry.place >> SHAPE_BITS) as usize);
        // SAFETY: `LogEmitter::emit` made the entry of two slices that the caller keeps alive.
        unsafe {
            match self.0.get((entry.place & COPIED) as usize) {
                Some(shape) => (
                    std::slice::from_raw_parts(start.wrapping_offset(shape.key_at), shape.key_len),
                    std::slice::from_raw_parts(start, shape.value_len),
                ),
                None => copied(start),
            }
        }
    }

    /// Sorts the entries of `blocks` by their keys, which agree in their first `from` bytes.
    ///
    /// # Safety
    /// As for [`Known::key`].
    pub(crate) unsafe fn sort<'s>(
        &self,
        sorter: &'s mut Sorter<Entry>,
        blocks: &[&[Entry]],
        from: usize,
    ) -> &'s mut [Entry] {
        // Here and not at the callers, some of which are made for each app: a sort is much code.
        // SAFETY: passed on to the caller.
        sorter.sort(blocks, &|e: &Entry| -> *const [u8] { unsafe { self.key(e) } }, from)
    }

    /// Asks for the bytes of entries that will be read soon: of one the first, which may take a walk through page
    /// tables, and of one that is nearer the rest.
    #[inline(always)]
    pub(crate) fn prefetch(&self, entries: &[Entry], at: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::*;
            let start = |e: &Entry| std::ptr::without_provenance::<i8>((e.place >> SHAPE_BITS) as usize);
            // SAFETY: a prefetch never faults.
            unsafe {
                if let Some(far) = entries.get(at + 2 * AHEAD) {
                    _mm_prefetch::<_MM_HINT_T0>(start(far));
                }
                if let Some(near) = entries.get(at + AHEAD) {
                    let start = start(near);
                    let shape = self.0.get((near.place & COPIED) as usize);
                    let last = shape.map_or(64, |s| s.value_len.saturating_sub(1));
                    if last >= 64 {
                        _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
                    }
                    // The hardware's own prefetcher takes over in long records.
                    _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(last.min(255)));
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (entries, at);
    }
}

/// Head of a pair in the arena: lengths of key and value, and the address of the value if it was not copied.
#[repr(C)]
struct Head {
    key_len: usize,
    value_len: usize,
    value: usize,
}

/// # Safety
/// `start` must come from `Log::copy`, and what it refers to be alive for `'a`.
unsafe fn copied<'a>(start: *const u8) -> (&'a [u8], &'a [u8]) {
    // SAFETY: `Log::copy` wrote a head, the key, and the value unless its address is in the head.
    unsafe {
        let Head { key_len, value_len, value } = start.cast::<Head>().read();
        let key = start.add(size_of::<Head>());
        let value = if value == 0 { key.add(key_len) } else { std::ptr::with_exposed_provenance(value) };
        (std::slice::from_raw_parts(key, key_len), std::slice::from_raw_parts(value, value_len))
    }
}

/// The place within its page of an entry by its number.
#[inline(always)]
fn turned(number: u32) -> usize {
    let turn = number / BLOCK * TURN;
    (number % PAGE / BLOCK * BLOCK + number.wrapping_add(turn) % BLOCK) as usize
}

/// The entries of one span of input: by range, and in order within each.
pub(crate) struct Log {
    pages: Vec<Pages<Entry>>,
    /// The range of each block. Blocks are numbered through all pages.
    owners: Vec<u32>,
    /// For each range the number of its next entry, counted through all blocks; at the start of a block when there is
    /// no room for it yet.
    next: Vec<u32>,
    arena: Arena,
}

impl Log {
    /// A log with room for nothing yet.
    pub(crate) fn new(ranges: &Ranges) -> Self {
        Self { pages: Vec::new(), owners: Vec::new(), next: vec![0; ranges.count()], arena: Arena::default() }
    }

    /// Bytes of memory, without the input that entries refer to.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.len() * PAGE as usize * size_of::<Entry>() + self.arena.bytes()
    }

    /// The blocks of each range, in order.
    pub(crate) fn ranges(&self) -> Vec<Vec<&[Entry]>> {
        let mut ranges = vec![Vec::new(); self.next.len()];
        let mut last = vec![0; self.next.len()];
        for (number, owner) in self.owners.iter().enumerate() {
            last[*owner as usize] = number;
        }
        for (number, owner) in self.owners.iter().enumerate() {
            let range = *owner as usize;
            let open = self.next[range] % BLOCK;
            let filled = if number == last[range] && open > 0 { open } else { BLOCK } as usize;
            let first = number * BLOCK as usize;
            let block = &self.pages[first / PAGE as usize][first % PAGE as usize..][..BLOCK as usize];
            let (end, start) = block.split_at(turned(first as u32) % BLOCK as usize);
            let n = filled.min(start.len());
            // SAFETY: a block is filled from where it starts, and all blocks of a range but the last are full.
            let filled = [&start[..n], &end[..filled - n]].map(|part| unsafe { part.assume_init_ref() });
            ranges[range].extend(filled.into_iter().filter(|part| !part.is_empty()));
        }
        ranges
    }

    /// All entries, range by range.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.ranges().into_iter().flatten().flatten()
    }

    #[inline(always)]
    fn push(&mut self, range: usize, entry: Entry) {
        let next = &mut self.next[range];
        if next.is_multiple_of(BLOCK) {
            *next = Self::block(&mut self.pages, &mut self.owners, range);
        }
        // SAFETY: `block` made pages for all entries of the block that `next` is in.
        unsafe {
            let page = self.pages.get_unchecked((*next / PAGE) as usize);
            page.as_ptr().add(turned(*next)).write(entry);
        }
        *next += 1;
    }

    /// A new block for a range: the number of its first entry.
    #[cold]
    #[inline(never)]
    fn block(pages: &mut Vec<Pages<Entry>>, owners: &mut Vec<u32>, range: usize) -> u32 {
        // A job spills before a log has 2^32 entries: see `MOST_IN_MEMORY`.
        let first = owners.len() as u32 * BLOCK;
        if first.is_multiple_of(PAGE) {
            pages.push(Pages::zeroed(PAGE as usize));
        }
        owners.push(range as u32);
        first
    }

    /// Copies a pair into the arena, but for a value that stays where it is.
    #[cold]
    #[inline(never)]
    fn copy(&mut self, (prefix, range): (u64, usize), key: &[u8], value: &[u8], value_stays: bool) {
        let value_len = if value_stays { 0 } else { value.len() };
        let start = self.arena.room(size_of::<Head>() + key.len() + value_len);
        let address = if value_stays { value.as_ptr().expose_provenance() } else { 0 };
        // SAFETY: `room` gave that many bytes to us alone, aligned to eight.
        unsafe {
            start.cast::<Head>().write(Head { key_len: key.len(), value_len: value.len(), value: address });
            let at = start.add(size_of::<Head>());
            std::ptr::copy_nonoverlapping(key.as_ptr(), at, key.len());
            std::ptr::copy_nonoverlapping(value.as_ptr(), at.add(key.len()), value_len);
        }
        let place = (start.expose_provenance() as u64) << SHAPE_BITS | COPIED;
        self.push(range, Entry { prefix, place });
    }
}

/// What a sorting app sees as `impl Emit`.
pub(crate) struct LogEmitter<'e, 'c> {
    log: &'e mut Log,
    tally: &'e mut Tally,
    ranges: &'e Ranges,
    shapes: &'e Shapes,
    chunk: &'e Chunk<'c>,
    stable: Stable,
    last: (Shape, u64),
    remembered: Box<[(Shape, u64); REMEMBERED]>,
    encoded: Vec<u8>,
}

impl<'e, 'c> LogEmitter<'e, 'c> {
    pub(crate) fn new(
        log: &'e mut Log,
        tally: &'e mut Tally,
        ranges: &'e Ranges,
        shapes: &'e Shapes,
        chunk: &'e Chunk<'c>,
        stable: Stable,
    ) -> Self {
        let none = (Shape { key_at: isize::MIN, key_len: 0, value_len: 0 }, COPIED);
        let remembered = Box::new([none; REMEMBERED]);
        Self { log, tally, ranges, shapes, chunk, stable, last: none, remembered, encoded: Vec::new() }
    }

    #[inline(always)]
    fn number(&mut self, shape: Shape) -> u64 {
        if self.last.0 != shape {
            self.last = self.recall(shape);
        }
        self.last.1
    }

    #[inline(never)]
    fn recall(&mut self, shape: Shape) -> (Shape, u64) {
        let hash = (shape.key_at as usize).wrapping_mul(31).wrapping_add(shape.key_len).wrapping_mul(31);
        let slot = &mut self.remembered[hash.wrapping_add(shape.value_len) % REMEMBERED];
        if slot.0 != shape {
            *slot = (shape, self.shapes.number(shape));
        }
        *slot
    }
}

impl<V: Value> Emit<V> for LogEmitter<'_, '_> {
    #[inline(always)]
    fn emit(&mut self, key: &[u8], value: V::Ref<'_>) {
        self.tally.emitted += 1;
        let (prefix, range) = self.ranges.of(key);
        let place = V::place(value);
        if size_of::<V::Stored>() == 0 && self.stable.holds(key) {
            let n = self.number(Shape { key_at: 0, key_len: key.len(), value_len: 0 });
            if n != COPIED {
                let place = (key.as_ptr().expose_provenance() as u64) << SHAPE_BITS | n;
                return self.log.push(range, Entry { prefix, place });
            }
        }
        if let Some(value) = place {
            let stays = self.stable.holds(value);
            if stays && self.stable.holds(key) {
                let key_at = (key.as_ptr() as isize).wrapping_sub(value.as_ptr() as isize);
                let n = self.number(Shape { key_at, key_len: key.len(), value_len: value.len() });
                if n != COPIED {
                    let place = (value.as_ptr().expose_provenance() as u64) << SHAPE_BITS | n;
                    return self.log.push(range, Entry { prefix, place });
                }
            }
            return self.log.copy((prefix, range), key, value, stays);
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        V::encode(value, &mut encoded);
        self.log.copy((prefix, range), key, &encoded, false);
        self.encoded = encoded;
    }

    fn count(&mut self, counter: &'static str, n: u64) {
        self.tally.count(counter, n);
    }

    fn bad_record(&mut self, record: &[u8], reason: impl Display) {
        self.tally.bad(self.chunk, record, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Bytes, Format};

    #[test]
    fn pairs_come_back_wherever_they_lie() {
        let input = b"key0value0 key1v1 k key2".to_vec();
        let chunk = Chunk::new(&input, Format::Lines, 0, "");
        let ranges = Ranges::one();
        let (mut log, mut tally, shapes) = (Log::new(&ranges), Tally::default(), Shapes::default());
        let elsewhere = b"elsewhere".to_vec();
        let pairs: Vec<(&[u8], &[u8])> = vec![
            (&input[0..4], &input[4..10]),
            (&input[11..15], &input[15..17]),
            (&elsewhere, &input[15..17]),
            (&input[18..19], &elsewhere),
            (b"", b""),
            (&input[20..24], b""),
        ];
        let mut emitter = LogEmitter::new(&mut log, &mut tally, &ranges, &shapes, &chunk, Stable::of(&input));
        for (key, value) in &pairs {
            Emit::<Bytes>::emit(&mut emitter, key, value);
        }
        Emit::<()>::emit(&mut emitter, &input[20..24], ());
        Emit::<u32>::emit(&mut emitter, b"number", 258);
        let known = shapes.known();
        // SAFETY: everything is alive.
        let got: Vec<_> = log.entries().map(|e| unsafe { known.pair(e) }).collect();
        let want = [&pairs[..], &[(b"key2", b""), (b"number", &[2, 1, 0, 0])]].concat();
        assert_eq!(got, want);
        assert_eq!(tally.emitted, 8);
    }

    #[test]
    fn more_shapes_than_numbers() {
        let input = vec![b'x'; 400];
        let chunk = Chunk::new(&input, Format::Lines, 0, "");
        let ranges = Ranges::one();
        let (mut log, mut tally, shapes) = (Log::new(&ranges), Tally::default(), Shapes::default());
        let mut emitter = LogEmitter::new(&mut log, &mut tally, &ranges, &shapes, &chunk, Stable::of(&input));
        let mut lengths = Vec::new();
        for key in 0..280 {
            for value in 0..280 {
                Emit::<Bytes>::emit(&mut emitter, &input[1..key + 1], &input[2..value + 2]);
                lengths.push((key, value));
            }
        }
        let known = shapes.known();
        // SAFETY: everything is alive.
        let got = log.entries().map(|e| unsafe { known.pair(e) }).map(|(k, v)| (k.len(), v.len()));
        assert!(got.eq(lengths));
    }
}
