//! Apps by name, with their flags: what turns a command line, or a job's spec, into a [`Job`].

use std::sync::Arc;

use clap::{ArgMatches, Args, Command};

use crate::app::App;
use crate::job::{AppJob, Job};

type Build = Arc<dyn Fn(&ArgMatches) -> Result<Box<dyn Job>, clap::Error> + Send + Sync>;

/// An app that can be run by name.
#[derive(Clone)]
pub struct Entry {
    command: Command,
    example: String,
    build: Build,
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
        let command = F::augment_args(Command::new(name));
        let build: Build = Arc::new(move |matches| {
            let flags = F::from_arg_matches(matches)?;
            build(flags).map_err(|e| clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{e}\n")))
        });
        Self { command, example: "INPUT -o out/".into(), build }
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
    /// When flags contradict each other.
    pub fn job(&self, matches: &ArgMatches) -> Result<Box<dyn Job>, clap::Error> {
        (self.build)(matches)
    }
}
