//! `raft`: looking into a folder of the replicated log, and changing the members of its cluster.

mod inspect;
mod members;

use std::future::Future;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _, value_parser};

use super::cluster::at::At;
use super::failure::Failure;
use crate::cluster::admin::Client;
use crate::cluster::channels::Channels;
use crate::cluster::connector::Connector;

/// How soon a node that lives notices that another does not; here, how long a connection may take to open.
const ELECTION: Duration = Duration::from_secs(2);

pub(crate) fn command(program: &str) -> Command {
    Command::new("raft")
        .about("Look into the replicated log, and change the members of its cluster")
        .after_help(format!("Example:\n  {program} raft members --at 127.0.0.1:7070"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(inspect::command(program))
        .subcommand(members::members_command(program))
        .subcommand(members::remove_command(program))
        .subcommand(members::transfer_command(program))
}

pub(crate) fn raft(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    match of.subcommand() {
        Some(("inspect", of)) => inspect::inspect(program, of),
        Some(("members", of)) => members::members(of),
        Some(("remove", of)) => members::remove(of),
        Some(("transfer", of)) => members::transfer(of),
        _ => Ok(()),
    }
}

/// A command that asks a running node.
fn asking(name: &'static str) -> Command {
    let timeout = Arg::new("timeout").long("timeout").value_name("SECONDS").default_value("30");
    let timeout = timeout.value_parser(value_parser!(u64).range(1..=3600)).help("Give up after so long");
    At::augment_args(Command::new(name).arg(timeout))
}

fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue)
}

/// Runs what asks a node.
fn ask<T, F>(of: &ArgMatches, ask: impl FnOnce(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, crate::cluster::admin::Error>>,
{
    let (at, wire) = At::from_arg_matches(of)?.found()?;
    wire.check(&at).map_err(crate::cluster::admin::Error::from)?;
    let bearer = At::from_arg_matches(of)?.bearer()?.value();
    let within = Duration::from_secs(of.get_one("timeout").copied().unwrap_or(30));
    let connector = Connector { wire, ..Connector::new(ELECTION) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::System("start the network", e))?;
    runtime.block_on(async { Ok(ask(Client::new(Channels::new(connector), &at, within).showing(bearer)).await?) })
}

/// A node's id as people write it.
fn parse_id(text: &str) -> Result<u64, String> {
    let id = u64::from_str_radix(text, 16).ok().filter(|id| *id > 0);
    id.ok_or_else(|| "a node's id has 16 hexadecimal digits, as raft members shows them".to_string())
}

/// The way back.
fn id_text(id: u64) -> String {
    format!("{id:016x}")
}
