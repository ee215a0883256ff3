//! `login`, `logout`, `whoami`, `passwd` and `register`: what everybody does about oneself.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches as _};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::access_client::AccessClient;
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;

use super::super::super::failure::Failure;
use super::super::super::say;
use super::super::super::sizes::counted;
use super::super::ask::{WITHIN, block_on, output};
use super::super::at::At;
use super::super::bearer::{self, Client};
use super::super::credentials::{Entry, Store, now_ms};
use super::super::data::date;
use super::terminal::{self, Passwords, Secret};
use super::users::{quota_json, quota_text};
use super::{access, done, named, password_stdin, request, show, text, yes};
use crate::cluster::answer;

/// Bytes of a session's label.
const LABEL: usize = 128;

pub(super) fn commands(program: &str) -> [Command; 5] {
    let login = Command::new("login")
        .about("Log in to the cluster: what commands ask for is then asked in this user's name")
        .long_about(
            "Log in to the cluster: what commands ask for is then asked in this user's name\n\n\
             The session is kept for the cluster's address in a file that you alone can read: GRISTMILL_CREDENTIALS, or \
             credentials.json beside the file of contexts. A token in GRISTMILL_TOKEN, or in the file that GRISTMILL_TOKEN_FILE \
             names, counts before it.",
        )
        .arg(Arg::new("user").value_name("USER").help("Who; by default it is asked for"))
        .arg(password_stdin("Read the password from the first line of standard input, and from the second a new one"))
        .after_help(format!(
            "Examples:\n  {program} login ann\n  {program} login ann --password-stdin < secret --at m1:7070 --tls-ca ca.pem"
        ));
    let logout = Command::new("logout")
        .about("End the session: its tokens are refused everywhere within a second")
        .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("All sessions and tokens of the user"))
        .arg(
            Arg::new("forget")
                .long("forget")
                .action(ArgAction::SetTrue)
                .help("Remove the session's tokens here although the cluster cannot be told"),
        )
        .after_help(format!("Example:\n  {program} logout"));
    let whoami = Command::new("whoami")
        .about("Show who you are to the cluster, and what you may do")
        .arg(output())
        .after_help(format!("Example:\n  {program} whoami"));
    let passwd = Command::new("passwd")
        .about("Set another password of your own; your other sessions and tokens end")
        .arg(password_stdin("Read the old password and the new one from two lines of standard input"))
        .after_help(format!("Example:\n  {program} passwd"));
    let register = Command::new("register")
        .about("Make a user of yourself, where that is allowed; an administrator then gives it a role")
        .arg(named("user", "USER", "What to be called: small letters, digits, '-', '_' and '.'"))
        .arg(password_stdin("Read the password from the first line of standard input"))
        .after_help(format!("Example:\n  {program} register ann"));
    [login, logout, whoami, passwd, register]
}

/// What a session is called in lists: who began it, and where.
fn label() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    cut(format!("{user}@{host}"))
}

fn cut(mut label: String) -> String {
    label.retain(|c| !c.is_control());
    label.truncate(label.floor_char_boundary(LABEL));
    label
}

pub(super) fn login(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let (address, channel) = At::from_arg_matches(of)?.open()?;
    let (store, passwords) = (Store::new()?, Passwords::of(of));
    let user = match of.get_one::<String>("user") {
        Some(user) => user.clone(),
        None if passwords.is_stdin() => {
            return Err(Failure::Usage("name the user whose password it is: login USER --password-stdin".into()));
        }
        None => terminal::word("user: ", "name the user: login USER --password-stdin")?,
    };
    let password = passwords.known(&format!("password of {user} at {address}: "))?;
    let login = api::LoginRequest { user, password: password.to_string(), label: label() };
    let answer = done(AccessClient::new(channel.clone()).login(request(login)))?;
    let must_change = answer.must_change;
    let entry = Entry::of(answer);
    block_on(store.keep(&address, Some(entry.clone())))?;
    let (user, until) = (&entry.user, date(entry.session_expires_ms));
    say(&format!("{program}: logged in to {address} as {user} until {until} UTC"));
    if bearer::given()?.is_some() {
        say(&format!("{program}: the token in the environment counts before that: unset it to be {user}"));
    }
    match must_change {
        true => change_first(program, &passwords, channel, &entry, &password),
        false => Ok(()),
    }
}

/// Changes a password that must be another one before anything else. The session is kept in any case.
fn change_first(
    program: &str,
    passwords: &Passwords,
    channel: Channel,
    entry: &Entry,
    old: &Secret,
) -> Result<(), Failure> {
    let first = format!("{program}: the password must be changed before anything else");
    let new = match passwords.is_stdin() {
        true => terminal::line()?.filter(|line| !line.is_empty()),
        false => {
            say(&first);
            Some(passwords.new_one("new password: ")?)
        }
    };
    match new {
        Some(new) => change(program, bearer::with(channel, &entry.access_token)?, old, &new),
        None => {
            say(&format!("{first}: run {program} passwd"));
            Ok(())
        }
    }
}

