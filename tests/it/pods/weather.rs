//! The weather of a cluster, all at once: leaders, workers and the API server are lost while a job runs, and two masters think
//! that they lead. Nothing is lost by it, left over, or there twice.

use std::time::Duration;

use super::mill::{Choice, Mill, NAMESPACE, Watched};
use crate::program::until;

const WORKERS: usize = 3;

async fn mill() -> Mill {
    Mill::of(Choice { masters: 3, min: 1, max: WORKERS as u32, ..Choice::SMALL }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes_while_the_leader_a_worker_and_the_api_server_are_killed() {
    let mut mill = mill().await;
    let watched = Watched::of(&mill);
    mill.texts(20, 10);
    let job = mill.slow("out");
    mill.registers(WORKERS);
    mill.mapped(&job, 2);
    let leader = mill.leader();
    mill.kubelet.kill(NAMESPACE, &leader);
    // Where the next leader begins to watch, there was much before.
    mill.server.compact();
    mill.server.drop_watches();
    let new = mill.leader();
    assert_ne!(new, leader);
    let worker = mill.busy();
    mill.kubelet.kill(NAMESPACE, &worker);
    mill.server.stop();
    let done = mill.job(&job)["maps"]["done"].as_u64().unwrap();
    mill.mapped(&job, done + 2);
    mill.server.gone_by_status(true);
    mill.server.compact();
    mill.server.start_again().await;
    // The worker that was killed while nobody could be told comes again.
    mill.registers(WORKERS);
    mill.server.gone_by_status(false);
    mill.server.compact();
    mill.server.drop_watches();
    mill.complete(&job, "out");
    until("the killed master", || mill.ready_masters() == 3);
    mill.settles();
    assert!((2..=WORKERS).contains(&watched.most()));
    assert_eq!(mill.events(&job, "failed").len(), 0, "no task is charged with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_masters_that_both_think_they_lead_make_each_pod_once() {
    let mut mill = Mill::of(Choice { masters: 3, max: WORKERS as u32, ..Choice::SMALL }).await;
    let watched = Watched::of(&mill);
    let refused = |mill: &Mill| {
        let calls = mill.server.calls().into_iter();
        calls.filter(|call| call.verb == "create" && call.resource == "pods" && call.status == 409).count()
    };
    // Whom pods go with is known from then on, and is not asked for again.
    mill.texts(3, 1);
    let job = mill.slow("before");
    mill.ends(&job);
    mill.settles();
    mill.texts(12, 40);
    let leader = mill.leader();
    // What the first one asks for arrives when the second one has long led.
    mill.server.slow(Duration::from_secs(12));
    let job = mill.slow("out");
    until("its calls to be on their way", || mill.server.held("create", "pods") == WORKERS);
    mill.kubelet.stall(NAMESPACE, &leader);
    mill.server.slow(Duration::ZERO);
    assert_ne!(mill.leader(), leader);
    mill.registers(WORKERS);
    assert_eq!(refused(&mill), 0);
    until("the first one's calls to arrive", || refused(&mill) == WORKERS);
    // It still thinks that it leads when it goes on. What it asked for would have gone again, had nobody needed it.
    mill.kubelet.go_on(NAMESPACE, &leader);
    mill.complete(&job, "out");
    until("the first one", || mill.ready_masters() == 3);
    mill.settles();
    assert!(watched.most() <= WORKERS);
}
