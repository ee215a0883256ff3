//! One flipped bit or one zeroed page anywhere in a closed folder: it is read back whole or refused, and never anything
//! else.
//!
//! `GRISTMILL_CORRUPTION_TRIALS` says how often (60 if unset; the full suite is 500).

mod program;
mod rounds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gristmill_raft::verify;
use program::program;
use rounds::rounds;

const LIMIT: Duration = Duration::from_secs(30);

fn fill(folder: &Path) {
    let status = Command::new(program("raftlog")).arg("fill").arg(folder).arg("300").status().unwrap();
    assert!(status.success());
}

/// All files below a folder, with their lengths.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.metadata().unwrap().len() > 0 {
            found.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// SplitMix64, so that a trial can be repeated.
fn random(seed: u64) -> u64 {
    let z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Damages one place of a folder; says which. Every third trial takes any file alike, the others any page alike; empty
/// pages, of which sled has many, are left out.
fn damage(folder: &Path, trial: u64) -> String {
    let mut pages = Vec::new();
    for (path, _) in files(folder) {
        let bytes = fs::read(&path).unwrap();
        let used = bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        let used: Vec<_> = used.map(|(number, _)| (path.clone(), number * 4096)).collect();
        pages.push(used);
    }
    let pick = |n: u64, of: usize| usize::try_from(random(trial * 4 + n) % of as u64).unwrap();
    let pages = if trial.is_multiple_of(3) { pages.swap_remove(pick(0, pages.len())) } else { pages.concat() };
    let (path, start) = &pages[pick(1, pages.len())];
    let mut bytes = fs::read(path).unwrap();
    let end = (start + 4096).min(bytes.len());
    let name = path.strip_prefix(folder).unwrap().display();
    let what = if trial.is_multiple_of(2) {
        let at = start + pick(2, end - start);
        bytes[at] ^= 1 << pick(3, 8);
        format!("a bit of byte {at} of {name}")
    } else {
        bytes[*start..end].fill(0);
        format!("the page at {start} of {name}")
    };
    fs::write(path, bytes).unwrap();
    what
}

fn newest_snapshot(folder: &Path) -> Vec<u8> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut snapshots = files(folder).into_iter().map(|(path, _)| path);
    fs::read(snapshots.rfind(|path| name(path).starts_with("snapshot-")).unwrap()).unwrap()
}

fn check(folder: &Path) -> Result<(), gristmill_raft::Error> {
    verify::in_child(Command::new(program("raftlog")).arg("verify").arg(folder), LIMIT)
}

#[test]
fn damage_is_harmless_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    fill(&whole);
    check(&whole).unwrap();
    let before = verify::folder(&whole).unwrap().unwrap();
    assert!(before.entries > 100 && before.snapshot.is_some() && before.purged.is_some(), "{before}");
    let mut outcomes = BTreeMap::<_, u64>::new();
    for trial in 0..rounds("GRISTMILL_CORRUPTION_TRIALS", 60) {
        let damaged = dir.path().join("damaged");
        copy(&whole, &damaged);
        let what = damage(&damaged, trial);
        let outcome = match check(&damaged) {
            Ok(()) => {
                let after = verify::folder(&damaged).unwrap().unwrap_or_else(|| panic!("{what}: an empty folder"));
                let same = after.chain == before.chain && after.last == before.last && after.vote == before.vote;
                assert!(same && after.purged == before.purged, "trial {trial}, {what}: {after}");
                // A damaged slot of the mark leaves the one before, a damaged newest snapshot is refused.
                assert_eq!(after.snapshot, before.snapshot, "trial {trial}, {what}");
                assert!(newest_snapshot(&damaged) == newest_snapshot(&whole), "trial {trial}, {what}");
                "read back whole"
            }
            Err(error) => {
                let text = error.to_string();
                let clear = text.contains("expected") || text.contains("damaged") || text.contains("cannot");
                assert!(clear, "trial {trial}, {what}: {text}");
                if text.contains("ended with") { "refused: the child died" } else { "refused: with a reason" }
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
        fs::remove_dir_all(&damaged).unwrap();
    }
    eprintln!("{outcomes:?}");
    assert!(outcomes.keys().any(|outcome| outcome.starts_with("refused")), "{outcomes:?}");
}

#[test]
fn inspect_tells_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("node");
    fill(&folder);
    let before: Vec<_> = files(&folder).into_iter().map(|(path, _)| (fs::read(&path).unwrap(), path)).collect();
    let report = verify::inspect(&folder, dir.path()).unwrap().to_string();
    for word in
        ["vote       term", "snapshot   up to entry", "voter      node", "by the mark", "of cluster 0000000000000007"]
    {
        assert!(report.contains(word), "{word}: {report}");
    }
    let after: Vec<_> = files(&folder).into_iter().map(|(path, _)| (fs::read(&path).unwrap(), path)).collect();
    assert!(before == after, "inspect wrote something");
    assert!(verify::inspect(&dir.path().join("none"), dir.path()).is_err());
    let disks = verify::open(&folder).unwrap();
    let busy = verify::inspect(&folder, dir.path()).unwrap_err();
    let cause = std::error::Error::source(&busy).and_then(|e| e.source()).unwrap().to_string();
    assert!(cause.contains("another process"), "{cause}");
    drop(disks);
}

#[test]
fn a_folder_without_its_identity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("node");
    fill(&folder);
    fs::remove_file(folder.join("identity")).unwrap();
    let text = check(&folder).unwrap_err().to_string();
    assert!(text.contains("no identity"), "{text}");
    // An empty folder and none are fine: the node makes them its own.
    check(&dir.path().join("none")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    check(&dir.path().join("empty")).unwrap();
}

#[test]
fn a_rejoin_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("node");
    fill(&folder);
    // The whole database as it was some writes ago.
    let old = dir.path().join("old");
    copy(&folder.join("log"), &old);
    let status = Command::new(program("raftlog")).arg("fill").arg(&folder).arg("10").status().unwrap();
    assert!(status.success());
    fs::remove_dir_all(folder.join("log")).unwrap();
    copy(&old, &folder.join("log"));
    let text = check(&folder).unwrap_err().to_string();
    for word in ["expected node", "found node", ", write", "gristmill raft remove", "empty"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
