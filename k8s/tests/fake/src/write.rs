//! The way of every write: reading the object, admission, validation, managers, and the write itself.
//!
//! API concepts, "Resource versions" and "Field validation"; API conventions, "Concurrency Control and Consistency" and
//! "Spec and Status".

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::admit::{check, defaults, pod, security};
use crate::apply::{Writer, track_update};
use crate::fields::Shape;
use crate::kinds::{Kind, unknown_fields};
use crate::state::{Ask, State, now, suffix, uid};
use crate::status::{Cause, Failure};
use crate::store::Key;
use crate::{crd, events, quota, schema};

/// Whether the managers of fields are still to be found out.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum By {
    Update,
    Apply,
}

/// The shape of a resource's objects.
pub(crate) fn shape(kind: &Kind) -> Shape<'_> {
    match &kind.custom {
        Some(custom) => Shape::Schema(&custom.schema),
        None => Shape::BuiltIn { kind: &kind.kind, parent: "", field: "" },
    }
}

/// An object as a client of this version sees it.
pub(crate) fn seen(kind: &Kind, stored: &Value) -> Value {
    let mut object = stored.clone();
    if kind.storage == "events" && !kind.group.is_empty() {
        events::newer(&mut object);
    }
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    object
}

/// An object as it is kept.
fn kept(kind: &Kind, mut object: Value) -> Value {
    if kind.storage == "events" {
        if !kind.group.is_empty() {
            events::older(&mut object);
        }
        object["apiVersion"] = json!("v1");
    }
    object
}

/// Reads an object that a client sent in this version; unknown fields are dropped, and warned of or refused.
///
/// API concepts, "Setting the field validation level": Warn unless the request says otherwise.
pub(crate) fn decode(ask: &Ask, mut object: Value, warnings: &mut Vec<String>) -> Result<Value, Failure> {
    let kind = &ask.kind;
    if !object.is_object() {
        return Err(Failure::bad_request("the object provided is unrecognized (must be an object)"));
    }
    let version = kind.api_version();
    for (field, expected) in [("apiVersion", &version), ("kind", &kind.kind)] {
        match object[field].as_str() {
            None | Some("") => object[field] = json!(expected),
            Some(given) if given != expected => {
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(Failure::bad_request(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                )));
            }
            Some(_) => {}
        }
    }
    let as_kind = |why: String| {
        let message = format!("{0} in version \"{1}\" cannot be handled as a {0}: {why}", kind.kind, kind.version);
        Failure::bad_request(message)
    };
    let mut unknown = Vec::new();
    let object = match (&kind.custom, kind.check) {
        (Some(custom), _) => {
            let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
            let typed: ObjectMeta =
                serde_json::from_value(metadata.clone()).map_err(|error| as_kind(error.to_string()))?;
            let typed = serde_json::to_value(typed).map_err(|error| as_kind(error.to_string()))?;
            unknown_fields(&metadata, &typed, "metadata", &mut unknown);
            object["metadata"] = typed;
            schema::prune(&mut object, &custom.schema, "", true, &mut unknown);
            schema::fill(&mut object, &custom.schema);
            object
        }
        (None, Some(check)) => {
            let typed = check(&object).map_err(as_kind)?;
            unknown_fields(&object, &typed, "", &mut unknown);
            typed
        }
        (None, None) => object,
    };
    let told: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match ask.param("fieldValidation") {
        "Ignore" => {}
        "Strict" if !told.is_empty() => {
            return Err(as_kind(format!("strict decoding error: {}", told.join(", "))));
        }
        "" | "Warn" | "Strict" => warnings.extend(told),
        other => {
            let message = format!("fieldValidation: Unsupported value: \"{other}\"");
            return Err(Failure::new(422, "Invalid", message));
        }
    }
    Ok(kept(kind, object))
}

fn writer(ask: &Ask) -> Writer {
    Writer { manager: ask.manager(), api_version: ask.kind.api_version(), subresource: ask.sub.clone() }
}

