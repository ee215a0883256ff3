//! Which pods go where, and which begin, end and are gone: one look at all pods after every change.
//!
//! Kubernetes Scheduler; Assigning Pods to Nodes (nodeSelector and taints; affinity and resources are left out: what does
//! not fit is said by [`crate::Kubelet::unschedulable`]).

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::pod::Order;
use super::{Ends, Inner, Run, instant, node, pod};
use crate::conditions;
use crate::state::now;
use crate::store::Key;

/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn run(inner: Weak<Inner>) {
    let Some((mut told, mut woken)) =
        inner.upgrade().map(|inner| (inner.shared.state().store.listen(), inner.woken.subscribe()))
    else {
        return;
    };
    loop {
        let Some(strong) = inner.upgrade() else { return };
        strong.shared.wait_until_up().await;
        told.mark_unchanged();
        woken.mark_unchanged();
        look(&strong);
        drop(strong);
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            changed = woken.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn key(pod: &Value) -> Key {
    Key::new("pods", &text(&pod["metadata"]["namespace"]), &text(&pod["metadata"]["name"]))
}

fn look(inner: &Arc<Inner>) {
    let pods: Vec<Arc<Value>> = inner.shared.state().store.list("pods", "").cloned().collect();
    for pod in &pods {
        if text(&pod["spec"]["nodeName"]).is_empty() {
            schedule(inner, pod);
        } else {
            tend(inner, pod);
        }
    }
    let gone = |uid: &String| !pods.iter().any(|pod| pod["metadata"]["uid"] == *uid);
    for (_, run) in inner.runs().iter().filter(|(uid, _)| gone(uid)) {
        let _ = run.orders.send(Order::Gone);
    }
}

fn schedule(inner: &Arc<Inner>, pod: &Value) {
    let gated = pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty());
    let (key, uid) = (key(pod), text(&pod["metadata"]["uid"]));
    let mut weather = inner.weather();
    if weather.hold || gated || pod["metadata"]["deletionTimestamp"].is_string() {
        return;
    }
    let refused = weather.unschedulable.iter().find(|(labels, _)| labels.matches(&pod["metadata"]["labels"]));
    let refused = refused.map(|(_, message)| message.clone());
    let turn = weather.next_node;
    weather.next_node = turn.wrapping_add(1);
    drop(weather);
    let mut state = inner.shared.state();
    let nodes: Vec<Arc<Value>> = state.store.list("nodes", "").cloned().collect();
    let fitting: Vec<&Arc<Value>> = nodes.iter().filter(|node| node::fits(node, pod)).collect();
    let refused = refused.or_else(|| {
        let count = nodes.len();
        fitting.is_empty().then(|| {
            format!("0/{count} nodes are available: {count} node(s) didn't match Pod's node affinity/selector.")
        })
    });
    if let Some(message) = refused {
        let list = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut list = list.into_iter();
        if !list.any(|one| one["type"] == "PodScheduled" && one["message"] == message) {
            state.change(&key, &uid, "status", |pod| {
                conditions::set(&mut pod["status"], "PodScheduled", "False", "Unschedulable", &message, &now());
            });
            state.event(pod, "Warning", "FailedScheduling", &message, "default-scheduler");
        }
        return;
    }
    let name = text(&fitting[turn % fitting.len()]["metadata"]["name"]);
    state.change(&key, &uid, "binding", |pod| pod["spec"]["nodeName"] = json!(name));
    state.change(&key, &uid, "status", |pod| {
        conditions::set(&mut pod["status"], "PodScheduled", "True", "", "", &now());
    });
    let message = format!("Successfully assigned {}/{} to {name}", key.namespace, key.name);
    state.event(pod, "Normal", "Scheduled", &message, "default-scheduler");
}

/// Begins, or goes on with, a pod on its node.
fn tend(inner: &Arc<Inner>, pod: &Arc<Value>) {
    let node = text(&pod["spec"]["nodeName"]);
    let (quick, lost) = {
        let weather = inner.weather();
        (weather.instant, weather.lost.contains_key(&node))
    };
    if lost || inner.shared.state().get("nodes", "", &node).is_none() {
        return;
    }
    let (key, uid) = (key(pod), text(&pod["metadata"]["uid"]));
    let ended = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    let dying = pod["metadata"]["deletionTimestamp"].is_string();
    let mut runs = inner.runs();
    if let Some(run) = runs.get_mut(&uid) {
        let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
        if dying && run.ending != grace {
            run.ending = grace;
            let _ = run.orders.send(Order::Delete(grace.unwrap_or(30)));
        }
        return;
    }
    if dying {
        // Nothing of it runs here: it is let go. One that waits for finalizers is marked so once.
        drop(runs);
        if pod["metadata"]["deletionGracePeriodSeconds"] != 0 {
            inner.delete(&key, Some(0));
        }
    } else if ended {
    } else if quick {
        drop(runs);
        instant::start(inner, &key, pod);
    } else {
        let (orders, heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(pod::run(Arc::downgrade(inner), pod.clone(), heard));
        let run = Run { namespace: key.namespace, name: key.name, node, orders, ending: None, _task: Ends(task) };
        runs.insert(uid, run);
    }
}
