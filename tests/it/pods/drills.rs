//! The drills of `k8s/README.md`, step by step: an upgrade while a job runs, and a restore when all masters have lost their
//! volumes.

use serde_json::Value;

use super::mill::{Choice, IMAGE, Mill, NAMESPACE, NEXT_IMAGE, name};
use crate::program::until;

fn images(pods: &[Value]) -> Vec<&str> {
    pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap()).collect()
}

fn masters(mill: &Mill) -> Vec<Value> {
    let pods = mill.server.list("pods", Some(NAMESPACE)).into_iter();
    pods.filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "master").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_goes_by_while_a_job_runs() {
    let mut mill = Mill::of(Choice { masters: 3, min: 1, max: 3, ..Choice::SMALL }).await;
    mill.texts(16, 15);
    let job = mill.slow("out");
    mill.registers(3);
    mill.done("cluster backup");
    mill.upgrade(NEXT_IMAGE, 3, None);
    until("new masters, one after the other", || {
        let ready = mill.ready_masters();
        assert!(ready >= 2, "{ready} masters are ready");
        ready == 3 && images(&masters(&mill)) == [NEXT_IMAGE; 3]
    });
    mill.complete(&job, "out");
    until("a new worker in place of the old ones", || images(&mill.workers()) == [NEXT_IMAGE]);
    mill.settles();
    for kind in ["failed", "worker_lost"] {
        assert_eq!(mill.events(&job, kind), Vec::<Value>::new(), "{kind}");
    }
    // And back.
    mill.upgrade(IMAGE, 3, None);
    until("old masters again", || mill.ready_masters() == 3 && images(&masters(&mill)) == [IMAGE; 3]);
    let job = mill.slow("again");
    mill.complete(&job, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_from_its_backup() {
    let mut mill = Mill::of(Choice { masters: 3, ..Choice::SMALL }).await;
    mill.texts(8, 10);
    let before = mill.slow("before");
    mill.complete(&before, "before");
    let running = mill.slow("running");
    mill.mapped(&running, 1);
    mill.done("cluster backup");
    // All volumes are lost.
    mill.scale(0);
    until("masters to be gone", || masters(&mill).is_empty());
    for worker in mill.workers() {
        mill.delete(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{}?gracePeriodSeconds=0", name(&worker)));
    }
    for n in 0..3 {
        mill.delete(&format!("/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/data-gristmill-{n}"));
    }
    mill.upgrade(IMAGE, 1, Some("--restore"));
    until("one master", || mill.ready_masters() == 1);
    // Whoever was logged in still is, and what ran runs again.
    assert_eq!(mill.job(&before)["state"], "completed");
    mill.complete(&running, "running");
    mill.upgrade(IMAGE, 3, None);
    until("three masters", || mill.ready_masters() == 3);
    let status = mill.json("cluster status");
    assert_eq!(status["masters"].as_array().unwrap().len(), 3, "{status}");
    let after = mill.slow("after");
    mill.complete(&after, "after");
}
