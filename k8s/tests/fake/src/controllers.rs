//! Controllers of workloads, as upstream's controller manager has them: they look at everything after every change.

pub(crate) mod job;
pub(crate) mod stateful_set;

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;

use crate::Server;
use crate::delete::{Options, remove};
use crate::kubelet::Ends;
use crate::state::{Shared, State};
use crate::store::Key;

/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(10);

/// What time alone brings about is seen so often.
const TICK: Duration = Duration::from_secs(1);

/// Lets `act` look at the state after every change, and once a second.
fn begin(server: &Server, mut act: impl FnMut(&mut State) + Send + 'static) -> Ends {
    let shared: Weak<Shared> = Arc::downgrade(&server.shared);
    let mut told = server.shared.state().store.listen();
    Ends(tokio::spawn(async move {
        loop {
            let Some(strong) = shared.upgrade() else { return };
            strong.wait_until_up().await;
            told.mark_unchanged();
            act(&mut strong.state());
            drop(strong);
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn key(storage: &str, object: &Value) -> Key {
    Key::new(storage, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

/// The pods that an object controls.
fn controlled(state: &State, owner: &Value) -> Vec<Arc<Value>> {
    let uid = &owner["metadata"]["uid"];
    let is = |pod: &&Arc<Value>| {
        let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.into_iter().any(|one| one["controller"] == true && one["uid"] == *uid)
    };
    state.store.list("pods", text(&owner["metadata"]["namespace"])).filter(is).cloned().collect()
}

/// The reference of a controlled object to its controller.
fn reference(owner: &Value) -> Value {
    serde_json::json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true})
}

fn delete(state: &mut State, key: &Key) {
    if let Some(kind) = state.stored_kind(&key.storage) {
        // It may be gone already.
        let _ = remove(state, &kind, key, &Options::default());
    }
}

fn set_status(state: &mut State, storage: &str, object: &Value, status: Value) {
    if object["status"] != status {
        let uid = text(&object["metadata"]["uid"]).to_string();
        state.change(&key(storage, object), &uid, "status", |object| object["status"] = status);
    }
}
