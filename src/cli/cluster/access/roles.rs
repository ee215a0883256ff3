//! `role`: sets of rights that users and tokens have.

use clap::{Arg, ArgMatches, Command};
use gristmill_engine::control::rights::{RIGHTS, Right};
use gristmill_proto::v1 as api;
use serde_json::json;

use super::super::super::failure::Failure;
use super::super::super::say;
use super::super::super::sizes::counted;
use super::super::ask::output;
use super::{done, group, list, named, request, text, users, yes};

pub(super) fn command(program: &str) -> Command {
    let rights = Arg::new("right").value_name("RIGHT").required(true).num_args(1..);
    group("role", "Manage roles, which are sets of rights")
        .subcommand(
            Command::new("ls")
                .visible_alias("list")
                .about("List roles")
                .arg(output())
                .after_help(format!("Example:\n  {program} role ls -o wide")),
        )
        .subcommand(
            Command::new("rights")
                .about("List all rights, and what they allow")
                .arg(output())
                .after_help(format!("Example:\n  {program} role rights")),
        )
        .subcommand(
            Command::new("put")
                .about("Make a role, or replace one that is not built in")
                .arg(named("name", "NAME", "What it is called"))
                .arg(rights.help("What it may do, as role rights lists it: nothing that you may not"))
                .after_help(format!(
                    "Example:\n  {program} role put operator cluster.read workers.drain jobs.read.any"
                )),
        )
        .subcommand(
            Command::new("rm")
                .about("Remove a role that nobody has")
                .arg(named("name", "NAME", "Which"))
                .after_help(format!("Example:\n  {program} role rm operator")),
        )
        .after_help(format!("Example:\n  {program} role ls"))
}

pub(super) fn run(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    match what {
        "ls" => ls(of),
        "rights" => rights(of),
        "put" => put(program, of),
        _ => {
            let name = text(of, "name");
            done(users(of)?.remove_role(request(api::RemoveRoleRequest { name: name.clone() })))?;
            say(&format!("{program}: role {name} is removed"));
            Ok(())
        }
    }
}

fn ls(of: &ArgMatches) -> Result<(), Failure> {
    let found = done(users(of)?.roles(request(api::RolesRequest {})))?.roles;
    let row = |role: &api::Role| {
        let rights = role.rights.join(" ");
        vec![role.name.clone(), yes(role.built_in), role.rights.len().to_string(), rights]
    };
    let json = |role: &api::Role| json!({"name": role.name, "built_in": role.built_in, "rights": role.rights});
    list(of, &found, (&["ROLE", "BUILT-IN", "RIGHTS", "WHICH"], 3), row, json)
}

/// A right, what it is called, and what it allows.
type Known = (Right, &'static str, &'static str);

/// Those that this program knows of.
fn rights(of: &ArgMatches) -> Result<(), Failure> {
    let row = |(_, name, about): &Known| vec![name.to_string(), about.to_string()];
    let json = |(_, name, about): &Known| json!({"right": name, "allows": about});
    list(of, RIGHTS, (&["RIGHT", "ALLOWS"], 2), row, json)
}

fn put(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let rights: Vec<String> = of.get_many::<String>("right").into_iter().flatten().cloned().collect();
    let (name, n) = (text(of, "name"), rights.len());
    done(users(of)?.put_role(request(api::Role { name: name.clone(), rights, built_in: false })))?;
    say(&format!("{program}: role {name} has {}", counted(n as u64, "right")));
    Ok(())
}
