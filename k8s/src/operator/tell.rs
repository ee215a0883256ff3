//! Which events are told on an object when its status changes, and the telling. An event that cannot be told is let go: all that it
//! says is in the status.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};

use super::WITHIN;
use super::status::cut;
use crate::crd::{MapReduceJobStatus, Phase};

/// Bytes of an event's note: the API takes 1 KiB.
const NOTE_BYTES: usize = 1_000;

/// Something to be told on the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// A word in CamelCase.
    pub(super) reason: String,
    /// One line.
    pub(super) note: String,
    /// It is a warning.
    pub(super) warning: bool,
}

/// What is worth an event between what was told before and what is told now.
pub(super) fn between(old: &MapReduceJobStatus, new: &MapReduceJobStatus) -> Vec<Told> {
    let mut all = Vec::new();
    let mut tell = |reason: &str, note: &str, warning| {
        all.push(Told { reason: reason.into(), note: cut(note.into(), NOTE_BYTES), warning });
    };
    let message = new.message.as_deref().unwrap_or_default();
    let condition = |status: &MapReduceJobStatus, kind: &str, wanted: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind && condition.status == wanted);
        found.map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    if let Some(job) = new.job_id.as_ref().filter(|job| old.job_id.as_ref() != Some(job)) {
        tell("Submitted", &format!("job {job}"), false);
    }
    let refused = condition(new, "Accepted", "False");
    if refused.is_some() && refused != condition(old, "Accepted", "False") {
        let (reason, message) = refused.unwrap_or_default();
        tell("Refused", &format!("{reason}: {message}"), true);
    }
    match new.phase.filter(|phase| old.phase != Some(*phase)) {
        Some(Phase::Running) => tell("Started", "its tasks run", false),
        Some(Phase::Suspended) => tell("Suspended", message, false),
        Some(Phase::Completed) => tell("Completed", message, false),
        Some(Phase::Failed) => {
            let (reason, message) = condition(new, "Failed", "True").unwrap_or_default();
            tell("Failed", &format!("{reason}: {message}"), true);
        }
        Some(Phase::Cancelled) => tell("Cancelled", message, true),
        Some(Phase::Pending) | None => {}
    }
    all
}

/// Tells it.
pub(super) async fn publish(recorder: &Recorder, about: &ObjectReference, told: Told) {
    let event = Event {
        type_: if told.warning { EventType::Warning } else { EventType::Normal },
        action: told.reason.clone(),
        reason: told.reason,
        note: Some(told.note).filter(|note| !note.is_empty()),
        secondary: None,
    };
    // Nobody waits for it for long.
    drop(tokio::time::timeout(WITHIN, recorder.publish(&event, about)).await);
}

#[cfg(test)]
mod tests {
    use gristmill_proto::v1::{JobState, JobStatus};
    use k8s_openapi::jiff::Timestamp;

    use super::super::Refused;
    use super::super::status::{Stand, told};
    use super::*;

    fn words(old: &MapReduceJobStatus, new: &MapReduceJobStatus) -> Vec<String> {
        let one = |told: Told| format!("{}{}", if told.warning { "!" } else { "" }, told.reason);
        between(old, new).into_iter().map(one).collect()
    }

    #[test]
    fn each_turn_of_a_job_is_told_once() {
        let refused =
            |reason: &str, retry| Refused { retry, reason: reason.into(), message: "the user has no room".into() };
        let (busy, never) = (refused("TooManyJobs", true), refused("OutputTaken", false));
        let job = |state: JobState| JobStatus { id: "j-1".into(), state: state.into(), ..JobStatus::default() };
        let at = [JobState::Queued, JobState::Mapping, JobState::Reducing, JobState::Completed].map(job);
        let cancelled = job(JobState::Cancelled);
        let table: [(Stand<'_>, &[&str]); 8] = [
            (Stand::Waits(&busy), &["!Refused"]),
            (Stand::Waits(&busy), &[]),
            (Stand::Job(&at[0]), &["Submitted"]),
            (Stand::Job(&at[1]), &["Started"]),
            (Stand::Job(&at[2]), &[]),
            (Stand::Job(&at[3]), &["Completed"]),
            (Stand::Job(&at[3]), &[]),
            (Stand::Job(&cancelled), &["!Cancelled"]),
        ];
        let mut old = MapReduceJobStatus::default();
        for (stand, wanted) in table {
            let new = told(&old, &stand, (Some(1), 1), Timestamp::UNIX_EPOCH);
            assert_eq!(words(&old, &new), wanted, "{stand:?}");
            old = new;
        }
        let new = told(&MapReduceJobStatus::default(), &Stand::Refused(&never), (Some(1), 1), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&MapReduceJobStatus::default(), &new), ["!Refused", "!Failed"]);
        assert_eq!(between(&MapReduceJobStatus::default(), &new)[0].note, "OutputTaken: the user has no room");
    }
}