/// Creates an object that has been decoded.
pub(crate) fn insert(state: &mut State, ask: &Ask, mut object: Value, by: By) -> Result<Arc<Value>, Failure> {
    let kind = ask.kind.clone();
    place(ask, &mut object)?;
    let name = name_of(&mut object);
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if !version.is_empty() {
        // What upstream answers, though the fault is the client's.
        return Err(Failure::new(500, "InternalError", "resourceVersion should not be set on objects to be created"));
    }
    if kind.namespaced {
        within_namespace(state, ask, &name)?;
    }
    let address = if kind.storage == "services" { state.service_address() } else { String::new() };
    let metadata =
        object["metadata"].as_object_mut().ok_or_else(|| Failure::bad_request("metadata must be an object"))?;
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), json!(uid()));
    metadata.insert("creationTimestamp".into(), json!(now()));
    if kind.generation {
        metadata.insert("generation".into(), json!(1));
    } else {
        metadata.remove("generation");
    }
    if kind.status
        && let Some(object) = object.as_object_mut()
    {
        object.remove("status");
    }
    defaults::fill(&kind.storage, &mut object, &address);
    begin(state, ask, &name, &mut object)?;
    validate(&kind, &object, None, &name)?;
    let key = Key::new(&kind.storage, &ask.namespace, &name);
    if state.store.get(&key).is_some() {
        return Err(Failure::already_exists(&kind, &name));
    }
    if kind.storage == "pods" {
        quota::check(state, &ask.namespace, &name)?;
    }
    if by == By::Update {
        let managers = object["metadata"].as_object_mut().and_then(|metadata| metadata.remove("managedFields"));
        drop(managers);
        track_update(&json!({}), &mut object, shape(&kind), &writer(ask), &now());
    }
    if ask.dry() {
        return Ok(Arc::new(object));
    }
    let stored = state.store.put(key, object);
    begun(state, &kind, &name);
    Ok(stored)
}

/// The namespace of the path is the object's.
fn place(ask: &Ask, object: &mut Value) -> Result<(), Failure> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    let given = metadata["namespace"].as_str().unwrap_or_default().to_string();
    if given != ask.namespace && !given.is_empty() {
        let message = format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given} instead of {})",
            ask.namespace
        );
        return Err(Failure::bad_request(message));
    }
    if ask.kind.namespaced {
        metadata["namespace"] = json!(ask.namespace);
    } else {
        metadata.as_object_mut().map(|metadata| metadata.remove("namespace"));
    }
    Ok(())
}

/// The object's name, made of `generateName` if need be.
fn name_of(object: &mut Value) -> String {
    let metadata = &mut object["metadata"];
    let prefix = metadata["generateName"].as_str().unwrap_or_default().to_string();
    if metadata["name"].as_str().is_none_or(str::is_empty) && !prefix.is_empty() {
        // The whole name fits into 63 characters.
        let prefix: String = prefix.chars().take(58).collect();
        metadata["name"] = json!(format!("{prefix}{}", suffix()));
    }
    for field in ["name", "generateName"] {
        if metadata[field].is_null() {
            metadata.as_object_mut().map(|metadata| metadata.remove(field));
        }
    }
    metadata["name"].as_str().unwrap_or_default().to_string()
}

/// Namespaces, "Working with Namespaces": it must be there, and not on its way out.
fn within_namespace(state: &State, ask: &Ask, name: &str) -> Result<(), Failure> {
    let Some(namespace) = state.get("namespaces", "", &ask.namespace) else {
        let kind = state.stored_kind("namespaces").ok_or_else(Failure::no_such_path)?;
        return Err(Failure::not_found(&kind, &ask.namespace));
    };
    if namespace["metadata"]["deletionTimestamp"].is_string() {
        let why = format!("unable to create new content in namespace {} because it is being terminated", ask.namespace);
        let mut failure = Failure::forbidden(&ask.kind, name, &why);
        let message = format!("namespace {} is being terminated", ask.namespace);
        let cause = json!({"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"});
        failure.details["causes"] = json!([cause]);
        return Err(failure);
    }
    Ok(())
}