fn change(program: &str, channel: Client, old: &Secret, new: &Secret) -> Result<(), Failure> {
    let change = api::ChangePasswordRequest { old_password: old.to_string(), new_password: new.to_string() };
    done(AccessClient::new(channel).change_password(request(change)))?;
    say(&format!("{program}: the password is changed; other sessions and tokens have ended"));
    Ok(())
}

pub(super) fn passwd(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let channel = At::from_arg_matches(of)?.channel()?;
    let passwords = Passwords::of(of);
    let old = passwords.known("old password: ")?;
    let new = passwords.new_one("new password: ")?;
    change(program, channel, &old, &new)
}

pub(super) fn register(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let (address, channel) = At::from_arg_matches(of)?.open()?;
    let user = text(of, "user");
    let password = Passwords::of(of).new_one(&format!("password for {user} at {address}: "))?;
    let register = api::RegisterRequest { user: user.clone(), password: password.to_string() };
    done(AccessClient::new(channel).register(request(register)))?;
    say(&format!(
        "{program}: {user} is registered at {address}, without a role yet; an administrator gives one with \
         {program} user set-role {user} ROLE"
    ));
    Ok(())
}

/// What became of a session that was to end.
enum Ended {
    /// So many have.
    Now(u32),
    /// It had.
    Before,
    /// Nobody knows.
    Unsaid(String),
}

fn end(channel: Client, all: bool) -> Result<Ended, Failure> {
    let mut client = AccessClient::new(channel);
    let asked = client.logout(request(api::LogoutRequest { all }));
    Ok(match block_on(async { Ok(tokio::time::timeout(WITHIN, asked).await) })? {
        Ok(Ok(answer)) => Ended::Now(answer.into_inner().sessions),
        Ok(Err(status)) if status.code() == Code::Unauthenticated => Ended::Before,
        Ok(Err(status)) => Ended::Unsaid(answer::outcome(&status).to_string()),
        Err(_) => Ended::Unsaid(format!("nothing within {WITHIN:?}")),
    })
}

pub(super) fn logout(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let (address, channel) = At::from_arg_matches(of)?.open()?;
    let given = bearer::given()?;
    // What a variable gives is not ours to remove.
    let store = if given.is_some() { None } else { Store::new().ok() };
    let kept = store.as_ref().map(|store| store.get(&address)).transpose()?.flatten();
    if given.is_none() && kept.is_none() {
        say(&format!("{program}: nobody is logged in to {address}"));
        return Ok(());
    }
    let ended = end(bearer::client(&address, channel)?, of.get_flag("all"))?;
    let until = kept.as_ref().map_or(0, |entry| entry.session_expires_ms);
    let holds = match until {
        0 => "the session still holds".to_string(),
        until => format!("the session still holds until {} UTC", date(until)),
    };
    let told = match ended {
        Ended::Now(n) => format!("logged out of {address}: {} ended", counted(n.into(), "session")),
        Ended::Before => format!("logged out of {address}: the session had ended already"),
        Ended::Unsaid(_) if of.get_flag("forget") => format!("forgot the session with {address}; {holds}"),
        Ended::Unsaid(why) => {
            return Err(Failure::Cluster(format!("{why}; {holds}; --forget removes its tokens here all the same")));
        }
    };
    if let Some(store) = store {
        block_on(store.keep(&address, None))?;
    }
    say(&format!("{program}: {told}"));
    Ok(())
}

pub(super) fn whoami(of: &ArgMatches) -> Result<(), Failure> {
    let me = done(access(of)?.who_am_i(request(api::WhoAmIRequest {})))?;
    let json = json!({
        "user": me.user, "role": me.role, "rights": me.rights, "session": me.session, "expires_ms": me.expires_ms,
        "must_change": me.must_change, "prefix": me.prefix, "quota": quota_json(me.quota.as_ref()),
    });
    let left = Duration::from_millis(me.expires_ms.saturating_sub(now_ms()));
    let expires = match me.expires_ms {
        0 => String::new(),
        ms => format!("{} UTC, in {} min", date(ms), left.as_secs() / 60),
    };
    let rows = vec![
        ("user", me.user.clone()),
        ("role", me.role),
        ("rights", me.rights.join(" ")),
        ("session", me.session),
        ("token expires", expires),
        ("must change the password", yes(me.must_change)),
        ("files", me.prefix),
        ("quota", quota_text(me.quota.as_ref())),
    ];
    show(of, &me.user, rows, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_plain() {
        assert_eq!(cut("ann@host\n\x1b".into()), "ann@host");
        assert_eq!(cut("é".repeat(100)).len(), 128);
        assert_eq!(cut(format!("x{}", "é".repeat(100))).len(), 127);
        assert!(label().contains('@'));
    }
}
