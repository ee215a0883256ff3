//! What to think of what was found. No I/O, no clock.

use std::collections::BTreeMap;

use gristmill_engine::node::pods::Phase;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::version::Info;
use k8s_openapi::jiff::fmt::rfc2822;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ObjectMeta;

use super::rights::Right;
use super::storage::{Shared, shared};
use super::{Asked, Finding, is_enough};
use crate::reason;

/// Clocks may differ by so much, beside the second to which the server tells its own.
const CLOCK: SignedDuration = SignedDuration::from_secs(2);
/// From this part of a quota on it is told that little is left.
const NEARLY: f64 = 0.9;
/// Pods that are named; of more the number is told.
const NAMED: usize = 10;
/// How Pod Security's level of a namespace is labelled.
const LEVEL: &str = "pod-security.kubernetes.io/enforce";
/// Marks the class of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Rights, and whose they are.
#[derive(Debug)]
pub(super) struct Rights {
    /// Of whoever asks; otherwise of the masters' service account.
    pub(super) own: bool,
    pub(super) all: Vec<(Right, Asked<bool>)>,
}

pub(super) fn unreachable(why: &str) -> Finding {
    Finding::bad(
        "api",
        format!("the API server does not answer: {why}"),
        "see that KUBECONFIG or the pod's token leads to it",
    )
}

pub(super) fn version(version: &Info) -> Finding {
    let what = format!("Kubernetes {}", version.git_version);
    match is_enough(version) {
        Some(true) => Finding::good("version", what),
        Some(false) => Finding::bad("version", what, "1.29 or later is needed: upgrade the cluster"),
        None => Finding::warning("version", format!("{what}: not a version that is known"), "1.29 or later is needed"),
    }
}

pub(super) fn clock(date: Option<&str>, before: Timestamp, after: Timestamp) -> Finding {
    let parsed = date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    let Some(server) = parsed else {
        return Finding::warning("clock", "the API server does not tell the time", "see that machines run NTP");
    };
    // It tells whole seconds: the time was any within the one that it tells.
    let early = before.duration_since(server.saturating_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX));
    let late = server.duration_since(after);
    let apart = early.max(late).max(SignedDuration::ZERO);
    if apart > CLOCK {
        let what = format!("this clock and the API server's differ by {} s", apart.as_secs());
        return Finding::warning("clock", what, "run NTP on all nodes: certificates and tokens depend on it");
    }
    Finding::good("clock", "agrees with the API server's")
}

pub(super) fn rights(rights: &Rights, name: &str) -> Finding {
    let whose = if rights.own { "this user".to_string() } else { format!("service account {name}-master") };
    let missing: Vec<String> =
        rights.all.iter().filter(|(_, may)| *may == Asked::There(false)).map(|(right, _)| right.to_string()).collect();
    let unknown = rights.all.iter().filter(|(_, may)| may.there().is_none()).count();
    if !missing.is_empty() {
        let what = format!("{whose} may not {}", missing.join(", "));
        let next = format!("apply the Role and RoleBinding {name}-master of the chart (rbac.create)");
        // Somebody who looks on need not have a master's rights.
        return if rights.own { Finding::warning("rights", what, next) } else { Finding::bad("rights", what, next) };
    }
    if unknown > 0 || rights.all.is_empty() {
        let what = format!("{unknown} of {} rights of {whose} are not known", rights.all.len());
        return Finding::warning("rights", what, "run it again, or as an administrator");
    }
    Finding::good("rights", format!("{whose} has all {} that masters need", rights.all.len()))
}

