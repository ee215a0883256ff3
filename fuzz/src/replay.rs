//! Replays the corpora, file by file. A file that a fuzzer found something with is named after it.

use std::fs;
use std::path::Path;

fn replay(target: &str) {
    let run = super::TARGETS.iter().find(|(name, _)| *name == target).map(|(_, run)| run).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "a corpus is there");
    files.sort();
    for path in files {
        let bytes = fs::read(&path).unwrap();
        let ran = std::panic::catch_unwind(|| run(&bytes));
        assert!(ran.is_ok(), "replay it with: <fuzzer> {}", path.display());
    }
}

#[test]
fn chunks() {
    replay("chunks");
}

#[test]
fn decompress() {
    replay("decompress");
}

#[test]
fn flags() {
    replay("flags");
}

#[test]
fn messages() {
    replay("messages");
}

#[test]
fn segments() {
    replay("segments");
}

#[test]
fn python() {
    replay("python");
}

#[test]
fn wasm() {
    replay("wasm");
}
