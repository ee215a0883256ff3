//! Get, list, create, update and patch.
//!
//! API concepts, "API verbs", "Retrieving large results sets in chunks", "Resource versions" and "Patches".

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::apply::{self, Writer};
use crate::kinds::unknown_fields;
use crate::patch::{Form, patched};
use crate::rbac::{Attributes, allowed};
use crate::selector::Selector;
use crate::state::{Ask, State, now};
use crate::status::Failure;
use crate::write::{By, decode, insert, replace, seen, shape};

/// What a request comes to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    /// For headers `Warning`.
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Answer {
        Answer { code: 200, body, warnings: Vec::new() }
    }
}

/// Reads JSON or YAML.
pub(crate) fn body(ask: &Ask) -> Result<Value, Failure> {
    if ask.content_type.contains("yaml") {
        let text = std::str::from_utf8(&ask.body).map_err(|error| Failure::bad_request(error.to_string()))?;
        return serde_saphyr::from_str(text)
            .map_err(|error| Failure::bad_request(format!("error parsing YAML: {error}")));
    }
    if ask.content_type.contains("protobuf") {
        return Err(Failure::unsupported_media("application/json, application/yaml"));
    }
    serde_json::from_slice(&ask.body)
        .map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: {error}")))
}

pub(crate) fn current(state: &State, ask: &Ask) -> Result<Arc<Value>, Failure> {
    state.store.get(&ask.key()).ok_or_else(|| Failure::not_found(&ask.kind, &ask.name))
}

/// Of a version that is not there yet: "Unavailable resource versions".
fn known_version(state: &State, version: &str) -> Result<Option<u64>, Failure> {
    if version.is_empty() || version == "0" {
        return Ok(None);
    }
    let Ok(number) = version.parse::<u64>() else {
        let message = format!(
            "resourceVersion: Invalid value: \"{version}\": strconv.ParseUint: parsing \"{version}\": invalid syntax"
        );
        return Err(Failure::bad_request(message));
    };
    if number > state.store.version() {
        let message = format!("Too large resource version: {number}, current: {}", state.store.version());
        let mut failure = Failure::new(504, "Timeout", message);
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        failure.details = json!({"causes": [cause], "retryAfterSeconds": 1});
        failure.retry_after = Some(1);
        return Err(failure);
    }
    Ok(Some(number))
}

pub(crate) fn get(state: &State, ask: &Ask) -> Result<Answer, Failure> {
    known_version(state, ask.param("resourceVersion"))?;
    let object = current(state, ask)?;
    if ask.sub == "scale" {
        return crate::scale::get(ask, &object).map(Answer::ok);
    }
    Ok(Answer::ok(seen(&ask.kind, &object)))
}

/// A list that goes on: its version, and the last object that was listed.
fn token(version: u64, object: &Value) -> String {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json!([version, namespace, metadata["name"]]).to_string())
}

fn of_token(token: &str) -> Result<(u64, String, String), Failure> {
    let invalid = || Failure::bad_request(format!("continue: Invalid value: \"{token}\": continue key is not valid"));
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    serde_json::from_slice(&bytes).map_err(|_| invalid())
}

pub(crate) fn list(state: &State, ask: &Ask) -> Result<Answer, Failure> {
    let selector = Selector::of_query(&ask.query, &ask.kind)?;
    let limit = match ask.param("limit") {
        "" => 0,
        text => text.parse::<usize>().map_err(|_| Failure::bad_request(format!("limit: Invalid value: \"{text}\"")))?,
    };
    let (version, after) = version_of_list(state, ask, limit > 0)?;
    let storage = &ask.kind.storage;
    let all: Vec<Arc<Value>> = match version {
        Some(version) => state.store.list_at(storage, &ask.namespace, version),
        None => state.store.list(storage, &ask.namespace).cloned().collect(),
    };
    let place = |object: &Value| {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_string();
        (text("namespace"), text("name"))
    };
    let later = |object: &&Arc<Value>| after.as_ref().is_none_or(|after| place(object) > *after);
    let found: Vec<&Arc<Value>> = all.iter().filter(later).filter(|object| selector.matches(object)).collect();
    let version = version.unwrap_or(state.store.version());
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let shown = if limit > 0 { limit.min(found.len()) } else { found.len() };
    if shown < found.len() {
        metadata["continue"] = json!(token(version, found[shown - 1]));
        // Of lists with selectors, upstream does not count what remains.
        if ask.param("labelSelector").is_empty() && ask.param("fieldSelector").is_empty() {
            metadata["remainingItemCount"] = json!(found.len() - shown);
        }
    }
    let items: Vec<Value> = found[..shown].iter().map(|object| seen(&ask.kind, object)).collect();
    Ok(Answer::ok(json!({
        "kind": format!("{}List", ask.kind.kind), "apiVersion": ask.kind.api_version(),
        "metadata": metadata, "items": items,
    })))
}

/// The version at which a list is answered, if it is an exact one, and the namespace and name after which it goes on.
type Page = (Option<u64>, Option<(String, String)>);

