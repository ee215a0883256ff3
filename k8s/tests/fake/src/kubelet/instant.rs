//! Pods that are no processes: they seem to run and to be ready at once, for tests with hundreds of them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Inner;
use crate::conditions;
use crate::state::now;
use crate::store::Key;

/// Says that a pod runs.
pub(super) fn start(inner: &Arc<Inner>, key: &Key, pod: &Value) {
    if pod["status"]["phase"] == "Running" {
        return;
    }
    let bad = |container: &Value| {
        let image = container["image"].as_str().unwrap_or_default();
        inner.weather().bad_images.contains(image)
    };
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let waits = containers.iter().any(bad);
    if waits && pod["status"]["containerStatuses"].is_array() {
        return;
    }
    let address = inner.address(&key.namespace, &key.name).to_string();
    let now = now();
    let one = |container: &Value| {
        let state = if waits {
            json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling image {}", container["image"])}})
        } else {
            json!({"running": {"startedAt": now}})
        };
        json!({"name": container["name"], "image": container["image"], "imageID": "", "state": state, "lastState": {},
            "ready": !waits, "started": !waits, "restartCount": 0})
    };
    let statuses: Vec<Value> = containers.iter().map(one).collect();
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    inner.shared.state().change(key, uid, "status", |pod| {
        let status = &mut pod["status"];
        status["phase"] = json!(if waits { "Pending" } else { "Running" });
        status["containerStatuses"] = json!(statuses);
        status["startTime"] = json!(now);
        status["podIP"] = json!(address);
        status["podIPs"] = json!([{"ip": address}]);
        status["hostIP"] = json!("127.0.0.1");
        for condition in ["PodReadyToStartContainers", "Initialized"] {
            conditions::set(status, condition, "True", "", "", &now);
        }
        for condition in ["ContainersReady", "Ready"] {
            let (is, reason) = if waits { ("False", "ContainersNotReady") } else { ("True", "") };
            conditions::set(status, condition, is, reason, "", &now);
        }
    });
}
