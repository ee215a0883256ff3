//! Node objects as kubelets and the node controller write them (Nodes; Node Status).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::conditions;
use crate::state::{Shared, now};
use crate::store::Key;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A node says that it is there.
pub(super) fn join(shared: &Arc<Shared>, name: &str, labels: &BTreeMap<String, String>) {
    let mut all = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    for (key, value) in labels {
        all[key] = json!(value);
    }
    let node = json!({"metadata": {"name": name, "labels": all}, "spec": {}});
    // One that is there already joins again.
    let _ = shared.state().system("nodes", "", node);
    let capacity = json!({"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "1000"});
    shared.state().change(&Key::new("nodes", "", name), "", "status", |node| {
        node["status"] = json!({"capacity": capacity, "allocatable": capacity,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}]});
        let message = "kubelet is posting ready status";
        conditions::set(&mut node["status"], "Ready", "True", "KubeletReady", message, &now());
    });
}

pub(super) fn ready(shared: &Arc<Shared>, name: &str) {
    let key = Key::new("nodes", "", name);
    let mut state = shared.state();
    state.change(&key, "", "status", |node| {
        let message = "kubelet is posting ready status";
        conditions::set(&mut node["status"], "Ready", "True", "KubeletReady", message, &now());
    });
    state.change(&key, "", "", |node| {
        if let Some(taints) = node["spec"]["taints"].as_array_mut() {
            taints.retain(|taint| taint["key"] != UNREACHABLE);
        }
    });
}

/// Nobody hears of a node any more: its condition, its taint, and its pods' readiness say so.
pub(super) fn unreachable(shared: &Arc<Shared>, name: &str) {
    let key = Key::new("nodes", "", name);
    let mut state = shared.state();
    state.change(&key, "", "status", |node| {
        let message = "Kubelet stopped posting node status.";
        conditions::set(&mut node["status"], "Ready", "Unknown", "NodeStatusUnknown", message, &now());
    });
    state.change(&key, "", "", |node| {
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let more = ["NoSchedule", "NoExecute"].map(|effect| json!({"key": UNREACHABLE, "effect": effect}));
        node["spec"]["taints"] = taints.into_iter().chain(more).collect();
    });
    let text = |pod: &Value, name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_string();
    let pods: Vec<Key> = state
        .store
        .list("pods", "")
        .filter(|pod| pod["spec"]["nodeName"] == name && conditions::holds(&pod["status"], "Ready"))
        .map(|pod| Key::new("pods", &text(pod, "namespace"), &text(pod, "name")))
        .collect();
    for pod in pods {
        state.change(&pod, "", "status", |pod| {
            conditions::set(&mut pod["status"], "Ready", "False", "NodeNotReady", "", &now());
        });
    }
}

/// Whether the scheduler may put a pod here.
pub(super) fn fits(node: &Value, pod: &Value) -> bool {
    let wanted = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    let labelled = wanted.into_iter().all(|(key, value)| node["metadata"]["labels"].get(key) == Some(value));
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let tolerated = |taint: &Value| {
        tolerations.iter().any(|one| {
            let key = one["key"].is_null() || one["key"] == taint["key"];
            let effect = one["effect"].is_null() || one["effect"] == taint["effect"];
            let exists = one["operator"] == "Exists";
            key && effect && (exists || one["value"] == taint["value"])
        })
    };
    let repels = |taint: &Value| taint["effect"] != "PreferNoSchedule" && !tolerated(taint);
    labelled
        && node["spec"]["unschedulable"] != true
        && conditions::holds(&node["status"], "Ready")
        && !taints.into_iter().any(repels)
}
