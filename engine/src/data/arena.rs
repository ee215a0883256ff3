//! A bump arena for bytes that tables refer to: long keys, and values of type `Bytes`.
//!
//! Blocks never move, so that a pointer into one is good until the arena is dropped or cleared. Nothing is freed by
//! itself.

use super::pages::Pages;

const FIRST_BLOCK: usize = 64 << 10;
const LARGEST_BLOCK: usize = 8 << 20;

/// Bytes somewhere in an arena or in pinned input.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Span {
    start: *const u8,
    len: usize,
}

// SAFETY: a span is an address; reading it is the unsafe act, and what it points to is never written again.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    #[inline(always)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), len: bytes.len() }
    }

    /// # Safety
    /// The arena or input must be alive and unchanged for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: passed on to the caller.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// The arena. See the module.
#[doc(hidden)]
#[derive(Default)]
pub struct Arena {
    blocks: Vec<Pages<u8>>,
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
        unsafe { std::slice::from_raw_parts(start.add(8), start.cast::<u64>().read() as usize) }
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
        Span { start, len: bytes.len() }
    }

    /// Copies a key in, length first. The address is below 2^48 on every system that we know.
    pub(crate) fn put_key(&mut self, key: &[u8]) -> KeyPtr {
        let start = self.room(key.len() + 8);
        // SAFETY: `room` gave that many bytes, aligned to eight.
        unsafe {
            start.cast::<u64>().write(key.len() as u64);
            std::ptr::copy_nonoverlapping(key.as_ptr(), start.add(8), key.len());
        }
        KeyPtr(start.expose_provenance() as u64)
    }

    /// Room for `len` bytes, aligned to eight.
    pub(crate) fn room(&mut self, len: usize) -> *mut u8 {
        let len = len.next_multiple_of(8);
        if len > self.end - self.next {
            let size = (self.held).clamp(FIRST_BLOCK, LARGEST_BLOCK).max(len);
            self.blocks.push(Pages::zeroed(size));
            self.held += size;
            (self.next, self.end) = (0, size);
        }
        let at = self.next;
        self.next += len;
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
}
