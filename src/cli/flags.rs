//! The flags that every app has: where its input is, where the result goes, and how the job runs.
//!
//! Ids begin with `job.`, so that an app is free to name its fields as it likes.

use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use gristmill_engine::app::Format;
use gristmill_engine::data::compress::Compression;
use gristmill_engine::data::input::Input;
use gristmill_engine::job::{MAX_PARTS, Options, Target};
use rustix::fs::Access;

use super::failure::Failure;
use super::sizes::Size;
use super::{memory, report, stdout};

const INPUT: &str = "Input";
const OUTPUT: &str = "Output";
const RUNNING: &str = "Running";
const TELLING: &str = "Telling";

// No documentation comment: clap would take it for the help of every app.
#[derive(Debug, clap::Args)]
pub(crate) struct JobFlags {
    /// Files, folders, quoted globs ('logs/**/*.gz'), or - for standard input
    ///
    /// A folder stands for all files below it but those whose names begin with '_' or '.'. Files that end in .gz, .zst,
    /// .bz2 or .lz4 are decompressed. An input that is named twice is read twice: its records count twice, and it is two
    /// documents of the same name. Without INPUT, standard input is read, if it is not a terminal.
    #[arg(id = "job.input", value_name = "INPUT", value_hint = ValueHint::AnyPath)]
    pub(crate) input: Vec<OsString>,
    /// Read names of inputs from a file, one a line; - is standard input
    ///
    /// A list with NUL bytes, as of find -print0, has a name before each NUL instead.
    #[arg(id = "job.inputs-from", long = "inputs-from", value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = INPUT)]
    pub(crate) inputs_from: Option<PathBuf>,
    /// How inputs are cut into records: lines, whole (a file is a record), fixed:N (N bytes each), nul
    #[arg(id = "job.input-format", long = "input-format", value_name = "FORMAT", help_heading = INPUT)]
    pub(crate) input_format: Option<Format>,

    /// Folder to make with the result, in parts; without it, or with -, the result goes to standard output
    ///
    /// It appears when it is complete, with a file _SUCCESS, and not before; a job that fails leaves nothing.
    #[arg(id = "job.output", long = "output", short = 'o', value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[arg(help_heading = OUTPUT)]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output of an earlier job
    #[arg(id = "job.overwrite", long = "overwrite", help_heading = OUTPUT)]
    pub(crate) overwrite: bool,
    /// Number of parts; by default one for each 128 MiB of input, and one on standard output
    #[arg(id = "job.reducers", long = "reducers", value_name = "N", help_heading = OUTPUT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTS)))]
    pub(crate) reducers: Option<u32>,
    /// Compress the parts
    #[arg(id = "job.compress", long = "compress", value_name = "CODEC", help_heading = OUTPUT)]
    pub(crate) compress: Option<Codec>,
    /// Have the result on disk, not only in the system's cache, before it appears
    #[arg(id = "job.sync", long = "sync", help_heading = OUTPUT)]
    pub(crate) sync: bool,

    /// Threads, at most 1024; by default as many as the machine gives
    #[arg(id = "job.threads", long = "threads", value_name = "N", help_heading = RUNNING, value_parser = threads)]
    pub(crate) threads: Option<usize>,
    /// Memory to hold data in before it is spilled to disk, as 512MiB or 2g; by default half of what there is
    #[arg(id = "job.memory", long = "memory", value_name = "SIZE", help_heading = RUNNING)]
    pub(crate) memory: Option<Size>,
    /// Bytes that a thread takes at a time
    #[arg(id = "job.chunk-size", long = "chunk-size", value_name = "SIZE", default_value = "1MiB")]
    #[arg(help_heading = RUNNING)]
    pub(crate) chunk_size: Size,
    /// Folder to spill to; by default that of TMPDIR, or /tmp
    #[arg(id = "job.temp-dir", long = "temp-dir", value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[arg(help_heading = RUNNING)]
    pub(crate) temp_dir: Option<PathBuf>,
    /// Pass over up to N records that the app calls bad, and keep them in _bad/ of the output
    #[arg(id = "job.skip-bad-records", long = "skip-bad-records", value_name = "N", default_value_t = 0)]
    #[arg(hide_default_value = true, help_heading = RUNNING)]
    pub(crate) skip_bad_records: u64,

