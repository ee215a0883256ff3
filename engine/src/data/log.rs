//! The log of a sorting job: 16 bytes a pair, which refer to key and value where they lie in the input.
//!
//! An entry is the key's first eight bytes, the address of the value (or key, where the value is empty) and the
//! number of a shape: where the key lies relative to it, and both lengths. Records of one file have few shapes. Pairs
//! that do not lie in the input, or whose shape is one too many, are copied into the arena. Sorting moves entries
//! only; records are touched when they are written.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Mutex;

use super::arena::Arena;
use super::chunk::Chunk;
use super::emit::Tally;
use super::output::lock;
use super::pages::Pages;
use super::sort::{Prefixed, prefix_of};
use crate::app::Emit;
use crate::value::{Stable, Value};

/// Entries in a block of the log.
const BLOCK: usize = 1 << 17;
/// Shape of pairs in the arena.
const COPIED: u64 = 0xffff;
const SHAPE_BITS: u32 = 16;
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

    /// Bytes of all the values, for those that were not copied.
    pub(crate) fn size_of(&self, entries: &[Entry]) -> usize {
        entries
            .iter()
            .map(|e| self.0.get((e.place & COPIED) as usize).map_or(64, |s| s.key_len.max(s.value_len) + 1))
            .sum()
    }

    /// Asks for the bytes of an entry that will be read soon.
    #[inline(always)]
    pub(crate) fn prefetch(&self, entry: &Entry) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::*;
            let start = std::ptr::without_provenance::<i8>((entry.place >> SHAPE_BITS) as usize);
            let last = self.0.get((entry.place & COPIED) as usize).map_or(64, |s| s.value_len.saturating_sub(1));
            // SAFETY: a prefetch never faults.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(start);
                if last >= 64 {
                    _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
                }
                // The hardware's own prefetcher takes over in long records.
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(last.min(255)));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = entry;
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

/// The entries of one span of input, in order.
#[derive(Default)]
pub(crate) struct Log {
    /// All full but the last.
    blocks: Vec<Pages<Entry>>,
    arena: Arena,
    len: usize,
}

impl Log {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory, without the input that entries refer to.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK * size_of::<Entry>() + self.arena.bytes()
    }

    /// The entries, a block at a time.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &[Entry]> {
        let filled = |i: usize| (self.len - i * BLOCK).min(BLOCK);
        // SAFETY: entries are written in order, `len` in all.
        self.blocks.iter().enumerate().map(move |(i, block)| unsafe { block[..filled(i)].assume_init_ref() })
    }

    #[inline(always)]
    fn push(&mut self, entry: Entry) {
        let at = self.len % BLOCK;
        if at == 0 {
            self.blocks.push(Pages::zeroed(BLOCK));
        }
        if let Some(block) = self.blocks.last_mut() {
            block[at].write(entry);
        }
        self.len += 1;
    }

    /// Copies a pair into the arena, but for a value that stays where it is.
    #[cold]
    #[inline(never)]
    fn copy(&mut self, key: &[u8], value: &[u8], value_stays: bool) {
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
        self.push(Entry { prefix: prefix_of(key), place });
    }
}

/// What a sorting app sees as `impl Emit`.
pub(crate) struct LogEmitter<'e, 'c> {
    log: &'e mut Log,
    tally: &'e mut Tally,
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
        shapes: &'e Shapes,
        chunk: &'e Chunk<'c>,
        stable: Stable,
    ) -> Self {
        let none = (Shape { key_at: isize::MIN, key_len: 0, value_len: 0 }, COPIED);
        let remembered = Box::new([none; REMEMBERED]);
        Self { log, tally, shapes, chunk, stable, last: none, remembered, encoded: Vec::new() }
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
        let place = V::place(value);
        if size_of::<V::Stored>() == 0 && self.stable.holds(key) {
            let n = self.number(Shape { key_at: 0, key_len: key.len(), value_len: 0 });
            if n != COPIED {
                let place = (key.as_ptr().expose_provenance() as u64) << SHAPE_BITS | n;
                return self.log.push(Entry { prefix: prefix_of(key), place });
            }
        }
        if let Some(value) = place {
            let stays = self.stable.holds(value);
            if stays && self.stable.holds(key) {
                let key_at = (key.as_ptr() as isize).wrapping_sub(value.as_ptr() as isize);
                let n = self.number(Shape { key_at, key_len: key.len(), value_len: value.len() });
                if n != COPIED {
                    let place = (value.as_ptr().expose_provenance() as u64) << SHAPE_BITS | n;
                    return self.log.push(Entry { prefix: prefix_of(key), place });
                }
            }
            return self.log.copy(key, value, stays);
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        V::encode(value, &mut encoded);
        self.log.copy(key, &encoded, false);
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
        let (mut log, mut tally, shapes) = (Log::default(), Tally::default(), Shapes::default());
        let elsewhere = b"elsewhere".to_vec();
        let pairs: Vec<(&[u8], &[u8])> = vec![
            (&input[0..4], &input[4..10]),
            (&input[11..15], &input[15..17]),
            (&elsewhere, &input[15..17]),
            (&input[18..19], &elsewhere),
            (b"", b""),
            (&input[20..24], b""),
        ];
        let mut emitter = LogEmitter::new(&mut log, &mut tally, &shapes, &chunk, Stable::of(&input));
        for (key, value) in &pairs {
            Emit::<Bytes>::emit(&mut emitter, key, value);
        }
        Emit::<()>::emit(&mut emitter, &input[20..24], ());
        Emit::<u32>::emit(&mut emitter, b"number", 258);
        let known = shapes.known();
        // SAFETY: everything is alive.
        let got: Vec<_> = log.blocks().flatten().map(|e| unsafe { known.pair(e) }).collect();
        let want = [&pairs[..], &[(b"key2", b""), (b"number", &[2, 1, 0, 0])]].concat();
        assert_eq!(got, want);
        assert_eq!((log.len(), tally.emitted), (8, 8));
    }

    #[test]
    fn more_shapes_than_numbers() {
        let input = vec![b'x'; 400];
        let chunk = Chunk::new(&input, Format::Lines, 0, "");
        let (mut log, mut tally, shapes) = (Log::default(), Tally::default(), Shapes::default());
        let mut emitter = LogEmitter::new(&mut log, &mut tally, &shapes, &chunk, Stable::of(&input));
        let mut lengths = Vec::new();
        for key in 0..280 {
            for value in 0..280 {
                Emit::<Bytes>::emit(&mut emitter, &input[1..key + 1], &input[2..value + 2]);
                lengths.push((key, value));
            }
        }
        let known = shapes.known();
        // SAFETY: everything is alive.
        let got = log.blocks().flatten().map(|e| unsafe { known.pair(e) }).map(|(k, v)| (k.len(), v.len()));
        assert!(got.eq(lengths));
    }
}
