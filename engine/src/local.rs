//! One machine: the whole data plane in one process, from a list of inputs to a published output.
//!
//! Threads map spans of the input, each into a table or log of its own, and spill when memory is short. If nothing was
//! spilled, keys are brought together in memory; else the last of the tables is spilled too and runs are merged.
//!
//! One task of a cluster's job is a [`Run`] too, see [`crate::task`]: only what it reads and where its parts go differ.

mod bad;
mod logs;
mod outputs;
mod reduce;
mod survey;
mod tables;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::app::{App, Shuffle};
use crate::data::commit::{leftover, totals};
use crate::data::emit::{MOST_BAD, Tally};
use crate::data::feed::Feed;
use crate::data::group::{Fold, Group};
use crate::data::input::Input;
use crate::data::output::{Output, PartSummary, Spare, lock};
use crate::data::runs::Runs;
use crate::data::source::{Loaded, Loader, Sources};
use crate::data::spans::Spans;
use crate::error::Error;
use crate::job::{Context, MAX_PARTS, Options, Phase, Plan, Report, Target, shuffle_name};
use crate::scratch::{Folder, Scratch};
use crate::value::Value;
use bad::BadRecords;
pub(crate) use bad::error_of as bad_record_error;
pub(crate) use outputs::{Outputs, check_limit};
pub(crate) use survey::splitters;

/// Bytes of input for each part, when the user does not say how many.
const PART_BYTES: u64 = 128 << 20;
/// More than this is spilled whatever the memory: items are numbered in 32 bits while they are brought together, and
/// the smallest takes 16 bytes.
const MOST_IN_MEMORY: u64 = 60 << 30;
/// Where bad records are kept that were passed over.
pub(crate) const BAD_RECORDS: &str = "_bad/records.jsonl";
/// Most parts that are chosen by themselves.
const MAX_CHOSEN_PARTS: u64 = 256;

/// Everything that the threads of a job share.
pub(crate) struct Run<'r, A> {
    app: &'r A,
    options: &'r Options,
    context: &'r Context<'r>,
    feed: &'r dyn Feed,
    parts: u32,
    /// The first keys of all parts but the first, where they are given: for jobs that sort.
    splitters: Option<&'r [Vec<u8>]>,
    spans: Spans,
    pub(crate) runs: Runs,
    /// The first error; when there is one, everybody stops.
    failed: Mutex<Option<Error>>,
    stop: AtomicBool,
    input_bytes: AtomicU64,
    tally: Mutex<Tally>,
    bad: BadRecords,
    spare: Spare,
}

pub(crate) fn plan<A: App>(app: &A, inputs: &[Input], options: &Options, threads: usize) -> Result<Plan, Error> {
    check(app, options)?;
    let format = options.format.unwrap_or(app.format());
    let sources = Sources::new(inputs.to_vec(), format, options.chunk, options.isa)?;
    Ok(Plan {
        inputs: inputs.len(),
        input_bytes: sources.known_bytes(),
        streams: inputs.iter().filter(|i| !i.is_splittable()).count(),
        units: sources.units(),
        parts: parts(app, options, sources.known_bytes()),
        format: format.to_string(),
        shuffle: shuffle_name(A::SHUFFLE).into(),
        memory: options.memory,
        threads,
        isa: format!("{:?}", options.isa).to_lowercase(),
    })
}

pub(crate) fn check<A: App>(app: &A, options: &Options) -> Result<(), Error> {
    let fail = |m: String| Err(Error::Usage(m));
    match options.reducers {
        Some(2..) if app.top().is_some() => {
            fail("this app keeps the best of all in one part; leave --reducers out".into())
        }
        Some(n) if n == 0 || n > MAX_PARTS => fail(format!("the number of reducers is 1 to {MAX_PARTS}, not {n}")),
        _ if options.skip_bad_records > MOST_BAD as u64 => {
            fail(format!("at most {MOST_BAD} bad records can be passed over, not {}", options.skip_bad_records))
        }
        _ if options.memory < crate::job::MIN_MEMORY => {
            fail(format!("a job needs at least {} MiB of memory", crate::job::MIN_MEMORY >> 20))
        }
        _ => Ok(()),
    }
}

/// A stream has no place for files beside the parts, and dropping them in silence would lose a part of the result.
fn refuse_extra_files<A: App>(app: &A, inputs: &[String]) -> Result<(), Error> {
    match app.extra_files(inputs).first() {
        None => Ok(()),
        Some((name, _)) => {
            Err(Error::Usage(format!("the result has a file {name} beside it; name a folder with -o DIR")))
        }
    }
}

