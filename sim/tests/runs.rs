//! Whole runs: that one seed has one trace, in another process too, and that a few of them break nothing.

use std::path::Path;
use std::process::Command;

use gristmill_sim::case::{Case, broken};
use gristmill_sim::plan::{Fault, Timed, Who};

/// Seeds that every change runs. More are for `gristmill-sim campaign`.
const SEEDS: std::ops::Range<u64> = 0..12;

/// What the program says of a seed.
fn said(seed: u64) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_gristmill-sim"))
        .args(["run", "--swarm", "--seed", &seed.to_string()])
        .output()
        .expect("the program runs");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

#[test]
fn seeds_break_nothing_and_have_the_same_trace_in_another_process() {
    for seed in SEEDS {
        let outcome = Case::of(seed, true).run();
        assert!(
            outcome.violations.is_empty(),
            "{:#?}\nagain: gristmill-sim run --swarm --seed {seed}",
            outcome.violations
        );
        let said = said(seed);
        assert!(said.contains(&format!("trace {:016x}", outcome.hash)), "seed {seed}: {said}");
    }
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
    let with = Case::of(1, false);
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
    let mut case = Case::of(7, true);
    case.plan.faults.push(Timed { at: 1, fault: Fault::Pause { who: Who::Leader, time: 5 } });
    let file = std::env::temp_dir().join(format!("gristmill-sim-case-{}.json", std::process::id()));
    case.write(&file).unwrap();
    assert_eq!(Case::read(&file).unwrap(), case);
    std::fs::remove_file(file).unwrap();
}
