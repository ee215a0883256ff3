//! Where chunks come from: mapped files, small files read whole, and streams (compressed files, pipes).
//!
//! All inputs of a job are laid out as numbered units: a chunk of a large file, a handful of small files, or a whole
//! stream. Units are in input order, and any thread can load any unit. Large files are mapped once and their pages
//! given back chunk by chunk when the memory budget is smaller than the input.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "inputs are read here")]

mod awaited;
pub(crate) mod stream;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};

use super::chunk::{Chunk, Format};
use super::fault::Guard;
use super::input::{Input, Source};
use super::output::lock;
use super::sample::{ReadSome, Sampled, Stretch, sample};
use super::words::Isa;
use crate::error::Error;
use crate::scratch::Mapping;
use crate::value::Stable;

/// Files shorter than this are read, not mapped: mapping, faulting and unmapping cost more than a copy.
const SMALL: u64 = 256 << 10;
/// Most small files in one unit.
const UNIT_FILES: usize = 256;
/// The kernel maps up to this much of a file at one touch, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// All inputs of a job, laid out in units.
pub(crate) struct Sources {
    pub(crate) inputs: Vec<Input>,
    pub(crate) names: Vec<String>,
    pub(crate) format: Format,
    pub(crate) chunk: usize,
    isa: Isa,
    pieces: Vec<Piece>,
    mapped: Mutex<HashMap<u32, Weak<Mapped>>>,
    /// Mappings that references into the input keep alive until the job ends.
    pinned: Mutex<Vec<Arc<Mapped>>>,
    pub(crate) pin: bool,
    /// Give pages of mapped input back after each chunk.
    pub(crate) release: bool,
}

/// Units of one kind in a row.
struct Piece {
    first_unit: u64,
    units: u64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Chunks of a mapped file.
    Chunks(u32),
    /// Small files in a row, all in one unit.
    Small(u32, u32),
    /// A stream.
    Stream(u32),
}

pub(crate) struct Mapped {
    // Before the mapping, so that it is dropped first.
    guard: Guard,
    map: memmap2::Mmap,
}

/// A chunk in memory, and where it is from.
pub(crate) struct Loaded<'l> {
    pub(crate) chunk: Chunk<'l>,
    /// What of the chunk stays where it is.
    pub(crate) stable: Stable,
}

/// What a thread keeps between units.
#[derive(Default)]
pub(crate) struct Loader {
    buffer: Vec<u8>,
    current: Option<(u32, Arc<Mapped>)>,
    /// As `current`, of an object.
    pub(crate) object: Option<(u32, Arc<dyn Mapping>)>,
}

pub(crate) type Visit<'v> = dyn FnMut(&Loaded<'_>) -> Result<(), Error> + 'v;

/// A stretch of one input, as a task of user code gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) input: u32,
    pub(crate) start: u64,
    /// The first byte after it; of a stream, as many bytes as it is known to have.
    pub(crate) end: u64,
}

impl Sources {
    pub(crate) fn new(inputs: Vec<Input>, format: Format, chunk: usize, isa: Isa) -> Result<Self, Error> {
        let names: Vec<String> = inputs.iter().map(|i| i.name().to_string()).collect();
        if let Format::Fixed(size) = format {
            for (input, name) in inputs.iter().zip(&names).filter(|(i, _)| !is_stream(i)) {
                if input.len % size as u64 != 0 {
                    return Err(Error::Ragged { name: name.clone(), len: input.len, size });
                }
            }
        }
        let mut all = Self {
            inputs,
            names,
            format,
            chunk: chunk.max(1),
            isa,
            pieces: Vec::new(),
            mapped: Mutex::default(),
            pinned: Mutex::default(),
            pin: false,
            release: false,
        };
        all.lay_out();
        Ok(all)
    }

