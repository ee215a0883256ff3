//! What is told of jobs, as tables.

use gristmill_proto::v1::{JobError, JobSpec};

use super::*;

const T: i64 = 1_700_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(T + second).unwrap()
}

fn ms(second: i64) -> u64 {
    u64::try_from((T + second) * 1_000).unwrap() + 7
}

fn job(state: JobState) -> JobStatus {
    JobStatus { id: "c-1".into(), state: state.into(), submitted_ms: ms(1), ..JobStatus::default() }
}

fn ended(state: JobState, reason: Reason, message: &str, next_step: &str) -> JobStatus {
    let error = JobError { reason: reason.into(), message: message.into(), next_step: next_step.into() };
    JobStatus { error: Some(error), ended_ms: ms(9), ..job(state) }
}

fn told_of(job: &JobStatus) -> MapReduceJobStatus {
    told(&MapReduceJobStatus::default(), &Stand::Job(job), (Some(3), 7), at(20))
}

fn condition<'s>(status: &'s MapReduceJobStatus, kind: &str) -> (&'s str, &'s str) {
    let found = status.conditions.iter().find(|one| one.type_ == kind);
    found.map_or(("", ""), |one| (one.status.as_str(), one.reason.as_str()))
}

#[test]
fn a_state_is_a_phase_and_four_conditions() {
    use Phase::{Cancelled, Completed, Failed, Pending, Running, Suspended};
    let noticed = JobStatus { notices: vec!["quota".into()], ..job(JobState::Queued) };
    let failed = |reason| ended(JobState::Failed, reason, "map 3 failed", "look at its logs");
    let by = |why: &str| ended(JobState::Cancelled, Reason::Cancelled, &format!("cancelled by ann: {why}"), "");
    // Phase; Accepted, Running, Complete, Failed; the reason of the last three; the message.
    let table = [
        (job(JobState::Queued), Pending, "TFFF", "Queued", ""),
        (noticed, Pending, "TFFF", "WaitingForWorkers", "quota"),
        (job(JobState::Mapping), Running, "TTFF", "Mapping", ""),
        (job(JobState::Shuffling), Running, "TTFF", "Shuffling", ""),
        (job(JobState::Reducing), Running, "TTFF", "Reducing", ""),
        (job(JobState::Committing), Running, "TTFF", "Committing", ""),
        (job(JobState::Completed), Completed, "TFTF", "Completed", "0 records, 0 bytes before compression"),
        (failed(Reason::TaskFailed), Failed, "TFFT", "TaskFailed", "map 3 failed; look at its logs"),
        (failed(Reason::Output), Failed, "TFFT", "OutputTaken", "map 3 failed; look at its logs"),
        (by("enough"), Cancelled, "TFFT", "Cancelled", "cancelled by ann: enough"),
        (by(DEADLINE), Failed, "TFFT", "DeadlineExceeded", &format!("cancelled by ann: {DEADLINE}")),
        (by(SUSPENDED), Suspended, "TFFF", "Suspended", "it is submitted once spec.suspend is false"),
    ];
    for (job, phase, marks, reason, message) in table {
        let status = told_of(&job);
        let mark = |kind: &str| condition(&status, kind).0.chars().next().unwrap_or('-');
        let got: String = ["Accepted", "Running", "Complete", "Failed"].map(mark).iter().collect();
        assert_eq!((status.phase, got.as_str()), (Some(phase), marks), "{job:?}");
        assert_eq!(condition(&status, "Failed").1, reason);
        assert_eq!(status.message.as_deref().unwrap_or_default(), message);
        assert_eq!((status.observed_generation, status.term, status.submissions), (Some(3), 7, 1));
        assert_eq!(status.completion_time.is_some(), phase.has_ended(), "{job:?}");
        assert!(status.conditions.iter().all(|one| one.observed_generation == Some(3)));
    }
}

#[test]
fn progress_is_told_of_the_halves_that_there_are() {
    let counts = |ppm| Some(TaskCounts { total: 4, done: 1, progress_ppm: ppm, ..TaskCounts::default() });
    let of = |half: Half, maps, reduces, state| {
        let spec = Some(JobSpec { phase: half.into(), ..JobSpec::default() });
        told_of(&JobStatus { spec, maps, reduces, ..job(state) }).progress.unwrap()
    };
    let running = JobState::Mapping;
    assert_eq!(of(Half::Unspecified, counts(459_999), counts(0), running), "map 45% reduce 0%");
    assert_eq!(of(Half::Unspecified, None, None, JobState::Queued), "map 0% reduce 0%");
    assert_eq!(of(Half::Map, counts(999_999), None, running), "map 99%");
    assert_eq!(of(Half::Reduce, None, counts(200_000), JobState::Reducing), "reduce 20%");
    assert_eq!(of(Half::Unspecified, counts(5), counts(5), JobState::Completed), "map 100% reduce 100%");
}

