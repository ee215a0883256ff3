//! Finds the example program that tests run as a process, and how often a suite is to run.

use std::path::PathBuf;

pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is built by `cargo test` with the tests", program.display());
    program
}

pub(crate) fn rounds(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |rounds| rounds.parse().expect("a number of rounds"))
}
