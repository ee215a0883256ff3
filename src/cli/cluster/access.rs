//! Who is there, and what they may do: logging in and out, users, tokens for machines, roles, keys and the audit log.
//!
//! Each file has the commands of one of these. Secrets are asked for on the terminal or read from standard input (`terminal`),
//! never given as arguments, which others on the machine can see; on standard output they are only where they are the result.

mod audit;
mod keys;
mod login;
mod roles;
pub(super) mod terminal;
mod tokens;
mod users;

use std::future::Future;

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command};
use gristmill_proto::v1::access_client::AccessClient;
use gristmill_proto::v1::users_client::UsersClient;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::super::failure::Failure;
use super::super::stdout;
use super::ask::{WITHIN, answered, block_on, channel, format, table};
use super::at::At;
use super::bearer::Client;
use crate::cluster::answer;

/// Adds all of them.
pub(super) fn commands(program: &str, all: Command) -> Command {
    let own = login::commands(program).into_iter();
    let ours = [users::command(program), tokens::command(program), roles::command(program)].into_iter();
    let ours = own.chain(ours).chain(keys::commands(program)).chain([audit::command(program)]);
    all.subcommands(ours.map(At::augment_args))
}

/// Does one of them; `None` if it is none of these.
pub(super) fn command(program: &str, (name, of): (&str, &ArgMatches)) -> Option<Result<(), Failure>> {
    Some(match name {
        "login" => login::login(program, of),
        "logout" => login::logout(program, of),
        "whoami" => login::whoami(of),
        "passwd" => login::passwd(program, of),
        "register" => login::register(program, of),
        "user" => users::run(program, of),
        "token" => tokens::run(program, of),
        "role" => roles::run(program, of),
        "key" => keys::key(program, of),
        "policy" => keys::policy(of),
        "audit" => audit::audit(of),
        _ => return None,
    })
}

/// A command that has others below it.
fn group(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true)
}

/// An argument that must be there.
fn named(id: &'static str, shown: &'static str, help: &'static str) -> Arg {
    Arg::new(id).value_name(shown).required(true).help(help)
}

/// How to print, where there are no columns more or less, nor names.
fn plain_output() -> Arg {
    let output = Arg::new("output").long("output").short('o').value_name("FORMAT").default_value("table");
    output.value_parser(["table", "json"]).help("How to print")
}

fn password_stdin(help: &'static str) -> Arg {
    Arg::new("password-stdin").long("password-stdin").action(ArgAction::SetTrue).help(help)
}

fn text(of: &ArgMatches, id: &str) -> String {
    of.get_one::<String>(id).cloned().unwrap_or_default()
}

fn access(of: &ArgMatches) -> Result<AccessClient<Client>, Failure> {
    Ok(AccessClient::new(channel(of)?))
}

fn users(of: &ArgMatches) -> Result<UsersClient<Client>, Failure> {
    Ok(UsersClient::new(channel(of)?))
}

/// What is asked, with its deadline.
fn request<T>(message: T) -> Request<T> {
    answer::request(message, WITHIN)
}

/// Waits for one answer.
fn done<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    block_on(answered(call))
}

/// The columns of a listing: of these the first so many are in the narrow table.
type Columns<'c> = (&'c [&'c str], usize);

/// Prints things as they are wanted; the first cell of a row is the name.
fn list<T>(
    of: &ArgMatches,
    found: &[T],
    (head, narrow): Columns<'_>,
    row: impl Fn(&T) -> Vec<String>,
    json: impl Fn(&T) -> Value,
) -> Result<(), Failure> {
    stdout::print(match format(of) {
        "json" => Value::from(found.iter().map(json).collect::<Vec<_>>()).to_string() + "\n",
        "name" => found.iter().map(|one| row(one).into_iter().next().unwrap_or_default() + "\n").collect(),
        format => {
            let columns = if format == "wide" { head.len() } else { narrow };
            let head = head.iter().map(ToString::to_string).collect();
            let rows = std::iter::once(head).chain(found.iter().map(row));
            table(&rows.map(|row: Vec<String>| row.into_iter().take(columns).collect()).collect::<Vec<_>>())
        }
    })
}

/// Prints one thing as it is wanted. What is empty is left out of the table.
fn show(of: &ArgMatches, name: &str, rows: Vec<(&str, String)>, json: &Value) -> Result<(), Failure> {
    stdout::print(match format(of) {
        "json" => format!("{json}\n"),
        "name" => format!("{name}\n"),
        _ => {
            let told = rows.into_iter().filter(|(_, value)| !value.is_empty());
            table(&told.map(|(name, value)| vec![name.to_string(), value]).collect::<Vec<_>>())
        }
    })
}

fn yes(is: bool) -> String {
    if is { "yes".into() } else { String::new() }
}
