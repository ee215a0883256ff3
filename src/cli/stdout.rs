//! Standard output: without the line buffering of the standard library's, and never waiting for its reader so that a
//! signal goes unheard.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_engine::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::failure::Failure;
use super::{closed, signals};

/// Bytes written in one call, at least.
const BUFFER: usize = 256 << 10;
/// Bytes that a pipe takes without waiting when it takes any.
const PIPE: usize = 4096;
/// Longest wait before a look whether the job is to stop.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Whether anything was written.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Standard output for results: large writes go straight to it, small ones are gathered.
pub(crate) fn open() -> Result<BufWriter<Stdout>, Failure> {
    check()?;
    let stdout = Stdout::open().map_err(Error::Stdout)?;
    Ok(BufWriter::with_capacity(BUFFER, stdout))
}

/// Prints a text that is not long.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = open()?;
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(|e| Error::Stdout(e).into())
}

/// Fails if there is no standard output: what is written would go to /dev/null, where the standard library leads it.
pub(crate) fn check() -> Result<(), Failure> {
    match closed::at_start() {
        true => Err(Error::Stdout(Errno::BADF.into()).into()),
        false => Ok(()),
    }
}

/// Whether a part of the result may be out.
pub(crate) fn has_begun() -> bool {
    BEGUN.load(Ordering::Relaxed)
}

/// The file behind standard output.
pub(crate) struct Stdout {
    file: File,
    /// Most bytes of one write.
    most: usize,
    /// Whether writes are to be waited for, with a look at the signals now and then.
    waits: bool,
}

impl Stdout {
    fn open() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        if !kind.is_fifo() && !kind.is_socket() && !file.is_terminal() {
            return Ok(Self { file, most: usize::MAX, waits: false });
        }
        // Opened anew, so that others who have this pipe do not find it changed to not waiting.
        let again = || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open("/proc/self/fd/1");
        match kind.is_fifo().then(again) {
            Some(Ok(file)) => Ok(Self { file, most: usize::MAX, waits: true }),
            _ => Ok(Self { file, most: PIPE, waits: true }),
        }
    }

    /// Waits until something can be written, or the job is to stop.
    fn wait(&self) -> io::Result<()> {
        while !signals::STOP.load(Ordering::Relaxed) {
            match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&TURN)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        Err(io::Error::other("interrupted"))
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.waits {
                self.wait()?;
            }
            match self.file.write(&bytes[..bytes.len().min(self.most)]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) => {
                    BEGUN.store(true, Ordering::Relaxed);
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
