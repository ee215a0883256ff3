//! `user`: who may log in, with which role and quota, and the sessions that there are.

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use gristmill_proto::v1 as api;
use serde_json::{Value, json};

use super::super::super::failure::Failure;
use super::super::super::sizes::Size;
use super::super::super::{say, stdout};
use super::super::ask::output;
use super::super::data::date;
use super::terminal::Passwords;
use super::{done, group, list, named, password_stdin, request, show, text, users, yes};

/// The flags of a quota.
const QUOTA: [&str; 4] = ["jobs", "cores", "stored", "submissions-per-minute"];
/// Users of a page.
const PAGE: u32 = 1000;

/// Bytes; 0 too.
fn bytes(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { text.parse::<Size>().map(|size| size.0) }
}

fn quota_flags(command: Command) -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u32)).help(help)
    };
    command
        .arg(number("jobs", "Jobs at a time that have not ended; 0: no limit but the cluster's, as of the others"))
        .arg(number("cores", "Tasks at a time"))
        .arg(
            Arg::new("stored")
                .long("stored")
                .value_name("SIZE")
                .value_parser(bytes)
                .help("Bytes of the user's files in the store"),
        )
        .arg(number("submissions-per-minute", "Jobs submitted in a minute"))
}

fn account() -> Arg {
    let account = Arg::new("service-account").long("service-account").value_name("NAMESPACE/NAME");
    account.help("A service account of Kubernetes whose tokens are the user's, where masters have --kubernetes-tokens")
}

fn prefix() -> Arg {
    let prefix = Arg::new("prefix").long("prefix").value_name("PREFIX");
    prefix.help("Files in the store whose names begin so are the user's own; of a new user by default the name and '/'")
}

pub(super) fn command(program: &str) -> Command {
    let name = || named("name", "NAME", "The user's name");
    let one = |what: &'static str, about: &'static str| {
        Command::new(what).about(about).arg(name()).after_help(format!("Example:\n  {program} user {what} ann"))
    };
    let add = one("add", "Make a user; a password is made up and printed, unless one is given")
        .arg(Arg::new("role").long("role").value_name("ROLE").help("Its role; without one nothing is allowed"))
        .arg(password_stdin("Read the password from the first line of standard input"))
        .arg(
            Arg::new("keep-password")
                .long("keep-password")
                .action(ArgAction::SetTrue)
                .requires("password-stdin")
                .help("The password need not be changed at the first login"),
        )
        .arg(prefix())
        .arg(account());
    let role = Arg::new("role").value_name("ROLE").required(true);
    let set_role = one("set-role", "Give a user another role; its sessions and tokens end")
        .arg(role.help("The role; '' for none"))
        .after_help(format!("Example:\n  {program} user set-role ann user"));
    let account = Arg::new("account").value_name("NAMESPACE/NAME").required(true);
    let set_account = one("set-account", "Bind a user to a service account of Kubernetes; its sessions and tokens end")
        .arg(account.help("The service account; '' for none"))
        .after_help(format!("Example:\n  {program} user set-account loader batch/loader"));
    let changed = ArgGroup::new("changed").args(QUOTA).arg("prefix").multiple(true).required(true);
    let set_quota = quota_flags(one("set-quota", "Change what a user may have; what is not said stays")).arg(prefix());
    let set_quota = set_quota
        .group(changed)
        .after_help(format!("Example:\n  {program} user set-quota ann --jobs 10 --stored 100GiB"));
    let reset = one("reset-password", "Set another password, to be changed at the next login; sessions and tokens end")
        .arg(password_stdin(
            "Read the password from the first line of standard input; else one is made up and printed",
        ));
    group("user", "Manage users: their roles, quotas, passwords and sessions")
        .subcommand(quota_flags(add).after_help(format!(
            "Examples:\n  {program} user add ann --role user\n  {program} user add ann --role user --jobs 10 --stored 100GiB"
        )))
        .subcommand(one("rm", "Remove a user; jobs, files and apps stay"))
        .subcommand(ls(program))
        .subcommand(one("show", "Show a user").arg(output()))
        .subcommand(set_role)
        .subcommand(set_account)
        .subcommand(set_quota)
        .subcommand(one("disable", "Refuse a user's logins; its sessions and tokens end"))
        .subcommand(one("enable", "Allow a user's logins again"))
        .subcommand(reset)
        .subcommand(sessions_command(program))
        .subcommand(end_session_command(program))
        .after_help(format!("Example:\n  {program} user add ann --role user"))
}

fn ls(program: &str) -> Command {
    let ls = Command::new("ls").visible_alias("list").about("List users").arg(output());
    ls.after_help(format!("Example:\n  {program} user ls -o wide"))
}

fn sessions_command(program: &str) -> Command {
    Command::new("sessions")
        .about("List a user's sessions and tokens")
        .arg(Arg::new("name").value_name("NAME").help("The user; by default yourself"))
        .arg(output())
        .after_help(format!("Example:\n  {program} user sessions ann"))
}

