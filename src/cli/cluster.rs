//! The commands that run nodes, and those that ask a cluster.

mod ask;
mod chain;
mod data;
mod nodes;
mod report;
mod result;
mod submit;
mod told;

use clap::Command;
use gristmill_engine::registry::Entry;

use super::failure::Failure;

/// Adds all of them.
pub(crate) fn commands(program: &str, apps: &[Entry], all: Command) -> Result<Command, Failure> {
    let all = all.subcommand(nodes::serve_command(program)).subcommand(nodes::master_command(program));
    let all = all.subcommand(nodes::worker_command(program)).subcommand(submit::command(program, apps)?);
    Ok(ask::commands(program, all))
}

/// Does one of them; `None` if it is none of these.
pub(crate) fn command(program: &str, apps: &[Entry], name: &str, of: &clap::ArgMatches) -> Option<Result<(), Failure>> {
    Some(match name {
        "serve" | "master" | "worker" => nodes::run(program, name, apps, of),
        "submit" => submit::submit(program, apps, of),
        "jobs" => ask::jobs(of),
        "job" => ask::job(program, of),
        "workers" => ask::workers(of),
        "cluster" => ask::cluster(of),
        "data" => data::run(program, of),
        _ => return None,
    })
}
