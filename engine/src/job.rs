//! A job: an app, what to run it over, and what came of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::app::{App, Format, Shuffle};
use crate::data::compress::Compression;
use crate::data::input::Input;
use crate::data::output::PartSummary;
use crate::data::words::Isa;
use crate::error::Error;
use crate::exec::Exec;
use crate::local;
use crate::scratch::Scratch;
use crate::task::{self, MapOutput, MapTask, Object, Objects, PartOutput, ReduceTask, TaskPlan};

/// Most parts of an output.
pub const MAX_PARTS: u32 = 10_000;
/// Least memory that a job can be given, in bytes.
pub const MIN_MEMORY: u64 = 16 << 20;

/// How to run a job. What shapes the output (`reducers`, `format`, `compress`) is apart from what only shapes the run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of parts, 1 to [`MAX_PARTS`]; chosen from the size of the input when `None`.
    pub reducers: Option<u32>,
    /// How inputs are cut into records; the app's choice when `None`.
    pub format: Option<Format>,
    /// Codec of the parts: gzip or zstd.
    pub compress: Option<Compression>,
    /// Bytes of memory that the engine may hold.
    pub memory: u64,
    /// Nominal bytes of a chunk.
    pub chunk: usize,
    /// How many bad records may be passed over, up to 100,000.
    pub skip_bad_records: u64,
    /// Make the output durable before it is published.
    pub sync: bool,
    /// Where runs are spilled to.
    pub scratch: PathBuf,
    /// Instruction set to map with.
    pub isa: Isa,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reducers: None,
            format: None,
            compress: None,
            memory: 1 << 30,
            chunk: 1 << 20,
            skip_bad_records: 0,
            sync: false,
            scratch: std::env::temp_dir(),
            isa: Isa::best(),
        }
    }
}

/// Where the result goes.
pub enum Target {
    /// A folder of parts.
    Folder {
        /// Its name.
        path: PathBuf,
        /// Whether an existing output of that name is replaced.
        overwrite: bool,
    },
    /// All parts one after the other, in order.
    Writer(Box<dyn Write + Send>),
}

/// A stretch of a job's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Reading, mapping, combining, and spilling.
    Map,
    /// Bringing keys together.
    Shuffle,
    /// Sorting, reducing, writing.
    Reduce,
    /// Publishing the output.
    Commit,
}

/// What user code of tasks has counted so far, each task once, and the last status that one told.
#[derive(Clone, Debug, Default)]
pub struct SoFar {
    tasks: BTreeMap<String, BTreeMap<String, i64>>,
    /// Whose, and which.
    pub status: Option<(String, String)>,
}

impl SoFar {
    /// What a task says now. Of one that is tried again, only the new attempt counts.
    pub fn hear(&mut self, task: &str, counters: &BTreeMap<String, i64>, status: Option<&str>) {
        self.tasks.insert(task.into(), counters.clone());
        if let Some(status) = status {
            self.status = Some((task.into(), status.into()));
        }
    }

    /// Sums by name.
    pub fn counters(&self) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for (name, n) in self.tasks.values().flatten() {
            let sum: &mut i64 = sums.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*n);
        }
        sums
    }
}

/// Watches a job run. Called from many threads.
pub trait Observer: Sync {
    /// A phase begins; it has about `total` units of work: bytes of input, or groups of keys.
    fn phase(&self, phase: Phase, total: u64) {
        let _ = (phase, total);
    }
    /// That much work of the phase is done.
    fn advance(&self, n: u64) {
        let _ = n;
    }
    /// Something that the user should know.
    fn note(&self, message: &str) {
        let _ = message;
    }
    /// A line that user code of a task wrote for people.
    fn log(&self, task: &str, line: &str) {
        let _ = (task, line);
    }
    /// What user code of a task that runs has counted so far, and the last status that it told. What counts is in the report.
    fn so_far(&self, task: &str, counters: &BTreeMap<String, i64>, status: Option<&str>) {
        let _ = (task, counters, status);
    }
}

impl Observer for () {}

/// What a job runs in.
pub struct Context<'c> {
    /// Threads.
    pub exec: &'c dyn Exec,
    /// Who watches.
    pub observer: &'c dyn Observer,
    /// Set to stop the job as soon as may be.
    pub stop: &'c AtomicBool,
}

/// What came of a job.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// Inputs.
    pub inputs: u64,
    /// Bytes mapped, after decompression.
    pub input_bytes: u64,
    /// Pairs emitted.
    pub emitted: u64,
    /// Records written.
    pub output_records: u64,
    /// Bytes written, before compression.
    pub output_bytes: u64,
    /// Each part.
    pub parts: Vec<PartSummary>,
    /// The app's counters.
    pub counters: BTreeMap<String, i64>,
    /// Bad records that were passed over.
    pub bad_records: u64,
    /// Runs spilled to scratch.
    pub spilled_runs: u64,
    /// Bytes of those runs.
    pub spilled_bytes: u64,
}

/// What a job will do, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Plan {
    /// Number of inputs.
    pub inputs: usize,
    /// Bytes of input as far as known; compressed ones count as they are stored.
    pub input_bytes: u64,
    /// Inputs that cannot be split: compressed files and pipes.
    pub streams: usize,
    /// Units of work: chunks, handfuls of small files, streams.
    pub units: u64,
    /// Parts of the output.
    pub parts: u32,
    /// How inputs are cut into records.
    pub format: String,
    /// How values meet: `fold`, `group` or `sort`.
    pub shuffle: String,
    /// Bytes of memory that the engine may hold.
    pub memory: u64,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
}

