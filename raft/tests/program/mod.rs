//! Finds the example program that tests run as a process.
//!
//! `cargo test` builds examples with the tests, but `cargo test --test NAME` does not: after a change, run
//! `cargo build -p gristmill-raft --examples` first, or the test runs the program of an earlier build.

use std::path::PathBuf;

pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing: build it by `cargo build -p gristmill-raft --examples`",
        program.display()
    );
    program
}
