//! The object that pods go with: deleted, Kubernetes deletes them as well (*Garbage Collection*). It is the masters' StatefulSet
//! or another object that stays, and never a master's pod.
//!
//! An owner is known by its UID, which is looked up. A master's own pod says that of its StatefulSet, so that nobody needs a
//! right to read those; otherwise the object is asked for. It may be made anew under the same name, so what was found holds for
//! a minute.

use std::time::Duration;

use gristmill_engine::node::pods::Refusal;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::GetParams;
use kube::core::Request;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::call::{WITHIN, ask};
use crate::reason::reason;

/// So long what was found is taken for true.
const HOLDS: Duration = Duration::from_secs(60);
/// Kinds of owners: their group and version, and what they are called in paths.
const KINDS: [(&str, &str, &str); 7] = [
    ("StatefulSet", "apps/v1", "statefulsets"),
    ("Deployment", "apps/v1", "deployments"),
    ("ReplicaSet", "apps/v1", "replicasets"),
    ("DaemonSet", "apps/v1", "daemonsets"),
    ("Job", "batch/v1", "jobs"),
    ("ConfigMap", "v1", "configmaps"),
    ("Service", "v1", "services"),
];

/// An owner, and where it is looked up.
#[derive(Debug)]
pub(super) struct Owner {
    kind: &'static str,
    version: &'static str,
    plural: &'static str,
    name: String,
    namespace: String,
    /// The master's own pod.
    pod: Option<String>,
    found: Mutex<Option<(Instant, OwnerReference)>>,
}

impl Owner {
    /// # Errors
    /// Its kind is none of those that can be owners: a list of these.
    pub(super) fn new(kind: &str, name: String, namespace: String, pod: Option<String>) -> Result<Self, String> {
        let Some((kind, version, plural)) = KINDS.into_iter().find(|(known, _, _)| *known == kind) else {
            return Err(KINDS.map(|(kind, _, _)| kind).join(", "));
        };
        Ok(Self { kind, version, plural, name, namespace, pod, found: Mutex::default() })
    }

    /// The reference to it.
    pub(super) async fn reference(&self, client: &Client) -> Result<OwnerReference, Refusal> {
        let mut found = self.found.lock().await;
        if let Some((at, reference)) = found.as_ref()
            && at.elapsed() < HOLDS
        {
            return Ok(reference.clone());
        }
        let uid = match self.by_own_pod(client).await? {
            Some(uid) => uid,
            None => self.by_name(client).await?,
        };
        let reference = OwnerReference {
            api_version: self.version.into(),
            kind: self.kind.into(),
            name: self.name.clone(),
            uid,
            controller: Some(false),
            // Where it is checked, to set it needs a right on the owner's finalizers (OwnerReferencesPermissionEnforcement).
            block_owner_deletion: Some(false),
        };
        *found = Some((Instant::now(), reference.clone()));
        Ok(reference)
    }

    /// The object itself, as events are about it.
    pub(super) async fn object(&self, client: &Client) -> Result<ObjectReference, Refusal> {
        let reference = self.reference(client).await?;
        Ok(ObjectReference {
            api_version: Some(reference.api_version),
            kind: Some(reference.kind),
            name: Some(reference.name),
            namespace: Some(self.namespace.clone()),
            uid: Some(reference.uid),
            ..Default::default()
        })
    }

    async fn by_own_pod(&self, client: &Client) -> Result<Option<String>, Refusal> {
        let Some(pod) = &self.pod else { return Ok(None) };
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let body = match ask(client, Request::new(path).get(pod, &GetParams::default()), WITHIN).await {
            Ok(body) => body,
            Err(failure) if failure.is_not_found() => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        let pod: Pod = serde_json::from_slice(&body).map_err(unreadable)?;
        let mut owners = pod.metadata.owner_references.into_iter().flatten();
        let ours = owners
            .find(|owner| owner.kind == self.kind && owner.api_version == self.version && owner.name == self.name);
        Ok(ours.map(|owner| owner.uid))
    }

    async fn by_name(&self, client: &Client) -> Result<String, Refusal> {
        let group = if self.version.contains('/') { "apis" } else { "api" };
        let path = format!("/{group}/{}/namespaces/{}/{}", self.version, self.namespace, self.plural);
        let what = format!("{}/{}", self.kind, self.name);
        let body = match ask(client, Request::new(path).get(&self.name, &GetParams::default()), WITHIN).await {
            Ok(body) => body,
            // It may be on its way: with it goes all of a cluster, pods too.
            Err(failure) if failure.is_not_found() => {
                let text = format!("{what}, with which pods are to go, is not there");
                return Err(Refusal::Later(reason("NoOwner", &text), None));
            }
            Err(failure) => {
                let about = |said: &str| format!("{what}, with which pods are to go, cannot be read: {said}");
                return Err(match failure.into() {
                    Refusal::Later(said, after) => Refusal::Later(reason(&said.word, &about(&said.text)), after),
                    Refusal::Never(said) => Refusal::Never(reason(&said.word, &about(&said.text))),
                });
            }
        };
        let object: Value = serde_json::from_slice(&body).map_err(unreadable)?;
        let uid = object["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty());
        uid.map(String::from).ok_or_else(|| Refusal::Later(reason("NoOwner", &format!("{what} has no UID")), None))
    }
}

/// An answer that is none is one of something between the server and here.
fn unreadable(error: serde_json::Error) -> Refusal {
    Refusal::Later(reason("Unreachable", &format!("the answer cannot be read: {error}")), None)
}
