//! `run streaming`: scripts in any language as mapper, combiner and reducer, by the contract of Hadoop Streaming.
//!
//! [`arguments`] lets flags be written with one dash, [`settings`] reads `-D` by old names and new, [`aggregate`] is the reducer
//! of that name. What lines are and how they meet is the engine's (`runner`), how scripts run is `process`'s.
//! Source of the contract: Hadoop's documentation and code of Streaming (`hadoop-streaming`, 3.x).

mod aggregate;
pub(crate) mod arguments;
mod settings;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gristmill_engine::error::Error;
use gristmill_engine::job::{Context, Job, MAX_PARTS};
use gristmill_engine::registry::{Entry, Files};
use gristmill_engine::runner::{
    Attempt, Failed, Input, Reduces, Runner, RunnerJob, Session, Shape, Stage, Text, Trouble,
};

use crate::process::folder::{self, Shipped, TMP};
use crate::process::session::{Attending, Process};
use crate::process::{self, Command, Place, words};
use crate::sandbox::flags::{Policy, SandboxFlags};
use aggregate::Aggregate;
use settings::{Classes, Settings, class};

/// The app's name.
pub(crate) const NAME: &str = "streaming";

/// Run scripts as mapper and reducer, as Hadoop Streaming does
///
/// A mapper reads lines and writes lines of key, tab and value; a reducer reads them in the order of their keys. Each runs in a
/// folder of its own with the files that -file ships. Flags may have one dash or two; docs/streaming.md tells the whole
/// contract.
#[derive(clap::Args)]
struct Flags {
    /// Inputs, as INPUT; several with commas or by several flags
    #[arg(id = "job.more-input", long = "input", value_name = "INPUT", value_delimiter = ',')]
    _input: Vec<OsString>,
    /// Command that maps; it is not given to a shell
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    mapper: String,
    /// Command that reduces; aggregate for the built-in one, NONE to map only; by default lines are sorted
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    reducer: Option<String>,
    /// Command that reduces what each map task wrote, before it is shuffled
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    combiner: Option<String>,
    /// A file for the scripts; it is made executable
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Files for the scripts, with commas between; FILE#NAME gives one another name
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    files: Vec<String>,
    /// Number of reducers and parts, 1 unless told otherwise; 0 to map only
    #[arg(long = "numReduceTasks", value_name = "N")]
    reduces: Option<u32>,
    /// HashPartitioner or KeyFieldBasedPartitioner
    #[arg(long, value_name = "CLASS")]
    partitioner: Option<String>,
    /// TextInputFormat or KeyValueTextInputFormat
    #[arg(long, value_name = "CLASS")]
    inputformat: Option<String>,
    /// TextOutputFormat
    #[arg(long, value_name = "CLASS")]
    outputformat: Option<String>,
    /// A variable for the scripts' environment
    #[arg(long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    cmdenv: Vec<String>,
    /// How scripts talk: text, or keyonlytext for lines that are all key
    #[arg(long, value_name = "WAY")]
    io: Option<String>,
    /// Make no parts without records
    #[arg(long = "lazyOutput")]
    lazy: bool,
    /// A setting by Hadoop's name, as mapreduce.job.reduces=4
    #[arg(short = 'D', value_name = "NAME=VALUE", allow_hyphen_values = true)]
    define: Vec<String>,
    /// Write lines without a tab as they are, without one at their end
    #[arg(long = "no-trailing-tab")]
    bare: bool,
    /// Accepted and without effect
    #[arg(long, hide = true)]
    verbose: bool,
    /// Archives for the scripts (zip, jar, tar, tar.gz), with commas between: each is a folder of its name, or of NAME by FILE#NAME
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    archives: Vec<String>,
    #[command(flatten)]
    sandbox: SandboxFlags,
}

/// The app for the list of apps that run here.
pub(crate) fn entry(policy: Option<Policy>) -> Entry {
    let build = move |flags: Flags, files: Files<'_>| job(&flags, files, policy.as_ref());
    let named = |flags: &Flags| {
        let shipped = folder::shipped(&flags.file, &flags.files, &flags.archives)?;
        Ok(shipped.iter().map(|file| file.path.to_string_lossy().into_owned()).collect())
    };
    Entry::with_code::<Flags>(NAME, build, named).with_example(
        "-input logs/ -output out -mapper map.py -reducer reduce.py -file map.py -file reduce.py -numReduceTasks 4",
    )
}

