//! From how a job stands to what is told of it: the status of its object, and its conditions. No I/O.

use gristmill_proto::v1::job_error::Reason;
use gristmill_proto::v1::{JobState, JobStatus, Phase as Half, TaskCounts};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::Refused;
use crate::crd::{MapReduceJobStatus, Phase, Tasks};

/// Why jobs are cancelled here. It is in the job's own error, by which these are told from what others cancel.
pub(super) const SUSPENDED: &str = "its MapReduceJob was suspended";
/// As [`SUSPENDED`].
pub(super) const DEADLINE: &str = "its MapReduceJob's activeDeadlineSeconds are over";
/// As [`SUSPENDED`].
pub(super) const DELETED: &str = "its MapReduceJob was deleted";

/// Bytes of a message.
const MESSAGE_BYTES: usize = 1_000;
/// Bytes of a condition's reason.
const REASON_BYTES: usize = 100;
/// Parts in a million of one percent.
const PERCENT_PPM: u32 = 10_000;

/// How an object's job stands.
#[derive(Debug)]
pub(super) enum Stand<'a> {
    /// It was not submitted, and that is tried again.
    Waits(&'a Refused),
    /// It was not submitted, and never will be.
    Refused(&'a Refused),
    /// It is held back, and there is no job.
    Held,
    /// It is this job.
    Job(&'a JobStatus),
    /// It was this job, and nobody knows it any more.
    Gone,
}

/// What is told of an object from now on. `old` is what was told before.
pub(super) fn told(
    old: &MapReduceJobStatus,
    stand: &Stand<'_>,
    (generation, term): (Option<i64>, i64),
    now: Timestamp,
) -> MapReduceJobStatus {
    let mut new = MapReduceJobStatus { observed_generation: generation, term, ..old.clone() };
    let (phase, reason, message) = match stand {
        Stand::Waits(refused) => (Phase::Pending, word(&refused.reason), refused.message.clone()),
        Stand::Refused(refused) => (Phase::Failed, word(&refused.reason), refused.message.clone()),
        Stand::Held => held(&mut new),
        Stand::Gone => {
            (Phase::Failed, "JobUnknown".into(), "the cluster does not know the job any more: apply it again".into())
        }
        Stand::Job(job) => {
            let said = of(job);
            if new.job_id.as_deref() != Some(&job.id) {
                new.job_id = Some(job.id.clone());
                new.submissions = new.submissions.saturating_add(1);
            }
            if said.0 == Phase::Suspended { held(&mut new) } else { begun(&mut new, job, said) }
        }
    };
    let message = cut(message, MESSAGE_BYTES);
    if phase.has_ended() && new.completion_time.is_none() {
        new.completion_time = Some(Time(seconds(now)));
    }
    if phase != Phase::Pending && phase != Phase::Running {
        new.notices.clear();
    }
    new.phase = Some(phase);
    new.message = Some(message.clone()).filter(|message| !message.is_empty());
    let accepted = match stand {
        Stand::Waits(_) | Stand::Refused(_) => Some(("False", reason.as_str())),
        Stand::Job(_) => Some(("True", "Submitted")),
        Stand::Held | Stand::Gone => None,
    };
    let mut set = |kind: &str, status: &str, reason: &str, message: &str| {
        put(&mut new.conditions, (kind, status, reason, message), generation, now);
    };
    if let Some((status, reason)) = accepted {
        set("Accepted", status, reason, if status == "True" { "" } else { &message });
    }
    let is = |wanted: bool| if wanted { "True" } else { "False" };
    set("Running", is(phase == Phase::Running), &reason, &message);
    set("Complete", is(phase == Phase::Completed), &reason, if phase == Phase::Completed { &message } else { "" });
    let failed = matches!(phase, Phase::Failed | Phase::Cancelled);
    set("Failed", is(failed), &reason, if failed { &message } else { "" });
    let was_held = old.conditions.iter().any(|condition| condition.type_ == "Suspended");
    if phase == Phase::Suspended {
        set("Suspended", "True", "Suspended", &message);
    } else if was_held {
        set("Suspended", "False", "Resumed", "");
    }
    new
}

/// Whether two are the same to all but those who watch progress.
pub(super) fn differ_in_progress_alone(old: &MapReduceJobStatus, new: &MapReduceJobStatus) -> bool {
    let MapReduceJobStatus { progress, maps, reduces, .. } = new.clone();
    MapReduceJobStatus { progress, maps, reduces, ..old.clone() } == *new
}

/// What is told of one that is held back: nothing of the job that it was.
fn held(new: &mut MapReduceJobStatus) -> (Phase, String, String) {
    (new.job_id, new.progress, new.start_time, new.maps, new.reduces) = (None, None, None, None, None);
    (Phase::Suspended, "Suspended".into(), "it is submitted once spec.suspend is false".into())
}

/// Adds what a job says of itself.
fn begun(new: &mut MapReduceJobStatus, job: &JobStatus, said: (Phase, String, String)) -> (Phase, String, String) {
    new.start_time = time(job.submitted_ms).or_else(|| new.start_time.take());
    new.completion_time = time(job.ended_ms).filter(|_| said.0.has_ended());
    new.progress = Some(progress(job));
    (new.maps, new.reduces) = (job.maps.as_ref().map(tasks), job.reduces.as_ref().map(tasks));
    new.notices = job.notices.iter().take(16).map(|notice| cut(notice.clone(), MESSAGE_BYTES)).collect();
    said
}

/// The phase of a job, a word why, and a line about it. A job that was cancelled to be held back is suspended.
fn of(job: &JobStatus) -> (Phase, String, String) {
    let error = job.error.clone().unwrap_or_default();
    let line = match (error.message.is_empty(), error.next_step.is_empty()) {
        (_, true) => error.message.clone(),
        (true, false) => error.next_step.clone(),
        (false, false) => format!("{}; {}", error.message, error.next_step),
    };
    match job.state() {
        JobState::Unspecified | JobState::Queued => match job.notices.first() {
            None => (Phase::Pending, "Queued".into(), String::new()),
            Some(notice) => (Phase::Pending, "WaitingForWorkers".into(), notice.clone()),
        },
        state @ (JobState::Mapping | JobState::Shuffling | JobState::Reducing | JobState::Committing) => {
            let word = match state {
                JobState::Mapping => "Mapping",
                JobState::Shuffling => "Shuffling",
                JobState::Reducing => "Reducing",
                _ => "Committing",
            };
            (Phase::Running, word.into(), job.notices.first().cloned().unwrap_or_default())
        }
        JobState::Completed => {
            let line = format!("{} records, {} bytes before compression", job.output_records, job.output_bytes);
            (Phase::Completed, "Completed".into(), line)
        }
        JobState::Failed => (Phase::Failed, failure(error.reason()).into(), line),
        JobState::Cancelled if error.message.contains(SUSPENDED) => (Phase::Suspended, String::new(), String::new()),
        JobState::Cancelled if error.message.contains(DEADLINE) => (Phase::Failed, "DeadlineExceeded".into(), line),
        JobState::Cancelled => (Phase::Cancelled, "Cancelled".into(), line),
    }
}

fn failure(reason: Reason) -> &'static str {
    match reason {
        Reason::Unspecified => "JobFailed",
        Reason::TaskFailed => "TaskFailed",
        Reason::BadRecord => "BadRecord",
        Reason::Input => "InputUnusable",
        Reason::Output => "OutputTaken",
        Reason::Arguments => "ArgumentsWrong",
        Reason::NoWorker => "NoWorker",
        Reason::Cancelled => "Cancelled",
    }
}

/// How far a job is, as people read it: of the halves that it has.
fn progress(job: &JobStatus) -> String {
    let whole = job.state() == JobState::Completed;
    let percent = |counts: Option<&TaskCounts>| match counts {
        _ if whole => 100,
        counts => counts.map_or(0, |counts| counts.progress_ppm / PERCENT_PPM).min(100),
    };
    let half = job.spec.as_ref().map_or(Half::Unspecified, |spec| spec.phase());
    let map = (half != Half::Reduce).then(|| format!("map {}%", percent(job.maps.as_ref())));
    let reduce = (half != Half::Map).then(|| format!("reduce {}%", percent(job.reduces.as_ref())));
    map.into_iter().chain(reduce).collect::<Vec<_>>().join(" ")
}

fn tasks(counts: &TaskCounts) -> Tasks {
    let small = |number: u32| number.try_into().unwrap_or(i32::MAX);
    Tasks {
        total: small(counts.total),
        done: small(counts.done),
        running: small(counts.running),
        failures: small(counts.failures),
    }
}

/// Sets a condition; its time stays if its status does.
fn put(
    conditions: &mut Vec<Condition>,
    (kind, status, reason, message): (&str, &str, &str, &str),
    generation: Option<i64>,
    now: Timestamp,
) {
    let old = conditions.iter().position(|condition| condition.type_ == kind);
    let kept = old.map(|at| &conditions[at]).filter(|old| old.status == status);
    let condition = Condition {
        last_transition_time: kept.map_or_else(|| Time(seconds(now)), |old| old.last_transition_time.clone()),
        message: message.into(),
        observed_generation: generation,
        reason: reason.into(),
        status: status.into(),
        type_: kind.into(),
    };
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// A time as objects carry it, in whole seconds; `None`: it is not yet.
fn time(ms: u64) -> Option<Time> {
    let second = i64::try_from(ms / 1_000).ok().filter(|second| *second > 0)?;
    Timestamp::from_second(second).ok().map(Time)
}

fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A word for programs, as conditions want one.
fn word(reason: &str) -> String {
    let is_one = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.len() <= REASON_BYTES
        && reason.chars().all(|c| c.is_ascii_alphanumeric());
    if is_one { reason.into() } else { "Refused".into() }
}

/// The beginning of a text, in whole characters.
pub(super) fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let room = bytes.saturating_sub("…".len());
        text.truncate((0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