pub(super) fn definition(
    found: Asked<CustomResourceDefinition>,
    served: Option<Asked<()>>,
    wanted: &CustomResourceDefinition,
) -> Finding {
    let check = "mapreducejobs";
    let missing = || {
        let next = "run `gristmill k8s crd | kubectl apply --server-side --force-conflicts -f -`";
        Finding::bad(check, "the definition of MapReduceJob is not installed", next)
    };
    match (found, served) {
        (Asked::There(found), _) => {
            let schemas = |one: &CustomResourceDefinition| {
                let versions = one.spec.versions.iter().filter(|version| version.served);
                versions.map(|version| (version.name.clone(), version.schema.clone())).collect::<Vec<_>>()
            };
            if schemas(&found) == schemas(wanted) {
                return Finding::good(check, "the definition is that of this version");
            }
            let next = "after an upgrade run `gristmill k8s crd | kubectl apply --server-side --force-conflicts -f -`: Helm does not";
            Finding::warning(check, "the definition of MapReduceJob is another than this version's", next)
        }
        (Asked::Missing, _) | (_, Some(Asked::Missing)) => missing(),
        (_, Some(Asked::There(()))) => Finding::good(check, "they are served; the definition itself was not looked at"),
        (other, _) => other.or_tell(check, "the definition of MapReduceJob", missing).err().unwrap_or_else(missing),
    }
}

pub(super) fn namespace(found: Asked<ObjectMeta>) -> Finding {
    let check = "namespace";
    let missing = || Finding::bad(check, "there is no such namespace", "name it with --namespace");
    let metadata = match found.or_tell(check, "its Pod Security level", missing) {
        Ok(metadata) => metadata,
        Err(finding) => return finding,
    };
    let next = format!("kubectl label namespace {} {LEVEL}=restricted", metadata.name.as_deref().unwrap_or("NAME"));
    match metadata.labels.unwrap_or_default().get(LEVEL).map(String::as_str) {
        Some("restricted") => Finding::good(check, "only pods of level restricted run in it"),
        Some(other) => Finding::warning(check, format!("pods of level {other} may run in it"), next),
        None => Finding::warning(check, "pods of any level may run in it", next),
    }
}

pub(super) fn volumes(
    claims: Asked<Vec<PersistentVolumeClaim>>,
    classes: Asked<Vec<StorageClass>>,
    name: &str,
) -> Vec<Finding> {
    let claims = match claims.or_tell("volumes", "claims", || Finding::good("volumes", "there are no claims")) {
        Ok(claims) => claims,
        Err(finding) => return vec![finding],
    };
    let store = format!("{name}-store");
    let called = |claim: &PersistentVolumeClaim| claim.metadata.name.clone().unwrap_or_default();
    let mut found: Vec<Finding> = claims
        .iter()
        .map(|claim| {
            let check = if called(claim) == store { "store" } else { "volumes" };
            match class(claim, &classes) {
                Err(why) => unusable(check, &called(claim), &why),
                Ok(provisioner) if check == "store" => shared_store(claim, provisioner.as_deref()),
                Ok(_) => bound(check, claim),
            }
        })
        .collect();
    if !claims.iter().any(|claim| called(claim) == store) {
        found.push(Finding::good(
            "store",
            format!("there is no claim {store}: the store is in buckets, or a volume of others"),
        ));
    }
    found
}

/// Its class's provisioner, if it is known.
fn class(claim: &PersistentVolumeClaim, classes: &Asked<Vec<StorageClass>>) -> Result<Option<String>, String> {
    let Some(classes) = classes.there() else { return Ok(None) };
    let wanted = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    let is_default = |class: &&StorageClass| {
        class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
    };
    match wanted {
        // A volume that somebody made for it.
        Some("") => Ok(None),
        Some(name) => {
            let found = classes.iter().find(|class| class.metadata.name.as_deref() == Some(name));
            found
                .map(|class| Some(class.provisioner.clone()))
                .ok_or_else(|| format!("there is no storage class {name}"))
        }
        None => {
            let found = classes.iter().find(is_default);
            let why = || "it names no storage class, and none is the default".to_string();
            found.map(|class| Some(class.provisioner.clone())).ok_or_else(why)
        }
    }
}

fn unusable(check: &'static str, claim: &str, why: &str) -> Finding {
    let next = "choose one of `kubectl get storageclass` in the chart's values (masters.volume.storageClass, store.volume.storageClass)";
    Finding::bad(check, format!("claim {claim}: {why}"), next)
}

