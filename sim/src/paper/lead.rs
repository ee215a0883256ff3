//! The real scheduler and the real replicated state, with a log that takes its time and nothing that goes wrong with it.
//! What a master does beside scheduling (listing inputs, publishing, archiving) takes a given time and goes well.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_engine::control::master::{Config, Effect, Input, Master, Now, Plan, Proposed};
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::internal::v1::reply::Outcome;
use gristmill_proto::v1::{App, JobSpec};
use prost::Message as _;

/// From a proposal to its being applied: a round to another master and a write to its disk.
const COMMIT: Duration = Duration::from_millis(10);
/// What publishing an output takes: each part is there already, under another name.
const PUBLISH: Duration = Duration::from_secs(1);
/// An app that is never run.
const APP: &str = "modelled";

/// How a job is divided, and when that is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Division {
    pub(super) maps: u32,
    pub(super) reduces: u32,
    /// From the submission until tasks can be given out.
    pub(super) after: Duration,
    /// Whether slow tasks get second attempts.
    pub(super) backups: bool,
}

enum Due {
    Commit { ticket: u64, command: wire::Command, told: Duration },
    Told { ticket: u64 },
    Input(Input),
}

/// A master that leads for ever.
pub(super) struct Leader {
    state: State,
    index: u64,
    master: Master,
    now: Duration,
    division: Division,
    tick: Duration,
    next_tick: Duration,
    due: BTreeMap<(Duration, u64), Due>,
    numbers: u64,
    /// To be taken by who polled: the worker's incarnation, and the answer.
    pub(super) answers: Vec<(u64, wire::PollAnswer)>,
}

impl Leader {
    pub(super) fn new(division: Division) -> Self {
        let config = Config::default();
        let tick = config.tick;
        let (master, _) = Master::lead(Now::default(), 1, State::default(), config);
        let (state, index, now, next_tick, due, numbers, answers) = Default::default();
        let mut leader = Self { state, index, master, now, division, tick, next_tick, due, numbers, answers };
        leader.commit(Action::InitCluster(wire::InitCluster { cluster: 1, level: 1 }));
        leader
    }

    /// Time goes on until `now`.
    pub(super) fn turn(&mut self, now: Duration) {
        while let Some((at, _)) = self.due.first_key_value().map(|(at, _)| *at).filter(|(at, _)| *at <= now) {
            self.now = self.now.max(at);
            match self.due.pop_first() {
                Some((_, Due::Commit { ticket, command, told })) => {
                    self.apply(&command);
                    self.later(told, Due::Told { ticket });
                }
                Some((_, Due::Told { ticket })) => self.hear(Input::Proposed { ticket, outcome: Proposed::Applied }),
                Some((_, Due::Input(input))) => self.hear(input),
                None => {}
            }
        }
        self.now = now;
        if now >= self.next_tick {
            self.next_tick = now + self.tick;
            self.hear(Input::Tick);
        }
    }

    /// A worker's process begins. Gives its incarnation.
    pub(super) fn register(&mut self, machine: usize, slots: u32) -> Option<u64> {
        let app = wire::AppOffer { name: APP.into(), build: "1".into() };
        let register = wire::Register {
            name: format!("m{machine}"),
            address: format!("m{machine}:1"),
            slots,
            apps: vec![app],
            uid: String::new(),
            capabilities: Vec::new(),
            // It comes back with the same folder: its earlier life is over at once.
            folder: 1 + machine as u64,
        };
        match self.commit(Action::RegisterWorker(register)) {
            Some(Outcome::Registered(registered)) if registered.incarnation > 0 => Some(registered.incarnation),
            _ => None,
        }
    }

    pub(super) fn submit(&mut self) {
        let spec = JobSpec {
            app: Some(App { name: APP.into(), ..App::default() }),
            inputs: vec!["in/".into()],
            output: "out".into(),
            no_backups: !self.division.backups,
            ..JobSpec::default()
        };
        self.commit(Action::SubmitJob(wire::SubmitJob { key: "key".into(), spec: Some(spec), retry_of: 0 }));
    }

    /// Whether the job has ended.
    pub(super) fn is_done(&self) -> bool {
        self.state.jobs().all(|job| job.has_ended())
    }

    /// Maps that are done, or were.
    pub(super) fn maps_done(&self) -> u32 {
        self.state.jobs().next().map_or(0, |job| self.division.maps.min(job.maps.len() as u32) - job.maps_missing())
    }

    pub(super) fn poll(&mut self, poll: wire::Poll) {
        self.hear(Input::Poll(poll));
    }

    fn commit(&mut self, action: Action) -> Option<Outcome> {
        let command = wire::Command {
            now_ms: self.wall_ms(),
            principal: "ann".into(),
            level: 1,
            action: Some(action),
            ..Default::default()
        };
        self.apply(&command)
    }

    fn apply(&mut self, command: &wire::Command) -> Option<Outcome> {
        self.index += 1;
        let applied = self.state.apply(self.index, &command.encode_to_vec()).ok()?;
        self.hear(Input::Applied { state: self.state.clone(), touched: applied.touched });
        applied.reply.outcome
    }

    fn wall_ms(&self) -> u64 {
        1_000_000 + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }

    fn hear(&mut self, input: Input) {
        let now = Now { mono: self.now, wall_ms: self.wall_ms() };
        for effect in self.master.handle(now, input) {
            match effect {
                Effect::Propose { ticket, command, pause } => {
                    let told = self.now + COMMIT.max(pause);
                    self.later(self.now + COMMIT, Due::Commit { ticket, command, told });
                }
                Effect::Answer { incarnation, answer } => self.answers.push((incarnation, answer)),
                Effect::Plan(job) | Effect::LoadPlan(job) => {
                    let input = Input::Planned { job: job.id, result: Ok(self.plan()) };
                    self.later(self.now.max(self.division.after), Due::Input(input));
                }
                Effect::Publish(publication) => {
                    let input = Input::Published { job: publication.job, result: Ok(()) };
                    self.later(self.now + PUBLISH, Due::Input(input));
                }
                // Of archived jobs nothing is looked at here.
                Effect::Retire(_) | Effect::Judge(_) | Effect::Sweep { .. } | Effect::StepDown => {}
            }
        }
    }

    fn plan(&self) -> Plan {
        let Division { maps, reduces, .. } = self.division;
        let range = |map: u32| wire::InputRange { name: format!("in/{map}"), end: 1, size: 1, ..Default::default() };
        let maps = (0..maps).map(|map| vec![range(map)]).collect();
        Plan { digest: [1; 16], maps, reduces, ..Plan::default() }
    }

    fn later(&mut self, at: Duration, due: Due) {
        self.numbers += 1;
        self.due.insert((at, self.numbers), due);
    }
}
