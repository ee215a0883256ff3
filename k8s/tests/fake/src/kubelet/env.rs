//! What a container is started with: its variables, its words, and the folders and addresses that stand for paths and
//! names.
//!
//! Define Environment Variables for a Container; Define Dependent Environment Variables; Define a Command and Arguments
//! for a Container; Downward API.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::{Captures, Regex};
use serde_json::Value;

use super::Inner;
use crate::admit::pod::quantity;

/// Puts `$(NAME)` in its place. One that is unknown stays as it is, and `$$(NAME)` is `$(NAME)`.
pub(super) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
            continue;
        }
        match rest.strip_prefix("$(").and_then(|name| name.split_once(')')) {
            Some((name, after)) => {
                match env.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.push_str(&rest[..name.len() + 3]),
                }
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = &rest[1..];
            }
        }
    }
    expanded + rest
}

/// A field of a pod, as `fieldRef` names it.
pub(super) fn field(pod: &Value, path: &str, address: Ipv4Addr) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let lines = |map: &Value| {
        let pairs = map.as_object().into_iter().flatten();
        let lines: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        lines.join("\n")
    };
    let metadata = &pod["metadata"];
    if let Some((map, key)) = path.strip_prefix("metadata.").and_then(|path| path.split_once("['")) {
        return Some(text(&metadata[map][key.trim_end_matches("']")]));
    }
    Some(match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" => text(&metadata[&path["metadata.".len()..]]),
        "metadata.labels" => lines(&metadata["labels"]),
        "metadata.annotations" => lines(&metadata["annotations"]),
        "spec.nodeName" => text(&pod["spec"]["nodeName"]),
        "spec.serviceAccountName" => text(&pod["spec"]["serviceAccountName"]),
        "status.podIP" | "status.podIPs" => address.to_string(),
        "status.hostIP" | "status.hostIPs" => "127.0.0.1".into(),
        _ => return None,
    })
}

/// A resource of a container, as `resourceFieldRef` names it, in units of its divisor, rounded up.
pub(super) fn resource(pod: &Value, container: &Value, reference: &Value) -> Option<String> {
    let named = reference["containerName"].as_str();
    let found = named.and_then(|name| {
        let all = pod["spec"]["containers"].as_array().into_iter().flatten();
        all.into_iter().find(|one| one["name"] == name)
    });
    let (list, name) = reference["resource"].as_str()?.split_once('.')?;
    let amount = quantity(&found.unwrap_or(container)["resources"][list][name]);
    // Without a limit, what the node has counts.
    let amount = amount.unwrap_or(if name == "cpu" { 64.0 } else { 274_877_906_944.0 });
    let divisor = quantity(&reference["divisor"]).filter(|divisor| *divisor > 0.0).unwrap_or(1.0);
    Some(format!("{}", (amount / divisor).ceil() as u64))
}

/// A key of a ConfigMap or Secret; an error says what is missing.
pub(super) fn value_of(inner: &Inner, namespace: &str, storage: &str, name: &str, key: &str) -> Result<String, String> {
    let word = if storage == "secrets" { "secret" } else { "configmap" };
    let object = inner.shared.state().get(storage, namespace, name);
    let object = object.ok_or_else(|| format!("{word} \"{name}\" not found"))?;
    let missing = || format!("couldn't find key {key} in {word} {namespace}/{name}");
    let value = object["data"][key].as_str().ok_or_else(missing)?;
    if storage == "configmaps" {
        return Ok(value.into());
    }
    let bytes = STANDARD.decode(value).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A container's variables, before paths and names are replaced. An error is why it cannot be started yet.
pub(super) fn variables(
    inner: &Inner,
    pod: &Value,
    container: &Value,
    address: Ipv4Addr,
) -> Result<BTreeMap<String, String>, String> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut env = inner.env.clone();
    let hostname = pod["spec"]["hostname"].as_str().or(pod["metadata"]["name"].as_str()).unwrap_or_default();
    env.insert("HOSTNAME".into(), hostname.into());
    env.insert("PATH".into(), std::env::var("PATH").unwrap_or_default());
    // Service, "Environment variables".
    env.insert("KUBERNETES_SERVICE_HOST".into(), "127.0.0.1".into());
    env.insert("KUBERNETES_SERVICE_PORT".into(), inner.shared.port.to_string());
    for source in container["envFrom"].as_array().into_iter().flatten() {
        let prefix = source["prefix"].as_str().unwrap_or_default();
        for (field, storage) in [("configMapRef", "configmaps"), ("secretRef", "secrets")] {
            let Some(name) = source[field]["name"].as_str() else { continue };
            let object = inner.shared.state().get(storage, namespace, name);
            let Some(object) = object else {
                if source[field]["optional"] == true {
                    continue;
                }
                return Err(format!("{storage} \"{name}\" not found"));
            };
            for key in object["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
                env.insert(format!("{prefix}{key}"), value_of(inner, namespace, storage, name, key)?);
            }
        }
    }
    for one in container["env"].as_array().into_iter().flatten() {
        let Some(name) = one["name"].as_str() else { continue };
        let from = &one["valueFrom"];
        let value = if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
            field(pod, path, address).ok_or_else(|| format!("unsupported fieldPath: {path}"))?
        } else if from["resourceFieldRef"].is_object() {
            resource(pod, container, &from["resourceFieldRef"]).ok_or("unsupported resource")?
        } else if let Some((storage, reference)) = [("secrets", "secretKeyRef"), ("configmaps", "configMapKeyRef")]
            .into_iter()
            .find_map(|(storage, field)| from[field].is_object().then(|| (storage, &from[field])))
        {
            let text = |field: &str| reference[field].as_str().unwrap_or_default();
            match value_of(inner, namespace, storage, text("name"), text("key")) {
                Ok(value) => value,
                Err(_) if reference["optional"] == true => continue,
                Err(error) => return Err(error),
            }
        } else {
            expand(one["value"].as_str().unwrap_or_default(), &env)
        };
        env.insert(name.into(), value);
    }
    Ok(env)
}

