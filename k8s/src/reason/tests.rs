//! What becomes of statuses as Kubernetes writes them.

use serde_json::{Value, json};

use super::*;

fn standing_of(metadata: Value, status: Value) -> (Phase, bool, Option<String>) {
    let container = json!({"name": "worker", "resources": {"limits": {"memory": "4Gi"}}});
    let pod = json!({"metadata": metadata, "spec": {"containers": [container]}, "status": status});
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let (phase, leaving, reason) = standing(&pod);
    (phase, leaving, reason.map(|reason| reason.to_string()))
}

/// The state of our container.
fn worker(state: Value) -> Value {
    json!([{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}

fn disrupted(word: &str) -> Value {
    json!([{"type": "DisruptionTarget", "status": "True", "reason": word, "message": "it goes"}])
}

#[test]
fn pods_that_wait_say_why() {
    for (word, says) in [
        ("ImagePullBackOff", Some("ImagePullBackOff: it said so")),
        ("ErrImagePull", Some("ErrImagePull: it said so")),
        ("ErrImageNeverPull", Some("ErrImageNeverPull: it said so")),
        ("InvalidImageName", Some("InvalidImageName: it said so")),
        ("CreateContainerConfigError", Some("CreateContainerConfigError: it said so")),
        ("CreateContainerError", Some("CreateContainerError: it said so")),
        ("CrashLoopBackOff", Some("CrashLoopBackOff: it said so")),
        ("ContainerCreating", None),
        ("PodInitializing", None),
    ] {
        let state = worker(json!({"waiting": {"reason": word, "message": "it\nsaid so"}}));
        let found = standing_of(json!({}), json!({"phase": "Pending", "containerStatuses": state}));
        assert_eq!(found, (Phase::Pending, false, says.map(String::from)), "{word}");
    }
}

#[test]
fn pods_without_a_node_say_what_the_scheduler_lacks() {
    let lacks = |word: &str| {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": word, "message": "0/3 nodes are available"});
        standing_of(json!({}), json!({"phase": "Pending", "conditions": [condition]}))
    };
    let says = |text: &str| (Phase::Pending, false, Some(text.to_string()));
    assert_eq!(lacks("Unschedulable"), says("Unschedulable: 0/3 nodes are available"));
    assert_eq!(lacks("SchedulingGated"), says("SchedulingGated: 0/3 nodes are available"));
    let scheduled = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
    assert_eq!(standing_of(json!({}), scheduled), (Phase::Pending, false, None));
    assert_eq!(standing_of(json!({}), json!({})), (Phase::Pending, false, None));
}

#[test]
fn containers_beside_ours_are_named() {
    let other = |state: Value| json!([{"name": "fetch", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    let waits = other(json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}));
    let ours = worker(json!({"waiting": {"reason": "PodInitializing"}}));
    let status = json!({"phase": "Pending", "initContainerStatuses": waits, "containerStatuses": ours});
    let says = Some("ErrImagePull: container fetch: no such image".to_string());
    assert_eq!(standing_of(json!({}), status), (Phase::Pending, false, says));
    let failed = other(json!({"terminated": {"exitCode": 3, "reason": "Error"}}));
    let status = json!({"phase": "Failed", "initContainerStatuses": failed, "containerStatuses": ours});
    let says = Some("Error: container fetch: exit code 3".to_string());
    assert_eq!(standing_of(json!({}), status), (Phase::Ended, false, says));
    // One that runs on when ours has ended does not keep the pod's place.
    let ends = |state: &str| {
        let both = json!([
            worker(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))[0],
            other(json!({state: {}}))[0]
        ]);
        standing_of(json!({}), json!({"phase": "Running", "containerStatuses": both}))
    };
    assert_eq!(ends("running"), (Phase::Ended, false, Some("Completed: exit code 0".into())));
}

#[test]
fn running_pods_need_no_reason_and_lost_ones_have_one() {
    let runs = json!({"phase": "Running", "containerStatuses": worker(json!({"running": {}}))});
    assert_eq!(standing_of(json!({}), runs), (Phase::Running, false, None));
    let lost = json!({"phase": "Unknown", "reason": "NodeLost", "message": "node a is unresponsive"});
    let says = Some("NodeLost: node a is unresponsive".to_string());
    assert_eq!(standing_of(json!({}), lost), (Phase::Running, false, says));
    // The pod runs since another container does; ours has not been started.
    let half = json!({"phase": "Running", "containerStatuses": worker(json!({"waiting": {"reason": "ErrImagePull"}}))});
    assert_eq!(standing_of(json!({}), half), (Phase::Pending, false, Some("ErrImagePull".into())));
}

#[test]
fn ended_pods_say_what_ended_them() {
    let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let error = json!({"terminated": {"exitCode": 137, "reason": "Error"}});
    for (status, says) in [
        (
            json!({"phase": "Failed", "containerStatuses": worker(killed.clone())}),
            "OOMKilled: exit code 137, its memory limit is 4Gi",
        ),
        (
            json!({"phase": "Running", "containerStatuses": worker(killed.clone())}),
            "OOMKilled: exit code 137, its memory limit is 4Gi",
        ),
        // The kernel's killing is told although the pod was to go as well; an eviction is told although its container was killed.
        (
            json!({"phase": "Failed", "containerStatuses": worker(killed.clone()), "conditions": disrupted("PreemptionByScheduler")}),
            "OOMKilled: exit code 137, its memory limit is 4Gi",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage.",
                "containerStatuses": worker(error.clone()), "conditions": disrupted("TerminationByKubelet")}),
            "Evicted: The node was low on resource: ephemeral-storage.",
        ),
        (json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "too long"}), "DeadlineExceeded: too long"),
        (
            json!({"phase": "Failed", "reason": "Preempting", "message": "for a critical pod"}),
            "Preempting: for a critical pod",
        ),
        (json!({"phase": "Failed", "reason": "OutOfcpu"}), "OutOfcpu"),
        (
            json!({"phase": "Failed", "containerStatuses": worker(error.clone()), "conditions": disrupted("PreemptionByScheduler")}),
            "PreemptionByScheduler: it goes",
        ),
        (json!({"phase": "Failed", "containerStatuses": worker(error)}), "Error: exit code 137"),
        (
            json!({"phase": "Failed", "containerStatuses": worker(json!({"terminated": {"exitCode": 128, "signal": 9, "reason": "StartError", "message": "no such file"}}))}),
            "StartError: exit code 128, signal 9: no such file",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": worker(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))}),
            "Completed: exit code 0",
        ),
    ] {
        let leaving = status["conditions"] != Value::Null;
        assert_eq!(standing_of(json!({}), status.clone()), (Phase::Ended, leaving, Some(says.to_string())), "{status}");
    }
    assert_eq!(standing_of(json!({}), json!({"phase": "Failed"})), (Phase::Ended, false, None));
}

