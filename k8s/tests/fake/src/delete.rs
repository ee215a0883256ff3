//! Deletion: preconditions, grace, finalizers, propagation, and eviction.
//!
//! API concepts, "Resource deletion"; Pod Lifecycle, "Termination of Pods"; Garbage Collection, "Cascading deletion";
//! API-initiated Eviction.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::disruption;
use crate::kinds::Kind;
use crate::selector::Selector;
use crate::state::{Ask, State, later, now};
use crate::status::{Failure, deleted};
use crate::store::Key;
use crate::verbs::Answer;
use crate::write::{seen, store};

/// What `DeleteOptions` say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) grace: Option<i64>,
    pub(crate) policy: String,
    pub(crate) uid: String,
    pub(crate) version: String,
    pub(crate) dry: bool,
}

impl Options {
    fn of(ask: &Ask) -> Result<Options, Failure> {
        let body = if ask.body.is_empty() { json!({}) } else { crate::verbs::body(ask)? };
        let mut options = Options::of_body(&body);
        if let Ok(seconds) = ask.param("gracePeriodSeconds").parse() {
            options.grace = Some(seconds);
        }
        if !ask.param("propagationPolicy").is_empty() {
            options.policy = ask.param("propagationPolicy").into();
        }
        options.dry |= ask.dry();
        if !["", "Orphan", "Background", "Foreground"].contains(&options.policy.as_str()) {
            let message = format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"{}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
                options.policy
            );
            return Err(Failure::new(422, "Invalid", message));
        }
        Ok(options)
    }

    fn of_body(body: &Value) -> Options {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        Options {
            grace: body["gracePeriodSeconds"].as_i64(),
            policy: text(&body["propagationPolicy"]),
            uid: text(&body["preconditions"]["uid"]),
            version: text(&body["preconditions"]["resourceVersion"]),
            dry: body["dryRun"].as_array().is_some_and(|list| list.iter().any(|one| one == "All")),
        }
    }
}

pub(crate) fn delete(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let options = Options::of(ask)?;
    let (object, gone) = remove(state, &ask.kind, &ask.key(), &options)?;
    if gone && !ask.kind.returns_deleted {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        return Ok(Answer::ok(deleted(&ask.kind, &ask.name, uid)));
    }
    Ok(Answer::ok(seen(&ask.kind, &object)))
}

/// Every object that the selectors select.
pub(crate) fn delete_collection(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let options = Options::of(ask)?;
    let selector = Selector::of_query(&ask.query, &ask.kind)?;
    let all = state.store.list(&ask.kind.storage, &ask.namespace).filter(|object| selector.matches(object));
    let keys: Vec<Key> = all.map(|object| key_of(&ask.kind, object)).collect();
    let mut items = Vec::new();
    for key in keys {
        let (object, _) = remove(state, &ask.kind, &key, &options)?;
        items.push(seen(&ask.kind, &object));
    }
    let metadata = json!({"resourceVersion": state.store.version().to_string()});
    let kind = format!("{}List", ask.kind.kind);
    Ok(Answer::ok(json!({"kind": kind, "apiVersion": ask.kind.api_version(), "metadata": metadata, "items": items})))
}

pub(crate) fn key_of(kind: &Kind, object: &Value) -> Key {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    Key::new(&kind.storage, text("namespace"), text("name"))
}

