//! The rights that masters need: those of their Role in the manifests, and so of the chart.

use serde_json::Value;

use crate::manifests::EMBEDDED;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Right {
    pub(super) verb: String,
    /// Empty: the core group.
    pub(super) group: String,
    pub(super) resource: String,
    /// Empty: the object itself.
    pub(super) subresource: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if self.subresource.is_empty() { Ok(()) } else { write!(f, "/{}", self.subresource) }
    }
}

/// All of them.
pub(super) fn of_masters() -> Vec<Right> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(EMBEDDED).unwrap_or_default();
    let role = documents.iter().find(|one| one["kind"] == "Role" && one["metadata"]["name"] == "gristmill-master");
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
    };
    let mut all = Vec::new();
    for rule in role.and_then(|role| role["rules"].as_array()).into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
                for verb in texts(&rule["verbs"]) {
                    let (group, resource) = (group.clone(), resource.to_string());
                    all.push(Right { verb, group, resource, subresource: subresource.into() });
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_the_role() {
        let all: Vec<String> = of_masters().iter().map(ToString::to_string).collect();
        for needed in
            ["create pods", "delete pods", "get pods/log", "patch mapreducejobs/status", "watch mapreducejobs"]
        {
            assert!(all.iter().any(|one| one == needed), "{needed} is not among {all:?}");
        }
        assert!(!all.iter().any(|one| one.contains("secrets")), "{all:?}");
    }
}
