//! `run`: from flags to a job, and from a job to its report.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Instant;

use clap::{ArgMatches, FromArgMatches};
use gristmill_engine::data::input::Input;
use gristmill_engine::exec::Threads;
use gristmill_engine::job::{Context, Job, Options, Report};
use gristmill_engine::registry::{Entry, Files};

use super::failure::Failure;
use super::flags::JobFlags;
use super::progress::{Shown, Watch};
use super::report::Done;
use super::{explain, inputs, limits, say, signals, stdout};

/// Runs an app as the flags say.
pub(crate) fn run(program: &str, entry: &Entry, matches: &ArgMatches) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut flags = JobFlags::from_arg_matches(matches)?;
    // Some apps have a flag for inputs beside the arguments.
    if let Ok(Some(more)) = matches.try_get_many::<OsString>("job.more-input") {
        flags.input.extend(more.cloned());
    }
    flags.check()?;
    let job = entry.job(matches, Files::Here)?;
    let listing = inputs::list(&flags)?;
    let options = flags.options();
    let threads = flags.threads(&listing.inputs);
    if flags.explain {
        let plan = job.plan(&listing.inputs, &options, threads)?;
        return explain::explain(entry.name(), plan, listing.hidden, &flags);
    }
    let mut notes = inputs::notes(&listing, threads);
    let inputs = listing.inputs;
    if flags.talks() {
        notes.drain(..).for_each(|note| say(&format!("{program}: {note}")));
    }
    let compressed_inputs = inputs.iter().filter(|input| input.compression.is_some()).count();
    let watch = Arc::new(Watch::new(program, flags.talks()));
    let report = watched((program, entry.name()), &*job, inputs, (&flags, threads), &options, &watch)?;
    notes.extend(watch.take_notes());
    let done = Done {
        app: entry.name(),
        folder: flags.folder(),
        report: &report,
        compressed_inputs,
        phases: watch.phases(),
        time: begun.elapsed(),
        threads,
        memory: options.memory,
        notes,
    };
    if flags.talks() {
        done.lines().for_each(|line| say(&format!("{program}: {line}")));
    }
    if flags.json { print(&done) } else { Ok(()) }
}

/// Runs the job with its progress shown and signals heard.
fn watched(
    (program, app): (&str, &str),
    job: &dyn Job,
    inputs: Vec<Input>,
    (flags, threads): (&JobFlags, usize),
    options: &Options,
    watch: &Arc<Watch>,
) -> Result<Report, Failure> {
    limits::raise_open_files();
    signals::listen().map_err(|e| Failure::System("listen to signals", e))?;
    let exec = Threads::new(threads).map_err(|e| Failure::System("start threads", e))?;
    let sized = inputs.iter().all(Input::is_splittable);
    let shown = Shown::begin(program, watch, flags, sized);
    let context = Context { exec: &exec, observer: &**watch, stop: &signals::STOP };
    let result = flags.target().and_then(|target| Ok(job.run(app, inputs, options, target, &context)?));
    shown.end();
    // Whatever else failed once the job was to stop, failed because of that.
    result.map_err(|e| match signals::received() {
        Some(_) => Failure::Interrupted { begun: stdout::has_begun() },
        None => e,
    })
}

/// Prints the report where the result is not.
fn print(done: &Done<'_>) -> Result<(), Failure> {
    let line = done.json().map_err(|e| Failure::Bug(e.to_string()))?;
    match done.folder {
        Some(_) => stdout::print(line + "\n"),
        None => {
            say(&line);
            Ok(())
        }
    }
}
