//! What happened to a job, told from what the state knows of it: its own times, the ends of its tasks that counted, and the
//! incidents. Nothing is written down on the way, so nothing can be lost between a fact and its record: a new leader tells
//! the same, and what the state forgets with the job's row is put into the store before that.
//!
//! What runs right now only the leader can add.

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::failure::Cause;
use gristmill_proto::internal::v1::incident::Kind as Incident;
use gristmill_proto::v1::JobEvent;
use gristmill_proto::v1::job_event::Kind;

use super::ids::{AttemptId, Stage, job_name};
use super::job::{Job, JobState};
use super::task::{By, Result as Counted};

/// A task as people call it: "map 12".
pub fn task_name(stage: Stage, partition: u32) -> String {
    match stage {
        Stage::Survey => "survey".into(),
        Stage::Map => format!("map {partition}"),
        Stage::Reduce | Stage::Unspecified => format!("reduce {partition}"),
    }
}

/// An attempt as people call it: "TERM.COUNTER".
pub fn attempt_name(attempt: AttemptId) -> String {
    format!("{}.{}", attempt.term, attempt.counter)
}

/// All that is known to have happened, oldest first.
pub fn events(cluster: u64, job: &Job) -> Vec<JobEvent> {
    let mut events = vec![submitted(cluster, job)];
    if job.incidents_left_out > 0 {
        let what = format!("{} earlier incidents are not kept", job.incidents_left_out);
        events.push(event(job.submitted_ms, Kind::LeftOut, what));
    }
    if let Some(plan) = &job.plan {
        let detail = format!("{} map tasks, {} parts, {} bytes of input", plan.maps, plan.reduces, plan.input_bytes);
        events.push(JobEvent { detail, ..event(job.started_ms, Kind::Planned, "planned") });
    }
    let stages = [(Stage::Map, &job.maps), (Stage::Reduce, &job.reduces)];
    let tasks = stages.into_iter().flat_map(|(stage, tasks)| (0..).zip(tasks).map(move |(n, facts)| (stage, n, facts)));
    for (stage, partition, facts) in job.survey.iter().map(|facts| (Stage::Survey, 0, facts)).chain(tasks) {
        events.extend(facts.result.iter().flat_map(|result| done(stage, partition, result)));
    }
    events.extend(job.incidents.iter().flat_map(|incident| told(incident)));
    if job.decided_ms > 0 {
        events.push(event(job.decided_ms, Kind::Committed, "committed"));
    }
    events.extend(ended(cluster, job));
    // What came at the same time stays in the order in which it must have come.
    events.sort_by_key(|event| event.time_ms);
    events
}

/// That an attempt was given to a worker.
pub fn given(stage: Stage, partition: u32, attempt: AttemptId, by: &By) -> Option<JobEvent> {
    let about = about(stage, partition, attempt, by);
    let beside = if by.backup { " beside another attempt" } else { "" };
    let what = format!("{} given out{beside}", about.task);
    (by.given_ms > 0).then(|| JobEvent { time_ms: by.given_ms, kind: Kind::Given.into(), what, ..about })
}

fn event(time_ms: u64, kind: Kind, what: impl Into<String>) -> JobEvent {
    JobEvent { time_ms, kind: kind.into(), what: what.into(), ..JobEvent::default() }
}

/// What all events of an attempt have.
fn about(stage: Stage, partition: u32, attempt: AttemptId, by: &By) -> JobEvent {
    JobEvent {
        worker: by.worker.to_string(),
        attempt: attempt_name(attempt),
        task: task_name(stage, partition),
        given_ms: by.given_ms,
        backup: by.backup,
        ..JobEvent::default()
    }
}

fn submitted(cluster: u64, job: &Job) -> JobEvent {
    let mut detail = format!("by {}", job.principal);
    if job.retry_of != 0 {
        detail += &format!(", a repetition of {}", job_name(cluster, job.retry_of));
    }
    JobEvent { detail, ..event(job.submitted_ms, Kind::Submitted, "submitted") }
}

fn done(stage: Stage, partition: u32, result: &Counted) -> impl Iterator<Item = JobEvent> {
    let about = about(stage, partition, result.attempt, &result.by);
    let what = format!("{} done", about.task);
    let wire::Done { input_bytes, output_records, output_bytes, length, .. } = result.done;
    let output_bytes = if stage == Stage::Reduce { output_bytes } else { length };
    let (time_ms, kind) = (result.by.ended_ms, Kind::Done.into());
    let done = JobEvent { time_ms, kind, what, input_bytes, output_records, output_bytes, ..about };
    given(stage, partition, result.attempt, &result.by).into_iter().chain([done])
}

fn told(incident: &wire::Incident) -> impl Iterator<Item = JobEvent> + use<> {
    let wire::Incident { at_ms, given_ms, backup, partition, .. } = *incident;
    let by = By { worker: incident.worker.as_str().into(), given_ms, ended_ms: at_ms, backup };
    let attempt = incident.attempt.map(AttemptId::from);
    let about = attempt.map(|attempt| about(incident.stage(), partition, attempt, &by));
    let about = about.unwrap_or_else(|| JobEvent { worker: incident.worker.clone(), ..JobEvent::default() });
    let task = &about.task;
    let (kind, what) = match incident.kind() {
        Incident::Failed => (Kind::Failed, format!("{task} failed{}", blame(incident.cause()))),
        Incident::Stopped => (Kind::Stopped, format!("{task} stopped: another attempt was done first")),
        Incident::Gone => (Kind::Gone, format!("{task} came to nothing")),
        Incident::Lost => (Kind::Lost, format!("the segments of {task} are gone")),
        Incident::Moved => (Kind::Moved, format!("the segments of {task} are in the store")),
        Incident::Epoch => (Kind::Epoch, format!("{task} left other bytes than before: reducers begin anew")),
        Incident::WorkerLost => (Kind::WorkerLost, format!("worker lost with {} finished map tasks", incident.tasks)),
        Incident::WorkerLeaves => (Kind::WorkerLeaves, "worker leaves".into()),
        Incident::Unspecified => (Kind::Unspecified, "something happened that this build does not know".into()),
    };
    // Of segments and epochs the attempt has been told of when it was done, or will be.
    let begins = matches!(kind, Kind::Failed | Kind::Stopped | Kind::Gone);
    let given = attempt.filter(|_| begins).and_then(|attempt| given(incident.stage(), partition, attempt, &by));
    let told = JobEvent { time_ms: at_ms, kind: kind.into(), what, detail: incident.detail.clone(), ..about };
    given.into_iter().chain([told])
}

/// What a failure counts against.
fn blame(cause: Cause) -> &'static str {
    match cause {
        Cause::Worker => ", which does not count against it: the worker is at fault",
        Cause::Returned => ", which does not count against it: the worker gave it back",
        _ => "",
    }
}

fn ended(cluster: u64, job: &Job) -> Option<JobEvent> {
    let error = job.error.as_deref();
    let (kind, what) = match job.state {
        JobState::Completed => (Kind::Completed, "completed"),
        JobState::Failed => (Kind::FailedJob, "failed"),
        JobState::Cancelled => (Kind::Cancelled, "cancelled"),
        _ => return None,
    };
    let next = || if job.next == 0 { String::new() } else { format!("{} follows", job_name(cluster, job.next)) };
    let detail = error.map_or_else(next, |error| error.message.clone());
    Some(JobEvent { detail, ..event(job.ended_ms, kind, what) })
}
