//! Asking a cluster: `jobs`, `job`, `workers` and `cluster`.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::cluster_client::ClusterClient;
use gristmill_proto::v1::jobs_client::JobsClient;
use serde_json::{Value, json};
use tonic::{Response, Status};

use super::super::failure::Failure;
use super::super::stdout;
use super::at::{At, runtime};
use super::bearer::Client;
use crate::cluster::answer;

/// How long an answer may take.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

pub(super) fn output() -> Arg {
    let output = Arg::new("output").long("output").short('o').value_name("FORMAT").default_value("table");
    output.value_parser(["table", "wide", "json", "name"]).help("How to print")
}

pub(super) fn channel(of: &ArgMatches) -> Result<Client, Failure> {
    At::from_arg_matches(of)?.channel()
}

/// Whether Ctrl-C ends what is asked and not the program.
static STAYS: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends what is asked and not the program.
pub(super) fn stay() {
    STAYS.store(true, Ordering::Relaxed);
}

/// Runs what asks.
pub(super) fn block_on<T>(what: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime()?;
    if !STAYS.load(Ordering::Relaxed) {
        return runtime.block_on(what);
    }
    runtime.block_on(async {
        tokio::select! {
            done = what => done,
            Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted { begun: stdout::has_begun() }),
        }
    })
}

/// Waits for one answer.
pub(super) async fn answered<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    answered_within(WITHIN, call).await
}

/// Waits so long for one answer.
pub(super) async fn answered_within<T>(
    within: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    answer::within(within, call).await.map_err(|e| Failure::Cluster(e.to_string()))
}

