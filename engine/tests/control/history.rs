//! What is told of a job: all of it, by whichever master, and bounded.

use gristmill_engine::control::history;
use gristmill_engine::control::ids::Stage;
use gristmill_engine::control::job::JobState;
use gristmill_engine::control::limits;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::JobEvent;
use gristmill_proto::v1::job_event::Kind;
use wire::command::Action;
use wire::failure::Cause;

use super::rules::{finish_all, pass, settle, started};
use super::world::{CLUSTER, World};

/// What happened to a job that has not been archived, as any master tells it.
fn events(world: &World, job: u64) -> Vec<JobEvent> {
    let [here, there] = [0, 1].map(|n| history::events(CLUSTER, world.replicas[n].job(job).unwrap()));
    assert_eq!(here, there, "whoever tells it");
    here
}

/// What happened to tasks, without times.
fn told(events: &[JobEvent], kinds: &[Kind]) -> Vec<String> {
    let of_kind = |event: &&JobEvent| kinds.contains(&event.kind());
    let line = |event: &JobEvent| format!("{} [{}] {}", event.what, event.worker, event.detail).trim().to_string();
    events.iter().filter(of_kind).map(line).collect()
}

#[test]
fn four_retries_are_told_each_with_its_reason() {
    let (mut world, job) = started(1, 1, "maps=1 parts=1");
    for _ in 0..limits::ATTEMPTS {
        pass(&mut world, 500, &[0]);
        let attempt = *world.workers[0].tasks.keys().next().unwrap();
        let message = format!("attempt {} broke", attempt.counter);
        world.workers[0].fail(attempt, wire::Failure { cause: Cause::App.into(), message, ..Default::default() });
        world.step(0);
        while !world.proposals.is_empty() {
            world.propose(gristmill_engine::control::master::Proposed::Applied, true);
        }
    }
    assert_eq!(world.state_of(job), JobState::Failed);
    let events = events(&world, job);
    let failed: Vec<String> = (1..=4).map(|n| format!("map 0 failed [w0] attempt {n} broke")).collect();
    assert_eq!(told(&events, &[Kind::Failed]), failed);
    let given = told(&events, &[Kind::Given]);
    assert_eq!((given.len(), given[0].as_str()), (4, "map 0 given out [w0]"));
    assert_eq!(told(&events, &[Kind::Submitted]), ["submitted [] by ann"]);
    assert_eq!(told(&events, &[Kind::Planned]), ["planned [] 1 map tasks, 1 parts, 10 bytes of input"]);
    let last = events.last().unwrap();
    assert!(last.kind() == Kind::FailedJob && last.detail.contains("attempt 4 broke"), "{last:?}");
    assert!(events.is_sorted_by_key(|event| event.time_ms));
}

#[test]
fn a_job_that_completes_is_told_from_beginning_to_end() {
    let (mut world, job) = started(1, 1, "maps=1 parts=1 survey");
    let mut last = Vec::new();
    while let Some(now) = world.state().job(job).cloned() {
        pass(&mut world, 50, &[]);
        last = history::events(CLUSTER, world.state().job(job).unwrap_or(&now));
        finish_all(&mut world, 0);
        world.step(0);
    }
    // The last look was before the job's end.
    let kinds: Vec<Kind> = last.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds[..6], [Kind::Submitted, Kind::Planned, Kind::Given, Kind::Done, Kind::Given, Kind::Done]);
    let done = last.iter().filter(|event| event.kind() == Kind::Done).collect::<Vec<_>>();
    assert!(done.iter().all(|event| event.given_ms > 0 && event.given_ms <= event.time_ms), "{done:?}");
}

#[test]
fn a_backup_and_who_it_was_beside_are_told() {
    let (mut world, job) = started(2, 2, "maps=4 parts=1");
    let slow = world.workers[1].tasks.values().next().unwrap().task.partition;
    pass(&mut world, 100, &[0, 1]);
    finish_all(&mut world, 0);
    world.finish(1, 1);
    world.step(1);
    settle(&mut world);
    pass(&mut world, 600, &[0, 1]);
    assert_eq!(world.task(job, Stage::Map, slow).len(), 2);
    let running = world.master.events(job).unwrap();
    let backups = |events: &[JobEvent]| events.iter().filter(|e| e.backup && e.kind() == Kind::Given).count();
    assert_eq!(backups(&running), 1, "it runs");
    finish_all(&mut world, 0);
    let events = events(&world, job);
    assert_eq!(backups(&events), 1);
    let stopped = format!("map {slow} stopped: another attempt was done first [w1]");
    assert_eq!(told(&events, &[Kind::Stopped]), [stopped]);
}

#[test]
fn what_a_lost_worker_took_with_it_is_told() {
    let (mut world, job) = started(2, 1, "maps=3 parts=1");
    finish_all(&mut world, 0);
    world.workers[0].alive = false;
    pass(&mut world, 1_100, &[1]);
    let events = events(&world, job);
    assert_eq!(
        told(&events, &[Kind::WorkerLost]),
        ["worker lost with 1 finished map tasks [w0] it was not heard of for too long"]
    );
    let gone = told(&events, &[Kind::Gone]);
    assert_eq!(gone.len(), 1);
    assert!(gone[0].ends_with("came to nothing [w0] its worker is gone"), "{gone:?}");
}

#[test]
fn when_an_attempt_began_is_known_to_the_next_leader() {
    let (mut world, job) = started(1, 1, "maps=1 parts=1");
    let given_ms = world.master.events(job).unwrap().last().unwrap().time_ms;
    pass(&mut world, 200, &[]);
    world.elect(|_| true);
    world.step(0);
    finish_all(&mut world, 0);
    let events = events(&world, job);
    let done = events.iter().find(|event| event.kind() == Kind::Done).unwrap();
    assert!(done.given_ms == given_ms && done.time_ms >= given_ms + 200, "{done:?}");
}

#[test]
fn incidents_are_bounded_and_the_newest_are_kept() {
    let (mut world, job) = started(1, 1, "maps=40 parts=1");
    let incarnation = world.workers[0].incarnation.unwrap();
    for n in 0..limits::INCIDENTS as u64 + 10 {
        let task = wire::Task {
            job,
            stage: Stage::Map.into(),
            partition: (n % 40) as u32,
            attempt: Some(wire::Attempt { term: 9, counter: n }),
            ..Default::default()
        };
        let message = format!("{n} {}", "x".repeat(1_000));
        let failure = wire::Failure { cause: Cause::Worker.into(), message, ..Default::default() };
        let what = Some(wire::task_change::What::Failure(failure));
        let change = wire::TaskChange { task: Some(task), worker: incarnation, what, ..Default::default() };
        world.commit("system", Action::TaskChanges(wire::TaskChanges { changes: vec![change] }));
    }
    world.restore();
    let events = events(&world, job);
    let failed = told(&events, &[Kind::Failed]);
    assert_eq!(failed.len(), limits::INCIDENTS);
    assert!(failed[0].contains("[w0] 10 x"), "{}", failed[0]);
    assert_eq!(told(&events, &[Kind::LeftOut]), ["10 earlier incidents are not kept []"]);
    assert!(events.iter().all(|event| event.detail.len() <= limits::INCIDENT_BYTES));
}

#[test]
fn who_cancelled_a_job_and_why_is_told() {
    let (mut world, job) = started(1, 1, "maps=1 parts=1");
    let reason = "the input is old".to_string();
    world.commit("bob", Action::CancelJob(wire::CancelJob { job, reason }));
    assert_eq!(told(&events(&world, job), &[Kind::Cancelled]), ["cancelled [] cancelled by bob: the input is old"]);
}
