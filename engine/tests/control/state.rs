//! What commands do to the state, rule by rule.

use gristmill_engine::control::apply::Halt;
use gristmill_engine::control::ids::{AttemptId, Stage, TaskId, job_name, job_of_name};
use gristmill_engine::control::job::JobState;
use gristmill_engine::control::limits;
use gristmill_engine::control::state::{Settled, State};
use gristmill_engine::control::task::Place;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{JobError, Phase, job_error::Reason};
use prost::Message as _;
use wire::Verdict::{self, Counted, Dead, Epoch, Invalid, Late, Repeated};
use wire::command::Action;
use wire::failure::Cause;
use wire::refused::Code;
use wire::reply::Outcome;
use wire::task_change::What;

use super::world::{CLUSTER, World, plan, spec};

/// A world whose leader is not asked: commands only.
fn bare(workers: usize) -> World {
    World::new(workers, 1)
}

fn code(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Refused(refused) => refused.code(),
        other => panic!("not refused: {other:?}"),
    }
}

fn planned(world: &mut World, output: &str, flags: &str) -> u64 {
    planned_spec(world, spec(output, flags))
}

fn planned_spec(world: &mut World, spec: gristmill_proto::v1::JobSpec) -> u64 {
    let key = spec.output.clone();
    let job = world.accepted("ann", &key, spec.clone());
    let plan = plan(job, &spec);
    let (maps, reduces) = (u32::try_from(plan.maps.len()).unwrap(), plan.reduces);
    let (survey, input_bytes, plan) = (plan.survey, plan.input_bytes, plan.digest.to_vec().into());
    world.commit("system", Action::PlanJob(wire::PlanJob { job, plan, maps, reduces, survey, input_bytes }));
    job
}

fn attempt(counter: u64) -> AttemptId {
    AttemptId { term: 1, counter }
}

/// One change by a worker, in the job's epoch unless told otherwise.
fn change(
    world: &mut World,
    job: u64,
    stage: Stage,
    partition: u32,
    by: AttemptId,
    worker: usize,
    what: What,
) -> Verdict {
    let epoch = world.state().job(job).map_or(0, |job| job.epoch);
    let task = wire::Task { job, stage: stage.into(), epoch, partition, attempt: Some(by.into()) };
    let worker = world.workers[worker].incarnation.unwrap();
    // The ledger checks that attempts do what they were given.
    change_task(world, task, worker, what)
}

fn change_task(world: &mut World, task: wire::Task, worker: u64, what: What) -> Verdict {
    let change = wire::TaskChange { task: Some(task), worker, what: Some(what), ..Default::default() };
    let command = Action::TaskChanges(wire::TaskChanges { changes: vec![change] });
    let command =
        wire::Command { now_ms: 5, principal: "system".into(), level: 1, action: Some(command), ..Default::default() };
    world.index += 1;
    let mut verdict = Invalid;
    for replica in &mut world.replicas {
        let reply = replica.apply(world.index, &command.encode_to_vec()).unwrap().reply;
        let Some(Outcome::Changes(counted)) = reply.outcome else { panic!() };
        verdict = counted.verdicts().next().unwrap();
    }
    world.compare();
    verdict
}

fn done(content: u8) -> What {
    let counters = vec![wire::Counter { name: "words".into(), value: 10 }];
    What::Done(wire::Done { digest: vec![content; 16].into(), length: 5, counters, ..Default::default() })
}

fn failure(cause: Cause, input: &str) -> What {
    let message = "it broke ".repeat(1_000);
    What::Failure(wire::Failure { cause: cause.into(), message, input: input.into(), offset: 7 })
}

