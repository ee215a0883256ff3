//! What the leader does, rule by rule.

use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::control::ids::{AttemptId, Stage};
use gristmill_engine::control::job::JobState;
use gristmill_engine::control::master::pool::News;
use gristmill_engine::control::master::{Effect, Input, Master, Now, Proposed};
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::job_error::Reason;
use wire::command::Action;
use wire::failure::Cause;

use super::world::{World, config, spec};

/// Proposals and errands are done at once, workers neither poll nor work.
pub fn settle(world: &mut World) {
    while !world.proposals.is_empty() || world.errands.iter().any(|e| !matches!(e, Effect::Sweep { .. })) {
        (0..world.errands.len()).for_each(|_| world.errand(0, false));
        while !world.proposals.is_empty() {
            world.propose(Proposed::Applied, true);
        }
    }
}

/// A world in which a job is planned and workers poll.
pub fn started(workers: usize, slots: u32, flags: &str) -> (World, u64) {
    let mut world = World::new(workers, slots);
    (0..workers).for_each(|worker| world.step(worker));
    let job = world.job("out", flags);
    settle(&mut world);
    (world, job)
}

pub fn tasks(world: &World, worker: usize) -> Vec<(Stage, u32)> {
    world.workers[worker].tasks.values().map(|r| (r.task.stage(), r.task.partition)).collect()
}

pub fn finish_all(world: &mut World, worker: usize) {
    for nth in (0..world.workers[worker].tasks.len()).rev() {
        world.finish(worker, nth);
    }
    world.step(worker);
    settle(world);
}

pub fn fail(world: &mut World, worker: usize, cause: Cause) {
    let attempt = *world.workers[worker].tasks.keys().next().unwrap();
    world.workers[worker].fail(attempt, wire::Failure { cause: cause.into(), ..Default::default() });
    world.step(worker);
    settle(world);
}

/// So much time, tick by tick; workers of these numbers are heard.
pub fn pass(world: &mut World, ms: u64, heard: &[usize]) {
    for _ in 0..ms / 50 {
        world.tick(50);
        heard
            .iter()
            .filter(|w| !world.workers[**w].waits)
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|w| world.step(w));
        settle(world);
    }
}

#[test]
fn a_waiting_poll_is_answered_as_soon_as_there_is_work() {
    let (world, job) = started(2, 2, "maps=3 parts=1");
    // No tick has come. Workers take in turn.
    assert_eq!((world.workers[0].tasks.len(), world.workers[1].tasks.len()), (2, 1));
    assert_eq!(world.state_of(job), JobState::Mapping);
    let assignment = &world.workers[0].tasks.values().next().unwrap().assignment;
    assert_eq!((assignment.maps, assignment.reduces), (3, 1));
    assert_eq!(assignment.job_name, format!("0000000000c0ffee-{job}"));
}

#[test]
fn a_poll_is_answered_in_time_with_nothing_and_old_ones_at_once() {
    let mut world = World::new(1, 1);
    world.step(0);
    assert!(world.workers[0].waits);
    world.tick(150);
    assert!(world.workers[0].waits);
    world.tick(50);
    assert!(!world.workers[0].waits);
    let now = Now { mono: world.now, wall_ms: 0 };
    let incarnation = world.workers[0].incarnation.unwrap();
    let mut old = world.workers[0].poll(incarnation);
    old.sequence = 1;
    let effects = world.master.handle(now, Input::Poll(old));
    assert!(matches!(&effects[..], [Effect::Answer { answer, .. }] if answer.sequence == 1), "{effects:?}");
}

#[test]
fn users_share_evenly_and_priorities_hold_within() {
    let mut world = World::new(1, 4);
    let ann = world.accepted("ann", "1", spec("a", "maps=9 parts=1"));
    let low = world.accepted("bob", "2", spec("b", "maps=9 parts=1"));
    let mut high = spec("c", "maps=1 parts=1");
    high.priority = 1;
    let high = world.accepted("bob", "3", high);
    settle(&mut world);
    world.step(0);
    let jobs: Vec<u64> = world.workers[0].tasks.values().map(|r| r.task.job).collect();
    let of = |job: u64| jobs.iter().filter(|of| **of == job).count();
    assert_eq!((of(ann), of(low), of(high)), (2, 1, 1));
}

