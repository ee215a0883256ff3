//! A stream of jobs while processes are killed, stopped and started, ways between them are cut, a disk fills up and segments
//! go bad. Every job that was taken completes with the bytes of a local run, nobody sees a part of an output, and nothing
//! is left when all has healed.
//!
//! What happens follows from a seed; when in the life of a job it happens, does not. `GRISTMILL_CHAOS_SECONDS` says for how
//! long, `GRISTMILL_CHAOS_SEED` repeats a plan.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::net::Net;
use super::nodes::{Client, Cluster, files, parts, run_local, texts};
use super::outputs::Watch;
use crate::program::Folder;

const MASTERS: usize = 3;
const WORKERS: usize = 4;
/// Jobs at a time.
const STREAMS: usize = 3;
/// The longest that a job may take, faults and all.
const PATIENCE: Duration = Duration::from_secs(240);
/// The disk of the first worker.
const DISK: &str = "size=24m";

const JOBS: [&str; 6] = [
    "wordcount books/ --reducers 3",
    "index books/ --reducers 4",
    "sort books/ --reducers 3 --key 1-3",
    "distinct books/ --reducers 2 --count --compress zstd",
    "grep gr[a-z]+s books/ --reducers 2 --lines",
    "term-vector books/ --reducers 3",
];

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    /// One of the first `n` numbers.
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % n as u64).unwrap()
    }
}

/// Something that goes wrong, and later is put right. Nodes by number: masters, then workers.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    /// SIGKILL; then started again.
    Killed(usize),
    /// SIGKILL of all masters.
    NoMasters,
    /// SIGSTOP; then SIGCONT.
    Stopped(usize),
    /// Nothing gets from the first to the second.
    OneWay(usize, usize),
    /// Nothing gets from one to the other.
    BothWays(usize, usize),
    /// Nothing gets to or from it.
    Alone(usize),
    /// Nothing more can be written to the first worker's disk.
    Full,
    /// Some bytes of a segment are others.
    Corrupt(usize),
    /// Whoever is there next is killed.
    Point(&'static str),
}

impl Fault {
    /// Nodes that it concerns.
    fn nodes(&self) -> Vec<usize> {
        match *self {
            Self::Killed(node) | Self::Stopped(node) | Self::Alone(node) | Self::Corrupt(node) => vec![node],
            Self::NoMasters => (0..MASTERS).collect(),
            Self::OneWay(from, to) | Self::BothWays(from, to) => vec![from, to],
            Self::Full => vec![MASTERS],
            Self::Point(_) => Vec::new(),
        }
    }
}

/// What may go wrong here, and what does.
struct Chaos {
    cluster: Cluster,
    dice: Dice,
    has_disk: bool,
    begun: Instant,
    /// With the time at which each is put right.
    active: Vec<(Instant, Fault)>,
}

impl Chaos {
    fn pick(&mut self) -> Fault {
        let dice = &mut self.dice;
        let node = |dice: &mut Dice| dice.roll(MASTERS + WORKERS);
        let two = |dice: &mut Dice| {
            let (one, step) = (dice.roll(MASTERS + WORKERS), 1 + dice.roll(MASTERS + WORKERS - 1));
            (one, (one + step) % (MASTERS + WORKERS))
        };
        match dice.roll(20) {
            0..5 => Fault::Killed(node(dice)),
            5 => Fault::NoMasters,
            6..9 => Fault::Stopped(node(dice)),
            9..11 => {
                let (from, to) = two(dice);
                Fault::OneWay(from, to)
            }
            11..13 => {
                let (from, to) = two(dice);
                Fault::BothWays(from, to)
            }
            13 => Fault::Alone(node(dice)),
            14 => Fault::Full,
            15..17 => Fault::Corrupt(MASTERS + dice.roll(WORKERS)),
            _ => {
                let points =
                    ["map-reported", "reduce-reported", "publish-copy@2", "publish-last", "published", "uploaded"];
                Fault::Point(points[dice.roll(points.len())])
            }
        }
    }

