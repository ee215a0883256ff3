//! The job over a [`Runner`], on one machine: mappers, the shuffle that all jobs share, reducers, and the output.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::feed::{Kept, Mapped, Shared};
use super::spool::Spool;
use super::text::{Fields, Pairs, Shape, Text, Then, lines};
use super::{Runner, Stage};
use crate::app::{Format, Shuffle};
use crate::data::commit::{Manifest, PartEntry, Pending, leftover, part_name};
use crate::data::compress::Encoder;
use crate::data::input::Input;
use crate::data::output::{Close, PartSummary, lock};
use crate::data::source::{Loader, Sources};
use crate::error::Error;
use crate::exec::in_order;
use crate::job::{Context, Job, MAX_PARTS, MIN_MEMORY, Observer, Options, Phase, Plan, Report, Target, shuffle_name};
use crate::local::{Outputs, Run, check_limit};
use crate::scratch::{Folder, Scratch};
use crate::task::{MapOutput, MapTask, Object, Objects, ReduceOutput, ReduceTask, TaskPlan};

/// Bytes of a map task: a 32nd of the input, within these bounds. Starting an interpreter is little beside the first, and
/// doing the second again is not much.
const TASK_BYTES: (u64, u64) = (4 << 20, 64 << 20);

/// What happens to what mappers wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduces {
    /// It is the output, a part for each map task, in the order in which it was written.
    None,
    /// It is sorted.
    Identity,
    /// It is sorted and goes through code.
    Code,
}

/// A job whose map, and perhaps combine and reduce, are user code.
pub struct RunnerJob {
    /// Runs the code.
    pub runner: Box<dyn Runner>,
    /// What it reads and writes.
    pub shape: Shape,
    /// What happens to what mappers wrote.
    pub reduces: Reduces,
    /// Number of parts, where the job says; the options' otherwise, and then one.
    pub parts: Option<u32>,
    /// Leave parts out that have no records.
    pub lazy: bool,
}

impl RunnerJob {
    fn parts(&self, options: &Options) -> u32 {
        self.parts.or(options.reducers).unwrap_or(1)
    }

    fn format(&self, options: &Options) -> Format {
        options.format.unwrap_or_default()
    }

    fn check(&self, options: &Options) -> Result<(), Error> {
        let fail = |m: String| Err(Error::Usage(m));
        let parts = self.parts(options);
        match options.format {
            Some(format) if format != Format::Lines && matches!(self.shape, Shape::Text(_)) => {
                fail(format!("scripts read lines, not records of format {format}"))
            }
            _ if options.skip_bad_records > 0 => {
                fail("user code calls no record bad; leave --skip-bad-records out".into())
            }
            _ if parts == 0 || parts > MAX_PARTS => {
                fail(format!("the number of reducers is 1 to {MAX_PARTS}, not {parts}"))
            }
            _ if options.memory < MIN_MEMORY => {
                fail(format!("a job needs at least {} MiB of memory", MIN_MEMORY >> 20))
            }
            _ => Ok(()),
        }
    }

    fn elsewhere<T>() -> Result<T, Error> {
        Err(Error::Usage("jobs of scripts run on one machine: use run".into()))
    }
}

fn task_bytes(sources: &Sources) -> u64 {
    let (least, most) = TASK_BYTES;
    let share = (sources.known_bytes() / 32).clamp(least, most);
    // A job that only maps has a part for each task.
    share.max(sources.known_bytes() / u64::from(MAX_PARTS / 2))
}

/// Passes on what a job tells but the progress of its map: that is told of in bytes of input, by who reads them.
struct ButProgress<'o> {
    observer: &'o dyn Observer,
    maps: AtomicBool,
}

impl Observer for ButProgress<'_> {
    fn phase(&self, phase: Phase, total: u64) {
        self.maps.store(phase == Phase::Map, Ordering::Relaxed);
        self.observer.phase(phase, total);
    }
    fn advance(&self, n: u64) {
        if !self.maps.load(Ordering::Relaxed) {
            self.observer.advance(n);
        }
    }
    fn note(&self, message: &str) {
        self.observer.note(message);
    }
}

