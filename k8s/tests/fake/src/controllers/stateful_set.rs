//! The controller of StatefulSets.
//!
//! StatefulSets: "Stable Network ID", "Stable Storage", "Deployment and Scaling Guarantees", "Pod Management Policies",
//! "Rolling Updates" (with its partition; OnDelete does nothing by itself).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{begin, controlled, delete, key, reference, set_status, text};
use crate::Server;
use crate::conditions;
use crate::kubelet::Ends;
use crate::state::State;
use crate::store::Key;

const STORAGE: &str = "statefulsets.apps";

/// Keeps the pods of StatefulSets as they are wanted, until it is dropped.
pub struct StatefulSets(#[expect(dead_code, reason = "its end is what it is for")] Ends);

impl StatefulSets {
    /// Begins. Must be called within a tokio runtime.
    pub fn start(server: &Server) -> StatefulSets {
        StatefulSets(begin(server, look))
    }
}

impl std::fmt::Debug for StatefulSets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatefulSets")
    }
}

fn look(state: &mut State) {
    let sets: Vec<Arc<Value>> = state.store.list(STORAGE, "").cloned().collect();
    for set in sets {
        if set["metadata"]["deletionTimestamp"].is_null() {
            tend(state, &set);
        }
        report(state, &set);
    }
}

/// The name of what a template says; upstream hashes it as well, in another way.
fn revision(set: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    set["spec"]["template"].to_string().hash(&mut hasher);
    format!("{}-{:010x}", text(&set["metadata"]["name"]), hasher.finish() & 0xff_ffff_ffff)
}

fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    let prefix = format!("{}-", text(&set["metadata"]["name"]));
    text(&pod["metadata"]["name"]).strip_prefix(&prefix)?.parse().ok()
}

fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && conditions::holds(&pod["status"], "Ready")
}

fn tend(state: &mut State, set: &Value) {
    let pods = controlled(state, set);
    let first = set["spec"]["ordinals"]["start"].as_i64().unwrap_or_default();
    let wanted = first..first + set["spec"]["replicas"].as_i64().unwrap_or(1);
    let parallel = set["spec"]["podManagementPolicy"] == "Parallel";
    for number in wanted.clone() {
        let pod = pods.iter().find(|pod| ordinal(set, pod) == Some(number));
        match pod {
            None => create(state, set, number),
            Some(pod) => {
                let phase = text(&pod["status"]["phase"]);
                let ended = phase == "Failed" || phase == "Succeeded";
                if ended && pod["metadata"]["deletionTimestamp"].is_null() {
                    delete(state, &key("pods", pod));
                }
            }
        }
        // Before the next one is begun, this one is ready.
        if !parallel && !pod.is_some_and(|pod| is_ready(pod)) {
            return;
        }
    }
    let mut beyond: Vec<&Arc<Value>> =
        pods.iter().filter(|pod| ordinal(set, pod).is_some_and(|number| !wanted.contains(&number))).collect();
    beyond.sort_by_key(|pod| std::cmp::Reverse(ordinal(set, pod)));
    for pod in beyond {
        let dying = pod["metadata"]["deletionTimestamp"].is_string();
        if !dying {
            delete(state, &key("pods", pod));
        }
        if !parallel {
            return;
        }
    }
    // One that is only now made again is not ready.
    let is_there = |number| pods.iter().any(|pod| ordinal(set, pod) == Some(number));
    if wanted.clone().all(is_there) {
        roll(state, set, &pods);
    }
}

/// One pod after another, from the last on, becomes what the template says now.
fn roll(state: &mut State, set: &Value, pods: &[Arc<Value>]) {
    let strategy = &set["spec"]["updateStrategy"];
    if strategy["type"] == "OnDelete" || !pods.iter().all(|pod| is_ready(pod)) {
        // A pod that is not ready and is old does not wait for itself.
        let stuck = pods.iter().filter(|pod| !is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null());
        let mut stuck = stuck.filter(|pod| pod["metadata"]["labels"]["controller-revision-hash"] != revision(set));
        if let (Some(pod), false) = (stuck.next(), strategy["type"] == "OnDelete") {
            delete(state, &key("pods", pod));
        }
        return;
    }
    let partition = strategy["rollingUpdate"]["partition"].as_i64().unwrap_or_default();
    let revision = revision(set);
    let old = pods.iter().filter(|pod| pod["metadata"]["labels"]["controller-revision-hash"] != revision);
    let old = old.filter(|pod| ordinal(set, pod).is_some_and(|number| number >= partition));
    if let Some(pod) = old.max_by_key(|pod| ordinal(set, pod)) {
        delete(state, &key("pods", pod));
    }
}