    fn lay_out(&mut self) {
        let mut units = 0;
        let mut bytes = 0;
        for (i, input) in self.inputs.iter().enumerate() {
            let i = i as u32;
            let (kind, n) = if is_stream(input) {
                (Kind::Stream(i), 1)
            } else if input.len < SMALL && (input.len <= self.chunk as u64 || self.format == Format::Whole) {
                if let Some(Piece { kind: Kind::Small(first, last), .. }) = self.pieces.last_mut()
                    && bytes + input.len <= self.chunk as u64
                    && ((i - *first) as usize) < UNIT_FILES
                {
                    *last = i;
                    bytes += input.len;
                    continue;
                }
                bytes = input.len;
                (Kind::Small(i, i), 1)
            } else if self.format == Format::Whole {
                (Kind::Chunks(i), 1)
            } else {
                (Kind::Chunks(i), input.len.div_ceil(self.chunk as u64))
            };
            self.pieces.push(Piece { first_unit: units, units: n, kind });
            units += n;
        }
    }

    pub(crate) fn units(&self) -> u64 {
        self.pieces.last().map_or(0, |p| p.first_unit + p.units)
    }

    /// Bytes of input whose size is known before it is read.
    pub(crate) fn known_bytes(&self) -> u64 {
        self.inputs.iter().map(|i| i.len).sum()
    }

