//! Survives the shrinking of a mapped file.
//!
//! Reading a page of a mapping beyond the file's end raises SIGBUS, which would end the process. Mappings of inputs are
//! registered here; the handler puts a page of zeros under the address that faulted and marks the mapping, and
//! whoever mapped it must ask [`Guard::was_hit`] before using what was read. Faults elsewhere go to whatever handler
//! was there before. Only system calls that are safe in a signal handler are made in it.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// Mappings that can be guarded at once. A bound on the search that the handler makes.
const SLOTS: usize = 256;

struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    len: AtomicUsize,
    hit: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        hit: AtomicBool::new(false),
    }
}; SLOTS];

static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// A registered mapping. Dropped before the mapping is.
pub(crate) struct Guard(&'static Slot);

impl Guard {
    /// Registers the mapping at `start`, if there is a slot left. Without one, read the file instead.
    pub(crate) fn new(start: *const u8, len: usize) -> Option<Self> {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(install);
        let slot = TABLE.iter().find(|s| !s.taken.swap(true, SeqCst))?;
        slot.hit.store(false, SeqCst);
        slot.len.store(len, SeqCst);
        slot.start.store(start as usize, SeqCst);
        Some(Self(slot))
    }

    /// Whether a page of the mapping was not there when it was read.
    pub(crate) fn was_hit(&self) -> bool {
        self.0.hit.load(SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.start.store(0, SeqCst);
        self.0.len.store(0, SeqCst);
        self.0.taken.store(false, SeqCst);
    }
}

fn install() {
    // SAFETY: `sigaction` is plain data for which zero is a value; the handler has the signature that SA_SIGINFO asks.
    unsafe {
        let previous = Box::leak(Box::new(std::mem::zeroed::<libc::sigaction>()));
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = on_bus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        if libc::sigaction(libc::SIGBUS, &action, previous) == 0 {
            PREVIOUS.store(previous, SeqCst);
        }
    }
}

extern "C" fn on_bus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a filled siginfo; the page put in place lies in a mapping that we own.
    unsafe {
        let address = (*info).si_addr() as usize;
        for slot in &TABLE {
            let (start, len) = (slot.start.load(SeqCst), slot.len.load(SeqCst));
            if address.wrapping_sub(start) < len {
                let size = libc::sysconf(libc::_SC_PAGESIZE) as usize;
                let page = std::ptr::with_exposed_provenance_mut(address & !(size - 1));
                let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                if libc::mmap(page, size, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED {
                    slot.hit.store(true, SeqCst);
                    return;
                }
            }
        }
        // Not ours: let the one before us see it, by faulting again.
        let previous = PREVIOUS.load(SeqCst);
        if !previous.is_null() {
            libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut());
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_shrunk_file_reads_as_zeros_and_is_told() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 16).unwrap();
        // SAFETY: a file of this test alone.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        let guard = Guard::new(map.as_ptr(), map.len()).unwrap();
        assert_eq!(map[60_000], 0);
        assert!(!guard.was_hit());
        file.set_len(100).unwrap();
        assert_eq!(map[50_000], 0);
        assert!(guard.was_hit());
    }

    #[test]
    fn slots_come_back() {
        for _ in 0..3 * SLOTS {
            assert!(Guard::new(std::ptr::without_provenance(1 << 20), 0).is_some());
        }
    }
}