fn end_session_command(program: &str) -> Command {
    Command::new("end-session")
        .about("End a session or token")
        .arg(named("session", "SESSION", "Its id, as user sessions shows it"))
        .after_help(format!("Example:\n  {program} user end-session 2a"))
}

pub(super) fn run(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let name = of.try_get_one::<String>("name").ok().flatten().cloned().unwrap_or_default();
    let change = api::ChangeUserRequest { name: name.clone(), ..Default::default() };
    match what {
        "add" => add(program, name, of),
        "ls" => list_users(of),
        "show" => show_user(&name, of),
        "set-role" => {
            let role = text(of, "role");
            let told = if role.is_empty() { "has no role".into() } else { format!("has the role {role}") };
            changed(program, of, api::ChangeUserRequest { role: Some(role), ..change }, &told)
        }
        "set-account" => {
            let account = text(of, "account");
            let none = || "has no service account".to_string();
            let told = if account.is_empty() { none() } else { format!("has the service account {account}") };
            changed(program, of, api::ChangeUserRequest { service_account: Some(account), ..change }, &told)
        }
        "set-quota" => {
            let quota = if of_quota(of) { Some(quota(of, find(&name, of)?.quota.unwrap_or_default())) } else { None };
            let prefix = of.get_one::<String>("prefix").cloned();
            changed(program, of, api::ChangeUserRequest { quota, prefix, ..change }, "is changed")
        }
        "disable" => {
            changed(program, of, api::ChangeUserRequest { disabled: Some(true), ..change }, "can log in no more")
        }
        "enable" => {
            changed(program, of, api::ChangeUserRequest { disabled: Some(false), ..change }, "can log in again")
        }
        "reset-password" => reset(program, name, of),
        "rm" => {
            done(users(of)?.remove(request(api::RemoveUserRequest { name: name.clone() })))?;
            say(&format!("{program}: {name} is removed"));
            Ok(())
        }
        "sessions" => {
            let found = done(users(of)?.sessions(request(api::SessionsRequest { user: name })))?.sessions;
            list_sessions(of, &found)
        }
        _ => end_session(program, of),
    }
}

/// Whether a quota is said.
fn of_quota(of: &ArgMatches) -> bool {
    QUOTA.into_iter().any(|flag| of.contains_id(flag))
}

/// What the flags say, and of `before` what they do not.
fn quota(of: &ArgMatches, before: api::Quota) -> api::Quota {
    let number = |name: &str, before: u32| of.get_one::<u32>(name).copied().unwrap_or(before);
    api::Quota {
        jobs: number("jobs", before.jobs),
        cores: number("cores", before.cores),
        stored_bytes: of.get_one::<u64>("stored").copied().unwrap_or(before.stored_bytes),
        submissions_a_minute: number("submissions-per-minute", before.submissions_a_minute),
    }
}

/// A quota in words; nothing where nothing is limited.
pub(super) fn quota_text(quota: Option<&api::Quota>) -> String {
    let quota = quota.copied().unwrap_or_default();
    let counts =
        [(quota.jobs, "jobs"), (quota.cores, "tasks at a time"), (quota.submissions_a_minute, "submissions a minute")];
    let counts = counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
    let stored = (quota.stored_bytes > 0).then(|| format!("{} stored", Size(quota.stored_bytes)));
    counts.chain(stored).collect::<Vec<_>>().join(", ")
}

pub(super) fn quota_json(quota: Option<&api::Quota>) -> Value {
    let quota = quota.copied().unwrap_or_default();
    json!({
        "jobs": quota.jobs, "cores": quota.cores, "stored_bytes": quota.stored_bytes,
        "submissions_a_minute": quota.submissions_a_minute,
    })
}

/// The password that is given, if one is; empty: one is to be made up.
fn given(of: &ArgMatches) -> Result<String, Failure> {
    let passwords = Passwords::of(of);
    Ok(if passwords.is_stdin() { passwords.known("")?.to_string() } else { String::new() })
}

/// Prints a password that was made up.
fn print_made_up(password: String) -> Result<(), Failure> {
    if password.is_empty() { Ok(()) } else { stdout::print(password + "\n") }
}

fn add(program: &str, name: String, of: &ArgMatches) -> Result<(), Failure> {
    let user = api::AddUserRequest {
        name: name.clone(),
        role: text(of, "role"),
        password: given(of)?,
        keep_password: of.get_flag("keep-password"),
        quota: of_quota(of).then(|| quota(of, api::Quota::default())),
        prefix: text(of, "prefix"),
        service_account: text(of, "service-account"),
    };
    let made = done(users(of)?.add(request(user)))?;
    say(&format!("{program}: {name} is added"));
    print_made_up(made.password)
}

fn reset(program: &str, name: String, of: &ArgMatches) -> Result<(), Failure> {
    let reset = api::ResetPasswordRequest { name: name.clone(), password: given(of)? };
    let made = done(users(of)?.reset_password(request(reset)))?;
    say(&format!("{program}: {name} has another password, to be changed at the next login"));
    print_made_up(made.password)
}

