//! Panics are told once, in the line that says what failed, not by the thread in which they happen.
//!
//! The engine turns a panic of an app into an error. The hook installed here therefore keeps quiet and remembers the
//! last panic, for those that nobody caught; with `RUST_BACKTRACE` set, the standard library's report comes too.

use std::panic;
use std::sync::{Mutex, PoisonError};

static LAST: Mutex<String> = Mutex::new(String::new());

/// Installs the hook.
pub(crate) fn quieten() {
    let loud = std::env::var_os("RUST_BACKTRACE").is_some_and(|asked| asked != "0");
    let standard = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = format!("{message}{place}");
        if loud {
            standard(panic);
        }
    }));
}

/// Message and place of the last panic.
pub(crate) fn last() -> String {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
