//! Apps by name, with their flags: what turns a command line, or a job's spec, into a [`Job`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command};

use crate::app::App;
use crate::job::{AppJob, Job};

type Build = Arc<dyn Fn(&ArgMatches, Files<'_>) -> Result<Box<dyn Job>, clap::Error> + Send + Sync>;
type Named = Arc<dyn Fn(&ArgMatches) -> Result<Vec<String>, clap::Error> + Send + Sync>;

/// Where the files are that an app's flags name.
#[derive(Clone, Copy, Debug)]
pub enum Files<'f> {
    /// On this machine, under those names.
    Here,
    /// Not here: the job is looked at, not run.
    Elsewhere,
    /// Copies of them are here, by their names in the flags. Of a folder those of all files in it, each behind the folder's
    /// name and a '/'.
    Copies(&'f BTreeMap<String, PathBuf>),
}

/// An app that can be run by name.
#[derive(Clone)]
pub struct Entry {
    command: Command,
    example: String,
    build: Build,
    /// Of an app whose code comes with the job.
    named: Option<Named>,
}

impl Entry {
    /// An app whose fields are its flags. Its documentation comment is the help.
    pub fn new<A: App + Args>(name: &'static str) -> Self {
        Self::with::<A>(name, |app| Ok(Box::new(AppJob(app))))
    }

    /// Flags that choose among apps or need a check. An error of `build` is one of usage.
    pub fn with<F: Args + 'static>(
        name: &'static str,
        build: impl Fn(F) -> Result<Box<dyn Job>, String> + Send + Sync + 'static,
    ) -> Self {
        Self::made::<F>(name, move |flags, _| build(flags), None)
    }

    /// Flags that name the app's code, which comes with the job; `named` gives the names of all files that tasks need.
    pub fn with_code<F: Args + 'static>(
        name: &'static str,
        build: impl Fn(F, Files<'_>) -> Result<Box<dyn Job>, String> + Send + Sync + 'static,
        named: impl Fn(&F) -> Result<Vec<String>, String> + Send + Sync + 'static,
    ) -> Self {
        let named: Named = Arc::new(move |matches| named(&F::from_arg_matches(matches)?).map_err(of_usage));
        Self::made::<F>(name, build, Some(named))
    }

    fn made<F: Args + 'static>(
        name: &'static str,
        build: impl Fn(F, Files<'_>) -> Result<Box<dyn Job>, String> + Send + Sync + 'static,
        named: Option<Named>,
    ) -> Self {
        let build: Build =
            Arc::new(move |matches, files| build(F::from_arg_matches(matches)?, files).map_err(of_usage));
        Self { command: F::augment_args(Command::new(name)), example: "INPUT -o out/".into(), build, named }
    }

    /// An example of use for the help: the flags and inputs. What stands before them is the business of the program
    /// that the app is in.
    pub fn with_example(mut self, arguments: &str) -> Self {
        self.example = arguments.into();
        self
    }

    /// Flags and inputs of an example of use.
    pub fn example(&self) -> &str {
        &self.example
    }

    /// The app's name.
    pub fn name(&self) -> &str {
        self.command.get_name()
    }

    /// What the app does, in a line.
    pub fn about(&self) -> String {
        self.command.get_about().map(ToString::to_string).unwrap_or_default()
    }

    /// The app's flags as a command, to which the caller adds its own.
    pub fn command(&self) -> Command {
        self.command.clone()
    }

    /// The job for parsed flags.
    ///
    /// # Errors
    /// When flags contradict each other, or name files that are not there.
    pub fn job(&self, matches: &ArgMatches, files: Files<'_>) -> Result<Box<dyn Job>, clap::Error> {
        (self.build)(matches, files)
    }

    /// The files and folders that parsed flags name and that tasks need.
    ///
    /// # Errors
    /// When flags contradict each other.
    pub fn files(&self, matches: &ArgMatches) -> Result<Vec<String>, clap::Error> {
        self.named.as_ref().map_or(Ok(Vec::new()), |named| named(matches))
    }

    /// Whether the app's code comes with the job.
    pub fn brings_code(&self) -> bool {
        self.named.is_some()
    }
}

fn of_usage(e: String) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{e}\n"))
}