/// What an object of these resources has from its beginning.
fn begin(state: &State, ask: &Ask, name: &str, object: &mut Value) -> Result<(), Failure> {
    match ask.kind.storage.as_str() {
        "pods" => {
            let account = object["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_string();
            let Some(found) = state.get("serviceaccounts", &ask.namespace, &account) else {
                let why = format!(
                    "error looking up service account {0}/{account}: serviceaccount \"{account}\" not found",
                    ask.namespace
                );
                return Err(Failure::forbidden(&ask.kind, name, &why));
            };
            let class = object["spec"]["priorityClassName"].as_str().unwrap_or_default();
            let priority = match class {
                "" => 0,
                "system-cluster-critical" => 2_000_000_000,
                "system-node-critical" => 2_000_001_000,
                class => {
                    let found = state.get("priorityclasses.scheduling.k8s.io", "", class);
                    let why = format!("no PriorityClass with name {class} was found");
                    let found = found.ok_or_else(|| Failure::forbidden(&ask.kind, name, &why))?;
                    found["value"].as_i64().unwrap_or_default()
                }
            };
            pod::admit(object, &found, priority, &suffix());
            let namespace = state.get("namespaces", "", &ask.namespace);
            if let Some(why) = namespace.and_then(|namespace| security::refused(&namespace, &object["spec"])) {
                return Err(Failure::forbidden(&ask.kind, name, &why));
            }
            object["status"] = json!({"phase": "Pending", "qosClass": pod::quality(&object["spec"])});
        }
        "namespaces" => object["status"] = json!({"phase": "Active"}),
        "persistentvolumeclaims" => object["status"] = json!({"phase": "Pending"}),
        "statefulsets.apps" => object["status"] = json!({"replicas": 0, "availableReplicas": 0}),
        "customresourcedefinitions.apiextensions.k8s.io" => crd::established(object, &now()),
        _ => {}
    }
    Ok(())
}

/// What the control plane makes when an object of these resources is there.
fn begun(state: &mut State, kind: &Kind, name: &str) {
    match kind.storage.as_str() {
        "namespaces" => {
            let account = json!({"metadata": {"name": "default"}});
            let _ = state.system("serviceaccounts", name, account);
            let roots = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}});
            let _ = state.system("configmaps", name, roots);
        }
        "customresourcedefinitions.apiextensions.k8s.io" => state.refresh_kinds(),
        _ => {}
    }
}

fn validate(kind: &Kind, object: &Value, old: Option<&Value>, name: &str) -> Result<(), Failure> {
    let mut found: Vec<Cause> = Vec::new();
    match &kind.custom {
        Some(custom) => {
            check::metadata(kind, &object["metadata"], &mut found);
            schema::validate(object, &custom.schema, "", &mut found);
            // Rules run on what the schema allows, as upstream's do.
            if found.is_empty() {
                found = custom.broken_rules(object, old);
            }
        }
        None => check::object(kind, object, old, &mut found),
    }
    if found.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, name, found)) }
}

/// Writes a changed object, decoded and whole, in place of `old`.
pub(crate) fn replace(
    state: &mut State,
    ask: &Ask,
    old: &Arc<Value>,
    mut new: Value,
    by: By,
) -> Result<Arc<Value>, Failure> {
    let kind = ask.kind.clone();
    let name = ask.name.as_str();
    same_object(ask, old, &new)?;
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        keep(&mut new["metadata"], &old["metadata"], field);
    }
    defaults::fill(&kind.storage, &mut new, "");
    if kind.storage == "services" && new["spec"]["clusterIP"] == "" {
        for field in ["clusterIP", "clusterIPs"] {
            keep(&mut new["spec"], &old["spec"], field);
        }
    }
    let mut new = scoped(&kind, &ask.sub, old, new);
    let grown = added_finalizers(old, &new);
    if old["metadata"]["deletionTimestamp"].is_string() && !grown.is_empty() {
        let why =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers {grown:?}");
        return Err(Failure::invalid(&kind, name, vec![Cause::forbidden("metadata.finalizers", &why)]));
    }
    if ask.sub.is_empty() || kind.custom.is_some() {
        validate(&kind, &new, Some(old), name)?;
    }
    // A pod that is bound to its node is still the same wish.
    if kind.generation && ask.sub != "binding" && spec_changed(&kind, old, &new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        new["metadata"]["generation"] = json!(generation);
    }
    if by == By::Update {
        track_update(old, &mut new, shape(&kind), &writer(ask), &now());
    }
    if same_but_for_version(old, &new) {
        // Nothing is written, and the version stays.
        return Ok(old.clone());
    }
    if ask.dry() {
        return Ok(Arc::new(new));
    }
    Ok(store(state, &kind, ask.key(), new))
}

