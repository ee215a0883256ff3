//! What is decided about pools: pods made and let go, whatever became of them, and by two masters that both think they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gristmill_engine::control::master::pool::{Demand, Seated};
use gristmill_engine::control::pools::decide::{Action, Decided, Memory, Standing, View, decide};
use gristmill_engine::control::pools::{Phase, Pod, Pool, Reason, Seat};
use gristmill_proto::internal::v1 as wire;

const IDLE: Duration = Duration::from_secs(60);

fn pool(name: &str, min: u32, max: u32) -> Pool {
    Pool {
        name: name.into(),
        min,
        max,
        idle: IDLE,
        pending: 4,
        start_within: Duration::from_secs(600),
        slots: 2,
        capabilities: Vec::new(),
        generation: 1,
    }
}

fn reason(word: &str) -> Reason {
    Reason { word: word.into(), text: "in short".into() }
}

/// Pods, workers, and a clock.
#[derive(Debug, Default)]
struct World {
    pools: Vec<Pool>,
    decided: Told,
    pods: Vec<Pod>,
    workers: Vec<Seated>,
    waiting: u64,
    requires: Vec<String>,
    drained: BTreeSet<String>,
    now: Duration,
    made: u64,
}

#[derive(Debug, Default)]
struct Told(BTreeMap<String, wire::PoolRecord>);

impl Decided for Told {
    fn of(&self, pool: &str) -> Option<&wire::PoolRecord> {
        self.0.get(pool)
    }
}

impl World {
    fn of(pools: &[Pool]) -> Self {
        Self { pools: pools.to_vec(), ..Self::default() }
    }

    fn look(&self, memory: &mut Memory) -> (Vec<Action>, Vec<Standing>) {
        let app = ("wordcount".to_string(), "b1".to_string());
        let demand = Demand { app, requires: self.requires.clone(), waiting: self.waiting };
        let demand: Vec<Demand> = [demand].into_iter().filter(|demand| demand.waiting > 0).collect();
        let drained = self.drained.iter().map(String::as_str).collect();
        let view = View {
            pools: &self.pools,
            decided: &self.decided,
            pods: &self.pods,
            workers: &self.workers,
            demand: &demand,
            drained: &drained,
            now: self.now,
        };
        decide(view, memory)
    }

    /// As the seam does: a pod that is there already is not made again.
    fn make(&mut self, seat: &Seat) {
        if self.pods.iter().any(|pod| pod.seat.as_ref() == Some(seat)) {
            return;
        }
        self.made += 1;
        self.pods.push(Pod {
            name: format!("g-{}-{}-{}", seat.pool, seat.generation, seat.index),
            uid: format!("u{}", self.made),
            seat: Some(seat.clone()),
            term: 1,
            created_ms: 0,
            phase: Phase::Pending,
            leaving: false,
            reason: None,
        });
    }

    /// Does what was decided, but for what is told to the leader.
    fn carry_out(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Make(seat) => self.make(seat),
                Action::Delete { uid, .. } => self.pods.retain(|pod| pod.uid != *uid),
                Action::Retire { incarnation } => {
                    let worker = self.workers.iter_mut().find(|worker| worker.incarnation == *incarnation);
                    worker.unwrap().draining = true;
                }
                Action::Gone { incarnation, .. } => self.workers.retain(|w| w.incarnation != *incarnation),
                Action::Leaves { .. } => {}
            }
        }
    }

    /// Workers of all pods that wait register.
    fn start_all(&mut self) {
        for pod in self.pods.iter_mut().filter(|pod| pod.phase == Phase::Pending) {
            pod.phase = Phase::Running;
            self.workers.push(Seated {
                incarnation: self.workers.len() as u64 + 100 * self.made,
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                slots: 2,
                busy: 0,
                draining: false,
                idle: Some(Duration::ZERO),
            });
        }
    }

    fn busy(&mut self, busy: u32) {
        for worker in &mut self.workers {
            worker.busy = busy;
            worker.idle = (busy == 0).then_some(IDLE);
        }
    }

    fn settle(&mut self, memory: &mut Memory) {
        for _ in 0..50 {
            let (actions, _) = self.look(memory);
            self.carry_out(&actions);
            self.start_all();
        }
    }
}

