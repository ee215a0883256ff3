//! `job events`, `job report` and `job logs`: what happened to a job, and what its tasks said.

use clap::{Arg, ArgAction, ArgMatches, Command};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::job_event::Kind;
use gristmill_proto::v1::jobs_client::JobsClient;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::stdout;
use super::ask::{WITHIN, answered, block_on, format, table};
use super::bearer::Client;
use super::report::{Report, seconds};
use crate::cluster::answer;

fn output() -> Arg {
    let output = Arg::new("output").long("output").short('o').value_name("FORMAT").default_value("table");
    output.value_parser(["table", "json"]).help("How to print")
}

/// Adds them to the commands about one job.
pub(super) fn commands(program: &str, job: Command, id: impl Fn() -> Arg) -> Command {
    let one = |name, about, example: &str| {
        Command::new(name).about(about).arg(id()).after_help(format!("Example:\n  {program} job {example}"))
    };
    let events = one("events", "Show what happened to a job, oldest first", "events 5b1c0a94e37d2f68-12");
    let report =
        one("report", "Show how long a job's stages and tasks took, and what failed", "report 5b1c0a94e37d2f68-12");
    let task =
        Arg::new("task").long("task").value_name("TASK").help("Only of this task, as 'map 12', 'reduce 0', survey");
    let follow = Arg::new("follow").long("follow").short('f').action(ArgAction::SetTrue);
    let logs = one(
        "logs",
        "Show what a job's tasks said: notes, troubles, why attempts failed",
        "logs 5b1c0a94e37d2f68-12 --task 'map 3'",
    );
    let logs = logs.arg(task).arg(follow.help("Go on until the job has ended")).arg(output());
    job.subcommand(events.arg(output())).subcommand(report.arg(output())).subcommand(logs)
}

/// Does one of them; `None` if it is none of these.
pub(super) fn command(what: &str, of: &ArgMatches, channel: Client, id: &str) -> Option<Result<(), Failure>> {
    Some(match what {
        "events" => events(of, channel, id),
        "report" => report(of, channel, id),
        "logs" => logs(of, channel, id),
        _ => return None,
    })
}

/// All events of a job.
async fn history(channel: Client, job: &str) -> Result<Vec<api::JobEvent>, Failure> {
    let request = api::HistoryRequest { job: job.into() };
    let mut client = JobsClient::new(channel);
    let mut answers = answered(client.history(answer::request(request, WITHIN))).await?;
    let mut events = Vec::new();
    while let Some(event) = answers.message().await.map_err(|status| Failure::Cluster(status.message().into()))? {
        events.push(event);
    }
    Ok(events)
}

fn kind(event: &api::JobEvent) -> String {
    event.kind().as_str_name().trim_start_matches("KIND_").to_lowercase()
}

fn as_json(event: &api::JobEvent) -> Value {
    json!({
        "time_ms": event.time_ms, "kind": kind(event), "what": event.what, "detail": event.detail, "task": event.task,
        "attempt": event.attempt, "worker": event.worker, "given_ms": event.given_ms, "backup": event.backup,
        "input_bytes": event.input_bytes, "output_records": event.output_records, "output_bytes": event.output_bytes,
    })
}

fn events(of: &ArgMatches, channel: Client, id: &str) -> Result<(), Failure> {
    let events = block_on(history(channel, id))?;
    if format(of) == "json" {
        return stdout::print(Value::from(events.iter().map(as_json).collect::<Vec<_>>()).to_string() + "\n");
    }
    let begun = events.iter().find(|event| event.kind() == Kind::Submitted).map_or(0, |event| event.time_ms);
    let row = |event: &api::JobEvent| {
        let after = seconds(event.time_ms.saturating_sub(begun));
        vec![after, event.what.clone(), event.worker.clone(), event.attempt.clone(), event.detail.clone()]
    };
    let head = ["AFTER", "EVENT", "WORKER", "ATTEMPT", "DETAIL"].map(String::from).to_vec();
    stdout::print(table(&std::iter::once(head).chain(events.iter().map(row)).collect::<Vec<_>>()))
}

fn report(of: &ArgMatches, channel: Client, id: &str) -> Result<(), Failure> {
    let (job, events) = block_on(async {
        let request = answer::request(api::GetJobRequest { job: id.into() }, WITHIN);
        let job = answered(JobsClient::new(channel.clone()).get(request)).await?;
        Ok((job, history(channel, id).await?))
    })?;
    let report = Report::of(&job, &events);
    stdout::print(match format(of) {
        "json" => json!(report).to_string() + "\n",
        _ => report.text(),
    })
}

/// Prints lines as they come; with `-o json` one object a line.
fn logs(of: &ArgMatches, channel: Client, id: &str) -> Result<(), Failure> {
    let (json, follow) = (format(of) == "json", of.get_flag("follow"));
    let task = of.get_one::<String>("task").cloned().unwrap_or_default();
    block_on(async {
        let request = api::LogsRequest { job: id.into(), task, follow };
        let mut client = JobsClient::new(channel);
        // Followed for as long as the job runs: without a deadline.
        let mut answers = answered(client.logs(request)).await?;
        let failed = |status: tonic::Status| Failure::Cluster(status.message().into());
        while let Some(said) = answers.message().await.map_err(failed)? {
            let api::LogLine { time_ms, task, attempt, worker, line } = said;
            stdout::print(match json {
                true => {
                    json!({"time_ms": time_ms, "task": task, "attempt": attempt, "worker": worker, "line": line})
                        .to_string()
                        + "\n"
                }
                false => format!("{task} [{attempt} on {worker}] {line}\n"),
            })?;
        }
        Ok(())
    })
}