#[test]
fn a_key_stands_for_one_job_for_a_day() {
    let mut world = bare(1);
    let job = world.accepted("ann", "k", spec("out/a", "maps=1"));
    let Outcome::Submitted(again) = world.submit("ann", "k", spec("out/a", "maps=1")) else { panic!() };
    assert_eq!((again.job, again.already), (job, true));
    assert_eq!(code(world.submit("ann", "k", spec("out/b", "maps=1"))), Code::Conflict);
    assert_ne!(world.accepted("bob", "k", spec("out/b", "maps=1")), job, "keys belong to who made them");
    world.commit("ann", Action::CancelJob(wire::CancelJob { job, ..Default::default() }));
    world.now += std::time::Duration::from_millis(limits::KEY_MS - 1);
    let Outcome::Submitted(again) = world.submit("ann", "k", spec("out/a", "maps=1")) else { panic!() };
    assert!(again.already, "a day is not over");
    world.now += std::time::Duration::from_millis(1);
    assert_ne!(world.accepted("ann", "k", spec("out/a", "maps=1")), job);
}

#[test]
fn outputs_of_live_jobs_do_not_overlap() {
    let mut world = bare(1);
    let mut chained = spec("out/a", "maps=1");
    chained.then = Some(Box::new(spec("later/b/", "maps=1")));
    let job = world.accepted("ann", "1", chained);
    for taken in ["out/a", "out/a/", "out", "out/a/b/c", "later/b", "later"] {
        assert_eq!(code(world.submit("bob", taken, spec(taken, "maps=1"))), Code::Conflict, "{taken}");
    }
    world.accepted("bob", "free", spec("out/ab", "maps=1"));
    world.accepted("bob", "free too", spec("out/a.b", "maps=1"));
    world.commit("ann", Action::CancelJob(wire::CancelJob { job, ..Default::default() }));
    world.accepted("bob", "now", spec("out/a", "maps=1"));
    for bad in ["", "/x", "a//b", "../a", "a/./b", "a\0"] {
        assert_eq!(code(world.submit("bob", "bad", spec(bad, "maps=1"))), Code::Invalid, "{bad:?}");
    }
}

#[test]
fn a_job_pins_a_build_that_a_worker_offers() {
    let mut world = bare(2);
    let mut other = spec("out", "maps=1");
    other.app.as_mut().unwrap().name = "nobody".into();
    assert_eq!(code(world.submit("ann", "1", other)), Code::Unavailable);
    let mut old = spec("out", "maps=1");
    old.app.as_mut().unwrap().build = "b0".into();
    assert_eq!(code(world.submit("ann", "2", old)), Code::Unavailable);
    let job = world.job("out", "maps=1");
    assert_eq!(world.state().job(job).unwrap().spec.app.as_ref().unwrap().build, "b1");
}

#[test]
fn what_is_unknown_stops_the_node() {
    let mut state = State::default();
    let mut unknown = wire::Command { now_ms: 1, level: 1, ..Default::default() }.encode_to_vec();
    unknown.extend([0xfa, 0x3f, 0x00]); // Field 1023, which is none.
    assert_eq!(state.apply(7, &unknown), Err(Halt::Unknown { index: 7 }));
    assert_eq!(state.apply(7, &[0xff]), Err(Halt::Unknown { index: 7 }));
    let change = wire::TaskChange { task: Some(wire::Task::default()), ..Default::default() };
    let action = Some(Action::TaskChanges(wire::TaskChanges { changes: vec![change] }));
    let command = wire::Command { action, ..Default::default() };
    assert_eq!(state.apply(7, &command.encode_to_vec()), Err(Halt::Unknown { index: 7 }), "a change without a kind");
    let level = limits::LEVEL + 1;
    let above =
        wire::Command { level, action: Some(Action::DrainWorker(wire::DrainWorker::default())), ..Default::default() };
    assert_eq!(state.apply(7, &above.encode_to_vec()), Err(Halt::Level { index: 7, level }));
    let action = Some(Action::RaiseLevel(wire::RaiseLevel { level }));
    let raise = wire::Command { action, ..Default::default() };
    assert_eq!(state.apply(7, &raise.encode_to_vec()), Err(Halt::Level { index: 7, level }));
    assert_eq!(state, State::default());
}

