//! `run wasm`: an app as a WebAssembly component, which can do nothing but compute: no files, no network, no clock.
//!
//! `app.wit` is what an app exports and may ask for. [`component`] loads one, or makes one of a plain module; [`session`] is a
//! task in an instance of its own, on the thread that asks. Memory is bounded by what the host grants, time by a thread that
//! counts it. Source of the format: the component model's `Explainer.md` and `CanonicalABI.md`.

mod component;
mod pages;
mod session;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use gristmill_engine::error::Error;
use gristmill_engine::job::{Context, Job};
use gristmill_engine::registry::{Entry, Files};
use gristmill_engine::runner::{Attempt, Failed, Input, Reduces, Runner, RunnerJob, Session, Shape, Stage, Trouble};

use crate::cli::memory;
use crate::cli::sizes::{self, Size};
use component::App;
use session::Task;

/// The app's name.
pub(crate) const NAME: &str = "wasm";

/// No app is given more memory than this unless the user says so, in bytes.
const MEMORY: u64 = 1 << 30;
/// A worker compiles no larger app: what compiling takes is a multiple of it.
const MOST_APP: u64 = 64 << 20;
/// Seconds that a call may take on a worker, at the most.
const MOST_TIME: u64 = 240;
/// What a module can address.
const MOST_MEMORY: u64 = 4 << 30;

/// Run an app that is a WebAssembly component
///
/// It exports functions that map and reduce batches of records (docs/wasm.md), and can do nothing else: no files, no network, no
/// clock. A plain module with these functions is taken as well.
#[derive(clap::Args)]
struct Flags {
    /// The component, or a module
    #[arg(id = "wasm.app", value_name = "APP.wasm")]
    app: PathBuf,
    /// Leave out the shuffle: what is mapped is the output
    #[arg(long)]
    map_only: bool,
    /// Memory that a task may use; by default a thread's share of what there is, and at most 1 GiB
    #[arg(long, value_name = "SIZE")]
    task_memory: Option<Size>,
    /// Seconds that a call of a function may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// How often a task may be tried
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
}

/// The app for the list of apps that run here; on a worker, with the bytes of memory that it has for a task's code.
pub(crate) fn entry(memory: Option<u64>) -> Entry {
    let build = move |flags: Flags, files: Files<'_>| job(flags, files, memory);
    let named = |flags: &Flags| Ok(vec![flags.app.to_string_lossy().into_owned()]);
    Entry::with_code::<Flags>(NAME, build, named).with_example("app.wasm books/ -o out/")
}

fn job(flags: Flags, files: Files<'_>, most: Option<u64>) -> Result<Box<dyn Job>, String> {
    let name = flags.app.to_string_lossy();
    let path = match files {
        Files::Here => Some(&flags.app),
        Files::Elsewhere => None,
        Files::Copies(all) => Some(all.get(&*name).ok_or_else(|| format!("the job did not bring {name}"))?),
    };
    if let (Some(path), Some(_)) = (path, most)
        && std::fs::metadata(path).is_ok_and(|file| file.len() > MOST_APP)
    {
        return Err(format!("{name} has more than {}, which is the most that a worker compiles", Size(MOST_APP)));
    }
    let read = path.map_or(Ok(Vec::new()), std::fs::read);
    let bytes = read.map_err(|e| format!("cannot read {name}: {e}"))?;
    if let Some(most) = most {
        sizes::within("--task-memory", flags.task_memory, Size(most))?;
        if flags.timeout > MOST_TIME {
            // A call cannot be ended from outside: who cancels a job waits for it, and so does a worker that is drained.
            return Err(format!(
                "--timeout {} is more than the {MOST_TIME} s that a call may take on a cluster",
                flags.timeout
            ));
        }
    }
    let reduces = if flags.map_only { Reduces::None } else { Reduces::Code };
    let component = Component { bytes, flags, memory: most, app: OnceLock::new() };
    Ok(Box::new(RunnerJob::new(Box::new(component), Shape::Packed, reduces, None, false)))
}

/// A component that runs a job.
struct Component {
    bytes: Vec<u8>,
    flags: Flags,
    /// Of a worker: bytes that it has for a task's code.
    memory: Option<u64>,
    app: OnceLock<App>,
}

impl Runner for Component {
    fn prepare(&self, _: &std::path::Path, context: &Context<'_>) -> Result<(), Error> {
        let share = || memory::whole() / context.exec.threads().max(1) as u64;
        let share = || self.memory.unwrap_or_else(share).min(MEMORY);
        let limits = component::Limits {
            memory: self.flags.task_memory.map_or_else(share, |size| size.0).min(MOST_MEMORY),
            time: Duration::from_secs(self.flags.timeout),
        };
        let app = App::load(&self.bytes, limits)
            .map_err(|e| Error::Usage(format!("{} is no app: {e}", self.flags.app.display())))?;
        self.app.set(app).map_err(|_| Error::Usage("a job runs once".into()))
    }

    fn has(&self, stage: Stage) -> bool {
        // What was mapped is combined at once.
        stage != Stage::Combine
    }

    fn attempts(&self, _: Stage) -> u32 {
        self.flags.attempts
    }

    /// Few tasks: what an instance holds, and what it hands on of that, is the less the more it has read.
    fn split_bytes(&self, all: u64, threads: u64) -> u64 {
        all.div_ceil(threads).clamp(4 << 20, 256 << 20)
    }

    fn begin<'r>(&'r self, attempt: &Attempt<'r>) -> Result<Box<dyn Session + 'r>, Trouble> {
        let failed = |what: String| Failed { what, words: Vec::new() };
        let app = self.app.get().ok_or_else(|| failed("it is not loaded".into()))?;
        Ok(Box::new(Task::begin(app, attempt)?))
    }

    /// Nothing of the outside comes in: the same command over the same input does it again.
    fn keep(&self, _: &Attempt<'_>, _: &mut Input<'_>) -> Option<String> {
        None
    }
}

/// Loads bytes as an app, and maps a little with it.
#[cfg(feature = "fuzz")]
pub fn fuzz(bytes: &[u8]) {
    let limits = component::Limits { memory: 4 << 20, time: Duration::from_millis(500) };
    let Ok(app) = App::load(bytes, limits) else { return };
    let format = gristmill_engine::app::Format::Lines;
    let attempt = Attempt {
        job: "",
        stage: Stage::Map,
        task: 0,
        number: 0,
        id: 0,
        split: None,
        format,
        maps: 1,
        reduces: 2,
        observer: &(),
    };
    let Ok(mut task) = Task::begin(&app, &attempt) else { return };
    let mut out = Vec::new();
    let mapped = task.exchange(b"one\ntwo\nthree\n", &mut out).and_then(|_| task.finish(&mut out));
    if mapped.is_ok() {
        assert!(gristmill_engine::runner::packed::each(&out, |_, _| ()).is_empty(), "what is handed on are pairs");
    }
}
