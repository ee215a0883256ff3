//! What one attempt reads or writes until it is known that it counts: in memory while it is little, on scratch beyond.

use std::io::Write;
use std::sync::Arc;

use super::packed::Records;
use super::text::{Lines, Shape};
use crate::error::Error;
use crate::scratch::{self, Scratch, Temporary};

/// Bytes that are read back at a time.
const BLOCK: usize = 256 << 10;

/// Bytes that are written once and read as often as may be.
pub(crate) struct Spool {
    scratch: Arc<dyn Scratch>,
    /// Bytes of memory to take at the most.
    most: usize,
    memory: Vec<u8>,
    file: Option<Box<dyn Temporary>>,
    len: u64,
}

impl Spool {
    pub(crate) fn new(scratch: Arc<dyn Scratch>, most: usize) -> Self {
        Self { scratch, most, memory: Vec::new(), file: None, len: 0 }
    }

    /// Bytes that were written.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Forgets all that was written.
    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        (self.file, self.len) = (None, 0);
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.len += bytes.len() as u64;
        if self.file.is_none() && self.memory.len() + bytes.len() <= self.most {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        self.put_aside()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        Ok(file.write_all(bytes).map_err(scratch::Error::at("write a task's lines to", self.scratch.place("")))?)
    }

    /// Holds no memory from now on: for what has to wait.
    pub(crate) fn put_aside(&mut self) -> Result<(), Error> {
        if self.file.is_none() {
            let file = self.file.insert(self.scratch.temporary()?);
            let written = file.write_all(&std::mem::take(&mut self.memory));
            written.map_err(scratch::Error::at("write a task's lines to", self.scratch.place("")))?;
        }
        Ok(())
    }

    /// Calls `f` with all bytes, in blocks.
    pub(crate) fn blocks(&self, mut f: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let Some(file) = &self.file else { return self.memory.chunks(BLOCK).try_for_each(f) };
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < self.len {
            let n = (self.len - at).min(BLOCK as u64) as usize;
            let read = file.read_exact_at(&mut block[..n], at);
            read.map_err(scratch::Error::at("read a task's lines from", self.scratch.place("")))?;
            f(&block[..n])?;
            at += n as u64;
        }
        Ok(())
    }

    /// Calls `f` with all bytes, in blocks of whole records.
    pub(crate) fn records(&self, shape: &Shape, mut f: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        if let Shape::Text(_) = shape {
            return self.lines(f);
        }
        let mut records = Records::default();
        self.blocks(|block| records.push(block, &mut f))
    }

    /// Calls `f` with all bytes, in blocks of whole lines.
    pub(crate) fn lines(&self, mut f: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut lines = Lines::default();
        self.blocks(|block| lines.push(block, &mut f))?;
        lines.finish(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Memory;

    #[test]
    fn what_was_written_comes_back_from_memory_and_from_scratch() {
        let scratch: Arc<dyn Scratch> = Arc::new(Memory::default());
        let text: Vec<u8> = (0..200_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        for most in [0, 1000, usize::MAX] {
            let mut spool = Spool::new(scratch.clone(), most);
            spool.write(b"of an attempt that failed").unwrap();
            spool.clear();
            text.chunks(777).for_each(|block| spool.write(block).unwrap());
            assert_eq!(spool.len(), text.len() as u64);
            for _ in 0..2 {
                let mut all = Vec::new();
                spool
                    .lines(|lines| {
                        assert!(lines.ends_with(b"\n"));
                        all.extend_from_slice(lines);
                        Ok(())
                    })
                    .unwrap();
                assert!(all == text, "{most} bytes of memory");
            }
        }
    }
}