#[test]
fn the_first_end_of_an_attempt_wins() {
    let mut world = bare(2);
    let job = planned(&mut world, "out", "maps=1 parts=1");
    assert_eq!(change(&mut world, job, Stage::Reduce, 0, attempt(9), 0, done(1)), Invalid, "before its maps");
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(1), 0, done(1)), Counted);
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(2), 1, done(2)), Late);
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(1), 0, done(1)), Repeated);
    assert_eq!(world.state_of(job), JobState::Shuffling);
    assert_eq!(change(&mut world, job, Stage::Reduce, 0, attempt(3), 0, What::Fetched(wire::Fetched {})), Counted);
    assert_eq!(world.state_of(job), JobState::Reducing);
    assert_eq!(change(&mut world, job, Stage::Reduce, 0, attempt(3), 0, done(3)), Counted);
    assert_eq!(world.state_of(job), JobState::Committing, "decided with the last part");
    assert_eq!(change(&mut world, job, Stage::Reduce, 0, attempt(4), 1, done(3)), Late);
    let result = world.state().job(job).unwrap().reduces[0].result.clone().unwrap();
    assert_eq!((result.attempt, result.place), (attempt(3), Place::Store));
}

/// Found by the simulator: a job had completed with "0 of 3 maps done".
#[test]
fn a_map_that_is_lost_when_all_have_read_it_was_done() {
    let mut world = bare(2);
    let job = planned(&mut world, "out", "maps=2 parts=1");
    for map in 0..2 {
        change(&mut world, job, Stage::Map, map, attempt(1 + u64::from(map)), map as usize, done(1));
    }
    let incarnation = world.workers[0].incarnation.unwrap();
    world.commit("system", Action::RemoveWorker(wire::RemoveWorker { incarnation, ..Default::default() }));
    let maps_done = |world: &World| world.state().job(job).unwrap().status(1).maps.unwrap().done;
    assert_eq!(maps_done(&world), 1, "it may still be needed");
    assert_eq!(change(&mut world, job, Stage::Reduce, 0, attempt(3), 1, done(3)), Counted);
    assert_eq!(world.state_of(job), JobState::Committing);
    assert_eq!(maps_done(&world), 2);
}

#[test]
fn failed_attempts_and_dead_workers_never_count() {
    let mut world = bare(2);
    let job = planned(&mut world, "out", "maps=2 parts=1");
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(1), 0, failure(Cause::Worker, "")), Counted);
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(1), 0, failure(Cause::Worker, "")), Repeated);
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(1), 0, done(1)), Dead);
    let incarnation = world.workers[0].incarnation.unwrap();
    world.commit("system", Action::RemoveWorker(wire::RemoveWorker { incarnation, ..Default::default() }));
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(2), 0, done(1)), Dead);
    let old = AttemptId { term: 0, counter: 5 };
    assert_eq!(change(&mut world, job, Stage::Map, 0, old, 1, done(1)), Counted, "of an earlier leader");
    assert_eq!(change(&mut world, job, Stage::Map, 0, old, 1, failure(Cause::App, "")), Late, "it counted");
    let task = TaskId { job, stage: Stage::Map, partition: 0 };
    assert_eq!(world.state().settled(task, old, 0), Settled::Counted);
    assert_eq!(world.state().settled(task, attempt(1), 0), Settled::Void);
    assert_eq!(change(&mut world, job, Stage::Map, 9, attempt(8), 1, done(1)), Invalid);
    assert_eq!(change(&mut world, 999, Stage::Map, 0, attempt(8), 1, done(1)), Late);
}

