//! `gristmill-sim`: runs simulated clusters, looks for what must not be, and tells what happened.

#[cfg(sim_bugs)]
mod bugs;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use gristmill_sim::case::{Case, broken};
use gristmill_sim::marks::Reached;
use gristmill_sim::paper;
use gristmill_sim::run::Outcome;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(name = "gristmill-sim", about = "Run whole clusters in a simulation, with faults", version)]
struct Cli {
    /// Make this mistake on purpose, as in AppendBeforeSync; for run, replay, shrink and explain
    #[cfg(sim_bugs)]
    #[arg(long, global = true, value_name = "MISTAKE")]
    plant: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed
    Run {
        /// The seed, from which everything follows
        #[arg(long)]
        seed: u64,
        /// A case whose plan is used instead of the seed's own
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// Make the seed's plan of about a third of all kinds of faults
        #[arg(long)]
        swarm: bool,
        /// Three masters, eight workers and 20 simulated seconds
        #[arg(long)]
        large: bool,
        /// Keep the run as a case
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Run many seeds; cases that fail are kept
    Campaign(Campaign),
    /// Run a case again
    Replay {
        /// The case
        file: PathBuf,
    },
    /// Make a case smaller, as long as it still breaks what it broke
    Shrink {
        /// The case
        file: PathBuf,
        /// Where the smaller one goes; by default beside it, as NAME.small.json
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The longest that it may take
        #[arg(long, value_name = "N", default_value_t = 2.0)]
        minutes: f64,
    },
    /// Plant mistakes, one after the other, and tell how many runs it takes to find each
    #[cfg(sim_bugs)]
    Bugs {
        /// Only this one, as in AppendBeforeSync
        #[arg(long)]
        only: Option<String>,
        /// Campaigns of each, whose median counts
        #[arg(long, default_value_t = 5)]
        campaigns: u64,
        /// Runs of a campaign, at most
        #[arg(long, default_value_t = 2000)]
        seeds: u64,
    },
    /// Run the MapReduce paper's experiments with the real scheduler on modelled machines
    Paper(Paper),
    /// Foretell how long a job takes on so many machines, what it moves, and what a failure costs
    Plan(Plan),
    /// Tell what happened in a case: who led, what was cut, what came of each job
    Explain {
        /// The case
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct Paper {
    /// Where figures go
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// From which machines differ
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds until 200 workers are killed, in the run that is about that
    #[arg(long, value_name = "S", default_value_t = 300.0)]
    killed_at: f64,
    /// Vary seeds and what the paper leaves open, and tell the ranges
    #[arg(long)]
    sweep: bool,
    /// Change what is known or assumed of the machines, as in disk=20: MB/s, seconds, shares
    #[arg(long, value_name = "NAME=NUMBER")]
    set: Vec<String>,
}

#[derive(clap::Args)]
struct Plan {
    /// How much input, as in 10TB or 500GiB
    #[arg(long, value_parser = gristmill_sim::paper::size)]
    input: u64,
    /// Machines
    #[arg(long)]
    workers: u32,
    /// wordcount, grep or sort
    #[arg(long)]
    app: String,
    /// Tasks that a machine runs at a time
    #[arg(long, default_value_t = 8)]
    slots: u32,
    /// Parts of the output; 0: one for each slot
    #[arg(long, default_value_t = 0)]
    reducers: u32,
    /// Input of a map task
    #[arg(long, value_parser = gristmill_sim::paper::size, default_value = "64MiB")]
    split: u64,
    /// Link of a machine, in Gb/s
    #[arg(long, default_value_t = 10.0)]
    nic: f64,
    /// Disk of a machine, in MB/s, reading and writing together
    #[arg(long, default_value_t = 1000.0)]
    disk: f64,
    /// What a slot maps, in MB/s; 0: what is assumed of the app
    #[arg(long, value_name = "MB/S", default_value_t = 0.0)]
    map_speed: f64,
}

#[derive(clap::Args)]
struct Campaign {
    /// How many
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Begin no run after so many minutes
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// Give each run about a third of all kinds of faults
    #[arg(long)]
    swarm: bool,
    /// Three masters, eight workers and 20 simulated seconds in each run
    #[arg(long)]
    large: bool,
    /// Runs at a time
    #[arg(long, value_name = "N", default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Folder for cases that fail
    #[arg(long, value_name = "DIR", default_value = "sim-failures")]
    keep: PathBuf,
    /// Go on where the campaign of this file stopped, and write into it how far this one came
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// How far a campaign came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    /// The next seed.
    next: u64,
    runs: u64,
    failed: u64,
    simulated_seconds: f64,
    cpu_seconds: f64,
    /// What runs have reached of what must be reached.
    #[serde(default)]
    reached: Reached,
}

/// A campaign of so many runs reaches every mark, or fails.
const RUNS_FOR_ALL_MARKS: u64 = 5_000;

fn told(seed: u64, outcome: &Outcome) -> String {
    let (jobs, completed) = outcome.jobs;
    let mut text = format!(
        "seed {seed}: trace {:016x}, {:.1} simulated seconds, {completed} of {jobs} jobs completed, {} restarts",
        outcome.hash,
        outcome.time.as_secs_f64(),
        outcome.restarts,
    );
    for violation in &outcome.violations {
        text += &format!("\n  invariant {}: {}", violation.invariant, violation.what);
    }
    text
}

/// The command that does it again, in whatever place this version is.
fn again(case: &Case) -> String {
    let flag = |has: bool, flag: &'static str| if has { flag } else { "" };
    let (swarm, large) = (flag(case.swarm, " --swarm"), flag(case.large, " --large"));
    format!("gristmill-sim run --seed {}{swarm}{large}", case.seed)
}

/// Whether something did not hold.
fn end(outcome: &Outcome) -> ExitCode {
    ExitCode::from(u8::from(!outcome.violations.is_empty()))
}

/// Time of a core that this thread has had.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn campaign(of: &Campaign) -> Result<ExitCode, String> {
    let before: Progress = match &of.resume {
        Some(file) if file.exists() => {
            let read = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            serde_json::from_slice(&read).map_err(|e| format!("{} is of no campaign: {e}", file.display()))?
        }
        _ => Progress { next: of.from, ..Progress::default() },
    };
    let (begun, last) = (Instant::now(), before.next.saturating_add(of.seeds));
    let until = of.minutes.map(|minutes| begun + Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let (next, progress, broke) = (AtomicU64::new(before.next), Mutex::new(before), AtomicBool::new(false));
    let work = || -> Result<(), String> {
        loop {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            let seed = next.fetch_add(1, Relaxed);
            if seed >= last {
                return Ok(());
            }
            let (mut case, begun) = (Case::of(seed, of.swarm, of.large), cpu_time());
            let outcome = case.run();
            let mut progress = progress.lock().map_err(|e| e.to_string())?;
            progress.next = progress.next.max(seed + 1);
            progress.runs += 1;
            progress.simulated_seconds += outcome.time.as_secs_f64();
            progress.cpu_seconds += (cpu_time() - begun).as_secs_f64();
            progress.reached.add(outcome.marks.iter().copied());
            if !outcome.violations.is_empty() {
                broke.store(true, Relaxed);
                progress.failed += 1;
                case.invariants = broken(&outcome);
                std::fs::create_dir_all(&of.keep).map_err(|e| format!("cannot make {}: {e}", of.keep.display()))?;
                let file = of.keep.join(format!("{seed}.json"));
                case.write(&file)?;
                println!("{}\n  again: {}\n  kept as {}", told(seed, &outcome), again(&case), file.display());
            }
            if let Some(file) = &of.resume {
                let text = serde_json::to_string_pretty(&*progress).map_err(|e| e.to_string())?;
                // Whole or not at all: who is killed in between goes on from the last one.
                let new = file.with_extension("new");
                let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file));
                written.map_err(|e| format!("cannot write {}: {e}", file.display()))?;
            }
        }
    };
    let ended: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..of.threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("the simulator panicked".into())))
            .collect()
    });
    ended.into_iter().collect::<Result<(), String>>()?;
    let Progress { next, runs, failed, simulated_seconds, cpu_seconds, reached } =
        progress.into_inner().map_err(|e| e.to_string())?;
    println!(
        "{runs} runs up to seed {}, {failed} failed; {:.2} simulated hours in {cpu_seconds:.0} s of a core, {:.1} runs a second and core",
        next.saturating_sub(1),
        simulated_seconds / 3600.0,
        runs as f64 / cpu_seconds.max(1e-9),
    );
    let never = reached.never();
    if let Some((mark, runs)) = reached.rarest() {
        println!("never reached: {never:?}; most rarely: '{mark}', in {runs} runs");
    }
    let missed = runs >= RUNS_FOR_ALL_MARKS && !never.is_empty();
    Ok(ExitCode::from(u8::from(broke.into_inner() || missed)))
}

