//! A cluster without clock, threads or network: a log, two replicas, a leader, workers, a store; all that goes wrong is
//! asked for by the test. The ledger keeps what was seen and panics when it contradicts itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use gristmill_engine::control::apply::Touch;
use gristmill_engine::control::commit;
use gristmill_engine::control::ids::{AttemptId, Digest, Stage, TaskId};
use gristmill_engine::control::job::JobState;
use gristmill_engine::control::master::{Backups, Config, Effect, Input, Master, Now, Plan, Proposed, Reign};
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::job_error::Reason;
use gristmill_proto::v1::{App, JobError, JobSpec};
use prost::Message as _;
use wire::command::Action;
use wire::reply::Outcome;

use super::ledger::Ledger;
use super::worker::Worker;

pub const CLUSTER: u64 = 0xC0FFEE;

pub fn hash(numbers: &[&[u64]], digests: &[Digest]) -> Digest {
    let mut hasher = DefaultHasher::new();
    (numbers, digests).hash(&mut hasher);
    u128::from(hasher.finish()).to_be_bytes()
}

pub fn config() -> Config {
    Config {
        lease: Duration::from_millis(1_000),
        poll_wait: Duration::from_millis(200),
        tick: Duration::from_millis(50),
        retry: Duration::from_millis(100),
        avoid: Duration::from_millis(300),
        unserved: Duration::from_secs(3_600),
        backups: Backups { min_running: Duration::from_millis(300), ..Backups::default() },
        ..Config::default()
    }
}

/// A job of so many maps and parts.
pub fn spec(output: &str, flags: &str) -> JobSpec {
    let arguments = flags.split(' ').map(Into::into).collect();
    let app = Some(App { name: "words".into(), arguments, ..Default::default() });
    let no_backups = flags.contains("no-backups");
    JobSpec { app, inputs: vec!["in/".into()], output: output.into(), no_backups, ..JobSpec::default() }
}

pub struct World {
    pub replicas: [State; 2],
    pub index: u64,
    pub term: u64,
    pub now: Duration,
    pub master: Master,
    pub workers: Vec<Worker>,
    pub proposals: VecDeque<(u64, wire::Command)>,
    /// Of the newest proposal.
    pub pause: Duration,
    pub errands: VecDeque<Effect>,
    pub store: BTreeMap<String, Digest>,
    pub log: Vec<Vec<u8>>,
    pub ledger: Ledger,
    /// Applied and not told to the leader.
    untold: Vec<Touch>,
    pub lose_answers: bool,
}

impl World {
    pub fn new(workers: usize, slots: u32) -> Self {
        let now = Now::default();
        let (master, _) = Master::lead(now, 1, State::default(), config());
        let mut world = Self {
            replicas: Default::default(),
            index: 0,
            term: 1,
            now: Duration::ZERO,
            master,
            workers: (0..workers).map(|n| Worker::new(format!("w{n}"), slots)).collect(),
            proposals: VecDeque::new(),
            pause: Duration::ZERO,
            errands: VecDeque::new(),
            store: BTreeMap::new(),
            log: Vec::new(),
            ledger: Ledger::default(),
            untold: Vec::new(),
            lose_answers: false,
        };
        world.commit("system", Action::InitCluster(wire::InitCluster { cluster: CLUSTER, level: 1 }));
        for worker in 0..workers {
            world.step(worker);
        }
        world
    }

    pub fn state(&self) -> &State {
        &self.replicas[0]
    }

    pub fn state_of(&self, job: u64) -> JobState {
        self.state().job(job).map_or(JobState::Unspecified, |job| job.state)
    }

    /// Puts a command into the log and applies it.
    pub fn commit(&mut self, principal: &str, action: Action) -> Outcome {
        let now_ms = 1_000_000 + u64::try_from(self.now.as_millis()).unwrap();
        self.commit_command(&wire::Command {
            now_ms,
            principal: principal.into(),
            level: 1,
            action: Some(action),
            ..Default::default()
        })
    }