#[test]
fn equal_maps_replace_the_place_and_other_ones_raise_the_epoch() {
    let mut world = bare(3);
    let job = planned(&mut world, "out", "maps=2 parts=2");
    change(&mut world, job, Stage::Map, 0, attempt(1), 0, done(1));
    change(&mut world, job, Stage::Map, 1, attempt(2), 1, done(2));
    change(&mut world, job, Stage::Reduce, 0, attempt(3), 1, done(3));
    let register = world.workers[0].register();
    world.commit("system", Action::RegisterWorker(register));
    let job_of = |world: &World| world.state().job(job).unwrap().clone();
    assert_eq!(job_of(&world).maps_missing(), 1, "whoever registers again has lost what was there");
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(4), 1, done(1)), Counted);
    assert_eq!((job_of(&world).epoch, job_of(&world).reduces_open()), (0, 1), "same content");
    assert_eq!(job_of(&world).counters()["words"], 30, "each task once");
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(4), 2, What::Moved(wire::Moved {})), Late, "not there");
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(1), 2, What::Lost(wire::Lost {})), Late, "another one");
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(4), 2, What::Lost(wire::Lost {})), Counted);
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(4), 2, What::Lost(wire::Lost {})), Repeated);
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(5), 2, done(7)), Counted);
    assert_eq!((job_of(&world).epoch, job_of(&world).reduces_open()), (1, 2), "other content: finished parts are void");
    assert_eq!(job_of(&world).counters()["words"], 20);
    let worker = world.workers[1].incarnation.unwrap();
    let part = |epoch, partition, by: u64| wire::Task {
        job,
        stage: Stage::Reduce.into(),
        epoch,
        partition,
        attempt: Some(attempt(by).into()),
    };
    assert_eq!(change_task(&mut world, part(0, 1, 6), worker, done(3)), Epoch);
    assert_eq!(change_task(&mut world, part(0, 1, 6), worker, failure(Cause::App, "")), Epoch);
    assert_eq!(change_task(&mut world, part(1, 1, 7), worker, done(3)), Counted);
    assert_eq!(change_task(&mut world, part(1, 0, 8), worker, done(3)), Counted);
    assert_eq!(world.state_of(job), JobState::Committing);
}

#[test]
fn a_decided_job_is_neither_cancelled_nor_failed() {
    let mut world = bare(1);
    let job = planned(&mut world, "out", "maps=0 parts=1");
    assert_eq!(code(world.commit("ann", Action::JobPublished(wire::JobPublished { job }))), Code::State);
    change(&mut world, job, Stage::Reduce, 0, attempt(1), 0, done(1));
    assert_eq!(
        code(world.commit("ann", Action::CancelJob(wire::CancelJob { job, ..Default::default() }))),
        Code::State
    );
    let fail = |unpublishable| Action::FailJob(wire::FailJob { job, error: Some(JobError::default()), unpublishable });
    assert_eq!(code(world.commit("system", fail(false))), Code::State);
    assert_eq!(world.state_of(job), JobState::Committing);
    world.commit("system", Action::JobPublished(wire::JobPublished { job }));
    assert_eq!(world.state_of(job), JobState::Completed);
    world.commit("system", fail(true));
    assert_eq!(world.state_of(job), JobState::Completed);
}

#[test]
fn four_charged_failures_fail_the_job_and_others_do_not() {
    let mut world = bare(1);
    let job = planned(&mut world, "out", "maps=1 parts=1");
    for n in 0..10 {
        let cause = if n % 2 == 0 { Cause::Worker } else { Cause::Returned };
        assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(n), 0, failure(cause, "")), Counted);
    }
    for n in 10..14 {
        assert_eq!(world.state_of(job), JobState::Mapping);
        change(&mut world, job, Stage::Map, 0, attempt(n), 0, failure(Cause::App, ""));
    }
    let failed = world.state().job(job).unwrap();
    assert_eq!(failed.state, JobState::Failed);
    let error = failed.error.as_ref().unwrap();
    assert_eq!(error.reason(), Reason::TaskFailed);
    assert!(error.message.starts_with("map 0 failed 14 times, at last: it broke"), "{}", error.message);
    assert!(error.message.len() <= limits::ERROR_BYTES && !error.next_step.is_empty());
    assert_eq!(failed.maps[0].failure.as_ref().unwrap().message.len(), limits::ERROR_BYTES);
}

