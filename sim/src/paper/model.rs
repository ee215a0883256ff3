//! Modelled machines: what tasks do to disks, links and processors, as flows that share them. Of 60 million segments none
//! is looked at; a reducer has a share of what the maps it knows of have made.
//!
//! A machine's disk is shared by its tasks in proportion to what they want, its link likewise, and the network's root by
//! all machines. Time goes in steps of a tenth of a second.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::Stage;
use rand::Rng as _;
use rand_pcg::Pcg64Mcg;
use wire::task_report::End;

use super::lead::{Division, Leader};
use crate::random::{Stream, below, stream};

/// A step of time.
const STEP: Duration = Duration::from_millis(100);
/// No run is longer.
const MOST: Duration = Duration::from_secs(100_000);
/// From the end of a process to the start of the next one on its machine.
const RESTART: Duration = Duration::from_secs(5);
/// What counts as nothing, in megabytes.
const NOTHING: f64 = 1e-6;
/// How much of a reduce's progress is that all segments are there, and that it is sorted, in parts in a million.
const FETCHED: f64 = gristmill_engine::control::limits::FETCHED_PPM as f64;
const SORTED: f64 = 600_000.0;

/// Machines, and what is between them. Rates are in megabytes (10^6) a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machines {
    /// How many.
    pub count: u32,
    /// Tasks that each runs at a time.
    pub slots: u32,
    /// What a machine's disks read and write, together.
    pub disk: f64,
    /// What a machine's link takes in each direction.
    pub nic: f64,
    /// What all machines together send each other.
    pub core: f64,
    /// What a map task reads at most.
    pub map: f64,
    /// What a byte of segments costs the disk, when one that is read costs 1: it is written in thousands of pieces.
    pub spill: f64,
    /// What a reduce task fetches at most.
    pub fetch: f64,
    /// What a reduce task sorts and reduces.
    pub sort: f64,
    /// What a reduce task writes at most.
    pub write: f64,
    /// Whether inputs and outputs lie on the machines' own disks, as with a distributed file system; else in a store,
    /// which is reached over the link.
    pub local: bool,
    /// Copies of an output: the first on the machine's own disk, if they lie there.
    pub copies: u32,
    /// Seconds until the first worker has begun.
    pub start: f64,
    /// Seconds from the first worker to the last.
    pub ramp: f64,
    /// Seconds that a task takes before it does anything.
    pub task: f64,
    /// How much machines differ: the deviation of the logarithm of their speed.
    pub spread: f64,
    /// The share of machines that are bad.
    pub bad: f64,
    /// How often slower a bad machine is.
    pub badness: f64,
}

/// A job, by its sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Megabytes of input.
    pub input: f64,
    /// Map tasks.
    pub maps: u32,
    /// Parts.
    pub reduces: u32,
    /// Bytes of segments for each byte of input.
    pub shuffled: f64,
    /// Bytes of output for each byte of input.
    pub written: f64,
    /// Whether slow tasks get second attempts.
    pub backups: bool,
}

/// Worker processes that end, and come back with nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kill {
    /// Seconds after the beginning.
    pub at: f64,
    /// How many.
    pub workers: u32,
}

/// Megabytes a second, on average over a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Of input that is read.
    pub input: f64,
    /// Of segments that are fetched.
    pub shuffle: f64,
    /// Of output that is written, its other copies left out.
    pub output: f64,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ran {
    /// Seconds from the submission to the end; 0: it did not end.
    pub total: f64,
    /// Seconds until all maps had been done for the first time.
    pub mapped: f64,
    /// Seconds until the last segment had been fetched.
    pub fetched: f64,
    /// By second.
    pub rates: Vec<Rates>,
    /// Second attempts that were given out, whatever for.
    pub again: u32,
    /// Megabytes that went from one machine to another, or to a store or from it.
    pub network: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Seconds left.
    Begins(f64),
    Maps,
    Fetches,
    Sorts,
    Writes,
}

struct Task {
    task: wire::Task,
    given_ms: u64,
    phase: Phase,
    /// Megabytes of the phase that are done.
    done: f64,
    /// Of a reducer: maps that it knows of and has not fetched, and that nobody has now.
    blocked: f64,
}