fn made(actions: &[Action]) -> Vec<u32> {
    let index = |action: &Action| if let Action::Make(seat) = action { Some(seat.index) } else { None };
    actions.iter().filter_map(index).collect()
}

#[test]
fn pods_come_with_the_work_and_no_more_wait_than_may() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 10)]), Memory::default());
    let (actions, standings) = world.look(&mut memory);
    assert_eq!(made(&actions), [0], "the least number is always there");
    assert_eq!(standings[0].wanted, 1);
    world.carry_out(&actions);
    world.waiting = 13;
    let (actions, standings) = world.look(&mut memory);
    assert_eq!((made(&actions), standings[0].wanted), (vec![1, 2, 3], 7), "one waits, and four may");
    world.carry_out(&actions);
    assert_eq!(world.look(&mut memory).0, []);
    world.start_all();
    world.busy(2);
    world.waiting = 5;
    assert_eq!(made(&world.look(&mut memory).0), [4, 5, 6], "eight slots are busy, five tasks wait");
    world.waiting = 1_000;
    let (actions, standings) = world.look(&mut memory);
    assert_eq!((made(&actions).len(), standings[0].wanted), (4, 10), "not beyond the most");
}

#[test]
fn only_idle_workers_go_and_their_pods_when_they_have_drained() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 10)]), Memory::default());
    world.waiting = 8;
    world.settle(&mut memory);
    assert_eq!(world.workers.len(), 4);
    world.waiting = 0;
    world.busy(1);
    assert_eq!(world.look(&mut memory).0, [], "four tasks run on four workers: none is taken from its work");
    world.busy(0);
    world.workers[2].idle = Some(IDLE / 2);
    let (actions, standings) = world.look(&mut memory);
    assert_eq!(standings[0].wanted, 1);
    let retired: Vec<u64> = actions
        .iter()
        .map(|a| if let Action::Retire { incarnation } = a { *incarnation } else { panic!("{a:?}") })
        .collect();
    let expected: Vec<u64> = [3, 1, 0].map(|n: usize| world.workers[n].incarnation).to_vec();
    assert_eq!(retired, expected, "the newest first, and not the one that has been busy of late");
    world.carry_out(&actions);
    assert_eq!(world.look(&mut memory).0, [], "a pod stays while its worker drains");
    let uid = world.workers[3].uid.clone();
    world.drained.insert(uid.clone());
    world.workers.remove(3);
    let (actions, _) = world.look(&mut memory);
    assert!(matches!(&actions[..], [Action::Delete { uid: gone, failed: false, .. }] if *gone == uid), "{actions:?}");
}

#[test]
fn what_is_gone_is_replaced_and_why_is_told() {
    let (mut world, mut memory) = (World::of(&[pool("a", 2, 10)]), Memory::default());
    world.settle(&mut memory);
    world.now = Duration::from_secs(100);
    world.look(&mut memory);
    let (first, second) = (world.pods[0].uid.clone(), world.workers[1].incarnation);
    world.pods[0].phase = Phase::Ended;
    world.pods[0].reason = Some(reason("OOMKilled"));
    world.pods[1].leaving = true;
    world.pods[1].reason = Some(reason("PreemptionByScheduler"));
    let (actions, _) = world.look(&mut memory);
    let gone = actions.iter().find(|a| matches!(a, Action::Gone { why, .. } if why.word == "OOMKilled"));
    assert!(gone.is_some(), "{actions:?}");
    assert!(actions.contains(&Action::Leaves { incarnation: second, why: reason("PreemptionByScheduler") }));
    assert!(actions.iter().any(|a| matches!(a, Action::Delete { uid, failed: true, .. } if *uid == first)));
    assert_eq!(made(&actions), [2, 3], "both at once, at seats that are not taken");
}