#[test]
fn a_worker_gets_what_it_holds_already() {
    // Two maps read each input.
    let (mut world, _) = started(2, 1, "maps=4 parts=1");
    assert_eq!((tasks(&world, 0), tasks(&world, 1)), (vec![(Stage::Map, 0)], vec![(Stage::Map, 2)]));
    finish_all(&mut world, 1);
    assert_eq!(tasks(&world, 1), [(Stage::Map, 3)]);
}

#[test]
fn a_dead_workers_tasks_move_after_its_lease_and_its_maps_are_done_again() {
    let (mut world, job) = started(2, 1, "maps=3 parts=1");
    finish_all(&mut world, 0);
    world.workers[0].alive = false;
    pass(&mut world, 900, &[1]);
    assert_eq!(world.state().workers().count(), 2, "its lease holds");
    pass(&mut world, 200, &[1]);
    assert_eq!(world.state().workers().count(), 1);
    assert_eq!(world.state().job(job).unwrap().maps_missing(), 3);
    for _ in 0..5 {
        finish_all(&mut world, 1);
    }
    assert_eq!(world.state().archived(job).unwrap().state(), JobState::Completed);
}

#[test]
fn a_new_leader_goes_on_with_what_runs() {
    let (mut world, job) = started(2, 1, "maps=2 parts=1");
    let before = [world.task(job, Stage::Map, 0), world.task(job, Stage::Map, 1)];
    world.elect(|_| true);
    settle(&mut world);
    world.step(0);
    world.tick(50);
    assert_eq!(world.task(job, Stage::Map, 1), [], "it waits for the other worker");
    world.step(1);
    assert_eq!([world.task(job, Stage::Map, 0), world.task(job, Stage::Map, 1)], before);
    // A worker that stays silent is not waited for longer than its lease.
    world.elect(|_| true);
    settle(&mut world);
    world.workers[1].alive = false;
    finish_all(&mut world, 0);
    pass(&mut world, 950, &[0]);
    assert_eq!(tasks(&world, 0), []);
    pass(&mut world, 150, &[0]);
    assert_eq!(tasks(&world, 0), [(Stage::Map, 1)]);
}

#[test]
fn an_attempt_is_never_named_twice_across_leaders() {
    let (mut world, _) = started(1, 1, "maps=4 parts=1");
    for _ in 0..4 {
        world.elect(|_| true);
        settle(&mut world);
        world.workers[0].tasks.clear();
        world.step(0);
        pass(&mut world, 100, &[0]);
        assert_eq!(world.workers[0].tasks.len(), 1);
    }
}

#[test]
fn a_failed_task_goes_elsewhere_first() {
    let (mut world, job) = started(2, 1, "maps=2 parts=1");
    fail(&mut world, 0, Cause::App);
    assert_eq!(world.task(job, Stage::Map, 0), [], "not again on the same worker");
    finish_all(&mut world, 1);
    assert_eq!(world.task(job, Stage::Map, 0)[0].1, world.workers[1].incarnation.unwrap());
    fail(&mut world, 1, Cause::App);
    pass(&mut world, 400, &[0, 1]);
    assert_eq!(world.task(job, Stage::Map, 0).len(), 1, "but in the end anywhere");
}

#[test]
fn a_report_that_could_never_count_is_a_failure() {
    let (mut world, job) = started(1, 1, "maps=1 parts=1");
    let (attempt, running) = world.workers[0].tasks.pop_first().unwrap();
    let done = wire::Done { digest: vec![1; 15].into(), ..Default::default() };
    let end = Some(wire::task_report::End::Done(done));
    world.workers[0].reports.push(wire::TaskReport { task: Some(running.task), end, given_ms: 0 });
    world.step(0);
    settle(&mut world);
    assert!(world.state().job(job).unwrap().maps[0].has_failed(attempt));
    world.step(0);
    assert_eq!(tasks(&world, 0), [(Stage::Map, 0)], "again, and here: there is no other worker");
}

#[test]
fn a_worker_on_which_tasks_keep_failing_is_set_aside() {
    let (mut world, _) = started(4, 3, "maps=20 parts=1");
    for _ in 0..3 {
        fail(&mut world, 0, Cause::Worker);
    }
    pass(&mut world, 2_000, &[0, 1, 2, 3]);
    assert_eq!(tasks(&world, 0), [], "three in a row");
    for _ in 0..3 {
        fail(&mut world, 1, Cause::Worker);
    }
    assert_eq!(tasks(&world, 1), [], "a pause");
    pass(&mut world, 2_000, &[0, 1, 2, 3]);
    assert_ne!(tasks(&world, 1), [], "never more than a third of all");
    pass(&mut world, 60_000, &[0, 1, 2, 3]);
    assert_ne!(tasks(&world, 0), [], "for a minute");
}