/// Where a map's segments are, as a machine knows.
const UNKNOWN: u16 = u16::MAX;
const DEAD: u16 = u16::MAX - 1;

struct Machine {
    speed: f64,
    /// When its next process begins.
    begins: Duration,
    incarnation: Option<u64>,
    sequence: u64,
    waits: bool,
    /// It has something to say.
    has_news: bool,
    tasks: BTreeMap<(u64, u64), Task>,
    reports: Vec<wire::TaskReport>,
    said: Option<wire::SegmentsKnown>,
    places: Vec<u16>,
    known: u32,
    dead: u32,
}

impl Machine {
    fn count(&self, phase: Phase) -> f64 {
        self.tasks.values().filter(|task| task.phase == phase).count() as f64
    }
}

struct Model<'m> {
    machines: &'m Machines,
    work: &'m Work,
    all: Vec<Machine>,
    by_incarnation: BTreeMap<u64, usize>,
    /// What the last step fetched and wrote, in megabytes a second: what goes through the network's root.
    load: Rates,
    sum: Rates,
    ran: Ran,
}

/// The normal distribution, nearly: the sum of twelve even ones (Irwin and Hall).
fn normal(random: &mut Pcg64Mcg) -> f64 {
    (0..12).map(|_| f64::from(random.next_u32()) / f64::from(u32::MAX)).sum::<f64>() - 6.0
}

/// Runs a job on machines. The same seed gives the same run.
pub fn run(machines: &Machines, work: &Work, kill: Option<Kill>, seed: u64) -> Ran {
    let after = Duration::from_secs_f64(machines.start);
    let division = Division { maps: work.maps, reduces: work.reduces, after, backups: work.backups };
    let mut leader = Leader::new(division);
    let mut is_submitted = false;
    let mut model = Model::new(machines, work, seed);
    let mut now = Duration::ZERO;
    let mut kill = kill;
    while now < MOST {
        now += STEP;
        if let Some(of) = kill.filter(|kill| Duration::from_secs_f64(kill.at) <= now) {
            model.kill(of.workers, now, seed);
            kill = None;
        }
        model.say(&mut leader, now);
        if !is_submitted && !model.by_incarnation.is_empty() {
            // Not before somebody offers the app.
            leader.submit();
            is_submitted = true;
        }
        leader.turn(now);
        for (incarnation, answer) in std::mem::take(&mut leader.answers) {
            model.heed(incarnation, answer);
        }
        model.flow(now);
        if model.ran.mapped == 0.0 && leader.maps_done() == work.maps {
            model.ran.mapped = now.as_secs_f64();
        }
        if is_submitted && leader.is_done() {
            model.ran.total = now.as_secs_f64();
            break;
        }
    }
    model.ran
}

impl<'m> Model<'m> {
    fn new(machines: &'m Machines, work: &'m Work, seed: u64) -> Self {
        let machine = |n: u32| {
            let mut random = stream(seed, Stream::Nodes, u64::from(n));
            let even = |random: &mut Pcg64Mcg| f64::from(random.next_u32()) / f64::from(u32::MAX);
            let begins = Duration::from_secs_f64(machines.start + machines.ramp * even(&mut random));
            let bad = if even(&mut random) < machines.bad { machines.badness } else { 1.0 };
            let speed = (machines.spread * normal(&mut random)).exp() / bad;
            Machine::new(speed, begins, work.maps)
        };
        let all = (0..machines.count).map(machine).collect();
        let (by_incarnation, load, sum, ran) = Default::default();
        Self { machines, work, all, by_incarnation, load, sum, ran }
    }

    /// Megabytes that a task of the phase goes through.
    fn whole(&self, phase: Phase) -> f64 {
        let (maps, reduces) = (f64::from(self.work.maps), f64::from(self.work.reduces));
        let of_a_reduce = |share: f64| (self.work.input * share / reduces).max(NOTHING);
        match phase {
            Phase::Begins(_) => 0.0,
            Phase::Maps => (self.work.input / maps).max(NOTHING),
            Phase::Fetches | Phase::Sorts => of_a_reduce(self.work.shuffled),
            Phase::Writes => of_a_reduce(self.work.written),
        }
    }

