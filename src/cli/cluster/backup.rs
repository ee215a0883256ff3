//! `cluster backup` and `cluster backups`: what a cluster knows, as objects in its store. Masters begin with one by `--restore`.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::cluster_client::ClusterClient;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::sizes::Size;
use super::super::stdout;
use super::ask::{WITHIN, answered, answered_within, block_on, format, output, table};
use super::bearer::Client;
use super::data::date;
use crate::cluster::answer;

/// How long a backup may take: of a state of hundreds of megabytes into a slow store.
const TAKEN_WITHIN: Duration = Duration::from_secs(3600);

pub(super) fn commands(program: &str) -> [Command; 2] {
    let to = Arg::new("to").long("to").value_name("NAME");
    let keep = Arg::new("keep").long("keep").value_name("N").value_parser(value_parser!(u32).range(1..));
    let backup = Command::new("backup")
        .about("Put all that the cluster knows into its store")
        .long_about(
            "Put all that the cluster knows into its store\n\n\
             Jobs, their histories' rows, users, sessions, keys and pools, in one object below .gristmill; none of the store's \
             files. It holds verifiers of passwords and the keys that sign tokens: protect the store alike.",
        )
        .arg(to.help("Its name among the cluster's backups; by default made of the time"))
        .arg(keep.help("Remove older ones, but the newest N of those that were named by their time, this one among them"))
        .arg(output())
        .after_help(format!("Example:\n  {program} cluster backup --keep 14"));
    let backups = Command::new("backups")
        .about("List backups, the newest last")
        .arg(output())
        .after_help(format!("Example:\n  {program} cluster backups"));
    [backup, backups]
}

/// As a program reads it.
fn as_json(info: &api::BackupInfo) -> Value {
    json!({
        "name": info.name, "cluster": info.cluster, "applied": info.applied, "time_ms": info.time_ms, "bytes": info.bytes,
        "version": info.version, "feature_level": info.feature_level,
    })
}

/// What is told of some, in columns.
fn columns(found: &[api::BackupInfo], wide: bool) -> String {
    let mut head = vec!["BACKUP", "BYTES", "APPLIED", "TAKEN"];
    if wide {
        head.extend(["VERSION", "LEVEL"]);
    }
    let row = |info: &api::BackupInfo| {
        // What cannot be read says nothing of itself.
        let readable = !info.cluster.is_empty();
        let applied = if readable { info.applied.to_string() } else { "damaged".into() };
        let bytes = if wide { info.bytes.to_string() } else { Size(info.bytes).to_string() };
        let mut row = vec![info.name.clone(), bytes, applied, date(info.time_ms)];
        if wide && readable {
            row.extend([info.version.clone(), info.feature_level.to_string()]);
        }
        row
    };
    let head = head.into_iter().map(String::from).collect();
    table(&std::iter::once(head).chain(found.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn take(mut client: ClusterClient<Client>, of: &ArgMatches) -> Result<(), Failure> {
    let name = of.get_one::<String>("to").cloned().unwrap_or_default();
    let keep = of.get_one::<u32>("keep").copied().unwrap_or_default();
    let request = answer::request(api::BackupRequest { name, keep }, TAKEN_WITHIN);
    let taken = block_on(async { answered_within(TAKEN_WITHIN, client.backup(request)).await })?;
    stdout::print(match format(of) {
        "json" => as_json(&taken).to_string() + "\n",
        "name" => taken.name + "\n",
        format => columns(&[taken], format == "wide"),
    })
}

pub(super) fn list(mut client: ClusterClient<Client>, of: &ArgMatches) -> Result<(), Failure> {
    let found = block_on(async { answered(client.backups(answer::request(api::BackupsRequest {}, WITHIN))).await })?;
    let found = found.backups;
    stdout::print(match format(of) {
        "json" => Value::from(found.iter().map(as_json).collect::<Vec<_>>()).to_string() + "\n",
        "name" => found.iter().map(|info| info.name.clone() + "\n").collect(),
        format => columns(&found, format == "wide"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_right() {
        commands("g").into_iter().for_each(Command::debug_assert);
    }

    #[test]
    fn one_that_is_damaged_is_told_so() {
        let whole = api::BackupInfo { name: "a".into(), cluster: "7".into(), applied: 3, ..Default::default() };
        let damaged = api::BackupInfo { name: "b".into(), bytes: 9, ..Default::default() };
        let told = columns(&[whole, damaged], true);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[1].contains(" 3 ") && lines[2].contains("damaged"), "{told}");
    }
}
