//! The runtime by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use openraft_rt::testing::Suite;
use proptest::prelude::*;

use super::executor::{is_alive, kill, pause, resume, revive, set_drift};
use super::*;

type Rt = SimRuntime;

const ONE: NodeId = NodeId(1);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn it_is_a_runtime_as_openraft_wants_it() {
    Suite::<Rt>::test_all();
}

/// Ten tasks that sleep, draw and count. Gives the trace's hash and the sum.
fn busy(seed: u64) -> (u64, u64) {
    let simulation = Simulation::new(seed);
    let sum = Arc::new(AtomicU64::new(0));
    simulation.block_on(async {
        let counts = |n: u64| {
            let sum = sum.clone();
            Rt::spawn(async move {
                for _ in 0..20 {
                    let drawn = rand::Rng::next_u64(&mut Rt::thread_rng());
                    Rt::sleep(Duration::from_micros(drawn % 100)).await;
                    sum.fetch_update(SeqCst, SeqCst, |sum| Some(sum.wrapping_mul(31) ^ n)).unwrap();
                }
            })
        };
        for handle in (0..10).map(counts).collect::<Vec<_>>() {
            handle.await.unwrap();
        }
    });
    (simulation.ended().hash, sum.load(SeqCst))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn one_seed_has_one_trace(seed: u64) {
        prop_assert_eq!(busy(seed), busy(seed));
        prop_assert_ne!(busy(seed).1, busy(seed ^ 1).1, "the order of tasks follows from the seed");
    }
}

/// A node that counts its milliseconds.
fn counter(simulation: &Simulation) -> Arc<AtomicU64> {
    let ticks = Arc::new(AtomicU64::new(0));
    simulation.block_on(async {
        revive(ONE);
        let ticks = ticks.clone();
        drop(spawn_on(ONE, async move {
            loop {
                Rt::sleep(ms(1)).await;
                ticks.fetch_add(1, SeqCst);
            }
        }));
    });
    ticks
}

#[test]
fn a_node_that_is_killed_does_nothing_more() {
    let simulation = Simulation::new(1);
    let ticks = counter(&simulation);
    simulation.block_on(async {
        Rt::sleep(Duration::from_micros(10_500)).await;
        kill(ONE);
        assert!(!is_alive(ONE));
        Rt::sleep(ms(10)).await;
        let late = spawn_on(ONE, async { unreachable!("it is dead") });
        assert!(matches!(late.await, Err(JoinError::Gone)));
    });
    assert_eq!(ticks.load(SeqCst), 10);
}

#[test]
fn a_node_that_kills_itself_goes_no_further_and_nobody_takes_it_for_a_panic() {
    let simulation = Simulation::new(1);
    let after = Arc::new(AtomicU64::new(0));
    let reached = after.clone();
    simulation.block_on(async {
        revive(ONE);
        let task = spawn_on(ONE, async move {
            kill(here());
            reached.fetch_add(1, SeqCst);
        });
        assert!(matches!(task.await, Err(JoinError::Gone)));
    });
    assert_eq!(after.load(SeqCst), 0);
    assert!(simulation.ended().panics.is_empty());
}

#[test]
fn a_paused_node_stands_still_while_time_goes_on() {
    let simulation = Simulation::new(1);
    let ticks = counter(&simulation);
    simulation.block_on(async {
        Rt::sleep(Duration::from_micros(10_500)).await;
        pause(ONE);
        Rt::sleep(ms(100)).await;
        assert_eq!(ticks.load(SeqCst), 10);
        resume(ONE);
        Rt::sleep(Duration::from_micros(5_200)).await;
    });
    // One sleep was over long ago.
    assert_eq!(ticks.load(SeqCst), 10 + 1 + 5);
}

#[test]
fn clocks_drift() {
    let simulation = Simulation::new(1);
    let ticks = counter(&simulation);
    simulation.block_on(async {
        // Twice as fast.
        set_drift(ONE, 1_000_000);
        Rt::sleep(ms(10)).await;
        assert!((19..=20).contains(&ticks.load(SeqCst)), "{ticks:?}");
        // Half as fast.
        set_drift(ONE, -500_000);
        Rt::sleep(ms(10)).await;
    });
    assert!((24..=25).contains(&ticks.load(SeqCst)), "{ticks:?}");
}

#[test]
fn a_panic_is_the_tasks_result_and_known_as_the_nodes() {
    let simulation = Simulation::new(1);
    simulation.block_on(async {
        revive(ONE);
        let task = spawn_on(ONE, async { panic!("on purpose") });
        assert!(Rt::is_panic(&task.await.unwrap_err()));
    });
    assert_eq!(simulation.ended().panics, [(ONE, "on purpose".to_string())]);
}

#[test]
#[should_panic(expected = "all wait for each other")]
fn a_deadlock_is_found() {
    Simulation::new(1).block_on(std::future::pending::<()>());
}
