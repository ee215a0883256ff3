//! `submit`: a job to a cluster, followed to its end.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, FromArgMatches as _, value_parser};
use gristmill_engine::app::Format;
use gristmill_engine::job::MAX_PARTS;
use gristmill_engine::registry::{Entry, Files};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::jobs_client::JobsClient;
use gristmill_raft::net::Error;

use super::super::failure::Failure;
use super::super::flags::Codec;
use super::super::sizes::{Size, grouped};
use super::super::{say, stdout, tree};
use super::ask::{WITHIN, block_on, state};
use super::at::At;
use super::bars::Bars;
use super::bearer::Client;
use crate::cluster::answer;

/// How often a lost connection is opened again while a job is followed.
const RECONNECTS: u32 = 60;

/// What does not pass by itself.
const FATAL: [tonic::Code; 3] = [tonic::Code::NotFound, tonic::Code::PermissionDenied, tonic::Code::Unauthenticated];

/// What is said of an app that no worker has, and how long one may take to come.
const NOBODY: &str = "no worker offers";
const UNOFFERED: std::time::Duration = std::time::Duration::from_secs(5);

/// The id of an app's flag for inputs.
const MORE_INPUT: &str = "job.more-input";

/// A name for a submission that nobody else has.
pub(super) fn key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

// No documentation comment: clap would take it for the help of every app. Ids begin with `job.`, so that an app is free to
// name its fields as it likes.
#[derive(Debug, clap::Args)]
struct SubmitFlags {
    /// Names or globs of files in the store, or folders/
    #[arg(id = "job.input", value_name = "INPUT")]
    input: Vec<String>,
    /// Folder of the store to make with the result
    #[arg(id = "job.output", long = "output", short = 'o', value_name = "DIR")]
    output: String,
    /// Replace an output of that name
    #[arg(id = "job.overwrite", long = "overwrite")]
    overwrite: bool,
    /// Number of parts; by default one for each 128 MiB of input
    #[arg(id = "job.reducers", long = "reducers", value_name = "N")]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(MAX_PARTS)))]
    reducers: Option<u32>,
    /// Bytes of input for each map task, as 64MiB
    #[arg(id = "job.map-task-size", long = "map-task-size", value_name = "SIZE")]
    map_task_size: Option<Size>,
    /// How inputs are cut into records: lines, whole, fixed:N, nul
    #[arg(id = "job.input-format", long = "input-format", value_name = "FORMAT")]
    input_format: Option<Format>,
    /// Compress the parts
    #[arg(id = "job.compress", long = "compress", value_name = "CODEC")]
    compress: Option<Codec>,
    /// Pass over up to N bad records of the whole job and keep them in _bad/ of the output; at most 100000
    #[arg(id = "job.skip-bad-records", long = "skip-bad-records", value_name = "N", default_value_t = 0)]
    #[arg(value_parser = value_parser!(u64).range(..=100_000))]
    skip_bad_records: u64,
    /// Run one half of the job: map keeps sorted segments as the output, and reduce, with the same app and flags, makes the
    /// parts of what such a job left
    #[arg(id = "job.phase", long = "phase", value_name = "HALF", value_parser = ["map", "reduce"])]
    phase: Option<String>,
    /// Of the jobs of one user the highest goes first
    #[arg(
        id = "job.priority",
        long = "priority",
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = value_parser!(i32).range(-100..=100))]
    priority: i32,
    /// Something that workers must have which run it, as their --capability or their pool says; may be given again, at most 16
    /// times
    #[arg(id = "job.require", long = "require", value_name = "WORD", value_parser = super::nodes::capability)]
    require: Vec<String>,
    /// Attempts of one task before the job fails [default: 4]
    #[arg(id = "job.max-attempts", long = "max-attempts", value_name = "N")]
    #[arg(value_parser = value_parser!(u32).range(1..=16))]
    max_attempts: Option<u32>,
    /// Submit another job when this one has completed: its app, flags and output, as 'top --k 10 -o out/top'; its input is
    /// this one's output unless it names its own. May be given again for a job after that one
    #[arg(id = "job.then", long = "then", value_name = "JOB")]
    then: Vec<String>,
    /// Never run a task a second time because it takes much longer than others
    #[arg(id = "job.no-backups", long = "no-backups")]
    no_backups: bool,
    /// Names this submission: with the same key the same job is submitted once
    #[arg(id = "job.submission-key", long = "submission-key", value_name = "KEY")]
    submission_key: Option<String>,
    /// Print the job's id and do not wait for its end
    #[arg(id = "job.detach", long = "detach")]
    detach: bool,
    #[command(flatten)]
    at: At,
}

