//! How much a job of many tasks takes.

use gristmill_engine::control::master::{Config, Input, Master, Now, Plan};
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use prost::Message as _;
use wire::command::Action;
use wire::task_change::What;

use super::world::spec;

const MAPS: u32 = 10_000;

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

#[test]
fn ten_thousand_tasks_stay_small() {
    let before = resident();
    let mut state = State::default();
    let mut index = 0;
    let mut commit = |state: &mut State, action: Action| {
        index += 1;
        let command =
            wire::Command { now_ms: 1, principal: "ann".into(), level: 1, action: Some(action), ..Default::default() };
        state.apply(index, &command.encode_to_vec()).unwrap();
        index
    };
    let apps = vec![wire::AppOffer { name: "words".into(), build: "b1".into() }];
    let info = wire::Register {
        name: "w".into(),
        address: "a".into(),
        slots: 1_024,
        apps,
        uid: String::new(),
        folder: 1,
        ..Default::default()
    };
    let worker = commit(&mut state, Action::RegisterWorker(info));
    let job = commit(
        &mut state,
        Action::SubmitJob(wire::SubmitJob { key: "k".into(), spec: Some(spec("out", "")), retry_of: 0 }),
    );
    let range = |n: u32| wire::InputRange {
        name: format!("in/a/name/of/some/length-{n:06}"),
        version: "0123456789abcdef".into(),
        ..Default::default()
    };
    let maps = (0..MAPS).map(|map| vec![range(map), range(map + MAPS)]).collect();
    let plan = Plan { digest: [1; 16], maps, reduces: 1_000, ..Plan::default() };
    let digest = plan.digest.to_vec().into();
    commit(
        &mut state,
        Action::PlanJob(wire::PlanJob { job, plan: digest, maps: MAPS, reduces: 1_000, survey: false, input_bytes: 0 }),
    );
    let (mut master, _) = Master::lead(Now::default(), 1, state.clone(), Config::default());
    master.handle(Now::default(), Input::Planned { job, result: Ok(plan) });
    // Each task has failed once with a long message, and was done with 20 counters.
    for map in 0..MAPS {
        let task = |counter| {
            let attempt = Some(wire::Attempt { term: 1, counter });
            Some(wire::Task { job, stage: wire::Stage::Map.into(), epoch: 0, partition: map, attempt })
        };
        let failure = wire::Failure {
            cause: wire::failure::Cause::Worker.into(),
            message: "x".repeat(5_000),
            ..Default::default()
        };
        let counters = (0..20).map(|n| wire::Counter { name: format!("counter {n}"), value: 1 }).collect();
        let done = wire::Done { digest: vec![1; 16].into(), counters, ..Default::default() };
        let changes = vec![
            wire::TaskChange { task: task(1), worker, what: Some(What::Failure(failure)), ..Default::default() },
            wire::TaskChange { task: task(2), worker, what: Some(What::Done(done)), ..Default::default() },
        ];
        commit(&mut state, Action::TaskChanges(wire::TaskChanges { changes }));
    }
    assert_eq!(state.job(job).unwrap().maps_missing(), 0);
    let grown = resident().saturating_sub(before) >> 20;
    let snapshot = state.snapshot().map(|chunk| chunk.len()).sum::<usize>() >> 20;
    println!("{grown} MiB resident, of which 40 MiB of errors; snapshot {snapshot} MiB");
    assert!(grown < 200 && snapshot < 60, "{grown} MiB resident, snapshot of {snapshot} MiB");
    assert!(master.status(job).is_some());
}