fn changed(program: &str, of: &ArgMatches, change: api::ChangeUserRequest, told: &str) -> Result<(), Failure> {
    let name = change.name.clone();
    done(users(of)?.change(request(change)))?;
    say(&format!("{program}: {name} {told}"));
    Ok(())
}

fn as_json(user: &api::User) -> Value {
    json!({
        "name": user.name, "role": user.role, "disabled": user.disabled, "must_change": user.must_change,
        "created_ms": user.created_ms, "prefix": user.prefix, "quota": quota_json(user.quota.as_ref()),
        "sessions": user.sessions, "jobs": user.jobs, "service_account": user.service_account,
    })
}

fn state(user: &api::User) -> &'static str {
    match (user.disabled, user.must_change) {
        (true, _) => "disabled",
        (false, true) => "must change the password",
        (false, false) => "active",
    }
}

fn list_users(of: &ArgMatches) -> Result<(), Failure> {
    let mut client = users(of)?;
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = api::ListUsersRequest { name: String::new(), page_size: PAGE, page_token };
        let page = done(client.list(request(page)))?;
        all.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let head = ["USER", "ROLE", "STATE", "JOBS", "SESSIONS", "FILES", "QUOTA", "CREATED", "ACCOUNT"];
    let row = |user: &api::User| {
        let (jobs, sessions) = (user.jobs.to_string(), user.sessions.to_string());
        let (quota, created) = (quota_text(user.quota.as_ref()), date(user.created_ms));
        let (name, role, files) = (user.name.clone(), user.role.clone(), user.prefix.clone());
        vec![name, role, state(user).into(), jobs, sessions, files, quota, created, user.service_account.clone()]
    };
    list(of, &all, (&head, 5), row, as_json)
}

/// One user.
fn find(name: &str, of: &ArgMatches) -> Result<api::User, Failure> {
    let wanted = api::ListUsersRequest { name: name.into(), ..Default::default() };
    let found = done(users(of)?.list(request(wanted)))?.users;
    let none = || Failure::Cluster(format!("there is no user {name}; user ls lists those there are"));
    found.into_iter().next().ok_or_else(none)
}

fn show_user(name: &str, of: &ArgMatches) -> Result<(), Failure> {
    let user = find(name, of)?;
    let rows = vec![
        ("user", user.name.clone()),
        ("role", user.role.clone()),
        ("state", state(&user).into()),
        ("files", user.prefix.clone()),
        ("quota", quota_text(user.quota.as_ref())),
        ("jobs", user.jobs.to_string()),
        ("sessions", user.sessions.to_string()),
        ("created", date(user.created_ms)),
        ("account", user.service_account.clone()),
    ];
    show(of, &user.name, rows, &as_json(&user))
}

pub(super) fn list_sessions(of: &ArgMatches, found: &[api::Session]) -> Result<(), Failure> {
    let head = ["SESSION", "USER", "TOKEN", "LABEL", "ENDS", "ROLE", "CREATED", "USED"];
    let row = |session: &api::Session| {
        let api::Session { id, user, token, label, role, created_ms, used_ms, expires_ms } = session.clone();
        vec![id, user, yes(token), label, date(expires_ms), role, date(created_ms), date(used_ms)]
    };
    let json = |session: &api::Session| {
        json!({
            "session": session.id, "user": session.user, "token": session.token, "label": session.label,
            "role": session.role, "created_ms": session.created_ms, "used_ms": session.used_ms,
            "expires_ms": session.expires_ms,
        })
    };
    list(of, found, (&head, 5), row, json)
}

pub(super) fn end_session(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let session = text(of, "session");
    done(users(of)?.end_session(request(api::EndSessionRequest { session: session.clone() })))?;
    say(&format!("{program}: {session} has ended"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> ArgMatches {
        let command = quota_flags(Command::new("q").no_binary_name(true));
        command.try_get_matches_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn of_a_quota_that_is_not_said_stays_as_it_was() {
        let before = api::Quota { jobs: 1, cores: 2, stored_bytes: 3, submissions_a_minute: 4 };
        assert!(!of_quota(&parsed("")));
        assert_eq!(quota(&parsed(""), before), before);
        let said = parsed("--jobs 0 --stored 1GiB");
        assert!(of_quota(&said));
        assert_eq!(quota(&said, before), api::Quota { jobs: 0, stored_bytes: 1 << 30, ..before });
        assert_eq!((bytes("0"), bytes("1k")), (Ok(0), Ok(1024)));
    }

    #[test]
    fn quotas_are_told_in_words() {
        let quota = api::Quota { jobs: 10, stored_bytes: 100 << 30, ..Default::default() };
        assert_eq!(quota_text(Some(&quota)), "10 jobs, 100 GiB stored");
        assert_eq!(quota_text(None), "");
    }

    #[test]
    fn the_commands_are_right() {
        command("g").debug_assert();
    }
}
