//! Rules that hold over the crate: what a file may use, how long it may be, and what stays inside.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
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
    assert!(found.len() > 1 || folder == "examples", "{folder} has sources");
    found
}

#[test]
fn files_say_what_they_own_and_stay_small() {
    for (path, text) in ["src", "tests", "examples"].into_iter().flat_map(sources) {
        assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines; divide it", path.display());
    }
}

/// Whatever the simulator runs has no clock, no threads, no files and no randomness but through the seams.
#[test]
fn the_world_is_seen_through_seams() {
    let outside = ["disk/folder.rs", "disk/generation.rs", "disk/worker.rs", "disk/sled_kv.rs", "verify.rs"];
    for (path, text) in sources("src") {
        for banned in ["Instant::now", "SystemTime", "rand::rng", "tokio::", "HashMap<", "HashSet<"] {
            let excused = banned == "HashMap<" && path.ends_with("disk/folder.rs");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            assert!(
                !code.contains(banned) || path.ends_with("log/tests.rs") || excused,
                "{}: {banned}",
                path.display()
            );
        }
        for banned in ["std::fs", "std::thread", "std::process", "sled::"] {
            let allowed = outside.iter().any(|file| path.ends_with(file));
            assert!(!text.contains(banned) || allowed, "{}: {banned}", path.display());
        }
    }
}

/// openraft is named in no public interface, but for the runtime trait.
#[test]
fn libraries_stay_inside() {
    for (path, text) in sources("src") {
        for line in text.lines().map(str::trim_start).filter(|line| line.starts_with("pub ")) {
            let inside = line.contains("openraft::") || line.contains("Types<");
            assert!(!inside, "{}: {line}", path.display());
        }
    }
}
