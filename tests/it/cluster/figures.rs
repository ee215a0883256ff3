//! What a cluster costs: its jobs beside a local run, small jobs, and the master's share of a large one. Prints figures,
//! asserts nothing about them. `GRISTMILL_PROGRAM` names a release build, `GRISTMILL_TEXT` a text to count words of:
//! `cargo test --test it figures -- --ignored --nocapture --test-threads 1`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::nodes::{Cluster, Node, texts};
use crate::program::Folder;

/// Measured in turn, of which the median is told.
const PAIRS: usize = 5;
const EMPTY_JOBS: usize = 100;
/// How long small jobs are submitted, by how many at a time.
const SMALL_JOBS: (Duration, usize) = (Duration::from_secs(60), 4);
/// Of one job, each of a MiB.
const TASKS: u64 = 10_000;

/// So many workers of one slot, and a master; in the folder, nothing but the store that is there already.
fn cluster(folder: Folder, workers: usize) -> Cluster {
    let mut cluster = Cluster::on(folder, None, 1, 0);
    let master = cluster.masters[0].address.clone();
    for n in 1..=workers {
        let arguments = format!("--masters {master} --name w{n} --slots 1");
        cluster.workers.push(Node::start(&cluster.folder, "worker", &format!("w{n}"), &arguments));
    }
    cluster
}

/// Runs the program, which must succeed; gives the seconds that it took.
fn seconds(folder: &Folder, arguments: &str) -> f64 {
    let begun = Instant::now();
    let ended = folder.run(arguments);
    assert_eq!(ended.code, Some(0), "{arguments}: {ended:?}");
    begun.elapsed().as_secs_f64()
}

fn quantile(mut of: Vec<f64>, part: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    of[((of.len() - 1) as f64 * part) as usize]
}

/// A text in the store, so many times: the one that is named, or one of a few words.
pub(crate) fn text(folder: &Folder, times: usize) {
    let Some(named) = std::env::var_os("GRISTMILL_TEXT").map(PathBuf::from) else {
        return texts(folder, times * 1_000_000);
    };
    fs::create_dir_all(folder.path().join("store/books")).unwrap();
    for n in 0..times {
        let there = folder.path().join(format!("store/books/{n}.txt"));
        fs::hard_link(&named, &there).or_else(|_| fs::copy(&named, &there).map(drop)).unwrap();
    }
}

#[test]
#[ignore = "a measurement that asserts nothing: for a quiet machine and a release build"]
fn what_a_job_costs_beside_a_local_run() {
    let folder = Folder::new();
    text(&folder, 1);
    let cluster = cluster(folder, 2);
    let (folder, at) = (&cluster.folder, &cluster.masters[0].address);
    let (mut local, mut submitted) = (Vec::new(), Vec::new());
    for n in 0..=PAIRS {
        let of_run = seconds(folder, &format!("run wordcount store/books/ --threads 2 -q -o local/{n}"));
        let of_submit = seconds(folder, &format!("submit wordcount books/ --at {at} -o out/{n}"));
        // The first pair warms up.
        if n > 0 {
            eprintln!("run {of_run:.3} s, submit {of_submit:.3} s: {:.2}", of_submit / of_run);
            local.push(of_run);
            submitted.push(of_submit);
        }
    }
    let (local, submitted) = (quantile(local, 0.5), quantile(submitted, 0.5));
    println!("medians: run --threads 2 {local:.3} s, submit {submitted:.3} s, ratio {:.2}", submitted / local);
}

#[test]
#[ignore = "a measurement that asserts nothing: for a quiet machine and a release build"]
fn what_small_jobs_cost() {
    let folder = Folder::new();
    folder.file("store/empty", "");
    folder.file("store/small", "the mill grinds the corn\n");
    let cluster = cluster(folder, 2);
    let (folder, at) = (&cluster.folder, &cluster.masters[0].address);
    let job = |n: usize| 1000.0 * seconds(folder, &format!("submit wordcount empty --at {at} -o out/empty-{n}"));
    let all: Vec<f64> = (0..EMPTY_JOBS).map(job).collect();
    println!(
        "{EMPTY_JOBS} empty jobs, from the command's start to its end: p50 {:.1} ms, p95 {:.1} ms",
        quantile(all.clone(), 0.5),
        quantile(all, 0.95)
    );
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..SMALL_JOBS.1 {
            scope.spawn(|| {
                while begun.elapsed() < SMALL_JOBS.0 {
                    let n = next.fetch_add(1, Relaxed);
                    seconds(folder, &format!("submit wordcount small --at {at} -o out/small-{n}"));
                }
            });
        }
    });
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("small jobs, {} at a time: {:.0} a minute", SMALL_JOBS.1, next.into_inner() as f64 / minutes);
}

/// Seconds that the process has had of a processor, and the most memory that it had, in MiB.
fn used(process: &Node) -> (f64, u64) {
    let of = |file: &str| {
        let path = Path::new("/proc").join(process.pid().as_raw_nonzero().to_string()).join(file);
        fs::read_to_string(path).unwrap()
    };
    let stat = of("stat");
    // proc_pid_stat(5): fields 14 and 15, in hundredths of a second on Linux.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    let status = of("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    (ticks as f64 / 100.0, peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10)
}

#[test]
#[ignore = "a measurement that asserts nothing: for a quiet machine and a release build"]
fn what_many_tasks_cost_the_master() {
    let folder = Folder::new();
    // Nothing but holes: what workers do with it is next to nothing.
    let zeros = File::create(folder.file("store/zeros", "")).unwrap();
    zeros.set_len(TASKS << 20).unwrap();
    let cluster = cluster(folder, 2);
    let master = &cluster.masters[0];
    let (before, begun) = (used(master).0, Instant::now());
    let job = format!(
        "submit distinct zeros --input-format fixed:1024 --map-task-size 1MiB --reducers 4 --at {} -o out",
        master.address
    );
    seconds(&cluster.folder, &job);
    let (seconds, (after, peak)) = (begun.elapsed().as_secs_f64(), used(master));
    let tasks = TASKS as f64;
    println!(
        "{TASKS} tasks in {seconds:.1} s, {:.0} a second: the master had at most {peak} MiB and {:.2} s of a core, {:.1} % for each 100 tasks a second",
        tasks / seconds,
        after - before,
        100.0 * (after - before) / (tasks / 100.0)
    );
}