/// The store is written by all nodes at the same time.
fn shared_store(claim: &PersistentVolumeClaim, provisioner: Option<&str>) -> Finding {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    let classes = "of Longhorn, NFS, CephFS, EFS, Azure Files or Filestore; or store in buckets (store.url)";
    if !modes.iter().any(|mode| mode == "ReadWriteMany") {
        let what = format!("claim {name} is {}: only one node can write it", modes.join(", "));
        return Finding::bad("store", what, format!("make it ReadWriteMany, with a class {classes}"));
    }
    let state = bound("store", claim);
    match provisioner.map(|provisioner| (provisioner, shared(provisioner))) {
        Some((provisioner, Shared::No)) => {
            let what = format!("claim {name}: {provisioner} has no volumes that many nodes can write");
            Finding::bad("store", what, format!("use a class {classes}"))
        }
        _ if state.verdict != super::Verdict::Good => state,
        Some((provisioner, Shared::Unknown)) => {
            let what = format!("claim {name}: it is not known whether many nodes can write volumes of {provisioner}");
            Finding::warning(
                "store",
                what,
                format!("see its documentation for ReadWriteMany, or use a class {classes}"),
            )
        }
        Some((provisioner, Shared::Yes)) => {
            Finding::good("store", format!("claim {name} is bound, and many nodes can write volumes of {provisioner}"))
        }
        None => state,
    }
}

fn bound(check: &'static str, claim: &PersistentVolumeClaim) -> Finding {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Bound") => Finding::good(check, format!("claim {name} is bound")),
        Some("Lost") => {
            Finding::bad(check, format!("claim {name} has lost its volume"), "restore the volume, or its content")
        }
        phase => {
            let what = format!("claim {name} is {}", phase.unwrap_or("Pending"));
            Finding::warning(check, what, format!("see `kubectl describe pvc {name}` for what it waits for"))
        }
    }
}

/// A Service, and what is behind it. Workers come and go; without a master there is no cluster.
pub(super) fn service(service: &str, found: Asked<Service>, slices: Asked<Vec<EndpointSlice>>, name: &str) -> Finding {
    let check = "services";
    let missing = || Finding::bad(check, format!("there is no Service {service}"), "install the chart once more");
    if let Err(finding) = found.or_tell(check, &format!("Service {service}"), missing) {
        return finding;
    }
    let slices = match slices.or_tell(check, &format!("endpoints of {service}"), missing) {
        Ok(slices) => slices,
        Err(finding) => return finding,
    };
    let ready = |slice: &EndpointSlice| {
        let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
        let all = slice.endpoints.as_deref().unwrap_or_default();
        all.iter().filter(|one| is_ready(one.conditions.as_ref().and_then(|conditions| conditions.ready))).count()
    };
    match slices.iter().map(ready).sum::<usize>() {
        0 if service.strip_prefix(name) != Some("-workers") => {
            let next = format!("see the masters' logs: kubectl logs {name}-0");
            Finding::bad(check, format!("nothing answers at Service {service}"), next)
        }
        count => Finding::good(check, format!("Service {service} has {count} addresses")),
    }
}

pub(super) fn dns(host: &str, found: Result<usize, String>) -> Finding {
    let next = "see that the cluster's DNS runs, and that the NetworkPolicy lets port 53 out";
    match found {
        Ok(0) => Finding::bad("dns", format!("{host} has no address"), next),
        Ok(count) => Finding::good("dns", format!("{host} has {count} addresses")),
        Err(why) => Finding::bad("dns", format!("{host} is not found: {why}"), next),
    }
}

pub(super) fn network(policies: BTreeMap<String, Asked<()>>) -> Finding {
    let check = "network";
    let of = |wanted: &dyn Fn(&Asked<()>) -> bool| -> Vec<&str> {
        policies.iter().filter(|(_, asked)| wanted(asked)).map(|(name, _)| name.as_str()).collect()
    };
    let (missing, unknown) =
        (of(&|asked| *asked == Asked::Missing), of(&|asked| matches!(asked, Asked::Forbidden | Asked::Unknown(_))));
    if !missing.is_empty() {
        let what = format!("there is no NetworkPolicy {}: any pod reaches masters and workers", missing.join(", "));
        return Finding::warning(check, what, "set networkPolicy.enabled in the chart's values");
    }
    if !unknown.is_empty() {
        let what = format!("NetworkPolicy {}: not known, this user may not look", unknown.join(", "));
        return Finding::warning(check, what, "run it as somebody who may look at the namespace to know");
    }
    Finding::good(check, "policies are there; whether they hold is up to the cluster's network")
}