fn version_of_list(state: &State, ask: &Ask, paged: bool) -> Result<Page, Failure> {
    let (version, matching) = (ask.param("resourceVersion"), ask.param("resourceVersionMatch"));
    if !matching.is_empty() && version.is_empty() {
        let message =
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
        return Err(Failure::new(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {message}")));
    }
    let exists = |version: u64, message: &str| {
        if version < state.store.oldest() { Err(Failure::expired(message)) } else { Ok(version) }
    };
    match ask.param("continue") {
        "" => {}
        token => {
            if !version.is_empty() && version != "0" {
                return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
            }
            let (version, namespace, name) = of_token(token)?;
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";
            return Ok((Some(exists(version, message)?), Some((namespace, name))));
        }
    }
    let Some(version) = known_version(state, version)? else { return Ok((None, None)) };
    if matching == "Exact" || (matching.is_empty() && paged) {
        let message = "The resourceVersion for the provided list is too old.";
        return Ok((Some(exists(version, message)?), None));
    }
    Ok((None, None))
}

pub(crate) fn create(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let mut warnings = Vec::new();
    let object = decode(ask, body(ask)?, &mut warnings)?;
    let created = insert(state, ask, object, By::Update)?;
    Ok(Answer { code: 201, body: seen(&ask.kind, &created), warnings })
}

pub(crate) fn update(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let mut warnings = Vec::new();
    let old = current(state, ask)?;
    if ask.sub == "scale" {
        return crate::scale::update(state, ask, &old, &body(ask)?).map(Answer::ok);
    }
    let new = decode(ask, body(ask)?, &mut warnings)?;
    let written = replace(state, ask, &old, new, By::Update)?;
    Ok(Answer { code: 200, body: seen(&ask.kind, &written), warnings })
}

pub(crate) fn patch(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let custom = ask.kind.custom.is_some();
    let form = Form::of(&ask.content_type).filter(|form| !(custom && *form == Form::Strategic));
    let Some(form) = form else {
        // CustomResourceDefinitions, "Custom resources and patches": no strategic merge for custom resources.
        let all = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return Err(Failure::unsupported_media(all));
    };
    if ask.is("force") && form != Form::Apply {
        let message =
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
        return Err(Failure::new(422, "Invalid", message));
    }
    if form == Form::Apply {
        return apply(state, ask);
    }
    let old = current(state, ask)?;
    if ask.sub == "scale" {
        let scale = crate::scale::get(ask, &old)?;
        let scale = patched(form, &scale, &ask.body, crate::fields::Shape::Any)?;
        return crate::scale::update(state, ask, &old, &scale).map(Answer::ok);
    }
    let new = patched(form, &seen(&ask.kind, &old), &ask.body, shape(&ask.kind))?;
    let mut warnings = Vec::new();
    let new = decode(ask, new, &mut warnings)?;
    let written = replace(state, ask, &old, new, By::Update)?;
    Ok(Answer { code: 200, body: seen(&ask.kind, &written), warnings })
}

/// Server-Side Apply.
fn apply(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    if ask.param("fieldManager").is_empty() {
        let message =
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(Failure::new(422, "Invalid", message));
    }
    let mut applied = body(ask)?;
    for field in ["apiVersion", "kind"] {
        if applied[field].as_str().is_none_or(str::is_empty) {
            return Err(Failure::bad_request(format!("Object '{field}' is missing in the applied configuration")));
        }
    }
    if applied["metadata"]["name"].is_null() {
        applied["metadata"]["name"] = json!(ask.name);
    }
    declared(ask, &applied)?;
    only_of(ask, &mut applied);
    let old = state.store.get(&ask.key());
    let live = match &old {
        Some(old) => seen(&ask.kind, old),
        None if ask.sub.is_empty() => json!({}),
        None => return Err(Failure::not_found(&ask.kind, &ask.name)),
    };
    let writer = Writer { manager: ask.manager(), api_version: ask.kind.api_version(), subresource: ask.sub.clone() };
    let merged = apply::apply(&live, &applied, shape(&ask.kind), &writer, ask.is("force"), &now())?;
    let new = decode(ask, merged, &mut Vec::new())?;
    match old {
        Some(old) => {
            let written = replace(state, ask, &old, new, By::Apply)?;
            Ok(Answer::ok(seen(&ask.kind, &written)))
        }
        None => {
            // Authorization, "Request verbs": an apply that creates needs the right to create, too.
            let mut attributes = Attributes::of(ask, "create");
            attributes.name.clear();
            if !allowed(state, &ask.user, &attributes) {
                return Err(attributes.forbidden(&ask.kind, &ask.user));
            }
            let created = insert(state, ask, new, By::Apply)?;
            Ok(Answer { code: 201, body: seen(&ask.kind, &created), warnings: Vec::new() })
        }
    }
}

/// An applied configuration has no fields but declared ones, whatever the field validation.
fn declared(ask: &Ask, applied: &Value) -> Result<(), Failure> {
    let mut unknown = Vec::new();
    match (&ask.kind.custom, ask.kind.check) {
        (Some(custom), _) => {
            crate::schema::prune(&mut applied.clone(), &custom.schema, "", true, &mut unknown);
        }
        (None, Some(check)) => {
            let typed = check(applied).map_err(Failure::bad_request)?;
            unknown_fields(applied, &typed, "", &mut unknown);
        }
        (None, None) => {}
    }
    let Some(path) = unknown.first() else { return Ok(()) };
    let message = format!(
        "failed to create typed patch object ({}/{}; {}, Kind={}): .{path}: field not declared in schema",
        ask.namespace,
        ask.name,
        ask.kind.api_version(),
        ask.kind.kind
    );
    Err(Failure::new(500, "InternalError", message))
}

/// Of a configuration, what the resource or the subresource is for; the rest is nobody's.
fn only_of(ask: &Ask, applied: &mut Value) {
    let Some(object) = applied.as_object_mut() else { return };
    if ask.sub == "status" {
        object.retain(|name, _| ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()));
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            metadata.retain(|name, _| {
                ["name", "namespace", "uid", "resourceVersion", "managedFields"].contains(&name.as_str())
            });
        }
    } else if ask.kind.status {
        object.remove("status");
    }
}
