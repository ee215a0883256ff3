//! What a slow worker costs a job, with second attempts and without. Prints figures, asserts nothing about them but that all
//! jobs complete. Measured as `figures` is: with `GRISTMILL_TEXT` naming a text, of which the job counts the words ten times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::figures::text;
use super::nodes::Cluster;

/// The longest that one of the jobs may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Of each 20 parts of time the slow worker has one.
const RUNS: Duration = Duration::from_millis(5);
const STOPS: Duration = Duration::from_millis(95);

/// Stops a process most of the time.
struct Slow {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Slow {
    fn down(pid: Pid) -> Self {
        let over: Arc<AtomicBool> = Arc::default();
        let until = over.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Relaxed) {
                for (signal, pause) in [(Signal::STOP, STOPS), (Signal::CONT, RUNS)] {
                    let _ = kill_process(pid, signal);
                    std::thread::sleep(pause);
                }
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn what_a_straggler_costs() {
    let mut cluster = Cluster::of(1, 4);
    text(&cluster.folder, 10);
    let mut n = 0;
    let mut time = |cluster: &mut Cluster, flags: &str| {
        n += 1;
        let begun = Instant::now();
        let job = cluster.submit(&format!("wordcount books/ --reducers 4 -o out/{n} {flags}"));
        cluster.client().complete(&job, PATIENCE);
        begun.elapsed().as_secs_f64()
    };
    let _ = time(&mut cluster, "");
    let even = time(&mut cluster, "");
    let slow = Slow::down(cluster.workers[0].pid());
    let (with, without) = (time(&mut cluster, ""), time(&mut cluster, "--no-backups"));
    drop(slow);
    println!(
        "no straggler: {even:.1} s; one of 4 workers 20 times slower: {with:.1} s with backups, {without:.1} s without"
    );
}
