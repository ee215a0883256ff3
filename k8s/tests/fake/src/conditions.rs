//! Conditions of objects (API conventions, "Typical status properties").

use serde_json::{Value, json};

/// Sets a condition of a status; its time changes only with its status.
pub(crate) fn set(status: &mut Value, kind: &str, is: &str, reason: &str, message: &str, now: &str) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else { return };
    let mut condition = json!({"type": kind, "status": is, "lastTransitionTime": now});
    if !reason.is_empty() {
        condition["reason"] = json!(reason);
    }
    if !message.is_empty() {
        condition["message"] = json!(message);
    }
    match list.iter_mut().find(|one| one["type"] == kind) {
        Some(old) => {
            if old["status"] == is {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => list.push(condition),
    }
}

/// Whether a condition holds.
pub(crate) fn holds(status: &Value, kind: &str) -> bool {
    let list = status["conditions"].as_array().into_iter().flatten();
    list.into_iter().any(|one| one["type"] == kind && one["status"] == "True")
}