/// An app of whatever type with everything that is needed to run it.
pub trait Job: Send + Sync {
    /// What would be done with these inputs.
    ///
    /// # Errors
    /// As [`Job::run`] before any work.
    fn plan(&self, inputs: &[Input], options: &Options, threads: usize) -> Result<Plan, Error>;

    /// Runs the job, named `app` in the manifest, to its end.
    ///
    /// # Errors
    /// Whatever went wrong first. The target is then as it was: nothing of the job is visible in a folder.
    fn run(
        &self,
        app: &str,
        inputs: Vec<Input>,
        options: &Options,
        target: Target,
        context: &Context<'_>,
    ) -> Result<Report, Error>;

    /// How often a task may be tried, where the job says.
    fn attempts(&self) -> Option<u32> {
        None
    }

    /// How the values of a key meet.
    fn shuffle(&self) -> Shuffle;

    /// Divides a cluster's job over these objects into tasks of about `target` bytes.
    ///
    /// # Errors
    /// As [`Job::run`] before any work.
    fn divide(&self, objects: &[Object], options: &Options, target: u64) -> Result<TaskPlan, Error>;

    /// Looks where the parts of a sorting job begin: the first keys of all but the first part. They are those of
    /// [`Job::run`].
    ///
    /// # Errors
    /// When the sample cannot be read.
    fn survey(
        &self,
        inputs: &[Object],
        parts: u32,
        objects: &dyn Objects,
        options: &Options,
    ) -> Result<Vec<Vec<u8>>, Error>;

    /// Runs one map task. Its files are on scratch when it succeeds, and only then.
    ///
    /// # Errors
    /// Whatever went wrong first.
    fn map_task(
        &self,
        task: MapTask<'_>,
        objects: &dyn Objects,
        scratch: &Arc<dyn Scratch>,
        options: &Options,
        context: &Context<'_>,
    ) -> Result<MapOutput, Error>;

    /// Runs one task of a job that only maps. Its file is on scratch when it succeeds, and only then.
    ///
    /// # Errors
    /// Whatever went wrong first.
    fn part_task(
        &self,
        _: MapTask<'_>,
        _: &dyn Objects,
        _: &Arc<dyn Scratch>,
        _: &Options,
        _: &Context<'_>,
    ) -> Result<PartOutput, Error> {
        Err(Error::Usage("this job reduces what it maps".into()))
    }

    /// Runs one reduce task. Its file is on scratch when it succeeds, and only then.
    ///
    /// # Errors
    /// Whatever went wrong first; a damaged segment is named, with the place in it.
    fn reduce_task(
        &self,
        task: ReduceTask<'_>,
        scratch: &Arc<dyn Scratch>,
        options: &Options,
        context: &Context<'_>,
    ) -> Result<PartOutput, Error>;

    /// The app's further files of an output over inputs of these names; see [`App::extra_files`].
    fn extra_files(&self, inputs: &[String]) -> Vec<(String, Vec<u8>)>;
}

/// The [`Job`] of an app.
pub struct AppJob<A>(pub A);

impl<A: App> Job for AppJob<A> {
    fn plan(&self, inputs: &[Input], options: &Options, threads: usize) -> Result<Plan, Error> {
        local::plan(&self.0, inputs, options, threads)
    }

    fn run(
        &self,
        app: &str,
        inputs: Vec<Input>,
        options: &Options,
        target: Target,
        context: &Context<'_>,
    ) -> Result<Report, Error> {
        local::run(&self.0, app, inputs, options, target, context)
    }

    fn shuffle(&self) -> Shuffle {
        A::SHUFFLE
    }

    fn divide(&self, objects: &[Object], options: &Options, target: u64) -> Result<TaskPlan, Error> {
        task::plan::plan(&self.0, objects, options, target)
    }

    fn survey(
        &self,
        inputs: &[Object],
        parts: u32,
        objects: &dyn Objects,
        options: &Options,
    ) -> Result<Vec<Vec<u8>>, Error> {
        task::survey(&self.0, inputs, parts, objects, options)
    }

    fn map_task(
        &self,
        task: MapTask<'_>,
        objects: &dyn Objects,
        scratch: &Arc<dyn Scratch>,
        options: &Options,
        context: &Context<'_>,
    ) -> Result<MapOutput, Error> {
        task::map(&self.0, task, objects, scratch, options, context)
    }

    fn reduce_task(
        &self,
        task: ReduceTask<'_>,
        scratch: &Arc<dyn Scratch>,
        options: &Options,
        context: &Context<'_>,
    ) -> Result<PartOutput, Error> {
        task::reduce(&self.0, task, scratch, options, context)
    }

    fn extra_files(&self, inputs: &[String]) -> Vec<(String, Vec<u8>)> {
        self.0.extra_files(inputs)
    }
}

pub(crate) fn shuffle_name(shuffle: Shuffle) -> &'static str {
    match shuffle {
        Shuffle::Fold => "fold",
        Shuffle::Group => "group",
        Shuffle::Sort => "sort",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_so_far_is_summed_over_tasks_and_not_over_attempts() {
        let counted = |n: i64| BTreeMap::from([("lines".to_string(), n)]);
        let mut so_far = SoFar::default();
        so_far.hear("map task 0", &counted(5), Some("half"));
        so_far.hear("combine task 0", &counted(2), None);
        assert_eq!(so_far.counters(), counted(7));
        // Another attempt began.
        so_far.hear("map task 0", &counted(1), None);
        assert_eq!(so_far.counters(), counted(3));
        assert_eq!(so_far.status, Some(("map task 0".into(), "half".into())));
    }
}