#[test]
fn a_pool_whose_pods_come_to_nothing_waits_longer_each_time() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 10)]), Memory::default());
    let mut times = Vec::new();
    for second in 0..200 {
        world.now = Duration::from_secs(second);
        let (actions, standings) = world.look(&mut memory);
        if !made(&actions).is_empty() {
            times.push(second);
        }
        world.carry_out(&actions);
        for pod in &mut world.pods {
            pod.phase = Phase::Ended;
            pod.reason = Some(reason("Error"));
        }
        if second > 1 {
            assert!(standings[0].notices[0].contains("Error: in short"), "{standings:?}");
        }
    }
    assert_eq!(times, [0, 6, 17, 38, 79, 160]);
}

#[test]
fn a_pod_that_does_not_begin_is_told_of_and_given_up_in_time() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 10)]), Memory::default());
    let (actions, _) = world.look(&mut memory);
    world.carry_out(&actions);
    world.pods[0].reason = Some(reason("ImagePullBackOff"));
    let (_, standings) = world.look(&mut memory);
    assert_eq!(standings[0].notices, ["pool a: a pod waits: ImagePullBackOff: in short"]);
    world.now = Duration::from_secs(600);
    let (actions, standings) = world.look(&mut memory);
    assert!(
        matches!(&actions[0], Action::Delete { failed: true, why, .. } if why.contains("no worker came of it in 600 s: ImagePullBackOff")),
        "{actions:?}"
    );
    assert!(standings[0].notices[0].contains("ImagePullBackOff"), "{standings:?}");
    assert_eq!(made(&actions), [] as [u32; 0], "not at once again");
    // Its own words say more, those of the first that failed.
    memory.said("a", "--memory is no size");
    memory.said("a", "something else");
    memory.said("b", "nobody");
    let notice = world.look(&mut memory).1.remove(0).notices.remove(0);
    assert!(notice.contains("; it said last: --memory is no size; the next one in 5 s"), "{notice}");
}

#[test]
fn jobs_go_to_pools_that_can_do_them_and_no_more_than_that() {
    let gpu = Pool { capabilities: vec!["gpu".into()], ..pool("g", 0, 3) };
    let (mut world, mut memory) = (World::of(&[gpu, pool("z", 0, 4)]), Memory::default());
    world.waiting = 6;
    let wanted = |world: &World, memory: &mut Memory| -> Vec<u32> {
        world.look(memory).1.iter().map(|standing| standing.wanted).collect()
    };
    assert_eq!(wanted(&world, &mut memory), [0, 3], "what needs nothing leaves those alone that have something");
    world.waiting = 12;
    assert_eq!(wanted(&world, &mut memory), [2, 4], "until there is no more room");
    world.requires = vec!["gpu".into()];
    assert_eq!(wanted(&world, &mut memory), [3, 0]);
    world.requires = vec!["tpu".into()];
    assert_eq!(wanted(&world, &mut memory), [0, 0]);
    // What its workers were seen to offer counts.
    world.requires.clear();
    let apps = vec![wire::AppOffer { name: "other".into(), build: "b1".into() }];
    world.decided.0.insert("z".into(), wire::PoolRecord { name: "z".into(), apps, ..Default::default() });
    assert_eq!(wanted(&world, &mut memory), [3, 0]);
}

#[test]
fn what_was_decided_holds_in_place_of_the_file() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 10)]), Memory::default());
    let record = wire::PoolRecord { name: "a".into(), min: Some(12), idle_ms: Some(1000), ..Default::default() };
    world.decided.0.insert("a".into(), record);
    let standing = world.look(&mut memory).1.remove(0);
    assert_eq!((standing.min, standing.max, standing.wanted, standing.decided), (12, 12, 12, true));
    assert_eq!(standing.idle, Duration::from_secs(1));
    // A lower most lets workers finish first.
    world.settle(&mut memory);
    world.busy(2);
    world.waiting = 50;
    let record = wire::PoolRecord { name: "a".into(), min: Some(0), max: Some(10), ..Default::default() };
    world.decided.0.insert("a".into(), record);
    let (actions, _) = world.look(&mut memory);
    let retired = actions.iter().filter(|a| matches!(a, Action::Retire { .. })).count();
    assert_eq!((retired, actions.len()), (2, 2), "{actions:?}");
}

