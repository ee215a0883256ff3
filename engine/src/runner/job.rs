//! The job over a [`Runner`]: what it is on all machines, and how it runs on one: mappers, the shuffle that all jobs share,
//! reducers, and the output.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::feed::{Kept, Local, Mapped, Shared};
use super::parts::{Lines, Parts};
use super::spool::Spool;
use super::text::{Pairs, Shape, Then};
use super::{Runner, Stage, tasks};
use crate::app::{Format, Shuffle};
use crate::control::limits::MAX_ATTEMPTS;
use crate::data::commit::{leftover, part_name};
use crate::data::input::Input;
use crate::data::output::{Close, lock};
use crate::data::source::{Loader, Sources};
use crate::error::Error;
use crate::exec::in_order;
use crate::job::{Context, Job, MAX_PARTS, MIN_MEMORY, Observer, Options, Phase, Plan, Report, Target, shuffle_name};
use crate::local::{Outputs, Run, check_limit};
use crate::scratch::{Folder, Scratch};
use crate::task::{MapOutput, MapTask, Object, Objects, PartOutput, ReduceTask, TaskPlan, Which, plan};

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
    /// Whether the runner is prepared.
    ready: Mutex<bool>,
}

impl RunnerJob {
    /// The job over a runner.
    pub fn new(runner: Box<dyn Runner>, shape: Shape, reduces: Reduces, parts: Option<u32>, lazy: bool) -> Self {
        Self { runner, shape, reduces, parts, lazy, ready: Mutex::default() }
    }

    /// Prepares the runner, once for all tasks.
    pub(crate) fn prepare(&self, options: &Options, context: &Context<'_>) -> Result<(), Error> {
        let mut ready = lock(&self.ready);
        if !*ready {
            self.runner.prepare(&options.scratch, context)?;
            *ready = true;
        }
        Ok(())
    }

    pub(crate) fn parts(&self, options: &Options) -> u32 {
        self.parts.or(options.reducers).unwrap_or(1)
    }

    pub(crate) fn format(&self, options: &Options) -> Format {
        options.format.unwrap_or_default()
    }

    pub(crate) fn check(&self, options: &Options) -> Result<(), Error> {
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
}

/// What all machines do alike.
impl RunnerJob {
    /// Bytes of a map task on one machine.
    fn split_bytes(&self, sources: &Sources, threads: usize) -> u64 {
        let all = sources.known_bytes();
        let share = match self.reduces {
            // Each task has a part: how many there are is not for the machine to say.
            Reduces::None => super::even_share(all),
            _ => self.runner.split_bytes(all, threads.max(1) as u64),
        };
        share.max(all / u64::from(MAX_PARTS / 2))
    }

    /// What brings keys together, in so many parts.
    pub(crate) fn pairs(&self, parts: u32) -> Pairs {
        match &self.shape {
            Shape::Text(text) => {
                let fields = if self.runner.has(Stage::Combine) { &text.reduced } else { &text.mapped };
                let then = match self.reduces {
                    Reduces::Code => Then::Script(text.between.0.clone()),
                    _ => Then::Output(text.written.clone()),
                };
                Pairs::of_text(text.clone(), fields.clone(), then, parts)
            }
            Shape::Packed => Pairs::packed(parts),
        }
    }

    /// The options of what brings keys together beside code at work, which takes a part of the memory.
    pub(crate) fn left(&self, options: &Options) -> Options {
        let eighths = if self.runner.has(Stage::Combine) { 5 } else { 7 };
        Options { memory: options.memory * eighths / 8, ..options.clone() }
    }

    /// How lines of mappers become those of the output.
    pub(crate) fn mapped(&self) -> Lines<'_> {
        match &self.shape {
            Shape::Text(text) => Lines::Of(&text.mapped, text),
            Shape::Packed => Lines::Whole,
        }
    }