#[test]
fn a_record_that_fails_on_two_workers_fails_the_job() {
    let mut world = bare(2);
    let job = planned(&mut world, "out", "maps=1 parts=1");
    change(&mut world, job, Stage::Map, 0, attempt(1), 0, failure(Cause::Record, "in/x"));
    change(&mut world, job, Stage::Map, 0, attempt(2), 0, failure(Cause::Record, "in/x"));
    assert_eq!(world.state_of(job), JobState::Mapping, "one worker may be at fault");
    change(&mut world, job, Stage::Map, 0, attempt(3), 1, failure(Cause::Record, "in/x"));
    let error = world.state().job(job).unwrap().error.clone().unwrap();
    assert_eq!(error.reason(), Reason::BadRecord);
    assert!(error.message.starts_with("map 0 meets a bad record in in/x at byte 7"), "{}", error.message);
}

#[test]
fn the_next_job_begins_when_the_one_before_completes() {
    let mut world = bare(1);
    let mut first = spec("out/1", "maps=0 parts=1");
    let mut second = spec("out/2", "maps=0 parts=1");
    second.inputs.clear();
    first.then = Some(Box::new(second));
    let job = planned_spec(&mut world, first);
    change(&mut world, job, Stage::Reduce, 0, attempt(1), 0, done(1));
    world.commit("system", Action::JobPublished(wire::JobPublished { job }));
    let next = world.state().job(world.index).unwrap();
    assert_eq!((next.state, &*next.principal, next.spec.inputs[0].as_str()), (JobState::Queued, "ann", "out/1/"));
    assert_eq!(world.state().job(job).unwrap().next, next.id);
    assert_eq!((world.state().claim("out/1"), world.state().claim("out/2")), (Some(job), Some(next.id)));
}

/// Found by the simulator: the next job failed at once when all workers were away at that moment.
#[test]
fn the_next_job_needs_no_worker_to_begin_and_what_nobody_offers_is_refused_at_once() {
    let mut world = bare(1);
    let (mut first, mut second) = (spec("out/1", "maps=0 parts=1"), spec("out/2", "maps=0 parts=1"));
    second.inputs.clear();
    first.then = Some(Box::new(second.clone()));
    let job = planned_spec(&mut world, first.clone());
    let workers: Vec<u64> = world.state().workers().map(|worker| worker.incarnation).collect();
    change(&mut world, job, Stage::Reduce, 0, attempt(1), 0, done(1));
    for incarnation in workers {
        world.commit("system", Action::RemoveWorker(wire::RemoveWorker { incarnation, ..Default::default() }));
    }
    world.commit("system", Action::JobPublished(wire::JobPublished { job }));
    let next = world.state().job(world.index).unwrap().clone();
    assert_eq!(next.state, JobState::Queued, "{:?}", next.error);
    let build = |spec: &gristmill_proto::v1::JobSpec| spec.app.clone().unwrap_or_default().build;
    assert_eq!(build(&next.spec), build(&world.state().job(job).unwrap().spec), "that of the submission");

    let mut world = bare(1);
    second.app.get_or_insert_default().name = "wrodcount".into();
    first.then = Some(Box::new(second));
    let submit = wire::SubmitJob { key: "k".into(), spec: Some(first), retry_of: 0 };
    let Outcome::Refused(refused) = world.commit("ann", Action::SubmitJob(submit)) else { panic!("it was taken") };
    assert!(refused.message.contains("wrodcount"), "{}", refused.message);
}