impl Job for RunnerJob {
    fn plan(&self, inputs: &[Input], options: &Options, threads: usize) -> Result<Plan, Error> {
        self.check(options)?;
        let sources = Sources::new(inputs.to_vec(), self.format(options), options.chunk, options.isa)?;
        let units = sources.splits(task_bytes(&sources)).len() as u64;
        Ok(Plan {
            inputs: inputs.len(),
            input_bytes: sources.known_bytes(),
            streams: inputs.iter().filter(|i| !i.is_splittable()).count(),
            units,
            parts: if self.reduces == Reduces::None { units as u32 } else { self.parts(options) },
            format: self.format(options).to_string(),
            shuffle: shuffle_name(self.shuffle()).into(),
            memory: options.memory,
            threads,
            isa: format!("{:?}", options.isa).to_lowercase(),
        })
    }

    fn run(
        &self,
        app: &str,
        inputs: Vec<Input>,
        options: &Options,
        target: Target,
        context: &Context<'_>,
    ) -> Result<Report, Error> {
        self.check(options)?;
        let mut sources = Sources::new(inputs, self.format(options), options.chunk, options.isa)?;
        sources.release = sources.mapped_bytes() > options.memory / 4;
        let splits = sources.splits(task_bytes(&sources));
        let parts = match self.reduces {
            Reduces::None if splits.len() > MAX_PARTS as usize => {
                let message = format!("{} inputs would make as many parts, which may be {MAX_PARTS}", splits.len());
                return Err(Error::Usage(message));
            }
            Reduces::None => splits.len(),
            _ => self.parts(options) as usize,
        };
        let replaced = match &target {
            Target::Folder { path, overwrite: true } => Some(path.clone()),
            _ => None,
        };
        self.runner.prepare(&options.scratch, context)?;
        // Parts are open side by side, or wait for their turn on the stream.
        if self.reduces != Reduces::None || matches!(target, Target::Writer(_)) {
            check_limit(parts as u32)?;
        }
        let output = Parts::begin(target, parts, self.lazy)?;
        let scratch: Arc<dyn Scratch> = Arc::new(Folder::new(&options.scratch));
        let (halt, counters) = (AtomicBool::new(false), Mutex::default());
        let shared = Shared {
            runner: &*self.runner,
            shape: &self.shape,
            scratch: &scratch,
            options,
            context,
            halt: &halt,
            counters: &counters,
            memory: (options.memory / 8 / context.exec.threads() as u64) as usize,
            reduces: if self.reduces == Reduces::None { 0 } else { parts as u32 },
            maps: splits.len() as u32,
        };
        let feed = Mapped::new(shared, &sources, &splits);
        let job = Running { job: self, shared, feed: &feed, output: &output };
        let mut report = match self.reduces {
            Reduces::None => job.map_only()?,
            _ => job.map_and_reduce(parts as u32)?,
        };
        report.input_bytes = feed.bytes();
        report.counters = std::mem::take(&mut *lock(&counters));
        context.observer.phase(Phase::Commit, 1);
        output.publish(app, &mut report, options)?;
        if let Some(old) = replaced.and_then(|path| leftover(&path)) {
            let old = old.display();
            context.observer.note(&format!("the output is complete; the one it replaced cannot be removed: see {old}"));
        }
        Ok(report)
    }

    fn shuffle(&self) -> Shuffle {
        Shuffle::Group
    }

    fn divide(&self, _: &[Object], _: &Options, _: u64) -> Result<TaskPlan, Error> {
        Self::elsewhere()
    }

    fn survey(&self, _: &[Object], _: u32, _: &dyn Objects, _: &Options) -> Result<Vec<Vec<u8>>, Error> {
        Self::elsewhere()
    }

    fn map_task(
        &self,
        _: MapTask<'_>,
        _: &dyn Objects,
        _: &Arc<dyn Scratch>,
        _: &Options,
        _: &Context<'_>,
    ) -> Result<MapOutput, Error> {
        Self::elsewhere()
    }

    fn reduce_task(
        &self,
        _: ReduceTask<'_>,
        _: &Arc<dyn Scratch>,
        _: &Options,
        _: &Context<'_>,
    ) -> Result<ReduceOutput, Error> {
        Self::elsewhere()
    }

    fn extra_files(&self, _: &[String]) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }
}

/// A job on its way.
struct Running<'r> {
    job: &'r RunnerJob,
    shared: Shared<'r>,
    feed: &'r Mapped<'r>,
    output: &'r Parts,
}

