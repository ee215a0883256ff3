//! The memories of instances, in huge pages.
//!
//! What wasmtime maps by itself is made of pages of 4 KiB: a guest that looks into a table of some MiB waits for the TLB, and
//! the kernel clears and maps each page by itself. Memory is reserved whole, with the guard behind it that compiled code relies
//! on instead of comparing addresses; only what the app has asked for can be touched. How much that may be is not decided here
//! (`component.rs`). Source of the contract: `wasmtime::MemoryCreator`.

#![expect(unsafe_code, reason = "wasmtime takes memory as a pointer, and only system calls reserve without allocating")]

use std::ffi::c_void;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// Bytes of a page of the system, or of several: what the app asks for is a multiple of 64 KiB.
const PAGE: usize = 64 << 10;
/// Makes memories.
pub(super) struct HugePages;

// SAFETY: `new_memory` gives zeroed memory of `minimum` bytes that does not move, within a reservation that nothing else maps,
// of at least the bytes and the guard that were asked for.
unsafe impl MemoryCreator for HugePages {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let capacity = reserved.unwrap_or(minimum).max(minimum).next_multiple_of(PAGE);
        let memory = Reserved::new(capacity, guard);
        let mut memory = memory.map_err(|e| format!("memory for an app cannot be reserved: {e}"))?;
        memory.grow(minimum).map_err(|e| format!("{minimum} bytes of memory cannot be had: {e}"))?;
        Ok(Box::new(memory))
    }
}

/// A reservation, of which the first bytes can be touched.
struct Reserved {
    mapping: *mut c_void,
    mapped: usize,
    /// Where the memory begins, at a boundary of huge pages.
    base: *mut c_void,
    usable: usize,
    capacity: usize,
}

// SAFETY: a `Reserved` owns its mapping, as a `Vec` does its buffer; it has no interior mutability.
unsafe impl Send for Reserved {}
// SAFETY: as above.
unsafe impl Sync for Reserved {}

impl Reserved {
    fn new(capacity: usize, guard: usize) -> rustix::io::Result<Self> {
        // One huge page more, so that the start can be moved to a boundary.
        let mapped = capacity.checked_add(guard).and_then(|n| n.checked_add(HUGE)).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, wherever the system has room.
        let mapping = unsafe { mmap_anonymous(ptr::null_mut(), mapped, ProtFlags::empty(), flags)? };
        let skip = mapping.cast::<u8>().align_offset(HUGE);
        // SAFETY: `skip` is less than a huge page, and the mapping longer by one.
        let base = unsafe { mapping.cast::<u8>().add(skip) }.cast();
        // SAFETY: within the mapping. Advice that the kernel does not take changes speed only.
        let _ = unsafe { madvise(base, capacity, Advice::LinuxHugepage) };
        Ok(Self { mapping, mapped, base, usable: 0, capacity })
    }

    fn grow(&mut self, to: usize) -> rustix::io::Result<()> {
        if to > self.capacity {
            return Err(Errno::NOMEM);
        }
        if to > self.usable {
            // SAFETY: within the mapping, which only one instance uses.
            unsafe { mprotect(self.base, to.next_multiple_of(PAGE), MprotectFlags::READ | MprotectFlags::WRITE)? };
            self.usable = to;
        }
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this very length; the instance is gone.
        let unmapped = unsafe { munmap(self.mapping, self.mapped) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

// SAFETY: the first `byte_size` bytes can be read and written, and never move.
unsafe impl LinearMemory for Reserved {
    fn byte_size(&self) -> usize {
        self.usable
    }

    fn byte_capacity(&self) -> usize {
        self.capacity
    }

    fn grow_to(&mut self, to: usize) -> wasmtime::Result<()> {
        self.grow(to).map_err(|e| wasmtime::Error::msg(format!("memory cannot grow to {to} bytes: {e}")))
    }

    fn as_ptr(&self) -> *mut u8 {
        self.base.cast()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsRawFd;

    use super::*;

    /// Whether the system itself can read a byte.
    fn can_be_read(at: *const u8) -> bool {
        let (_from, to) = io::pipe().unwrap();
        // SAFETY: whether there is such an address is for the kernel to find out.
        let written = unsafe { libc::write(to.as_raw_fd(), at.cast(), 1) };
        assert!(written == 1 || io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT));
        written == 1
    }

    fn bytes(memory: &mut Reserved) -> &mut [u8] {
        // SAFETY: so many bytes can be touched, and are borrowed as the memory is.
        unsafe { std::slice::from_raw_parts_mut(memory.base.cast(), memory.usable) }
    }

    #[test]
    fn memory_is_zero_grows_in_place_and_ends_where_it_says() {
        let mut memory = Reserved::new(8 << 20, 64 << 10).unwrap();
        let base = memory.base.cast::<u8>();
        assert_eq!(base.align_offset(HUGE), 0);
        for size in [PAGE, 3 << 20, 8 << 20] {
            memory.grow(size).unwrap();
            assert_eq!((memory.base.cast(), memory.usable), (base, size));
            assert!(bytes(&mut memory)[size / 2..].iter().all(|byte| *byte == 0));
            bytes(&mut memory)[size - 1] = 1;
            // SAFETY: within the mapping.
            assert!(!can_be_read(unsafe { base.add(size) }));
        }
        assert_eq!(memory.grow((8 << 20) + 1), Err(Errno::NOMEM));
    }
}