/// Deletes, or marks as being deleted; tells whether the object is gone.
pub(crate) fn remove(
    state: &mut State,
    kind: &Kind,
    key: &Key,
    options: &Options,
) -> Result<(Arc<Value>, bool), Failure> {
    let old = state.store.get(key).ok_or_else(|| Failure::not_found(kind, &key.name))?;
    for (wanted, field, word) in
        [(&options.uid, "uid", "UID"), (&options.version, "resourceVersion", "ResourceVersion")]
    {
        let is = old["metadata"][field].as_str().unwrap_or_default();
        if !wanted.is_empty() && wanted != is {
            let why = format!("Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {is}");
            return Err(Failure::conflict(kind, &key.name, &why));
        }
    }
    let mut new = (*old).clone();
    propagate(kind, &mut new, &options.policy);
    let grace = if kind.storage == "pods" { grace_of(&old, options.grace) } else { 0 };
    let metadata = &mut new["metadata"];
    let waiting = metadata["deletionTimestamp"].is_string();
    let current = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    if !waiting {
        metadata["deletionTimestamp"] = json!(later(grace));
        metadata["deletionGracePeriodSeconds"] = json!(grace);
        if let Some(generation) = metadata["generation"].as_i64() {
            metadata["generation"] = json!(generation + 1);
        }
    } else if grace < current {
        // A grace may be made shorter, never longer.
        metadata["deletionTimestamp"] = json!(later(grace));
        metadata["deletionGracePeriodSeconds"] = json!(grace);
    }
    if kind.storage == "namespaces" {
        new["status"] = json!({"phase": "Terminating"});
    }
    if options.dry {
        return Ok((Arc::new(new), false));
    }
    let stored = if new == *old { old } else { store(state, kind, key.clone(), new) };
    Ok((stored, state.store.get(key).is_none()))
}

/// Seconds that a pod has to end: none if it was never on a node, or has ended.
fn grace_of(pod: &Value, asked: Option<i64>) -> i64 {
    let unscheduled = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let ended = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    if unscheduled || ended {
        return 0;
    }
    let seconds = asked.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    if seconds < 0 { 1 } else { seconds }
}

/// Finalizers by which the garbage collector knows what to do with dependents, and the one of definitions.
fn propagate(kind: &Kind, object: &mut Value, policy: &str) {
    let finalizer = match policy {
        "Orphan" => Some("orphan"),
        "Foreground" => Some("foregroundDeletion"),
        _ => None,
    };
    let definition = kind.storage == "customresourcedefinitions.apiextensions.k8s.io";
    let cleanup = definition.then_some("customresourcecleanup.apiextensions.k8s.io");
    let waiting = object["metadata"]["deletionTimestamp"].is_string();
    for finalizer in finalizer.into_iter().chain(cleanup).filter(|_| !waiting) {
        let metadata = &mut object["metadata"];
        if metadata["finalizers"].is_null() {
            metadata["finalizers"] = json!([]);
        }
        let list = metadata["finalizers"].as_array_mut();
        if let Some(list) = list.filter(|list| !list.iter().any(|one| one == finalizer)) {
            list.push(json!(finalizer));
        }
    }
}

/// Sets the condition that tells why a pod is disrupted (Disruptions, "Pod disruption conditions").
pub(crate) fn disrupted(status: &mut Value, reason: &str, message: &str) {
    crate::conditions::set(status, "DisruptionTarget", "True", reason, message, &now());
}

/// Evicts a pod unless a budget forbids it.
pub(crate) fn evict(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let body = crate::verbs::body(ask)?;
    let pod = state.store.get(&ask.key()).ok_or_else(|| Failure::not_found(&ask.kind, &ask.name))?;
    let named = body["metadata"]["name"].as_str().unwrap_or(&ask.name);
    if named != ask.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options::of_body(&body["deleteOptions"]);
    options.dry |= ask.dry();
    // Pods that do not run yet, have ended or are on their way out go without asking.
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let free = ["Pending", "Succeeded", "Failed"].contains(&phase) || pod["metadata"]["deletionTimestamp"].is_string();
    if !free {
        disruption::permit(state, &pod)?;
    }
    if !options.dry {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let message = "Eviction API: evicting";
        state.change(&ask.key(), uid, "status", |pod| disrupted(&mut pod["status"], "EvictionByEvictionAPI", message));
    }
    remove(state, &ask.kind, &ask.key(), &options)?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer { code: 201, body: status, warnings: Vec::new() })
}
