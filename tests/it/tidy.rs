//! Rules that hold over the whole tree: every file says what it owns, the engine has no clock, files stay small.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 1, "{folder} has sources");
    found
}

#[test]
fn every_file_says_what_it_owns() {
    for folder in ["src", "engine", "benches", "fuzz", "tests", "examples"] {
        for (path, text) in sources(folder) {
            assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
        }
    }
}

#[test]
fn files_stay_small() {
    for folder in ["src", "engine", "benches", "fuzz", "tests", "examples"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines; divide it", path.display());
        }
    }
}

#[test]
fn the_engine_has_no_clock_and_one_adapter_of_threads() {
    for (path, text) in sources("engine/src") {
        // Its test measures that a silent pipe does not hold a job; the code itself reads no clock.
        let text = text.split("mod tests {").next().unwrap_or_default();
        for banned in ["Instant::now", "SystemTime::now", "println!", "eprintln!"] {
            assert!(!text.contains(banned), "{} uses {banned}", path.display());
        }
        assert!(!text.contains("rayon::") || path.ends_with("exec.rs"), "{} names rayon", path.display());
    }
}

/// The network and the database are for programs that want them: an app of one machine, and the crates beneath, do
/// without.
#[test]
fn heavy_dependencies_stay_where_they_belong() {
    let rules: [(&str, &[&str]); 4] = [
        ("wordfreq", &["tonic", "tokio", "sled", "openraft", "gristmill-raft"]),
        ("gristmill-engine", &["tonic", "axum", "sled", "gristmill"]),
        ("gristmill-raft", &["tonic", "axum", "sled", "gristmill-engine"]),
        ("gristmill-proto", &["tonic", "gristmill-engine", "gristmill-raft"]),
    ];
    for (package, banned) in rules {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        let tree =
            cargo.current_dir(root()).args(["tree", "--locked", "-e", "normal", "--prefix", "none", "-p", package]);
        let tree = tree.output().unwrap();
        assert!(tree.status.success(), "{tree:?}");
        let names: Vec<_> =
            tree.stdout.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').next()).collect();
        for name in banned {
            assert!(!names.contains(&name.as_bytes()), "{package} depends on {name}");
        }
    }
}
