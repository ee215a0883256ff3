//! What is done to a cluster, as data: how large it is, what its users want, and a list of faults with their times. A plan
//! is made by proptest, so that one that fails can be made smaller, and is kept as JSON, so that it can be run again.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each plan has a random subset of the kinds of faults, because some hide what
//! others would show.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde::{Deserialize, Serialize};

use crate::net::Weather;
use crate::points::{ENTRIES_TAKEN, SUBMITTING, VOTE_GRANTED};
use crate::random::{Stream, stream};
use crate::store::StoreWeather;

/// Who something happens to: masters, then workers, by number. One that the cluster does not have stands for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// A master.
    M(u8),
    /// A worker.
    W(u8),
    /// Whoever leads when it happens.
    Leader,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Death {
    /// The process alone: its machine keeps what was written.
    Process,
    /// The machine loses power: what was not made durable may be lost.
    Power,
}

/// What is wrong with a master's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFault {
    /// Nothing can be written.
    Full,
    /// Making something durable fails.
    Broken,
    /// Making something durable takes up to so many milliseconds.
    Slow(u16),
    /// A bit is another, found out at the next start.
    Rot,
    /// The database is as it was so many barriers ago, at the next start.
    RolledBack(u8),
    /// A value lies where another one belongs, at the next start.
    Misdirected,
}

/// Something that goes wrong. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A process ends, and another one is started `down` later.
    Kill {
        /// Whose.
        who: Who,
        /// How.
        death: Death,
        /// For how long.
        down: u32,
    },
    /// All masters end at once.
    KillMasters {
        /// How.
        death: Death,
        /// For how long.
        down: u32,
    },
    /// Every second worker ends at once.
    KillRack {
        /// The first one does not.
        odd: bool,
        /// For how long.
        down: u32,
    },
    /// The next node to be at a point of its work so many times dies there.
    Point {
        /// The point's name, as `publish-copy`.
        point: String,
        /// After so many others passed by.
        after: u8,
    },
    /// A process stands still and then goes on as if nothing had been.
    Pause {
        /// Whose.
        who: Who,
        /// For how long.
        time: u32,
    },
    /// Nothing gets from one node to another, in one direction or both.
    Cut {
        /// From.
        from: Who,
        /// To.
        to: Who,
        /// Nor back.
        both: bool,
        /// For how long.
        time: u32,
    },
    /// A node reaches nobody, or nobody reaches it, or both.
    Isolate {
        /// Which.
        who: Who,
        /// What it sends is lost.
        out: bool,
        /// What is sent to it is lost.
        into: bool,
        /// For how long.
        time: u32,
    },
    /// The network is worse.
    Weather {
        /// How bad.
        weather: Weather,
        /// For how long.
        time: u32,
    },
    /// The store is worse.
    Store {
        /// How bad.
        weather: StoreWeather,
        /// For how long.
        time: u32,
    },
    /// A clock runs faster than true time by so many millionths.
    Drift {
        /// Whose.
        who: Who,
        /// By how much.
        millionths: i32,
    },
    /// A clock of the day jumps.
    WallStep {
        /// Whose.
        who: Who,
        /// By how many milliseconds.
        by: i32,
    },
    /// A master's disk.
    Disk {
        /// Whose: a master's number.
        master: u8,
        /// What is wrong with it.
        fault: DiskFault,
        /// For how long.
        time: u32,
    },
    /// A master or worker comes back with an empty disk.
    Wipe {
        /// Whose.
        who: Who,
        /// After how long.
        down: u32,
    },
    /// Nothing can be written to a worker's scratch.
    ScratchFull {
        /// A worker's number.
        worker: u8,
        /// For how long.
        time: u32,
    },
    /// The leader is asked to let another one lead.
    Transfer,
    /// A worker is told to finish and to end; once it has, another process takes its place.
    Drain {
        /// A worker's number.
        worker: u8,
    },
}

/// A fault and when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Milliseconds after the cluster was ready.
    pub at: u32,
    /// What.
    pub fault: Fault,
}

