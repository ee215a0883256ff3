//! The control plane: giving out tasks, and applying their ends to the replicated state.

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use gristmill_engine::control::ids::Stage;
use gristmill_engine::control::master::{Config, Effect, Input, Master, Now, Plan};
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{App, JobSpec};
use prost::Message as _;
use wire::command::Action;
use wire::task_change::What;

use crate::input;

const SLOTS: u32 = 4;
/// Ends of tasks in one command.
const BATCH: u32 = 256;

pub(crate) fn benches(criterion: &mut Criterion) {
    // Tiny inputs are a smoke run's.
    let workers = if input::size() < 1 << 20 { 20 } else { 2_000 };
    schedule(criterion, workers);
    apply(criterion, workers);
}

/// A state and the index of its last command.
#[derive(Clone)]
struct Log(State, u64);

impl Log {
    fn commit(&mut self, action: Action) -> Vec<gristmill_engine::control::apply::Touch> {
        self.1 += 1;
        let command = wire::Command {
            now_ms: self.1,
            principal: "ann".into(),
            level: 1,
            action: Some(action),
            ..Default::default()
        };
        self.0.apply(self.1, &command.encode_to_vec()).expect("a known command").touched
    }
}

/// So many workers and a job of one map for each slot, with its plan and id.
fn cluster(workers: u32) -> (Log, Plan, u64) {
    let mut log = Log(State::default(), 0);
    log.commit(Action::InitCluster(wire::InitCluster { cluster: 1, level: 1 }));
    for n in 0..workers {
        let app = wire::AppOffer { name: "words".into(), build: "1".into() };
        log.commit(Action::RegisterWorker(wire::Register {
            name: format!("worker-{n}"),
            address: format!("10.0.0.1:{n}"),
            slots: SLOTS,
            apps: vec![app],
            uid: String::new(),
            capabilities: Vec::new(),
            folder: 0,
        }));
    }
    let app = Some(App { name: "words".into(), arguments: vec!["--top".into(), "100".into()], ..Default::default() });
    let spec = JobSpec { app, inputs: vec!["in/".into()], output: "out".into(), ..JobSpec::default() };
    log.commit(Action::SubmitJob(wire::SubmitJob { key: "key".into(), spec: Some(spec), retry_of: 0 }));
    let job = log.1;
    let maps = workers * SLOTS;
    // Four maps read each object.
    let range = |map: u32| wire::InputRange {
        name: format!("in/part-{:05}", map / 4),
        version: "1".into(),
        input: map / 4,
        start: 0,
        end: 64 << 20,
        size: 256 << 20,
    };
    let plan =
        Plan { digest: [1; 16], maps: (0..maps).map(|map| vec![range(map)]).collect(), reduces: 10, ..Plan::default() };
    let digest = plan.digest.to_vec().into();
    log.commit(Action::PlanJob(wire::PlanJob { job, plan: digest, maps, reduces: 10, survey: false, input_bytes: 0 }));
    (log, plan, job)
}

/// All workers poll, and each gets a task for each of its slots.
fn schedule(criterion: &mut Criterion, workers: u32) {
    let (log, plan, job) = cluster(workers);
    let now = Now { mono: Duration::from_secs(20), wall_ms: 0 };
    let lead = || {
        let (mut master, _) = Master::lead(Now::default(), 1, log.0.clone(), Config::default());
        master.handle(now, Input::Planned { job, result: Ok(plan.clone()) });
        master.handle(now, Input::Tick);
        master
    };
    let incarnations: Vec<u64> = log.0.workers().map(|worker| worker.incarnation).collect();
    let poll_all = |mut master: Master| {
        let mut assigned = 0;
        for incarnation in &incarnations {
            let poll =
                wire::Poll { incarnation: *incarnation, sequence: 1, free_slots: SLOTS, ..wire::Poll::default() };
            for effect in master.handle(now, Input::Poll(poll)) {
                if let Effect::Answer { answer, .. } = effect {
                    assigned += answer.assignments.len();
                }
            }
        }
        (assigned, master)
    };
    assert_eq!(poll_all(lead()).0, (workers * SLOTS) as usize, "every slot has a task");
    let mut group = criterion.benchmark_group("schedule");
    group.throughput(Throughput::Elements(u64::from(workers * SLOTS)));
    group.bench_function("assign", |b| b.iter_batched(lead, poll_all, BatchSize::PerIteration));
}

/// The ends of all maps of a job, in batches as a busy leader proposes them.
fn apply(criterion: &mut Criterion, workers: u32) {
    let (log, plan, job) = cluster(workers);
    let incarnations: Vec<u64> = log.0.workers().map(|worker| worker.incarnation).collect();
    let maps = u32::try_from(plan.maps.len()).expect("few");
    let change = |partition: u32| {
        let attempt = Some(wire::Attempt { term: 1, counter: u64::from(partition) });
        let counter = |n: u64| wire::Counter { name: format!("counter {n}"), value: n };
        let done =
            wire::Done { digest: vec![1; 16].into(), counters: (0..5).map(counter).collect(), ..Default::default() };
        wire::TaskChange {
            task: Some(wire::Task { job, stage: Stage::Map.into(), epoch: 0, partition, attempt }),
            worker: incarnations[(partition / SLOTS) as usize],
            what: Some(What::Done(done)),
            ..Default::default()
        }
    };
    let commands: Vec<Action> = (0..maps)
        .step_by(BATCH as usize)
        .map(|from| (from..maps.min(from + BATCH)).map(change).collect())
        .map(|changes| Action::TaskChanges(wire::TaskChanges { changes }))
        .collect();
    let mut group = criterion.benchmark_group("state");
    group.throughput(Throughput::Elements(u64::from(maps)));
    let run = |mut log: Log| {
        commands.iter().for_each(|command| drop(log.commit(command.clone())));
        assert_eq!(log.0.job(job).map(|job| job.maps_missing()), Some(0));
        log
    };
    group.bench_function("apply", |b| b.iter_batched(|| log.clone(), run, BatchSize::PerIteration));
    let done = run(log.clone());
    group.throughput(Throughput::Bytes(done.0.snapshot().map(|chunk| chunk.len() as u64).sum()));
    group.bench_function("snapshot", |b| b.iter(|| done.0.snapshot().map(|chunk| chunk.len()).sum::<usize>()));
}