    /// Print what would be done, and stop
    #[arg(id = "job.explain", long = "explain", help_heading = TELLING)]
    pub(crate) explain: bool,
    /// Report on the job as one line of JSON: on standard output, or on standard error if the result is there
    #[arg(id = "job.json", long = "json", help_heading = TELLING, long_help = report::JSON_HELP)]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(id = "job.quiet", long = "quiet", short = 'q', help_heading = TELLING)]
    pub(crate) quiet: bool,
    /// Show progress on standard error: auto is on a terminal, unless the result or a JSON report is to be read there
    #[arg(id = "job.progress", long = "progress", value_name = "WHEN", default_value = "auto", help_heading = TELLING)]
    pub(crate) progress: When,
}

/// Most threads that a job can be given.
const MAX_THREADS: usize = 1024;
/// So many threads are started even if there is not enough work for them.
const IDLE_THREADS: usize = 16;

fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MAX_THREADS).contains(n));
    number.ok_or_else(|| format!("it must be a number from 1 to {MAX_THREADS}"))
}

/// Whether files can be made in a folder.
fn writable(folder: &Path) -> io::Result<()> {
    if !std::fs::metadata(folder)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// What parts can be compressed with.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Codec {
    /// Zstandard: .zst
    Zstd,
    /// gzip: .gz
    Gzip,
}

/// When progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

impl JobFlags {
    /// The folder for the result; `None` is standard output.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// Refuses flags that would have no effect.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let needs_folder =
            [("--compress", self.compress.is_some()), ("--overwrite", self.overwrite), ("--sync", self.sync)];
        if let Some((flag, _)) = needs_folder.into_iter().find(|(_, given)| *given && self.folder().is_none()) {
            return Err(Failure::Usage(format!("{flag} is about a folder; name one with -o DIR")));
        }
        match &self.temp_dir {
            Some(path) => writable(path).map_err(|source| {
                let action = "spill to";
                Failure::File { action, path: path.clone(), source }
            }),
            None => Ok(()),
        }
    }

    /// Whether something may be said to people on standard error.
    pub(crate) fn talks(&self) -> bool {
        !self.quiet && !self.json
    }

    /// How many threads to start for these inputs: what was asked for, or what the machine gives.
    pub(crate) fn threads(&self, inputs: &[Input]) -> usize {
        let machine = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let chunks = |input: &Input| if input.is_splittable() { input.len / self.chunk_size.0 + 1 } else { 1 };
        let work = || usize::try_from(inputs.iter().map(chunks).sum::<u64>()).unwrap_or(usize::MAX);
        match self.threads {
            // Threads that find nothing to do cost memory and time all the same.
            Some(asked) if asked > IDLE_THREADS => asked.min(work().max(machine).max(IDLE_THREADS)),
            Some(asked) => asked,
            None => machine,
        }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default();
        // One part on standard output is in the order of its keys; several would each begin anew.
        options.reducers = self.reducers.or(self.folder().is_none().then_some(1));
        options.format = self.input_format;
        options.compress = self.compress.map(|codec| match codec {
            Codec::Zstd => Compression::Zstd,
            Codec::Gzip => Compression::Gzip,
        });
        options.memory = self.memory.map_or_else(memory::half, |size| size.0);
        options.chunk = usize::try_from(self.chunk_size.0).unwrap_or(usize::MAX);
        options.skip_bad_records = self.skip_bad_records;
        options.sync = self.sync;
        options.scratch = self.temp_dir.clone().unwrap_or(options.scratch);
        options
    }

    pub(crate) fn target(&self) -> Result<Target, Failure> {
        Ok(match self.folder() {
            Some(path) => Target::Folder { path: path.into(), overwrite: self.overwrite },
            None => Target::Writer(Box::new(stdout::open()?)),
        })
    }
}
