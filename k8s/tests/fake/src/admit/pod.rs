//! What upstream refuses of a pod's spec, and what it adds to a pod besides defaults: the service account's token, the
//! priority, tolerations of nodes that are lost for a while, the quality of service.

use serde_json::{Value, json};

use super::check::label;
use super::defaults::or;
use crate::status::Cause;

/// Where a service account's token is mounted (Configure Service Accounts for Pods).
pub(crate) const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What is wrong with a spec; `old` is what it changes from.
pub(crate) fn spec(spec: &Value, path: &str, old: Option<&Value>, found: &mut Vec<Cause>) {
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() {
        found.push(Cause::required(format!("{path}.containers"), ""));
    }
    let volumes: Vec<&Value> = spec["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]).collect();
    for (index, volume) in volumes.iter().enumerate() {
        label(volume, &format!("{path}.volumes[{index}].name"), found);
        if volumes[..index].contains(volume) {
            found.push(Cause::duplicate(format!("{path}.volumes[{index}].name"), volume));
        }
    }
    let mut names: Vec<&Value> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, one) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            container(one, &path, &volumes, found);
            if names.contains(&&one["name"]) {
                found.push(Cause::duplicate(format!("{path}.name"), &one["name"]));
            }
            names.push(&one["name"]);
        }
    }
    let policy = &spec["restartPolicy"];
    if !policy.is_null() && !["Always", "OnFailure", "Never"].iter().any(|one| policy == one) {
        found.push(Cause::unsupported(format!("{path}.restartPolicy"), policy, &["Always", "OnFailure", "Never"]));
    }
    label(&spec["hostname"], &format!("{path}.hostname"), found);
    label(&spec["subdomain"], &format!("{path}.subdomain"), found);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let value = &spec["terminationGracePeriodSeconds"];
        found.push(Cause::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            value,
            "must be greater than or equal to 0",
        ));
    }
    if let Some(old) = old
        && fixed(spec) != fixed(old)
    {
        // Pods, "Pod update and replacement".
        found.push(Cause::forbidden(path, "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
    }
}

/// A spec without what may change.
fn fixed(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        spec.as_object_mut().map(|spec| spec.remove(field));
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    spec
}

fn container(container: &Value, path: &str, volumes: &[&Value], found: &mut Vec<Cause>) {
    if container["name"].as_str().is_none_or(str::is_empty) {
        found.push(Cause::required(format!("{path}.name"), ""));
    } else {
        label(&container["name"], &format!("{path}.name"), found);
    }
    match container["image"].as_str() {
        None | Some("") => found.push(Cause::required(format!("{path}.image"), "")),
        Some(image) if image.trim() != image => {
            found.push(Cause::invalid(
                format!("{path}.image"),
                &container["image"],
                "must not have leading or trailing whitespace",
            ));
        }
        Some(_) => {}
    }
    let mut paths: Vec<&Value> = Vec::new();
    for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if !volumes.contains(&&mount["name"]) {
            let message = format!("Not found: {}", mount["name"]);
            found.push(Cause { reason: "FieldValueNotFound", field: format!("{path}.name"), message });
        }
        if mount["mountPath"].as_str().is_none_or(str::is_empty) {
            found.push(Cause::required(format!("{path}.mountPath"), ""));
        }
        if paths.contains(&&mount["mountPath"]) {
            found.push(Cause::invalid(format!("{path}.mountPath"), &mount["mountPath"], "must be unique"));
        }
        paths.push(&mount["mountPath"]);
    }
    for (index, env) in container["env"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.env[{index}]");
        if env["name"].as_str().is_none_or(str::is_empty) {
            found.push(Cause::required(format!("{path}.name"), ""));
        }
        if env["value"].as_str().is_some_and(|value| !value.is_empty()) && env["valueFrom"].is_object() {
            found.push(Cause::invalid(
                format!("{path}.valueFrom"),
                &json!(""),
                "may not be specified when `value` is not empty",
            ));
        }
    }
    let resources = &container["resources"];
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][name];
        if let (Some(asked), Some(most)) = (quantity(request), quantity(limit))
            && asked > most
        {
            let message =
                format!("must be less than or equal to {name} limit of {}", limit.as_str().unwrap_or_default());
            found.push(Cause::invalid(format!("{path}.resources.requests"), request, &message));
        }
    }
}