/// One run, but for the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// 1, 3 or 5.
    pub masters: u8,
    /// At least one.
    pub workers: u8,
    /// Of each worker.
    pub slots: u8,
    /// Kibibytes of input that a slot works on in a second.
    #[serde(default = "fast")]
    pub speed: u32,
    /// Entries that the masters' log has when all begins: the cluster is not new.
    #[serde(default)]
    pub age: u16,
    /// Whether outputs are published by copies, as in an object store, and not by renaming.
    pub copies: bool,
    /// Users, each of whom submits one job after the other.
    pub users: u8,
    /// Jobs of each.
    pub jobs: u8,
    /// Milliseconds in which faults happen.
    pub time: u32,
    /// What happens.
    pub faults: Vec<Timed>,
}

/// Of plans that do not say.
fn fast() -> u32 {
    100_000
}

/// No clock is faster or slower than true time by more millionths than these.
pub(crate) const DRIFT: i32 = 100_000;

/// How many kinds of faults there are, for [`fault`].
const KINDS: usize = 17;

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![3 => (0..3_u8).prop_map(Who::M), 4 => (0..8_u8).prop_map(Who::W), 2 => Just(Who::Leader)]
}

fn death() -> impl Strategy<Value = Death> {
    prop_oneof![Just(Death::Process), Just(Death::Power)]
}

/// From a moment to longer than a lease.
fn time() -> impl Strategy<Value = u32> {
    prop_oneof![1..50_u32, 50..500_u32, 500..2_000_u32, 2_000..6_000_u32]
}

fn weather() -> impl Strategy<Value = Weather> {
    let latency = prop_oneof![Just((50, 500)), Just((1_000, 20_000)), Just((50, 60_000))];
    (latency, 0..100_u32, 0..500_u32, 0..100_u32, 0..100_u32).prop_map(
        |(latency_us, spikes, spike_ms, lost, doubled)| Weather { latency_us, spikes, spike_ms, lost, doubled },
    )
}

fn store_weather() -> impl Strategy<Value = StoreWeather> {
    let latency = prop_oneof![Just((200, 2_000)), Just((5_000, 200_000))];
    (latency, 0..200_u32, 0..200_u32, 0..100_u32, 0..8_000_u32).prop_map(
        |(latency_us, failed, unanswered, late, late_ms)| StoreWeather {
            latency_us,
            failed,
            unanswered,
            late,
            late_ms,
        },
    )
}

fn disk_fault() -> impl Strategy<Value = DiskFault> {
    prop_oneof![
        Just(DiskFault::Full),
        Just(DiskFault::Broken),
        (1..500_u16).prop_map(DiskFault::Slow),
        Just(DiskFault::Rot),
        (1..20_u8).prop_map(DiskFault::RolledBack),
        Just(DiskFault::Misdirected),
    ]
}