#[test]
fn a_published_output_is_its_jobs_until_it_is_archived() {
    let mut world = bare(1);
    let job = planned(&mut world, "out", "maps=0 parts=1");
    change(&mut world, job, Stage::Reduce, 0, attempt(1), 0, done(1));
    world.commit("system", Action::JobPublished(wire::JobPublished { job }));
    let again = |key: &str| {
        let key = key.into();
        Action::SubmitJob(wire::SubmitJob { key, spec: Some(spec("out", "maps=1")), retry_of: 0 })
    };
    let Outcome::Refused(refused) = world.commit("ann", again("a")) else { panic!("a late publisher may still come") };
    assert_eq!(refused.code(), Code::Conflict);
    let mut snapshot = Vec::new();
    world.state().snapshot().for_each(|chunk| snapshot.extend(chunk));
    assert_eq!(State::restore(&mut &snapshot[..]).unwrap().claim("out"), Some(job));
    world.commit("system", Action::ArchiveJob(wire::ArchiveJob { job, history: vec![7; 16].into() }));
    assert_eq!(world.state().claim("out"), None);
    assert!(matches!(world.commit("ann", again("b")), Outcome::Submitted(_)));
}

#[test]
fn a_retry_is_a_new_job_of_the_same_spec() {
    let mut world = bare(1);
    let job = world.job("out", "maps=1");
    let retry = |key: &str| Action::RetryJob(wire::RetryJob { job, key: key.into() });
    assert_eq!(code(world.commit("ann", retry("r"))), Code::State);
    world.commit("ann", Action::CancelJob(wire::CancelJob { job, ..Default::default() }));
    let Outcome::Submitted(new) = world.commit("ann", retry("r")) else { panic!() };
    let Outcome::Submitted(again) = world.commit("ann", retry("r")) else { panic!() };
    assert_eq!((new.already, again.already, new.job), (false, true, again.job));
    assert_eq!(world.state().job(new.job).unwrap().retry_of, job);
}

#[test]
fn half_jobs_pass_over_what_they_do_not_have() {
    let mut world = bare(1);
    let mut half = spec("out", "maps=1 parts=3");
    half.phase = Phase::Map.into();
    let job = planned_spec(&mut world, half);
    assert_eq!(world.state().job(job).unwrap().reduces.len(), 0);
    change(&mut world, job, Stage::Map, 0, attempt(1), 0, done(1));
    assert_eq!(world.state_of(job), JobState::Committing);
    assert_eq!(world.state().job(job).unwrap().maps[0].result.as_ref().unwrap().place, Place::Store);
    let mut other = spec("out2", "parts=1");
    other.phase = Phase::Reduce.into();
    let job = planned_spec(&mut world, other);
    assert_eq!(world.state_of(job), JobState::Shuffling);
}

#[test]
fn a_worker_is_not_drained_while_its_segments_are_needed() {
    let mut world = bare(2);
    let job = planned(&mut world, "out", "maps=1 parts=1");
    change(&mut world, job, Stage::Map, 0, attempt(1), 0, done(1));
    let incarnation = world.workers[0].incarnation.unwrap();
    let drained = Action::WorkerDrained(wire::WorkerDrained { incarnation });
    assert_eq!(code(world.commit("system", drained.clone())), Code::State, "not asked to");
    world.commit("system", Action::DrainWorker(wire::DrainWorker { incarnation, ..Default::default() }));
    assert_eq!(code(world.commit("system", drained.clone())), Code::State, "segments");
    assert_eq!(change(&mut world, job, Stage::Map, 0, attempt(1), 0, What::Moved(wire::Moved {})), Counted);
    world.commit("system", drained);
    assert!(world.state().worker(incarnation).is_none());
    assert_eq!(world.state().drained().collect::<Vec<_>>(), [(incarnation, "uid-w0")]);
    assert_eq!(world.state().job(job).unwrap().maps_missing(), 0);
}

