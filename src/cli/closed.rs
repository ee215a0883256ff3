//! Whether standard output was closed when the program began.
//!
//! The standard library opens /dev/null in the place of closed standard streams before `main` runs, so that a result
//! would be lost and all seem well. What was there can only be seen before that: the C library calls the functions in
//! the section `.init_array` first.

#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether it was.
pub(crate) fn at_start() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

// SAFETY: the section holds pointers to functions of this type, which take what `main` does and may leave it. `look`
// makes one system call and stores a byte: it needs nothing that is set up later.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[cfg(target_os = "linux")]
extern "C" fn look() {
    let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
    CLOSED.store(closed, Ordering::Relaxed);
}
