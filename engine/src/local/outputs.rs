//! Where the parts of a job go: files in a folder that is published at the end, or one stream.

use std::sync::Mutex;

use super::Run;
use crate::app::App;
use crate::data::commit::{Manifest, PartEntry, Pending, part_name};
use crate::data::compress::Encoder;
use crate::data::output::{Close, Part, PartSummary, Sink, Spare, lock};
use crate::error::Error;
use crate::job::{Options, Report, Target};
use crate::scratch;

/// Where parts go.
pub(crate) struct Outputs {
    place: Place,
    parts: Vec<Part>,
    names: Vec<String>,
    /// On a stream, the number of the first piece of each part.
    firsts: Mutex<Vec<usize>>,
}

enum Place {
    Folder(Pending),
    Stream,
    /// Scratch, for a task of a cluster's job.
    Scratch,
}

impl Outputs {
    /// Parts of a task, with what errors call them.
    pub(crate) fn of_task(parts: Vec<Box<dyn Close>>, names: Vec<String>) -> Self {
        let parts = parts.into_iter().map(|part| Part::new(Sink::Closing(part))).collect();
        Self { place: Place::Scratch, parts, names, firsts: Mutex::default() }
    }

    pub(super) fn open(target: Target, parts: u32, options: &Options) -> Result<Self, Error> {
        let (path, overwrite) = match target {
            Target::Writer(sink) => {
                let parts = vec![Part::new(Sink::Stream(sink))];
                return Ok(Self { place: Place::Stream, parts, names: Vec::new(), firsts: Mutex::default() });
            }
            Target::Folder { path, overwrite } => (path, overwrite),
        };
        check_limit(parts)?;
        let pending = Pending::begin(&path, overwrite)?;
        let names: Vec<String> = (0..parts as usize).map(|n| part_name(n, options.compress)).collect();
        let open = |name: &String| {
            let file = pending.create(name)?;
            Ok(Part::new(match options.compress {
                None => Sink::File(file),
                Some(kind) => {
                    Sink::Compressed(Box::new(Encoder::new(kind, file).map_err(Error::write("compress", name))?))
                }
            }))
        };
        let parts = names.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { place: Place::Folder(pending), parts, names, firsts: Mutex::default() })
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.place, Place::Stream)
    }

    /// Says how many pieces each part will have.
    pub(super) fn expect(&self, pieces: &[usize]) -> Result<(), Error> {
        if let Place::Scratch = self.place {
            let expect = |(n, part): (usize, &Part)| part.expect(pieces[n]).map_err(|e| self.write_error(n, e));
            return self.parts.iter().enumerate().try_for_each(expect);
        }
        let firsts = pieces.iter().scan(0, |next, n| {
            *next += n;
            Some(*next - n)
        });
        *lock(&self.firsts) = firsts.collect();
        Ok(())
    }

    /// Hands in bytes of a piece of a part; `records` with the last of them.
    pub(super) fn submit(
        &self,
        (part, piece): (usize, usize),
        bytes: Vec<u8>,
        records: Option<u64>,
        spare: &Spare,
    ) -> Result<(), Error> {
        if self.is_stream() {
            let first = lock(&self.firsts)[part];
            return self.parts[0].submit(first + piece, bytes, records, spare).map_err(Error::Stdout);
        }
        self.parts[part].submit(piece, bytes, records, spare).map_err(|e| self.write_error(part, e))
    }

    pub(super) fn append(&self, part: usize, bytes: &[u8]) -> Result<(), Error> {
        if self.is_stream() {
            return self.parts[0].append(bytes).map_err(Error::Stdout);
        }
        self.parts[part].append(bytes).map_err(|e| self.write_error(part, e))
    }

    /// Ends a part whose bytes were appended.
    pub(super) fn count(&self, part: usize, records: u64) -> Result<(), Error> {
        if self.is_stream() {
            return self.parts[0].count(records).map_err(Error::Stdout);
        }
        self.parts[part].count(records).map_err(|e| self.write_error(part, e))
    }

    fn write_error(&self, part: usize, e: std::io::Error) -> Error {
        match &self.place {
            Place::Folder(pending) => Error::write("write", pending.target().join(&self.names[part]))(e),
            _ => scratch::Error::at("write", &self.names[part])(e).into(),
        }
    }

    pub(crate) fn finish(&mut self, sync: bool) -> Result<Vec<PartSummary>, Error> {
        let finish = |(n, part): (usize, &Part)| {
            part.finish(sync).map_err(|e| if self.is_stream() { Error::Stdout(e) } else { self.write_error(n, e) })
        };
        self.parts.iter().enumerate().map(finish).collect()
    }

    pub(super) fn publish<A: App>(self, app: &str, run: &Run<'_, A>, report: &Report) -> Result<(), Error> {
        let Place::Folder(pending) = self.place else { return Ok(()) };
        for (name, bytes) in run.extra_files()? {
            pending.write(&name, &bytes, run.options.sync)?;
        }
        let parts = self.names.into_iter().zip(&report.parts);
        let parts = parts.map(|(name, summary)| PartEntry { name, summary: *summary }).collect();
        pending.publish(&Manifest::new(app, parts, report.counters.clone(), report.bad_records), run.options.sync)
    }
}

/// Files that a job has open beside its parts, at least: inputs, what it spills, and what was open before.
const OTHER_FILES: u64 = 64;

/// Whether all parts can be open at once, said before there is work to lose.
pub(crate) fn check_limit(parts: u32) -> Result<(), Error> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if u64::from(parts) + OTHER_FILES > limit => Err(Error::Usage(format!(
            "{parts} parts and {OTHER_FILES} other files are more than this process may have open, which is {limit}; raise \
             the limit (ulimit -n) or lower --reducers"
        ))),
        _ => Ok(()),
    }
}
