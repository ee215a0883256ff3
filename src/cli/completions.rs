//! `completions`: scripts by which shells complete our commands, apps and flags.

use clap::{ArgMatches, Command, value_parser};
use clap_complete::{Shell, generate};

use super::failure::Failure;
use super::stdout;

pub(crate) fn command(program: &str) -> Command {
    let shell = clap::Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell));
    Command::new("completions")
        .about("Print a script that completes commands and flags in a shell")
        .arg(shell.help("Which shell"))
        .after_help(format!("Example:\n  {program} completions bash > /etc/bash_completion.d/{program}"))
}

pub(crate) fn completions(program: &str, all: &mut Command, of: &ArgMatches) -> Result<(), Failure> {
    let Some(shell) = of.get_one::<Shell>("shell") else { return Ok(()) };
    let mut script = Vec::new();
    generate(*shell, all, program, &mut script);
    stdout::print(script)
}
