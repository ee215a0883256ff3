//! What is to be done about an object next, by what it says and what was told of it before. No I/O.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::crd::{MapReduceJobSpec, MapReduceJobStatus, Phase};

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: a master of a later term has it.
    Leave,
    /// Nothing: its job has ended. With when the object is to be deleted, if it is.
    Rest(Option<Timestamp>),
    /// The object's time is over.
    Delete,
    /// It is to be held back: its job is cancelled, if there is one.
    Hold,
    /// It is to be submitted.
    Submit,
    /// Its job is looked at.
    Follow(String),
}

/// Decides for an object that is not being deleted.
pub(super) fn next(spec: &MapReduceJobSpec, status: &MapReduceJobStatus, term: i64, now: Timestamp) -> Step {
    if status.term > term {
        return Step::Leave;
    }
    if status.phase.is_some_and(Phase::has_ended) {
        // Without a time it ended before this wrote times: it is kept.
        let ended = status.completion_time.as_ref().map(|time| time.0);
        let until = ended.zip(spec.ttl_seconds_after_finished).map(|(ended, ttl)| after(ended, ttl));
        return match until {
            Some(until) if until <= now => Step::Delete,
            until => Step::Rest(until),
        };
    }
    match &status.job_id {
        _ if spec.suspend => Step::Hold,
        None => Step::Submit,
        Some(job) => Step::Follow(job.clone()),
    }
}

/// Until when the job may run; `None`: for ever, or it has not begun.
pub(super) fn deadline(spec: &MapReduceJobSpec, status: &MapReduceJobStatus) -> Option<Timestamp> {
    let begun = status.start_time.as_ref().map(|time| time.0);
    begun.zip(spec.active_deadline_seconds).map(|(begun, seconds)| after(begun, seconds))
}

/// So many seconds later, or as late as can be.
fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn spec(suspend: bool, deadline: Option<i64>, ttl: Option<i64>) -> MapReduceJobSpec {
        MapReduceJobSpec {
            suspend,
            active_deadline_seconds: deadline,
            ttl_seconds_after_finished: ttl,
            ..MapReduceJobSpec::default()
        }
    }

    fn status(phase: Option<Phase>, job: Option<&str>, ended: Option<i64>) -> MapReduceJobStatus {
        MapReduceJobStatus {
            phase,
            job_id: job.map(String::from),
            completion_time: ended.map(|second| Time(at(second))),
            term: 5,
            ..MapReduceJobStatus::default()
        }
    }

    #[test]
    fn the_next_step_follows_from_what_is_there() {
        use Phase::{Cancelled, Completed, Failed, Pending, Running, Suspended};
        let (now, follow) = (100, || Step::Follow("j".into()));
        let table = [
            ("new", spec(false, None, None), status(None, None, None), Step::Submit),
            ("new and suspended", spec(true, None, None), status(None, None, None), Step::Hold),
            ("refused for now", spec(false, None, None), status(Some(Pending), None, None), Step::Submit),
            ("queued", spec(false, None, None), status(Some(Pending), Some("j"), None), follow()),
            ("running", spec(false, None, Some(1)), status(Some(Running), Some("j"), None), follow()),
            ("running, to be held", spec(true, None, None), status(Some(Running), Some("j"), None), Step::Hold),
            ("held", spec(true, None, None), status(Some(Suspended), None, None), Step::Hold),
            ("held no longer", spec(false, None, None), status(Some(Suspended), None, None), Step::Submit),
            ("ended", spec(false, None, None), status(Some(Completed), Some("j"), Some(90)), Step::Rest(None)),
            ("ended, suspended", spec(true, None, None), status(Some(Failed), Some("j"), Some(90)), Step::Rest(None)),
            ("kept", spec(false, None, Some(20)), status(Some(Failed), None, Some(90)), Step::Rest(Some(at(110)))),
            ("kept enough", spec(false, None, Some(10)), status(Some(Cancelled), Some("j"), Some(90)), Step::Delete),
            (
                "kept not at all",
                spec(false, None, Some(0)),
                status(Some(Completed), Some("j"), Some(100)),
                Step::Delete,
            ),
            (
                "ended, nobody knows when",
                spec(false, None, Some(0)),
                status(Some(Failed), None, None),
                Step::Rest(None),
            ),
        ];
        for (what, spec, status, wanted) in table {
            assert_eq!(next(&spec, &status, 5, at(now)), wanted, "{what}");
            assert_eq!(next(&spec, &status, 6, at(now)), wanted, "{what}, a later term");
            assert_eq!(next(&spec, &status, 4, at(now)), Step::Leave, "{what}, an earlier term");
        }
    }

    #[test]
    fn a_deadline_counts_from_the_submission() {
        let begun = MapReduceJobStatus { start_time: Some(Time(at(100))), ..MapReduceJobStatus::default() };
        assert_eq!(deadline(&spec(false, Some(7), None), &begun), Some(at(107)));
        assert_eq!(deadline(&spec(false, None, None), &begun), None);
        assert_eq!(deadline(&spec(false, Some(7), None), &MapReduceJobStatus::default()), None);
        assert_eq!(deadline(&spec(false, Some(i64::MAX), None), &begun), Some(Timestamp::MAX));
    }
}
