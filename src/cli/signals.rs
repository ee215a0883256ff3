//! Signals: the first asks the job to stop and clean up, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// Set when the job is to stop.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);
/// The signal that asked for it.
static SIGNAL: AtomicUsize = AtomicUsize::new(0);
/// A file that has come to its limit is an error of the write, not the end of the process.
static FILE_LIMIT: AtomicBool = AtomicBool::new(false);

/// From now on signals are noted.
pub(crate) fn listen() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // As of nohup: hanging up is nothing to us then.
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        flag::register_conditional_shutdown(signal, 128 + signal, &STOP)?;
        flag::register_usize(signal, &SIGNAL, signal as usize)?;
        flag::register(signal, &STOP)?;
    }
    flag::register(SIGXFSZ, &FILE_LIMIT)?;
    Ok(())
}

/// The signal that asked the job to stop, if one did.
pub(crate) fn received() -> Option<u8> {
    u8::try_from(SIGNAL.load(Ordering::SeqCst)).ok().filter(|signal| *signal > 0)
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
