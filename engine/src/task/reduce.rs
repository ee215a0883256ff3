//! A reduce task: one part of an output from its segments, one of each map task.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use super::Which;
use crate::app::{App, Format};
use crate::data::commit::part_name;
use crate::data::compress::Encoder;
use crate::data::digest::{Digest, Digester, Digesting};
use crate::data::feed::Feed;
use crate::data::output::{Close, PartSummary, lock};
use crate::data::runs::Bytes;
use crate::data::segment::FOOTER_LEN;
use crate::data::source::{Loader, Visit};
use crate::error::Error;
use crate::job::{Context, Options, Report};
use crate::local::{Outputs, Run, check};
use crate::scratch::{self, Mapping, Scratch, Slice};

/// Segments that are streamed in wait in memory while all of them take less than this share of it.
const IN_MEMORY: u64 = 4;
/// Bytes that are copied at once.
const COPY: usize = 256 << 10;

/// The segment that one map task made for a part.
pub struct Segment {
    /// What errors call it: the map task, and where it was fetched from.
    pub name: String,
    /// Its bytes.
    pub bytes: SegmentBytes,
    /// Their digest, where it is known: what is streamed in must have it.
    pub digest: Option<Digest>,
}

impl Segment {
    /// Bytes in it.
    pub(crate) fn len(&self) -> u64 {
        match &self.bytes {
            SegmentBytes::Mapped(slice) => slice.bytes().len() as u64,
            SegmentBytes::Stream(_, len) => *len,
        }
    }
}

/// Where the bytes of a segment are.
pub enum SegmentBytes {
    /// In memory or mapped from scratch.
    Mapped(Slice),
    /// To be read, so many.
    Stream(Box<dyn Read + Send>, u64),
}

/// What a reduce task is to do.
pub struct ReduceTask<'t> {
    /// Which one it is.
    pub which: Which<'t>,
    /// The names of all inputs of the job, in order.
    pub inputs: &'t [String],
    /// Number of the part.
    pub part: u32,
    /// Its segments, in the order of the map tasks.
    pub segments: Vec<Segment>,
    /// The scratch file to make.
    pub file: &'t str,
}

/// What came of a task that makes a part of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOutput {
    /// Name of the part in the output.
    pub name: String,
    /// Records, and bytes before compression.
    pub summary: PartSummary,
    /// Bytes of the file.
    pub bytes: u64,
    /// Digest of those.
    pub digest: Digest,
    /// Runs spilled to scratch on the way.
    pub spilled_runs: u64,
    /// Bytes of input mapped, of a task that maps.
    pub input_bytes: u64,
    /// What user code counted.
    pub counters: BTreeMap<String, u64>,
}

pub(crate) fn reduce<A: App>(
    app: &A,
    task: ReduceTask<'_>,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<PartOutput, Error> {
    let file = task.file;
    let made = reduce_into(app, task, scratch, options, context);
    if made.is_err() {
        // The task has failed already; what cannot be removed goes with the job.
        let _ = scratch.remove(file);
    }
    made
}

fn reduce_into<A: App>(
    app: &A,
    task: ReduceTask<'_>,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<PartOutput, Error> {
    check(app, options)?;
    let part = task.part;
    let made = PartFile::create(task.file, scratch, options)?;
    let done = made.done.clone();
    let report = merge(app, task, scratch, options, context, Box::new(made))?;
    Ok(PartOutput { spilled_runs: report.spilled_runs, ..done.output(part, report.parts[0], options) })
}

/// Brings the keys of all segments together, reduces them, and writes what comes of it.
pub(crate) fn merge<A: App>(
    app: &A,
    task: ReduceTask<'_>,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
    sink: Box<dyn Close>,
) -> Result<Report, Error> {
    let nothing = Names { names: task.inputs, format: options.format.unwrap_or(app.format()) };
    let run = Run::new(app, options, context, &nothing, 1, scratch.clone());
    let mut room = options.memory / IN_MEMORY;
    for (number, segment) in task.segments.into_iter().enumerate() {
        if let Some((bytes, len, name)) = fetched(segment, &mut room, &**scratch)? {
            run.runs.add((number as u64, 0), bytes, (0, len), name.into());
        }
    }
    let mut outputs = Outputs::of_task(vec![sink], vec![scratch.place(task.file).display().to_string()]);
    run.reduce_runs(&outputs)?;
    let summary = outputs.finish(false)?;
    Ok(run.report(summary))
}

