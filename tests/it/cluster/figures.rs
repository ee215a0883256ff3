//! What a cluster costs: its jobs beside a local run, small jobs, and the master's share of a large one. Prints figures,
//! asserts nothing about them but that all of it is done. With `GRISTMILL_TEXT` naming a text to count words of, and
//! `GRISTMILL_PROGRAM` a release build, it is measured (`benches/README.md`); else it is done once and small, so that what
//! measures goes on to work.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::nodes::{Cluster, Node, texts};
use crate::program::Folder;

/// How much is done.
struct Scale {
    /// Measured in turn, of which the median is told.
    pairs: usize,
    empty_jobs: usize,
    /// How long small jobs are submitted, by how many at a time.
    small_jobs: (Duration, usize),
    /// Of one job, each of a MiB.
    tasks: u64,
}

const MEASURED: Scale = Scale { pairs: 5, empty_jobs: 100, small_jobs: (Duration::from_secs(60), 4), tasks: 10_000 };
const SMALL: Scale = Scale { pairs: 1, empty_jobs: 3, small_jobs: (Duration::from_millis(500), 2), tasks: 50 };

fn named_text() -> Option<PathBuf> {
    std::env::var_os("GRISTMILL_TEXT").map(PathBuf::from)
}

fn scale() -> Scale {
    if named_text().is_some() { MEASURED } else { SMALL }
}

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

/// A text in the store, so many times: the one that is named, or a small one of a few words.
pub(crate) fn text(folder: &Folder, times: usize) {
    let Some(named) = named_text() else {
        return texts(folder, times * 1_000);
    };
    fs::create_dir_all(folder.path().join("store/books")).unwrap();
    for n in 0..times {
        let there = folder.path().join(format!("store/books/{n}.txt"));
        fs::hard_link(&named, &there).or_else(|_| fs::copy(&named, &there).map(drop)).unwrap();
    }
}

#[test]
fn what_a_job_costs_beside_a_local_run() {
    let folder = Folder::new();
    text(&folder, 1);
    let cluster = cluster(folder, 2);
    let (folder, at) = (&cluster.folder, &cluster.masters[0].address);
    let (mut local, mut submitted) = (Vec::new(), Vec::new());
    for n in 0..=scale().pairs {
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
fn what_small_jobs_cost() {
    let folder = Folder::new();
    folder.file("store/empty", "");
    folder.file("store/small", "the mill grinds the corn\n");
    let cluster = cluster(folder, 2);
    let (folder, at) = (&cluster.folder, &cluster.masters[0].address);
    let job = |n: usize| 1000.0 * seconds(folder, &format!("submit wordcount empty --at {at} -o out/empty-{n}"));
    let Scale { empty_jobs, small_jobs, .. } = scale();
    let all: Vec<f64> = (0..empty_jobs).map(job).collect();
    println!(
        "{empty_jobs} empty jobs, from the command's start to its end: p50 {:.1} ms, p95 {:.1} ms",
        quantile(all.clone(), 0.5),
        quantile(all, 0.95)
    );
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..small_jobs.1 {
            scope.spawn(|| {
                while begun.elapsed() < small_jobs.0 {
                    let n = next.fetch_add(1, Relaxed);
                    seconds(folder, &format!("submit wordcount small --at {at} -o out/small-{n}"));
                }
            });
        }
    });
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("small jobs, {} at a time: {:.0} a minute", small_jobs.1, next.into_inner() as f64 / minutes);
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
fn what_many_tasks_cost_the_master() {
    let folder = Folder::new();
    // Nothing but holes: what workers do with it is next to nothing.
    let zeros = File::create(folder.file("store/zeros", "")).unwrap();
    let number = scale().tasks;
    zeros.set_len(number << 20).unwrap();
    let cluster = cluster(folder, 2);
    let master = &cluster.masters[0];
    let (before, begun) = (used(master).0, Instant::now());
    let job = format!(
        "submit distinct zeros --input-format fixed:1024 --map-task-size 1MiB --reducers 4 --at {} -o out",
        master.address
    );
    seconds(&cluster.folder, &job);
    let (seconds, (after, peak)) = (begun.elapsed().as_secs_f64(), used(master));
    let tasks = number as f64;
    println!(
        "{number} tasks in {seconds:.1} s, {:.0} a second: the master had at most {peak} MiB and {:.2} s of a core, {:.1} % for each 100 tasks a second",
        tasks / seconds,
        after - before,
        100.0 * (after - before) / (tasks / 100.0)
    );
}