#[test]
fn time_does_not_go_back() {
    let mut world = bare(1);
    let before = world.state().now_ms();
    let command = wire::Command {
        now_ms: 1,
        action: Some(Action::DrainWorker(wire::DrainWorker::default())),
        ..Default::default()
    };
    world.commit_command(&command);
    assert_eq!(world.state().now_ms(), before);
}

#[test]
fn ended_jobs_leave_rows_of_200_bytes_and_10_000_of_them() {
    let mut world = bare(1);
    let user = "u".repeat(200);
    let app = |spec: &mut gristmill_proto::v1::JobSpec| spec.app.as_mut().unwrap().arguments = vec!["x".repeat(500)];
    let mut sizes = Vec::new();
    let mut state = world.replicas[0].clone();
    let apply = |state: &mut State, n: u64, action: Action| {
        let command = wire::Command {
            now_ms: n * 20_000,
            principal: user.clone(),
            level: 1,
            action: Some(action),
            ..Default::default()
        };
        state.apply(u64::MAX / 2 + n, &command.encode_to_vec()).unwrap()
    };
    let info = wire::Register {
        name: "big".into(),
        address: "a".into(),
        slots: 1,
        apps: vec![wire::AppOffer { name: "n".repeat(64), build: "b".repeat(64) }],
        ..Default::default()
    };
    apply(&mut state, 0, Action::RegisterWorker(info));
    for n in 0..limits::ARCHIVE as u64 + 2_000 {
        let mut spec = spec("out", "");
        app(&mut spec);
        spec.app.as_mut().unwrap().name = "n".repeat(64);
        let job = u64::MAX / 2 + 3 * n + 1;
        let submit = wire::SubmitJob { key: format!("{n}"), spec: Some(spec), retry_of: 0 };
        apply(&mut state, 3 * n + 1, Action::SubmitJob(submit));
        apply(&mut state, 3 * n + 2, Action::CancelJob(wire::CancelJob { job, ..Default::default() }));
        apply(&mut state, 3 * n + 3, Action::ArchiveJob(wire::ArchiveJob { job, history: vec![1; 16].into() }));
        if n % 4_000 == 3_999 {
            sizes.push(state.snapshot().map(|chunk| chunk.len()).sum::<usize>());
        }
    }
    let longest = state.archive().map(prost::Message::encoded_len).max().unwrap();
    assert!(longest <= 200, "{longest}");
    assert_eq!(state.archive().count(), limits::ARCHIVE);
    assert!(sizes[2] < sizes[1] * 5 / 4, "the snapshot does not grow with what ended: {sizes:?}");
    world.replicas[0] = state;
    world.restore();
}

#[test]
fn a_user_has_so_many_jobs_at_a_time_and_others_have_theirs() {
    let mut state = State::default();
    let mut index = 0;
    let mut apply = |user: &str, action: Action| {
        index += 1;
        let command =
            wire::Command { now_ms: 1, principal: user.into(), level: 1, action: Some(action), ..Default::default() };
        (index, state.apply(index, &command.encode_to_vec()).unwrap().reply.outcome.unwrap())
    };
    let apps = vec![wire::AppOffer { name: "words".into(), build: "b".into() }];
    let register = wire::Register { name: "w".into(), address: "a".into(), slots: 1, apps, ..Default::default() };
    apply("system", Action::RegisterWorker(register));
    let submit = |n: u32| {
        let spec = Some(spec(&format!("out{n}"), "maps=1"));
        Action::SubmitJob(wire::SubmitJob { key: n.to_string(), spec, ..Default::default() })
    };
    let mut last = 0;
    for n in 0..limits::JOBS_OF_A_USER {
        let (job, outcome) = apply("ann", submit(n));
        assert!(matches!(outcome, Outcome::Submitted(_)), "{outcome:?}");
        last = job;
    }
    let more = limits::JOBS_OF_A_USER;
    let Outcome::Refused(refused) = apply("ann", submit(more)).1 else { panic!("one more than she may have") };
    assert!(refused.code() == Code::Limit && refused.message.contains("you have 5000 jobs"), "{refused:?}");
    assert!(matches!(apply("bob", submit(more)).1, Outcome::Submitted(_)), "another user");
    apply("ann", Action::CancelJob(wire::CancelJob { job: last, ..Default::default() }));
    assert!(matches!(apply("ann", submit(more + 1)).1, Outcome::Submitted(_)), "one has ended");
}

