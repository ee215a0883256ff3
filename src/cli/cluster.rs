//! The commands that run nodes, and those that ask a cluster.

mod access;
mod app;
mod ask;
pub(crate) mod at;
mod backup;
mod bars;
mod bearer;
mod certs;
mod chain;
mod code;
mod context;
mod credentials;
mod data;
mod debug;
#[cfg(feature = "kubernetes")]
mod k8s;
mod nodes;
mod pool;
mod report;
mod result;
mod shell;
mod submit;
mod told;

use std::ffi::OsString;

use clap::{Arg, Command};
use gristmill_engine::registry::Entry;

use super::failure::Failure;
pub(crate) use shell::Does;
pub(crate) use submit::Pushed;
pub(crate) use submit::of_pushed;

/// Adds all of them.
pub(crate) fn commands(program: &str, apps: &[Entry], all: Command) -> Result<Command, Failure> {
    let all = all.subcommand(nodes::serve_command(program)).subcommand(nodes::master_command(program));
    let all = all.subcommand(nodes::worker_command(program)).subcommand(submit::command(program, apps)?);
    let all = ask::commands(program, all).subcommand(context::command(program));
    let all = all.subcommand(certs::command(program));
    #[cfg(feature = "kubernetes")]
    let all = all.subcommand(k8s::command(program));
    Ok(access::commands(program, all).subcommand(shell::command(program)))
}

/// The flag that makes `run` a `submit`.
pub(crate) fn context_flag() -> Arg {
    let flag = Arg::new("job.context").long("context").value_name("NAME");
    flag.help("Run it on the cluster of that name, over files in its store: the same as submit --context NAME")
}

/// `run --context NAME` is `submit --context NAME`, whose flags are others: this is seen before they are looked at.
pub(crate) fn of_context(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let ours = arguments.iter().skip(2).take_while(|argument| *argument != "--");
    let mut flags = ours.map(|argument| argument.as_encoded_bytes());
    let named = flags.any(|flag| flag == b"--context" || flag.starts_with(b"--context="));
    if let Some(command) = arguments.get_mut(1).filter(|command| named && **command == *"run") {
        *command = "submit".into();
    }
    arguments
}

/// Does one of them; `None` if it is none of these.
pub(crate) fn command(
    program: &str,
    apps: &[Entry],
    pushed: Option<Pushed>,
    (name, of): (&str, &clap::ArgMatches),
) -> Option<Result<(), Failure>> {
    Some(match name {
        "worker" if let Some(done) = pool::command(of) => done,
        "serve" | "master" | "worker" => nodes::run(program, name, apps, of),
        "submit" => submit::submit(program, apps, pushed, of),
        "app" => app::run(program, apps, of),
        "jobs" => ask::jobs(of),
        "job" => ask::job(program, of),
        "workers" => ask::workers(of),
        "cluster" => ask::cluster(of),
        "context" => context::context(of),
        "certs" => certs::certs(program, of),
        #[cfg(feature = "kubernetes")]
        "k8s" => k8s::run(program, of),
        "data" => data::run(program, of),
        "debug-task" => debug::run(program, apps, of),
        _ => return access::command(program, (name, of)),
    })
}

/// Opens the shell over the commands of `tree`, which `does` does.
pub(crate) fn admin(program: &str, tree: &Command, of: &clap::ArgMatches, does: Does<'_>) -> Result<(), Failure> {
    shell::admin(program, tree, of, does)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_a_context_is_a_submission() {
        for (given, becomes) in [
            ("g run wordcount a -o b --context prod", "submit"),
            ("g run wordcount --context=prod a", "submit"),
            ("g run grep -- --context a", "run"),
            ("g run wordcount a", "run"),
            ("g jobs --context prod", "jobs"),
            ("g", ""),
        ] {
            let arguments = of_context(given.split(' ').map(OsString::from).collect());
            assert_eq!(arguments.get(1).map_or("", |command| command.to_str().unwrap()), becomes, "{given}");
        }
    }
}