fn create(state: &mut State, set: &Value, number: i64) {
    let namespace = text(&set["metadata"]["namespace"]).to_string();
    let name = format!("{}-{number}", text(&set["metadata"]["name"]));
    let template = &set["spec"]["template"];
    let mut spec = template["spec"].clone();
    spec["hostname"] = json!(name);
    spec["subdomain"] = set["spec"]["serviceName"].clone();
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    for claim in set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
        let own = text(&claim["metadata"]["name"]);
        let claimed = format!("{own}-{name}");
        if state.store.get(&Key::new("persistentvolumeclaims", &namespace, &claimed)).is_none() {
            let labels = &set["spec"]["selector"]["matchLabels"];
            let mut claim = json!({"metadata": claim["metadata"], "spec": claim["spec"]});
            claim["metadata"]["name"] = json!(claimed);
            claim["metadata"]["labels"] = labels.clone();
            if let Err(error) = state.system("persistentvolumeclaims", &namespace, claim) {
                return state.event(set, "Warning", "FailedCreate", &error, "statefulset-controller");
            }
        }
        volumes.retain(|volume| volume["name"] != own);
        volumes.push(json!({"name": own, "persistentVolumeClaim": {"claimName": claimed}}));
    }
    if !volumes.is_empty() {
        spec["volumes"] = json!(volumes);
    }
    let mut metadata = json!({"name": name, "labels": template["metadata"]["labels"],
        "annotations": template["metadata"]["annotations"], "ownerReferences": [reference(set)]});
    for (label, value) in [
        ("controller-revision-hash", revision(set)),
        ("statefulset.kubernetes.io/pod-name", name.clone()),
        ("apps.kubernetes.io/pod-index", number.to_string()),
    ] {
        metadata["labels"][label] = json!(value);
    }
    match state.system("pods", &namespace, json!({"metadata": metadata, "spec": spec})) {
        Ok(_) => {
            let set_name = text(&set["metadata"]["name"]);
            let message = format!("create Pod {name} in StatefulSet {set_name} successful");
            state.event(set, "Normal", "SuccessfulCreate", &message, "statefulset-controller");
        }
        Err(error) => {
            let message = format!("create Pod {name} in StatefulSet failed error: {error}");
            state.event(set, "Warning", "FailedCreate", &message, "statefulset-controller");
        }
    }
}

fn report(state: &mut State, set: &Value) {
    let Some(set) = state.store.get(&key(STORAGE, set)) else { return };
    let pods = controlled(state, &set);
    let revision = revision(&set);
    let updated = |pod: &&Arc<Value>| pod["metadata"]["labels"]["controller-revision-hash"] == revision;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let mut status = set["status"].clone();
    let all_new = pods.iter().filter(updated).count() == pods.len();
    let current = match status["currentRevision"].as_str() {
        Some(current) if !all_new => current.to_string(),
        _ => revision.clone(),
    };
    let of_current = pods.iter().filter(|pod| pod["metadata"]["labels"]["controller-revision-hash"] == current).count();
    for (field, value) in [
        ("replicas", json!(pods.len())),
        ("readyReplicas", json!(ready)),
        ("availableReplicas", json!(ready)),
        ("currentReplicas", json!(of_current)),
        ("updatedReplicas", json!(pods.iter().filter(updated).count())),
        ("currentRevision", json!(current)),
        ("updateRevision", json!(revision)),
        ("observedGeneration", set["metadata"]["generation"].clone()),
        ("collisionCount", json!(0)),
    ] {
        status[field] = value;
    }
    set_status(state, STORAGE, &set, status);
}