#[test]
fn what_bad_records_are_too_many_for_is_known_once_all_before_are_done() {
    let mut world = bare(1);
    let mut few = spec("out", "maps=3 parts=1");
    few.skip_bad_records = 2;
    let job = planned_spec(&mut world, few);
    let bad = |content, bad_records| match done(content) {
        What::Done(done) => What::Done(wire::Done { bad_records, ..done }),
        other => other,
    };
    let spoilt = |world: &World| world.state().job(job).unwrap().is_spoilt();
    change(&mut world, job, Stage::Map, 0, attempt(1), 0, bad(1, 2));
    change(&mut world, job, Stage::Map, 2, attempt(2), 0, bad(2, 3));
    assert!(!spoilt(&world), "those of map 1 come first");
    change(&mut world, job, Stage::Map, 1, attempt(3), 0, bad(3, 0));
    assert!(spoilt(&world));
    assert_eq!(world.state_of(job), JobState::Mapping, "it does not go on");
    assert_eq!(world.state().job(job).unwrap().status(CLUSTER).bad_records, 5);
    world.restore();
    assert!(State::clone(&world.replicas[1]).job(job).unwrap().is_spoilt(), "a snapshot says so too");
}

#[test]
fn counters_and_errors_have_bounds() {
    let mut world = bare(1);
    let job = planned(&mut world, "out", "maps=2 parts=1");
    let counter = |n: usize| wire::Counter { name: format!("{n:03}{}", "n".repeat(300)), value: 1 };
    let counters = |from: usize| (from..from + 200).map(counter).collect();
    let many =
        |from| What::Done(wire::Done { digest: vec![1; 16].into(), counters: counters(from), ..Default::default() });
    change(&mut world, job, Stage::Map, 0, attempt(1), 0, many(0));
    change(&mut world, job, Stage::Map, 1, attempt(2), 0, many(100));
    let counters = world.state().job(job).unwrap().counters();
    assert_eq!((counters.len(), counters.values().sum::<u64>()), (limits::COUNTERS, 140));
    assert!(counters.keys().all(|name| name.len() <= limits::COUNTER_BYTES));
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused() {
    let mut world = bare(2);
    let job = planned(&mut world, "out", "maps=200 parts=3 survey");
    change(&mut world, job, Stage::Survey, 0, attempt(1), 0, done(1));
    change(&mut world, job, Stage::Map, 77, attempt(2), 0, done(1));
    change(&mut world, job, Stage::Map, 5, attempt(3), 1, failure(Cause::Record, "in"));
    world.restore();
    let bytes = world.state().snapshot().collect::<Vec<_>>().concat();
    for len in 0..bytes.len() {
        assert!(State::restore(&mut &bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
    let level = limits::LEVEL + 1;
    let head = wire::HeadRecord { level, ..Default::default() };
    let record = wire::Record { kind: Some(wire::record::Kind::Head(head)) }.encode_length_delimited_to_vec();
    assert!(State::restore(&mut record.as_slice()).unwrap_err().to_string().contains("feature level 2"));
}

#[test]
fn names_of_jobs_can_be_read_back() {
    assert_eq!(job_of_name(CLUSTER, &job_name(CLUSTER, 42)), Some(42));
    for bad in ["", "42", "0000000000c0ffee-", "0000000000c0ffee-042", "0000000000c0ffef-42", "c0ffee-42"] {
        assert_eq!(job_of_name(CLUSTER, bad), None, "{bad}");
    }
}
