//! A real folder that can not be used, or no more: the process says why and ends, and nothing that it acknowledged is lost.
//!
//! What needs a file system of its own is skipped, with a word, where mounting is not allowed.

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use gristmill_raft::verify;
use program::program;

/// What a life that ended by itself said.
struct Ended {
    status: ExitStatus,
    acknowledged: BTreeSet<u64>,
    last_words: String,
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn writer(folder: &Path) -> Command {
    let mut command = Command::new(program("raftlog"));
    command.arg("write").arg(folder);
    command
}

/// Waits for the end of a process, or kills it after a minute.
fn ended(command: &mut Command) -> Ended {
    let child = start(command.env("RUST_BACKTRACE", "0"));
    let id = child.id().to_string();
    let (over, waits) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if waits.recv_timeout(Duration::from_secs(60)).is_err() {
            Command::new("kill").arg("-KILL").arg(id).status().unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = over.send(());
    watch.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let acknowledged = text.lines().filter_map(|line| line.strip_prefix("ack ")).map(|n| n.parse().unwrap());
    Ended {
        status: output.status,
        acknowledged: acknowledged.collect(),
        last_words: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What the folder's node knows after a restart.
fn have(folder: &Path) -> BTreeSet<u64> {
    let mut child = start(&mut writer(folder));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let have = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("have").map(str::to_string));
    child.kill().unwrap();
    child.wait().unwrap();
    have.expect("it reads").split_whitespace().map(|n| n.parse().unwrap()).collect()
}

/// A mounted file system, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, words: &[&str]) -> Option<Self> {
        let mounted = Command::new("mount").args(words).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", options]).arg(&self.0).status().unwrap();
        assert!(status.success(), "remount {options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a child that was killed may not be quite gone.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_process_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), &["-t", "tmpfs", "-o", "size=1400k", "tmpfs"]) else { return };
    let folder = dir.path().join("node");
    let end = ended(&mut writer(&folder));
    assert!(!end.status.success() && end.acknowledged.len() > 10, "{} acknowledged", end.acknowledged.len());
    assert!(end.last_words.contains("No space left"), "{}", end.last_words);
    mount.remount("remount,size=64m");
    let lost: Vec<_> = end.acknowledged.difference(&have(&folder)).copied().collect();
    assert!(lost.is_empty(), "lost {lost:?}");
}

/// The limit on a file's length is met in the middle of a write, as a full disk may be.
#[test]
fn a_write_that_is_cut_ends_the_process_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("node");
    let script = "trap '' XFSZ; ulimit -f 1100; exec \"$0\" write \"$1\"";
    let end = ended(Command::new("sh").arg("-c").arg(script).arg(program("raftlog")).arg(&folder));
    assert!(!end.status.success() && end.acknowledged.len() > 10, "{} acknowledged", end.acknowledged.len());
    assert!(end.last_words.contains("File too large"), "{}", end.last_words);
    let lost: Vec<_> = end.acknowledged.difference(&have(&folder)).copied().collect();
    assert!(lost.is_empty(), "lost {lost:?}");
}

#[test]
fn a_read_only_folder_is_refused_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), &["-t", "tmpfs", "-o", "size=64m", "tmpfs"]) else { return };
    let folder = dir.path().join("node");
    let status = Command::new(program("raftlog")).arg("fill").arg(&folder).arg("50").status().unwrap();
    assert!(status.success());
    mount.remount("remount,ro");
    for folder in [&folder, &dir.path().join("new")] {
        let text = ended(&mut writer(folder)).last_words;
        assert!(text.contains("Read-only file system"), "{text}");
        // One line, not a panic of sled.
        let error = verify::open(folder).map(drop).unwrap_err();
        let cause = std::error::Error::source(&error).and_then(|e| e.source()).unwrap().to_string();
        assert!(cause.contains("Read-only file system"), "{error}: {cause}");
        let place = std::error::Error::source(&error).unwrap_or(&error).to_string();
        assert!(place.starts_with("cannot"), "{place}");
    }
    mount.remount("remount,rw");
    assert_eq!(have(&folder).len(), 150);
}

#[test]
fn a_folder_that_another_process_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("node");
    let mut first = start(&mut writer(&folder));
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("ack"))).unwrap().unwrap();
    let second = ended(&mut writer(&folder));
    assert!(!second.status.success() && second.acknowledged.is_empty());
    assert!(second.last_words.contains("another process uses it"), "{}", second.last_words);
    let check = verify::in_child(Command::new(program("raftlog")).arg("verify").arg(&folder), Duration::from_secs(30));
    assert!(check.unwrap_err().to_string().contains("another process uses it"));
    for _ in 0..20 {
        assert!(lines.next().unwrap().unwrap().starts_with("ack"), "the first goes on");
    }
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_folder_made_of_those_of_two_nodes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for (folder, count) in [(&one, "10"), (&two, "60")] {
        let status = Command::new(program("raftlog")).arg("fill").arg(folder).arg(count).status().unwrap();
        assert!(status.success());
    }
    let check = || {
        let checked = verify::folder(&one).unwrap_err();
        std::error::Error::source(&checked).unwrap().to_string()
    };
    fs::remove_dir_all(one.join("log")).unwrap();
    fs::rename(two.join("log"), one.join("log")).unwrap();
    assert!(check().contains("found node"), "{}", check());
    fs::rename(two.join("mark"), one.join("mark")).unwrap();
    assert!(check().contains("expected the log of node"), "{}", check());
}
