//! What upstream's controller manager tidies: dependents whose owners are gone, namespaces and definitions on their way
//! out, and the counts of budgets and quotas.
//!
//! Garbage Collection, "Owners and dependents" and "Cascading deletion"; Namespaces; CustomResourceDefinitions, "Delete a
//! CustomResourceDefinition".

use std::collections::{BTreeSet, HashMap};
use std::sync::Weak;
use std::time::Duration;

use serde_json::Value;

use crate::delete::{Options, remove};
use crate::state::{Shared, State};
use crate::store::Key;
use crate::{disruption, quota};

/// Upstream takes from milliseconds to seconds; nothing is to depend on its being at once.
const PAUSE: Duration = Duration::from_millis(20);

/// Tidies until the server is gone.
pub(crate) async fn run(shared: Weak<Shared>) {
    let Some(mut told) = shared.upgrade().map(|shared| shared.state().store.listen()) else { return };
    loop {
        let Some(strong) = shared.upgrade() else { return };
        strong.wait_until_up().await;
        {
            let mut state = strong.state();
            told.mark_unchanged();
            tidy(&mut state);
        }
        drop(strong);
        if told.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tidy(state: &mut State) {
    dependents(state);
    namespaces(state);
    definitions(state);
    counts(state);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn delete(state: &mut State, key: &Key, options: &Options) {
    if let Some(kind) = state.stored_kind(&key.storage) {
        let _ = remove(state, &kind, key, options);
    }
}

fn without(list: &mut Value, gone: &str) {
    if let Some(list) = list.as_array_mut() {
        list.retain(|one| one != gone);
    }
}

/// An owner as far as its dependents care.
struct Owner {
    /// It waits for its dependents to go first.
    foreground: bool,
    orphans: bool,
}

/// Deletes what has no owner any more, and does what the finalizers `foregroundDeletion` and `orphan` ask for.
fn dependents(state: &mut State) {
    let mut owners: HashMap<String, Owner> = HashMap::new();
    let mut dependents: Vec<(Key, Value)> = Vec::new();
    for (key, object) in state.store.all() {
        let metadata = &object["metadata"];
        let dying = metadata["deletionTimestamp"].is_string();
        let has = |name: &str| metadata["finalizers"].as_array().is_some_and(|list| list.iter().any(|one| one == name));
        let owner = Owner { foreground: dying && has("foregroundDeletion"), orphans: dying && has("orphan") };
        owners.insert(text(&metadata["uid"]).into(), owner);
        if metadata["ownerReferences"].as_array().is_some_and(|list| !list.is_empty()) {
            dependents.push((key.clone(), metadata.clone()));
        }
    }
    let mut blocked: BTreeSet<String> = BTreeSet::new();
    for (key, metadata) in dependents {
        let refs = metadata["ownerReferences"].as_array().cloned().unwrap_or_default();
        let owner_of = |one: &Value| owners.get(text(&one["uid"]));
        let orphaned: Vec<&Value> =
            refs.iter().filter(|one| owner_of(one).is_some_and(|owner| owner.orphans)).collect();
        if !orphaned.is_empty() {
            state.change(&key, text(&metadata["uid"]), "", |object| {
                let list = object["metadata"]["ownerReferences"].as_array_mut();
                list.into_iter().for_each(|list| list.retain(|one| !orphaned.contains(&one)));
            });
            continue;
        }
        // An owner that is there, and does not wait for this one, keeps it.
        let kept = refs.iter().any(|one| owner_of(one).is_some_and(|owner| !owner.foreground));
        for one in refs.iter().filter(|one| one["blockOwnerDeletion"] == true) {
            blocked.insert(text(&one["uid"]).into());
        }
        if !kept && metadata["deletionTimestamp"].is_null() {
            let options = Options { uid: text(&metadata["uid"]).into(), ..Options::default() };
            delete(state, &key, &options);
        }
    }
    finish_owners(state, &blocked);
}

/// Owners that wait for nobody any more go on.
fn finish_owners(state: &mut State, blocked: &BTreeSet<String>) {
    let waits = |object: &Value| {
        let metadata = &object["metadata"];
        metadata["deletionTimestamp"].is_string()
            && metadata["finalizers"]
                .as_array()
                .is_some_and(|list| list.iter().any(|one| one == "orphan" || one == "foregroundDeletion"))
    };
    let waiting: Vec<(Key, Value)> = state
        .store
        .all()
        .filter(|(_, object)| waits(object))
        .map(|(key, object)| (key.clone(), object["metadata"].clone()))
        .collect();
    for (key, metadata) in waiting {
        let uid = text(&metadata["uid"]).to_string();
        state.change(&key, &uid, "", |object| {
            without(&mut object["metadata"]["finalizers"], "orphan");
            if !blocked.contains(&uid) {
                without(&mut object["metadata"]["finalizers"], "foregroundDeletion");
            }
        });
    }
}

/// Empties namespaces that are being deleted, and lets them go when nothing is left.
fn namespaces(state: &mut State) {
    let dying = state.store.list("namespaces", "").filter(|one| one["metadata"]["deletionTimestamp"].is_string());
    let names: Vec<String> = dying.map(|one| text(&one["metadata"]["name"]).to_string()).collect();
    for name in names {
        let inside: Vec<Key> =
            state.store.all().map(|(key, _)| key).filter(|key| key.namespace == name).cloned().collect();
        for key in &inside {
            delete(state, key, &Options::default());
        }
        if !state.store.all().any(|(key, _)| key.namespace == name) {
            let key = Key::new("namespaces", "", &name);
            // Through the subresource `finalize`, upstream.
            state.change(&key, "", "finalize", |namespace| namespace["spec"]["finalizers"] = serde_json::json!([]));
        }
    }
}

/// Deletes the objects of definitions that are being deleted.
fn definitions(state: &mut State) {
    const STORAGE: &str = "customresourcedefinitions.apiextensions.k8s.io";
    let dying = state.store.list(STORAGE, "").filter(|one| one["metadata"]["deletionTimestamp"].is_string());
    let names: Vec<String> = dying.map(|one| text(&one["metadata"]["name"]).to_string()).collect();
    for name in names {
        let objects: Vec<Key> =
            state.store.all().map(|(key, _)| key).filter(|key| key.storage == name).cloned().collect();
        for key in &objects {
            delete(state, key, &Options::default());
        }
        if !state.store.all().any(|(key, _)| key.storage == name) {
            state.change(&Key::new(STORAGE, "", &name), "", "", |definition| {
                let finalizers = &mut definition["metadata"]["finalizers"];
                without(finalizers, "customresourcecleanup.apiextensions.k8s.io");
            });
        }
    }
}

/// Status of PodDisruptionBudgets and ResourceQuotas.
fn counts(state: &mut State) {
    type Count = fn(&State, &Value) -> Value;
    let all: [(&str, Count); 2] =
        [("poddisruptionbudgets.policy", disruption::status), ("resourcequotas", quota::status)];
    for (storage, count) in all {
        let found: Vec<(Key, Value)> = state
            .store
            .list(storage, "")
            .map(|object| {
                let metadata = &object["metadata"];
                let key = Key::new(storage, text(&metadata["namespace"]), text(&metadata["name"]));
                (key, count(state, object))
            })
            .collect();
        for (key, status) in found {
            if state.store.get(&key).is_some_and(|object| object["status"] != status) {
                state.change(&key, "", "status", |object| object["status"] = status);
            }
        }
    }
}