#[test]
fn an_app_that_is_wrong_does_not_cost_others_their_workers() {
    let mut world = World::new(4, 1);
    (0..4).for_each(|worker| world.step(worker));
    for job in 0..3 {
        world.accepted("ann", &format!("{job}"), spec(&format!("out{job}"), "maps=20 parts=1"));
    }
    settle(&mut world);
    let aside = |world: &World| world.master.worker(world.workers[0].incarnation.unwrap()).unwrap().set_aside;
    let job_of = |world: &World| world.workers[0].tasks.values().next().unwrap().task.job;
    let first = job_of(&world);
    for _ in 0..4 {
        assert_eq!(job_of(&world), first);
        fail(&mut world, 0, Cause::App);
        world.step(0);
    }
    assert!(!aside(&world), "all of them of one job");
    while !aside(&world) {
        let job = job_of(&world);
        world.commit("ann", Action::CancelJob(wire::CancelJob { job, ..Default::default() }));
        world.tell();
        settle(&mut world);
        // It hears that its task is cancelled, then gets another.
        world.step(0);
        world.step(0);
        assert!(!world.workers[0].tasks.is_empty(), "a third job makes three");
        fail(&mut world, 0, Cause::App);
        world.step(0);
    }
    let seen = world.master.worker(world.workers[0].incarnation.unwrap()).unwrap();
    assert_eq!((seen.done, seen.failed), (0, 6));
}

/// Every map of it meets a bad record.
#[test]
fn a_job_of_too_many_bad_records_fails_and_one_of_few_does_not() {
    for (allowed, state) in [(0, JobState::Failed), (2, JobState::Failed), (3, JobState::Completed)] {
        let mut world = World::new(2, 1);
        (0..2).for_each(|worker| world.step(worker));
        let mut spoilt = spec("out", "maps=3 parts=1 spoilt");
        spoilt.skip_bad_records = allowed;
        let job = world.accepted("ann", "1", spoilt);
        world.heal();
        let row = world.state().archived(job).unwrap();
        let reason = if state == JobState::Failed { Reason::BadRecord } else { Reason::Unspecified };
        assert_eq!((row.state(), row.reason()), (state, reason), "{allowed}");
    }
}

#[test]
fn reducers_begin_early_but_leave_slots_to_maps() {
    let (mut world, job) = started(2, 4, "maps=16 parts=8");
    let reducers = |world: &World| world.master.running().filter(|(_, task, ..)| task.stage == Stage::Reduce).count();
    assert_eq!(reducers(&world), 0, "no map is done");
    world.finish(0, 0);
    world.finish(0, 0);
    world.step(0);
    settle(&mut world);
    while world.state().job(job).unwrap().maps_missing() > 2 {
        let w = (0..2).find(|w| tasks(&world, *w).iter().any(|(stage, _)| *stage == Stage::Map)).unwrap();
        let nth = tasks(&world, w).iter().position(|(stage, _)| *stage == Stage::Map).unwrap();
        world.finish(w, nth);
        world.step(w);
        settle(&mut world);
        world.step(0);
        world.step(1);
        assert!(reducers(&world) <= 2, "a quarter of the slots");
    }
    assert_eq!(reducers(&world), 2);
    assert!(world.workers.iter().flat_map(|w| w.places.get(&job)).any(|places| places.len() > 4), "they know of maps");
}

#[test]
fn a_map_that_is_lost_late_gets_a_slot_from_a_reducer() {
    let (mut world, job) = started(1, 1, "maps=1 parts=1");
    finish_all(&mut world, 0);
    world.step(0);
    assert_eq!(tasks(&world, 0), [(Stage::Reduce, 0)]);
    world.workers[0].segments.clear();
    world.work(0);
    world.step(0);
    settle(&mut world);
    assert_eq!(world.state().job(job).unwrap().maps_missing(), 1, "its own word is enough");
    pass(&mut world, 500, &[0]);
    assert_eq!(tasks(&world, 0), [(Stage::Map, 0)]);
    world.heal();
}

