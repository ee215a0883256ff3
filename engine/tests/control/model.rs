//! Random histories: polls, results, deaths, new leaders, duplicates, unknown outcomes; then calm, in which every job
//! must end.

use gristmill_engine::control::ids::AttemptId;
use gristmill_engine::control::master::Proposed;
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::Phase;
use proptest::prelude::*;
use prost::Message as _;
use wire::command::Action;
use wire::failure::Cause;

use super::world::{World, spec};

#[derive(Clone, Copy, Debug)]
enum Op {
    Submit(u8),
    Cancel(u8),
    Retry(u8),
    Step(u8),
    Work(u8),
    Finish(u8, u8),
    Fail(u8, u8, u8),
    Kill(u8),
    Restart(u8),
    LoseSegments(u8),
    Drain(u8),
    Tick(u8),
    Applied,
    Unknown(bool),
    Refused,
    Elect(u8),
    Restore,
    Errand(u8, bool),
    Replay(u16),
    LoseAnswer,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<u8>().prop_map(Op::Submit),
        1 => any::<u8>().prop_map(Op::Cancel),
        1 => any::<u8>().prop_map(Op::Retry),
        20 => any::<u8>().prop_map(Op::Step),
        6 => any::<u8>().prop_map(Op::Work),
        16 => any::<(u8, u8)>().prop_map(|(w, n)| Op::Finish(w, n)),
        3 => any::<(u8, u8, u8)>().prop_map(|(w, n, c)| Op::Fail(w, n, c)),
        1 => any::<u8>().prop_map(Op::Kill),
        2 => any::<u8>().prop_map(Op::Restart),
        1 => any::<u8>().prop_map(Op::LoseSegments),
        1 => any::<u8>().prop_map(Op::Drain),
        8 => any::<u8>().prop_map(Op::Tick),
        20 => Just(Op::Applied),
        2 => any::<bool>().prop_map(Op::Unknown),
        1 => Just(Op::Refused),
        1 => any::<u8>().prop_map(Op::Elect),
        1 => Just(Op::Restore),
        10 => any::<(u8, bool)>().prop_map(|(n, again)| Op::Errand(n, again)),
        2 => any::<u16>().prop_map(Op::Replay),
        1 => Just(Op::LoseAnswer),
    ]
}

const FLAGS: [&str; 12] = [
    "maps=3 parts=2",
    "maps=1 parts=1",
    "maps=4 parts=3 chaotic",
    "maps=3 parts=2 survey",
    "maps=0 parts=2",
    "maps=2 parts=1 chaotic",
    "maps=6 parts=4",
    "maps=5 parts=5 survey chaotic",
    "maps=3 parts=2 spoilt",
    "maps=3 parts=0",
    "maps=4 parts=0 chaotic",
    "maps=0 parts=0",
];

fn submit(world: &mut World, n: u8) {
    let output = format!("out/{}", n % 16);
    let mut job = spec(&output, FLAGS[usize::from(n) % FLAGS.len()]);
    job.priority = i32::from(n % 3);
    match n % 11 {
        0 => job.phase = Phase::Map.into(),
        1 => job.phase = Phase::Reduce.into(),
        2 => job.then = Some(Box::new(spec(&format!("{output}-next"), "maps=2 parts=1"))),
        _ => {}
    }
    world.submit(["ann", "bob"][usize::from(n % 2)], &format!("key-{}", n / 3), job);
}

fn failure(n: u8) -> wire::Failure {
    let causes = [Cause::App, Cause::Record, Cause::Limit, Cause::Worker, Cause::Returned, Cause::Worker];
    let cause = causes[usize::from(n) % causes.len()];
    wire::Failure { cause: cause.into(), message: "x".repeat(usize::from(n) * 40), input: "in/0".into(), offset: 3 }
}