/// Writes, or takes away what was only waiting for its last finalizer (Finalizers, "How finalizers work").
pub(crate) fn store(state: &mut State, kind: &Kind, key: Key, new: Value) -> Arc<Value> {
    let metadata = &new["metadata"];
    let dying = metadata["deletionTimestamp"].is_string();
    let held = metadata["finalizers"].as_array().is_some_and(|list| !list.is_empty())
        || metadata["deletionGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds > 0)
        || (kind.storage == "namespaces" && new["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()));
    let stored = if dying && !held {
        let gone = Arc::new(new);
        state.store.remove(&key).unwrap_or(gone)
    } else {
        state.store.put(key, new)
    };
    if kind.storage == "customresourcedefinitions.apiextensions.k8s.io" {
        state.refresh_kinds();
    }
    stored
}

/// Whether the client means the object that is there: by version, uid, name and namespace.
fn same_object(ask: &Ask, old: &Value, new: &Value) -> Result<(), Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let name = text(&new["metadata"]["name"]);
    if name != ask.name {
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", ask.name);
        return Err(Failure::bad_request(message));
    }
    let namespace = text(&new["metadata"]["namespace"]);
    if !namespace.is_empty() && namespace != ask.namespace {
        return Err(Failure::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            ask.namespace
        )));
    }
    let (uid, was) = (text(&new["metadata"]["uid"]), text(&old["metadata"]["uid"]));
    if !uid.is_empty() && uid != was {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {was}");
        return Err(Failure::conflict(&ask.kind, &ask.name, &why));
    }
    let version = text(&new["metadata"]["resourceVersion"]);
    if version.is_empty() && !ask.kind.unconditional {
        let why = Cause::invalid("metadata.resourceVersion", &json!(""), "must be specified for an update");
        return Err(Failure::invalid(&ask.kind, &ask.name, vec![why]));
    }
    if !version.is_empty() && old["metadata"]["resourceVersion"] != version {
        return Err(Failure::modified(&ask.kind, &ask.name));
    }
    Ok(())
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(new) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => drop(new.insert(field.into(), value.clone())),
        None => drop(new.remove(field)),
    }
}

/// Only the status changes through `status`, and it changes nowhere else (API conventions, "Spec and Status";
/// CustomResourceDefinitions, "Status subresource").
fn scoped(kind: &Kind, sub: &str, old: &Value, mut new: Value) -> Value {
    match sub {
        "status" => {
            let mut scoped = old.clone();
            keep(&mut scoped, &new, "status");
            keep(&mut scoped["metadata"], &new["metadata"], "managedFields");
            if kind.custom.is_none() {
                for field in ["labels", "annotations"] {
                    keep(&mut scoped["metadata"], &new["metadata"], field);
                }
            }
            scoped
        }
        _ => {
            if kind.status {
                keep(&mut new, old, "status");
            }
            new
        }
    }
}

fn added_finalizers(old: &Value, new: &Value) -> Vec<String> {
    let list = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let had = list(old);
    list(new).iter().filter(|one| !had.contains(one)).filter_map(|one| one.as_str().map(String::from)).collect()
}

/// API conventions, "Metadata": generation is the sequence number of a desired state.
fn spec_changed(kind: &Kind, old: &Value, new: &Value) -> bool {
    if kind.custom.is_none() && kind.storage != "priorityclasses.scheduling.k8s.io" {
        return old["spec"] != new["spec"];
    }
    let desired = |object: &Value| {
        let mut object = object.as_object().cloned().unwrap_or_default();
        object.remove("metadata");
        if kind.status {
            object.remove("status");
        }
        object
    };
    desired(old) != desired(new)
}

fn same_but_for_version(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        object
    };
    bare(old) == bare(new)
}
