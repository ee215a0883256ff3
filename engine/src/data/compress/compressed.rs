//! The compressed side of a decoder: a buffer that counts what was consumed, looks
//! ahead across refills, and remembers a failed read so that no codec can take it for
//! the end of the file.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

/// Bytes of one read call: few enough to stay in the L2 cache, enough to make calls rare.
const BUFFER_LEN: usize = 128 << 10;

pub(super) struct Compressed<'s> {
    inner: Box<dyn Read + Send + 's>,
    buffer: Vec<u8>,
    /// `buffer[start..end]` was read and not yet consumed.
    start: usize,
    end: usize,
    consumed: u64,
    failure: Option<Arc<io::Error>>,
}

/// An empty stand-in, free of allocation, for codecs that give their reader back by swap.
impl Default for Compressed<'_> {
    fn default() -> Self {
        Self { inner: Box::new(io::empty()), buffer: Vec::new(), start: 0, end: 0, consumed: 0, failure: None }
    }
}

impl<'s> Compressed<'s> {
    pub(super) fn new(inner: Box<dyn Read + Send + 's>) -> Self {
        Self { inner, buffer: vec![0; BUFFER_LEN], ..Self::default() }
    }

    /// Compressed bytes handed to the codec so far.
    pub(super) fn offset(&self) -> u64 {
        self.consumed
    }

    /// The read error that ended this source, if one did.
    pub(super) fn failure(&self) -> Option<&Arc<io::Error>> {
        self.failure.as_ref()
    }

    /// The next `len` bytes without consuming them; fewer only at the end of the file.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        debug_assert!(len <= BUFFER_LEN);
        while self.end - self.start < len && self.refill()? > 0 {}
        Ok(&self.buffer[self.start..self.end.min(self.start + len)])
    }

    /// Consumes `len` bytes; false if the file ends before that.
    pub(super) fn skip(&mut self, mut len: u64) -> io::Result<bool> {
        while len > 0 {
            let ready = self.fill_buf()?.len();
            if ready == 0 {
                return Ok(false);
            }
            let step = usize::try_from(len).map_or(ready, |len| len.min(ready));
            self.consume(step);
            len -= step as u64;
        }
        Ok(true)
    }

    /// Reads once behind what is buffered; 0 at the end of the file.
    fn refill(&mut self) -> io::Result<usize> {
        if let Some(failure) = &self.failure {
            return Err(stand_in(failure));
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let failure = Arc::new(error);
                    self.failure = Some(Arc::clone(&failure));
                    return Err(stand_in(&failure));
                }
            }
        }
    }
}

/// An error for the codec to pass on. Its kind is `Other`: some codecs take a failed
/// read of kind `UnexpectedEof` for a regular end.
fn stand_in(failure: &Arc<io::Error>) -> io::Error {
    io::Error::other(Arc::clone(failure))
}

impl BufRead for Compressed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.consumed += len as u64;
    }
}

impl Read for Compressed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let len = ready.len().min(out.len());
        out[..len].copy_from_slice(&ready[..len]);
        self.consume(len);
        Ok(len)
    }
}
