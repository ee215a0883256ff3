//! What people complain about in batch systems on Kubernetes, a test for each: the name is the complaint, and the test shows that
//! it is none of this system's.

use std::time::Duration;

use serde_json::{Value, json};

use super::mill::{Choice, IMAGE, Mill, NAMESPACE, Watched, is_ready, name};
use crate::program::until;

/// The pods of workers that are not on their way out.
fn standing(mill: &Mill) -> Vec<Value> {
    mill.workers().into_iter().filter(is_ready).collect()
}

/// All that was done was done once, and by workers that were not lost.
fn nothing_was_done_twice(mill: &mut Mill, job: &str) {
    for kind in ["lost", "gone", "failed", "worker_lost", "epoch"] {
        let events = mill.events(job, kind);
        assert_eq!(events, Vec::<Value>::new(), "{kind}");
    }
    let mut tasks: Vec<String> =
        mill.events(job, "done").iter().map(|event| event["task"].as_str().unwrap().into()).collect();
    tasks.sort();
    let number = tasks.len();
    tasks.dedup();
    assert_eq!(tasks.len(), number, "{tasks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_orphaned_after_cancel_failure_or_uninstall() {
    let mut mill = Mill::of(Choice::SMALL).await;
    mill.texts(12, 10);
    let job = mill.slow("cancelled");
    mill.registers(3);
    mill.done(&format!("job cancel {job}"));
    mill.settles();
    mill.folder.file("fails.sh", "#!/bin/sh\nexit 3\n");
    let fails = "streaming -input admin/books -mapper fails.sh -file fails.sh -reducer NONE -output admin/failed \
                 -D mapreduce.map.maxattempts=1";
    let job = mill.submit(fails);
    until("the job to fail", || mill.job(&job)["state"] == "failed");
    mill.settles();
    mill.slow("forgotten");
    mill.registers(3);
    mill.delete("/apis/apps/v1/namespaces/mill/statefulsets/gristmill");
    // Who is to end and has nobody to hand over to does not wait for its grace, which is minutes.
    tokio::time::sleep(Duration::from_secs(30)).await;
    until("all pods to be gone", || mill.ready_masters() == 0 && mill.workers().is_empty());
}

/// "Leader lost, job lost" or, as bad, "Running" for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_lost_or_stuck_with_its_leader() {
    let mut mill = Mill::of(Choice { masters: 3, ..Choice::SMALL }).await;
    mill.texts(8, 10);
    mill.operates("slow");
    mill.server.apply_yaml(&mill.object("words", "slow"), NAMESPACE).unwrap();
    until("the job to run", || mill.phase("words") == "Running");
    let leader = mill.leader();
    mill.kubelet.kill(NAMESPACE, &leader);
    until("the job to complete", || mill.phase("words") == "Completed");
    let object = mill.server.get("mapreducejobs", NAMESPACE, "words").unwrap();
    let job = object["status"]["jobId"].as_str().unwrap().to_string();
    assert_eq!(mill.job(&job)["state"], "completed");
    let jobs = mill.json("jobs");
    assert_eq!(jobs.as_array().unwrap().len(), 1, "it was submitted once: {jobs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn image_pull_back_off_or_pending_waits_for_ever() {
    let mut mill = Mill::of(Choice { start_within: "5s", ..Choice::SMALL }).await;
    mill.texts(2, 3);
    mill.kubelet.bad_image(IMAGE);
    let job = mill.slow("out");
    until("the reason", || mill.job(&job)["notices"].to_string().contains("ImagePullBackOff"));
    until("the end of the wait", || mill.json("worker pool ls")[0]["notices"].to_string().contains("StartTooSlow"));
    // Neither do pods pile up, nor is it tried in a hurry.
    assert!(mill.workers().len() <= 3);
    mill.kubelet.good_image(IMAGE);
    mill.complete(&job, "out");
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_watch_events_hang_jobs() {
    let mut mill = Mill::of(Choice::SMALL).await;
    mill.texts(12, 10);
    let job = mill.slow("out");
    for by_status in [false, true] {
        let workers = mill.registers(3);
        mill.server.gone_by_status(by_status);
        mill.server.stop();
        for worker in workers {
            mill.kubelet.kill(NAMESPACE, &worker);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        mill.server.compact();
        mill.server.start_again().await;
    }
    mill.complete(&job, "out");
    mill.settles();
}

/// Or: what they held is lost with them, and computed again.
#[tokio::test(flavor = "multi_thread")]
async fn workers_are_not_released_or_their_segments_are_lost() {
    let mut mill = Mill::of(Choice { max: 6, idle: "1s", ..Choice::SMALL }).await;
    // Of these one takes as long as all others together.
    mill.texts(12, 5);
    let long: String = (0..120).map(|line| format!("{line}\n")).collect();
    mill.folder.file("books/99.txt", long);
    mill.done("data put books/99.txt admin/books/99.txt");
    let job = mill.submit(
        "streaming -input admin/books -mapper slow.sh -file slow.sh -reducer cat -numReduceTasks 2 --require scripts \
         -output admin/out -D mapreduce.job.reduce.slowstart.completedmaps=1.0 -D mapreduce.map.speculative=false",
    );
    mill.registers(6);
    until("idle workers to be let go while the job runs", || standing(&mill).len() <= 4);
    assert!(mill.goes_on(&job));
    mill.complete(&job, "out");
    nothing_was_done_twice(&mut mill, &job);
    assert_ne!(mill.events(&job, "moved").len(), 0, "segments of those that went are in the store");
    mill.settles();
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_down_kills_busy_pods() {
    let mut mill = Mill::of(Choice { max: 4, ..Choice::SMALL }).await;
    mill.texts(16, 10);
    let job = mill.slow("out");
    mill.registers(4);
    mill.mapped(&job, 2);
    mill.done("worker pool set default --max 1");
    until("three to be gone", || mill.workers().len() == 1);
    assert!(mill.goes_on(&job));
    mill.complete(&job, "out");
    nothing_was_done_twice(&mut mill, &job);
}

#[tokio::test(flavor = "multi_thread")]
async fn preempted_pods_are_never_replaced() {
    let mut mill = Mill::of(Choice::SMALL).await;
    let watched = Watched::of(&mill);
    mill.texts(12, 10);
    let job = mill.slow("out");
    let before = mill.registers(3);
    for worker in &before {
        mill.kubelet.preempt(NAMESPACE, worker);
    }
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let old: Vec<Value> = mill.workers().iter().map(uid).collect();
    until("others in their place", || standing(&mill).iter().any(|pod| !old.contains(&uid(pod))));
    mill.complete(&job, "out");
    assert_eq!(mill.events(&job, "failed").len(), 0, "no task is charged with it");
    watched.most();
}

/// Each waits for what others hold.
#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_deadlock_each_other() {
    let mut mill = Mill::of(Choice { max: 1, ..Choice::SMALL }).await;
    mill.texts(2, 2);
    let jobs: Vec<(String, String)> = (0..5).map(|n| format!("out-{n}")).map(|to| (mill.slow(&to), to)).collect();
    for (job, to) in jobs {
        mill.complete(&job, &to);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_state_grows_too_large_for_its_object() {
    let mut mill = Mill::of(Choice::SMALL).await;
    mill.texts(60, 1);
    mill.operates("slow");
    mill.server.forget_calls();
    mill.server.apply_yaml(&mill.object("words", "slow"), NAMESPACE).unwrap();
    until("the job to complete", || mill.phase("words") == "Completed");
    let mut object = mill.server.get("mapreducejobs", NAMESPACE, "words").unwrap();
    // Who wrote which field: the server's own notes.
    object["metadata"]["managedFields"] = Value::Null;
    let (size, told) = (object.to_string().len(), mill.server.calls());
    let told = told.iter().filter(|call| call.resource == "mapreducejobs" && call.subresource == "status").count();
    println!("60 tasks: an object of {size} bytes, told {told} times");
    assert!(size < 4_096, "{size}: {object}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_gone_with_the_pod() {
    let mut mill = Mill::of(Choice::SMALL).await;
    mill.texts(8, 10);
    let job = mill.slow("out");
    mill.registers(3);
    let worker = mill.busy();
    let said = mill.kubelet.logs(NAMESPACE, &worker, "worker");
    let said = said.lines().next().expect("it has said something").to_string();
    let uid = mill.server.get("pods", NAMESPACE, &worker).unwrap()["metadata"]["uid"].clone();
    mill.kubelet.kill(NAMESPACE, &worker);
    until("the pod to be gone", || !mill.workers().iter().any(|pod| pod["metadata"]["uid"] == uid));
    mill.complete(&job, "out");
    let kept = mill.done(&format!("job logs {job}"));
    assert!(kept.contains(&format!("pod {worker}")) && kept.contains(&said), "{said:?} in {kept}");
}

/// Eviction for too much scratch: told, not charged, and not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn evictions_by_disk_use_fail_jobs() {
    let mut mill = Mill::of(Choice::SMALL).await;
    mill.texts(12, 10);
    let job = mill.slow("out");
    mill.registers(3);
    let full = "Pod ephemeral local storage usage exceeds the total limit of containers 12Gi.";
    for pod in mill.workers().iter().map(|pod| name(pod).to_string()) {
        mill.kubelet.evict(NAMESPACE, &pod, full);
    }
    mill.complete(&job, "out");
    let gone = json!(mill.events(&job, "gone")).to_string();
    assert!(gone.contains("Evicted") && gone.contains(full), "{gone}");
    assert_eq!(mill.events(&job, "failed").len(), 0, "no task is charged with it");
}