pub(super) fn commands(program: &str, all: Command) -> Command {
    let id = || Arg::new("job").value_name("JOB").required(true).help("The job's id, as jobs shows it");
    let one = |name, about, example: &str| {
        Command::new(name).about(about).arg(id()).after_help(format!("Example:\n  {program} job {example}"))
    };
    let job = Command::new("job")
        .about("Look at one job, or change it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(one("show", "Show a job", "show 5b1c0a94e37d2f68-12").arg(output()))
        .subcommand(one("watch", "Follow a job to its end", "watch 5b1c0a94e37d2f68-12"))
        .subcommand(one("cancel", "Cancel a job", "cancel 5b1c0a94e37d2f68-12"))
        .subcommand(
            one("result", "Print the result of a completed job, decompressed", "result 5b1c0a94e37d2f68-12 | head")
                .arg(
                    Arg::new("part")
                        .long("part")
                        .value_name("N")
                        .value_parser(clap::value_parser!(u32))
                        .help("Only this part, counted from 0"),
                )
                .arg(
                    Arg::new("raw")
                        .long("raw")
                        .action(clap::ArgAction::SetTrue)
                        .help("As it is stored, not decompressed"),
                ),
        )
        .subcommand(one("retry", "Submit a failed or cancelled job again", "retry 5b1c0a94e37d2f68-12"))
        .after_help(format!("Example:\n  {program} job show 5b1c0a94e37d2f68-12"));
    let job = super::told::commands(program, job, id);
    let jobs = Command::new("jobs").about("List jobs, the newest first").arg(output());
    let workers = Command::new("workers").about("List workers").arg(output());
    let status = Command::new("status").about("Show masters, and what the cluster does").arg(output());
    let cluster = Command::new("cluster")
        .about("Look at the cluster, or back up what it knows")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(status.after_help(format!("Example:\n  {program} cluster status")))
        .subcommands(super::backup::commands(program))
        .after_help(format!("Example:\n  {program} cluster status"));
    let at = At::augment_args;
    all.subcommand(at(jobs).after_help(format!("Example:\n  {program} jobs")))
        .subcommand(at(job))
        .subcommand(at(workers).after_help(format!("Example:\n  {program} workers -o wide")))
        .subcommand(at(cluster))
        .subcommand(at(super::app::command(program)))
        .subcommand(at(super::data::command(program)))
        .subcommand(at(super::debug::command(program)))
}

/// Rows of columns, as wide as they must be.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

pub(super) fn format(of: &ArgMatches) -> &str {
    of.get_one::<String>("output").map_or("table", String::as_str)
}

pub(super) fn state(job: &api::JobStatus) -> String {
    job.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase()
}

/// What runs it, or as what it was pushed.
fn app(job: &api::JobStatus) -> String {
    let app = job.spec.as_ref().and_then(|spec| spec.app.as_ref());
    app.map(|app| if app.pushed.is_empty() { &app.name } else { &app.pushed }).cloned().unwrap_or_default()
}

fn tasks(counts: Option<&api::TaskCounts>) -> String {
    counts.map_or_else(String::new, |counts| format!("{}/{}", counts.done, counts.total))
}

fn as_json(job: &api::JobStatus) -> Value {
    let counts = |counts: Option<&api::TaskCounts>| {
        counts.map(|c| {
            json!({"total": c.total, "done": c.done, "running": c.running, "backups": c.backups, "failures": c.failures})
        })
    };
    let spec = job.spec.clone().unwrap_or_default();
    json!({
        "id": job.id, "app": app(job), "state": state(job), "user": job.principal, "inputs": spec.inputs,
        "output": spec.output, "submitted_ms": job.submitted_ms, "started_ms": job.started_ms, "ended_ms": job.ended_ms,
        "maps": counts(job.maps.as_ref()), "reduces": counts(job.reduces.as_ref()), "input_bytes": job.input_bytes,
        "bad_records": job.bad_records, "output_records": job.output_records, "output_bytes": job.output_bytes, "counters": job.counters,
        "error": job.error.as_ref().map(|e| {
            let reason = e.reason().as_str_name().trim_start_matches("REASON_").to_lowercase();
            json!({"reason": reason, "message": e.message, "next_step": e.next_step})
        }),
        "retry_of": job.retry_of, "next": job.next, "notices": job.notices,
    })
}

pub(super) fn jobs(of: &ArgMatches) -> Result<(), Failure> {
    let channel = channel(of)?;
    let found = block_on(async {
        let mut client = JobsClient::new(channel);
        answered(client.list(answer::request(api::ListJobsRequest { page_size: 1000, ..Default::default() }, WITHIN)))
            .await
    })?;
    let jobs = found.jobs;
    stdout::print(match format(of) {
        "json" => Value::from(jobs.iter().map(as_json).collect::<Vec<_>>()).to_string() + "\n",
        "name" => jobs.iter().map(|job| job.id.clone() + "\n").collect(),
        format => {
            let mut head = vec!["JOB", "APP", "STATE", "MAPS", "REDUCES"];
            if format == "wide" {
                head.extend(["USER", "OUTPUT", "RECORDS"]);
            }
            let row = |job: &api::JobStatus| {
                let mut row =
                    vec![job.id.clone(), app(job), state(job), tasks(job.maps.as_ref()), tasks(job.reduces.as_ref())];
                if format == "wide" {
                    let output = job.spec.as_ref().map(|spec| spec.output.clone()).unwrap_or_default();
                    row.extend([job.principal.clone(), output, job.output_records.to_string()]);
                }
                row
            };
            let head = head.into_iter().map(String::from).collect();
            table(&std::iter::once(head).chain(jobs.iter().map(row)).collect::<Vec<_>>())
        }
    })
}

fn shown(job: &api::JobStatus) -> String {
    let spec = job.spec.clone().unwrap_or_default();
    let mut rows = vec![
        ("job", job.id.clone()),
        ("app", [vec![app(job)], spec.app.unwrap_or_default().arguments].concat().join(" ")),
        ("state", state(job)),
        ("inputs", spec.inputs.join(" ")),
        ("output", spec.output),
        ("maps", tasks(job.maps.as_ref())),
        ("reduces", tasks(job.reduces.as_ref())),
        ("records", job.output_records.to_string()),
    ];
    if job.bad_records > 0 {
        rows.push(("bad records", job.bad_records.to_string()));
    }
    let counters = job.counters.iter().map(|(name, n)| format!("{name}={n}")).collect::<Vec<_>>();
    rows.push(("counters", counters.join(" ")));
    rows.extend(job.notices.iter().map(|waits| ("waits", waits.clone())));
    if let Some(error) = &job.error {
        rows.push(("error", error.message.clone()));
        rows.push(("next step", error.next_step.clone()));
    }
    rows.retain(|(_, value)| !value.is_empty());
    table(&rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect::<Vec<_>>())
}

pub(super) fn job(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let id = of.get_one::<String>("job").cloned().unwrap_or_default();
    let channel = channel(of)?;
    let mut client = JobsClient::new(channel.clone());
    match what {
        "show" => {
            let job = block_on(async {
                answered(client.get(answer::request(api::GetJobRequest { job: id }, WITHIN))).await
            })?;
            stdout::print(match format(of) {
                "json" => as_json(&job).to_string() + "\n",
                "name" => job.id + "\n",
                _ => shown(&job),
            })
        }
        "cancel" => {
            let request = api::CancelJobRequest { job: id, reason: String::new() };
            let job = block_on(async { answered(client.cancel(answer::request(request, WITHIN))).await })?;
            stdout::print(format!("{} is {}\n", job.id, state(&job)))
        }
        "retry" => {
            let request = api::RetryJobRequest { job: id, key: super::submit::key() };
            let done = block_on(async { answered(client.retry(answer::request(request, WITHIN))).await })?;
            stdout::print(done.job + "\n")
        }
        "result" => super::result::result(client, id, of),
        _ => match super::told::command(what, of, channel.clone(), &id) {
            Some(done) => done,
            None => super::submit::watch(program, channel, &id, true),
        },
    }
}

pub(super) fn workers(of: &ArgMatches) -> Result<(), Failure> {
    let mut client = ClusterClient::new(channel(of)?);
    let found = block_on(async { answered(client.workers(answer::request(api::WorkersRequest {}, WITHIN))).await })?;
    let workers = found.workers;
    stdout::print(match format(of) {
        "json" => {
            let worker = |w: &api::Worker| {
                json!({
                    "name": w.name, "address": w.address, "state": w.state, "slots": w.slots, "busy_slots": w.busy_slots,
                    "incarnation": w.incarnation, "apps": w.apps,
                })
            };
            Value::from(workers.iter().map(worker).collect::<Vec<_>>()).to_string() + "\n"
        }
        "name" => workers.iter().map(|worker| worker.name.clone() + "\n").collect(),
        format => {
            let mut rows = vec![["WORKER", "STATE", "BUSY", "ADDRESS"].map(String::from).to_vec()];
            if format == "wide" {
                rows[0].push("APPS".into());
            }
            rows.extend(workers.iter().map(|w| {
                let busy = format!("{}/{}", w.busy_slots, w.slots);
                let mut row = vec![w.name.clone(), w.state.clone(), busy, w.address.clone()];
                if format == "wide" {
                    row.push(w.apps.join(","));
                }
                row
            }));
            table(&rows)
        }
    })
}

pub(super) fn cluster(of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let mut client = ClusterClient::new(channel(of)?);
    match what {
        "backup" => return super::backup::take(client, of),
        "backups" => return super::backup::list(client, of),
        _ => {}
    }
    let s = block_on(async { answered(client.status(answer::request(api::StatusRequest {}, WITHIN))).await })?;
    let role = |m: &api::MasterStatus| match (m.leader, m.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    };
    stdout::print(match format(of) {
        "json" => {
            let master = |m: &api::MasterStatus| json!({"id": m.id, "address": m.address, "role": role(m)});
            let masters: Vec<Value> = s.masters.iter().map(master).collect();
            let all = json!({
                "cluster": s.cluster, "term": s.term, "applied": s.applied, "masters": masters, "workers": s.workers,
                "slots": s.slots, "busy_slots": s.busy_slots, "queued_jobs": s.queued_jobs,
                "running_jobs": s.running_jobs, "state_digest": s.state_digest, "version": s.version,
                "feature_level": s.feature_level,
            });
            all.to_string() + "\n"
        }
        "name" => s.cluster + "\n",
        _ => {
            let head = format!(
                "cluster {}, term {}, {} workers, {} of {} slots busy, {} jobs run, {} wait\n",
                s.cluster, s.term, s.workers, s.busy_slots, s.slots, s.running_jobs, s.queued_jobs
            );
            let row = |m: &api::MasterStatus| vec![role(m).to_string(), m.id.clone(), m.address.clone()];
            head + &table(&s.masters.iter().map(row).collect::<Vec<_>>())
        }
    })
}