    pub fn commit_command(&mut self, command: &wire::Command) -> Outcome {
        self.index += 1;
        let bytes = command.encode_to_vec();
        let before = self.replicas[0].clone();
        let applied = self.replicas[0].apply(self.index, &bytes).unwrap();
        assert_eq!(applied.reply, self.replicas[1].apply(self.index, &bytes).unwrap().reply, "replicas reply the same");
        self.log.push(bytes);
        let outcome = applied.reply.outcome.unwrap();
        self.ledger.check(&before, &self.replicas[0], command, &outcome);
        self.untold.extend(applied.touched);
        outcome
    }

    /// Tells the leader what was applied.
    pub fn tell(&mut self) {
        if !self.untold.is_empty() {
            let touched = std::mem::take(&mut self.untold);
            let state = self.replicas[0].clone();
            self.hear(Input::Applied { state, touched });
        }
    }

    pub fn hear(&mut self, input: Input) {
        let now = Now { mono: self.now, wall_ms: 1_000_000 + u64::try_from(self.now.as_millis()).unwrap() };
        let effects = self.master.handle(now, input);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose { ticket, command, pause } => {
                    self.pause = pause;
                    self.proposals.push_back((ticket, command));
                }
                Effect::Answer { incarnation, answer } => self.answer(incarnation, answer),
                Effect::StepDown => {}
                errand => self.errands.push_back(errand),
            }
        }
    }

    fn answer(&mut self, incarnation: u64, answer: wire::PollAnswer) {
        for assignment in &answer.assignments {
            self.ledger.assigned(assignment.task.as_ref().unwrap());
        }
        if std::mem::take(&mut self.lose_answers) {
            return;
        }
        if let Some(worker) = self.workers.iter_mut().find(|w| w.alive && w.incarnation == Some(incarnation)) {
            worker.heed(answer);
        }
    }

    pub fn submit(&mut self, user: &str, key: &str, spec: JobSpec) -> Outcome {
        let submit = wire::SubmitJob { key: key.into(), spec: Some(spec), retry_of: 0 };
        let outcome = self.commit(user, Action::SubmitJob(submit));
        self.tell();
        outcome
    }

    /// Submits a job that must be accepted.
    pub fn job(&mut self, output: &str, flags: &str) -> u64 {
        self.accepted("ann", output, spec(output, flags))
    }

    pub fn accepted(&mut self, user: &str, key: &str, spec: JobSpec) -> u64 {
        match self.submit(user, key, spec) {
            Outcome::Submitted(submitted) => submitted.job,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// A worker registers, or polls if it has something to say or nobody answers it yet.
    pub fn step(&mut self, worker: usize) {
        let w = &mut self.workers[worker];
        if !w.alive || w.drained {
            return;
        }
        let Some(incarnation) = w.incarnation else {
            let info = w.register();
            if let Outcome::Registered(registered) = self.commit("system", Action::RegisterWorker(info)) {
                self.workers[worker].incarnation = Some(registered.incarnation);
            }
            return self.tell();
        };
        let poll = w.poll(incarnation);
        self.hear(Input::Poll(poll));
    }

    /// Tasks of a worker go on: reducers fetch, uploads are done.
    pub fn work(&mut self, worker: usize) {
        let held: BTreeMap<u64, BTreeSet<(u64, u32, AttemptId)>> = (self.workers.iter())
            .filter(|w| w.alive)
            .filter_map(|w| Some((w.incarnation?, w.segments.keys().copied().collect())))
            .collect();
        let w = &mut self.workers[worker];
        if !w.alive {
            return;
        }
        for running in w.tasks.values_mut().filter(|r| r.task.stage() == Stage::Reduce && !r.fetched) {
            let (job, maps) = (running.task.job, running.assignment.maps);
            let of_epoch = w.known.get(&job).is_some_and(|(epoch, ..)| *epoch == running.task.epoch);
            let places = w.places.entry(job).or_default();
            let mut read = Vec::new();
            for map in (0..maps).filter(|_| of_epoch) {
                let Some((attempt, digest, at)) = places.get(&map) else { continue };
                let stored = commit::segments(CLUSTER, job, map, *attempt);
                let there = if *at == 0 {
                    self.store.contains_key(&stored)
                } else {
                    held.get(at).is_some_and(|held| held.contains(&(job, map, *attempt)))
                };
                if there {
                    read.push(*digest);
                } else {
                    let (epoch, attempt) = (running.task.epoch, Some((*attempt).into()));
                    w.missing.insert((job, map), wire::Missing { job, epoch, map, attempt });
                }
            }
            if read.len() == maps as usize {
                running.fetched = true;
                running.read = read;
            }
        }
        w.missing.retain(|(job, _), _| w.tasks.values().any(|r| r.task.job == *job));
        for (job, map, attempt) in std::mem::take(&mut w.uploads) {
            let Some(digest) = w.segments.get(&(job, map, attempt)) else { continue };
            self.store.insert(commit::segments(CLUSTER, job, map, attempt), *digest);
            let epoch = self.replicas[0].job(job).map_or(0, |job| job.epoch);
            let stage = Stage::Map.into();
            let task = Some(wire::Task { job, stage, epoch, partition: map, attempt: Some(attempt.into()) });
            w.reports.push(wire::TaskReport {
                task,
                end: Some(wire::task_report::End::Moved(wire::Moved {})),
                given_ms: 0,
            });
        }
    }

    /// Ends the nth task of a worker well, if it can.
    pub fn finish(&mut self, worker: usize, nth: usize) {
        self.work(worker);
        let w = &mut self.workers[worker];
        let Some(attempt) = w.tasks.keys().nth(nth).copied().filter(|_| w.alive) else { return };
        let running = &w.tasks[&attempt];
        if running.task.stage() == Stage::Reduce {
            self.ledger.read(attempt, running.read.clone());
        }
        self.store.extend(w.finish(attempt));
    }

    /// What becomes of the oldest proposal.
    pub fn propose(&mut self, outcome: Proposed, applied: bool) {
        let Some((ticket, command)) = self.proposals.pop_front() else { return };
        if applied {
            self.commit_command(&command);
        }
        if !self.index.is_multiple_of(3) {
            self.tell();
        }
        self.hear(Input::Proposed { ticket, outcome });
        self.tell();
    }

    /// A new leader; what was under way was or was not committed before.
    pub fn elect(&mut self, applied: impl Fn(usize) -> bool) {
        for (n, (_, command)) in std::mem::take(&mut self.proposals).into_iter().enumerate() {
            if applied(n) {
                self.commit_command(&command);
            }
        }
        self.term += 1;
        self.lead(self.term);
    }

    /// The leader doubts, and leads once more in the same term. What it proposed is lost.
    pub fn lead_again(&mut self) {
        self.proposals.clear();
        self.lead(self.master.next_reign());
    }

    fn lead(&mut self, reign: impl Into<Reign>) {
        self.untold.clear();
        self.workers.iter_mut().for_each(|worker| worker.waits = false);
        let now = Now { mono: self.now, wall_ms: 0 };
        let (master, effects) = Master::lead(now, reign, self.replicas[0].clone(), config());
        self.master = master;
        self.carry_out(effects);
    }

    /// The second replica is made anew from a snapshot of the first.
    pub fn restore(&mut self) {
        let chunks: Vec<Vec<u8>> = self.replicas[0].snapshot().collect();
        assert!(chunks.iter().all(|chunk| chunk.len() <= 1 << 20));
        self.replicas[1] = State::restore(&mut chunks.concat().as_slice()).unwrap();
        self.compare();
    }

    pub fn compare(&self) {
        assert_eq!(self.replicas[0], self.replicas[1], "replicas hold the same");
        assert_eq!(self.replicas[0].digest(), self.replicas[1].digest());
    }

    /// Does one of the things that are to be done outside.
    pub fn errand(&mut self, nth: usize, again: bool) {
        let Some(effect) = self.errands.get(nth).cloned() else { return };
        if !again {
            self.errands.remove(nth);
        }
        match effect {
            Effect::Plan(job) | Effect::LoadPlan(job) => {
                let plan = plan(job.id, &job.spec);
                self.hear(Input::Planned { job: job.id, result: Ok(plan) });
            }
            Effect::Judge(job) => {
                assert!(job.is_spoilt());
                let error = JobError { reason: Reason::BadRecord.into(), ..JobError::default() };
                self.hear(Input::Judged { job: job.id, result: Ok(error) });
            }
            Effect::Publish(publication) => {
                self.ledger.publish(&self.replicas[0], &self.store, &publication);
                self.hear(Input::Published { job: publication.job, result: Ok(()) });
            }
            Effect::Retire(job) => {
                assert!(self.replicas[0].job(job.id).is_none_or(|job| job.has_ended()));
                let scratch = commit::scratch(CLUSTER, job.id);
                self.store.retain(|key, _| !key.starts_with(&scratch));
                self.hear(Input::Retired { job: job.id, result: Ok([7; 16]) });
            }
            Effect::Sweep { upto, keep } => {
                let of = |key: &str| commit::job_of(CLUSTER, key);
                self.store.retain(|key, _| of(key).is_none_or(|job| job > upto || keep.contains(&job)));
            }
            _ => {}
        }
    }

    pub fn tick(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.hear(Input::Tick);
    }

    /// Nothing goes wrong any more.
    pub fn calm_round(&mut self) {
        for worker in 0..self.workers.len() {
            if !self.workers[worker].alive || self.workers[worker].drained {
                self.workers[worker].restart();
            }
            self.step(worker);
            for nth in (0..self.workers[worker].tasks.len()).rev() {
                self.finish(worker, nth);
            }
            if !self.workers[worker].reports.is_empty() {
                self.step(worker);
            }
        }
        while !self.proposals.is_empty() {
            self.propose(Proposed::Applied, true);
        }
        for _ in 0..self.errands.len() {
            self.errand(0, false);
        }
        self.tick(50);
    }

    /// Calm until all jobs are archived. Gives the rounds that it took.
    pub fn heal(&mut self) -> usize {
        for round in 0..600 {
            if self.state().jobs().next().is_none() {
                return round;
            }
            self.calm_round();
        }
        let left: Vec<_> = self.state().jobs().map(|job| (job.id, job.state, job.maps_missing())).collect();
        panic!("jobs did not end: {left:?}");
    }

    pub fn task(&self, job: u64, stage: Stage, partition: u32) -> Vec<(AttemptId, u64)> {
        let of = TaskId { job, stage, partition };
        self.master
            .running()
            .filter(|(_, task, ..)| *task == of)
            .map(|(attempt, _, worker, _)| (attempt, worker))
            .collect()
    }
}

/// The plan that a job's flags ask for.
pub fn plan(job: u64, spec: &JobSpec) -> Plan {
    let flags = &spec.app.as_ref().unwrap().arguments;
    let number = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name)?.parse::<u32>().ok());
    let maps = if spec.phase() == gristmill_proto::v1::Phase::Reduce { 0 } else { number("maps=").unwrap_or(2) };
    let input =
        |map| vec![wire::InputRange { name: format!("in/{}", map / 2), end: 10, size: 10, ..Default::default() }];
    Plan {
        digest: hash(&[&[job, 99]], &[]),
        maps: (0..maps).map(input).collect(),
        reduces: number("parts=").unwrap_or(2),
        survey: flags.iter().any(|flag| flag == "survey"),
        input_bytes: u64::from(maps) * 10,
    }
}