pub(super) fn masters(found: Asked<StatefulSet>, name: &str) -> Finding {
    let check = "masters";
    let missing = || Finding::bad(check, format!("there is no StatefulSet {name}"), "install the chart, or say --name");
    let set = match found.or_tell(check, &format!("StatefulSet {name}"), missing) {
        Ok(set) => set,
        Err(finding) => return finding,
    };
    let wanted = set.spec.replicas.unwrap_or(1);
    let ready = set.status.and_then(|status| status.ready_replicas).unwrap_or(0);
    let what = format!("{ready} of {wanted} masters are ready");
    let next = format!("see `kubectl describe pod {name}-0` and the logs of those that are not");
    match ready {
        _ if ready >= wanted => Finding::good(check, what),
        _ if ready * 2 > wanted => Finding::warning(check, what, next),
        _ => Finding::bad(check, format!("{what}: there is no majority"), next),
    }
}

pub(super) fn pods(found: Asked<Vec<Pod>>) -> Vec<Finding> {
    let check = "pods";
    let pods = match found.or_tell(check, "pods", || Finding::good(check, "there are none")) {
        Ok(pods) => pods,
        Err(finding) => return vec![finding],
    };
    let mut all = Vec::new();
    for pod in &pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let next = format!("see `kubectl describe pod {name}`");
        match reason::standing(pod) {
            (Phase::Pending, _, Some(why)) => {
                all.push(Finding::warning(check, format!("pod {name} waits: {why}"), next))
            }
            (Phase::Running, true, why) => {
                let why = why.map_or_else(|| "it was told to end".to_string(), |why| why.to_string());
                all.push(Finding::warning(check, format!("pod {name} leaves: {why}"), "wait: others get its tasks"));
            }
            (Phase::Running, false, _) if !is_ready(pod) => {
                all.push(Finding::warning(
                    check,
                    format!("pod {name} runs and is not ready"),
                    format!("see `kubectl logs {name}`"),
                ));
            }
            (Phase::Ended, _, Some(why)) => all.push(Finding::warning(check, format!("pod {name} ended: {why}"), next)),
            _ => {}
        }
    }
    if all.is_empty() {
        return vec![Finding::good(check, format!("all {} are as they should be", pods.len()))];
    }
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    if more > 0 {
        all.push(Finding::warning(
            check,
            format!("and {more} more pods are not as they should be"),
            "see `kubectl get pods`",
        ));
    }
    all
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    // One that has not been told about is as good as any.
    conditions.iter().find(|one| one.type_ == "Ready").is_none_or(|one| one.status == "True")
}

pub(super) fn quota(found: Asked<Vec<ResourceQuota>>) -> Finding {
    let check = "quota";
    let none = || Finding::good(check, "there is none");
    let quotas = match found.or_tell(check, "quotas", none) {
        Ok(quotas) => quotas,
        Err(finding) => return finding,
    };
    let next = "raise the quota, or lower max of the pools: workers beyond it are not made";
    let mut nearly = None;
    for quota in &quotas {
        let status = quota.status.clone().unwrap_or_default();
        let (hard, used) = (status.hard.unwrap_or_default(), status.used.unwrap_or_default());
        for (resource, hard) in hard {
            let told = used.get(&resource).map_or("0", |quantity| quantity.0.as_str());
            let (Some(most), Some(taken)) = (number(&hard), number(&Quantity(told.into()))) else { continue };
            let name = quota.metadata.name.as_deref().unwrap_or_default();
            let what = format!("quota {name}: {told} of {} {resource} are used", hard.0);
            if taken >= most {
                return Finding::bad(check, what, next);
            }
            if taken >= most * NEARLY {
                nearly.get_or_insert(what);
            }
        }
    }
    match nearly {
        Some(what) => Finding::warning(check, what, next),
        None if quotas.is_empty() => none(),
        None => Finding::good(check, "there is room in it"),
    }
}

/// A quantity as a number: "100m", "4Gi", "1e3".
fn number(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    if let Ok(number) = text.parse::<f64>() {
        return Some(number);
    }
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests;
