//! `token`: words by which machines, as those that build software, are known. They may do no more than who makes them.

use clap::{Arg, ArgMatches, Command};
use gristmill_proto::v1 as api;
use serde_json::json;

use super::super::super::durations;
use super::super::super::failure::Failure;
use super::super::super::{say, stdout};
use super::super::ask::{format, output};
use super::super::data::date;
use super::users::{end_session, list_sessions};
use super::{done, group, named, plain_output, request, text, users};

pub(super) fn command(program: &str) -> Command {
    let create = Command::new("create")
        .about("Make a token, and print it: it is told this once")
        .long_about(
            "Make a token, and print it: it is told this once\n\n\
             A machine shows it with GRISTMILL_TOKEN, or with GRISTMILL_TOKEN_FILE from a file that only its owner can use.",
        )
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("TIME")
                .default_value("30d")
                .value_parser(durations::seconds)
                .help("How long it holds, as 12h or 90d: a minute to 366 days"),
        )
        .arg(Arg::new("role").long("role").value_name("ROLE").help("The role that it has; by default yours"))
        .arg(Arg::new("label").long("label").value_name("TEXT").help("What it is called in lists"))
        .arg(plain_output())
        .after_help(format!("Example:\n  {program} token create --ttl 90d --role viewer --label nightly > token"));
    group("token", "Manage tokens, by which machines are known")
        .subcommand(create)
        .subcommand(
            Command::new("ls")
                .visible_alias("list")
                .about("List your tokens")
                .arg(output())
                .after_help(format!("Example:\n  {program} token ls")),
        )
        .subcommand(
            Command::new("rm")
                .about("End a token")
                .arg(named("session", "SESSION", "Its session's id, as token ls shows it"))
                .after_help(format!("Example:\n  {program} token rm 2a")),
        )
        .after_help(format!("Example:\n  {program} token create --label nightly"))
}

pub(super) fn run(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    match what {
        "create" => create(program, of),
        "ls" => {
            let own = api::SessionsRequest { user: String::new() };
            let mut found = done(users(of)?.sessions(request(own)))?.sessions;
            found.retain(|session| session.token);
            list_sessions(of, &found)
        }
        _ => end_session(program, of),
    }
}

fn create(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let ttl_s = of.get_one::<u64>("ttl").copied().unwrap_or(0);
    let create = api::CreateTokenRequest { label: text(of, "label"), ttl_s, role: text(of, "role") };
    let made = done(users(of)?.create_token(request(create)))?;
    if format(of) == "json" {
        let json = json!({"token": made.token, "session": made.session, "expires_ms": made.expires_ms});
        return stdout::print(format!("{json}\n"));
    }
    say(&format!("{program}: token {} holds until {} UTC", made.session, date(made.expires_ms)));
    stdout::print(made.token + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_as_long_as_is_said() {
        let ttl = |line: &str| {
            let of = command("g").no_binary_name(true).try_get_matches_from(line.split(' '));
            of.map(|of| of.subcommand().and_then(|(_, of)| of.get_one::<u64>("ttl").copied()))
        };
        assert_eq!(ttl("create").unwrap(), Some(30 * 24 * 3600));
        assert_eq!(ttl("create --ttl 12h").unwrap(), Some(12 * 3600));
        assert!(ttl("create --ttl long").is_err());
        command("g").debug_assert();
    }
}