fn job(flags: &Flags, files: Files<'_>, policy: Option<&Policy>) -> Result<Box<dyn Job>, String> {
    let sandbox = flags.sandbox.clone().under(files, policy)?;
    let settings = Settings::new(&flags.define)?;
    let text = settings.text(&Classes {
        input: flags.inputformat.as_deref(),
        output: flags.outputformat.as_deref(),
        partitioner: flags.partitioner.as_deref(),
        io: flags.io.as_deref(),
        bare: flags.bare,
    })?;
    let reduces = match (flags.reduces, settings.number(&["mapreduce.job.reduces", "mapred.reduce.tasks"])?) {
        (Some(n), _) => Some(n),
        (None, Some(n)) => Some(u32::try_from(n).map_err(|_| format!("{n} reducers are too many"))?),
        (None, None) => None,
    };
    if reduces.is_some_and(|n| n > MAX_PARTS) {
        return Err(format!("the number of reducers is 0 to {MAX_PARTS}"));
    }
    let mut shipped = folder::shipped(&flags.file, &flags.files, &flags.archives)?;
    folder::find(&mut shipped, files)?;
    let code = |line: &str, flag: &str| Code::new(line, &shipped).map_err(|e| format!("{flag}: {e}"));
    let reducer = flags.reducer.as_deref().map(str::trim);
    let map_only = reduces == Some(0) || reducer == Some("NONE");
    let reducer = match reducer {
        _ if map_only => None,
        None => None,
        Some(name) if class(name) == "IdentityReducer" => None,
        Some(line) => Some(code(line, "-reducer")?),
    };
    let combiner = match flags.combiner.as_deref() {
        _ if map_only => None,
        Some(line) => Some(code(line, "-combiner")?),
        None if matches!(reducer, Some(Code::Aggregate)) => Some(Code::Aggregate),
        None => None,
    };
    let text = Arc::new(text);
    let scripts = Scripts {
        mapper: code(&flags.mapper, "-mapper")?,
        combiner,
        reducer,
        text: text.clone(),
        environment: variables(&flags.cmdenv)?,
        patience: settings.patience()?,
        prefix: settings.get(&["stream.stderr.reporter.prefix"]).unwrap_or("reporter:").into(),
        codes_count: settings.is(&["stream.non.zero.exit.is.failure"], true)?,
        attempts: [
            settings.number(&["mapreduce.map.maxattempts", "mapred.map.max.attempts"])?,
            settings.number(&["mapreduce.reduce.maxattempts", "mapred.reduce.max.attempts"])?,
        ]
        .map(|n| n.unwrap_or(4).clamp(1, MOST_ATTEMPTS) as u32),
        settings,
        shipped,
        sandbox,
        here: OnceLock::new(),
    };
    let then = match scripts.reducer {
        _ if map_only => Reduces::None,
        None => Reduces::Identity,
        Some(_) => Reduces::Code,
    };
    let parts = reduces.filter(|n| *n > 0);
    Ok(Box::new(RunnerJob::new(Box::new(scripts), Shape::Text(text), then, parts, flags.lazy)))
}

/// More attempts than anybody waits for.
const MOST_ATTEMPTS: u64 = 100;

fn variables(cmdenv: &[String]) -> Result<Vec<(String, String)>, String> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(format!("-cmdenv {text} is not NAME=VALUE")),
    };
    cmdenv.iter().map(pair).collect()
}

/// What does the work of a stage.
#[derive(Clone)]
enum Code {
    Process(Vec<String>),
    Aggregate,
}

impl Code {
    fn new(line: &str, shipped: &[Shipped]) -> Result<Self, String> {
        let mut words = words::split(line);
        match words.as_slice() {
            [] => return Err("the command is empty".into()),
            [word] if word == "aggregate" => return Ok(Self::Aggregate),
            [word] if class(word) == "IdentityMapper" => return Ok(Self::Process(vec!["cat".into()])),
            _ => {}
        }
        // A command that begins with the path of a shipped file means the file that was shipped.
        if let Some(file) = shipped.iter().find(|file| file.is_meant(&words[0])) {
            words[0] = file.name.clone();
        }
        Ok(Self::Process(words))
    }
}

/// The scripts of a job.
struct Scripts {
    mapper: Code,
    combiner: Option<Code>,
    reducer: Option<Code>,
    text: Arc<Text>,
    environment: Vec<(String, String)>,
    patience: Option<std::time::Duration>,
    prefix: String,
    codes_count: bool,
    /// Of map tasks and of reduce tasks.
    attempts: [u32; 2],
    settings: Settings,
    shipped: Vec<Shipped>,
    sandbox: SandboxFlags,
    here: OnceLock<Place>,
}

impl Scripts {
    fn code(&self, stage: Stage) -> Option<&Code> {
        match stage {
            Stage::Map => Some(&self.mapper),
            Stage::Combine => self.combiner.as_ref(),
            Stage::Reduce => self.reducer.as_ref(),
        }
    }

    /// The process of an attempt in a folder.
    fn command(&self, words: &[String], attempt: &Attempt<'_>, here: &Place, folder: &Path) -> Command {
        let environment = self.environment(attempt, folder);
        Command {
            words: words.to_vec(),
            sandbox: self.sandbox.sandbox(words, &environment, folder, here.files.readable()),
            advice: self.sandbox.advice(),
            limits: here.limits,
            environment,
            folder: folder.into(),
            prefix: self.prefix.clone(),
            patience: self.patience,
            codes_count: self.codes_count,
        }
    }

