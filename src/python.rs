//! `run python`: a file with functions `map` and `reduce` as a job.
//!
//! Interpreters stay for the job, one for each thread ([`session`]), and run `harness.py`, which calls the functions. What is
//! mapped and reduced crosses in batches ([`feeder`]), in Python's own format for plain values ([`marshal`]), which is only
//! looked into as far as keys are concerned: [`key`] makes bytes of them that sort as they do. [`wheels`] unpacks what they import. What interpreters may do is the
//! sandbox's business, and how processes are fed that of `process`.

mod feeder;
mod key;
mod marshal;
mod session;
mod wheels;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gristmill_engine::error::Error;
use gristmill_engine::job::{Context, Job};
use gristmill_engine::registry::{Entry, Files};
use gristmill_engine::runner::{Attempt, Failed, Input, Reduces, Runner, RunnerJob, Session, Shape, Stage, Trouble};

use crate::process::folder::{self, Shipped, TMP};
use crate::process::{self, Command, Place, archive};
use crate::sandbox::flags::{Policy, SandboxFlags};
use feeder::Feeder;
use session::{Interpreter, Pool, Task};

/// The app's name.
pub(crate) const NAME: &str = "python";

/// The program of interpreters.
const HARNESS: &str = include_str!("python/harness.py");
/// The folder with packages of wheels, within the job's files.
const WHEELS: &str = ".wheels";

/// Run the functions of a Python file
///
/// The file has map(key, value), which yields pairs, and perhaps reduce(key, values), combine(key, values), partition(key, parts) and
/// setup(). The key of map is the input's name and its value a line. docs/python.md tells all of it.
#[derive(clap::Args)]
struct Flags {
    /// The file with the functions
    #[arg(id = "python.script", value_name = "SCRIPT.py")]
    script: PathBuf,
    /// The interpreter, 3.8 or newer
    #[arg(long, value_name = "COMMAND", default_value = "python3")]
    python: String,
    /// A folder of wheels that the file imports from; nothing is fetched
    #[arg(long, value_name = "DIR")]
    requirements: Option<PathBuf>,
    /// A file that the functions import or read, in their folder
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Files for the functions, with commas between; FILE#NAME gives one another name
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    files: Vec<String>,
    /// Leave out the shuffle: what is mapped is the output
    #[arg(long)]
    map_only: bool,
    /// How often a task may be tried
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Seconds for which code may deal with no record before it is killed; 0 is for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    #[command(flatten)]
    sandbox: SandboxFlags,
}

/// The app for the list of apps that run here.
pub(crate) fn entry(policy: Option<Policy>) -> Entry {
    let build = move |flags: Flags, files: Files<'_>| job(flags, files, policy.as_ref());
    let named = |flags: &Flags| {
        let shipped = shipped(flags)?;
        let paths = shipped.iter().map(|file| &file.path).chain(&flags.requirements);
        Ok(paths.map(|path| path.to_string_lossy().into_owned()).collect())
    };
    Entry::with_code::<Flags>(NAME, build, named).with_example("job.py books/ -o out/")
}

