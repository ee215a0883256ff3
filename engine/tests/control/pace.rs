//! When what is done: second attempts at tasks that take long, workers that fail and are tried less, batches that are spaced.

use std::time::Duration;

use gristmill_engine::control::ids::Stage;
use gristmill_proto::internal::v1::failure::Cause;
use gristmill_proto::v1::JobState;

use super::rules::{fail, finish_all, pass, settle, started, tasks};
use super::world::World;

/// A job of four maps of which one takes much longer than the others, and that one.
fn straggling(flags: &str) -> (World, u64, u32) {
    let (mut world, job) = started(2, 2, flags);
    let slow = world.workers[1].tasks.values().next().unwrap().task.partition;
    pass(&mut world, 100, &[0, 1]);
    finish_all(&mut world, 0);
    world.finish(1, 1);
    world.step(1);
    settle(&mut world);
    assert_eq!(world.task(job, Stage::Map, slow).len(), 1);
    pass(&mut world, 600, &[0, 1]);
    (world, job, slow)
}

#[test]
fn all_tasks_of_a_slow_worker_get_second_attempts_at_once() {
    let (mut world, job) = started(3, 2, "maps=6 parts=1");
    let slow: Vec<u32> = tasks(&world, 1).into_iter().map(|(_, map)| map).collect();
    pass(&mut world, 100, &[0, 1, 2]);
    [0, 2].into_iter().for_each(|worker| finish_all(&mut world, worker));
    settle(&mut world);
    pass(&mut world, 1000, &[0, 1, 2]);
    let attempts: Vec<usize> = slow.iter().map(|map| world.task(job, Stage::Map, *map).len()).collect();
    assert_eq!(attempts, [2, 2]);
}

#[test]
fn a_job_without_backups_waits_for_its_stragglers() {
    let (world, job, slow) = straggling("maps=4 parts=1 no-backups");
    assert_eq!(world.task(job, Stage::Map, slow).len(), 1);
}

#[test]
fn a_straggler_gets_a_second_attempt_elsewhere_and_the_first_end_counts() {
    let (mut world, job, slow) = straggling("maps=4 parts=1");
    let attempts = world.task(job, Stage::Map, slow);
    assert_eq!(attempts.len(), 2, "it takes much longer than others");
    assert_ne!(attempts[0].1, attempts[1].1);
    finish_all(&mut world, 0);
    world.step(1);
    assert!(!tasks(&world, 1).contains(&(Stage::Map, slow)), "the other one is cancelled");
    assert_eq!(world.state().job(job).unwrap().maps_missing(), 0);
}

/// Found by the simulator: a disk that was full for seconds cost a job its 64 failures.
#[test]
fn a_lone_worker_with_a_full_disk_is_tried_less_and_less() {
    let (mut world, job) = started(1, 1, "maps=1 parts=1");
    let mut failures = 0;
    for _ in 0..1200 {
        pass(&mut world, 50, &[0]);
        if !world.workers[0].tasks.is_empty() {
            fail(&mut world, 0, Cause::Worker);
            failures += 1;
        }
    }
    assert!((5..25).contains(&failures), "{failures} in a minute");
    assert_eq!(world.state_of(job), JobState::Mapping);
    world.heal();
    assert_eq!(world.state().archived(job).map(|row| row.state()), Some(JobState::Completed));
}

#[test]
fn batches_that_follow_each_other_closely_are_spaced() {
    let (mut world, _) = started(1, 1, "maps=40 parts=1");
    let batch = |world: &mut World| {
        world.finish(0, 0);
        world.step(0);
        let pause = world.pause;
        world.now += pause.max(Duration::from_millis(1));
        settle(world);
        world.step(0);
        pause
    };
    let pauses: Vec<Duration> = (0..25).map(|_| batch(&mut world)).collect();
    assert_eq!(pauses[..5], [Duration::ZERO; 5], "a small job waits for nothing: {pauses:?}");
    let ms = Duration::from_millis;
    assert!(pauses[12..].iter().all(|pause| (ms(10)..=ms(20)).contains(pause)), "at a steady rate: {pauses:?}");
    world.now += Duration::from_secs(1);
    assert_eq!(batch(&mut world), Duration::ZERO, "after a quiet second");
}