    /// Bytes of input that will be mapped.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        let chunks = |p: &Piece| match p.kind {
            Kind::Chunks(i) => self.inputs[i as usize].len,
            _ => 0,
        };
        self.pieces.iter().map(chunks).sum()
    }

    /// Loads a unit and calls `visit` with each of its chunks, in order. Returns the bytes of input seen. Once `stop` is
    /// set a pipe reads as if it ended there.
    pub(crate) fn load(
        &self,
        unit: u64,
        loader: &mut Loader,
        stop: &AtomicBool,
        visit: &mut Visit<'_>,
    ) -> Result<u64, Error> {
        let at = self.pieces.partition_point(|p| p.first_unit + p.units <= unit);
        let Some(piece) = self.pieces.get(at) else { return Ok(0) };
        match piece.kind {
            Kind::Chunks(i) => self.load_chunk(i, unit - piece.first_unit, loader, visit),
            Kind::Small(first, last) => {
                let mut bytes = 0;
                for i in first..=last {
                    bytes += match self.inputs[i as usize].len {
                        0 => self.load_unsized(i, loader, stop, visit)?,
                        _ => self.load_small(i, loader, visit)?,
                    };
                }
                Ok(bytes)
            }
            Kind::Stream(i) => self.load_stream(i, stop, visit),
        }
    }

    /// All inputs in splits of at most so many bytes, in order. What cannot be split is one, and so is an empty file.
    pub(crate) fn splits(&self, most: u64) -> Vec<Split> {
        let mut all = Vec::new();
        for (i, input) in self.inputs.iter().enumerate() {
            let whole = is_stream(input) || self.format == Format::Whole;
            let most = if whole { u64::MAX } else { most.max(SMALL) };
            let mut start = 0u64;
            loop {
                let end = input.len.min(start.saturating_add(most));
                all.push(Split { input: i as u32, start, end });
                start = end;
                if start >= input.len {
                    break;
                }
            }
        }
        all
    }

    /// As [`Sources::load`], of a split.
    pub(crate) fn load_split(
        &self,
        split: Split,
        loader: &mut Loader,
        stop: &AtomicBool,
        visit: &mut Visit<'_>,
    ) -> Result<u64, Error> {
        let Split { input: i, start, end } = split;
        let input = &self.inputs[i as usize];
        match input.len {
            _ if is_stream(input) => self.load_stream(i, stop, visit),
            0 => self.load_unsized(i, loader, stop, visit),
            len if len < SMALL => self.load_small(i, loader, visit),
            _ => self.load_range(i, start..end, loader, visit),
        }
    }

    fn chunk<'l>(&'l self, bytes: &'l [u8], input: u32) -> Chunk<'l> {
        Chunk::new_with(bytes, self.format, input, &self.names[input as usize], self.isa)
    }

    fn load_chunk(&self, i: u32, n: u64, loader: &mut Loader, visit: &mut Visit<'_>) -> Result<u64, Error> {
        let input = &self.inputs[i as usize];
        let (start, end) = match self.format {
            Format::Whole => (0, input.len),
            _ => (n * self.chunk as u64, ((n + 1) * self.chunk as u64).min(input.len)),
        };
        self.load_range(i, start..end, loader, visit)
    }

    fn load_range(
        &self,
        i: u32,
        Range { start, end }: Range<u64>,
        loader: &mut Loader,
        visit: &mut Visit<'_>,
    ) -> Result<u64, Error> {
        let mapped = match &loader.current {
            Some((current, mapped)) if *current == i => mapped.clone(),
            _ => match self.map(i)? {
                Some(mapped) => mapped,
                None => return self.read_chunk(i, start..end, loader, visit),
            },
        };
        loader.current = Some((i, mapped.clone()));
        let range = self.format.cut(&mapped.map, start as usize, end as usize);
        if !range.is_empty() {
            let bytes = &mapped.map[range.clone()];
            let stable = if self.pin { Stable::of(bytes) } else { Stable::NONE };
            let result = visit(&Loaded { chunk: self.chunk(bytes, i).at(range.start as u64), stable });
            self.check(i, &mapped, range.end as u64)?;
            result?;
        }
        if self.release && !self.pin {
            // Looking for this chunk's first record has touched the page before it, and with it as much as a huge page.
            mapped.release((start as usize).saturating_sub(HUGE_PAGE)..end as usize);
        }
        Ok(end - start)
    }

    /// Reads a chunk into memory: for when no more mappings can be guarded.
    fn read_chunk(&self, i: u32, range: Range<u64>, loader: &mut Loader, visit: &mut Visit<'_>) -> Result<u64, Error> {
        // Whole, from its first byte: rare enough to be simple.
        let bytes = self.read_all(i, loader)?;
        let cut = self.format.cut(bytes, range.start as usize, range.end as usize);
        if !cut.is_empty() {
            let chunk = self.chunk(&bytes[cut.clone()], i).at(cut.start as u64);
            visit(&Loaded { chunk, stable: Stable::NONE })?;
        }
        Ok(range.end - range.start)
    }

    fn load_small(&self, i: u32, loader: &mut Loader, visit: &mut Visit<'_>) -> Result<u64, Error> {
        let bytes = self.read_all(i, loader)?;
        if !bytes.is_empty() {
            visit(&Loaded { chunk: self.chunk(bytes, i), stable: Stable::NONE })?;
        }
        Ok(bytes.len() as u64)
    }

    /// Reads as many bytes of a file as it had when it was listed.
    fn read_all<'l>(&self, i: u32, loader: &'l mut Loader) -> Result<&'l [u8], Error> {
        let input = &self.inputs[i as usize];
        let n = input.len as usize;
        if loader.buffer.len() < n {
            loader.buffer.resize(n.next_power_of_two(), 0);
        }
        let mut done = 0;
        let file = File::open(&input.path).map_err(|e| self.open_error(i, e))?;
        while done < n {
            match file.read_at(&mut loader.buffer[done..n], done as u64) {
                Ok(0) => return Err(self.shrank(i, done as u64)),
                Ok(got) => done += got,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.read_error(i, done as u64, e)),
            }
        }
        Ok(&loader.buffer[..n])
    }

    /// The mapping of a large file, shared by all threads; `None` when it cannot be guarded.
    fn map(&self, i: u32) -> Result<Option<Arc<Mapped>>, Error> {
        let mut all = lock(&self.mapped);
        if let Some(mapped) = all.get(&i).and_then(Weak::upgrade) {
            return Ok(Some(mapped));
        }
        let Some(mapped) = self.open(i)?.map(Arc::new) else { return Ok(None) };
        all.insert(i, Arc::downgrade(&mapped));
        if self.pin {
            lock(&self.pinned).push(mapped.clone());
        }
        Ok(Some(mapped))
    }

    fn open(&self, i: u32) -> Result<Option<Mapped>, Error> {
        let input = &self.inputs[i as usize];
        let fail = |e| self.read_error(i, 0, e);
        let file = File::open(&input.path).map_err(|e| self.open_error(i, e))?;
        let now = file.metadata().map_err(fail)?.len();
        if now < input.len {
            return Err(self.shrank(i, now));
        }
        // SAFETY: others may write to the file while it is mapped. Bytes are read through plain loads that make no
        // assumption about their values, a file that shrinks is caught by the guard, and a writer can at worst make
        // this job's result reflect some of its changes, as reading would.
        let map = unsafe { memmap2::MmapOptions::new().len(input.len as usize).map(&file) }.map_err(fail)?;
        Ok(Guard::new(map.as_ptr(), map.len()).map(|guard| Mapped { guard, map }))
    }

    /// Whether all that was read of a mapping up to `end` was the file's.
    fn check(&self, i: u32, mapped: &Mapped, end: u64) -> Result<(), Error> {
        let now = std::fs::metadata(&self.inputs[i as usize].path).map_err(|e| self.read_error(i, 0, e))?.len();
        // Within the last page of a shrunk file zeros are read without a fault.
        if now < end || mapped.guard.was_hit() { Err(self.shrank(i, now)) } else { Ok(()) }
    }

    /// See [`sample`].
    pub(crate) fn sample(&self, n: usize, size: usize) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let stretch = |(i, input): (usize, &Input)| Stretch {
            input: i as u32,
            start: 0,
            end: input.len,
            stream: is_stream(input),
        };
        let stretches: Vec<Stretch> = self.inputs.iter().enumerate().map(stretch).collect();
        sample(&stretches, self.format, (n, size), self)
    }

    fn open_error(&self, i: u32, source: std::io::Error) -> Error {
        Error::Open { name: self.names[i as usize].clone(), source }
    }

    pub(crate) fn read_error(&self, i: u32, offset: u64, source: std::io::Error) -> Error {
        Error::Read { name: self.names[i as usize].clone(), offset, source }
    }

    fn shrank(&self, i: u32, offset: u64) -> Error {
        Error::Shrank { name: self.names[i as usize].clone(), offset }
    }

    /// Gives back the pages of pinned mappings; they come back when touched.
    pub(crate) fn release_pinned(&self) {
        for mapped in lock(&self.pinned).iter() {
            mapped.release(0..mapped.map.len());
        }
    }
}

impl Sampled for Sources {
    fn read_error(&self, input: u32, offset: u64, e: std::io::Error) -> Error {
        self.read_error(input, offset, e)
    }

    fn open(&self, i: u32) -> Result<ReadSome<'_>, Error> {
        let file = File::open(&self.inputs[i as usize].path).map_err(|e| self.open_error(i, e))?;
        Ok(Box::new(move |buf, at| file.read_at(buf, at)))
    }

    fn stream(&self, i: u32) -> Result<Option<Box<dyn Read + '_>>, Error> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        // What comes of a pipe cannot be read twice.
        if self.inputs[i as usize].source != Source::File {
            return Ok(None);
        }
        Ok(Some(self.open_stream(i, &NEVER)?))
    }
}

impl Mapped {
    fn release(&self, range: Range<usize>) {
        if self.guard.was_hit() {
            return;
        }
        const PAGE: usize = 4096;
        let (start, end) = (range.start / PAGE * PAGE, range.end / PAGE * PAGE);
        if start < end {
            // SAFETY: the mapping is of a file: dropped pages come back with the file's bytes.
            let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}

fn is_stream(input: &Input) -> bool {
    input.compression.is_some() || input.source != Source::File
}