#[test]
fn pods_of_an_older_file_are_replaced_one_after_the_other_when_they_are_idle() {
    let (mut world, mut memory) = (World::of(&[pool("a", 3, 3)]), Memory::default());
    world.settle(&mut memory);
    world.busy(2);
    world.waiting = 50;
    world.pools[0].generation = 2;
    let old = |world: &World| {
        world.pods.iter().filter(|pod| pod.seat.as_ref().is_some_and(|seat| seat.generation == 1)).count()
    };
    let round = |world: &mut World, memory: &mut Memory| {
        let (actions, _) = world.look(memory);
        world.carry_out(&actions);
        let here = (world.pods.len(), world.workers.iter().filter(|worker| !worker.draining).count());
        world.start_all();
        // Those that drain do so.
        let drains: Vec<String> = world.workers.iter().filter(|w| w.draining).map(|w| w.uid.clone()).collect();
        world.workers.retain(|worker| !worker.draining);
        world.drained.extend(drains);
        here
    };
    // Jobs that were begun with the old one may have nobody else.
    for _ in 0..20 {
        round(&mut world, &mut memory);
        world.busy(2);
    }
    assert_eq!((old(&world), world.pods.len()), (3, 4), "none is taken from its work, one is ready to take over");
    world.waiting = 0;
    let (mut most, mut least) = (0, usize::MAX);
    for _ in 0..50 {
        world.busy(0);
        let (pods, workers) = round(&mut world, &mut memory);
        (most, least) = (most.max(pods), least.min(workers));
    }
    assert_eq!((old(&world), world.pods.len(), least), (0, 3, 3), "there is always enough");
    assert!(most <= 5, "{most}");
}

#[test]
fn a_new_file_whose_pods_do_not_start_costs_no_worker_of_the_old_one() {
    let (mut world, mut memory) = (World::of(&[pool("a", 10, 10)]), Memory::default());
    world.settle(&mut memory);
    world.pools[0].generation = 2;
    for second in 0..300 {
        world.now = Duration::from_secs(second);
        world.busy(0);
        let (actions, _) = world.look(&mut memory);
        world.carry_out(&actions);
    }
    // Its image is missing, and it is older than idle workers may be.
    assert_eq!((world.workers.len(), world.pods.len()), (10, 11));
    assert!(world.workers.iter().all(|worker| !worker.draining), "{:?}", world.workers);
}

#[test]
fn a_refusal_makes_a_pool_wait_whose_workers_are_well() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 10)]), Memory::default());
    world.settle(&mut memory);
    world.now = Duration::from_secs(3600);
    world.look(&mut memory);
    world.busy(2);
    world.waiting = 50;
    let mut times = Vec::new();
    for second in 3600..3800 {
        world.now = Duration::from_secs(second);
        let (actions, standings) = world.look(&mut memory);
        if !made(&actions).is_empty() {
            times.push(second - 3600);
            memory.failed("a", reason("QuotaExceeded"), world.now, None);
        } else {
            assert!(standings[0].notices[0].contains("QuotaExceeded"), "{standings:?}");
        }
    }
    assert_eq!(times, [0, 5, 15, 35, 75, 155]);
    // Once one is made and stays, all is well.
    world.now = Duration::from_secs(4000);
    let (actions, _) = world.look(&mut memory);
    world.carry_out(&actions);
    world.start_all();
    world.look(&mut memory);
    world.now += Duration::from_secs(31);
    assert_eq!(world.look(&mut memory).1[0].notices, [] as [&str; 0]);
}

#[test]
fn a_worker_that_is_cut_off_for_a_while_keeps_its_pod() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 1)]), Memory::default());
    world.settle(&mut memory);
    world.now = Duration::from_secs(3600);
    world.look(&mut memory);
    world.workers.clear();
    for second in [3601, 3900, 4199] {
        world.now = Duration::from_secs(second);
        assert_eq!(world.look(&mut memory).0, [], "after {second} s");
    }
    world.now = Duration::from_secs(4200);
    let (actions, _) = world.look(&mut memory);
    assert!(
        matches!(&actions[0], Action::Delete { why, unused: true, .. } if why.contains("has not been heard of for 600 s")),
        "{actions:?}"
    );
}