fn shrink(file: &Path, output: Option<PathBuf>, minutes: f64) -> Result<ExitCode, String> {
    let until = Instant::now() + Duration::from_secs_f64(minutes.max(0.0) * 60.0);
    let case = Case::read(file)?;
    let mut runs = 0;
    let small = case.shrink(|faults| {
        runs += 1;
        eprint!("\r{runs} runs, {faults} faults left ");
        let _ = std::io::stderr().flush();
        Instant::now() < until
    })?;
    eprintln!();
    let output = output.unwrap_or_else(|| file.with_extension("small.json"));
    small.write(&output)?;
    println!("{} faults instead of {}: {}", small.plan.faults.len(), case.plan.faults.len(), output.display());
    Ok(ExitCode::SUCCESS)
}

fn explain(file: &Path) -> Result<ExitCode, String> {
    let case = Case::read(file)?;
    let outcome = case.run();
    let plan = &case.plan;
    println!(
        "{} masters, {} workers of {} slots, {} users with {} jobs each; outputs are {}",
        plan.masters,
        plan.workers,
        plan.slots,
        plan.users,
        plan.jobs,
        if plan.copies { "copied" } else { "renamed" }
    );
    for event in &outcome.events {
        println!("{:10.4} {:>3} {}", event.at.as_secs_f64(), event.at_node, event.what);
    }
    println!("{}", told(case.seed, &outcome));
    Ok(end(&outcome))
}