/// Found by the model of the paper's cluster: when many workers were killed, nearly all reducers gave up their slots for
/// maps, and what they had fetched.
#[test]
fn many_lost_maps_take_few_slots_from_reducers() {
    let (mut world, job) = started(2, 10, "maps=20 parts=20");
    (0..2).for_each(|worker| finish_all(&mut world, worker));
    (0..2).for_each(|worker| world.step(worker));
    let reducers =
        |world: &World| (0..2).flat_map(|w| tasks(world, w)).filter(|(stage, _)| *stage == Stage::Reduce).count();
    assert_eq!(reducers(&world), 20, "in all slots");
    let lost = (0..20).map(|map| {
        let result = world.state().job(job).unwrap().maps[map as usize].result.clone().unwrap();
        let (attempt, stage) = (Some(result.attempt.into()), Stage::Map.into());
        let task = Some(wire::Task { job, stage, epoch: 0, partition: map, attempt });
        let what = Some(wire::task_change::What::Lost(wire::Lost {}));
        wire::TaskChange { task, what, ..Default::default() }
    });
    let changes = lost.collect();
    world.commit("system", Action::TaskChanges(wire::TaskChanges { changes }));
    world.tell();
    assert_eq!(world.state().job(job).unwrap().maps_missing(), 20);
    pass(&mut world, 1_000, &[0, 1]);
    assert_eq!(reducers(&world), 18);
    world.heal();
}

#[test]
fn segments_are_gone_when_two_say_so_or_one_for_long() {
    let missing = |world: &mut World, job: u64, reporters: &[usize]| {
        for w in reporters {
            let attempt = world.state().job(job).unwrap().maps[0].result.as_ref().unwrap().attempt;
            let missing = wire::Missing { job, epoch: 0, map: 0, attempt: Some(attempt.into()) };
            world.workers[*w].missing.insert((job, 0), missing);
            world.step(*w);
        }
        settle(world);
        world.state().job(job).unwrap().maps_missing()
    };
    let (mut world, job) = started(4, 1, "maps=1 parts=3");
    finish_all(&mut world, 0);
    assert_eq!(missing(&mut world, job, &[1]), 0);
    assert_eq!(missing(&mut world, job, &[1]), 0, "the same one again");
    assert_eq!(missing(&mut world, job, &[1, 2]), 1, "two");
    let (mut world, job) = started(4, 1, "maps=1 parts=3");
    finish_all(&mut world, 0);
    assert_eq!(missing(&mut world, job, &[1]), 0);
    pass(&mut world, 500, &[0, 1, 2, 3]);
    assert_eq!(missing(&mut world, job, &[1]), 1, "for half a lease");
}

#[test]
fn a_lost_map_that_nobody_needs_is_not_done_again() {
    let (mut world, job) = started(2, 1, "maps=2 parts=1");
    finish_all(&mut world, 0);
    finish_all(&mut world, 1);
    let reducer = (0..2).find(|w| tasks(&world, *w) == [(Stage::Reduce, 0)]).unwrap();
    let other = 1 - reducer;
    world.work(reducer);
    world.step(reducer);
    settle(&mut world);
    assert_eq!(world.state_of(job), JobState::Reducing, "all segments are there");
    let incarnation = world.workers[other].incarnation.unwrap();
    world.commit("system", Action::RemoveWorker(wire::RemoveWorker { incarnation, ..Default::default() }));
    world.tell();
    world.workers[other].restart();
    world.step(other);
    pass(&mut world, 300, &[0, 1]);
    assert_eq!(world.state().job(job).unwrap().maps_missing(), 1);
    // It had the map of its own number.
    assert_eq!(world.task(job, Stage::Map, u32::try_from(other).unwrap()), []);
    finish_all(&mut world, reducer);
    assert!(world.state().archived(job).is_some());
}

#[test]
fn an_answer_that_is_lost_costs_nothing_but_time() {
    let mut world = World::new(1, 1);
    let job = world.job("out", "maps=1 parts=1");
    settle(&mut world);
    world.lose_answers = true;
    world.step(0);
    let lost = world.task(job, Stage::Map, 0);
    assert_eq!((lost.len(), tasks(&world, 0).len()), (1, 0));
    world.step(0);
    let again = world.task(job, Stage::Map, 0);
    assert_eq!((again.len(), tasks(&world, 0).len()), (1, 1));
    assert_ne!(lost, again, "another attempt");
}

