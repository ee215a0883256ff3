//! The parts of an output in the making: how lines become those of the output, and where they go.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::sync::Mutex;

use super::spool::Spool;
use super::text::{Fields, Text, lines};
use crate::data::commit::{Manifest, PartEntry, Pending, part_name};
use crate::data::compress::Encoder;
use crate::data::output::{PartSummary, lock};
use crate::error::Error;
use crate::job::{Options, Report, Target};

/// How lines become those of the output.
pub(crate) enum Lines<'l> {
    /// They are.
    Whole,
    /// They are divided so, and written as the text says.
    Of(&'l Fields, &'l Text),
}

/// The parts of an output in the making.
pub(crate) struct Parts {
    place: Place,
    summaries: Mutex<Vec<PartSummary>>,
    /// Those without records are left out.
    lazy: bool,
}

enum Place {
    Folder(Pending),
    Stream(Mutex<Turns>),
}

/// One stream for all parts, one after the other.
struct Turns {
    writer: Box<dyn Write + Send>,
    next: usize,
    /// Parts that wait for those before them.
    early: BTreeMap<usize, Spool>,
}

impl Parts {
    pub(crate) fn begin(target: Target, parts: usize, lazy: bool) -> Result<Self, Error> {
        let place = match target {
            Target::Folder { path, overwrite } => Place::Folder(Pending::begin(&path, overwrite)?),
            Target::Writer(writer) => Place::Stream(Mutex::new(Turns { writer, next: 0, early: BTreeMap::new() })),
        };
        let none = PartSummary { records: 0, bytes: 0, crc32c: 0 };
        Ok(Self { place, summaries: Mutex::new(vec![none; parts]), lazy })
    }

    /// Writes a part, once.
    pub(crate) fn write(&self, part: usize, written: Spool, how: &Lines<'_>, options: &Options) -> Result<(), Error> {
        let summary = match &self.place {
            Place::Folder(_) if self.lazy && written.len() == 0 => return Ok(()),
            Place::Folder(pending) => {
                let name = part_name(part, options.compress);
                let failed = |e| Error::write("write", pending.target().join(&name))(e);
                let file = pending.create(&name)?;
                match options.compress {
                    None => {
                        let mut file = BufWriter::new(file);
                        let summary = copy(&written, how, &mut file, &failed)?;
                        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
                        if options.sync { file.sync_all() } else { Ok(()) }.map_err(failed)?;
                        summary
                    }
                    Some(kind) => {
                        let mut encoder = Encoder::new(kind, file).map_err(failed)?;
                        let summary = copy(&written, how, &mut encoder, &failed)?;
                        let file = encoder.finish().map_err(failed)?;
                        if options.sync { file.sync_all() } else { Ok(()) }.map_err(failed)?;
                        summary
                    }
                }
            }
            Place::Stream(stream) => {
                let Turns { writer, next, early } = &mut *lock(stream);
                let mut written = written;
                if part != *next && written.len() > 0 {
                    written.put_aside()?;
                }
                early.insert(part, written);
                while let Some(written) = early.remove(next) {
                    lock(&self.summaries)[*next] = copy(&written, how, writer, &Error::Stdout)?;
                    *next += 1;
                }
                return Ok(());
            }
        };
        lock(&self.summaries)[part] = summary;
        Ok(())
    }

    /// Makes the output visible, and enters what it is into the report.
    pub(crate) fn publish(self, app: &str, report: &mut Report, options: &Options) -> Result<(), Error> {
        let summaries = self.summaries.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.parts = summaries;
        report.output_records = report.parts.iter().map(|p| p.records).sum();
        report.output_bytes = report.parts.iter().map(|p| p.bytes).sum();
        let pending = match self.place {
            Place::Folder(pending) => pending,
            Place::Stream(stream) => {
                let mut turns = stream.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
                return turns.writer.flush().map_err(Error::Stdout);
            }
        };
        let entry =
            |(n, summary): (usize, &PartSummary)| PartEntry { name: part_name(n, options.compress), summary: *summary };
        let mut parts: Vec<PartEntry> = report.parts.iter().enumerate().map(entry).collect();
        if self.lazy {
            parts.retain(|part| part.summary.records > 0);
        }
        pending.publish(&Manifest::new(app, parts, report.counters.clone(), 0), options.sync)
    }
}

/// Copies lines into a part.
pub(crate) fn copy(
    written: &Spool,
    how: &Lines<'_>,
    to: &mut dyn Write,
    failed: &dyn Fn(std::io::Error) -> Error,
) -> Result<PartSummary, Error> {
    let mut summary = PartSummary { records: 0, bytes: 0, crc32c: 0 };
    let mut made = Vec::new();
    written.lines(|whole| {
        let bytes = match how {
            Lines::Whole => {
                summary.records += memchr::memchr_iter(b'\n', whole).count() as u64;
                whole
            }
            Lines::Of(fields, text) => {
                made.clear();
                lines(whole, |line| {
                    summary.records += 1;
                    text.written.line(line, fields, &mut made);
                });
                &made
            }
        };
        summary.bytes += bytes.len() as u64;
        summary.crc32c = crc32c::crc32c_append(summary.crc32c, bytes);
        to.write_all(bytes).map_err(failed)
    })?;
    Ok(summary)
}