    /// What becomes of a part whose keys are together, and how its lines become those of the output.
    pub(crate) fn reduced<'j>(
        &'j self,
        shared: &Shared<'j>,
        part: u32,
        lines: Spool,
    ) -> Result<(Spool, Lines<'j>), Error> {
        if self.reduces == Reduces::Identity {
            return Ok((lines, Lines::Whole));
        }
        let mut written = shared.through(shared.attempt(Stage::Reduce, part, None), &lines)?;
        if lines.len() == 0 {
            // As Hadoop: a reducer without input runs, and what it writes is dropped.
            written.clear();
        }
        let how = match &self.shape {
            Shape::Text(text) => Lines::Of(&text.reduced, text),
            Shape::Packed => Lines::Whole,
        };
        Ok((written, how))
    }
}

/// Passes on what a job tells but the progress of its map: that is told of in bytes of input, by who reads them.
pub(crate) struct ButProgress<'o> {
    observer: &'o dyn Observer,
    maps: AtomicBool,
}

impl<'o> ButProgress<'o> {
    pub(crate) fn of(observer: &'o dyn Observer) -> Self {
        Self { observer, maps: AtomicBool::new(true) }
    }
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
        let units = sources.splits(self.split_bytes(&sources, threads)).len() as u64;
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
        let splits = sources.splits(self.split_bytes(&sources, context.exec.threads()));
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
        self.prepare(options, context)?;
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
            which: Which {
                job: "",
                number: 0,
                attempt: 0,
                maps: splits.len() as u32,
                reduces: if self.reduces == Reduces::None { 0 } else { parts as u32 },
                keep: true,
            },
            again: true,
        };
        let input = Local(&sources, &splits);
        let feed = Mapped::new(shared, &input);
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

    fn attempts(&self) -> Option<u32> {
        Some(self.runner.attempts(Stage::Map).max(self.runner.attempts(Stage::Reduce)).min(MAX_ATTEMPTS))
    }

    fn shuffle(&self) -> Shuffle {
        Shuffle::Group
    }

    fn divide(&self, objects: &[Object], options: &Options, target: u64) -> Result<TaskPlan, Error> {
        self.check(options)?;
        let parts = if self.reduces == Reduces::None { 0 } else { self.parts(options) };
        plan::plan_splits(objects, (self.format(options), parts), options, target)
    }

    fn survey(&self, _: &[Object], _: u32, _: &dyn Objects, _: &Options) -> Result<Vec<Vec<u8>>, Error> {
        Err(Error::Usage("parts of user code are no ranges of keys".into()))
    }

    fn map_task(
        &self,
        task: MapTask<'_>,
        objects: &dyn Objects,
        scratch: &Arc<dyn Scratch>,
        options: &Options,
        context: &Context<'_>,
    ) -> Result<MapOutput, Error> {
        tasks::map(self, task, objects, scratch, options, context)
    }

    fn part_task(
        &self,
        task: MapTask<'_>,
        objects: &dyn Objects,
        scratch: &Arc<dyn Scratch>,
        options: &Options,
        context: &Context<'_>,
    ) -> Result<PartOutput, Error> {
        tasks::part(self, task, objects, scratch, options, context)
    }

    fn reduce_task(
        &self,
        task: ReduceTask<'_>,
        scratch: &Arc<dyn Scratch>,
        options: &Options,
        context: &Context<'_>,
    ) -> Result<PartOutput, Error> {
        tasks::reduce(self, task, scratch, options, context)
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
        let how = self.job.mapped();
        self.shared.context.observer.phase(Phase::Map, crate::data::feed::Feed::known_bytes(feed));
        self.each(self.shared.which.maps as usize, |task| {
            let written = feed.map(task as u32, &mut Loader::default())?;
            self.output.write(task, written, &how, self.shared.options)
        })?;
        Ok(Report { inputs: crate::data::feed::Feed::names(feed).len() as u64, ..Report::default() })
    }

    fn map_and_reduce(&self, parts: u32) -> Result<Report, Error> {
        let Shared { options, context, scratch, .. } = self.shared;
        let app = self.job.pairs(parts);
        // What attempts hold comes of the same memory.
        let lower = self.job.left(options);
        let observer = ButProgress::of(context.observer);
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
            let lines: Spool = std::mem::replace(&mut *lock(&together[part]), Ok(self.shared.spool()))?;
            let (written, how) = self.job.reduced(&self.shared, part as u32, lines)?;
            self.output.write(part, written, &how, options)?;
            context.observer.advance(1);
            Ok(())
        })?;
        Ok(run.report(summaries))
    }
}
