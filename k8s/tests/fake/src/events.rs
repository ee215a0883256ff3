//! Events of both APIs are the same objects: they are kept as those of `v1`, and translated for `events.k8s.io/v1`.
//!
//! API reference, Event of events.k8s.io/v1: the fields `deprecated...`, `regarding`, `note` and `reportingController` are
//! those that `v1` calls by other words.

use serde_json::{Value, json};

const WORDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// From `v1` to `events.k8s.io/v1`.
pub(crate) fn newer(object: &mut Value) {
    rename(object, WORDS.iter().copied());
}

/// From `events.k8s.io/v1` to `v1`.
pub(crate) fn older(object: &mut Value) {
    rename(object, WORDS.iter().map(|(old, new)| (*new, *old)));
}

fn rename<'a>(object: &mut Value, words: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(object) = object.as_object_mut() else { return };
    for (from, to) in words {
        if let Some(value) = object.remove(from) {
            object.insert(to.into(), value);
        }
    }
}

impl crate::state::State {
    /// A component tells something about an object. Told again, it is counted (API reference, Event: `count`).
    pub(crate) fn event(&mut self, object: &Value, kind: &str, reason: &str, message: &str, component: &str) {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or("default");
        let same = |event: &&std::sync::Arc<Value>| {
            event["involvedObject"]["uid"] == metadata["uid"]
                && event["reason"] == reason
                && event["message"] == message
        };
        let before = self.store.list("events", namespace).find(same).cloned();
        let now = crate::state::now();
        if let Some(before) = before {
            let key =
                crate::store::Key::new("events", namespace, before["metadata"]["name"].as_str().unwrap_or_default());
            self.change(&key, "", "", |event| {
                event["count"] = json!(event["count"].as_i64().unwrap_or(1) + 1);
                event["lastTimestamp"] = json!(now);
            });
            return;
        }
        let name = format!("{}.{}", metadata["name"].as_str().unwrap_or_default(), &crate::state::secret()[..16]);
        let involved = json!({"kind": object["kind"], "apiVersion": object["apiVersion"], "name": metadata["name"],
            "namespace": namespace, "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]});
        let event = json!({"metadata": {"name": name}, "involvedObject": involved, "type": kind, "reason": reason,
            "message": message, "source": {"component": component}, "reportingComponent": component,
            "reportingInstance": "", "count": 1, "firstTimestamp": now, "lastTimestamp": now});
        // A namespace that is being emptied takes no events.
        let _ = self.system("events", namespace, event);
    }
}