/// Brings a segment to where it can be read at any place; `None` if it is empty.
fn fetched(segment: Segment, room: &mut u64, scratch: &dyn Scratch) -> Result<Option<(Bytes, u64, String)>, Error> {
    let Segment { name, bytes, digest } = segment;
    let (bytes, len): (Bytes, u64) = match bytes {
        SegmentBytes::Mapped(slice) => {
            let len = slice.bytes().len() as u64;
            let mapping: Arc<dyn Mapping> = Arc::new(slice);
            (Arc::new(mapping), len)
        }
        SegmentBytes::Stream(mut reader, len) => {
            let failed =
                |offset, why: String| Error::Read { name: name.clone(), offset, source: io::Error::other(why) };
            let mut digester = Digester::default();
            let fetch = Fetch { reader: &mut *reader, name: &name, len };
            let (bytes, got): (Bytes, u64) = if len <= *room {
                *room -= len;
                let mut bytes = Vec::new();
                let got = fetch.copy(&mut bytes, &mut digester, scratch)?;
                (Arc::new(bytes), got)
            } else {
                let mut file = scratch.temporary()?;
                let got = fetch.copy(&mut *file, &mut digester, scratch)?;
                (Arc::new(file), got)
            };
            if got != len {
                return Err(failed(got, format!("it ends after {got} of {len} bytes; fetch it again")));
            }
            let found = digester.finish();
            if let Some(digest) = digest.filter(|digest| *digest != found) {
                let why = format!("its digest is {found}, not {digest}; fetch it again, or run its map task again");
                return Err(failed(0, why));
            }
            (bytes, len)
        }
    };
    // One without records is its footer; a shorter one is refused when it is read.
    Ok((len != FOOTER_LEN as u64).then_some((bytes, len, name)))
}

/// A segment on its way here.
struct Fetch<'f> {
    reader: &'f mut (dyn Read + Send),
    name: &'f str,
    len: u64,
}

impl Fetch<'_> {
    /// Copies all bytes, or as many as there are; returns their number.
    fn copy(self, to: &mut dyn Write, digester: &mut Digester, scratch: &dyn Scratch) -> Result<u64, Error> {
        let mut buffer = vec![0; COPY.min(usize::try_from(self.len).unwrap_or(COPY))];
        let mut done = 0;
        while done < self.len {
            let most = (self.len - done).min(COPY as u64) as usize;
            match self.reader.read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    to.write_all(&buffer[..n]).map_err(scratch::Error::at("write a segment to", scratch.place("")))?;
                    digester.update(&buffer[..n]);
                    done += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Read { name: self.name.into(), offset: done, source }),
            }
        }
        Ok(done)
    }
}

type File = Digesting<Box<dyn Write + Send>>;

/// Digest and length of a part's file, once it is whole.
#[derive(Clone, Default)]
pub(crate) struct Done(Arc<Mutex<Option<(Digest, u64)>>>);

impl Done {
    /// What came of the task that wrote the file.
    pub(crate) fn output(&self, part: u32, summary: PartSummary, options: &Options) -> PartOutput {
        let (digest, bytes) = lock(&self.0).take().unwrap_or((Digest::of(b""), 0));
        PartOutput {
            name: part_name(part as usize, options.compress),
            summary,
            bytes,
            digest,
            spilled_runs: 0,
            input_bytes: 0,
            counters: BTreeMap::new(),
        }
    }
}

/// The file of a part.
pub(crate) struct PartFile {
    file: Packing,
    pub(crate) done: Done,
}

enum Packing {
    Plain(Box<File>),
    Compressed(Box<Encoder<File>>),
}

impl PartFile {
    pub(crate) fn create(name: &str, scratch: &Arc<dyn Scratch>, options: &Options) -> Result<Self, Error> {
        let file = Digesting::new(scratch.create(name)?);
        let file = match options.compress {
            None => Packing::Plain(Box::new(file)),
            Some(kind) => {
                let encoder = Encoder::new(kind, file).map_err(scratch::Error::at("compress", scratch.place(name)))?;
                Packing::Compressed(Box::new(encoder))
            }
        };
        Ok(Self { file, done: Done::default() })
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Packing::Plain(file) => file.write(bytes),
            Packing::Compressed(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Close for PartFile {
    fn close(self: Box<Self>) -> io::Result<()> {
        let mut file = match self.file {
            Packing::Plain(file) => *file,
            Packing::Compressed(encoder) => encoder.finish()?,
        };
        file.flush()?;
        *lock(&self.done.0) = Some((file.digester.finish(), file.digester.bytes()));
        Ok(())
    }
}

/// A feed that has names only: nothing is mapped here.
struct Names<'n> {
    names: &'n [String],
    format: Format,
}

impl Feed for Names<'_> {
    fn names(&self) -> &[String] {
        self.names
    }
    fn format(&self) -> Format {
        self.format
    }
    fn units(&self) -> u64 {
        0
    }
    fn known_bytes(&self) -> u64 {
        0
    }
    fn load(&self, _: u64, _: &mut Loader, _: &std::sync::atomic::AtomicBool, _: &mut Visit<'_>) -> Result<u64, Error> {
        Ok(0)
    }
    fn sample(&self, _: usize, _: usize) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        Ok(Vec::new())
    }
    fn release_pinned(&self) {}
}