pub(super) fn command(program: &str, apps: &[Entry]) -> Result<Command, Failure> {
    let app = apps.first().map_or("APP", Entry::name);
    let submit = Command::new("submit")
        .about("Run an app on a cluster, over files in its store")
        .after_help(format!("Example:\n  {program} submit {app} books/ -o out/words"))
        .subcommand_value_name("APP")
        .subcommand_help_heading("Apps")
        .subcommand_required(true)
        .arg_required_else_help(true);
    apps.iter().try_fold(submit, |submit, entry| {
        let mut ours = SubmitFlags::augment_args(Command::new("ours"));
        // An app may have a flag --key; this one then goes by its whole name only.
        if !entry.command().get_arguments().any(|theirs| theirs.get_long() == Some("key")) {
            ours = ours.mut_arg("job.submission-key", |arg| arg.visible_alias("key"));
        }
        let one = tree::beside(entry, ours)?;
        Ok(submit.subcommand(one.after_help(format!(
            "Example:\n  {program} submit {} {}",
            entry.name(),
            entry.example()
        ))))
    })
}

/// The app's own flags, as they were given.
fn arguments(entry: &Entry, of: &ArgMatches) -> Vec<String> {
    let mut flags = Vec::new();
    let mut values = Vec::new();
    // Inputs that an app has a flag for are the job's own.
    for arg in entry.command().get_arguments().filter(|arg| arg.get_id() != MORE_INPUT) {
        let name = arg.get_id().as_str();
        if of.value_source(name) != Some(ValueSource::CommandLine) {
            continue;
        }
        let raw = of.get_raw_occurrences(name).into_iter().flatten();
        let given: Vec<Vec<String>> =
            raw.map(|one| one.map(|value| value.to_string_lossy().into_owned()).collect()).collect();
        match (arg.get_long(), arg.get_short()) {
            (None, Some(short)) => flags.extend(given.into_iter().flatten().map(|value| format!("-{short}{value}"))),
            (None, None) => values.extend(given.into_iter().flatten()),
            (Some(long), _) if arg.get_action().takes_values() => {
                flags.extend(given.into_iter().flatten().map(|value| format!("--{long}={value}")));
            }
            (Some(long), _) => flags.push(format!("--{long}")),
        }
    }
    if !values.is_empty() {
        flags.push("--".into());
        flags.extend(values);
    }
    flags
}

/// An app that was pushed and is submitted by its name.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// Its name and version.
    called: String,
    files: Vec<api::AppFile>,
}

/// `submit NAME` of an app that was pushed is `submit KIND FLAGS`: this is seen before flags are looked at.
pub(crate) fn of_pushed(
    here: &[Entry],
    mut arguments: Vec<OsString>,
) -> Result<(Vec<OsString>, Option<Pushed>), Failure> {
    let name = match (arguments.get(1), arguments.get(2).and_then(|name| name.to_str())) {
        (Some(command), Some(name)) if command == "submit" => name.to_string(),
        _ => return Ok((arguments, None)),
    };
    let known = here.iter().any(|entry| entry.name() == name) || name == "help" || name.starts_with('-');
    // The flags that say where the cluster is, of whatever app it turns out to be.
    let at = (!known).then(|| At::among(&arguments[3..])).flatten();
    let Some(pushed) = at.map(|at| super::app::find(at, &name)).transpose()?.flatten() else {
        return Ok((arguments, None));
    };
    let app = pushed.app.unwrap_or_default();
    let called = format!("{}@{}", pushed.name, pushed.version);
    // Whoever pushed it says neither where the job goes nor which files of this machine it takes along.
    let files: Vec<&str> = app.files.iter().map(|file| file.path.as_str()).collect();
    let flags = super::app::flags_alone(here, &app.name, app.arguments, &files);
    let flags = flags.map_err(|e| Failure::Usage(format!("{called} cannot be run: {}; push it again", e.line())))?;
    arguments.splice(2..3, std::iter::once(app.name).chain(flags).map(OsString::from));
    Ok((arguments, Some(Pushed { called, files: app.files })))
}