pub(crate) fn parts<A: App>(app: &A, options: &Options, bytes: u64) -> u32 {
    if app.top().is_some() {
        return 1;
    }
    options.reducers.unwrap_or(bytes.div_ceil(PART_BYTES).clamp(1, MAX_CHOSEN_PARTS) as u32)
}

pub(crate) fn run<A: App>(
    app: &A,
    name: &str,
    inputs: Vec<Input>,
    options: &Options,
    target: Target,
    context: &Context<'_>,
) -> Result<Report, Error> {
    check(app, options)?;
    let format = options.format.unwrap_or(app.format());
    let mut sources = Sources::new(inputs, format, options.chunk, options.isa)?;
    let held = Held::new::<A>(sources.mapped_bytes(), options);
    (sources.release, sources.pin) = (held.release, held.pin);
    let parts = parts(app, options, sources.known_bytes());
    if matches!(target, Target::Writer(_)) {
        refuse_extra_files(app, &sources.names)?;
    }
    let replaced = match &target {
        Target::Folder { path, overwrite: true } => Some(path.clone()),
        _ => None,
    };
    let mut outputs = Outputs::open(target, parts, options)?;
    let scratch = Arc::new(Folder::new(&options.scratch));
    let run = Run::new(app, options, context, &sources, parts, scratch);
    run.run(&outputs)?;
    context.observer.phase(Phase::Commit, 1);
    let summaries = outputs.finish(options.sync)?;
    let report = run.report(summaries);
    outputs.publish(name, &run, &report)?;
    if let Some(old) = replaced.and_then(|path| leftover(&path)) {
        let old = old.display();
        context.observer.note(&format!("the output is complete; the one it replaced cannot be removed: see {old}"));
    }
    Ok(report)
}

/// How input that is mapped is held.
pub(crate) struct Held {
    /// Its pages are given back as they are used.
    pub(crate) release: bool,
    /// It stays mapped, so that references into it are good.
    pub(crate) pin: bool,
}

impl Held {
    pub(crate) fn new<A: App>(mapped: u64, options: &Options) -> Self {
        // There may be plenty of memory for it.
        let release = mapped > options.memory / 4;
        Self { release, pin: A::SHUFFLE == Shuffle::Sort || (A::Value::REFERS && mapped <= options.memory / 3) }
    }
}

impl<'r, A: App> Run<'r, A> {
    pub(crate) fn new(
        app: &'r A,
        options: &'r Options,
        context: &'r Context<'r>,
        feed: &'r dyn Feed,
        parts: u32,
        scratch: Arc<dyn Scratch>,
    ) -> Self {
        Self {
            app,
            options,
            context,
            feed,
            parts,
            splitters: None,
            spans: Spans::new(feed.units(), context.exec.threads()),
            runs: Runs::new(scratch, parts),
            failed: Mutex::new(None),
            stop: AtomicBool::new(false),
            input_bytes: AtomicU64::new(0),
            tally: Mutex::default(),
            bad: BadRecords::new(options.skip_bad_records),
            spare: Spare::default(),
        }
    }

    /// Divides the keys of a sorting job among parts by these, not by a sample.
    pub(crate) fn divided_by(mut self, splitters: &'r [Vec<u8>]) -> Self {
        self.splitters = Some(splitters);
        self
    }

    /// As one of a job's tasks: what it meets too many bad records for is the job's business.
    pub(crate) fn of_task(mut self) -> Self {
        self.bad = self.bad.of_task();
        self
    }

    /// Maps all input and reduces what comes of it.
    pub(crate) fn run(&self, outputs: &Outputs) -> Result<(), Error> {
        self.context.observer.phase(Phase::Map, self.feed.known_bytes());
        // Constants, not a match: the code of the other shuffles is then not made for this app.
        if const { matches!(A::SHUFFLE, Shuffle::Fold) } {
            self.with_tables(&|| Fold(self.app), outputs)
        } else if const { matches!(A::SHUFFLE, Shuffle::Group) } {
            let budget = self.share() * 3 / 4;
            self.with_tables(&|| Group::new(self.app, budget), outputs)
        } else {
            self.with_logs(outputs)
        }
    }
}

