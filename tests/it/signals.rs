//! Signals while a job runs, and what is left after each.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::program::{Folder, Running, until};

/// A job that waits for its standard input, with its hidden folder made.
fn waiting(f: &Folder) -> Running {
    let running = f.start("run wordcount - -o out --threads 2");
    until("the hidden folder", || !f.hidden().is_empty());
    running
}

#[test]
fn the_first_signal_stops_the_job_and_cleans_up() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        // Below nohup the program does not listen to it, as it should not.
        if signal == Signal::HUP && hang_up_is_ignored() {
            continue;
        }
        let f = Folder::new();
        let mut running = waiting(&f);
        running.feed("some words\n");
        running.signal(signal);
        // Its input stays open: whoever writes there does not decide when the job ends.
        let ended = running.wait_unfed();
        assert_eq!((ended.code, ended.err.as_str()), (Some(code), "gristmill: interrupted; nothing was written\n"));
        assert_eq!(f.names("."), [""; 0]);
    }
}

#[test]
fn a_pipe_by_name_does_not_hold_a_job_either() {
    let f = Folder::new();
    let path = f.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let running = f.start("run wordcount pipe -o out");
    until("the hidden folder", || !f.hidden().is_empty());
    running.signal(Signal::TERM);
    assert_eq!(running.wait_unfed().code, Some(143));
    assert_eq!(f.names("."), ["pipe"]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let f = Folder::new();
    f.file("in.txt", "line\n");
    let running = Running::start(f.faulty("run faulty --slow 30000 in.txt -o out"));
    until("the hidden folder", || !f.hidden().is_empty());
    running.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    running.signal(Signal::INT);
    assert_eq!(running.wait_unfed().code, Some(130));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!f.path().join("out").exists());
}

#[test]
fn a_killed_job_leaves_nothing_to_be_seen_and_the_next_cleans_up() {
    let f = Folder::new();
    f.file("in.txt", "the end\n");
    let mut running = waiting(&f);
    running.feed("some words\n".repeat(100_000));
    running.signal(Signal::KILL);
    assert_eq!(running.wait_unfed().code, Some(-9));
    assert!(!f.path().join("out").exists());
    assert_eq!(f.hidden().len(), 1);
    let ended = f.run("cat out");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    f.out("run wordcount in.txt -o out");
    assert_eq!(f.names("."), ["in.txt", "out"]);
    assert_eq!(f.out("cat out"), "end\t1\nthe\t1\n");
}

#[test]
fn a_job_leaves_the_folder_of_a_living_one_alone() {
    let f = Folder::new();
    f.file("in.txt", "the end\n");
    let running = waiting(&f);
    f.out("run wordcount in.txt -o out");
    assert_eq!(f.hidden().len(), 1);
    let late = running.wait();
    assert_eq!(late.code, Some(5), "{late:?}");
    assert_eq!(f.names("."), ["in.txt", "out"]);
}

#[test]
fn nohup_is_heeded() {
    let f = Folder::new();
    let mut command = f.command("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" run wordcount - -o out", env!("CARGO_BIN_EXE_gristmill")]);
    let mut running = Running::start(command);
    until("the hidden folder", || !f.hidden().is_empty());
    running.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    running.feed("fed");
    assert_eq!(running.wait().code, Some(0));
    assert_eq!(f.out("cat out"), "fed\t1\n");
}

#[test]
fn a_compressed_pipe_that_nobody_writes_to_does_not_hold_a_job() {
    for name in ["pipe.gz", "pipe.zst", "pipe.bz2", "pipe.lz4"] {
        let f = Folder::new();
        let path = f.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let running = f.start(&format!("run wordcount {name} -o out"));
        until("the hidden folder", || !f.hidden().is_empty());
        running.signal(Signal::TERM);
        let ended = running.wait_unfed();
        assert_eq!((ended.code, ended.err.as_str()), (Some(143), "gristmill: interrupted; nothing was written\n"));
    }
}

#[test]
fn a_reader_that_does_not_read_does_not_hold_a_job() {
    let f = Folder::new();
    f.file("in.txt", (0..400_000).map(|n| format!("word{n}\n")).collect::<String>());
    for app in ["sort", "wordcount"] {
        let running = f.start(&format!("run {app} in.txt"));
        let pipe = running.child.stdout.as_ref().unwrap();
        // What a pipe holds, or nearly: who writes more waits.
        until("the pipe to be full", || rustix::io::ioctl_fionread(pipe).unwrap() > 60_000);
        running.signal(Signal::INT);
        let mut running = running;
        let kept = running.child.stdout.take();
        let ended = running.wait_unfed();
        drop(kept);
        assert_eq!(ended.code, Some(130), "{ended:?}");
        assert_eq!(ended.err, "gristmill: interrupted; what is on standard output is not the whole result\n");
    }
}

/// Whether the tests, and so the programs that they start, ignore SIGHUP.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1)
}
