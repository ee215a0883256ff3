//! Inputs that are read from their start to their end: compressed files, pipes, and files that hide their length.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::AtomicBool;

use super::awaited::Awaited;
use super::{Loaded, Loader, SMALL, Sources, Visit};
use crate::data::chunk::Format;
use crate::data::compress;
use crate::data::input::Source;
use crate::error::Error;
use crate::value::Stable;

/// A record of a stream may be this long, in bytes. A bound on memory.
const LONGEST_RECORD: usize = 1 << 30;
/// Buffers that a decompressing thread may be ahead.
const AHEAD: usize = 3;

type Stream<'s> = Box<dyn Read + Send + 's>;

impl Sources {
    pub(super) fn load_stream(&self, i: u32, stop: &AtomicBool, visit: &mut Visit<'_>) -> Result<u64, Error> {
        std::thread::scope(|scope| {
            let (full, chunks) = std::sync::mpsc::sync_channel::<Result<Vec<u8>, Error>>(AHEAD);
            let (empty, spare) = std::sync::mpsc::channel::<Vec<u8>>();
            let reader = move || {
                // The other side hangs up when it has failed.
                if let Err(e) = self.cut_stream(i, stop, &spare, |chunk| full.send(Ok(chunk)).is_ok()) {
                    let _ = full.send(Err(e));
                }
            };
            std::thread::Builder::new().spawn_scoped(scope, reader).map_err(|e| self.open_error(i, e))?;
            let mut offset = 0;
            for chunk in chunks {
                let chunk = chunk?;
                visit(&Loaded { chunk: self.chunk(&chunk, i).at(offset), stable: Stable::NONE })?;
                offset += chunk.len() as u64;
                let _ = empty.send(chunk);
            }
            Ok(offset)
        })
    }

    /// Reads a stream and hands on buffers of whole records, about a chunk each.
    fn cut_stream(
        &self,
        i: u32,
        stop: &AtomicBool,
        spare: &std::sync::mpsc::Receiver<Vec<u8>>,
        mut give: impl FnMut(Vec<u8>) -> bool,
    ) -> Result<(), Error> {
        let mut stream = self.open_stream(i, stop)?;
        let cutter = Cutter { format: self.format, chunk: self.chunk, name: &self.names[i as usize] };
        cutter.cut(&mut *stream, spare, |head| self.refuse_compressed(i, head), &mut give)
    }

    pub(super) fn open_stream<'s>(&self, i: u32, stop: &'s AtomicBool) -> Result<Stream<'s>, Error> {
        let input = &self.inputs[i as usize];
        let decoder = |kind, compressed: Stream<'s>| {
            let name = self.names[i as usize].as_str().into();
            compress::Decoder::new(kind, compressed, name).map(|decoder| Box::new(decoder) as Stream<'s>)
        };
        let stream: std::io::Result<Stream<'s>> = match (input.compression, input.source) {
            (Some(kind), Source::File) => File::open(&input.path).and_then(|file| decoder(kind, Box::new(file))),
            (Some(kind), _) => Awaited::open(&input.path, stop).and_then(|pipe| decoder(kind, Box::new(pipe))),
            (None, Source::Stdin) => Awaited::stdin(stop).map(|pipe| Box::new(pipe.pausing()) as _),
            (None, Source::Stream) => Awaited::open(&input.path, stop).map(|pipe| Box::new(pipe.pausing()) as _),
            (None, Source::File) => File::open(&input.path).map(|file| Box::new(file) as _),
        };
        stream.map_err(|e| self.open_error(i, e))
    }

    /// What comes of a pipe has no name that tells its codec, and nobody wants the words of compressed bytes.
    fn refuse_compressed(&self, i: u32, head: &[u8]) -> Result<(), Error> {
        let input = &self.inputs[i as usize];
        let told_by_name = input.source == Source::File || input.compression.is_some();
        match compress::tool_of(head) {
            Some(tool) if !told_by_name && !matches!(self.format, Format::Fixed(_)) => {
                Err(Error::Compressed { name: self.names[i as usize].clone(), tool })
            }
            _ => Ok(()),
        }
    }

    /// Reads a file that says it is empty. Those of /proc say so and are not: they are read to their end, if it is not
    /// near then as a stream.
    pub(super) fn load_unsized(
        &self,
        i: u32,
        loader: &mut Loader,
        stop: &AtomicBool,
        visit: &mut Visit<'_>,
    ) -> Result<u64, Error> {
        let file = File::open(&self.inputs[i as usize].path).map_err(|e| self.open_error(i, e))?;
        loader.buffer.clear();
        let read = file.take(SMALL).read_to_end(&mut loader.buffer).map_err(|e| self.read_error(i, 0, e))?;
        if read as u64 == SMALL {
            return self.load_stream(i, stop, visit);
        }
        if let Format::Fixed(size) = self.format
            && !read.is_multiple_of(size)
        {
            return Err(Error::Ragged { name: self.names[i as usize].clone(), len: read as u64, size });
        }
        if read > 0 {
            visit(&Loaded { chunk: self.chunk(&loader.buffer, i), stable: Stable::NONE })?;
        }
        Ok(read as u64)
    }
}

/// Cuts streams into chunks.
pub(crate) struct Cutter<'n> {
    pub(crate) format: Format,
    /// Nominal bytes of a chunk.
    pub(crate) chunk: usize,
    /// What errors call the stream.
    pub(crate) name: &'n str,
}

impl Cutter<'_> {
    /// Reads a stream and hands on buffers of whole records, about a chunk each, until `give` wants no more. `look` sees
    /// the first bytes; `spare` has buffers to use again.
    pub(crate) fn cut(
        &self,
        stream: &mut (dyn Read + '_),
        spare: &std::sync::mpsc::Receiver<Vec<u8>>,
        look: impl Fn(&[u8]) -> Result<(), Error>,
        give: &mut dyn FnMut(Vec<u8>) -> bool,
    ) -> Result<(), Error> {
        let (mut buffer, mut offset) = (Vec::new(), 0u64);
        let want = self.chunk.max(64 << 10);
        loop {
            let before = buffer.len();
            match (&mut *stream).take((want.max(before)) as u64).read_to_end(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                // Nothing comes at the moment: what is there already need not wait.
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(self.read_error(offset + before as u64, e)),
            }
            if offset == 0 {
                look(&buffer)?;
            }
            if buffer.len() > LONGEST_RECORD && self.format.complete(&buffer) == 0 {
                let e = std::io::Error::other("a record of more than 1 GiB; is --input-format right?");
                return Err(self.read_error(offset, e));
            }
            let whole = self.format.complete(&buffer);
            if whole == 0 {
                continue;
            }
            let mut next = spare.try_recv().unwrap_or_default();
            next.clear();
            next.extend_from_slice(&buffer[whole..]);
            buffer.truncate(whole);
            offset += whole as u64;
            if !give(std::mem::replace(&mut buffer, next)) {
                return Ok(());
            }
        }
        if let Format::Fixed(size) = self.format
            && !buffer.is_empty()
        {
            let len = offset + buffer.len() as u64;
            return Err(Error::Ragged { name: self.name.into(), len, size });
        }
        if !buffer.is_empty() {
            give(buffer);
        }
        Ok(())
    }

    fn read_error(&self, offset: u64, source: std::io::Error) -> Error {
        Error::Read { name: self.name.into(), offset, source }
    }
}