    /// Processes of some workers end.
    fn kill(&mut self, workers: u32, now: Duration, seed: u64) {
        let mut random = stream(seed, Stream::Plan, 0);
        let mut lives: Vec<usize> = (0..self.all.len()).filter(|n| self.all[*n].incarnation.is_some()).collect();
        let mut killed = vec![false; self.all.len()];
        for _ in 0..workers.min(lives.len() as u32) {
            killed[lives.swap_remove(below(&mut random, lives.len() as u64) as usize)] = true;
        }
        let whole = self.whole(Phase::Fetches);
        for (n, machine) in self.all.iter_mut().enumerate() {
            if killed[n] {
                self.by_incarnation.retain(|_, of| *of != n);
                *machine = Machine::new(machine.speed, now + RESTART, self.work.maps);
                continue;
            }
            let lost =
                machine.places.iter_mut().filter(|place| killed.get(usize::from(**place)).copied() == Some(true));
            let lost = lost.map(|place| *place = DEAD).count();
            let known = f64::from(machine.known.max(1));
            for task in machine.tasks.values_mut().filter(|task| task.phase == Phase::Fetches) {
                // Of what is lost, it has as large a share as of all that it knows.
                let has = task.done / whole * f64::from(self.work.maps) / known;
                task.blocked += lost as f64 * (1.0 - has.min(1.0));
            }
            machine.dead += lost as u32;
        }
    }

    /// Processes begin, and workers poll.
    fn say(&mut self, leader: &mut Leader, now: Duration) {
        for n in 0..self.all.len() {
            let machine = &mut self.all[n];
            if machine.incarnation.is_none() && now >= machine.begins {
                machine.incarnation = leader.register(n, self.machines.slots);
                self.by_incarnation.extend(machine.incarnation.map(|incarnation| (incarnation, n)));
            }
            let machine = &self.all[n];
            if machine.incarnation.is_some() && (!machine.waits || machine.has_news) {
                let poll = self.poll(n);
                leader.poll(poll);
            }
        }
    }

    fn poll(&mut self, n: usize) -> wire::Poll {
        let running = |task: &Task| wire::Running {
            task: Some(task.task),
            progress_ppm: self.progress(task),
            fetched: matches!(task.phase, Phase::Sorts | Phase::Writes),
            given_ms: task.given_ms,
            counters: Vec::new(),
        };
        let running = self.all[n].tasks.values().map(running).collect();
        let machine = &mut self.all[n];
        machine.sequence += 1;
        (machine.waits, machine.has_news) = (true, false);
        wire::Poll {
            incarnation: machine.incarnation.unwrap_or_default(),
            sequence: machine.sequence,
            free_slots: self.machines.slots.saturating_sub(machine.tasks.len() as u32),
            running,
            reports: machine.reports.clone(),
            known: machine.said.into_iter().collect(),
            ..wire::Poll::default()
        }
    }

    fn progress(&self, task: &Task) -> u32 {
        let part = || (task.done / self.whole(task.phase)).min(1.0);
        let ppm = match task.phase {
            Phase::Begins(_) => 0.0,
            Phase::Maps => 1_000_000.0 * part(),
            Phase::Fetches => FETCHED * part(),
            Phase::Sorts => FETCHED + (SORTED - FETCHED) * part(),
            Phase::Writes => SORTED + (1_000_000.0 - SORTED) * part(),
        };
        ppm as u32
    }

