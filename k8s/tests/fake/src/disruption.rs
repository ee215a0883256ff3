//! Budgets of disruptions: how many pods of a set may be down by evictions, and what the controller tells of it.
//!
//! Specifying a Disruption Budget for your Application; API-initiated Eviction, "How API-initiated eviction works".

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::conditions;
use crate::selector::Labels;
use crate::state::{State, now};
use crate::status::Failure;

/// Counts of a budget.
struct Counts {
    expected: i64,
    healthy: i64,
    desired: i64,
}

impl Counts {
    fn allowed(&self) -> i64 {
        (self.healthy - self.desired).max(0)
    }
}

/// `5`, or `"50%"` of something, rounded up.
fn scaled(value: &Value, of: i64) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            (percent * of + 99) / 100
        }
        value => value.as_i64().unwrap_or_default(),
    }
}

/// None if pods without a controller with a scale are to be counted by other than a number that must stay.
fn counts(state: &State, budget: &Value) -> Option<Counts> {
    let namespace = budget["metadata"]["namespace"].as_str().unwrap_or_default();
    let selector = Labels::of_object(&budget["spec"]["selector"])?;
    let pods: Vec<_> =
        state.store.list("pods", namespace).filter(|pod| selector.matches(&pod["metadata"]["labels"])).collect();
    let healthy =
        |pod: &Value| conditions::holds(&pod["status"], "Ready") && pod["metadata"]["deletionTimestamp"].is_null();
    let healthy = pods.iter().filter(|pod| healthy(pod)).count() as i64;
    let least = &budget["spec"]["minAvailable"];
    if least.is_number() {
        return Some(Counts { expected: pods.len() as i64, healthy, desired: scaled(least, 0) });
    }
    let mut owners = BTreeSet::new();
    for pod in &pods {
        let all = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let owner = all.into_iter().find(|owner| owner["controller"] == true)?;
        owners.insert((owner["kind"].as_str()?.to_string(), owner["name"].as_str()?.to_string()));
    }
    let mut expected = 0;
    for (kind, name) in owners {
        // Other kinds with a scale would count the same way.
        let object = (kind == "StatefulSet").then(|| state.get("statefulsets.apps", namespace, &name)).flatten()?;
        expected += object["spec"]["replicas"].as_i64().unwrap_or(1);
    }
    let desired = if least.is_null() {
        (expected - scaled(&budget["spec"]["maxUnavailable"], expected)).max(0)
    } else {
        scaled(least, expected)
    };
    Some(Counts { expected, healthy, desired })
}

/// The status of a budget.
pub(crate) fn status(state: &State, budget: &Value) -> Value {
    let mut status = budget["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let failed = Counts { expected: 0, healthy: 0, desired: 0 };
    let (counts, known) = counts(state, budget).map_or((failed, false), |counts| (counts, true));
    status["expectedPods"] = json!(counts.expected);
    status["currentHealthy"] = json!(counts.healthy);
    status["desiredHealthy"] = json!(counts.desired);
    status["disruptionsAllowed"] = json!(counts.allowed());
    status["observedGeneration"] = budget["metadata"]["generation"].clone();
    let (is, reason) = match (known, counts.allowed() > 0) {
        (false, _) => ("False", "SyncFailed"),
        (true, true) => ("True", "SufficientPods"),
        (true, false) => ("False", "InsufficientPods"),
    };
    conditions::set(&mut status, "DisruptionAllowed", is, reason, "", &now());
    status
}

/// Whether a pod may be evicted now.
pub(crate) fn permit(state: &State, pod: &Value) -> Result<(), Failure> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let covers = |budget: &&std::sync::Arc<Value>| {
        Labels::of_object(&budget["spec"]["selector"]).is_some_and(|all| all.matches(&pod["metadata"]["labels"]))
    };
    let budgets: Vec<_> = state.store.list("poddisruptionbudgets.policy", namespace).filter(covers).collect();
    let budget = match budgets[..] {
        [] => return Ok(()),
        [one] => one,
        _ => {
            let message =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Failure::new(500, "InternalError", message));
        }
    };
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let counts = counts(state, budget).unwrap_or(Counts { expected: 0, healthy: 0, desired: 1 });
    let ready = conditions::holds(&pod["status"], "Ready");
    // "unhealthyPodEvictionPolicy": pods that are not healthy do not count, if the others suffice or it is said so.
    let policy = budget["spec"]["unhealthyPodEvictionPolicy"].as_str().unwrap_or("IfHealthyBudget");
    let spare = !ready && (policy == "AlwaysAllow" || (counts.healthy >= counts.desired && counts.desired > 0));
    if spare || counts.allowed() > 0 {
        return Ok(());
    }
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut failure = Failure::new(429, "TooManyRequests", message);
    let why = format!(
        "The disruption budget {name} needs {} healthy pods and has {} currently",
        counts.desired, counts.healthy
    );
    failure.details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
    Err(failure)
}
