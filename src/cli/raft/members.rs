//! `raft members`, `raft remove` and `raft transfer`: asked of a running node.

use clap::{Arg, ArgMatches, Command};
use gristmill_proto::internal::v1::NodeStatus;
use serde_json::json;

use super::super::failure::Failure;
use super::super::stdout;
use super::{ask, asking, id_text, json, parse_id};

pub(super) fn members_command(program: &str) -> Command {
    asking("members")
        .about("List the members of a cluster, as a node sees them")
        .arg(json().help("Print one line of JSON"))
        .after_help(format!("Example:\n  {program} raft members --at 127.0.0.1:7070"))
}

pub(super) fn remove_command(program: &str) -> Command {
    asking("remove")
        .about("Remove a node from its cluster, for ever")
        .long_about(
            "Remove a node from its cluster, for ever\n\n\
             For a node whose folder is lost, or that is not to come back. It needs not run. Its id never comes back: \
             with an empty folder it joins as another.",
        )
        .arg(id_arg().required(true).help("The node's id, as raft members shows it"))
        .after_help(format!("Example:\n  {program} raft remove 3fa94c21d0b7e865 --at 127.0.0.1:7070"))
}

pub(super) fn transfer_command(program: &str) -> Command {
    asking("transfer")
        .about("Hand the leadership of a cluster to another node")
        .arg(id_arg().help("Who is to lead; by default any other node with a vote"))
        .after_help(format!("Example:\n  {program} raft transfer --at 127.0.0.1:7070"))
}

fn id_arg() -> Arg {
    Arg::new("id").value_name("ID").value_parser(parse_id)
}

pub(super) fn members(of: &ArgMatches) -> Result<(), Failure> {
    let status = ask(of, |client| async move { client.status().await })?;
    stdout::print(if of.get_flag("json") { as_json(&status) } else { as_text(&status) })
}

pub(super) fn remove(of: &ArgMatches) -> Result<(), Failure> {
    let id = of.get_one("id").copied().unwrap_or(0);
    ask(of, |client| async move { client.remove(id).await })?;
    stdout::print(format!("removed node {}\n", id_text(id)))
}

pub(super) fn transfer(of: &ArgMatches) -> Result<(), Failure> {
    let to = of.get_one("id").copied();
    let leader = ask(of, |client| async move { client.transfer(to).await })?;
    stdout::print(format!("node {} at {} leads\n", id_text(leader.id), leader.address))
}

fn leads(status: &NodeStatus, id: u64) -> bool {
    status.leader.as_ref().is_some_and(|leader| leader.id == id)
}

fn as_text(status: &NodeStatus) -> String {
    let mut text = format!("cluster {}, term {}\n", id_text(status.cluster), status.term);
    let voters = status.voters.iter().map(|m| (if leads(status, m.id) { "leader" } else { "voter" }, m));
    for (role, member) in voters.chain(status.learners.iter().map(|m| ("learner", m))) {
        text += &format!("{role:<8}  {}  {}\n", id_text(member.id), member.address);
    }
    text
}

fn as_json(status: &NodeStatus) -> String {
    let member = |votes| move |m: &gristmill_proto::internal::v1::Member| json!({"id": id_text(m.id), "address": m.address, "votes": votes, "leads": leads(status, m.id)});
    let members = status.voters.iter().map(member(true)).chain(status.learners.iter().map(member(false)));
    let asked = json!({
        "id": id_text(status.id), "role": status.role, "last": status.last, "committed": status.committed,
        "applied": status.applied, "snapshot": status.snapshot,
    });
    let leader = status.leader.as_ref().map(|leader| id_text(leader.id));
    let all = json!({
        "cluster": id_text(status.cluster), "term": status.term, "leader": leader,
        "members": members.collect::<Vec<_>>(), "asked": asked,
    });
    format!("{all}\n")
}
