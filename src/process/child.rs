//! What a process needs of the C library before it is another's: nothing of ours that it could use, and limits of its own.
//!
//! Between fork and exec only system calls are made, without allocation: another thread may hold any lock.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal};

/// A limit on a resource.
pub(crate) type Bound = (Resource, Rlimit);

/// Forgets what whoever began this program has set up: blocked signals, ignored ends of children, and descriptors that a
/// child would have.
pub(crate) fn begin_afresh() -> io::Result<()> {
    // SAFETY: the set is initialised by `sigemptyset`, the disposition is the default one, and closing on exec is a flag of
    // descriptors that nobody but the kernel looks at.
    let done = unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if done == 0 {
        return Ok(());
    }
    // Kernels before 5.11 have no such call.
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let fd = entry.file_name().to_str().and_then(|name| name.parse::<libc::c_int>().ok());
        if let Some(fd) = fd.filter(|fd| *fd > 2) {
            // SAFETY: sets a flag; of a descriptor that is gone it fails.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// The process will have these limits, and ends when the thread that begins it does.
pub(crate) fn limited(command: &mut Command, limits: Vec<Bound>) {
    let limit = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        for (resource, limit) in &limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        Ok(())
    };
    // SAFETY: it makes system calls and touches nothing but the list that it was given.
    unsafe { command.pre_exec(limit) };
}