impl<A: App> Run<'_, A> {
    /// Bytes that the map may hold on each thread.
    fn share(&self) -> usize {
        let all = (self.options.memory * 6 / 10).min(MOST_IN_MEMORY);
        (all / self.context.exec.threads() as u64) as usize
    }

    fn fail(&self, error: Error) {
        self.stop.store(true, Ordering::Relaxed);
        lock(&self.failed).get_or_insert(error);
    }

    fn stopped(&self) -> bool {
        if self.context.stop.load(Ordering::Relaxed) {
            self.fail(Error::Interrupted);
        }
        self.stop.load(Ordering::Relaxed)
    }

    /// The first error, if there was one.
    fn outcome(&self) -> Result<(), Error> {
        lock(&self.failed).take().map_or(Ok(()), Err)?;
        self.bad.outcome()
    }

    /// Runs work of one thread; an error or panic stops the job.
    fn guarded(&self, phase: &'static str, place: &dyn Fn() -> String, work: impl FnOnce() -> Result<(), Error>) {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.fail(e),
            Err(panic) => self.fail(Error::Panic { phase, place: place(), message: panic_message(&*panic) }),
        }
    }

    /// Loads a unit and maps its chunks; panics of the app become errors that say where.
    fn map_unit(
        &self,
        unit: u64,
        loader: &mut Loader,
        mut map: impl FnMut(&Loaded<'_>) -> Result<Tally, Error>,
    ) -> Result<(), Error> {
        if self.bad.are_before(unit) {
            return Ok(());
        }
        let loaded = self.feed.load(unit, loader, self.context.stop, &mut |loaded| {
            let mapped = catch_unwind(AssertUnwindSafe(|| map(loaded)));
            let tally = mapped.unwrap_or_else(|panic| {
                let place = format!("{} after byte {}", loaded.chunk.input_name(), loaded.chunk.offset());
                Err(Error::Panic { phase: "map", place, message: panic_message(&*panic) })
            })?;
            self.input_bytes.fetch_add(loaded.chunk.bytes().len() as u64, Ordering::Relaxed);
            self.context.observer.advance(loaded.chunk.bytes().len() as u64);
            self.take(unit, tally, loaded);
            let left_out = self.bad.are_before_end(unit, &loaded.chunk);
            if left_out || self.stopped() { Err(Error::Interrupted) } else { Ok(()) }
        });
        match loaded {
            // The rest of the unit is left out; there may be work before it.
            Err(Error::Interrupted) if !self.stopped() => Ok(()),
            loaded => loaded.map(|_| ()),
        }
    }

    /// Takes over what a chunk left beside pairs.
    fn take(&self, unit: u64, mut tally: Tally, loaded: &Loaded<'_>) {
        if !tally.bad.is_empty() {
            self.bad.take(unit, &loaded.chunk, std::mem::take(&mut tally.bad));
        }
        if tally.emitted > 0 || !tally.counters.is_empty() {
            lock(&self.tally).absorb(tally);
        }
    }

    /// An output for reducers to write into, with a buffer that was used before.
    fn output(&self) -> Output<'_> {
        let mut out = Output::new(self.feed.names(), self.feed.format().separator(), self.app.top());
        out.buf = self.spare.get();
        out
    }

    pub(crate) fn report(&self, parts: Vec<PartSummary>) -> Report {
        let tally = lock(&self.tally);
        let (spilled_runs, spilled_bytes) = self.runs.spilled();
        Report {
            inputs: self.feed.names().len() as u64,
            input_bytes: self.input_bytes.load(Ordering::Relaxed),
            emitted: tally.emitted,
            output_records: parts.iter().map(|p| p.records).sum(),
            output_bytes: parts.iter().map(|p| p.bytes).sum(),
            parts,
            counters: totals(tally.counters.iter().map(|(name, n)| (name.to_string(), *n))),
            bad_records: self.bad.count(),
            spilled_runs,
            spilled_bytes,
        }
    }

    /// The files beside the parts: bad records and what the app adds.
    fn extra_files(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut files = self.app.extra_files(self.feed.names());
        let bad = self.bad_records()?;
        if !bad.is_empty() {
            files.push((BAD_RECORDS.into(), bad));
        }
        Ok(files)
    }

    /// The bad records that were passed over, a line each, in input order.
    pub(crate) fn bad_records(&self) -> Result<Vec<u8>, Error> {
        self.bad.lines().map_err(|e| Error::write("write", BAD_RECORDS)(e.into()))
    }
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or("no message".into());
    text.lines().next().unwrap_or_default().into()
}
