//! The input of one map task as the map reads it: ranges of mapped objects in numbered units.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};

use super::Objects;
use super::plan::{Object, Range};
use crate::data::chunk::{Chunk, Format};
use crate::data::compress::{Compression, Decoder};
use crate::data::feed::Feed;
use crate::data::output::lock;
use crate::data::sample::{ReadSome, Sampled, Stretch, sample};
use crate::data::source::stream::Cutter;
use crate::data::source::{Loaded, Loader, Visit};
use crate::data::words::Isa;
use crate::error::Error;
use crate::local::Held;
use crate::scratch::Mapping;
use crate::value::Stable;

/// Most ranges in one unit.
const UNIT_RANGES: usize = 256;

/// How inputs are cut: into which records, into chunks of how many bytes, and with which instruction set.
pub(crate) type Cutting = (Format, usize, Isa);

/// What a task reads.
pub(crate) struct TaskInput<'t> {
    objects: &'t dyn Objects,
    listing: &'t [Object],
    names: Vec<String>,
    ranges: &'t [Range],
    format: Format,
    chunk: u64,
    isa: Isa,
    held: Held,
    units: Vec<Unit>,
    mapped: Mutex<HashMap<u32, Weak<dyn Mapping>>>,
    /// Mappings that references into the input keep alive until the task ends.
    pinned: Mutex<Vec<Arc<dyn Mapping>>>,
}

/// Some ranges, or a chunk of one.
#[derive(Clone, Copy)]
enum Unit {
    Few(usize, usize),
    Chunk(Range),
}

impl<'t> TaskInput<'t> {
    /// The input of `ranges` of the objects that were listed. Ranges must be those of a plan.
    pub(crate) fn new(
        (objects, listing): (&'t dyn Objects, &'t [Object]),
        ranges: &'t [Range],
        (format, chunk, isa): Cutting,
        held: Held,
    ) -> Result<Self, Error> {
        let wrong = |r: &&Range| listing.get(r.object as usize).is_none_or(|o| r.start > r.end || r.end > o.len);
        if let Some(range) = ranges.iter().find(wrong) {
            let Range { object, start, end } = range;
            return Err(Error::Usage(format!(
                "the task asks for bytes {start} to {end} of input {object}, which has not as many"
            )));
        }
        let names = listing.iter().map(|o| o.name.clone()).collect();
        let chunk = chunk.max(1) as u64;
        let units = lay_out(listing, ranges, format, chunk);
        let (mapped, pinned) = Default::default();
        Ok(Self { objects, listing, names, ranges, format, chunk, isa, held, units, mapped, pinned })
    }

    /// The names of all inputs of the job, in order.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    fn compression(&self, object: u32) -> Option<Compression> {
        self.listing[object as usize].compression()
    }

    fn read_error(&self, object: u32, offset: u64, source: io::Error) -> Error {
        Error::Read { name: self.names[object as usize].clone(), offset, source }
    }

    fn map(&self, object: u32, loader: &mut Loader) -> Result<Arc<dyn Mapping>, Error> {
        if let Some((current, mapping)) = &loader.object
            && *current == object
        {
            return Ok(mapping.clone());
        }
        let mut all = lock(&self.mapped);
        let mapping = match all.get(&object).and_then(Weak::upgrade) {
            Some(mapping) => mapping,
            None => {
                let open_error = |source| Error::Open { name: self.names[object as usize].clone(), source };
                let mapping = self.objects.map(object).map_err(open_error)?;
                all.insert(object, Arc::downgrade(&mapping));
                if self.held.pin {
                    lock(&self.pinned).push(mapping.clone());
                }
                mapping
            }
        };
        drop(all);
        self.check(object, &*mapping)?;
        loader.object = Some((object, mapping.clone()));
        Ok(mapping)
    }

    fn check(&self, object: u32, mapping: &dyn Mapping) -> Result<(), Error> {
        let now = mapping.bytes().len() as u64;
        if now >= self.listing[object as usize].len && mapping.is_intact() {
            return Ok(());
        }
        Err(Error::Shrank { name: self.names[object as usize].clone(), offset: now })
    }

    /// The records of a range of the task, in order. Returns the bytes of input seen.
    pub(crate) fn load_range(&self, range: Range, loader: &mut Loader, visit: &mut Visit<'_>) -> Result<u64, Error> {
        let Range { object, start, end } = range;
        let mapping = self.map(object, loader)?;
        if let Some(kind) = self.compression(object) {
            return self.load_stream(object, kind, &*mapping, visit);
        }
        // What was written behind after the listing is no input.
        let all = &mapping.bytes()[..self.listing[object as usize].len as usize];
        let cut = self.format.cut(all, start as usize, end as usize);
        if !cut.is_empty() {
            let bytes = &all[cut.clone()];
            let stable = if self.held.pin { Stable::of(bytes) } else { Stable::NONE };
            let result = visit(&Loaded { chunk: self.chunk_of(bytes, object).at(cut.start as u64), stable });
            self.check(object, &*mapping)?;
            result?;
        }
        if self.held.release && !self.held.pin {
            mapping.release(start as usize..end as usize);
        }
        Ok(end - start)
    }

    fn chunk_of<'c>(&'c self, bytes: &'c [u8], object: u32) -> Chunk<'c> {
        Chunk::new_with(bytes, self.format, object, &self.names[object as usize], self.isa)
    }

    fn decoder<'m>(&self, object: u32, kind: Compression, mapping: &'m dyn Mapping) -> Result<Decoder<'m>, Error> {
        let all = &mapping.bytes()[..self.listing[object as usize].len as usize];
        let decoder = Decoder::new(kind, Box::new(all), self.names[object as usize].as_str().into());
        decoder.map_err(|e| self.read_error(object, 0, e))
    }

    /// Unpacks an object on the thread that maps it.
    fn load_stream(
        &self,
        object: u32,
        kind: Compression,
        mapping: &dyn Mapping,
        visit: &mut Visit<'_>,
    ) -> Result<u64, Error> {
        let mut decoder = self.decoder(object, kind, mapping)?;
        let (empty, spare) = std::sync::mpsc::channel();
        let (mut offset, mut failed) = (0, None);
        let cutter = Cutter { format: self.format, chunk: self.chunk as usize, name: &self.names[object as usize] };
        cutter.cut(&mut decoder, &spare, |_| Ok(()), &mut |bytes| {
            let chunk = self.chunk_of(&bytes, object).at(offset);
            failed = visit(&Loaded { chunk, stable: Stable::NONE }).err();
            offset += bytes.len() as u64;
            let _ = empty.send(bytes);
            failed.is_none()
        })?;
        self.check(object, mapping)?;
        failed.map_or(Ok(offset), Err)
    }
}

