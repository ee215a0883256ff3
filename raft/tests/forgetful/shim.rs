//! A library to preload into a process (`LD_PRELOAD`): it notes the bytes that each write is about to replace, and each
//! sync that makes them durable, so that after a kill the test can take back what was never synced, as a loss of power
//! would. (A kill alone leaves the page cache, and with it everything that a forgotten `fdatasync` would lose.)
//!
//! `FORGETFUL_FOLDER` says which files count, `FORGETFUL_JOURNAL` where the notes go. Not modelled: renames and new
//! names are durable at once, and `sync_file_range`, as on real disks, makes nothing durable.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libc::{off64_t, size_t, ssize_t};

struct Notes {
    folder: Vec<u8>,
    journal: c_int,
}

/// One write or sync at a time, so that the notes are in the order of the disk.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn notes() -> Option<&'static Notes> {
    static NOTES: OnceLock<Option<Notes>> = OnceLock::new();
    let open = || {
        let folder = std::env::var_os("FORGETFUL_FOLDER")?.into_encoded_bytes();
        let mut journal = std::env::var_os("FORGETFUL_JOURNAL")?.into_encoded_bytes();
        journal.push(0);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        // SAFETY: the path ends in a zero byte and outlives the call.
        let journal = unsafe { libc::open(journal.as_ptr().cast(), flags, 0o600) };
        (journal >= 0).then_some(Notes { folder, journal })
    };
    NOTES.get_or_init(open).as_ref()
}

/// The device and inode of a regular file below the folder, with its length.
fn counted(fd: c_int) -> Option<(&'static Notes, u64, u64)> {
    let notes = notes().filter(|notes| notes.journal != fd)?;
    let mut path = [0_u8; 4096];
    let link = format!("/proc/self/fd/{fd}\0");
    // SAFETY: the link ends in a zero byte; the buffer has the length that is given.
    let length = unsafe { libc::readlink(link.as_ptr().cast(), path.as_mut_ptr().cast(), path.len()) };
    let path = path.get(..usize::try_from(length).ok()?)?;
    if !path.starts_with(&notes.folder) {
        return None;
    }
    // SAFETY: all zeros is a valid `stat`, which the call fills in.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writes.
    let known = unsafe { libc::fstat64(fd, &raw mut stat) } == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    known.then_some((notes, stat.st_ino, u64::try_from(stat.st_size).ok()?))
}

/// Appends a record: what it is, inode, offset, length of the file before, length of the bytes before, the bytes.
fn note(notes: &Notes, kind: u8, inode: u64, offset: u64, size: u64, before: &[u8]) {
    let mut record = vec![kind];
    for number in [inode, offset, size, before.len() as u64] {
        record.extend_from_slice(&number.to_be_bytes());
    }
    record.extend_from_slice(before);
    // SAFETY: the buffer has the length that is given. By number, so that our own `write` is not met.
    let written = unsafe { libc::syscall(libc::SYS_write, notes.journal, record.as_ptr(), record.len()) };
    assert!(usize::try_from(written) == Ok(record.len()), "the journal of the forgetful disk is cut");
}

/// Notes what a write of `length` bytes at `offset` (or the end) replaces.
fn note_write(fd: c_int, length: size_t, offset: Option<off64_t>) {
    let Some((notes, inode, size)) = counted(fd) else { return };
    let offset = offset.and_then(|at| u64::try_from(at).ok()).unwrap_or(size);
    let kept = usize::try_from(size.saturating_sub(offset)).unwrap_or(0).min(length);
    let mut before = vec![0_u8; kept];
    let link = format!("/proc/self/fd/{fd}\0");
    // The file may be open for writing only: it is opened once more to read.
    // SAFETY: the path ends in a zero byte.
    let reader = unsafe { libc::open(link.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let at = off64_t::try_from(offset).unwrap_or(0);
    // SAFETY: the buffer has the length that is given.
    let got = unsafe { libc::pread64(reader, before.as_mut_ptr().cast(), kept, at) };
    // SAFETY: it was opened above.
    unsafe { libc::close(reader) };
    assert!(usize::try_from(got) == Ok(kept), "the forgetful disk can not read what is replaced");
    note(notes, b'w', inode, offset, size, &before);
}

/// # Safety
///
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: size_t, offset: off64_t) -> ssize_t {
    let _turn = turn();
    note_write(fd, length, Some(offset));
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, length, offset) as ssize_t }
}

/// # Safety
///
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, length: size_t, offset: off64_t) -> ssize_t {
    // SAFETY: the caller's promise; offsets have 64 bits here.
    unsafe { pwrite64(fd, bytes, length, offset) }
}

/// # Safety
///
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    let _turn = turn();
    note_write(fd, length, None);
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_write, fd, bytes, length) as ssize_t }
}

fn synced(fd: c_int, call: libc::c_long) -> c_int {
    let _turn = turn();
    // SAFETY: takes a number; a wrong one is refused.
    let result = unsafe { libc::syscall(call, fd) as c_int };
    if result == 0
        && let Some((notes, inode, size)) = counted(fd)
    {
        note(notes, b's', inode, 0, size, &[]);
    }
    result
}

/// As fsync(2).
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fsync)
}

/// As fdatasync(2).
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fdatasync)
}
