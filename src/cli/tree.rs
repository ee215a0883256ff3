//! The tree of commands, with every app as a command of `run`.
//!
//! An app's flags come first. Where it has taken a short flag of ours, ours keeps its long form only; a long one taken
//! is refused, since it would mean two things.

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Command};
use gristmill_engine::registry::Entry;

use super::failure::{self, Failure};
use super::flags::JobFlags;
use super::{cat, completions};

/// All commands of a program of this name, with the apps of a cluster and those that run here.
pub(crate) fn command(program: &str, apps: &[Entry], here: &[Entry]) -> Result<Command, Failure> {
    let version = match program {
        env!("CARGO_PKG_NAME") => env!("CARGO_PKG_VERSION").to_string(),
        _ => format!("with {} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
    };
    let list =
        Command::new("apps").about("List the apps that run knows").after_help(format!("Example:\n  {program} apps"));
    let all = Command::new(program.to_string())
        .version(version)
        .about("MapReduce with nothing else to run, in one binary")
        .after_help(format!("{}\n\n{}", examples(program, apps), failure::EXIT_CODES))
        .styles(styles())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run(program, here)?)
        .subcommand(cat::command(program))
        .subcommand(list);
    #[cfg(feature = "cluster")]
    let all = super::cluster::commands(program, here, all)?.subcommand(super::raft::command(program));
    Ok(all.subcommand(completions::command(program)))
}

fn styles() -> Styles {
    let heading = AnsiColor::Green.on_default().bold();
    Styles::styled().header(heading).usage(heading).literal(AnsiColor::Cyan.on_default().bold())
}

fn examples(program: &str, apps: &[Entry]) -> String {
    let app = apps.first().map_or("APP", Entry::name);
    format!(
        "Examples:\n  {program} run {app} books/ -o out/\n  {program} cat out/ | head\n  {program} run {app} --help"
    )
}

fn run(program: &str, apps: &[Entry]) -> Result<Command, Failure> {
    let run = Command::new("run")
        .about("Run an app over files")
        .after_help(examples(program, apps))
        .subcommand_value_name("APP")
        .subcommand_help_heading("Apps")
        .subcommand_required(true)
        .arg_required_else_help(true);
    apps.iter().try_fold(run, |run, entry| {
        if run.find_subcommand(entry.name()).is_some() {
            return Err(Failure::Usage(format!("two apps are called '{}'; rename one of them", entry.name())));
        }
        Ok(run.subcommand(app(program, entry)?))
    })
}

/// An app with its flags and ours.
fn app(program: &str, entry: &Entry) -> Result<Command, Failure> {
    let ours = JobFlags::augment_args(Command::new("ours"));
    #[cfg(feature = "cluster")]
    let ours = ours.arg(super::cluster::context_flag());
    let command = beside(entry, ours)?;
    Ok(command.after_help(format!("Example:\n  {program} run {} {}", entry.name(), entry.example())))
}

/// An app's command with the arguments of `ours` beside its own.
pub(crate) fn beside(entry: &Entry, mut ours: Command) -> Result<Command, Failure> {
    for theirs in entry.command().get_arguments() {
        let same = |o: &&clap::Arg| {
            o.get_id() == theirs.get_id() || (o.get_long().is_some() && o.get_long() == theirs.get_long())
        };
        if let Some(taken) = ours.get_arguments().find(same) {
            let flag = taken.get_long().unwrap_or(taken.get_id().as_str());
            let e = format!("app '{}' has a flag --{flag}, which every app has already; rename it", entry.name());
            return Err(Failure::Usage(e));
        }
        let short = ours.get_arguments().find(|o| o.get_short().is_some() && o.get_short() == theirs.get_short());
        if let Some(id) = short.map(|o| o.get_id().clone()) {
            ours = ours.mut_arg(id, |arg| arg.short(None));
        }
    }
    // Of a flag given twice the last counts, as scripts and aliases expect.
    Ok(entry.command().args(ours.get_arguments().cloned()).args_override_self(true))
}
