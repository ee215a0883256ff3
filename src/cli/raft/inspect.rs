//! `raft inspect`: what is in the folder of a node, checked. It works on a copy and writes nothing there.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};
use gristmill_raft::report::{Place, Report};
use gristmill_raft::{Error, verify};
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::{panics, stdout};
use super::{id_text, json};

const CHECKS: &str = "\
passed: identity, entries without gaps, their checksums and chain, the head, the mark outside of the database, the \
snapshot's digest, that it covers what was purged";

pub(super) fn command(program: &str) -> Command {
    let folder = Arg::new("folder").value_name("DIR").required(true).value_parser(value_parser!(PathBuf));
    let scratch = Arg::new("temp-dir").long("temp-dir").value_name("DIR").value_parser(value_parser!(PathBuf));
    Command::new("inspect")
        .about("Check the folder of a node that does not run, and tell what is in it")
        .long_about(
            "Check the folder of a node that does not run, and tell what is in it\n\n\
             Everything is read: every entry of the log and the snapshot. The folder is not written to; the database is \
             copied first. If a check fails, the exit code is 1, and what is said is what was expected, what was found, and \
             how the node comes back.",
        )
        .arg(folder.value_hint(ValueHint::DirPath).help("The node's folder"))
        .arg(json().help("Print one line of JSON, of a failed check as well"))
        .arg(scratch.value_hint(ValueHint::DirPath).help("Where the database is copied to [default: that of the system]"))
        .after_help(format!("Example:\n  {program} raft inspect /var/lib/gristmill"))
}

pub(super) fn inspect(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let Some(folder) = of.get_one::<PathBuf>("folder") else { return Ok(()) };
    let system = std::env::temp_dir();
    let scratch = of.get_one::<PathBuf>("temp-dir").unwrap_or(&system);
    let copied = tempfile::Builder::new().prefix("gristmill-inspect-").tempdir_in(scratch);
    let copied =
        copied.map_err(|source| Failure::File { action: "create a folder in", path: scratch.clone(), source })?;
    let checked = check(folder, copied.path());
    match checked {
        Ok(report) if of.get_flag("json") => stdout::print(format!("{}\n", of_report(&report))),
        Ok(report) => stdout::print(format!("{report}\nchecks     {CHECKS}\n")),
        Err(error) => {
            let failure = Failure::Node(error);
            if of.get_flag("json") {
                stdout::print(format!("{}\n", of_failure(program, folder, &failure)))?;
            }
            Err(failure)
        }
    }
}

/// In a thread, whose panic is no bug of ours: the database may panic over damage.
fn check(folder: &Path, scratch: &Path) -> Result<Report, Error> {
    let checked = std::thread::scope(|scope| scope.spawn(|| verify::inspect(folder, scratch)).join());
    checked.unwrap_or_else(|_| {
        Err(Error::Checked(format!(
            "the database in {} is damaged: expected one that can be read, found one over which its reader panics ({}); \
             move the folder away, start with an empty one, and remove the old node id from the cluster",
            folder.display(),
            panics::last()
        )))
    })
}

fn of_report(report: &Report) -> Value {
    let place = |place: Place| json!({"term": place.term, "index": place.index});
    let peers = |peers: &[gristmill_raft::net::Peer]| {
        let peers = peers.iter().map(|peer| json!({"id": id_text(peer.id), "address": peer.address}));
        peers.collect::<Vec<_>>()
    };
    let chain: String = report.chain.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "ok": true,
        "node": id_text(report.identity.node),
        "cluster": id_text(report.identity.cluster),
        "vote": report.vote.map(|(term, node, quorum)| json!({"term": term, "node": id_text(node), "quorum": quorum})),
        "entries": report.entries,
        "entry_bytes": report.payload_bytes,
        "purged": report.purged.map(place),
        "last": report.last.map(place),
        "chain": chain,
        "committed": report.committed.map(place),
        "snapshot": report.snapshot.map(|(last, bytes)| json!({"last": last.map(place), "bytes": bytes})),
        "voters": peers(&report.voters),
        "learners": peers(&report.learners),
        "writes": report.write,
        "marked_writes": report.marked_write,
        "database_bytes": report.log_bytes,
        "file_bytes": report.file_bytes,
    })
}

fn of_failure(program: &str, folder: &Path, failure: &Failure) -> Value {
    let node = match failure {
        Failure::Node(Error::Log { node, .. } | Error::Snapshot { node, .. }) => *node,
        _ => None,
    };
    let folder = folder.display();
    let rejoin = node.map(|node| {
        [
            format!("mv {folder} {folder}.lost"),
            format!("mkdir {folder} # and start the node"),
            format!("{program} raft remove {} --at ADDRESS", id_text(node)),
        ]
    });
    json!({"ok": false, "node": node.map(id_text), "error": failure.line(), "rejoin": rejoin})
}
