//! Zeroed memory in huge pages: the ground under tables, logs and arenas.
//!
//! Random probes into gigabytes miss the TLB with 4 KiB pages; on the word count of 1.2 GB huge pages are worth a
//! factor of 1.3 to 1.6. Memory is mapped straight from the system, so that a large table costs nothing until it is
//! touched and goes back at once when dropped.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

const HUGE: usize = 2 << 20;

enum Ground {
    /// Held for its end only.
    Mapped(#[expect(dead_code, reason = "unmapped when dropped")] memmap2::MmapMut),
    Allocated(*mut u8, Layout),
}

/// `len` values of `T`, all bytes zero at first. `T` is handed out as `MaybeUninit`: whether zero is a value of it
/// is for the user to know.
pub(crate) struct Pages<T> {
    start: *mut T,
    len: usize,
    ground: Ground,
    owns: PhantomData<T>,
}

// SAFETY: `Pages` owns its memory, as a `Vec` does.
unsafe impl<T: Send> Send for Pages<T> {}
// SAFETY: shared access hands out `&T` only.
unsafe impl<T: Sync> Sync for Pages<T> {}

impl<T> Pages<T> {
    /// Maps room for `len` values. Ends the process, as any failed allocation does, when the system has no more.
    pub(crate) fn zeroed(len: usize) -> Self {
        const { assert!(align_of::<T>() <= 64, "huge pages are aligned, small ones to 64 bytes") };
        let layout = Layout::from_size_align((len * size_of::<T>()).max(64), 64).unwrap_or(Layout::new::<u64>());
        if layout.size() < HUGE || cfg!(miri) {
            // SAFETY: the size is not zero.
            let start = unsafe { alloc_zeroed(layout) };
            if start.is_null() {
                handle_alloc_error(layout);
            }
            return Self { start: start.cast(), len, ground: Ground::Allocated(start, layout), owns: PhantomData };
        }
        // One page more than needed, so that the start can be moved to a boundary of huge pages.
        let Ok(mut map) = memmap2::MmapOptions::new().len(layout.size() + HUGE).map_anon() else {
            handle_alloc_error(layout)
        };
        // Advice that the kernel does not take changes speed only.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let skip = map.as_ptr().align_offset(HUGE);
        // SAFETY: the mapping is longer than `skip`, which is less than one huge page.
        let start = unsafe { map.as_mut_ptr().add(skip) };
        Self { start: start.cast(), len, ground: Ground::Mapped(map), owns: PhantomData }
    }

    /// Makes the pages, for who looks into all of them before anything is written: the system answers a read with a page of
    /// zeros that all share, makes another when that is written, and has to stop all threads to exchange them.
    pub(crate) fn touch(&mut self) {
        if let Ground::Mapped(_) = self.ground {
            for at in (0..self.bytes()).step_by(HUGE) {
                // SAFETY: within the memory, whose bytes are zero already.
                unsafe { self.start.cast::<u8>().add(at).write_volatile(0) }
            }
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.start
    }

    /// Bytes of address space, all of which may become resident.
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The same memory as bytes of any value.
    pub(crate) fn into_bytes(self) -> Pages<u8> {
        let whole = std::mem::ManuallyDrop::new(self);
        // SAFETY: `whole` is not dropped, so the ground has one owner.
        let ground = unsafe { std::ptr::read(&whole.ground) };
        Pages { start: whole.start.cast(), len: whole.bytes(), ground, owns: PhantomData }
    }

    /// Makes all bytes zero again and gives the memory back where that is cheap.
    pub(crate) fn clear(&mut self) {
        *self = Self::zeroed(self.len);
    }
}

impl<T> Deref for Pages<T> {
    type Target = [MaybeUninit<T>];
    fn deref(&self) -> &[MaybeUninit<T>] {
        // SAFETY: `start` is good for `len` values for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl<T> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [MaybeUninit<T>] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len) }
    }
}

impl<T> Drop for Pages<T> {
    fn drop(&mut self) {
        if let Ground::Allocated(start, layout) = self.ground {
            // SAFETY: allocated by `zeroed` with this very layout.
            unsafe { dealloc(start, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_aligned_and_writable() {
        for len in [0, 1, 1000, (5 << 20) / 8] {
            let mut pages = Pages::<u64>::zeroed(len);
            assert_eq!(pages.len(), len);
            assert_eq!(pages.as_ptr().align_offset(64), 0);
            // SAFETY: zero is a value of u64.
            assert!(pages.iter().all(|v| unsafe { v.assume_init() } == 0));
            for (i, v) in pages.iter_mut().enumerate() {
                v.write(i as u64);
            }
            pages.clear();
            // SAFETY: as above.
            assert!(pages.iter().all(|v| unsafe { v.assume_init() } == 0));
            let mut bytes = pages.into_bytes();
            assert_eq!(bytes.len(), 8 * len);
            bytes.iter_mut().for_each(|b| {
                b.write(1);
            });
        }
    }
}
