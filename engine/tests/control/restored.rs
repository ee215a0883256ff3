//! What becomes of a backup's state when a new cluster begins with it.

use std::collections::BTreeMap;

use gristmill_engine::control::apply::Ended;
use gristmill_engine::control::ids::job_name;
use gristmill_engine::control::job::JobState;
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::JobStatus;
use wire::command::Action;
use wire::reply::Outcome;

use super::world::{CLUSTER, World, spec};

const FIRST: u64 = 1 << 40;

fn ended(state: JobState, next: u64) -> Ended {
    let next = if next == 0 { String::new() } else { job_name(CLUSTER, next) };
    let status = JobStatus { state: state.into(), next, submitted_ms: 5, ended_ms: 9, ..Default::default() };
    Ended { status, history: [7; 16] }
}

/// The state, and its three jobs: one by itself, one with two after it, one by itself.
fn backup() -> (State, [u64; 3]) {
    let mut world = World::new(2, 1);
    let alone = world.job("out/alone", "maps=1");
    let mut chained = spec("out/first", "maps=1");
    let mut second = spec("out/second", "maps=1");
    second.then = Some(Box::new(spec("out/third", "maps=1")));
    chained.then = Some(Box::new(second));
    let chained = world.accepted("ann", "chained", chained);
    let waits = world.job("out/waits", "maps=1");
    (world.state().clone(), [alone, chained, waits])
}

/// What is told of a state does not depend on how it came about.
fn is_whole(state: &State) {
    let chunks: Vec<Vec<u8>> = state.snapshot().collect();
    assert_eq!(State::restore(&mut chunks.concat().as_slice()).unwrap(), *state);
}

#[test]
fn workers_are_gone_and_jobs_wait_for_others() {
    let (before, jobs) = backup();
    let mut state = before.clone();
    assert_eq!(state.begin_anew(FIRST, 9_000_000, &BTreeMap::new()), FIRST);
    assert_eq!((state.workers().count(), state.applied(), state.now_ms()), (0, FIRST, 9_000_000));
    assert!(jobs.iter().all(|job| state.job(*job).is_some_and(|job| job.state == JobState::Queued)));
    assert_eq!(state.access(), before.access());
    is_whole(&state);
    // The clock of the machine that restores may be behind.
    let mut state = before.clone();
    state.begin_anew(FIRST, 0, &BTreeMap::new());
    assert_eq!(state.now_ms(), before.now_ms());
}

#[test]
fn jobs_that_ended_since_are_as_their_histories_say() {
    let (mut state, [alone, chained, waits]) = backup();
    let (second, third) = (waits + 10, waits + 20);
    let all = [
        (alone, ended(JobState::Failed, 0)),
        (chained, ended(JobState::Completed, second)),
        (second, ended(JobState::Completed, third)),
        (third, ended(JobState::Cancelled, 0)),
    ];
    assert_eq!(state.begin_anew(FIRST, 0, &BTreeMap::from(all)), FIRST);
    let rows = [(alone, JobState::Failed), (chained, JobState::Completed), (third, JobState::Cancelled)];
    for (job, how) in rows {
        let row = state.archived(job).unwrap();
        assert_eq!((row.state(), row.principal.as_str(), &row.history[..]), (how, "ann", &[7; 16][..]));
        assert!(state.job(job).is_none());
    }
    assert!(state.archived(second).is_some() && state.job(waits).is_some());
    assert_eq!(state.jobs_of("ann"), 1);
    assert_eq!(state.claim("out/waits"), Some(waits));
    for free in ["out/alone", "out/first", "out/second", "out/third"] {
        assert_eq!(state.claim(free), None, "{free}");
    }
    is_whole(&state);
}

/// What the cluster that is gone had begun, and had not ended, begins under another id.
#[test]
fn the_job_after_one_that_ended_since_is_not_lost() {
    let (mut state, [_, chained, waits]) = backup();
    let all = BTreeMap::from([(chained, ended(JobState::Completed, waits + 10))]);
    assert_eq!(state.begin_anew(FIRST, 0, &all), FIRST + 1);
    let next = state.job(FIRST + 1).unwrap();
    assert_eq!((next.spec.output.as_str(), &next.spec.inputs), ("out/second", &vec!["in/".to_string()]));
    assert_eq!((state.claim("out/second"), state.claim("out/third")), (Some(FIRST + 1), Some(FIRST + 1)));
    assert_eq!((state.applied(), state.jobs_of("ann")), (FIRST + 1, 3));
    is_whole(&state);
}

/// Ids that the cluster gives out from there on are higher than any of before.
#[test]
fn ids_go_on_from_the_new_index() {
    let (mut state, _) = backup();
    let last = state.begin_anew(FIRST, 0, &BTreeMap::new());
    let (name, address, slots) = ("w0".to_string(), "w0:1".to_string(), 1);
    let apps = vec![wire::AppOffer { name: "words".into(), build: "b1".into() }];
    let register = wire::Register { name, address, slots, apps, ..Default::default() };
    let command =
        |action| wire::Command { principal: "ann".into(), level: 1, action: Some(action), ..Default::default() };
    let mut apply = |index, action| {
        use prost::Message as _;
        state.apply(index, &command(action).encode_to_vec()).unwrap().reply.outcome.unwrap()
    };
    let Outcome::Registered(worker) = apply(last + 1, Action::RegisterWorker(register)) else { panic!() };
    let submit = wire::SubmitJob { key: "new".into(), spec: Some(spec("out/new", "maps=1")), retry_of: 0 };
    let Outcome::Submitted(job) = apply(last + 2, Action::SubmitJob(submit)) else { panic!() };
    assert_eq!((worker.incarnation, job.job), (FIRST + 1, FIRST + 2));
}
