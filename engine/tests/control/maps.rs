//! Jobs that only map: what their maps write are the parts.

use gristmill_engine::control::commit::Publication;
use gristmill_engine::control::ids::Stage;
use gristmill_engine::control::job::JobState;
use gristmill_engine::control::master::Effect;
use gristmill_engine::control::task::Place;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::Phase;
use wire::command::Action;
use wire::reply::Outcome;

use super::rules::started;
use super::world::{CLUSTER, World, plan, spec};

#[test]
fn its_maps_decide_it_and_their_worker_may_go() {
    let (mut world, job) = started(2, 1, "maps=3 parts=0");
    let done = |world: &World| world.state().job(job).map_or(0, |job| job.maps.len() as u32 - job.maps_missing());
    for round in 0.. {
        assert!(round < 100, "{:?}", world.state().job(job));
        if done(&world) == 1 && world.workers[0].alive {
            world.workers[0].alive = false;
        }
        for worker in [0, 1] {
            world.step(worker);
            world.finish(worker, 0);
        }
        while !world.proposals.is_empty() {
            world.propose(gristmill_engine::control::master::Proposed::Applied, true);
        }
        world.tick(300);
        if world.state_of(job) == JobState::Committing {
            break;
        }
    }
    let of = world.state().job(job).unwrap();
    assert!(of.maps.iter().all(|facts| facts.result.as_ref().is_some_and(|result| result.place == Place::Store)));
    let publication = Publication::of(CLUSTER, of).unwrap();
    assert_eq!((publication.objects.len(), publication.segments), (3, false));
    assert!(publication.objects.iter().all(|object| world.store.contains_key(&object.from)));
    let status = of.status(CLUSTER);
    assert_eq!((status.output_records, status.counters["tasks"]), (3, 3));
    assert!(world.errands.iter().any(|effect| matches!(effect, Effect::Publish(of) if of.job == job)));
    assert_eq!(world.task(job, Stage::Reduce, 0), []);
}

#[test]
fn a_plan_without_parts_is_for_whole_jobs_of_few_maps() {
    let mut world = World::new(1, 1);
    for (phase, maps, survey, good) in [
        (Phase::Unspecified, 10_000, false, true),
        (Phase::Unspecified, 10_001, false, false),
        (Phase::Unspecified, 2, true, false),
        (Phase::Map, 2, false, false),
        (Phase::Reduce, 0, false, false),
    ] {
        let name = format!("{phase:?}-{maps}-{survey}");
        let mut spec = spec(&name, "maps=2");
        spec.set_phase(phase);
        let job = world.accepted("ann", &name, spec.clone());
        let digest = plan(job, &spec).digest.to_vec().into();
        let made = wire::PlanJob { job, plan: digest, maps, reduces: 0, survey, input_bytes: 0 };
        let outcome = world.commit("system", Action::PlanJob(made));
        assert_eq!(matches!(outcome, Outcome::Accepted(_)), good, "{name}: {outcome:?}");
    }
}