/// The file with the functions, and those beside it.
fn shipped(flags: &Flags) -> Result<Vec<Shipped>, String> {
    let name = file_name(&flags.script);
    let mut shipped = folder::shipped(&flags.file, &flags.files, &[])?;
    if !shipped.iter().any(|file| file.name == name) {
        shipped.push(Shipped::new(name, flags.script.clone()));
    }
    Ok(shipped)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn job(mut flags: Flags, files: Files<'_>, policy: Option<&Policy>) -> Result<Box<dyn Job>, String> {
    flags.sandbox = flags.sandbox.under(files, policy)?;
    if let Files::Here = files {
        // Interpreters work in folders of their own.
        if flags.python.contains('/')
            && let Ok(whole) = std::path::absolute(&flags.python)
        {
            flags.python = whole.to_string_lossy().into_owned();
        }
        let script = flags.script.display();
        if !std::fs::metadata(&flags.script).map_err(|e| format!("cannot read {script}: {e}"))?.is_file() {
            return Err(format!("{script} is not a file with functions"));
        }
    }
    let mut shipped = shipped(&flags)?;
    folder::find(&mut shipped, files)?;
    let wheels = match (&flags.requirements, files) {
        (None, _) | (_, Files::Elsewhere) => Vec::new(),
        (Some(folder), Files::Here) => wheels::below(folder)?,
        (Some(folder), Files::Copies(all)) => wheels::among(folder, folder::copies_of(folder, all)?)?,
    };
    let reduces = if flags.map_only { Reduces::None } else { Reduces::Code };
    let name = file_name(&flags.script);
    let functions = Functions { name, shipped, wheels, flags, here: OnceLock::new(), pool: Pool::default() };
    Ok(Box::new(RunnerJob::new(Box::new(functions), Shape::Packed, reduces, None, false)))
}

/// The functions of a job.
struct Functions {
    /// Of the file.
    name: String,
    shipped: Vec<Shipped>,
    /// Archives of packages that it imports from.
    wheels: Vec<PathBuf>,
    flags: Flags,
    here: OnceLock<Place>,
    pool: Pool,
}

impl Functions {
    /// An interpreter that works in a folder.
    fn command(&self, here: &Place, folder: &Path) -> Command {
        let files = here.files.shipped();
        let mut environment = process::inherited();
        environment.insert("TMPDIR".into(), folder.join(TMP).into());
        // The same result whoever computes it: the order of sets depends on it.
        environment.insert("PYTHONHASHSEED".into(), "0".into());
        environment.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
        environment.insert("PYTHONUTF8".into(), "1".into());
        let words: Vec<String> = [
            self.flags.python.clone(),
            session::harness(&files).to_string_lossy().into_owned(),
            files.join(&self.name).to_string_lossy().into_owned(),
        ]
        .into();
        let environment = process::with_path(folder, environment);
        Command {
            sandbox: self.flags.sandbox.sandbox(&words, &environment, folder, here.files.readable()),
            advice: self.flags.sandbox.advice(),
            limits: here.limits,
            words,
            environment,
            folder: folder.into(),
            prefix: "reporter:".into(),
            patience: (self.flags.timeout > 0).then(|| std::time::Duration::from_secs(self.flags.timeout)),
            codes_count: true,
        }
    }

    /// A new interpreter.
    fn interpreter(&self, here: &Place) -> Result<Interpreter, Trouble> {
        let folder = here.files.attempt()?;
        Interpreter::begin(&self.command(here, folder.path()), folder)
    }
}

impl Runner for Functions {
    fn prepare(&self, folder: &Path, context: &Context<'_>) -> Result<(), Error> {
        let observer = context.observer;
        let (here, mut room) = Place::new(&self.flags.sandbox, &self.shipped, folder, context)?;
        let path = session::harness(&here.files.shipped());
        let written = path.parent().map_or(Ok(()), std::fs::create_dir).and_then(|()| std::fs::write(&path, HARNESS));
        written.map_err(|source| Error::Write { action: "write", path, source })?;
        for wheel in &self.wheels {
            archive::unpack("wheel.whl", wheel, &here.files.shipped().join(WHEELS), &mut room)?;
        }
        // What cannot be loaded is not tried again for each task.
        let loaded = self.interpreter(&here).and_then(|mut interpreter| {
            interpreter.loaded(observer, context.stop)?;
            Ok(interpreter)
        });
        match loaded {
            Ok(interpreter) => self.pool.put(interpreter),
            Err(_) if context.stop.load(std::sync::atomic::Ordering::Relaxed) => return Err(Error::Interrupted),
            Err(Trouble::Job(error)) => return Err(error),
            Err(Trouble::Code(Failed { what, words })) => {
                words.iter().for_each(|line| observer.log(&self.name, line));
                return Err(Error::Usage(format!("{} cannot be loaded: {what}", self.name)));
            }
        }
        self.here.set(here).map_err(|_| Error::Usage("a job runs once".into()))
    }

    fn has(&self, stage: Stage) -> bool {
        // The interpreter combines what it mapped.
        stage != Stage::Combine
    }

    fn attempts(&self, _: Stage) -> u32 {
        self.flags.attempts
    }

    fn begin<'r>(&'r self, attempt: &Attempt<'r>) -> Result<Box<dyn Session + 'r>, Trouble> {
        let failed = |what: &str| Failed { what: what.into(), words: Vec::new() };
        let here = self.here.get().ok_or_else(|| failed("its files are not there"))?;
        let interpreter = match self.pool.take() {
            Some(interpreter) => interpreter,
            None => self.interpreter(here)?,
        };
        // Others of a task say much the same; the last one's words are in the error.
        let observer = if attempt.number == 0 { attempt.observer } else { &() };
        Ok(Box::new(Task::new(&self.pool, interpreter, attempt, observer)))
    }

    fn keep(&self, attempt: &Attempt<'_>, input: &mut Input<'_>) -> Option<String> {
        let here = self.here.get()?;
        let folder = here.files.attempt().ok()?;
        let mut command = self.command(here, folder.path());
        command.environment.push(("GRISTMILL_AGAIN".into(), "1".into()));
        // In the frames that an interpreter reads.
        let mut frames = |to: &mut dyn std::io::Write| {
            let mut feeder = Feeder::new(attempt);
            input(&mut Framed { feeder: &mut feeder, to })?;
            feeder.finish();
            to.write_all(&feeder.frames).map_err(|source| Error::Write { action: "keep", path: "input".into(), source })
        };
        let kept = here.files.keep(&command, &mut frames).ok()?;
        Some(format!("sh {}", kept.display()))
    }
}

/// Writes what it is given as frames.
struct Framed<'f> {
    feeder: &'f mut Feeder,
    to: &'f mut dyn std::io::Write,
}

impl std::io::Write for Framed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.feeder.push(bytes).map_err(std::io::Error::other)?;
        self.to.write_all(&self.feeder.frames)?;
        self.feeder.frames.clear();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Looks at bytes as at what an interpreter sends: batches of keys with their values, and keys.
///
/// # Panics
/// When a key is not the same once it went there and back.
#[cfg(feature = "fuzz")]
#[expect(clippy::expect_used, reason = "this is how a fuzz target tells")]
pub fn fuzz(bytes: &[u8]) {
    let mut reader = marshal::Reader(bytes);
    // Whatever it comes to: it ends, and within its bytes.
    let _ = reader.groups(|key, n, values| {
        assert!(key.len() <= bytes.len() && values.len() <= bytes.len() && n <= i32::MAX as usize);
        Some(())
    });
    let (mut sorts, mut key, mut again) = (Vec::new(), Vec::new(), Vec::new());
    if key::encode(bytes, &mut sorts).is_some() {
        key::decode(&sorts, &mut key).expect("what was made of a key is one");
        key::encode(&key, &mut again).expect("a key that came back is one");
        assert_eq!(sorts, again, "the same key sorts the same");
    }
    // Segments are foreign bytes too.
    let _ = key::decode(bytes, &mut Vec::new());
}
