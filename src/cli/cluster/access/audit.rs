//! `audit`: what was changed and refused, as it is written down.

use std::io::Write as _;

use clap::{Arg, ArgMatches, Command, value_parser};
use gristmill_engine::error::Error;
use gristmill_proto::v1 as api;
use serde_json::json;

use super::super::super::failure::{Failure, one_line};
use super::super::super::stdout;
use super::super::ask::{answered, block_on, format};
use super::super::data::date;
use super::{plain_output, text, users};
use crate::cluster::answer;

pub(super) fn command(program: &str) -> Command {
    let from = Arg::new("from").long("from").value_name("ID").value_parser(value_parser!(u64));
    Command::new("audit")
        .about("Print the audit log: what was changed and refused, oldest first")
        .arg(Arg::new("user").long("user").value_name("USER").help("Only what this user did or tried"))
        .arg(from.help("Only events from this id on"))
        .arg(plain_output().help("How to print; json has an object a line, with all that is known"))
        .after_help(format!(
            "Examples:\n  {program} audit --user ann\n  {program} audit --from 4096 -o json > audit.jsonl"
        ))
}

fn as_json(event: &api::AuditEvent) -> String {
    let json = json!({
        "id": event.id, "time_ms": event.time_ms, "user": event.user, "session": event.session, "from": event.from,
        "action": event.action, "target": event.target, "refused": event.refused, "times": event.times,
    });
    format!("{json}\n")
}

/// A line. Names may hold anything.
fn as_text(event: &api::AuditEvent) -> String {
    let user = if event.user.is_empty() { "-" } else { &event.user };
    let refused = if event.refused.is_empty() { String::new() } else { format!("  refused: {}", event.refused) };
    let times = if event.times > 1 { format!("  ({} times)", event.times) } else { String::new() };
    let (id, time, from, action) = (event.id, date(event.time_ms), &event.from, &event.action);
    let line = format!("{id:>8}  {time}  {user:<12}  {from:<21}  {action:<22}  {}{refused}{times}", event.target);
    one_line(line.trim_end()) + "\n"
}

pub(super) fn audit(of: &ArgMatches) -> Result<(), Failure> {
    let json = format(of) == "json";
    let wanted = api::AuditRequest { from: of.get_one::<u64>("from").copied().unwrap_or(0), user: text(of, "user") };
    let mut client = users(of)?;
    let mut out = stdout::open()?;
    block_on(async {
        // However long the log is: without a deadline.
        let mut events = answered(client.audit(wanted)).await?;
        let failed = |status: tonic::Status| Failure::Cluster(answer::outcome(&status).to_string());
        while let Some(event) = events.message().await.map_err(failed)? {
            let line = if json { as_json(&event) } else { as_text(&event) };
            out.write_all(line.as_bytes()).map_err(Error::Stdout)?;
        }
        Ok(())
    })?;
    out.flush().map_err(|e| Error::Stdout(e).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = api::AuditEvent {
            id: 7,
            time_ms: 951_827_696_000,
            from: "10.0.0.5:4711".into(),
            action: "Access/Login".into(),
            target: "an\nn".into(),
            refused: "the user or the password is wrong".into(),
            times: 3,
            ..Default::default()
        };
        let text = as_text(&event);
        assert!(text.starts_with("       7  2000-02-29 12:34:56  -  "), "{text}");
        assert!(text.ends_with("an\\nn  refused: the user or the password is wrong  (3 times)\n"), "{text}");
        assert_eq!(as_json(&event).lines().count(), 1);
    }
}