fn lay_out(listing: &[Object], ranges: &[Range], format: Format, chunk: u64) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut bytes = 0;
    for (n, range) in ranges.iter().enumerate() {
        let len = range.end - range.start;
        let whole = format == Format::Whole || listing[range.object as usize].compression().is_some();
        if len > chunk && !whole {
            let starts = (range.start..range.end).step_by(usize::try_from(chunk).unwrap_or(usize::MAX));
            let piece = |start| Unit::Chunk(Range { start, end: range.end.min(start.saturating_add(chunk)), ..*range });
            units.extend(starts.map(piece));
            continue;
        }
        if let Some(Unit::Few(first, end)) = units.last_mut()
            && bytes + len <= chunk
            && *end - *first < UNIT_RANGES
        {
            (*end, bytes) = (n + 1, bytes + len);
            continue;
        }
        units.push(Unit::Few(n, n + 1));
        bytes = len;
    }
    units
}

impl Feed for TaskInput<'_> {
    fn names(&self) -> &[String] {
        self.names()
    }

    fn format(&self) -> Format {
        self.format
    }

    fn units(&self) -> u64 {
        self.units.len() as u64
    }

    fn known_bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }

    fn load(&self, unit: u64, loader: &mut Loader, _: &AtomicBool, visit: &mut Visit<'_>) -> Result<u64, Error> {
        match self.units.get(unit as usize).copied() {
            None => Ok(0),
            Some(Unit::Chunk(range)) => self.load_range(range, loader, visit),
            Some(Unit::Few(first, end)) => {
                self.ranges[first..end].iter().map(|range| self.load_range(*range, loader, visit)).sum()
            }
        }
    }

    fn sample(&self, n: usize, size: usize) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let stretch = |r: &Range| Stretch {
            input: r.object,
            start: r.start,
            end: r.end,
            stream: self.compression(r.object).is_some(),
        };
        let stretches: Vec<Stretch> = self.ranges.iter().map(stretch).collect();
        sample(&stretches, self.format, (n, size), self)
    }

    fn release_pinned(&self) {
        for mapping in lock(&self.pinned).iter() {
            mapping.release(0..mapping.bytes().len());
        }
    }
}

impl Sampled for TaskInput<'_> {
    fn read_error(&self, input: u32, offset: u64, e: io::Error) -> Error {
        self.read_error(input, offset, e)
    }

    fn open(&self, input: u32) -> Result<ReadSome<'_>, Error> {
        let len = self.listing[input as usize].len;
        Ok(Box::new(move |buf, at| {
            let most = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
            if most == 0 { Ok(0) } else { self.objects.read_at(input, &mut buf[..most], at) }
        }))
    }

    fn stream(&self, input: u32) -> Result<Option<Box<dyn Read + '_>>, Error> {
        let Some(kind) = self.compression(input) else { return Ok(None) };
        let packed = Packed { read: Sampled::open(self, input)?, at: 0 };
        let decoder = Decoder::new(kind, Box::new(packed), self.names[input as usize].as_str().into());
        Ok(Some(Box::new(decoder.map_err(|e| self.read_error(input, 0, e))?)))
    }
}

/// An object read from its start.
struct Packed<'r> {
    read: ReadSome<'r>,
    at: u64,
}

impl Read for Packed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (self.read)(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
