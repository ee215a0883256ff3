//! A node dies, or stops and wakes up late, at each point of its work at which it matters what has been done. Jobs that
//! were taken complete, with the bytes of a local run; nobody ever sees a part of an output; nothing is left behind.

use rustix::process::Signal;

use super::nodes::{Cluster, parts, run_local, texts};
use super::outputs::Watch;
use crate::program::until;

/// Points of a leader, in the order of a job.
const LEADER: [&str; 18] = [
    "submitted",
    "planning",
    "plan-stored",
    "map-assigned",
    "map-assigned@3",
    "map-reported",
    "map-reported@3",
    "reduce-assigned",
    "reduce-assigned@2",
    "reduce-reported",
    "reduce-reported@3",
    "publishing",
    "publish-put",
    "publish-copy",
    "publish-copy@2",
    "publish-last",
    "published",
    "cleared",
];

/// Points of a worker.
const WORKER: [&str; 4] = ["mapped", "mapped@2", "fetched", "uploaded"];

const JOB: &str = "index books/ --reducers 3 --map-task-size 1MiB";

fn cluster() -> Cluster {
    let cluster = Cluster::of(3, 3);
    texts(&cluster.folder, 60_000);
    run_local(&cluster.folder, "run index books/ --reducers 3 -q -o ../ref");
    cluster
}

/// Runs a job of which a node dies at this point.
fn dies_at(cluster: &mut Cluster, point: &str, output: &str) {
    eprintln!("at {point}");
    cluster.arm(point, "kill");
    let job = cluster.submit(&format!("{JOB} -o out/{output}"));
    cluster.complete(&job);
    until(&format!("a node to die at {point}"), || cluster.nodes().any(|node| !node.is_up()));
    let at = |place: &str| cluster.folder.path().join(place);
    assert!(parts(&at(&format!("store/out/{output}"))) == parts(&at("ref")), "another output after a death at {point}");
    let folder = cluster.folder.path().to_path_buf();
    let mut died = 0;
    for node in cluster.nodes() {
        if !node.is_up() {
            assert_eq!(node.wait(), Some(-9), "{} at {point}", node.name);
            node.begin(&folder);
            died += 1;
        }
    }
    assert_eq!(died, 1, "at {point}");
}

#[test]
fn a_leader_dies_at_each_point_of_a_job() {
    let mut cluster = cluster();
    let watch = Watch::of(cluster.folder.path().join("store/out"));
    for point in LEADER {
        dies_at(&mut cluster, point, point);
    }
    cluster.wait_until_cleared();
    watch.end();
}

#[test]
fn a_worker_dies_at_each_point_of_a_task() {
    let mut cluster = cluster();
    let watch = Watch::of(cluster.folder.path().join("store/out"));
    for point in WORKER {
        dies_at(&mut cluster, point, point);
    }
    cluster.wait_until_cleared();
    watch.end();
}

/// A leader that wakes up in the middle of publishing finds the output's name taken by a later job, and leaves it alone.
#[test]
fn a_leader_that_wakes_up_late_changes_nothing() {
    let mut cluster = cluster();
    let watch = Watch::of(cluster.folder.path().join("store/out"));
    for point in
        ["publishing", "publish-put", "publish-copy@2", "publish-last", "published", "history-stored", "cleared"]
    {
        eprintln!("at {point}");
        cluster.arm(point, "stop");
        let job = cluster.submit(&format!("{JOB} -o out/same --overwrite"));
        until(&format!("a node to be at {point}"), || cluster.has_fired());
        cluster.complete(&job);
        let after = cluster.submit("wordcount books/ --reducers 2 -o out/same --overwrite");
        cluster.complete(&after);
        let output = cluster.folder.path().join("store/out/same");
        let before = parts(&output);
        assert_eq!(before.len(), 2);
        cluster.masters.iter().for_each(|master| master.signal(Signal::CONT));
        // It has been heard, and has done what it was about to.
        let job = cluster.submit("wordcount books/0.txt --reducers 1 -o out/other --overwrite");
        cluster.complete(&job);
        assert!(parts(&output) == before, "a late leader changed an output, at {point}");
    }
    // A new leader looks for what those that were late left; one that stays does so every ten minutes.
    cluster.elect_anew();
    cluster.wait_until_cleared();
    watch.end();
}
