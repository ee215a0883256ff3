//! The processes that came of one, by `/proc`: which there are, and what they use.

use std::fs;

use rustix::process::{Pid, Signal};

/// What processes use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) threads: u64,
}

/// More processes than a task can have are not looked at.
const MOST: usize = 100_000;

/// All descendants of this process, parents before children.
pub(crate) fn descendants() -> Vec<Pid> {
    let mut all = children(&[rustix::process::getpid()]);
    let mut from = 0;
    while from < all.len() && all.len() < MOST {
        let next = children(&all[from..]);
        from = all.len();
        all.extend(next);
    }
    all
}

/// The children of processes, whichever of their threads began them.
fn children(of: &[Pid]) -> Vec<Pid> {
    let mut all = Vec::new();
    for pid in of {
        let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).into_iter().flatten().flatten();
        for task in tasks {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
        }
    }
    all
}

/// What processes use: pages that are in memory, those that several share once for each. Of ones that are gone, nothing.
pub(crate) fn used(pids: &[Pid]) -> Use {
    let page = rustix::param::page_size() as u64;
    pids.iter().filter_map(|pid| stat(*pid)).fold(Use::default(), |sum, (threads, pages)| Use {
        memory: sum.memory + pages * page,
        threads: sum.threads + threads,
    })
}

/// Threads and resident pages, from proc_pid_stat(5).
fn stat(pid: Pid) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name may hold anything, and ends at the last parenthesis.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let threads = fields.nth(17)?.parse().ok()?;
    Some((threads, fields.nth(3)?.parse().ok()?))
}

/// Bytes of memory in which each page counts once, by the kernel's shares, without those of files. Slow. `None` where the
/// kernel does not tell.
pub(crate) fn proportional(pids: &[Pid]) -> Option<u64> {
    let of = |pid: &Pid| {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero())).ok()?;
        let number = |line: &str| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024);
        let parts = ["Pss_Anon:", "Pss_Shmem:"].map(|label| text.lines().find_map(|line| line.strip_prefix(label)));
        parts.into_iter().map(|part| number(part?)).sum::<Option<u64>>()
    };
    // Of one that has ended nothing is left, whoever has still to wait for it.
    let known: Vec<u64> = pids.iter().filter_map(of).collect();
    (!known.is_empty()).then(|| known.iter().sum())
}

/// Processes and threads of the user that this process runs as.
pub(crate) fn threads_of_user() -> u64 {
    let uid = rustix::process::getuid().as_raw();
    let ours = |entry: fs::DirEntry| {
        use std::os::unix::fs::MetadataExt;
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        (entry.metadata().ok()?.uid() == uid).then(|| stat(pid)).flatten()
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(ours).map(|(threads, _)| threads).sum()
}

/// Ends all descendants, however fast they begin others: all are stopped before the first is ended. They are still
/// to be waited for.
pub(crate) fn end_all() {
    /// Whoever begins processes faster than this is bounded by their number.
    const ROUNDS: usize = 100;
    let mut stopped = Vec::new();
    for _ in 0..ROUNDS {
        let new: Vec<Pid> = descendants().into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        for pid in &new {
            let _ = rustix::process::kill_process(*pid, Signal::STOP);
        }
        stopped.extend(new);
    }
    for pid in descendants() {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_their_children_are_found_and_measured() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let me = Pid::from_child(&child);
        let tree = || {
            let mut all = children(&[me]);
            all.push(me);
            all
        };
        while tree().len() < 2 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(descendants().len() >= 2);
        let used = used(&tree());
        assert_eq!(used.threads, 2);
        let shares = proportional(&tree()).unwrap();
        assert!(used.memory > 0 && shares > 0 && shares <= used.memory, "{used:?}, {shares}");
        assert!(threads_of_user() >= 3);
        tree().iter().for_each(|pid| rustix::process::kill_process(*pid, Signal::KILL).unwrap());
        child.wait().unwrap();
    }
}