    /// Whether this can happen now: one fault a node, and most of the time a majority of masters that could lead.
    fn can(&self, fault: &Fault) -> bool {
        let cut = matches!(fault, Fault::OneWay(..) | Fault::BothWays(..) | Fault::Alone(_));
        if (cut && self.cluster.net.is_none()) || (*fault == Fault::Full && !self.has_disk) {
            return false;
        }
        let taken: BTreeSet<usize> = self.active.iter().flat_map(|(_, fault)| fault.nodes()).collect();
        let masters = |nodes: &mut dyn Iterator<Item = usize>| nodes.filter(|node| *node < MASTERS).count();
        let (ours, theirs) = (masters(&mut fault.nodes().into_iter()), masters(&mut taken.iter().copied()));
        !fault.nodes().iter().any(|node| taken.contains(node)) && (ours == 0 || theirs == 0) && self.active.len() < 3
    }

    fn say(&self, what: &str) {
        eprintln!("{:8.3} {what}", self.begun.elapsed().as_secs_f64());
    }

    fn node(&mut self, node: usize) -> &mut super::nodes::Node {
        self.cluster.nodes().nth(node).expect("a node")
    }

    fn ways(&self, ways: impl IntoIterator<Item = (usize, usize)>, open: bool) {
        let net = self.cluster.net.as_ref().expect("a network");
        ways.into_iter().for_each(|(from, to)| net.way(from, to, open).unwrap());
    }