#[test]
fn a_proposal_of_unknown_outcome_is_made_again_until_it_is_known() {
    for applied in [false, true] {
        let (mut world, job) = started(1, 1, "maps=1 parts=1");
        world.finish(0, 0);
        world.step(0);
        world.propose(Proposed::Unknown, applied);
        assert_eq!(world.state().job(job).unwrap().maps_missing(), u32::from(!applied));
        assert_eq!(world.proposals.len(), 1, "again");
        settle(&mut world);
        assert_eq!(world.state().job(job).unwrap().maps_missing(), 0);
        world.step(0);
        assert_eq!(world.workers[0].reports.len(), 0, "settled");
    }
}

#[test]
fn reports_are_batched_while_a_proposal_is_under_way() {
    let (mut world, _) = started(3, 4, "maps=12 parts=1");
    for worker in 0..3 {
        (0..4).for_each(|_| world.finish(worker, 0));
        world.step(worker);
        world.step(worker);
    }
    assert_eq!(world.proposals.len(), 1);
    world.propose(Proposed::Applied, true);
    let [(_, command)] = world.proposals.iter().collect::<Vec<_>>()[..] else { panic!("one more") };
    let Some(Action::TaskChanges(changes)) = &command.action else { panic!() };
    assert_eq!(changes.changes.len(), 8, "each once");
}

#[test]
fn a_draining_worker_uploads_what_is_needed_and_costs_no_work() {
    let (mut world, job) = started(2, 1, "maps=2 parts=1");
    world.workers[0].draining = true;
    let before: Vec<AttemptId> = world.workers[0].tasks.keys().copied().collect();
    finish_all(&mut world, 0);
    pass(&mut world, 100, &[1]);
    assert_eq!(tasks(&world, 0), [], "nothing new");
    for _ in 0..4 {
        world.work(0);
        world.step(0);
        settle(&mut world);
    }
    assert!(world.workers[0].drained);
    assert_eq!(world.state().drained().count(), 1);
    finish_all(&mut world, 1);
    finish_all(&mut world, 1);
    pass(&mut world, 100, &[1]);
    let counted = world.state().job(job).map(|job| job.maps[0].result.as_ref().unwrap().attempt);
    assert!(counted.is_none_or(|attempt| before.contains(&attempt)), "no map was done twice");
    world.heal();
}

/// A worker that is told to end drains by itself, often before the leader hears from others why.
#[test]
fn a_job_knows_why_a_worker_left_that_drained_before_it_was_known() {
    let (mut world, job) = started(2, 1, "maps=4 parts=1");
    world.workers[0].draining = true;
    // It gives back what it ran.
    world.workers[0].tasks.clear();
    world.step(0);
    let incarnation = world.workers[0].incarnation.unwrap();
    let why = "PreemptionByScheduler: for a pod that matters more".to_string();
    world.hear(Input::Pools(News::Leaves { incarnation, why: why.clone() }));
    settle(&mut world);
    let job = world.state().job(job).unwrap();
    let told = |incident: &&Arc<wire::Incident>| incident.kind() == wire::incident::Kind::WorkerLeaves;
    let told: Vec<_> = job.incidents.iter().filter(told).map(|incident| incident.detail.clone()).collect();
    assert_eq!(told, [why]);
}

#[test]
fn whoever_should_drain_is_told() {
    let mut world = World::new(1, 1);
    world.step(0);
    let incarnation = world.workers[0].incarnation.unwrap();
    world.commit("ann", Action::DrainWorker(wire::DrainWorker { incarnation, ..Default::default() }));
    world.tell();
    settle(&mut world);
    assert!(world.workers[0].draining, "a waiting poll tells it");
    world.step(0);
    settle(&mut world);
    world.step(0);
    assert!(world.workers[0].drained);
}

#[test]
fn a_job_that_nobody_can_run_fails_in_the_end() {
    let mut world = World::new(1, 1);
    let job = world.job("out", "maps=1 parts=1");
    settle(&mut world);
    world.workers[0].alive = false;
    pass(&mut world, 3_000, &[]);
    assert_eq!(world.state_of(job), JobState::Mapping);
    world.tick(3_600_000);
    settle(&mut world);
    assert_eq!(world.state().archived(job).unwrap().reason(), Reason::NoWorker);
}

