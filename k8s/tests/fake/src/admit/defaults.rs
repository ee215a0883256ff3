//! Defaults of built-in objects, as the API reference gives them field by field.

use serde_json::{Value, json};

/// Sets a field that is missing.
pub(crate) fn or(object: &mut Value, name: &str, value: Value) {
    if object[name].is_null() {
        object[name] = value;
    }
}

fn each(list: &mut Value, mut act: impl FnMut(&mut Value)) {
    list.as_array_mut().into_iter().flatten().for_each(&mut act);
}

/// Fills in what a client left out. `ip` is an address for a Service that has none.
pub(crate) fn fill(storage: &str, object: &mut Value, ip: &str) {
    match storage {
        "pods" => pod_spec(&mut object["spec"], true),
        "namespaces" => {
            let name = object["metadata"]["name"].clone();
            or(&mut object["metadata"], "labels", json!({}));
            // Well-Known Labels, "kubernetes.io/metadata.name".
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            or(object, "spec", json!({"finalizers": ["kubernetes"]}));
        }
        "secrets" => {
            or(object, "type", json!("Opaque"));
            written_secret(object);
        }
        "services" => service(&mut object["spec"], ip),
        "statefulsets.apps" => stateful_set(&mut object["spec"]),
        "jobs.batch" => job(object),
        "persistentvolumeclaims" => or(&mut object["spec"], "volumeMode", json!("Filesystem")),
        "storageclasses.storage.k8s.io" => {
            or(object, "reclaimPolicy", json!("Delete"));
            or(object, "volumeBindingMode", json!("Immediate"));
        }
        "networkpolicies.networking.k8s.io" => {
            let egress = object["spec"]["egress"].is_array();
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            or(&mut object["spec"], "policyTypes", types);
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            or(&mut object["roleRef"], "apiGroup", json!("rbac.authorization.k8s.io"));
        }
        "customresourcedefinitions.apiextensions.k8s.io" => {
            let kind = object["spec"]["names"]["kind"].as_str().unwrap_or_default().to_string();
            or(&mut object["spec"]["names"], "singular", json!(kind.to_lowercase()));
            or(&mut object["spec"]["names"], "listKind", json!(format!("{kind}List")));
            or(&mut object["spec"], "conversion", json!({"strategy": "None"}));
        }
        _ => {}
    }
}

/// `stringData` is written into `data` and never read (API reference, Secret).
fn written_secret(secret: &mut Value) {
    use base64::Engine;
    let Some(text) = secret.as_object_mut().and_then(|secret| secret.remove("stringData")) else { return };
    or(secret, "data", json!({}));
    for (name, value) in text.as_object().into_iter().flatten() {
        let bytes = value.as_str().unwrap_or_default();
        secret["data"][name] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    }
}