#[test]
fn times_are_those_of_the_job_and_conditions_keep_theirs() {
    let queued = told_of(&job(JobState::Queued));
    assert_eq!(queued.start_time, Some(Time(at(1))));
    let time = |status: &MapReduceJobStatus, kind: &str| {
        status.conditions.iter().find(|one| one.type_ == kind).unwrap().last_transition_time.0
    };
    let running = told(&queued, &Stand::Job(&job(JobState::Mapping)), (Some(4), 7), at(30));
    assert_eq!((time(&running, "Accepted"), time(&running, "Running")), (at(20), at(30)));
    let done = JobStatus { ended_ms: ms(33), ..job(JobState::Completed) };
    let done = told(&running, &Stand::Job(&done), (Some(4), 7), at(40));
    assert_eq!((time(&done, "Accepted"), time(&done, "Running"), time(&done, "Complete")), (at(20), at(40), at(40)));
    assert_eq!(done.completion_time, Some(Time(at(33))));
    // Told once more, nothing is different; to another term all but the term is the same.
    let again = JobStatus { ended_ms: ms(33), ..job(JobState::Completed) };
    assert_eq!(told(&done, &Stand::Job(&again), (Some(4), 7), at(50)), done);
    let later = told(&done, &Stand::Job(&again), (Some(4), 8), at(50));
    assert_eq!(later, MapReduceJobStatus { term: 8, ..done });
    // What is written comes back as it was.
    let read: MapReduceJobStatus = serde_json::from_value(serde_json::to_value(&later).unwrap()).unwrap();
    assert_eq!(read, later);
}

#[test]
fn a_suspended_job_is_counted_and_forgotten() {
    let stop = ended(JobState::Cancelled, Reason::Cancelled, &format!("cancelled by op: {SUSPENDED}"), "");
    let running = told_of(&job(JobState::Mapping));
    let held = told(&running, &Stand::Job(&stop), (Some(4), 7), at(30));
    assert_eq!((held.job_id.as_deref(), held.submissions, &held.start_time), (None, 1, &None));
    assert_eq!(condition(&held, "Suspended"), ("True", "Suspended"));
    // Nobody had written its id down: it counts all the same, or its key would be used again.
    assert_eq!(told_of(&stop).submissions, 1);
    let next = JobStatus { id: "c-2".into(), submitted_ms: ms(50), ..job(JobState::Queued) };
    let resumed = told(&held, &Stand::Job(&next), (Some(5), 7), at(60));
    assert_eq!((resumed.job_id.as_deref(), resumed.submissions), (Some("c-2"), 2));
    assert_eq!(resumed.start_time, Some(Time(at(50))));
    assert_eq!(condition(&resumed, "Suspended"), ("False", "Resumed"));
    assert_eq!(condition(&running, "Suspended"), ("", ""));
}

#[test]
fn what_was_not_submitted_says_why() {
    let refused = |reason: &str| Refused { retry: true, reason: reason.into(), message: "no room".into() };
    let none = MapReduceJobStatus::default();
    let waits = told(&none, &Stand::Waits(&refused("TooManyJobs")), (Some(1), 7), at(0));
    assert_eq!((waits.phase, waits.message.as_deref()), (Some(Phase::Pending), Some("no room")));
    assert_eq!(condition(&waits, "Accepted"), ("False", "TooManyJobs"));
    assert_eq!(waits.completion_time, None);
    let never = told(&none, &Stand::Refused(&refused("Output taken!")), (Some(1), 7), at(0));
    assert_eq!((never.phase, never.completion_time.clone()), (Some(Phase::Failed), Some(Time(at(0)))));
    assert_eq!(condition(&never, "Failed"), ("True", "Refused"), "a reason is one word");
    let gone = told(&told_of(&job(JobState::Mapping)), &Stand::Gone, (Some(1), 7), at(0));
    assert_eq!((gone.phase, condition(&gone, "Failed")), (Some(Phase::Failed), ("True", "JobUnknown")));
    let held = told(&none, &Stand::Held, (Some(1), 7), at(0));
    assert_eq!((held.phase, condition(&held, "Suspended").0, held.submissions), (Some(Phase::Suspended), "True", 0));
}

#[test]
fn a_status_stays_small() {
    let many = JobStatus { notices: vec!["ö".repeat(5_000); 100], ..job(JobState::Queued) };
    let status = told_of(&many);
    assert_eq!(status.notices.len(), 16);
    assert!(serde_json::to_string(&status).unwrap().len() < 24 << 10);
    assert_eq!((cut("äöü".into(), 6), cut("äöü".into(), 5)), ("äöü".into(), "ä…".into()));
}

#[test]
fn progress_alone_is_told_from_all_else() {
    let counts = |done| Some(TaskCounts { total: 4, done, progress_ppm: done * 1_000, ..TaskCounts::default() });
    let at_one = told_of(&JobStatus { maps: counts(1), ..job(JobState::Mapping) });
    let at_two =
        told(&at_one, &Stand::Job(&JobStatus { maps: counts(2), ..job(JobState::Mapping) }), (Some(3), 7), at(21));
    assert!(at_one != at_two && differ_in_progress_alone(&at_one, &at_two));
    let reducing = told(&at_one, &Stand::Job(&job(JobState::Reducing)), (Some(3), 7), at(21));
    assert!(!differ_in_progress_alone(&at_one, &reducing));
}