#[test]
fn what_is_learned_of_a_pool_leaves_what_was_decided() {
    let mut cluster = crate::world::World::new(0, 1);
    let learn = |apps: &[&str], generation| {
        let apps = apps.iter().map(|name| wire::AppOffer { name: name.to_string(), build: "b".into() }).collect();
        wire::command::Action::LearnPool(wire::PoolRecord { name: "a".into(), apps, generation, ..Default::default() })
    };
    let set = |min| wire::command::Action::SetPool(wire::SetPool { name: "a".into(), min, ..Default::default() });
    let none = cluster.commit("ann", set(Some(1)));
    assert!(
        matches!(&none, wire::reply::Outcome::Refused(no) if no.message.contains("no pool is called a")),
        "{none:?}"
    );
    cluster.commit("", learn(&["x"], 1));
    cluster.commit("ann", set(Some(3)));
    cluster.commit("", learn(&["x", "y"], 2));
    let known = cluster.state().pool("a").unwrap();
    assert_eq!((known.min, known.apps.len(), known.generation), (Some(3), 2, 2));
}

#[test]
fn a_pod_that_cannot_be_deleted_is_not_deleted_all_the_time() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 1)]), Memory::default());
    world.settle(&mut memory);
    world.pods[0].phase = Phase::Ended;
    let mut times = Vec::new();
    for second in 0..100 {
        world.now = Duration::from_secs(second);
        let (actions, _) = world.look(&mut memory);
        for action in actions {
            if let Action::Delete { failed, .. } = action {
                times.push((second, failed));
            }
        }
    }
    assert_eq!(times, [(0, true), (5, false), (15, false), (35, false), (75, false)], "and is told of once");
}

#[test]
fn pods_of_no_pool_go_and_their_workers_drain_first() {
    let (mut world, mut memory) = (World::of(&[pool("a", 1, 3)]), Memory::default());
    world.settle(&mut memory);
    world.pools.clear();
    let (actions, _) = world.look(&mut memory);
    assert!(matches!(&actions[..], [Action::Retire { .. }]), "{actions:?}");
    world.workers.clear();
    world.pods[0].seat = None;
    let (actions, _) = world.look(&mut memory);
    assert!(matches!(&actions[..], [Action::Delete { failed: false, .. }]), "{actions:?}");
}

/// Both look at the same pods, each as it was a moment ago, and both act.
#[test]
fn two_masters_make_no_more_than_one_would() {
    let mut world = World::of(&[pool("a", 1, 10)]);
    world.waiting = 9;
    let (mut one, mut other) = (Memory::default(), Memory::default());
    for _ in 0..20 {
        let (of_one, of_other) = (world.look(&mut one).0, world.look(&mut other).0);
        world.carry_out(&of_one);
        world.carry_out(&of_other);
        let seats: BTreeSet<&Seat> = world.pods.iter().filter_map(|pod| pod.seat.as_ref()).collect();
        assert_eq!(seats.len(), world.pods.len(), "no seat is taken twice");
        assert!(world.pods.len() <= 5, "{:?}", world.pods);
        world.start_all();
    }
    assert_eq!(world.pods.len(), 5);
}

#[test]
fn work_that_went_away_lets_pods_go_that_never_began() {
    let (mut world, mut memory) = (World::of(&[pool("a", 0, 10)]), Memory::default());
    world.waiting = 8;
    let (actions, _) = world.look(&mut memory);
    world.carry_out(&actions);
    assert_eq!(world.pods.len(), 4);
    world.waiting = 0;
    assert_eq!(world.look(&mut memory).0, [], "they may be needed in a moment");
    world.now = IDLE;
    let (actions, _) = world.look(&mut memory);
    assert_eq!(actions.len(), 4);
    world.carry_out(&actions);
    assert!(world.pods.is_empty());
}