    fn heed(&mut self, incarnation: u64, answer: wire::PollAnswer) {
        let Some(n) = self.by_incarnation.get(&incarnation).copied() else { return };
        let machine = &mut self.all[n];
        if answer.sequence != machine.sequence {
            return;
        }
        machine.waits = false;
        if !answer.fenced.is_empty() {
            *machine = Machine::new(machine.speed, machine.begins, self.work.maps);
            self.by_incarnation.remove(&incarnation);
            return;
        }
        let id = |attempt: &wire::Attempt| (attempt.term, attempt.counter);
        for attempt in &answer.cancel {
            machine.tasks.remove(&id(attempt));
        }
        let of = |report: &wire::TaskReport| report.task.and_then(|task| task.attempt);
        machine.reports.retain(|report| of(report).is_none_or(|attempt| !answer.settled.contains(&attempt)));
        for update in answer.segments {
            let (job, epoch, list, position) = (update.job, update.epoch, update.list, update.position);
            machine.said = Some(wire::SegmentsKnown { job, epoch, list, position });
            for place in update.places {
                let of = self.by_incarnation.get(&place.incarnation).map_or(DEAD, |n| *n as u16);
                machine.learn(place.map, of);
            }
        }
        let mut begun = Vec::new();
        for assignment in answer.assignments {
            let Some((task, attempt)) = assignment.task.and_then(|task| Some((task, task.attempt?))) else { continue };
            let blocked = f64::from(machine.dead);
            let phase = Phase::Begins(self.machines.task);
            let task = Task { task, given_ms: assignment.given_ms, phase, done: 0.0, blocked };
            machine.tasks.insert((attempt.term, attempt.counter), task);
            begun.push(attempt);
        }
        self.ran.again += begun.into_iter().filter(|attempt| self.has_begun(n, *attempt)).count() as u32;
    }

    /// Whether the attempt on a machine is not the first at its task that runs now.
    fn has_begun(&self, n: usize, attempt: wire::Attempt) -> bool {
        let Some(new) = self.all[n].tasks.get(&(attempt.term, attempt.counter)) else { return false };
        let same = |task: &Task| task.task.stage == new.task.stage && task.task.partition == new.task.partition;
        self.all.iter().enumerate().any(|(other, machine)| other != n && machine.tasks.values().any(same))
    }

    /// A step of all tasks.
    fn flow(&mut self, now: Duration) {
        let seconds = STEP.as_secs_f64();
        let others = if self.machines.local { self.machines.copies.saturating_sub(1) } else { self.machines.copies };
        // Copies elsewhere are spread over all machines.
        let copies_in = self.load.output * f64::from(others);
        let copies_here = if self.machines.local { copies_in / f64::from(self.machines.count) } else { 0.0 };
        let over_root = self.load.shuffle + copies_in + if self.machines.local { 0.0 } else { self.load.input };
        let root = (self.machines.core / over_root.max(NOTHING)).min(1.0);
        // What was held back by the root wants as much again: its rate follows in a few steps.
        let root = root.sqrt();
        let mut step = Rates::default();
        for n in 0..self.all.len() {
            let flowed = self.flow_of(n, copies_here, root, seconds);
            step.input += flowed.input;
            step.shuffle += flowed.shuffle;
            step.output += flowed.output;
        }
        if step.shuffle > 0.0 {
            self.ran.fetched = now.as_secs_f64();
        }
        self.ran.network += step.shuffle + step.output * f64::from(others);
        self.ran.network += if self.machines.local { 0.0 } else { step.input };
        let per_second = |mb: f64| mb / seconds;
        self.load =
            Rates { input: per_second(step.input), shuffle: per_second(step.shuffle), output: per_second(step.output) };
        self.sum.add(&step);
        if now.as_secs_f64().fract() < seconds / 2.0 {
            self.ran.rates.push(std::mem::take(&mut self.sum));
        }
    }