    fn cuts(fault: &Fault) -> Vec<(usize, usize)> {
        match *fault {
            Fault::OneWay(from, to) => vec![(from, to)],
            Fault::BothWays(one, other) => vec![(one, other), (other, one)],
            Fault::Alone(node) => {
                let others = || (0..MASTERS + WORKERS).filter(move |other| *other != node);
                others().map(|other| (node, other)).chain(others().map(|other| (other, node))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, fault: &Fault) {
        match fault {
            Fault::Killed(node) => self.node(*node).kill(),
            Fault::NoMasters => self.cluster.masters.iter_mut().for_each(|master| master.kill()),
            Fault::Stopped(node) => self.node(*node).signal(Signal::STOP),
            Fault::OneWay(..) | Fault::BothWays(..) | Fault::Alone(_) => self.ways(Self::cuts(fault), false),
            Fault::Full => {
                let mut filler = File::create(self.cluster.workers[0].data.join("filler")).unwrap();
                while filler.write_all(&[0; 1 << 16]).is_ok() {}
            }
            Fault::Corrupt(node) => {
                let scratch = self.node(*node).data.join("scratch");
                let mut found = files(&scratch);
                found.retain(|file| file.ends_with("segments"));
                let Some(file) = (!found.is_empty()).then(|| found.swap_remove(self.dice.roll(found.len()))) else {
                    return;
                };
                // It may be gone by now.
                let Ok(file) = File::options().write(true).open(file) else { return };
                let length = file.metadata().map_or(0, |meta| meta.len()) as usize;
                if length > 16 {
                    let _ = file.write_all_at(b"not what was put", self.dice.roll(length - 16) as u64);
                }
            }
            Fault::Point(point) => self.cluster.arm(point, "kill"),
        }
    }

    fn end(&mut self, fault: &Fault) {
        let Self { cluster, .. } = self;
        match fault {
            Fault::Killed(node) => self.revive(*node),
            Fault::NoMasters => (0..MASTERS).for_each(|node| self.revive(node)),
            Fault::Stopped(node) => self.node(*node).signal(Signal::CONT),
            Fault::OneWay(..) | Fault::BothWays(..) | Fault::Alone(_) => self.ways(Self::cuts(fault), true),
            Fault::Full => fs::remove_file(cluster.workers[0].data.join("filler")).unwrap(),
            Fault::Corrupt(_) => {}
            Fault::Point(_) => {
                cluster.disarm();
                (0..MASTERS + WORKERS).for_each(|node| self.revive(node));
            }
        }
    }

    /// Starts a node that died, unless that is for another fault to do.
    fn revive(&mut self, node: usize) {
        let dead = self.active.iter().any(|(_, fault)| match fault {
            Fault::Killed(of) => *of == node,
            Fault::NoMasters => node < MASTERS,
            _ => false,
        });
        let died = !dead && !self.node(node).is_up();
        if died {
            self.node(node).wait();
            let folder = self.cluster.folder.path().to_path_buf();
            self.node(node).spawn(&folder);
        }
    }

    /// One round: something goes wrong, what is due is put right.
    fn round(&mut self) {
        let now = Instant::now();
        let (due, active) = std::mem::take(&mut self.active).into_iter().partition(|(until, _)| *until <= now);
        self.active = active;
        let due: Vec<(Instant, Fault)> = due;
        for (_, fault) in &due {
            self.say(&format!("over: {fault:?}"));
            self.end(fault);
        }
        let fault = self.pick();
        // A lease is ten seconds.
        let seconds = [0.1, 0.5, 1.0, 2.0, 4.0, 13.0][self.dice.roll(6)];
        if self.can(&fault) {
            self.say(&format!("{fault:?} for {seconds} s"));
            self.begin(&fault);
            self.active.push((now + Duration::from_secs_f64(seconds), fault));
        }
    }

    fn heal(&mut self) {
        for (_, fault) in std::mem::take(&mut self.active) {
            self.end(&fault);
        }
        (0..MASTERS + WORKERS).for_each(|node| self.revive(node));
    }
}

/// Jobs one after the other until all is over; gives how many.
fn stream(mut client: Client, folder: &Path, dice: &mut Dice, next: &AtomicUsize, over: &AtomicBool) {
    while !over.load(Relaxed) {
        let (n, what) = (next.fetch_add(1, Relaxed), dice.roll(JOBS.len()));
        let job = client.submit(&format!("{} --map-task-size 1MiB -o out/{n}", JOBS[what]), PATIENCE);
        client.complete(&job, PATIENCE);
        let (got, want) = (folder.join(format!("store/out/{n}")), folder.join(format!("ref/{what}")));
        assert!(parts(&got) == parts(&want), "job {job}: {} has another output than a local run", JOBS[what]);
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A small disk of its own for the first worker, if that is allowed here.
struct Disk(Option<std::path::PathBuf>);

impl Disk {
    fn of(folder: &Folder) -> Self {
        let place = folder.path().join("w1");
        fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&place).output();
        Self(mounted.is_ok_and(|done| done.status.success()).then_some(place))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(place) = &self.0 {
            let _ = Command::new("umount").arg("-l").arg(place).status();
        }
    }
}

#[test]
fn jobs_survive_chaos() {
    let seconds = variable("GRISTMILL_CHAOS_SECONDS").unwrap_or(20);
    let seed = variable("GRISTMILL_CHAOS_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        now.as_secs() % 1_000_000
    });
    eprintln!(
        "to repeat the plan: GRISTMILL_CHAOS_SEED={seed} GRISTMILL_CHAOS_SECONDS={seconds} cargo test --test it jobs_survive_chaos"
    );
    let net = Net::of(MASTERS + WORKERS).inspect_err(|e| eprintln!("nothing can be cut here: {e}")).ok();
    let folder = Folder::new();
    texts(&folder, 60_000);
    let disk = Disk::of(&folder);
    for (n, job) in JOBS.iter().enumerate() {
        run_local(&folder, &format!("run {job} -q -o ../ref/{n}"));
    }
    let path = folder.path().to_path_buf();
    let cluster = Cluster::on(folder, net, MASTERS, WORKERS);
    let watch = Watch::of(path.join("store/out"));
    let (over, next): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
    let (begun, active) = (Instant::now(), Vec::new());
    let mut chaos = Chaos { cluster, dice: Dice(seed), has_disk: disk.0.is_some(), begun, active };
    let streams: Vec<_> = (0..STREAMS)
        .map(|n| {
            let (client, path, over, next) = (chaos.cluster.client(), path.clone(), over.clone(), next.clone());
            let mut dice = Dice(seed ^ (n as u64 + 1) << 32);
            std::thread::spawn(move || stream(client, &path, &mut dice, &next, &over))
        })
        .collect();
    while begun.elapsed() < Duration::from_secs(seconds) && !streams.iter().any(|stream| stream.is_finished()) {
        chaos.round();
        let pause = 200 + chaos.dice.roll(1000) as u64;
        std::thread::sleep(Duration::from_millis(pause));
    }
    over.store(true, Relaxed);
    chaos.heal();
    chaos.say("all is healed");
    let failed = streams.into_iter().filter_map(|stream| stream.join().err()).count();
    assert_eq!(failed, 0, "jobs did not survive; see above");
    // A new leader looks for what zombies left; one that stays does so every ten minutes.
    chaos.cluster.elect_anew();
    chaos.cluster.wait_until_cleared();
    watch.end();
    chaos.say(&format!("{} jobs", next.load(Relaxed)));
    drop(chaos);
    drop(disk);
}
