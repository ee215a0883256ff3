//! A pod's status, made of what its containers do.
//!
//! Pod Lifecycle, "Pod phase" and "Pod conditions".

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::container::{Container, Phase};
use crate::conditions;
use crate::state::now;

/// What a pod is, as a whole.
pub(super) fn phase(containers: &[Container], policy: &str, evicted: bool) -> &'static str {
    let init_failed = containers.iter().any(|one| one.init && one.is_done(policy) && one.exit_code() != Some(0));
    let main: Vec<&Container> = containers.iter().filter(|one| !one.init).collect();
    let all_ended = main.iter().all(|one| one.is_done(policy));
    let any_begun = main.iter().any(|one| one.restarts > 0 || !matches!(one.phase, Phase::Waiting(..)));
    if evicted || init_failed {
        return "Failed";
    }
    match (all_ended, any_begun) {
        (true, _) if main.iter().all(|one| one.exit_code() == Some(0)) => "Succeeded",
        (true, _) => "Failed",
        (false, true) => "Running",
        (false, false) => "Pending",
    }
}

fn statuses(containers: &[Container], init: bool) -> Vec<Value> {
    let of = containers.iter().filter(|one| one.init == init);
    let one = |container: &Container| {
        let last = container.last.as_ref().map_or(json!({}), |state| json!({"terminated": state}));
        let ready = if init { container.exit_code() == Some(0) } else { container.ready };
        json!({"name": container.spec["name"], "image": container.spec["image"], "imageID": "",
            "state": container.state(), "lastState": last, "ready": ready,
            "started": container.is_running() && container.startup, "restartCount": container.restarts})
    };
    of.map(one).collect()
}

/// Puts what is known into a status.
pub(super) fn write(
    status: &mut Value,
    containers: &[Container],
    policy: &str,
    evicted: bool,
    address: Ipv4Addr,
    begun: &str,
) {
    let now = now();
    let is = phase(containers, policy, evicted);
    status["phase"] = json!(is);
    status["startTime"] = json!(begun);
    status["hostIP"] = json!("127.0.0.1");
    status["hostIPs"] = json!([{"ip": "127.0.0.1"}]);
    status["podIP"] = json!(address.to_string());
    status["podIPs"] = json!([{"ip": address.to_string()}]);
    status["containerStatuses"] = json!(statuses(containers, false));
    let init = statuses(containers, true);
    let initialised = init.iter().all(|one| one["ready"] == true);
    if !init.is_empty() {
        status["initContainerStatuses"] = json!(init);
    }
    let ended = is == "Succeeded" || is == "Failed";
    let ready = !ended && containers.iter().all(|one| one.init || one.ready);
    let mut set = |kind: &str, holds: bool, reason: &str| {
        let word = if holds { "True" } else { "False" };
        let reason = match (holds, is) {
            (true, "Succeeded") | (false, "Succeeded") => "PodCompleted",
            (true, _) => "",
            (false, "Failed") => "PodFailed",
            (false, _) => reason,
        };
        conditions::set(status, kind, word, reason, "", &now);
    };
    set("PodReadyToStartContainers", !ended, "");
    set("Initialized", initialised, "ContainersNotInitialized");
    set("ContainersReady", ready, "ContainersNotReady");
    set("Ready", ready, "ContainersNotReady");
}
