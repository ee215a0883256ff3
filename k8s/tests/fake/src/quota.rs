//! How many pods a namespace may have.
//!
//! Resource Quotas, "Quota on object count": `pods` and `count/pods`; of the former, pods that have ended do not count.

use serde_json::{Value, json};

use crate::state::State;
use crate::status::Failure;

/// Whether one more pod fits.
pub(crate) fn check(state: &State, namespace: &str, name: &str) -> Result<(), Failure> {
    let set = state.faults.quota.map(|most| ("quota".to_string(), "pods", most));
    for (quota, resource, most) in set.into_iter().chain(quotas(state, namespace)) {
        let used = used(state, namespace, resource);
        if used >= most {
            let why = format!(
                "exceeded quota: {quota}, requested: {resource}=1, used: {resource}={used}, limited: {resource}={most}"
            );
            let kind = state.stored_kind("pods").ok_or_else(Failure::no_such_path)?;
            return Err(Failure::forbidden(&kind, name, &why));
        }
    }
    Ok(())
}

fn quotas(state: &State, namespace: &str) -> Vec<(String, &'static str, u64)> {
    let mut found = Vec::new();
    for quota in state.store.list("resourcequotas", namespace) {
        for resource in ["pods", "count/pods"] {
            let most = &quota["spec"]["hard"][resource];
            if let Some(most) = crate::admit::pod::quantity(most) {
                found.push((quota["metadata"]["name"].as_str().unwrap_or_default().to_string(), resource, most as u64));
            }
        }
    }
    found
}

fn used(state: &State, namespace: &str, resource: &str) -> u64 {
    let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    let counts = |pod: &Value| resource != "pods" || !ended(pod);
    state.store.list("pods", namespace).filter(|pod| counts(pod)).count() as u64
}

/// The status of a ResourceQuota as its controller writes it.
pub(crate) fn status(state: &State, quota: &Value) -> Value {
    let namespace = quota["metadata"]["namespace"].as_str().unwrap_or_default();
    let hard = quota["spec"]["hard"].as_object().cloned().unwrap_or_default();
    let counted = hard.keys().filter(|name| ["pods", "count/pods"].contains(&name.as_str()));
    let used: serde_json::Map<String, Value> =
        counted.map(|name| (name.clone(), json!(used(state, namespace, name).to_string()))).collect();
    json!({"hard": hard, "used": used})
}
