//! A process that is killed at random moments, again and again: everything that it acknowledged is there, every time.
//!
//! `GRISTMILL_CRASH_ROUNDS` says how often (20 if unset; the full suite is 200). A kill leaves the page cache, so the
//! same runs over a disk that forgets at the kill what was not synced.

mod forgetful;
mod program;
mod rounds;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gristmill_raft::verify;
use program::program;
use rounds::rounds;

/// What one life of the process said.
struct Life {
    term: u64,
    have: BTreeSet<u64>,
    acknowledged: Vec<u64>,
}

/// When a process is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// So long after it works.
    Working(Duration),
    /// So long after it has begun to rebuild its database.
    Rebuilding(Duration),
}

impl Moment {
    fn wait(self, folder: &Path) {
        let (Self::Working(time) | Self::Rebuilding(time)) = self;
        let began = Instant::now();
        while matches!(self, Self::Rebuilding(_)) && databases(folder) < 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "the database is not rebuilt");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(time);
    }
}

/// How many databases a folder has: two or more while one is replaced.
fn databases(folder: &Path) -> usize {
    fs::read_dir(folder.join("log")).unwrap().count()
}

/// Starts the writer and kills it at a moment.
fn live(folder: &Path, moment: Moment, journal: Option<&PathBuf>) -> Life {
    let mut command = Command::new(program("raftlog"));
    if let Some(journal) = journal {
        command.env("LD_PRELOAD", program("libforgetful.so"));
        command.env("FORGETFUL_FOLDER", folder).env("FORGETFUL_JOURNAL", journal);
    }
    let mut child = command.arg("write").arg(folder).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    };
    let numbers = |text: &str| text.split_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<u64>>();
    let term = numbers(line().strip_prefix("term ").expect("it leads"))[0];
    let have = numbers(line().strip_prefix("have").expect("it reads")).into_iter().collect();
    moment.wait(folder);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    // The last line may be cut: what it said was not heard.
    let whole = &rest[..rest.rfind('\n').map_or(0, |end| end)];
    let acknowledged = whole.lines().filter_map(|line| line.strip_prefix("ack ")).flat_map(numbers).collect();
    Life { term, have, acknowledged }
}

#[test]
fn what_was_acknowledged_is_there_after_every_kill() {
    kill_again_and_again(false);
}

#[test]
fn what_was_acknowledged_is_there_after_every_loss_of_power() {
    kill_again_and_again(true);
}

fn kill_again_and_again(forget: bool) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap().join("node");
    let journal = dir.path().join("journal");
    let (mut forgotten, mut halves) = (0, 0);
    let (mut acknowledged, mut term) = (BTreeSet::new(), 0);
    let rounds = rounds("GRISTMILL_CRASH_ROUNDS", 20);
    for round in 0..rounds {
        let moment = if round % 4 == 3 {
            Moment::Rebuilding(Duration::from_micros(round * 1_847 % 30_000))
        } else {
            Moment::Working(Duration::from_micros(round * 7_919 % 120_000))
        };
        let life = live(&folder, moment, forget.then_some(&journal));
        halves += u64::from(databases(&folder) > 1);
        if forget {
            // Every other time all of it is lost, else some part is left.
            let keep = |writes: usize| if round % 2 == 0 { 0 } else { (round * 31 + 7) as usize % (writes + 1) };
            forgotten += forgetful::lose_power(&folder, &journal, keep);
        }
        assert!(life.term > term, "round {round}: term {} after {term}: a vote was forgotten", life.term);
        let lost: Vec<_> = acknowledged.difference(&life.have).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        term = life.term;
        acknowledged.extend(life.acknowledged);
        let report = verify::folder(&folder).unwrap().unwrap();
        assert!(report.vote.unwrap().0 >= term, "round {round}: {report}");
        assert_eq!(databases(&folder), 1, "round {round}: what a crash left of a rebuild stays");
    }
    let report = verify::folder(&folder).unwrap().unwrap();
    eprintln!(
        "{rounds} rounds, {} acknowledged, {} entries in the log, {halves} kills during a rebuild, \
         {forgotten} writes forgotten",
        acknowledged.len(),
        report.entries
    );
    assert!(acknowledged.len() as u64 > rounds, "the process worked");
    assert!(report.purged.is_some(), "snapshots and purges were not part of it: {report}");
    assert!(halves > 0, "no rebuild was interrupted");
    assert!(!forget || forgotten > 0, "the disk forgot nothing");
}