    /// A step of one machine's tasks. Gives what they moved, in megabytes.
    fn flow_of(&mut self, n: usize, copies_here: f64, root: f64, seconds: f64) -> Rates {
        let m = self.machines;
        let machine = &self.all[n];
        let (maps, fetches, writes) =
            (machine.count(Phase::Maps), machine.count(Phase::Fetches), machine.count(Phase::Writes));
        let (own, far) = if m.local { (1.0, 0.0) } else { (0.0, 1.0) };
        // A map reads its input, and writes its segments.
        let of_a_map = own + self.work.shuffled * m.spill;
        let disk = m.disk * machine.speed;
        let map_wants = m.map * machine.speed;
        let wanted = maps * map_wants * of_a_map + writes * m.write * own + copies_here;
        let by_disk = (disk / wanted.max(NOTHING)).min(1.0);
        let into = maps * map_wants * far + fetches * m.fetch + copies_here;
        let by_link = (m.nic / into.max(NOTHING)).min(1.0);
        let by_root = |remote: bool| if remote { root.min(by_link) } else { 1.0 };
        let map_rate = map_wants * by_disk.min(by_root(!m.local));
        let fetch_rate = m.fetch * root.min(by_link);
        // The slowest of the copies decides; a store has no disk of ours.
        let write_rate = m.write * if m.local { by_disk * machine.speed.min(1.0) } else { 1.0 } * root;
        let sort_rate = m.sort * machine.speed;
        let whole = |phase| self.whole(phase);
        let (map, fetch, write) = (whole(Phase::Maps), whole(Phase::Fetches), whole(Phase::Writes));
        let segment = fetch / f64::from(self.work.maps);
        let machine = &mut self.all[n];
        let known = f64::from(machine.known);
        let mut flowed = Rates::default();
        let mut ended = Vec::new();
        for (id, task) in &mut machine.tasks {
            let mut go = |rate: f64, upto: f64| {
                let more = (rate * seconds).min((upto - task.done).max(0.0));
                task.done += more;
                more
            };
            let next = match task.phase {
                Phase::Begins(left) if left > seconds => Some(Phase::Begins(left - seconds)),
                Phase::Begins(_) if task.task.stage() == Stage::Map => Some(Phase::Maps),
                Phase::Begins(_) => Some(Phase::Fetches),
                Phase::Maps => {
                    flowed.input += go(map_rate, map);
                    if task.done + NOTHING >= map {
                        ended.push(*id);
                    }
                    None
                }
                Phase::Fetches => {
                    let there = (known - task.blocked).max(0.0) * segment;
                    flowed.shuffle += go(fetch_rate, there.min(fetch));
                    (task.done + NOTHING * segment.min(1.0) >= fetch).then_some(Phase::Sorts)
                }
                Phase::Sorts => {
                    go(sort_rate, fetch);
                    (task.done + NOTHING >= fetch).then_some(Phase::Writes)
                }
                Phase::Writes => {
                    flowed.output += go(write_rate, write);
                    if task.done + NOTHING >= write {
                        ended.push(*id);
                    }
                    None
                }
            };
            if let Some(next) = next {
                machine.has_news |= next == Phase::Sorts;
                (task.phase, task.done) = (next, 0.0);
            }
        }
        for id in ended {
            machine.end(id);
        }
        flowed
    }
}

impl Rates {
    fn add(&mut self, more: &Self) {
        self.input += more.input;
        self.shuffle += more.shuffle;
        self.output += more.output;
    }
}

impl Machine {
    fn new(speed: f64, begins: Duration, maps: u32) -> Self {
        let (incarnation, sequence, waits, has_news, tasks, reports, said, known, dead) = Default::default();
        let places = vec![UNKNOWN; maps as usize];
        Self { speed, begins, incarnation, sequence, waits, has_news, tasks, reports, said, places, known, dead }
    }

    /// Segments of a map are there.
    fn learn(&mut self, map: u32, of: u16) {
        let Some(place) = self.places.get_mut(map as usize) else { return };
        match (*place, of) {
            (UNKNOWN, _) => {
                self.known += 1;
                self.dead += u32::from(of == DEAD);
            }
            (DEAD, DEAD) => {}
            (DEAD, _) => {
                let before = f64::from(self.dead.max(1));
                self.dead = self.dead.saturating_sub(1);
                self.tasks.values_mut().for_each(|task| task.blocked -= task.blocked / before);
            }
            _ => {}
        }
        *place = of;
    }

    /// A task is done.
    fn end(&mut self, id: (u64, u64)) {
        let Some(Task { task, given_ms, .. }) = self.tasks.remove(&id) else { return };
        let digest = [&[task.stage as u8; 12][..], &task.partition.to_be_bytes()].concat();
        let end = Some(End::Done(wire::Done { digest: digest.into(), ..wire::Done::default() }));
        self.reports.push(wire::TaskReport { task: Some(task), end, given_ms });
        self.has_news = true;
    }
}