/// A quantity as a number (API reference, "Quantity"): `500m`, `2Gi`, `1e3`.
pub(crate) fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    const UNITS: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    if let Ok(number) = text.parse::<f64>() {
        return Some(number);
    }
    UNITS.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// Pod Quality of Service Classes, "Criteria".
pub(crate) fn quality(spec: &Value) -> &'static str {
    let all = ["initContainers", "containers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let (mut any, mut guaranteed) = (false, true);
    for container in all {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let (asked, most) = (quantity(&resources["requests"][name]), quantity(&resources["limits"][name]));
            any |= asked.is_some() || most.is_some();
            guaranteed &= most.is_some() && asked.is_none_or(|asked| Some(asked) == most);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What admission adds to a pod. `account` is the pod's ServiceAccount, `priority` what its class says.
pub(crate) fn admit(pod: &mut Value, account: &Value, priority: i64, suffix: &str) {
    let spec = &mut pod["spec"];
    or(spec, "serviceAccountName", json!("default"));
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    or(spec, "priority", json!(priority));
    or(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    or(spec, "enableServiceLinks", json!(true));
    // Taints and Tolerations, "Taint based Evictions": pods stay five minutes on a node that is lost.
    or(spec, "tolerations", json!([]));
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerations = spec["tolerations"].as_array_mut();
        if let Some(list) = tolerations.filter(|list| !list.iter().any(|one| one["key"] == key)) {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    let automatic = match spec["automountServiceAccountToken"].as_bool() {
        Some(automatic) => automatic,
        None => account["automountServiceAccountToken"] != false,
    };
    if automatic {
        mount_token(spec, suffix);
    }
}

/// Configure Service Accounts for Pods: a projected volume of token, CA and namespace, in every container.
fn mount_token(spec: &mut Value, suffix: &str) {
    let name = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            or(container, "volumeMounts", json!([]));
            let mounts = container["volumeMounts"].as_array_mut();
            let free = |mounts: &Vec<Value>| !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_FOLDER);
            if let Some(mounts) = mounts.filter(|mounts| free(mounts)) {
                mounts.push(json!({"name": name, "mountPath": TOKEN_FOLDER, "readOnly": true}));
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    or(spec, "volumes", json!([]));
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}});
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        for (text, number) in [("500m", 0.5), ("2Gi", 2_147_483_648.0), ("1", 1.0), ("3M", 3e6), ("1e3", 1000.0)] {
            assert_eq!(quantity(&json!(text)), Some(number), "{text}");
        }
        assert_eq!(quantity(&json!("x")), None);
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        let check = |value: Value, old: Option<&Value>| {
            let mut found = Vec::new();
            spec(&value, "spec", old, &mut found);
            found.into_iter().map(|cause| cause.field).collect::<Vec<_>>()
        };
        let good = json!({"containers": [{"name": "c", "image": "i"}]});
        assert_eq!(check(good.clone(), None), [""; 0]);
        assert_eq!(check(json!({}), None), ["spec.containers"]);
        assert_eq!(check(json!({"containers": [{"name": "c"}]}), None), ["spec.containers[0].image"]);
        let mount =
            json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]});
        assert_eq!(check(mount, None), ["spec.containers[0].volumeMounts[0].name"]);
        let mut image = good.clone();
        image["containers"][0]["image"] = json!("j");
        assert_eq!(check(image, Some(&good)), [""; 0]);
        let mut args = good.clone();
        args["containers"][0]["args"] = json!(["x"]);
        assert_eq!(check(args, Some(&good)), ["spec"]);
    }

    #[test]
    fn quality_follows_requests_and_limits() {
        let pod = |resources: Value| json!({"containers": [{"resources": resources}]});
        assert_eq!(quality(&pod(json!({}))), "BestEffort");
        assert_eq!(quality(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(quality(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
    }
}
