//! The cluster of the MapReduce paper (Dean and Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters", OSDI
//! 2004, section 5), by the real scheduler and modelled machines.
//!
//! What is real: `control::Master` and `control::State`, with every poll, assignment, command and backup as a cluster has
//! them. What is modelled (`model`): disks, links and processors. What is left out: the input's locality is granted, as
//! most reads were local there (section 3.4), though this scheduler does not look for it; the network's racks; a page
//! cache. What the paper does not say is a parameter, found by the grep and the normal sort alone; the other two runs
//! change nothing but the one thing that they are about.

mod figures;
mod lead;
mod model;
mod question;

use std::path::Path;
use std::time::Instant;

pub use model::{Kill, Machines, Ran, Rates, Work, run};
pub use question::{Question, ask, size};

/// Megabytes of input: 10^10 records of 100 bytes.
const INPUT: f64 = 1e6;
/// 64 MiB of it each.
const MAPS: u32 = 15_000;
/// Reduce tasks of the sort.
const REDUCES: u32 = 4_000;
/// Workers that are killed, of about 1,746.
const KILLED: u32 = 200;

/// The paper's machines, as far as it says, and what was found for the rest.
pub const MACHINES: Machines = Machines {
    count: 1_800,
    slots: 2,
    disk: 20.4,
    nic: 125.0,
    core: 18_750.0,
    map: 20.4,
    spill: 1.35,
    fetch: 2.0,
    sort: 10.0,
    write: 1.25,
    local: true,
    copies: 2,
    start: 69.0,
    ramp: 60.0,
    task: 1.0,
    spread: 0.1,
    bad: 0.005,
    badness: 5.5,
};

/// One of the paper's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experiment {
    /// Section 5.2, Figure 2.
    Grep,
    /// Section 5.3, Figure 3 (a).
    Sort,
    /// Section 5.4, Figure 3 (b).
    NoBackups,
    /// Section 5.5, Figure 3 (c).
    Killed,
}

impl Experiment {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Grep, Self::Sort, Self::NoBackups, Self::Killed];

    /// As files are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grep => "figure-2-grep",
            Self::Sort => "figure-3a-sort",
            Self::NoBackups => "figure-3b-no-backups",
            Self::Killed => "figure-3c-killed",
        }
    }

    /// Seconds that the paper gives.
    pub fn published(self) -> f64 {
        match self {
            Self::Grep => 150.0,
            Self::Sort => 891.0,
            Self::NoBackups => 1_283.0,
            Self::Killed => 933.0,
        }
    }

    /// Whether parameters were chosen by it.
    pub fn is_calibrated(self) -> bool {
        matches!(self, Self::Grep | Self::Sort)
    }

    fn work(self) -> Work {
        let sort = Work { input: INPUT, maps: MAPS, reduces: REDUCES, shuffled: 1.0, written: 1.0, backups: true };
        match self {
            // The pattern is in 92,337 of the records.
            Self::Grep => Work { reduces: 1, shuffled: 92_337.0 / 1e10, written: 92_337.0 / 1e10, ..sort },
            Self::Sort | Self::Killed => sort,
            Self::NoBackups => Work { backups: false, ..sort },
        }
    }

    /// Runs it. Workers are killed `killed_at` seconds after the beginning, in the run that is about that.
    pub fn run(self, machines: &Machines, killed_at: f64, seed: u64) -> Ran {
        let kill = (self == Self::Killed).then_some(Kill { at: killed_at, workers: KILLED });
        run(machines, &self.work(), kill, seed)
    }
}

impl Machines {
    /// Changes one number, as in `disk=20`.
    ///
    /// # Errors
    /// One line.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let all = || OPEN.map(|(name, ..)| name).join(", ");
        let (name, number) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=NUMBER"))?;
        let number = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let number = number.ok_or_else(|| format!("in '{text}' there is no number of at least 0"))?;
        let of = OPEN.iter().find(|(known, ..)| *known == name).map(|(_, of, _)| of);
        *of.ok_or_else(|| format!("'{name}' cannot be set; {} can", all()))?(self) = number;
        Ok(())
    }
}

