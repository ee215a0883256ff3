//! A bump arena for bytes that tables refer to: long keys, and values of type `Bytes`.
//!
//! Blocks never move, so that a pointer into one is good until the arena is dropped or cleared. Nothing is freed by
//! itself.

use super::pages::Pages;

const FIRST_BLOCK: usize = 64 << 10;
const LARGEST_BLOCK: usize = 8 << 20;
/// Bytes of a key's length, and how they are aligned.
const KEY_HEAD: usize = size_of::<u32>();

/// Bytes somewhere in an arena or in pinned input, at most 1 GiB. Packed: tables and lists have one for each value.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct Span {
    start: *const u8,
    len: u32,
}

const _: () = assert!(size_of::<Span>() == 12);

// SAFETY: a span is an address; reading it is the unsafe act, and what it points to is never written again.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    #[inline(always)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        assert!(u32::try_from(bytes.len()).is_ok(), "records have an end");
        Self { start: bytes.as_ptr(), len: bytes.len() as u32 }
    }

    /// # Safety
    /// The arena or input must be alive and unchanged for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: passed on to the caller.
        unsafe { std::slice::from_raw_parts(self.start, self.len as usize) }
    }
}

/// The arena. See the module.
#[doc(hidden)]
#[derive(Default)]
pub struct Arena {
    blocks: Vec<Pages<u8>>,
    /// Memory for the next block, which someone else had before.
    spare: Option<Pages<u8>>,
    next: usize,
    end: usize,
    held: usize,
}

/// A key with its length before it, so that one address names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyPtr(pub(crate) u64);

impl KeyPtr {
    /// # Safety
    /// Must come from [`Arena::put_key`] of an arena that is alive for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn key<'a>(self) -> &'a [u8] {
        let start = std::ptr::with_exposed_provenance::<u8>(self.0 as usize);
        // SAFETY: `put_key` wrote the length and the bytes there.
        unsafe { std::slice::from_raw_parts(start.add(KEY_HEAD), start.cast::<u32>().read() as usize) }
    }
}

impl Arena {
    /// Bytes of memory taken from the system.
    pub(crate) fn bytes(&self) -> usize {
        self.held
    }

    /// Copies `bytes` in.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Span {
        let start = self.room(bytes.len());
        // SAFETY: `room` gave that many bytes to us alone.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        // SAFETY: written just now, to stay as long as the arena.
        Span::of(unsafe { std::slice::from_raw_parts(start, bytes.len()) })
    }

    /// Copies a key of less than 4 GiB in, length first. The address is below 2^48 on every system that we know.
    pub(crate) fn put_key(&mut self, key: &[u8]) -> KeyPtr {
        assert!(u32::try_from(key.len()).is_ok(), "records have an end");
        let start = self.aligned(key.len() + KEY_HEAD, KEY_HEAD);
        // SAFETY: `aligned` gave that many bytes.
        unsafe {
            start.cast::<u32>().write(key.len() as u32);
            std::ptr::copy_nonoverlapping(key.as_ptr(), start.add(KEY_HEAD), key.len());
        }
        KeyPtr(start.expose_provenance() as u64)
    }

    /// Takes memory over that was touched before, to use it first: it costs less than what the system must clear.
    pub(crate) fn take_over(&mut self, pages: Pages<u8>) {
        self.held += pages.bytes();
        if let Some(unused) = self.spare.replace(pages) {
            self.held -= unused.bytes();
        }
    }

    /// Room for `len` bytes, aligned to eight.
    pub(crate) fn room(&mut self, len: usize) -> *mut u8 {
        self.aligned(len, 8)
    }

    /// Room for `len` bytes, aligned to `align` bytes, a power of two up to 64.
    fn aligned(&mut self, len: usize, align: usize) -> *mut u8 {
        let mut at = self.next.next_multiple_of(align);
        if at + len > self.end {
            let block = self.spare.take_if(|spare| len <= spare.bytes()).unwrap_or_else(|| {
                let size = self.held.clamp(FIRST_BLOCK, LARGEST_BLOCK).max(len);
                self.held += size;
                Pages::zeroed(size)
            });
            (at, self.end) = (0, block.bytes());
            self.blocks.push(block);
        }
        self.next = at + len;
        match self.blocks.last() {
            // SAFETY: `at + len` is within the block, by the test above.
            Some(block) => unsafe { block.as_ptr().add(at) },
            None => std::ptr::NonNull::dangling().as_ptr(), // no block yet: nothing was asked for
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_stays() {
        let mut arena = Arena::default();
        let inputs: Vec<Vec<u8>> =
            (0..2000usize).map(|i| vec![i as u8; i * 7 % 300]).chain([vec![1; 9 << 20], vec![]]).collect();
        let spans: Vec<Span> = inputs.iter().map(|b| arena.put(b)).collect();
        let keys: Vec<KeyPtr> = inputs.iter().map(|b| arena.put_key(b)).collect();
        for ((input, span), key) in inputs.iter().zip(spans).zip(keys) {
            // SAFETY: the arena is alive.
            unsafe {
                assert_eq!(span.bytes(), input);
                assert_eq!(key.key(), input);
            }
        }
        assert!(arena.bytes() >= inputs.iter().map(Vec::len).sum());
    }

    #[test]
    fn memory_of_others_is_used_first() {
        let mut arena = Arena::default();
        arena.put_key(&[1; 1000]);
        let held = arena.bytes();
        let pages = Pages::zeroed(8 << 20);
        let (from, len) = (pages.as_ptr() as usize, pages.bytes());
        arena.take_over(Pages::zeroed(4096));
        arena.take_over(pages);
        assert_eq!(arena.bytes(), held + len);
        let key = [2; FIRST_BLOCK - 100];
        let first = arena.put_key(&key);
        assert_eq!(first.0 as usize, from);
        let keys: Vec<KeyPtr> = (0..len / key.len()).map(|_| arena.put_key(&key)).collect();
        assert!(keys.iter().filter(|k| (from..from + len).contains(&(k.0 as usize))).count() > keys.len() - 3);
        assert!(arena.bytes() > held + len);
        // SAFETY: the arena is alive.
        assert!(keys.iter().all(|k| unsafe { k.key() } == key));
    }
}
