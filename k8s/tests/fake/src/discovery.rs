//! What is served, told in both ways that clients ask for.
//!
//! The Kubernetes API, "Discovery API": aggregated documents by the `Accept` header, plain ones without.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds::Kind;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Resources that are answered and not kept: group, plural, kind, namespaced.
pub(crate) const REVIEWS: [(&str, &str, &str, bool); 6] = [
    ("authentication.k8s.io", "tokenreviews", "TokenReview", false),
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", false),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", false),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
];

/// Groups in order, each with its versions in order.
fn groups(kinds: &[Arc<Kind>]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let served = kinds.iter().map(|kind| (kind.group.as_str(), kind.version.as_str()));
    let reviews = REVIEWS.iter().map(|(group, ..)| (*group, "v1"));
    for (group, version) in served.chain(reviews) {
        match groups.iter_mut().find(|(name, _)| name == group) {
            Some((_, versions)) if versions.iter().any(|one| one == version) => {}
            Some((_, versions)) => versions.push(version.into()),
            None => groups.push((group.into(), vec![version.into()])),
        }
    }
    groups
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

fn plain_group(group: &str, versions: &[String]) -> Value {
    let one = |version: &String| json!({"groupVersion": api_version(group, version), "version": version});
    let versions: Vec<Value> = versions.iter().map(one).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

fn plain_resources(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let mut all = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.group == group && kind.version == version) {
        all.push(json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": VERBS, "shortNames": kind.short}));
        for (sub, of, verbs) in kind.subresources() {
            let of = if of.is_empty() { &kind.kind } else { of };
            all.push(json!({"name": format!("{}/{sub}", kind.plural), "singularName": "",
                "namespaced": kind.namespaced, "kind": of, "verbs": verbs}));
        }
    }
    for (_, plural, kind, namespaced) in REVIEWS.iter().filter(|(of, ..)| *of == group && version == "v1") {
        all.push(
            json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["create"]}),
        );
    }
    let known = !all.is_empty();
    known.then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": all}))
}

fn aggregated_version(kinds: &[Arc<Kind>], group: &str, version: &str) -> Value {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let kind_of = |kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut all = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.group == group && kind.version == version) {
        let sub = |(name, of, verbs): (&str, &str, &[&str])| {
            let of = if of.is_empty() { &kind.kind } else { of };
            json!({"subresource": name, "responseKind": kind_of(of), "verbs": verbs})
        };
        let subs: Vec<Value> = kind.subresources().into_iter().map(sub).collect();
        all.push(json!({"resource": kind.plural, "responseKind": kind_of(&kind.kind), "scope": scope(kind.namespaced),
            "singularResource": kind.singular, "shortNames": kind.short, "verbs": VERBS, "subresources": subs}));
    }
    for (_, plural, kind, namespaced) in REVIEWS.iter().filter(|(of, ..)| *of == group && version == "v1") {
        all.push(json!({"resource": plural, "responseKind": kind_of(kind), "scope": scope(*namespaced),
            "singularResource": "", "verbs": ["create"]}));
    }
    json!({"version": version, "resources": all, "freshness": "Current"})
}

/// The answer to a path of discovery, with its content type; none: there is no such group or version.
pub(crate) fn answer(kinds: &[Arc<Kind>], path: &str, accept: &str, address: &str) -> Option<(Value, String)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let json_type = "application/json".to_string();
    let all = groups(kinds);
    let rest = || all.iter().filter(|(group, _)| !group.is_empty());
    let aggregated = accept.contains("as=APIGroupDiscoveryList") && parts.len() == 1;
    if aggregated {
        let wanted = all.iter().filter(|(group, _)| group.is_empty() == (parts[0] == "api"));
        let one = |(group, versions): &(String, Vec<String>)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_version(kinds, group, version)).collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        };
        let items: Vec<Value> = wanted.map(one).collect();
        let body = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
        return Some((body, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList".into()));
    }
    let body = match parts[..] {
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]}),
        ["api", version] => plain_resources(kinds, "", version)?,
        ["apis"] => {
            let groups: Vec<Value> = rest().map(|(group, versions)| plain_group(group, versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", group] => {
            let (group, versions) = rest().find(|(name, _)| name == group)?;
            let mut body = plain_group(group, versions);
            body["kind"] = json!("APIGroup");
            body["apiVersion"] = json!("v1");
            body
        }
        ["apis", group, version] => plain_resources(kinds, group, version)?,
        _ => return None,
    };
    Some((body, json_type))
}

/// What `/version` tells: the version whose types are used here.
pub(crate) fn version() -> Value {
    json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-08-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64"})
}