impl Running<'_> {
    /// Does numbered tasks on all threads; the first error ends it.
    fn each(&self, n: usize, task: impl Fn(usize) -> Result<(), Error> + Sync) -> Result<(), Error> {
        let failed: Mutex<Option<Error>> = Mutex::default();
        in_order(self.shared.context.exec, n, &|i| {
            if lock(&failed).is_some() {
                return;
            }
            let stops = self.shared.context.stop.load(Ordering::Relaxed);
            if let Err(error) = if stops { Err(Error::Interrupted) } else { task(i) } {
                lock(&failed).get_or_insert(error);
                self.shared.halt.store(true, Ordering::Relaxed);
            }
        });
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn map_only(&self) -> Result<Report, Error> {
        let feed = self.feed;
        let how = match self.shared.shape {
            Shape::Text(text) => Lines::Of(&text.mapped, text),
            Shape::Packed => Lines::Whole,
        };
        self.shared.context.observer.phase(Phase::Map, crate::data::feed::Feed::known_bytes(feed));
        self.each(self.shared.maps as usize, |task| {
            let written = feed.map(task as u32, &mut Loader::default())?;
            self.output.write(task, written, &how, self.shared.options)
        })?;
        Ok(Report { inputs: crate::data::feed::Feed::names(feed).len() as u64, ..Report::default() })
    }

    fn map_and_reduce(&self, parts: u32) -> Result<Report, Error> {
        let Shared { shape, options, context, scratch, .. } = self.shared;
        let combines = self.shared.runner.has(Stage::Combine);
        let (app, how) = match shape {
            Shape::Text(text) => {
                let fields = if combines { &text.reduced } else { &text.mapped };
                let then = match self.job.reduces {
                    Reduces::Code => Then::Script(text.between.0.clone()),
                    _ => Then::Output(text.written.clone()),
                };
                (Pairs::of_text(text.clone(), fields.clone(), then, parts), Lines::Of(&text.reduced, text))
            }
            Shape::Packed => (Pairs::packed(parts), Lines::Whole),
        };
        // What attempts hold comes of the same memory.
        let lower = Options { memory: options.memory * if combines { 5 } else { 7 } / 8, ..options.clone() };
        let observer = ButProgress { observer: context.observer, maps: AtomicBool::new(true) };
        let inner = Context { exec: context.exec, observer: &observer, stop: context.stop };
        let run = Run::new(&app, &lower, &inner, self.feed, parts, scratch.clone());
        // All parts are there at once.
        let share = options.memory / 8 / u64::from(parts);
        let spool = || Arc::new(Mutex::new(Ok(Spool::new(scratch.clone(), share as usize))));
        let together: Vec<Arc<Mutex<Result<Spool, Error>>>> = (0..parts).map(|_| spool()).collect();
        let sinks = together.iter().map(|spool| Box::new(Kept(spool.clone())) as Box<dyn Close>).collect();
        let names = (0..parts as usize).map(|part| format!("the lines of {}", part_name(part, None))).collect();
        let mut outputs = Outputs::of_task(sinks, names);
        run.run(&outputs)?;
        let summaries = outputs.finish(false)?;
        drop(outputs);
        context.observer.phase(Phase::Reduce, u64::from(parts));
        self.each(parts as usize, |part| {
            let lines = std::mem::replace(&mut *lock(&together[part]), Ok(self.shared.spool()))?;
            if self.job.reduces == Reduces::Identity {
                self.output.write(part, lines, &Lines::Whole, options)?;
            } else {
                let mut written = self.shared.through(self.shared.attempt(Stage::Reduce, part as u32, None), &lines)?;
                if lines.len() == 0 {
                    // As Hadoop: a reducer without input runs, and what it writes is dropped.
                    written.clear();
                }
                self.output.write(part, written, &how, options)?;
            }
            context.observer.advance(1);
            Ok(())
        })?;
        Ok(run.report(summaries))
    }
}

/// How lines become those of the output.
enum Lines<'l> {
    /// They are.
    Whole,
    /// They are divided so, and written as the text says.
    Of(&'l Fields, &'l Text),
}

/// The parts of an output in the making.
struct Parts {
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
    fn begin(target: Target, parts: usize, lazy: bool) -> Result<Self, Error> {
        let place = match target {
            Target::Folder { path, overwrite } => Place::Folder(Pending::begin(&path, overwrite)?),
            Target::Writer(writer) => Place::Stream(Mutex::new(Turns { writer, next: 0, early: BTreeMap::new() })),
        };
        let none = PartSummary { records: 0, bytes: 0, crc32c: 0 };
        Ok(Self { place, summaries: Mutex::new(vec![none; parts]), lazy })
    }

    /// Writes a part, once.
    fn write(&self, part: usize, written: Spool, how: &Lines<'_>, options: &Options) -> Result<(), Error> {
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
    fn publish(self, app: &str, report: &mut Report, options: &Options) -> Result<(), Error> {
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
fn copy(
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