fn service(spec: &mut Value, ip: &str) {
    if spec.is_null() {
        *spec = json!({});
    }
    or(spec, "type", json!("ClusterIP"));
    or(spec, "sessionAffinity", json!("None"));
    or(spec, "internalTrafficPolicy", json!("Cluster"));
    or(spec, "ipFamilies", json!(["IPv4"]));
    or(spec, "ipFamilyPolicy", json!("SingleStack"));
    if spec["type"] != "ExternalName" {
        or(spec, "clusterIP", json!(ip));
        let ips = json!([spec["clusterIP"]]);
        or(spec, "clusterIPs", ips);
    }
    each(&mut spec["ports"], |port| {
        or(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        or(port, "targetPort", number);
    });
    if spec["ports"].is_null() {
        spec.as_object_mut().map(|spec| spec.remove("ports"));
    }
}

fn stateful_set(spec: &mut Value) {
    or(spec, "replicas", json!(1));
    or(spec, "podManagementPolicy", json!("OrderedReady"));
    or(spec, "revisionHistoryLimit", json!(10));
    or(spec, "updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    or(spec, "persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    pod_spec(&mut spec["template"]["spec"], true);
    if let Some(claims) = spec["volumeClaimTemplates"].as_array_mut() {
        for claim in claims {
            or(claim, "apiVersion", json!("v1"));
            or(claim, "kind", json!("PersistentVolumeClaim"));
            or(&mut claim["spec"], "volumeMode", json!("Filesystem"));
            or(claim, "status", json!({"phase": "Pending"}));
        }
    }
}

/// Jobs, "Job selector": unless the user picks one, it is made of the job's uid, which the caller has set.
fn job(object: &mut Value) {
    let (name, uid) = (object["metadata"]["name"].clone(), object["metadata"]["uid"].clone());
    let spec = &mut object["spec"];
    for (field, value) in [
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        or(spec, field, value);
    }
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = json!(1);
    }
    or(spec, "parallelism", json!(1));
    if spec["manualSelector"] == false && uid.is_string() {
        or(spec, "selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
        or(&mut spec["template"], "metadata", json!({}));
        or(&mut spec["template"]["metadata"], "labels", json!({}));
        let labels = &mut spec["template"]["metadata"]["labels"];
        for (label, value) in [("controller-uid", &uid), ("job-name", &name)] {
            labels[label] = value.clone();
            labels[format!("batch.kubernetes.io/{label}")] = value.clone();
        }
    }
    pod_spec(&mut spec["template"]["spec"], false);
}

/// A pod's spec. A Job's has no default for when to start again: it must say so.
fn pod_spec(spec: &mut Value, restarts: bool) {
    if !spec.is_object() {
        return;
    }
    if restarts {
        or(spec, "restartPolicy", json!("Always"));
    }
    or(spec, "terminationGracePeriodSeconds", json!(30));
    or(spec, "dnsPolicy", json!("ClusterFirst"));
    or(spec, "schedulerName", json!("default-scheduler"));
    or(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        each(&mut spec[list], container);
        if spec[list].is_null() {
            spec.as_object_mut().map(|spec| spec.remove(list));
        }
    }
    each(&mut spec["volumes"], volume);
    if spec["volumes"].is_null() {
        spec.as_object_mut().map(|spec| spec.remove("volumes"));
    }
}

fn container(container: &mut Value) {
    or(container, "terminationMessagePath", json!("/dev/termination-log"));
    or(container, "terminationMessagePolicy", json!("File"));
    or(container, "resources", json!({}));
    let image = container["image"].as_str().unwrap_or_default();
    // Images, "Imagepullpolicy defaulting".
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    or(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
    // Resource Management, "Requests and limits": a limit without a request is the request too.
    if let Some(limits) = container["resources"]["limits"].as_object().cloned() {
        or(&mut container["resources"], "requests", json!({}));
        for (name, limit) in limits {
            or(&mut container["resources"]["requests"], &name, limit);
        }
    }
    let Some(fields) = container.as_object_mut() else { return };
    each(fields.get_mut("ports").unwrap_or(&mut Value::Null), |port| or(port, "protocol", json!("TCP")));
    each(fields.get_mut("env").unwrap_or(&mut Value::Null), |env| {
        if env["valueFrom"]["fieldRef"].is_object() {
            or(&mut env["valueFrom"]["fieldRef"], "apiVersion", json!("v1"));
        }
        if env["valueFrom"].is_null() {
            env.as_object_mut().map(|env| env.remove("valueFrom"));
        }
    });
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = fields.get_mut(probe).filter(|probe| probe.is_object()) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            or(probe, field, json!(value));
        }
        if probe["httpGet"].is_object() {
            or(&mut probe["httpGet"], "scheme", json!("HTTP"));
            or(&mut probe["httpGet"], "path", json!("/"));
        } else {
            probe.as_object_mut().map(|probe| probe.remove("httpGet"));
        }
    }
}

fn volume(volume: &mut Value) {
    let modes = [
        ("configMap", "defaultMode"),
        ("secret", "defaultMode"),
        ("projected", "defaultMode"),
        ("downwardAPI", "defaultMode"),
    ];
    for (source, field) in modes {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            or(source, field, json!(0o644));
        }
    }
    if let Some(source) = volume.get_mut("hostPath").filter(|source| source.is_object()) {
        or(source, "type", json!(""));
    }
    // A volume without a source is an empty folder.
    if volume.as_object().is_some_and(|volume| volume.len() == 1) {
        volume["emptyDir"] = json!({});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_what_upstream_fills_in() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [
            {"name": "c", "image": "r/i:1", "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"exec": {"command": ["x"]}}},
            {"name": "d", "image": "r:5000/i"}]}});
        fill("pods", &mut pod, "");
        let spec = &pod["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(spec["containers"][1]["imagePullPolicy"], "Always");
        assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "1");
        assert_eq!(spec["containers"][0]["livenessProbe"]["periodSeconds"], 10);
        assert!(spec.get("volumes").is_none() && spec.get("initContainers").is_none());
    }

    #[test]
    fn text_of_a_secret_becomes_data() {
        let mut secret = json!({"stringData": {"a": "b"}});
        fill("secrets", &mut secret, "");
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg=="}}));
    }
}