/// Parameters, by name, with factors between which they are thought to lie.
type Open = (&'static str, fn(&mut Machines) -> &mut f64, [f64; 2]);

/// What the paper leaves open, for a sweep.
const OPEN: [Open; 13] = [
    ("start", |m| &mut m.start, [0.8, 1.2]),
    ("task", |m| &mut m.task, [0.5, 2.0]),
    ("core", |m| &mut m.core, [0.67, 1.33]),
    ("map", |m| &mut m.map, [0.9, 1.1]),
    ("disk", |m| &mut m.disk, [0.9, 1.1]),
    ("spill", |m| &mut m.spill, [0.75, 1.25]),
    ("fetch", |m| &mut m.fetch, [0.8, 1.25]),
    ("sort", |m| &mut m.sort, [0.5, 2.0]),
    ("write", |m| &mut m.write, [0.9, 1.1]),
    ("ramp", |m| &mut m.ramp, [0.7, 1.3]),
    ("spread", |m| &mut m.spread, [0.5, 2.0]),
    ("bad", |m| &mut m.bad, [0.5, 2.0]),
    ("badness", |m| &mut m.badness, [0.5, 2.0]),
];

/// What is asked of the model.
#[derive(Debug, Clone)]
pub struct Request<'r> {
    /// The machines.
    pub machines: Machines,
    /// Seconds until workers are killed.
    pub killed_at: f64,
    /// From which machines differ.
    pub seed: u64,
    /// Where figures go.
    pub out: Option<&'r Path>,
    /// Vary what is open, one after the other, and seeds.
    pub sweep: bool,
}

/// Runs the paper's experiments, draws them, and prints what came of them beside what was published.
///
/// # Errors
/// One line, if a figure cannot be written.
pub fn reproduce(request: &Request<'_>) -> Result<(), String> {
    println!(
        "{:?}; {KILLED} workers are killed after {} s; seed {}",
        request.machines, request.killed_at, request.seed
    );
    println!(
        "| run | published, s | ours, s | | maps done, s | fetched, s | peaks: read, shuffled, written, GB/s | second attempts | CPU, s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for experiment in Experiment::ALL {
        let begun = Instant::now();
        let ran = experiment.run(&request.machines, request.killed_at, request.seed);
        let peak = |of: fn(&Rates) -> f64| ran.rates.iter().map(of).fold(0.0, f64::max) / 1000.0;
        println!(
            "| {} | {:.0} | {:.0} ({:+.0} %) | {} | {:.0} | {:.0} | {:.1}, {:.1}, {:.1} | {} | {:.1} |",
            experiment.name(),
            experiment.published(),
            ran.total,
            (ran.total / experiment.published() - 1.0) * 100.0,
            if experiment.is_calibrated() { "calibrated" } else { "predicted" },
            ran.mapped,
            ran.fetched,
            peak(|rates| rates.input),
            peak(|rates| rates.shuffle),
            peak(|rates| rates.output),
            ran.again,
            begun.elapsed().as_secs_f64()
        );
        if let Some(out) = request.out {
            figures::draw(out, experiment, &ran)?;
        }
    }
    if request.sweep {
        sweep(request);
    }
    Ok(())
}

/// Prints how far each total goes when one parameter is another.
fn sweep(request: &Request<'_>) {
    println!("\n| varied | from, to | grep, s | sort, s | no backups, s | killed, s |");
    println!("|---|---|---|---|---|---|");
    let mut all = [(f64::MAX, 0.0_f64); 4];
    let mut row = |what: &str, by: String, variants: &[(Machines, f64, u64)]| {
        let ranges = Experiment::ALL.map(|experiment| {
            let totals = std::thread::scope(|scope| {
                let run = |(machines, at, seed): &'_ (Machines, f64, u64)| experiment.run(machines, *at, *seed).total;
                let threads: Vec<_> = variants.iter().map(|variant| scope.spawn(move || run(variant))).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<f64>>()
            });
            totals.into_iter().fold((f64::MAX, 0.0_f64), |(low, high), total| (low.min(total), high.max(total)))
        });
        let cells = ranges.map(|(low, high)| format!("{low:.0} to {high:.0}"));
        println!("| {what} | {by} | {} |", cells.join(" | "));
        all.iter_mut().zip(ranges).for_each(|(all, one)| *all = (all.0.min(one.0), all.1.max(one.1)));
    };
    let Request { machines, killed_at, seed, .. } = request;
    let seeds: Vec<_> = (1..5).map(|more| (*machines, *killed_at, seed + more)).collect();
    row("seed", "four others".into(), &seeds);
    let times = [0.7, 1.3].map(|times| (*machines, killed_at * times, *seed));
    row("time of the kill", "0.7, 1.3 times".into(), &times);
    for (name, of, factors) in OPEN {
        let variants = factors.map(|factor| {
            let mut machines = *machines;
            *of(&mut machines) *= factor;
            (machines, *killed_at, *seed)
        });
        row(name, format!("{}, {} times", factors[0], factors[1]), &variants);
    }
    let cells = all.map(|(low, high)| format!("{low:.0} to {high:.0}"));
    println!("| all | | {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests;