/// A fault of one kind.
fn fault(kind: usize) -> BoxedStrategy<Fault> {
    use gristmill_engine::node::point::Point;
    match kind {
        0 => (who(), death(), time()).prop_map(|(who, death, down)| Fault::Kill { who, death, down }).boxed(),
        1 => (death(), time()).prop_map(|(death, down)| Fault::KillMasters { death, down }).boxed(),
        2 => (0..Point::ALL.len(), 0..6_u8)
            .prop_map(|(point, after)| Fault::Point { point: Point::ALL[point].name().into(), after })
            .boxed(),
        3 => (who(), time()).prop_map(|(who, time)| Fault::Pause { who, time }).boxed(),
        4 => (who(), who(), any::<bool>(), time())
            .prop_map(|(from, to, both, time)| Fault::Cut { from, to, both, time })
            .boxed(),
        5 => (who(), 0..3_u8, time())
            .prop_map(|(who, way, time)| Fault::Isolate { who, out: way != 0, into: way != 1, time })
            .boxed(),
        6 => (weather(), time()).prop_map(|(weather, time)| Fault::Weather { weather, time }).boxed(),
        7 => (store_weather(), time()).prop_map(|(weather, time)| Fault::Store { weather, time }).boxed(),
        8 => (who(), -DRIFT..DRIFT).prop_map(|(who, millionths)| Fault::Drift { who, millionths }).boxed(),
        9 => (who(), -100_000_000..100_000_000).prop_map(|(who, by)| Fault::WallStep { who, by }).boxed(),
        10 => (0..3_u8, disk_fault(), time())
            .prop_map(|(master, fault, time)| Fault::Disk { master, fault, time })
            .boxed(),
        11 => (who(), time()).prop_map(|(who, down)| Fault::Wipe { who, down }).boxed(),
        12 => (0..8_u8, time()).prop_map(|(worker, time)| Fault::ScratchFull { worker, time }).boxed(),
        13 => Just(Fault::Transfer).boxed(),
        14 => (0..8_u8).prop_map(|worker| Fault::Drain { worker }).boxed(),
        15 => (any::<bool>(), time()).prop_map(|(odd, down)| Fault::KillRack { odd, down }).boxed(),
        _ => (prop_oneof![Just(VOTE_GRANTED), Just(ENTRIES_TAKEN), Just(SUBMITTING)], 0..8_u8)
            .prop_map(|(point, after)| Fault::Point { point: point.into(), after })
            .boxed(),
    }
}

/// Plans in which only these kinds of faults happen, by bits; of `large` ones, see [`tree`].
fn plans(kinds: u32, large: bool) -> BoxedStrategy<Plan> {
    if large {
        let large = |plan| Plan { masters: 3, workers: 8, ..plan };
        return plans_of(kinds, 20_000).prop_map(large).boxed();
    }
    prop_oneof![3 => plans_of(kinds, 10_000), 1 => plans_of(kinds, 20_000)].boxed()
}

fn plans_of(kinds: u32, time: u32) -> impl Strategy<Value = Plan> {
    let of: Vec<BoxedStrategy<Fault>> = (0..KINDS).filter(|kind| kinds >> kind & 1 == 1).map(fault).collect();
    let faults = match of.is_empty() {
        true => Just(Vec::new()).boxed(),
        false => {
            let timed = (0..time, proptest::strategy::Union::new(of)).prop_map(|(at, fault)| Timed { at, fault });
            prop::collection::vec(timed, 0..time as usize / 700).boxed()
        }
    };
    let masters = prop_oneof![1 => Just(1_u8), 6 => Just(3), 1 => Just(5)];
    // Of a fast cluster faults mostly meet nothing; a slow one is busy most of the time.
    let speed = prop_oneof![3 => Just(200_u32), 1 => Just(2_000), 1 => Just(100_000)];
    // Around the first index that needs a second byte.
    let age = prop_oneof![7 => Just(0_u16), 1 => 200..256_u16];
    let cluster = (masters, 1..8_u8, 1..3_u8, speed, age, any::<bool>());
    (cluster, 1..4_u8, 1..4_u8, faults).prop_map(move |(cluster, users, jobs, mut faults)| {
        let (masters, workers, slots, speed, age, copies) = cluster;
        faults.sort_by_key(|timed| timed.at);
        Plan { masters, workers, slots, speed, age, copies, users, jobs, time, faults }
    })
}

/// The tree of smaller plans below the one that a seed stands for. With `swarm`, it is of about a third of all kinds of
/// faults; if `large`, of three masters and eight workers, for 20 seconds.
pub fn tree(seed: u64, swarm: bool, large: bool) -> Box<dyn ValueTree<Value = Plan>> {
    let mut random = stream(seed, Stream::Plan, 0);
    let mut has = || !swarm || random.next_u32().is_multiple_of(3);
    let kinds = (0..KINDS).fold(0, |kinds, kind| kinds | u32::from(has()) << kind);
    let bytes: Vec<u8> = (0..4).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    plans(kinds, large).new_tree(&mut runner).expect("a plan needs no luck")
}
