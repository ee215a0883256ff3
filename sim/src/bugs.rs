//! Looking for mistakes that are made on purpose: how many runs until an invariant is broken, and which.

use std::process::ExitCode;

use gristmill_raft::planted::{Bug, plant};
use gristmill_sim::case::{Case, broken};
use gristmill_sim::world;

use super::cpu_time;

/// Seeds of one campaign are apart from those of the next.
const APART: u64 = 1_000_000;

/// The invariants of which one is to be broken by a mistake.
fn expected(bug: Bug) -> &'static [u8] {
    match bug {
        // What a master promised or what a client was told is gone; or masters go different ways from there.
        Bug::AppendBeforeSync | Bug::VoteBeforeSync | Bug::VoteNotWritten => &[14],
        // The log cannot be read again.
        Bug::LittleEndianKeys | Bug::PurgeNotWritten => &[14],
        Bug::SnapshotAhead => &[13],
        Bug::BadFrameSkipped | Bug::MarkIgnored => &[14],
        Bug::StaleRead => &[12],
        Bug::ApplyByClock => &[13],
        Bug::DoneBeforeCommit | Bug::SecondDoneCounts => &[3],
        Bug::EpochIgnored => &[6],
        Bug::AttemptIdsReused => &[5],
        Bug::DeadWorkerCounts => &[4],
        Bug::UnknownIsRefused => &[12],
        Bug::UndecidedPublished => &[2],
        Bug::PublishReplaces => &[8, 10],
        Bug::TokenOutlivesSession | Bug::StaleGate => &[16],
        _ => &[],
    }
}

/// One campaign: how many runs until one of these invariants is broken, with CPU seconds, and what was broken besides.
struct Found {
    runs: Option<u64>,
    seconds: f64,
    others: Vec<u8>,
}

fn campaign(bug: Bug, from: u64, seeds: u64) -> Found {
    let (begun, mut others) = (cpu_time(), Vec::new());
    for run in 1..=seeds {
        plant(Some(bug), world::wall_of_here);
        let broken = broken(&Case::of(from + run, true, false).run());
        plant(None, || 0);
        if broken.iter().any(|number| expected(bug).contains(number)) {
            return Found { runs: Some(run), seconds: (cpu_time() - begun).as_secs_f64(), others };
        }
        others.extend(broken);
    }
    Found { runs: None, seconds: (cpu_time() - begun).as_secs_f64(), others }
}

/// Makes a mistake from now on, in this thread.
pub(crate) fn make(name: &str) -> Result<(), String> {
    let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    let bug = bug.ok_or_else(|| format!("there is no mistake called {name}; there are {:?}", Bug::ALL))?;
    plant(Some(bug), world::wall_of_here);
    Ok(())
}

/// Prints a table; fails if the median of some mistake's campaigns found nothing.
pub(crate) fn search(only: Option<&str>, campaigns: u64, seeds: u64) -> Result<ExitCode, String> {
    let chosen: Vec<Bug> =
        Bug::ALL.into_iter().filter(|bug| only.is_none_or(|only| format!("{bug:?}") == only)).collect();
    if chosen.is_empty() {
        return Err(format!("there is no mistake called {}; there are {:?}", only.unwrap_or_default(), Bug::ALL));
    }
    println!("| mistake | invariant | runs until found, median (all) | CPU seconds, median |");
    println!("|---|---|---|---|");
    let mut missed = false;
    for bug in chosen {
        let mut found: Vec<Found> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..campaigns).map(|n| scope.spawn(move || campaign(bug, n * APART, seeds))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        found.sort_by_key(|found| found.runs.unwrap_or(u64::MAX));
        let runs: Vec<String> =
            found.iter().map(|found| found.runs.map_or("none".into(), |runs| runs.to_string())).collect();
        let mut others: Vec<u8> = found.iter().flat_map(|found| found.others.iter().copied()).collect();
        others.sort_unstable();
        others.dedup();
        let Some(median) = found.get(found.len() / 2) else { return Err("a campaign panicked".into()) };
        missed |= median.runs.is_none();
        let also = if others.is_empty() { String::new() } else { format!(" (before it also {others:?})") };
        println!(
            "| {bug:?} | {:?}{also} | {} ({}) | {:.1} |",
            expected(bug),
            median.runs.map_or("none".into(), |runs| runs.to_string()),
            runs.join(", "),
            median.seconds
        );
    }
    Ok(ExitCode::from(u8::from(missed)))
}