fn apply(world: &mut World, op: Op) {
    let of = |n: u8, world: &World| usize::from(n) % world.workers.len();
    let nth_job = |n: u8, world: &World| {
        let jobs: Vec<u64> = world.state().jobs().map(|job| job.id).collect();
        if jobs.is_empty() { 0 } else { jobs[usize::from(n) % jobs.len()] }
    };
    match op {
        Op::Submit(n) => submit(world, n),
        Op::Cancel(n) => {
            let job = nth_job(n, world);
            world.commit("ann", Action::CancelJob(wire::CancelJob { job, ..Default::default() }));
            world.tell();
        }
        Op::Retry(n) => {
            let job = nth_job(n, world);
            world.commit("ann", Action::RetryJob(wire::RetryJob { job, key: format!("retry-{n}") }));
            world.tell();
        }
        Op::Step(w) => world.step(of(w, world)),
        Op::Work(w) => world.work(of(w, world)),
        Op::Finish(w, n) => world.finish(of(w, world), usize::from(n % 3)),
        Op::Fail(w, n, cause) => {
            let worker = &mut world.workers[usize::from(w) % 4];
            let attempt: Option<AttemptId> = worker.tasks.keys().nth(usize::from(n % 3)).copied();
            attempt.into_iter().for_each(|attempt| worker.fail(attempt, failure(cause)));
        }
        Op::Kill(w) => world.workers[usize::from(w) % 4].alive = false,
        Op::Restart(w) => {
            let worker = &mut world.workers[usize::from(w) % 4];
            if !worker.alive && w < 128 {
                // A zombie: it was only paused.
                worker.alive = true;
            } else {
                worker.restart();
            }
        }
        Op::LoseSegments(w) => world.workers[usize::from(w) % 4].segments.clear(),
        Op::Drain(w) => world.workers[usize::from(w) % 4].draining = true,
        Op::Tick(n) => world.tick(u64::from(n) * 2),
        Op::Applied => world.propose(Proposed::Applied, true),
        Op::Unknown(applied) => world.propose(Proposed::Unknown, applied),
        Op::Refused => world.propose(Proposed::Refused, false),
        Op::Elect(n) if n % 4 == 3 => world.lead_again(),
        Op::Elect(n) => world.elect(|nth| n >> (nth % 8) & 1 == 0),
        Op::Restore => world.restore(),
        Op::Errand(n, again) => {
            let nth = usize::from(n) % world.errands.len().max(1);
            world.errand(nth, again);
        }
        Op::Replay(n) => {
            let bytes = world.log[usize::from(n) % world.log.len()].clone();
            let command = wire::Command::decode(bytes.as_slice()).unwrap();
            // Late duplicates are of what a leader proposes; clients and workers do not repeat what is theirs blindly.
            if !matches!(command.action, Some(Action::RegisterWorker(_) | Action::SubmitJob(_) | Action::CancelJob(_)))
            {
                world.commit_command(&command);
                world.tell();
            }
        }
        Op::LoseAnswer => world.lose_answers = true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_must_not_happen_happens_and_every_job_ends(ops in prop::collection::vec(op(), 1..400)) {
        let mut world = World::new(4, 2);
        for op in ops {
            apply(&mut world, op);
        }
        world.compare();
        world.lose_answers = false;
        world.heal();
        // What zombies wrote after a job was retired is swept when a new leader begins.
        world.elect(|_| true);
        (0..3).for_each(|_| world.calm_round());
        world.compare();
        world.ledger.check_end(&world.replicas[0], &world.store);
    }

    #[test]
    fn arbitrary_bytes_change_nothing_or_are_a_command(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut state = State::default();
        let before = state.clone();
        if state.apply(1, &bytes).is_err() {
            prop_assert_eq!(state, before);
        }
    }

    #[test]
    fn damaged_commands_do_not_panic(n in 0..1_000usize, at in 0..10_000usize, flip in 1..=255u8) {
        let mut world = World::new(2, 1);
        world.job("out", "maps=2 parts=1 survey");
        (0..6).for_each(|_| world.calm_round());
        let mut bytes = world.log[n % world.log.len()].clone();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let mut state = world.replicas[0].clone();
        let _ = state.apply(world.index + 1, &bytes);
        let restored = State::restore(&mut state.snapshot().collect::<Vec<_>>().concat().as_slice()).unwrap();
        prop_assert_eq!(restored, state);
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}