/// What stands for what in a container's words.
pub(super) struct Places {
    /// Mount paths and folders, the longest path first.
    mounts: Vec<(String, PathBuf)>,
    resolve: Vec<(Regex, String)>,
    address: Ipv4Addr,
}

impl Places {
    pub(super) fn new(inner: &Inner, mut mounts: Vec<(String, PathBuf)>, address: Ipv4Addr) -> Places {
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Places { mounts, resolve: inner.weather().resolve.clone(), address }
    }

    /// A word with folders for mount paths and addresses for names.
    pub(super) fn replace(&self, inner: &Inner, text: &str) -> String {
        let mut text = text.to_string();
        for (pattern, replacement) in &self.resolve {
            text = pattern.replace_all(&text, replacement.as_str()).into_owned();
        }
        let names =
            Regex::new(r"\b([a-z0-9][a-z0-9-]*)\.([a-z0-9][a-z0-9-]*)\.([a-z0-9][a-z0-9-]*)\.svc(\.cluster\.local)?\b");
        if let Ok(names) = names {
            let address = |found: &Captures| inner.address(&found[3], &found[1]).to_string();
            text = names.replace_all(&text, address).into_owned();
        }
        text = text.replace("0.0.0.0", &self.address.to_string()).replace("[::]", &self.address.to_string());
        let mut replaced = String::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let at =
                replaced.is_empty() || replaced.ends_with(['=', ',', ':', ' ', '"', '\'', '\n', ';', '>', '<', '(']);
            // `file://` and a path make three slashes.
            let at = at || replaced.ends_with("://");
            let found = self.mounts.iter().filter(|_| at).find(|(path, _)| begins(rest, path));
            match found {
                Some((path, folder)) => {
                    replaced.push_str(&folder.to_string_lossy());
                    rest = &rest[path.len()..];
                }
                None => {
                    let mut chars = rest.chars();
                    replaced.extend(chars.next());
                    rest = chars.as_str();
                }
            }
        }
        replaced
    }
}

/// Whether a text begins with a path, and not with a longer name.
fn begins(text: &str, path: &str) -> bool {
    let after = text.strip_prefix(path).map(|rest| rest.chars().next());
    after.is_some_and(|next| next.is_none_or(|c| !c.is_alphanumeric() && !"-_.".contains(c)))
}

/// What a container runs: its command or what stands for its image, and its arguments. `None`: there is no such program.
pub(super) fn words(
    inner: &Inner,
    container: &Value,
    env: &BTreeMap<String, String>,
    places: &Places,
) -> Option<Vec<String>> {
    let list = |field: &str| -> Vec<String> {
        let words = container[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        words.map(|word| places.replace(inner, &expand(word, env))).collect()
    };
    let program = inner.images.get(container["image"].as_str().unwrap_or_default());
    let mut command = list("command");
    match command.first_mut() {
        Some(first) => {
            let name = Path::new(first.as_str()).file_name();
            if let Some(program) =
                program.filter(|program| program.file_name() == name && !Path::new(first.as_str()).is_file())
            {
                *first = program.to_string_lossy().into_owned();
            }
        }
        None => command.push(program?.to_string_lossy().into_owned()),
    }
    command.extend(list("args"));
    Some(command)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_put_in_their_place() {
        let env = BTreeMap::from([("A".to_string(), "1".to_string())]);
        for (text, expected) in [
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("é$(A)", "é1"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn fields_and_resources_are_found() {
        let pod = json!({"metadata": {"name": "p", "labels": {"a/b": "c"}}, "spec": {"nodeName": "n"}});
        let address = Ipv4Addr::new(127, 1, 2, 3);
        assert_eq!(field(&pod, "metadata.labels['a/b']", address).as_deref(), Some("c"));
        assert_eq!(field(&pod, "status.podIP", address).as_deref(), Some("127.1.2.3"));
        assert_eq!(field(&pod, "spec.foo", address), None);
        let container = json!({"resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}});
        let of = |reference: Value| resource(&pod, &container, &reference).unwrap();
        assert_eq!(of(json!({"resource": "limits.cpu"})), "2");
        assert_eq!(of(json!({"resource": "limits.memory", "divisor": "1Mi"})), "1024");
    }

    #[test]
    fn paths_end_where_names_end() {
        assert!(begins("/data/x", "/data") && begins("/data", "/data") && begins("/data,/b", "/data"));
        assert!(!begins("/database", "/data") && !begins("/data-1", "/data"));
    }
}
