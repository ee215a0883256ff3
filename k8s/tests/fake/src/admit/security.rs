//! Pod Security: what the level `restricted` and `baseline` refuse of pods, in namespaces that enforce them by the label
//! `pod-security.kubernetes.io/enforce`.
//!
//! Pod Security Standards, "Baseline" and "Restricted"; Pod Security Admission. Of the baseline: host namespaces, host
//! paths, host ports, privileged containers and capabilities; its rules about AppArmor, SELinux, /proc and sysctls are left
//! out.

use serde_json::Value;

/// Why a pod is refused, if it is.
pub(crate) fn refused(namespace: &Value, spec: &Value) -> Option<String> {
    let label = |name: &str| namespace["metadata"]["labels"][format!("pod-security.kubernetes.io/{name}")].as_str();
    let level = label("enforce").filter(|level| ["baseline", "restricted"].contains(level))?;
    let version = label("enforce-version").unwrap_or("latest");
    let mut found = baseline(spec);
    if level == "restricted" {
        found.extend(restricted(spec));
    }
    (!found.is_empty()).then(|| format!("violates PodSecurity \"{level}:{version}\": {}", found.join(", ")))
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

/// Names of containers that something is wrong with, as upstream writes them.
fn named(spec: &Value, wrong: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<String> = containers(spec).filter(|one| wrong(one)).map(|one| one["name"].to_string()).collect();
    match names.len() {
        0 => None,
        1 => Some(format!("container {}", names[0])),
        _ => Some(format!("containers {}", names.join(", "))),
    }
}

/// Capabilities that the baseline lets containers add.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn adds(container: &Value) -> impl Iterator<Item = &str> {
    container["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn baseline(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if !host.is_empty() {
        found.push(format!("host namespaces ({})", host.join(", ")));
    }
    if let Some(who) = named(spec, |one| adds(one).any(|name| !CAPABILITIES.contains(&name))) {
        found.push(format!("non-default capabilities ({who} must not add capabilities beyond the defaults)"));
    }
    let mut volumes = spec["volumes"].as_array().into_iter().flatten();
    if let Some(volume) = volumes.find(|volume| volume["hostPath"].is_object()) {
        found.push(format!("hostPath volumes (volume {})", volume["name"]));
    }
    let ports = |one: &Value| {
        one["ports"].as_array().is_some_and(|ports| ports.iter().any(|port| port["hostPort"].is_number()))
    };
    if let Some(who) = named(spec, ports) {
        found.push(format!("hostPort ({who} uses a hostPort)"));
    }
    if let Some(who) = named(spec, |one| one["securityContext"]["privileged"] == true) {
        found.push(format!("privileged ({who} must not set securityContext.privileged=true)"));
    }
    found
}

fn restricted(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let own = &spec["securityContext"];
    if let Some(who) = named(spec, |one| one["securityContext"]["allowPrivilegeEscalation"] != false) {
        let what = "must set securityContext.allowPrivilegeEscalation=false";
        found.push(format!("allowPrivilegeEscalation != false ({who} {what})"));
    }
    let drops = |one: &Value| {
        let dropped = one["securityContext"]["capabilities"]["drop"].as_array();
        dropped.is_some_and(|list| list.iter().any(|name| name == "ALL"))
            && adds(one).all(|name| name == "NET_BIND_SERVICE")
    };
    if let Some(who) = named(spec, |one| !drops(one)) {
        let what = "must set securityContext.capabilities.drop=[\"ALL\"]";
        found.push(format!("unrestricted capabilities ({who} {what})"));
    }
    const VOLUMES: [&str; 8] =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    let other = |volume: &&Value| {
        let fields = volume.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
        fields.into_iter().any(|field| field != "name" && !VOLUMES.contains(&field))
    };
    let mut volumes = spec["volumes"].as_array().into_iter().flatten();
    if let Some(volume) = volumes.find(other) {
        found.push(format!("restricted volume types (volume {} uses restricted volume type)", volume["name"]));
    }
    let non_root = |one: &Value| match one["securityContext"]["runAsNonRoot"].as_bool() {
        Some(is) => is,
        None => own["runAsNonRoot"] == true,
    };
    if let Some(who) = named(spec, |one| !non_root(one)) {
        found.push(format!("runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"));
    }
    if own["runAsUser"] == 0 || containers(spec).any(|one| one["securityContext"]["runAsUser"] == 0) {
        found.push("runAsUser=0 (pod or container must not set runAsUser=0)".into());
    }
    let sealed = |one: &Value| {
        let kind = one["securityContext"]["seccompProfile"]["type"].as_str();
        let kind = kind.or(own["seccompProfile"]["type"].as_str());
        kind.is_some_and(|kind| kind == "RuntimeDefault" || kind == "Localhost")
    };
    if let Some(who) = named(spec, |one| !sealed(one)) {
        let what = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
        found.push(format!("seccompProfile (pod or {who} {what})"));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn restricted_refuses_what_is_not_said() {
        let namespace = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let bare = json!({"containers": [{"name": "c", "image": "i"}]});
        let why = refused(&namespace, &bare).unwrap();
        for word in ["allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile"] {
            assert!(why.contains(word), "{why}");
        }
        let mut good = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "i", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]});
        assert_eq!(refused(&namespace, &good), None);
        good["volumes"] = json!([{"name": "h", "hostPath": {"path": "/"}}]);
        assert!(refused(&namespace, &good).unwrap().contains("hostPath"));
        assert_eq!(refused(&json!({}), &bare), None);
    }
}
