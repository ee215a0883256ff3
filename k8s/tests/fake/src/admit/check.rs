//! What upstream refuses of objects, as far as clients meet it: names, labels, required fields and what must not change.

use serde_json::{Value, json};

use super::pod;
use crate::kinds::Kind;
use crate::selector::{Labels, is_key, is_label, is_subdomain, is_value};
use crate::status::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Object Names and IDs, "DNS Label Names".
pub(crate) fn label(value: &Value, path: &str, found: &mut Vec<Cause>) {
    let Some(text) = value.as_str() else { return };
    if !is_label(text) {
        found.push(Cause::invalid(path, value, LABEL));
    }
    if text.len() > 63 {
        found.push(Cause::invalid(path, value, "must be no more than 63 characters"));
    }
}

/// Names, labels and annotations (Object Names and IDs; Labels and Selectors, "Syntax and character set").
pub(crate) fn metadata(kind: &Kind, metadata: &Value, found: &mut Vec<Cause>) {
    let name = &metadata["name"];
    match name.as_str() {
        None | Some("") => found.push(Cause::required("metadata.name", "name or generateName is required")),
        Some(text) => match kind.storage.as_str() {
            "namespaces" | "services" => label(name, "metadata.name", found),
            // RBAC names are path segments, such as system:node (Object Names and IDs, "Path Segment Names").
            storage if storage.ends_with(".rbac.authorization.k8s.io") => {}
            _ if text.len() > 253 => {
                found.push(Cause::invalid("metadata.name", name, "must be no more than 253 characters"));
            }
            _ if !is_subdomain(text) => found.push(Cause::invalid("metadata.name", name, SUBDOMAIN)),
            _ => {}
        },
    }
    labels(&metadata["labels"], "metadata.labels", found);
    for key in metadata["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if !is_key(&key.to_lowercase()) {
            found.push(Cause::invalid("metadata.annotations", &json!(key), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                found.push(Cause::invalid(
                    format!("metadata.ownerReferences.{field}"),
                    &owner[field],
                    "must not be empty",
                ));
            }
        }
    }
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        let text = finalizer.as_str().unwrap_or_default();
        let standard = ["orphan", "foregroundDeletion", "kubernetes"].contains(&text);
        if !is_key(text) || (!standard && !text.contains('/') && kind.group != "apiextensions.k8s.io") {
            found.push(Cause::invalid(
                "metadata.finalizers",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

pub(crate) fn labels(labels: &Value, path: &str, found: &mut Vec<Cause>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if !is_key(key) {
            found.push(Cause::invalid(path, &json!(key), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc')"));
        }
        match value.as_str() {
            Some(text) if text.len() > 63 => {
                found.push(Cause::invalid(path, value, "must be no more than 63 characters"));
            }
            Some(text) if is_value(text) => {}
            _ => found.push(Cause::invalid(path, value, VALUE)),
        }
    }
}

/// What is wrong with an object that is new or has changed from `old`.
pub(crate) fn object(kind: &Kind, new: &Value, old: Option<&Value>, found: &mut Vec<Cause>) {
    metadata(kind, &new["metadata"], found);
    let spec = &new["spec"];
    match kind.storage.as_str() {
        "pods" => pod::spec(spec, "spec", old.map(|old| &old["spec"]), found),
        "statefulsets.apps" => stateful_set(spec, old, found),
        "jobs.batch" => job(spec, old, found),
        "secrets" | "configmaps" => contents(new, old, found),
        "services" => {
            for (index, port) in spec["ports"].as_array().into_iter().flatten().enumerate() {
                if port["port"].as_i64().is_none_or(|port| !(1..=65535).contains(&port)) {
                    let path = format!("spec.ports[{index}].port");
                    found.push(Cause::invalid(path, &port["port"], "must be between 1 and 65535, inclusive"));
                }
            }
            if old.is_some_and(|old| old["spec"]["clusterIP"] != spec["clusterIP"]) {
                found.push(Cause::invalid("spec.clusterIPs[0]", &spec["clusterIP"], "may not change once set"));
            }
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io"
            if old.is_some_and(|old| old["roleRef"] != new["roleRef"]) =>
        {
            found.push(Cause::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
        }
        "poddisruptionbudgets.policy" if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() => {
            let why = "minAvailable and maxUnavailable cannot be both set";
            found.push(Cause::invalid("spec", &json!("object"), why));
        }
        "persistentvolumeclaims" => claim(spec, old, found),
        "customresourcedefinitions.apiextensions.k8s.io" => {
            found.extend(crate::crd::check(new));
            for field in ["group", "scope"] {
                if old.is_some_and(|old| old["spec"][field] != spec[field]) {
                    found.push(Cause::invalid(format!("spec.{field}"), &spec[field], "field is immutable"));
                }
            }
        }
        _ => {}
    }
}

fn claim(spec: &Value, old: Option<&Value>, found: &mut Vec<Cause>) {
    if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
        found.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    if spec["resources"]["requests"]["storage"].is_null() {
        found.push(Cause::required("spec.resources[storage]", ""));
    }
    if let Some(old) = old {
        // The volume is bound later, and requests may grow.
        let fixed = |spec: &Value| {
            let mut spec = spec.clone();
            for field in ["resources", "volumeName", "volumeAttributesClassName"] {
                spec.as_object_mut().map(|spec| spec.remove(field));
            }
            spec
        };
        if fixed(spec) != fixed(&old["spec"]) {
            found.push(Cause::forbidden("spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"));
        }
    }
}

/// Immutable ConfigMaps and Secrets stay as they are; keys are file names; a Secret's type is fixed.
fn contents(new: &Value, old: Option<&Value>, found: &mut Vec<Cause>) {
    for field in ["data", "binaryData"] {
        for key in new[field].as_object().into_iter().flatten().map(|(key, _)| key) {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if key.is_empty() || key.len() > 253 || !key.chars().all(fits) {
                found.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    &json!(key),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                ));
            }
        }
    }
    let Some(old) = old else { return };
    if old["immutable"] == true && (new["immutable"] != true || old["data"] != new["data"]) {
        found.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
    }
    if !old["type"].is_null() && old["type"] != new["type"] {
        found.push(Cause::invalid("type", &new["type"], "field is immutable"));
    }
}

fn template_matches(spec: &Value, found: &mut Vec<Cause>) {
    let labels = &spec["template"]["metadata"]["labels"];
    match Labels::of_object(&spec["selector"]) {
        Some(selector) if selector != Labels::default() => {
            if !selector.matches(labels) {
                found.push(Cause::invalid(
                    "spec.template.metadata.labels",
                    labels,
                    "`selector` does not match template `labels`",
                ));
            }
        }
        _ => found.push(Cause::required("spec.selector", "")),
    }
}

fn stateful_set(spec: &Value, old: Option<&Value>, found: &mut Vec<Cause>) {
    template_matches(spec, found);
    labels(&spec["template"]["metadata"]["labels"], "spec.template.labels", found);
    // Claims are volumes of the pods that are made.
    let mut template = spec["template"]["spec"].clone();
    let claims = spec["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
    if !claims.is_empty() {
        let volumes = template["volumes"].as_array().cloned().unwrap_or_default();
        let claimed = |claim: &Value| json!({"name": claim["metadata"]["name"]});
        let own = volumes.iter().filter(|one| !claims.iter().any(|claim| claim["metadata"]["name"] == one["name"]));
        template["volumes"] = own.cloned().chain(claims.iter().map(claimed)).collect();
    }
    pod::spec(&template, "spec.template.spec", None, found);
    if spec["template"]["spec"]["restartPolicy"] != "Always" {
        found.push(Cause::unsupported(
            "spec.template.spec.restartPolicy",
            &spec["template"]["spec"]["restartPolicy"],
            &["Always"],
        ));
    }
    if let Some(old) = old {
        const FREE: [&str; 7] = [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ];
        let fixed = |spec: &Value| {
            let mut spec = spec.as_object().cloned().unwrap_or_default();
            spec.retain(|name, _| !FREE.contains(&name.as_str()));
            spec
        };
        if fixed(spec) != fixed(&old["spec"]) {
            found.push(Cause::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
        }
    }
}

fn job(spec: &Value, old: Option<&Value>, found: &mut Vec<Cause>) {
    template_matches(spec, found);
    pod::spec(&spec["template"]["spec"], "spec.template.spec", None, found);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy.is_null() {
        found.push(Cause::required("spec.template.spec.restartPolicy", "valid values: \"OnFailure\", \"Never\""));
    } else if policy != "OnFailure" && policy != "Never" {
        found.push(Cause::unsupported("spec.template.spec.restartPolicy", policy, &["OnFailure", "Never"]));
    }
    if let Some(old) = old {
        // A suspended job's template may change in scheduling directives; that is left out here.
        for field in ["completions", "selector", "template", "completionMode"] {
            if old["spec"][field] != spec[field] {
                found.push(Cause::invalid(format!("spec.{field}"), &json!("object"), "field is immutable"));
            }
        }
    }
}