pub(super) fn submit(program: &str, apps: &[Entry], pushed: Option<Pushed>, of: &ArgMatches) -> Result<(), Failure> {
    let Some((name, of)) = of.subcommand() else { return Ok(()) };
    let Some(entry) = apps.iter().find(|entry| entry.name() == name) else { return Ok(()) };
    let flags = SubmitFlags::from_arg_matches(of)?;
    let mut spec = spec((entry, of), &flags, pushed)?;
    spec.then = super::chain::follow(program, apps, &flags.then, &flags.at)?.map(Box::new);
    let key = flags.submission_key.unwrap_or_else(key);
    submit_spec(program, flags.at, api::SubmitRequest { key, spec: Some(spec) }, flags.detach)
}

/// The job that was asked for, without those after it. The files that it brings are in the cluster then.
fn spec(
    (entry, of): (&Entry, &ArgMatches),
    flags: &SubmitFlags,
    pushed: Option<Pushed>,
) -> Result<api::JobSpec, Failure> {
    // What is wrong with the flags is told at once.
    let job = entry.job(of, if pushed.is_some() { Files::Elsewhere } else { Files::Here })?;
    let (called, there) = pushed.map(|pushed| (pushed.called, pushed.files)).unwrap_or_default();
    let app = api::App {
        name: entry.name().into(),
        arguments: arguments(entry, of),
        files: super::app::bring(&flags.at, (entry, of), there)?,
        pushed: called,
        ..Default::default()
    };
    let mut inputs = flags.input.clone();
    if let Ok(Some(more)) = of.try_get_many::<OsString>(MORE_INPUT) {
        inputs.extend(more.map(|input| input.to_string_lossy().into_owned()));
    }
    let compress = match flags.compress {
        Some(Codec::Zstd) => api::Compression::Zstd,
        Some(Codec::Gzip) => api::Compression::Gzip,
        None => api::Compression::Unspecified,
    };
    let phase = match flags.phase.as_deref() {
        Some("map") => api::Phase::Map,
        Some(_) => api::Phase::Reduce,
        None => api::Phase::Unspecified,
    };
    Ok(api::JobSpec {
        app: Some(app),
        inputs,
        output: flags.output.trim_end_matches('/').into(),
        reducers: flags.reducers.unwrap_or(0),
        map_task_bytes: flags.map_task_size.as_ref().map_or(0, |size| size.0),
        format: flags.input_format.map(|format| format.to_string()).unwrap_or_default(),
        compress: compress.into(),
        phase: phase.into(),
        overwrite: flags.overwrite,
        skip_bad_records: flags.skip_bad_records,
        priority: flags.priority,
        max_attempts: flags.max_attempts.or(job.attempts()).unwrap_or(0),
        no_backups: flags.no_backups,
        requires: flags.require.clone(),
        ..Default::default()
    })
}

/// What `--then` describes: a job as it would be submitted.
pub(super) fn follower(apps: &[Entry], of: &ArgMatches, at: &At) -> Result<api::JobSpec, Failure> {
    let named = of.subcommand().and_then(|(name, of)| Some((apps.iter().find(|entry| entry.name() == name)?, of)));
    let (entry, of) = named.ok_or_else(|| Failure::Usage("--then names no app".into()))?;
    let mut flags = SubmitFlags::from_arg_matches(of)?;
    let ours = ["job.then", "job.detach", "job.submission-key", "cluster.at", "cluster.insecure"];
    if ours.into_iter().any(|id| of.value_source(id) == Some(ValueSource::CommandLine)) {
        let text = "flags of the submission as a whole (--then, --detach, --submission-key, where the cluster is) stand outside of --then";
        return Err(Failure::Usage(text.into()));
    }
    flags.at = at.clone();
    spec((entry, of), &flags, None)
}

fn refused(request: &api::SubmitRequest, why: &str) -> Failure {
    let app = request.spec.as_ref().and_then(|spec| spec.app.as_ref());
    let runs = app.is_some_and(|app| ["streaming", "python"].contains(&app.name.as_str()));
    let hint = match runs && why.contains(NOBODY) {
        true => "; programs that jobs bring are run by workers that are begun with --processes",
        false => "",
    };
    Failure::Cluster(format!("refused: {why}{hint}"))
}

