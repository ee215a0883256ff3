//! Rules that hold over the whole tree: every file says what it owns, the engine has no clock, files stay small, and
//! dependencies point one way. `engine/clippy.toml` guards what goes by paths of the standard library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    for folder in ["src", "engine", "benches", "fuzz", "k8s", "tests", "examples"] {
        for (path, text) in sources(folder) {
            assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
        }
    }
}

#[test]
fn files_stay_small() {
    for folder in ["src", "engine", "benches", "fuzz", "k8s", "sim", "tests", "examples"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines; divide it", path.display());
        }
    }
}

/// What masters and workers do is looked at from outside: code that took commands apart would do it for them. The model of
/// the paper's cluster has the real scheduler in it, and so hands commands to the real state; it takes none apart either.
#[test]
fn the_simulator_has_no_behaviour_of_a_master() {
    for (path, text) in sources("sim/src") {
        let code = text.split("mod tests {").next().unwrap_or_default();
        let is_model = path.components().any(|part| part.as_os_str() == "paper") || path.ends_with("paper.rs");
        let banned: &[&str] = if is_model { &[] } else { &["command::Action", "wire::Command", "control::state"] };
        for banned in banned {
            assert!(!code.contains(banned), "{} names {banned}", path.display());
        }
        for line in code.lines().filter(|line| line.contains("Action::")) {
            assert!(
                !line.contains("=>") && !line.contains("if let"),
                "{} takes commands apart: {line}",
                path.display()
            );
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

/// The packages that a package is built of, by name.
fn built_of(package: &str) -> Vec<String> {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none", "-p", package]);
    let tree = command.current_dir(root()).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_string();
    String::from_utf8(tree.stdout).unwrap().lines().map(name).collect()
}

/// The network and the database are for programs that want them: an app of one machine, and the crates beneath, do
/// without.
#[test]
fn dependencies_point_one_way() {
    let absences: [(&str, &str, &[&str]); 4] = [
        ("wordfreq", "gristmill", &["tonic", "tokio", "sled"]),
        ("gristmill-engine", "rayon", &["tonic", "axum", "hyper", "sled", "kube", "tokio", "gristmill"]),
        ("gristmill-raft", "openraft", &["tonic", "axum", "sled", "kube", "gristmill-engine", "gristmill"]),
        ("gristmill-proto", "prost", &["tonic", "gristmill-engine", "gristmill-raft"]),
    ];
    for (package, has, absent) in absences {
        let packages = built_of(package);
        assert!(packages.iter().any(|p| p == has), "{package} is built of {packages:?}");
        for name in absent {
            assert!(!packages.iter().any(|p| p == name), "{package} is built of {name}");
        }
    }
}

/// What makes nodes die on purpose is in the program that tests run, and in no other.
#[test]
fn failpoints_are_in_no_release() {
    let features = |kinds: &str| {
        let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
        let mut command = Command::new(cargo);
        command.args([
            "tree",
            "--locked",
            "--offline",
            "-p",
            "gristmill",
            "-e",
            kinds,
            "-f",
            "{p} {f}",
            "--depth",
            "0",
        ]);
        let tree = command.current_dir(root()).output().unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        String::from_utf8(tree.stdout).unwrap()
    };
    let (released, tested) = (features("normal"), features("normal,dev"));
    assert!(released.contains("cluster") && !released.contains("failpoints"), "{released}");
    assert!(tested.contains("failpoints"), "{tested}");
}