#[test]
fn the_limit_that_holds_is_told() {
    let mut state = worker(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
    state[0]["resources"] = json!({"limits": {"memory": "6Gi"}});
    let says = standing_of(json!({}), json!({"phase": "Failed", "containerStatuses": state})).2;
    assert_eq!(says.as_deref(), Some("OOMKilled: exit code 137, its memory limit is 6Gi"));
}

#[test]
fn pods_that_are_taken_away_leave_with_the_reason() {
    let running = worker(json!({"running": {}}));
    for word in [
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "DeletionByPodGC",
        "TerminationByKubelet",
    ] {
        let status = json!({"phase": "Running", "containerStatuses": running, "conditions": disrupted(word)});
        assert_eq!(standing_of(json!({}), status), (Phase::Running, true, Some(format!("{word}: it goes"))));
    }
    // Taken back: it stays.
    let back = json!([{"type": "DisruptionTarget", "status": "False", "reason": "PreemptionByScheduler"}]);
    let status = json!({"phase": "Running", "containerStatuses": running, "conditions": back});
    assert_eq!(standing_of(json!({}), status), (Phase::Running, false, None));
    let deleted = json!({"deletionTimestamp": "2026-01-02T03:04:05Z"});
    let status = json!({"phase": "Running", "containerStatuses": running});
    let says = Some("Deleted: it is deleted, and has until 2026-01-02T03:04:05Z to end".to_string());
    assert_eq!(standing_of(deleted.clone(), status), (Phase::Running, true, says));
    let status = json!({"phase": "Pending", "conditions": disrupted("DeletionByTaintManager")});
    assert_eq!(standing_of(deleted, status), (Phase::Pending, true, Some("DeletionByTaintManager: it goes".into())));
}

#[test]
fn reasons_have_bounds() {
    let long = reason(&"W".repeat(100), &format!("{}é", "x".repeat(255)));
    assert_eq!((long.word.len(), long.text.len()), (64, 255));
}