    /// Later ones stand for earlier ones of the same name: ours, the settings, what is known of the attempt, and what the user
    /// asked for.
    fn environment(&self, attempt: &Attempt<'_>, folder: &Path) -> Vec<(OsString, OsString)> {
        let mut all = process::inherited();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let mut set = |name: &str, value: &str| {
            // No variable can hold one.
            if !value.contains('\0') {
                all.insert(name.chars().map(plain).collect::<String>().into(), value.into());
            }
        };
        self.settings.iter().for_each(|(name, value)| set(name, value));
        for (names, value) in self.known(attempt, folder) {
            names.iter().for_each(|name| set(name, &value));
        }
        all.insert("TMPDIR".into(), folder.join(TMP).into());
        all.extend(self.environment.iter().map(|(name, value)| (name.into(), value.into())));
        process::with_path(folder, all)
    }

    /// What is known of an attempt, under the names of both generations.
    fn known(&self, attempt: &Attempt<'_>, folder: &Path) -> Vec<(&'static [&'static str], String)> {
        let of = match attempt.job {
            "" => format!("local{}_0001", std::process::id()),
            job => job.replace('-', "_"),
        };
        let kind = if attempt.stage == Stage::Reduce { "r" } else { "m" };
        let task = format!("{of}_{kind}_{:06}", attempt.task);
        let name = self.settings.get(&["mapreduce.job.name", "mapred.job.name"]).unwrap_or(NAME);
        let mut all: Vec<(&'static [&'static str], String)> = vec![
            (&["mapreduce_job_id", "mapred_job_id"], format!("job_{of}")),
            (&["mapreduce_job_name", "mapred_job_name"], name.into()),
            (&["mapreduce_task_id", "mapred_tip_id"], format!("task_{task}")),
            (&["mapreduce_task_attempt_id", "mapred_task_id"], format!("attempt_{task}_{}", attempt.id)),
            (&["mapreduce_task_partition", "mapred_task_partition"], attempt.task.to_string()),
            (&["mapreduce_task_ismap", "mapred_task_is_map"], (attempt.stage != Stage::Reduce).to_string()),
            (&["mapreduce_task_output_dir", "mapred_work_output_dir"], folder.to_string_lossy().into_owned()),
            (&["mapreduce_job_maps", "mapred_map_tasks"], attempt.maps.to_string()),
            (&["mapreduce_job_reduces", "mapred_reduce_tasks"], attempt.reduces.to_string()),
        ];
        if let Some(split) = attempt.split {
            let whole = std::path::absolute(split.name).map(|path| path.to_string_lossy().into_owned());
            // Of a cluster it is a name in the store.
            let path = whole.ok().filter(|_| attempt.job.is_empty()).unwrap_or_else(|| split.name.into());
            all.push((&["mapreduce_map_input_file", "map_input_file"], path));
            all.push((&["mapreduce_map_input_start", "map_input_start"], split.start.to_string()));
            all.push((&["mapreduce_map_input_length", "map_input_length"], split.len.to_string()));
        }
        all
    }
}

impl Runner for Scripts {
    fn prepare(&self, folder: &Path, context: &Context<'_>) -> Result<(), Error> {
        let here = Place::new(&self.sandbox, &self.shipped, folder, context)?.0;
        self.here.set(here).map_err(|_| Error::Usage("a job of scripts runs once".into()))
    }

    fn has(&self, stage: Stage) -> bool {
        self.code(stage).is_some()
    }

    fn attempts(&self, stage: Stage) -> u32 {
        self.attempts[usize::from(stage == Stage::Reduce)]
    }

    fn begin<'r>(&'r self, attempt: &Attempt<'r>) -> Result<Box<dyn Session + 'r>, Trouble> {
        let failed = |what: String| Failed { what, words: Vec::new() };
        let words = match self.code(attempt.stage) {
            None => return Err(failed("there is no code for it".into()).into()),
            Some(Code::Aggregate) => {
                let combines = attempt.stage == Stage::Combine;
                return Ok(Box::new(Aggregate::new(&self.text.between.0, &self.text.reduced.separator, combines)));
            }
            Some(Code::Process(words)) => words,
        };
        let here = self.here.get().ok_or_else(|| failed("its files are not there".into()))?;
        let folder = here.files.attempt()?;
        let command = self.command(words, attempt, here, folder.path());
        // Others of a task say much the same; the last one's words are in the error.
        let observer = if attempt.number == 0 { attempt.observer } else { &() };
        let process = Process::begin(&command)?;
        Ok(Box::new(Attending { process, _folder: folder, name: attempt.to_string(), observer }))
    }

    fn keep(&self, attempt: &Attempt<'_>, input: &mut Input<'_>) -> Option<String> {
        let Some(Code::Process(words)) = self.code(attempt.stage) else { return None };
        let here = self.here.get()?;
        let folder = here.files.attempt().ok()?;
        let command = self.command(words, attempt, here, folder.path());
        let kept = here.files.keep(&command, input).ok()?;
        Some(format!("sh {}", kept.display()))
    }
}