/// Submits, and unless `detach` is set follows to the end.
fn submit_spec(program: &str, at: At, request: api::SubmitRequest, detach: bool) -> Result<(), Failure> {
    let channel = at.channel()?;
    let mut client = JobsClient::new(channel.clone());
    // An election takes a moment: with one key the job is submitted once, however often it is asked for.
    let done = block_on(async {
        let begun = tokio::time::Instant::now();
        loop {
            let asked = client.submit(answer::request(request.clone(), WITHIN));
            match answer::within(WITHIN, asked).await {
                Err(Error::Refused(why)) => return Err(refused(&request, &why)),
                // A worker that has it may be about to begin; but not for long.
                Err(Error::Unknown(why)) if why.contains(NOBODY) && begun.elapsed() >= UNOFFERED => {
                    return Err(refused(&request, &why));
                }
                Err(e) if begun.elapsed() >= WITHIN => {
                    let again = format!("{e}; to ask again for the same job: --submission-key {}", request.key);
                    return Err(Failure::Cluster(again));
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
                Ok(done) => return Ok(done),
            }
        }
    })?;
    if detach {
        return stdout::print(done.job + "\n");
    }
    say(&format!("{program}: job {} {}", done.job, if done.existed { "was submitted before" } else { "is submitted" }));
    watch(program, channel, &done.job, false)
}

/// Follows a job to its end; fails as it does.
pub(super) fn watch(program: &str, channel: Client, job: &str, tell: bool) -> Result<(), Failure> {
    let bars = io::stderr().is_terminal().then(Bars::new);
    let ended = block_on(async {
        let mut client = JobsClient::new(channel.clone());
        let (mut last, mut lost) = (None, 0);
        loop {
            let request = api::WatchJobRequest { job: job.to_string() };
            let mut failed = match client.watch(request).await {
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(now)) => {
                                lost = 0;
                                match &bars {
                                    Some(bars) => bars.show(&state(&now), &now),
                                    None => show(program, &now, last.as_ref(), tell),
                                }
                                if now.state() >= api::JobState::Completed {
                                    return Ok(now);
                                }
                                last = Some(now);
                            }
                            Ok(None) => break None,
                            Err(status) => break Some(status),
                        }
                    }
                }
                Err(status) => Some(status),
            };
            lost += 1;
            let fatal = failed.as_ref().is_some_and(|status| FATAL.contains(&status.code()));
            if fatal || lost > RECONNECTS {
                let why = failed.take().map_or_else(|| "the connection ends".to_string(), |s| s.message().to_string());
                return Err(Failure::Cluster(why));
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    })?;
    drop(bars);
    match (ended.state(), ended.error) {
        (api::JobState::Completed, _) => {
            let output = ended.spec.map(|spec| spec.output).unwrap_or_default();
            say(&format!("{program}: {} records in {output}", ended.output_records));
            let counters: Vec<String> =
                ended.counters.iter().map(|(name, n)| format!("{name} {}", grouped(*n))).collect();
            if !counters.is_empty() {
                say(&format!("{program}: {}", counters.join(", ")));
            }
            if ended.next.is_empty() {
                return Ok(());
            }
            say(&format!("{program}: job {} follows", ended.next));
            watch(program, channel, &ended.next, tell)
        }
        (_, Some(error)) => Err(Failure::Job { message: error.message, next_step: error.next_step }),
        (state, None) => {
            let message = format!("the job ended as {}", state.as_str_name());
            Err(Failure::Job { message, next_step: String::new() })
        }
    }
}

/// A line for each state, or for each change.
fn show(program: &str, now: &api::JobStatus, last: Option<&api::JobStatus>, tell: bool) {
    let counts = |counts: Option<&api::TaskCounts>| counts.map_or((0, 0), |c| (c.done, c.total));
    let ((maps, all_maps), (parts, all_parts)) = (counts(now.maps.as_ref()), counts(now.reduces.as_ref()));
    let line = format!("{program}: {:<10} map {maps}/{all_maps}, reduce {parts}/{all_parts}", state(now));
    if tell || last.is_none_or(|last| last.state != now.state) {
        say(&line);
    }
    // Why nothing happens, when that is another reason than before.
    if let Some(waits) = now.notices.first().filter(|waits| last.and_then(|last| last.notices.first()) != Some(*waits))
    {
        say(&format!("{program}: waits: {waits}"));
    }
}
