//! Reading from a pipe without being at the mercy of whoever writes to it.
//!
//! A blocked read cannot be called off. Reads here wait for bytes in short turns, and between them look whether the
//! job is to stop; if it is, the stream ends, and the job, which looks at the same flag before it believes that, ends
//! as interrupted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest wait before a look at the flag.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A stream that ends early when the job is to stop.
pub(super) struct Awaited<'s> {
    file: File,
    stop: &'s AtomicBool,
    pauses: bool,
}

impl<'s> Awaited<'s> {
    /// Standard input, without the standard library's buffer: a wait would not see what is in there.
    pub(super) fn stdin(stop: &'s AtomicBool) -> io::Result<Self> {
        Ok(Self { file: File::from(io::stdin().as_fd().try_clone_to_owned()?), stop, pauses: false })
    }

    /// A pipe or device. Opening does not wait for a writer; reading does.
    pub(super) fn open(path: &Path, stop: &'s AtomicBool) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file, stop, pauses: false })
    }

    /// From now on a read that waited for a turn in vain says [`io::ErrorKind::WouldBlock`].
    pub(super) fn pausing(mut self) -> Self {
        self.pauses = true;
        self
    }
}

impl Read for Awaited<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.stop.load(Ordering::Relaxed) {
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&TURN)) {
                Ok(0) if self.pauses => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            match self.file.read(out) {
                // Another process took what was there.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
        Ok(0)
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::{Duration, Instant};

    #[test]
    fn a_silent_pipe_does_not_hold_a_job_that_is_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let stop = AtomicBool::new(false);
        // Nobody has the other end yet.
        let mut pipe = Awaited::open(&path, &stop).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut text = [0; 5];
                pipe.read_exact(&mut text).unwrap();
                let begun = Instant::now();
                assert_eq!(pipe.read(&mut [0; 9]).unwrap(), 0);
                (text, begun.elapsed())
            });
            let mut writer = File::options().write(true).open(&path).unwrap();
            writer.write_all(b"begun").unwrap();
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
            let (text, waited) = reader.join().unwrap();
            assert_eq!(&text, b"begun");
            assert!(waited > Duration::from_millis(100), "{waited:?}");
            drop(writer);
        });
    }
}
