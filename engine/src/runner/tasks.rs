//! The job over a [`Runner`](super::Runner) on a cluster, one task at a time: the code of [`super::job`] with segments between.
//!
//! A task is tried once: whether and where it is tried again is the leader's business.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::Counters;
use super::feed::{Kept, Mapped, OfTask, Shared};
use super::job::{ButProgress, RunnerJob};
use super::parts::{Lines, copy};
use super::spool::Spool;
use crate::data::output::{Close, lock};
use crate::data::source::Loader;
use crate::error::Error;
use crate::job::{Context, Options, Phase};
use crate::local::Held;
use crate::scratch::{self, Scratch};
use crate::task::{self, MapOutput, MapTask, Objects, PartFile, PartOutput, ReduceTask, TaskInput, Which};

/// What the code of one task shares.
struct Setting<'s> {
    job: &'s RunnerJob,
    scratch: &'s Arc<dyn Scratch>,
    options: &'s Options,
    context: &'s Context<'s>,
    halt: AtomicBool,
    counters: Mutex<Counters>,
}

impl<'s> Setting<'s> {
    fn new(
        job: &'s RunnerJob,
        scratch: &'s Arc<dyn Scratch>,
        options: &'s Options,
        context: &'s Context<'s>,
    ) -> Result<Self, Error> {
        job.check(options)?;
        job.prepare(options, context)?;
        let (halt, counters) = Default::default();
        Ok(Self { job, scratch, options, context, halt, counters })
    }

    fn shared<'a>(&'a self, which: Which<'a>) -> Shared<'a> {
        Shared {
            runner: &*self.job.runner,
            shape: &self.job.shape,
            scratch: self.scratch,
            options: self.options,
            context: self.context,
            halt: &self.halt,
            counters: &self.counters,
            memory: (self.options.memory / 8 / self.context.exec.threads() as u64) as usize,
            which,
            again: false,
        }
    }

    /// What was counted. A cluster's counters count up.
    fn counted(&self) -> impl Iterator<Item = (String, u64)> {
        let all = std::mem::take(&mut *lock(&self.counters));
        for (name, n) in all.iter().filter(|(_, n)| **n < 0) {
            self.context
                .observer
                .note(&format!("counter {name} came to {n}: a cluster's counters count up, it is left out"));
        }
        all.into_iter().filter_map(|(name, n)| Some((name, u64::try_from(n).ok()?)))
    }

    fn input<'t>(&self, task: MapTask<'t>, objects: &'t dyn Objects) -> Result<TaskInput<'t>, Error> {
        let cutting = (self.job.format(self.options), self.options.chunk, self.options.isa);
        // Code gets a copy of everything.
        let held = Held { release: true, pin: false };
        TaskInput::new((objects, task.inputs), task.ranges, cutting, held)
    }

    /// Writes a part's lines into its file.
    fn write(&self, part: u32, file: &str, (written, how): (&Spool, &Lines<'_>)) -> Result<PartOutput, Error> {
        let mut to = PartFile::create(file, self.scratch, self.options)?;
        let done = to.done.clone();
        let failed = |e| scratch::Error::at("write a part to", self.scratch.place(file))(e).into();
        let summary = copy(written, how, &mut to, &failed)?;
        Box::new(to).close().map_err(failed)?;
        Ok(PartOutput { counters: self.counted().collect(), ..done.output(part, summary, self.options) })
    }
}

/// Removes a file of a task that has failed; what cannot be removed goes with the job.
fn whole<T>(made: Result<T, Error>, file: &str, scratch: &dyn Scratch) -> Result<T, Error> {
    if made.is_err() {
        let _ = scratch.remove(file);
    }
    made
}

/// Does something with the feed of a task that maps.
fn mapping<T>(
    job: &RunnerJob,
    task: MapTask<'_>,
    objects: &dyn Objects,
    (scratch, options, context): (&Arc<dyn Scratch>, &Options, &Context<'_>),
    then: impl FnOnce(&Setting<'_>, &Mapped<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let setting = Setting::new(job, scratch, options, context)?;
    let input = setting.input(task, objects)?;
    let splits = OfTask(&input, task.ranges);
    context.observer.phase(Phase::Map, task.ranges.iter().map(|range| range.end - range.start).sum());
    then(&setting, &Mapped::new(setting.shared(task.which), &splits))
}

/// A task that maps, into segments.
pub(super) fn map(
    job: &RunnerJob,
    task: MapTask<'_>,
    objects: &dyn Objects,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<MapOutput, Error> {
    mapping(job, task, objects, (scratch, options, context), |setting, feed| {
        let observer = ButProgress::of(context.observer);
        let inner = Context { exec: context.exec, observer: &observer, stop: context.stop };
        let mut made = task::map_feed(&job.pairs(task.parts), task, feed, scratch, &job.left(options), &inner)?;
        made.input_bytes = feed.bytes();
        made.counters.extend(setting.counted());
        Ok(made)
    })
}

/// A task that maps, into a part.
pub(super) fn part(
    job: &RunnerJob,
    task: MapTask<'_>,
    objects: &dyn Objects,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<PartOutput, Error> {
    let made = mapping(job, task, objects, (scratch, options, context), |setting, feed| {
        let written = feed.map(0, &mut Loader::default())?;
        let made = setting.write(task.which.number, task.file, (&written, &job.mapped()))?;
        Ok(PartOutput { input_bytes: feed.bytes(), ..made })
    });
    whole(made, task.file, &**scratch)
}

/// A task that reduces.
pub(super) fn reduce(
    job: &RunnerJob,
    task: ReduceTask<'_>,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<PartOutput, Error> {
    let setting = Setting::new(job, scratch, options, context)?;
    let ReduceTask { which, part, file, .. } = task;
    let shared = setting.shared(which);
    let together = Arc::new(Mutex::new(Ok(shared.spool())));
    let sink = Box::new(Kept(together.clone()));
    let report = task::merge(&job.pairs(which.reduces), task, scratch, &job.left(options), context, sink)?;
    let lines = std::mem::replace(&mut *lock(&together), Ok(shared.spool()))?;
    let write = || {
        let (written, how) = job.reduced(&shared, part, lines)?;
        let made = setting.write(part, file, (&written, &how))?;
        Ok(PartOutput { spilled_runs: report.spilled_runs, ..made })
    };
    whole(write(), file, &**scratch)
}