#[test]
fn what_can_not_be_planned_or_published_fails_and_what_can_later_waits() {
    use gristmill_engine::control::master::Setback;
    use gristmill_proto::v1::JobError;
    let error = JobError { reason: Reason::Input.into(), message: "in/ matches nothing".into(), ..Default::default() };
    let mut world = World::new(1, 1);
    let job = world.job("out", "maps=1 parts=1");
    assert!(matches!(world.errands.pop_front(), Some(Effect::Plan(_))));
    world.hear(Input::Planned { job, result: Err(Setback::Later("store".into())) });
    assert!(world.errands.is_empty(), "not at once");
    world.tick(100);
    assert!(matches!(world.errands.pop_front(), Some(Effect::Plan(_))), "again");
    world.hear(Input::Planned { job, result: Err(Setback::Never(error.clone())) });
    world.propose(Proposed::Applied, true);
    assert_eq!(world.state().job(job).unwrap().error.as_deref(), Some(&error));
}

#[test]
fn publishing_follows_the_decision_and_is_repeated_by_a_new_leader() {
    let (mut world, job) = started(1, 1, "maps=0 parts=1");
    world.step(0);
    world.finish(0, 0);
    world.step(0);
    assert!(!world.errands.iter().any(|e| matches!(e, Effect::Publish(_))), "not decided");
    world.propose(Proposed::Applied, true);
    let publish = |world: &World| {
        world.errands.iter().any(|e| matches!(e, Effect::Publish(p) if p.job == job && p.objects.len() == 1))
    };
    assert!(publish(&world));
    world.errands.clear();
    world.elect(|_| true);
    assert!(publish(&world), "whoever leads publishes");
    settle(&mut world);
    assert_eq!(world.state().archived(job).unwrap().state(), JobState::Completed);
}

#[test]
fn a_term_that_is_led_once_more_goes_on_with_what_runs() {
    let (mut world, job) = started(2, 2, "maps=4 parts=2");
    let running = |world: &World| {
        let of = |w: usize| world.workers[w].tasks.keys().copied().collect::<Vec<AttemptId>>();
        [of(0), of(1)]
    };
    let before = running(&world);
    world.lead_again();
    pass(&mut world, 200, &[0, 1]);
    assert_eq!(running(&world), before, "neither cancelled nor begun twice");
    // Of the next leadership it knows what it gave out and gave up: that does not come back.
    let given_up = before[0][0];
    world.commit("ann", Action::CancelJob(wire::CancelJob { job, ..Default::default() }));
    world.tell();
    pass(&mut world, 200, &[0, 1]);
    assert!(running(&world).concat().is_empty());
    let later = world.job("later", "maps=1 parts=1");
    pass(&mut world, 200, &[0, 1]);
    assert!(running(&world).concat().iter().all(|attempt| *attempt > given_up), "no number comes twice");
    assert_eq!(world.state_of(later), JobState::Mapping);
}

/// It fetched and ended between two polls. Its worker would poll as fast as it can until the end is settled.
#[test]
fn a_reducer_that_has_ended_is_told_of_no_more_segments() {
    let (mut world, _) = started(1, 1, "maps=1 parts=1");
    finish_all(&mut world, 0);
    assert_eq!(tasks(&world, 0), [(Stage::Reduce, 0)]);
    world.step(0);
    world.finish(0, 0);
    // It knows of segments for what runs only.
    world.workers[0].known.clear();
    world.step(0);
    assert!(world.workers[0].waits && !world.proposals.is_empty(), "answered before there is anything to say");
    settle(&mut world);
    assert!(!world.workers[0].waits);
}

#[test]
fn a_worker_that_is_not_known_is_told_so() {
    let (mut master, _) = Master::lead(Now::default(), 1, State::default(), config());
    let effects =
        master.handle(Now::default(), Input::Poll(wire::Poll { incarnation: 5, sequence: 1, ..Default::default() }));
    assert!(matches!(&effects[..], [Effect::Answer { answer, .. }] if !answer.fenced.is_empty()), "{effects:?}");
}

#[test]
fn the_leaders_view_of_a_job_counts_what_runs() {
    let (world, job) = started(2, 2, "maps=6 parts=1");
    let maps = world.master.status(job).unwrap().maps.unwrap();
    assert_eq!((maps.total, maps.running, maps.done), (6, 4, 0));
    assert!(world.now < Duration::from_secs(1));
}
