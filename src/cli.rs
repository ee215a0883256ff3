//! The command line: what its commands are, and how each ends.
//!
//! `tree` puts the commands together, `run`, `cat`, `apps`, `raft` and `completions` are one each, and `failure` decides what
//! is said of an error and with which code the program exits. All work on data is the engine's.

mod apps;
mod cat;
mod closed;
#[cfg(feature = "cluster")]
mod cluster;
mod completions;
#[cfg(feature = "cluster")]
mod durations;
mod explain;
mod failure;
mod flags;
mod inputs;
mod limits;
pub(crate) mod memory;
mod panics;
mod progress;
#[cfg(feature = "cluster")]
mod raft;
mod report;
mod run;
mod signals;
pub(crate) mod sizes;
mod stdout;
mod tree;

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue};
use gristmill_engine::registry::Entry;

use failure::Failure;

/// Does what the program's arguments say.
pub(crate) fn main(apps: Vec<Entry>) -> ExitCode {
    #[cfg(feature = "scripts")]
    if let Some(code) = crate::process::supervisor::asked(std::env::args_os()) {
        return code;
    }
    panics::quieten();
    let program = program();
    let done = catch_unwind(AssertUnwindSafe(|| commanded(&program, &apps, std::env::args_os().collect())));
    match done.unwrap_or_else(|_| Err(Failure::Bug(panics::last()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(&program),
    }
}

/// Says a line on standard error, with control characters escaped: names of files may hold any. That nobody may hear it
/// does not end the program.
fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{}\n", failure::one_line(line)).as_bytes());
}

/// What the user called this program.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| env!("CARGO_PKG_NAME").into())
}

/// Does what these arguments say, of which the first is the program's name.
fn commanded(program: &str, all: &[Entry], arguments: Vec<OsString>) -> Result<(), Failure> {
    let here = here(all);
    let mut command = tree::command(program, all, &here)?;
    #[cfg(feature = "cluster")]
    let (arguments, pushed) = cluster::of_pushed(&here, cluster::of_context(arguments))?;
    #[cfg(feature = "scripts")]
    let arguments = crate::streaming::arguments::with_two_dashes(arguments);
    let matches = command.clone().try_get_matches_from(arguments).map_err(|e| of_app(program, &here, e))?;
    match matches.subcommand() {
        Some(("run", of)) => app_of(&here, of).map_or(Ok(()), |(entry, flags)| run::run(program, entry, flags)),
        Some(("cat", of)) => cat::cat(of),
        Some(("apps", _)) => apps::apps(&here),
        #[cfg(feature = "cluster")]
        Some(("raft", of)) => raft::raft(program, of),
        #[cfg(feature = "cluster")]
        Some(("admin", of)) => cluster::admin(program, &command, of, &|arguments| commanded(program, all, arguments)),
        #[cfg(feature = "cluster")]
        Some(of) if let Some(done) = cluster::command(program, &here, pushed, of) => done,
        Some(("completions", of)) => completions::completions(program, &mut command, of),
        _ => Ok(()),
    }
}

/// All apps that run on this machine: those of a cluster too, and user code.
fn here(all: &[Entry]) -> Vec<Entry> {
    #[cfg_attr(not(any(feature = "scripts", feature = "wasm")), expect(unused_mut, reason = "user code is added"))]
    let mut here = all.to_vec();
    #[cfg(feature = "scripts")]
    here.extend([crate::streaming::entry(None), crate::python::entry(None)]);
    #[cfg(feature = "wasm")]
    here.push(crate::wasm::entry(None));
    here
}

/// An app that was given as a command is meant to be run.
fn of_app(program: &str, all: &[Entry], e: clap::Error) -> Failure {
    match e.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) if all.iter().any(|entry| entry.name() == name) => {
            Failure::Usage(format!("'{name}' is an app, not a command; did you mean: {program} run {name}"))
        }
        _ => e.into(),
    }
}

/// The app that `run` was given, with its flags.
fn app_of<'a>(all: &'a [Entry], run: &'a ArgMatches) -> Option<(&'a Entry, &'a ArgMatches)> {
    let (name, flags) = run.subcommand()?;
    all.iter().find(|entry| entry.name() == name).map(|entry| (entry, flags))
}
