//! The subresource `scale`: replicas of a StatefulSet, or of what a CustomResourceDefinition names so.
//!
//! API reference, Scale of autoscaling/v1; CustomResourceDefinitions, "Scale subresource".

use std::sync::Arc;

use serde_json::{Value, json};

use crate::state::{Ask, State};
use crate::status::Failure;
use crate::write::{By, replace};

fn paths(ask: &Ask) -> [String; 3] {
    let custom = ask.kind.custom.as_ref().and_then(|custom| custom.scale.clone());
    custom.unwrap_or_else(|| ["spec.replicas".into(), "status.replicas".into(), String::new()])
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|name| !name.is_empty()).fold(object, |value, name| &value[name])
}

fn labels(selector: &Value) -> String {
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}

/// The scale of an object.
pub(crate) fn get(ask: &Ask, object: &Value) -> Result<Value, Failure> {
    let [spec, status, selector] = paths(ask);
    let metadata = &object["metadata"];
    let selector = match selector.as_str() {
        "" => labels(&object["spec"]["selector"]),
        path => at(object, path).as_str().unwrap_or_default().to_string(),
    };
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {"replicas": at(object, &spec).as_i64().unwrap_or_default()},
        "status": {"replicas": at(object, &status).as_i64().unwrap_or_default(), "selector": selector},
    }))
}

/// Sets the replicas.
pub(crate) fn update(state: &mut State, ask: &Ask, old: &Arc<Value>, scale: &Value) -> Result<Value, Failure> {
    let Some(replicas) = scale["spec"]["replicas"].as_i64().filter(|replicas| *replicas >= 0) else {
        return Err(Failure::bad_request("spec.replicas: Invalid value: must be greater than or equal to 0"));
    };
    let [path, ..] = paths(ask);
    let mut new = (**old).clone();
    let place = path.split('.').filter(|name| !name.is_empty()).fold(&mut new, |value, name| &mut value[name]);
    *place = json!(replicas);
    if let Some(version) = scale["metadata"]["resourceVersion"].as_str() {
        new["metadata"]["resourceVersion"] = json!(version);
    }
    let written = replace(state, ask, old, new, By::Update)?;
    get(ask, &written)
}
