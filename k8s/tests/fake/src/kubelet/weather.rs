//! What happens to pods and nodes: kills, evictions, preemption, nodes that are lost.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::pod::Order;
use super::{Inner, Kubelet, node};
use crate::delete::{Options, disrupted, remove};
use crate::selector::Labels;
use crate::store::Key;

impl Kubelet {
    /// Kills a pod's processes: they end with 137, reason Error.
    pub fn kill(&self, namespace: &str, pod: &str) {
        self.inner.order(namespace, pod, || Order::Kill("Error"));
    }

    /// The kernel kills a pod's processes for their memory: 137, reason OOMKilled.
    pub fn oom(&self, namespace: &str, pod: &str) {
        self.inner.order(namespace, pod, || Order::Kill("OOMKilled"));
    }

    /// A pod's processes stand still, as those of a machine that swaps or of a paused virtual one do.
    pub fn stall(&self, namespace: &str, pod: &str) {
        self.inner.order(namespace, pod, || Order::Signal(Signal::STOP));
    }

    /// They go on.
    pub fn go_on(&self, namespace: &str, pod: &str) {
        self.inner.order(namespace, pod, || Order::Signal(Signal::CONT));
    }

    /// The kubelet evicts a pod because its node is under pressure (Node-pressure Eviction): it fails with the reason
    /// Evicted and this message, and stays to be looked at.
    pub fn evict(&self, namespace: &str, pod: &str, message: &str) {
        let key = Key::new("pods", namespace, pod);
        self.inner.shared.state().change(&key, "", "status", |pod| {
            disrupted(&mut pod["status"], "TerminationByKubelet", message);
            // A pod of processes says so itself when these have ended.
            pod["status"]["reason"] = json!("Evicted");
            pod["status"]["message"] = json!(message);
        });
        let runs = self.inner.runs().values().any(|run| run.namespace == namespace && run.name == pod);
        if runs {
            self.inner.order(namespace, pod, || Order::Evict);
        } else {
            self.inner.shared.state().change(&key, "", "status", |pod| pod["status"]["phase"] = json!("Failed"));
        }
        self.inner.event(&key, "Warning", "Evicted", message, "kubelet");
    }

    /// The scheduler makes room for a pod that matters more (Disruptions, "Pod disruption conditions"): a condition
    /// DisruptionTarget with the reason PreemptionByScheduler, and deletion with the pod's grace.
    pub fn preempt(&self, namespace: &str, pod: &str) {
        let key = Key::new("pods", namespace, pod);
        let message = "default-scheduler: preempting to accommodate a higher priority pod";
        self.inner.event(&key, "Normal", "Preempted", "Preempted by a pod on node", "default-scheduler");
        self.inner.disrupt(&key, "PreemptionByScheduler", message);
    }

    /// From now on, pods with these labels fit no node: PodScheduled is False with the reason Unschedulable and this
    /// message, and an event FailedScheduling says so.
    ///
    /// # Panics
    ///
    /// If the selector is none.
    pub fn unschedulable(&self, selector: &str, message: &str) {
        let labels = Labels::parse(selector).expect("a label selector");
        self.inner.weather().unschedulable.push((labels, message.into()));
        self.inner.woken.send_replace(());
    }

    /// All pods fit a node again.
    pub fn schedulable(&self) {
        self.inner.weather().unschedulable.clear();
        self.inner.woken.send_replace(());
    }

    /// From now on, this image cannot be pulled: containers wait with ErrImagePull and ImagePullBackOff.
    pub fn bad_image(&self, image: &str) {
        self.inner.weather().bad_images.insert(image.into());
    }

    /// This image can be pulled again; pods that wait for it try within a second.
    pub fn good_image(&self, image: &str) {
        self.inner.weather().bad_images.remove(image);
    }

    /// Whether the scheduler does nothing: then pods stay Pending.
    pub fn hold(&self, hold: bool) {
        self.inner.weather().hold = hold;
        self.inner.woken.send_replace(());
    }

    /// Whether pods that start from now on are no processes but seem to run at once.
    pub fn instant(&self, instant: bool) {
        self.inner.weather().instant = instant;
        self.inner.woken.send_replace(());
    }

    /// A node's machine dies: its processes are gone, and the node is no longer heard of, so that its condition Ready is
    /// Unknown. After the time, its pods are deleted with the reason DeletionByTaintManager (Taints and Tolerations, "Taint
    /// based Evictions"; five minutes by default) and stay terminating, as no kubelet says that they have ended.
    pub fn lose_node(&self, name: &str, evict_after: Duration) {
        self.inner.weather().lost.insert(name.into(), evict_after);
        self.inner.runs().retain(|_, run| run.node != name);
        node::unreachable(&self.inner.shared, name);
        let (weak, node) = (std::sync::Arc::downgrade(&self.inner), name.to_string());
        tokio::spawn(async move {
            tokio::time::sleep(evict_after).await;
            let Some(inner) = weak.upgrade() else { return };
            if inner.weather().lost.contains_key(&node) {
                inner.shared.wait_until_up().await;
                for key in inner.pods_of(&node) {
                    inner.disrupt(&key, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
                }
            }
        });
    }

    /// A lost node is there again: what was deleted meanwhile goes away, and what was not is looked at by its policy.
    pub fn find_node(&self, name: &str) {
        self.inner.weather().lost.remove(name);
        node::ready(&self.inner.shared, name);
        self.inner.woken.send_replace(());
    }

    /// The node is taken out of the cluster: its object is deleted, and its pods with it (Pod Lifecycle, "Garbage collection
    /// of Pods": orphaned pods, reason DeletionByPodGC).
    pub fn forget_node(&self, name: &str) {
        self.inner.runs().retain(|_, run| run.node != name);
        for key in self.inner.pods_of(name) {
            let message = "PodGC: node no longer exists";
            self.inner.shared.state().change(&key, "", "status", |pod| {
                disrupted(&mut pod["status"], "DeletionByPodGC", message);
                pod["status"]["phase"] = json!("Failed");
            });
            self.inner.delete(&key, Some(0));
        }
        self.inner.delete(&Key::new("nodes", "", name), None);
    }
}

impl Inner {
    fn pods_of(&self, node: &str) -> Vec<Key> {
        let state = self.shared.state();
        let text = |pod: &Value, name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_string();
        let all = state.store.list("pods", "").filter(|pod| pod["spec"]["nodeName"] == node);
        all.map(|pod| Key::new("pods", &text(pod, "namespace"), &text(pod, "name"))).collect()
    }

    fn disrupt(&self, key: &Key, reason: &str, message: &str) {
        self.shared.state().change(key, "", "status", |pod| disrupted(&mut pod["status"], reason, message));
        self.delete(key, None);
    }

    pub(super) fn delete(&self, key: &Key, grace: Option<i64>) {
        let mut state = self.shared.state();
        if let Some(kind) = state.stored_kind(&key.storage) {
            // It may be gone already.
            let _ = remove(&mut state, &kind, key, &Options { grace, ..Options::default() });
        }
    }

    /// An event about a pod, counted if it was told before.
    pub(super) fn event(&self, key: &Key, kind: &str, reason: &str, message: &str, component: &str) {
        let mut state = self.shared.state();
        if let Some(object) = state.store.get(key) {
            state.event(&object, kind, reason, message, component);
        }
    }
}
