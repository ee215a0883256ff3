//! Why workers are not there, or are no more: each reason of the cluster's is on the job that waits for them, and no task is
//! charged with what it could not help.

use std::time::Duration;

use serde_json::Value;

use super::mill::{Choice, IMAGE, Mill, NAMESPACE, measured};

/// Waits until a job tells of this, and says how long that took. The bound that users are promised is two seconds; machines
/// that run tests may be slower.
fn shown(mill: &mut Mill, job: &str, word: &str) -> Duration {
    let mut last = Value::Null;
    let took = measured(&format!("{word} on the job"), || {
        last = mill.job(job)["notices"].clone();
        last.to_string().contains(word)
    });
    println!("{word} is shown on the job after {:.2} s: {last}", took.as_secs_f64());
    took
}

/// Waits until what happened to a job tells of this, in an event of this kind.
fn told(mill: &mut Mill, job: &str, kind: &str, word: &str) -> Value {
    let mut found = Value::Null;
    let took = measured(&format!("{word} in what happened"), || {
        let events = mill.events(job, kind).into_iter();
        found = events.filter(|event| event["detail"].to_string().contains(word)).collect();
        found[0].is_object()
    });
    println!("{word} is in the job's history after {:.2} s: {}", took.as_secs_f64(), found[0]["detail"]);
    found[0].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_do_not_start_say_why_on_the_job() {
    let mut mill = Mill::of(Choice::SMALL).await;
    mill.texts(2, 3);
    mill.kubelet.unschedulable("app.kubernetes.io/component=worker", "0/3 nodes are available: 3 Insufficient cpu.");
    let job = mill.slow("out");
    shown(&mut mill, &job, "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.");
    mill.kubelet.bad_image(IMAGE);
    mill.kubelet.schedulable();
    shown(&mut mill, &job, "ErrImagePull");
    shown(&mut mill, &job, "ImagePullBackOff");
    mill.kubelet.good_image(IMAGE);
    mill.complete(&job, "out");
    mill.settles();
    // The master's own pod is one.
    mill.server.quota(Some(1));
    let job = mill.slow("more");
    shown(&mut mill, &job, "exceeded quota");
    mill.server.quota(None);
    mill.complete(&job, "more");
    assert_eq!(mill.job(&job)["notices"], Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_end_say_why_and_no_task_is_charged() {
    let mut mill = Mill::of(Choice::SMALL).await;
    mill.texts(12, 15);
    let job = mill.slow("out");
    mill.registers(3);
    let worker = mill.busy();
    mill.kubelet.oom(NAMESPACE, &worker);
    assert_eq!(told(&mut mill, &job, "gone", "OOMKilled")["worker"], *worker);
    let worker = mill.busy();
    mill.kubelet.evict(NAMESPACE, &worker, "The node was low on resource: ephemeral-storage.");
    let evicted = told(&mut mill, &job, "gone", "Evicted");
    assert!(evicted["detail"].to_string().contains("ephemeral-storage"), "{evicted}");
    let worker = mill.busy();
    mill.kubelet.preempt(NAMESPACE, &worker);
    assert_eq!(told(&mut mill, &job, "worker_leaves", "PreemptionByScheduler")["worker"], *worker);
    mill.complete(&job, "out");
    let shown = mill.job(&job);
    assert_eq!((&shown["maps"]["failures"], &shown["reduces"]["failures"]), (&0.into(), &0.into()), "{shown}");
}
