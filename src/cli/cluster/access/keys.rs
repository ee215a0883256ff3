//! `key`: what signs access tokens. `policy`: whether people may register.

use clap::{Arg, ArgAction, ArgMatches, Command};
use gristmill_proto::v1 as api;
use serde_json::json;

use super::super::super::failure::Failure;
use super::super::super::say;
use super::super::ask::output;
use super::super::data::date;
use super::{done, group, list, plain_output, request, show, text, users};

pub(super) fn commands(program: &str) -> [Command; 2] {
    let at_once = Arg::new("at-once").long("at-once").action(ArgAction::SetTrue);
    let key = group("key", "Manage the keys that sign access tokens")
        .subcommand(
            Command::new("ls")
                .visible_alias("list")
                .about("List keys")
                .arg(output())
                .after_help(format!("Example:\n  {program} key ls")),
        )
        .subcommand(
            Command::new("rotate")
                .about("Sign with a new key from now on")
                .arg(at_once.help(
                    "Refuse at once what earlier keys signed, as when somebody else knows them; by default it holds until it expires",
                ))
                .after_help(format!("Example:\n  {program} key rotate")),
        )
        .after_help(format!("Example:\n  {program} key rotate"));
    let registration = Arg::new("registration").long("registration").value_name("WHETHER").required(true);
    let policy = group("policy", "Decide whether people may register")
        .subcommand(
            Command::new("show")
                .about("Show what is decided")
                .arg(plain_output())
                .after_help(format!("Example:\n  {program} policy show")),
        )
        .subcommand(
            Command::new("set")
                .about("Decide it")
                .arg(
                    registration
                        .value_parser(["open", "closed"])
                        .help("Whether whoever can reach a master may make a user, without a role"),
                )
                .after_help(format!("Example:\n  {program} policy set --registration closed")),
        )
        .after_help(format!("Example:\n  {program} policy show"));
    [key, policy]
}

pub(super) fn key(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let mut client = users(of)?;
    if what == "ls" {
        return ls(of, &done(client.keys(request(api::KeysRequest {})))?.keys);
    }
    let at_once = of.get_flag("at-once");
    let kid = done(client.rotate_keys(request(api::RotateKeysRequest { at_once })))?.kid;
    let earlier = if at_once { "is refused" } else { "holds until it expires" };
    say(&format!("{program}: key {kid} signs; what earlier ones signed {earlier}"));
    Ok(())
}

fn ls(of: &ArgMatches, found: &[api::SigningKey]) -> Result<(), Failure> {
    let row = |key: &api::SigningKey| {
        let state = match key.expires_ms {
            0 => "signs".to_string(),
            until => format!("holds until {}", date(until)),
        };
        vec![key.kid.clone(), date(key.created_ms), state]
    };
    let json =
        |key: &api::SigningKey| json!({"kid": key.kid, "created_ms": key.created_ms, "expires_ms": key.expires_ms});
    list(of, found, (&["KEY", "CREATED", "STATE"], 3), row, json)
}

pub(super) fn policy(of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let mut client = users(of)?;
    if what == "set" {
        let registration = text(of, "registration") == "open";
        return done(client.set_policy(request(api::AccessPolicy { registration }))).map(drop);
    }
    let open = done(client.policy(request(api::PolicyRequest {})))?.registration;
    let word = if open { "open" } else { "closed" };
    show(of, word, vec![("registration", word.into())], &json!({ "registration": word }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_right() {
        commands("g").into_iter().for_each(Command::debug_assert);
    }
}
