//! A test's own folder: inputs in it, jobs over them, and all bytes of what they leave.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gristmill_engine::app::{App, Format};
use gristmill_engine::data::commit::{Manifest, open_part};
use gristmill_engine::data::compress::Compression;
use gristmill_engine::data::input::{self, Input};
use gristmill_engine::data::words::Isa;
use gristmill_engine::error::Error;
use gristmill_engine::exec::{Exec, Threads};
use gristmill_engine::job::{AppJob, Context, Job, Options, Report, Target};
use proptest::prelude::*;
use proptest::test_runner::Config;

/// Configuration of a property with `cases` cases, times `GRISTMILL_CASES`. Failures are kept as named tests, not in
/// files of seeds.
pub fn cases(cases: u32) -> Config {
    let times = std::env::var("GRISTMILL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    Config { cases: cases * times, failure_persistence: None, ..Config::default() }
}

/// What only shapes a run; the output must not depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub threads: usize,
    pub chunk: usize,
    pub memory: u64,
    pub isa: Isa,
}

pub const LEAST_MEMORY: u64 = 16 << 20;

impl Run {
    /// The plainest way to run: one thread, portable code, everything in memory.
    pub const PLAIN: Self = Self { threads: 1, chunk: 1 << 20, memory: 1 << 30, isa: Isa::Portable };
    /// As many ways to go wrong as there are: several threads, small chunks, as little memory as is allowed.
    pub fn tight() -> Self {
        Self { threads: 4, chunk: 4 << 10, memory: LEAST_MEMORY, isa: Isa::best() }
    }
}

/// Any way to run over inputs of up to `most` bytes each: so few chunks that a case ends soon.
pub fn any_run(most: usize) -> impl Strategy<Value = Run> {
    let least = most / 3000 + 1;
    let chunk = prop_oneof![least..least + 20, least..least + 3000, Just(1 << 20)];
    let isa = prop::sample::select(Isa::available());
    let memory = prop::sample::select(vec![LEAST_MEMORY, 64 << 20, 1 << 30]);
    (1usize..5, chunk, memory, isa).prop_map(|(threads, chunk, memory, isa)| Run { threads, chunk, memory, isa })
}

/// What shapes the output.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub reducers: Option<u32>,
    pub format: Format,
    pub compress: Option<Compression>,
    pub skip: u64,
}

impl Shape {
    pub fn parts(n: u32) -> Self {
        Self { reducers: Some(n), format: Format::Lines, compress: None, skip: 0 }
    }
}

/// A job's outcome: its report, the manifest, every part's content, and every file of the folder as it is.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    pub manifest: Manifest,
    pub parts: Vec<Vec<u8>>,
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Outcome {
    /// All parts one after the other.
    pub fn all(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

pub struct World {
    dir: tempfile::TempDir,
    specs: Vec<std::ffi::OsString>,
}

impl World {
    /// Inputs of these contents, in this order.
    pub fn of<C: AsRef<[u8]>>(contents: &[C]) -> Self {
        Self::stored(contents.iter().map(|c| (c.as_ref(), None)))
    }

    /// Inputs of these contents, some of them compressed.
    pub fn stored<'c>(contents: impl IntoIterator<Item = (&'c [u8], Option<Compression>)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let mut specs = Vec::new();
        for (n, (content, compression)) in contents.into_iter().enumerate() {
            let path = dir.path().join("in").join(match compression {
                None => format!("{n:05}"),
                Some(kind) => format!("{n:05}.{}", kind.extension()),
            });
            fs::write(&path, compression.map_or(content.to_vec(), |kind| compressed(kind, content))).unwrap();
            specs.push(path.into());
        }
        Self { dir, specs }
    }

    pub fn inputs(&self) -> Vec<Input> {
        input::list(&self.specs).unwrap()
    }

    /// The folder that jobs write to.
    pub fn output(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// What the output holds now, complete or not.
    pub fn output_files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.output())
    }

    /// Everything in the test's folder: inputs, an output, and what should not be there.
    pub fn left(&self) -> Vec<std::ffi::OsString> {
        let mut left: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        left
    }

    pub fn options(&self, shape: Shape, run: Run) -> Options {
        Options {
            reducers: shape.reducers,
            format: Some(shape.format),
            compress: shape.compress,
            memory: run.memory,
            chunk: run.chunk,
            skip_bad_records: shape.skip,
            scratch: self.dir.path().into(),
            isa: run.isa,
            ..Options::default()
        }
    }

    pub fn run<A: App>(&self, app: A, shape: Shape, run: Run) -> Result<Outcome, Error> {
        self.run_job(&AppJob(app), shape, run)
    }

    pub fn run_job(&self, job: &dyn Job, shape: Shape, run: Run) -> Result<Outcome, Error> {
        let out = self.output();
        let target = Target::Folder { path: out.clone(), overwrite: false };
        let result = self.run_to(job, &self.options(shape, run), run.threads, target);
        let outcome = result.map(|report| Outcome {
            report,
            manifest: Manifest::read(&out).unwrap(),
            parts: parts(&out),
            files: files(&out),
        });
        if let Ok(outcome) = &outcome {
            fs::remove_dir_all(out).unwrap();
            crate::tasks::same_as(self, job, shape, run, outcome);
        }
        assert_eq!(self.left(), ["in"], "a job leaves nothing beside its output, nor runs in scratch");
        outcome
    }

    pub fn run_to(&self, job: &dyn Job, options: &Options, threads: usize, target: Target) -> Result<Report, Error> {
        let context = Context { exec: pool(threads), observer: &(), stop: &AtomicBool::new(false) };
        job.run("test", self.inputs(), options, target, &context)
    }

    /// The bytes that a job writes to a stream.
    pub fn stream(&self, job: &dyn Job, shape: Shape, run: Run) -> (Report, Vec<u8>) {
        let sink = Sink::default();
        let target = Target::Writer(Box::new(sink.clone()));
        let report = self.run_to(job, &self.options(shape, run), run.threads, target).unwrap();
        let bytes = sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (report, bytes)
    }
}

/// A stream that is looked at later.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Pools of threads are made once.
pub fn pool(threads: usize) -> &'static dyn Exec {
    static POOLS: [OnceLock<Threads>; 8] = [const { OnceLock::new() }; 8];
    POOLS[threads - 1].get_or_init(|| Threads::new(threads).unwrap())
}

fn parts(folder: &Path) -> Vec<Vec<u8>> {
    let read = |part| {
        let mut bytes = Vec::new();
        open_part(folder, part).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    Manifest::read(folder).unwrap().parts.iter().map(read).collect()
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.insert(path.strip_prefix(folder).unwrap().into(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// Content as the codec's own tool would store it.
pub fn compressed(kind: Compression, content: &[u8]) -> Vec<u8> {
    match kind {
        Compression::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(content).unwrap();
            writer.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(content, 1).unwrap(),
        Compression::Bzip2 => {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            writer.write_all(content).unwrap();
            writer.finish().unwrap()
        }
        Compression::Lz4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer.write_all(content).unwrap();
            writer.finish().unwrap()
        }
    }
}
