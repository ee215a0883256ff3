//! What is served: the built-in resources, each with upstream's own type to check objects by.
//!
//! The types are those of `k8s-openapi`, which are generated of upstream's OpenAPI documents; names, scopes and
//! subresources are of the API reference. Resources that CustomResourceDefinitions add are made in [`crate::crd`].

use std::any::TypeId;
use std::sync::Arc;

use k8s_openapi::api::{apps, batch, coordination, core, events, networking, policy, rbac, scheduling, storage};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::{NamespaceResourceScope, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::crd::Custom;

/// A reading of an object as upstream's type, and how it is written again.
type Check = fn(&Value) -> Result<Value, String>;

/// A resource: how its path is written, what its objects are called, and how requests about it are taken.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short: Vec<String>,
    pub(crate) namespaced: bool,
    /// Has a subresource `status`: then the status changes there alone.
    pub(crate) status: bool,
    /// Has a subresource `scale`.
    pub(crate) scale: bool,
    /// Counts `metadata.generation`.
    pub(crate) generation: bool,
    /// Takes updates that name no resourceVersion.
    pub(crate) unconditional: bool,
    /// Answers a deletion with the object rather than with a Status.
    pub(crate) returns_deleted: bool,
    /// Where its objects are kept; versions and groups of one resource share it.
    pub(crate) storage: String,
    /// Reads an object as upstream's type and writes it again: what is lost is unknown to upstream.
    pub(crate) check: Option<Check>,
    pub(crate) custom: Option<Arc<Custom>>,
}

impl Kind {
    /// `pods`, or `jobs.batch`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `v1`, or `batch/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn subresources(&self) -> Vec<(&'static str, &'static str, &'static [&'static str])> {
        let mut all: Vec<(&str, &str, &[&str])> = Vec::new();
        if self.status {
            all.push(("status", "", &["get", "patch", "update"]));
        }
        if self.scale {
            all.push(("scale", "Scale", &["get", "patch", "update"]));
        }
        match self.storage.as_str() {
            "pods" => all.extend([
                ("log", "", &["get"][..]),
                ("eviction", "Eviction", &["create"][..]),
                ("binding", "Binding", &["create"][..]),
            ]),
            "serviceaccounts" => all.push(("token", "TokenRequest", &["create"])),
            _ => {}
        }
        all
    }
}

fn round_trip<T: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// A built-in resource; `is` are words: `status`, `scale`, `generation`, `unconditional`, `deleted`.
fn row<T>(singular: &str, short: &[&str], is: &str) -> Kind
where
    T: Resource + Serialize + DeserializeOwned,
    T::Scope: 'static,
{
    let has = |word: &str| is.split(' ').any(|is| is == word);
    let plural = T::URL_PATH_SEGMENT.to_string();
    let storage = if T::GROUP.is_empty() { plural.clone() } else { format!("{plural}.{}", T::GROUP) };
    Kind {
        group: T::GROUP.into(),
        version: T::VERSION.into(),
        kind: T::KIND.into(),
        singular: singular.into(),
        short: short.iter().map(ToString::to_string).collect(),
        namespaced: TypeId::of::<T::Scope>() == TypeId::of::<NamespaceResourceScope>(),
        status: has("status"),
        scale: has("scale"),
        generation: has("generation"),
        unconditional: has("unconditional"),
        returns_deleted: has("deleted"),
        // Events of both groups are the same objects (KEP-383, "new Event API": both are served of one storage).
        storage: if plural == "events" { plural.clone() } else { storage },
        plural,
        check: Some(round_trip::<T>),
        custom: None,
    }
}

/// All that is served without CustomResourceDefinitions.
pub(crate) fn built_in() -> Vec<Kind> {
    vec![
        row::<core::v1::Namespace>("namespace", &["ns"], "status deleted"),
        row::<core::v1::Pod>("pod", &["po"], "status generation unconditional deleted"),
        row::<core::v1::Event>("event", &["ev"], "unconditional"),
        row::<core::v1::Secret>("secret", &[], "unconditional"),
        row::<core::v1::ConfigMap>("configmap", &["cm"], "unconditional"),
        row::<core::v1::Service>("service", &["svc"], "status unconditional deleted"),
        row::<core::v1::ServiceAccount>("serviceaccount", &["sa"], "deleted"),
        row::<core::v1::PersistentVolumeClaim>("persistentvolumeclaim", &["pvc"], "status unconditional deleted"),
        row::<core::v1::PersistentVolume>("persistentvolume", &["pv"], "status unconditional deleted"),
        row::<core::v1::Node>("node", &["no"], "status unconditional"),
        row::<core::v1::ResourceQuota>("resourcequota", &["quota"], "status unconditional deleted"),
        row::<coordination::v1::Lease>("lease", &[], ""),
        row::<events::v1::Event>("event", &["ev"], "unconditional"),
        row::<apps::v1::StatefulSet>("statefulset", &["sts"], "status scale generation unconditional"),
        row::<batch::v1::Job>("job", &[], "status generation unconditional"),
        row::<policy::v1::PodDisruptionBudget>("poddisruptionbudget", &["pdb"], "status generation"),
        row::<networking::v1::NetworkPolicy>("networkpolicy", &["netpol"], "generation unconditional"),
        row::<rbac::v1::Role>("role", &[], "unconditional"),
        row::<rbac::v1::RoleBinding>("rolebinding", &[], "unconditional"),
        row::<rbac::v1::ClusterRole>("clusterrole", &[], "unconditional"),
        row::<rbac::v1::ClusterRoleBinding>("clusterrolebinding", &[], "unconditional"),
        row::<storage::v1::StorageClass>("storageclass", &["sc"], "unconditional"),
        row::<scheduling::v1::PriorityClass>("priorityclass", &["pc"], "generation unconditional"),
        row::<apiextensions::v1::CustomResourceDefinition>(
            "customresourcedefinition",
            &["crd", "crds"],
            "status generation",
        ),
    ]
}

/// The paths in `given` that upstream's type does not have: what a strict reading refuses, as `spec.containers[0].foo`.
///
/// API concepts, "Setting the field validation level". Null and empty values are no unknown fields.
pub(crate) fn unknown_fields(given: &Value, kept: &Value, path: &str, found: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match kept.get(name) {
                    Some(kept) => unknown_fields(value, kept, &path, found),
                    None if value.is_null() => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                unknown_fields(given, kept, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_upstream_does_not_know_is_found() {
        let kinds = built_in();
        let pod = kinds.iter().find(|kind| kind.kind == "Pod").unwrap();
        let given = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "imge": "x"}], "foo": 1}});
        let kept = (pod.check.unwrap())(&given).unwrap();
        let mut found = Vec::new();
        unknown_fields(&given, &kept, "", &mut found);
        found.sort();
        assert_eq!(found, ["spec.containers[0].imge", "spec.foo"]);
    }

    #[test]
    fn scopes_are_upstreams() {
        let kinds = built_in();
        let cluster: Vec<&str> = kinds.iter().filter(|kind| !kind.namespaced).map(|kind| &kind.plural[..]).collect();
        let expected = [
            "namespaces",
            "persistentvolumes",
            "nodes",
            "clusterroles",
            "clusterrolebindings",
            "storageclasses",
            "priorityclasses",
            "customresourcedefinitions",
        ];
        assert_eq!(cluster, expected);
    }
}
