//! What our code relies on from a Kubernetes API server, and our own code against one: one suite for every server.
//!
//! Each check runs twice: as `stand_in::NAME` in every `cargo test`, against the stand-in (`k8s/tests/fake`, without
//! its kubelet), and as `real::NAME` against the API server that KUBECONFIG leads to:
//!
//! ```text
//! KUBECONFIG=… cargo test -p gristmill-k8s --test conformance -- --ignored
//! ```
//!
//! That one must authorise by RBAC, and KUBECONFIG must be an administrator's. Nothing else has to run: with and
//! without controllers, a scheduler and kubelets the checks are the same. No scheduler takes their pods, whose statuses
//! the checks write themselves. Each has namespaces of its own ([`world`]). The one thing that stays is the definition
//! of MapReduceJob.
//!
//! Left out is what needs a kubelet or controllers: pods that run, logs, garbage collection; and what goes wrong with a
//! server, which the stand-in does on purpose (`k8s/tests/pods.rs`, `k8s/tests/operator`).

#[path = "../operator/cluster.rs"]
mod cluster;
mod definition;
mod events;
mod installation;
mod jobs;
mod pods;
mod reasons;
mod rights;
mod world;

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt as _;
use gristmill_k8s_fake::Server;
use kube::Config;

use world::World;

/// Runs a check, and tidies up whatever came of it.
async fn run(config: Config, check: impl AsyncFnOnce(&World)) {
    let world = World::new(config).await;
    let done = AssertUnwindSafe(check(&world)).catch_unwind().await;
    world.leave().await;
    if let Err(panic) = done {
        resume_unwind(panic);
    }
}

async fn against_stand_in(check: impl AsyncFnOnce(&World)) {
    let server = Server::start().await;
    run(world::config_of(&server.kubeconfig("default")).await, check).await;
}

async fn against_real(check: impl AsyncFnOnce(&World)) {
    run(world::config_of_environment().await, check).await;
}

/// Two tests of each check.
macro_rules! checks {
    ($($module:ident::$check:ident,)*) => {
        mod stand_in {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    crate::against_stand_in(crate::$module::$check).await;
                }
            )*
        }

        mod real {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs KUBECONFIG: a real API server"]
                async fn $check() {
                    crate::against_real(crate::$module::$check).await;
                }
            )*
        }
    };
}

checks! {
    pods::a_seat_has_one_pod_however_often_it_is_made,
    pods::names_that_others_have_are_not_taken_for_ours,
    pods::pods_are_deleted_by_uid_and_no_others_are,
    pods::what_happens_to_pods_arrives,
    pods::who_leads_later_sees_what_others_made,
    pods::two_that_believe_to_lead_make_one_pod_for_each_seat,
    pods::what_may_come_right_is_tried_again_and_what_stays_wrong_is_not,
    pods::a_namespace_that_ends_takes_no_pods,
    reasons::pods_say_why_they_are_as_they_are,
    reasons::a_quota_holds_and_may_have_room_again,
    rights::the_masters_role_is_enough_for_pods,
    rights::the_masters_role_is_no_more_than_enough,
    rights::tokens_are_reviewed_for_whom_they_are,
    definition::the_definition_is_taken_as_it_is,
    definition::bad_specs_are_refused_with_words_that_help,
    definition::good_specs_are_taken_as_they_are,
    definition::only_three_fields_change,
    definition::unknown_fields_are_pruned_and_refused_when_strict,
    definition::spec_and_status_are_written_apart,
    definition::a_status_is_written_against_what_was_read,
    jobs::a_job_is_submitted_once_and_told_of,
    jobs::two_operators_submit_one_job,
    jobs::deletion_cancels_the_job_and_lets_go,
    jobs::a_suspended_job_waits_and_is_submitted_anew,
    jobs::a_deadline_cancels_and_fails,
    jobs::a_finished_job_goes_when_its_time_is_over,
    events::events_are_written_once_and_counted_after,
    installation::secrets_are_made_once_and_stay,
    installation::the_manifests_are_taken_in_a_dry_run,
    installation::workers_of_the_shipped_pool_are_restricted,
    installation::the_doctor_tells_what_it_looks_at,
}
