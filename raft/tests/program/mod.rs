//! Finds the example program that tests run as a process.

use std::path::PathBuf;

pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is built by `cargo test` with the tests", program.display());
    program
}