fn paper(of: &Paper) -> Result<ExitCode, String> {
    let mut machines = paper::MACHINES;
    for set in &of.set {
        machines.set(set)?;
    }
    let Paper { seed, killed_at, sweep, .. } = *of;
    paper::reproduce(&paper::Request { machines, killed_at, seed, out: of.out.as_deref(), sweep })?;
    Ok(ExitCode::SUCCESS)
}

fn foretell(of: Plan) -> Result<ExitCode, String> {
    let Plan { input, workers, app, slots, reducers, split, nic: nic_gbps, disk: disk_mbps, map_speed: map_mbps } = of;
    paper::ask(&paper::Question { input, workers, slots, app, reducers, split, nic_gbps, disk_mbps, map_mbps })?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    // A node that panics is a finding, told with its run; a panic of the simulator itself is told where it is caught.
    std::panic::set_hook(Box::new(|_| {}));
    let cli = Cli::parse();
    #[cfg(sim_bugs)]
    if let Some(Err(message)) = cli.plant.as_deref().map(bugs::make) {
        eprintln!("gristmill-sim: {message}");
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Run { seed, plan, swarm, large, save } => (|| {
            let mut case = Case::of(seed, swarm, large);
            if let Some(file) = plan {
                case.plan = Case::read(&file)?.plan;
            }
            let outcome = case.run();
            println!("{}", told(seed, &outcome));
            if let Some(file) = save {
                case.invariants = broken(&outcome);
                case.write(&file)?;
            }
            Ok(end(&outcome))
        })(),
        Command::Campaign(of) => campaign(&of),
        Command::Replay { file } => Case::read(&file).map(|case| {
            let outcome = case.run();
            println!("{}", told(case.seed, &outcome));
            end(&outcome)
        }),
        Command::Shrink { file, output, minutes } => shrink(&file, output, minutes),
        Command::Explain { file } => explain(&file),
        Command::Paper(of) => paper(&of),
        Command::Plan(of) => foretell(of),
        #[cfg(sim_bugs)]
        Command::Bugs { only, campaigns, seeds } => bugs::search(only.as_deref(), campaigns, seeds),
    };
    done.unwrap_or_else(|e: String| {
        eprintln!("gristmill-sim: {e}");
        ExitCode::from(2)
    })
}
