//! Whole runs: that one seed has one trace, in another process too, and that a few of them break nothing.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gristmill_sim::case::{Case, broken};
use gristmill_sim::plan::{Fault, Timed, Who};

/// Seeds that every change runs. More are for `gristmill-sim campaign`.
const SEEDS: u64 = 200;

/// What the program says of a seed: in another process, and, where it was named, of another build, whose compiler had
/// other orders.
fn said(seed: u64) -> String {
    let other = std::env::var_os("GRISTMILL_SIM").unwrap_or(env!("CARGO_BIN_EXE_gristmill-sim").into());
    let run =
        Command::new(&other).args(["run", "--swarm", "--seed", &seed.to_string()]).output().expect("the program runs");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

#[test]
fn seeds_break_nothing_and_have_the_same_trace_in_another_process() {
    let next = AtomicU64::new(0);
    let look = || {
        while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < SEEDS) {
            let outcome = Case::of(seed, true, false).run();
            let again = format!("again: gristmill-sim run --swarm --seed {seed}");
            assert!(outcome.violations.is_empty(), "{:#?}\n{again}", outcome.violations);
            let said = said(seed);
            assert!(said.contains(&format!("trace {:016x}", outcome.hash)), "{said}\n{again}");
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(look)));
    });
    assert!(next.into_inner() >= SEEDS);
}

/// Runs that once showed something wrong, each named for what it was.
#[test]
fn cases_that_were_found_break_nothing_any_more() {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")).into_iter().flatten() {
        let file = entry.expect("an entry").path();
        let case = Case::read(&file).unwrap();
        assert_eq!(broken(&case.run()), [] as [u8; 0], "{}: {}", file.display(), case.about);
    }
}

#[test]
fn a_fault_that_is_taken_away_leaves_what_was_before_it() {
    let with = Case::of(1, false, false);
    let mut without = with.clone();
    without.plan.faults.retain(|timed| timed.at < 3_000);
    let (with, without) = (with.run(), without.run());
    let before = |events: &[gristmill_sim::run::Event]| -> Vec<_> {
        events.iter().filter(|event| event.at.as_millis() < 2_900).cloned().collect()
    };
    assert_eq!(before(&with.events), before(&without.events));
}

#[test]
fn a_case_survives_its_file() {
    let mut case = Case::of(7, true, false);
    case.plan.faults.push(Timed { at: 1, fault: Fault::Pause { who: Who::Leader, time: 5 } });
    let file = std::env::temp_dir().join(format!("gristmill-sim-case-{}.json", std::process::id()));
    case.write(&file).unwrap();
    assert_eq!(Case::read(&file).unwrap(), case);
    std::fs::remove_file(file).unwrap();
}
