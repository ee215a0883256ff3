//! The Pod of a seat: what a pool's template says, and what makes it one of this cluster's workers.
//!
//! Pure. A pod's name follows from its seat, so that making it twice makes one. Its labels say which cluster, pool, generation,
//! index and term it is of, and are all that is read back: a pod is recognised by labels, never by its name.

use std::collections::BTreeMap;

use gristmill_engine::node::pods::{Pod as Known, Seat};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::reason;

/// The container that is ours.
pub const CONTAINER: &str = "worker";
/// Bytes of a pod's name: it is its host name too, a label of DNS (RFC 1123; *Object Names and IDs*).
pub const NAME: usize = 63;
/// Bytes of a pool's name.
pub const POOL: usize = 32;
/// Digits of an index: more than any pool's workers.
const INDEX: usize = 6;
/// Digits of a generation, and of what stands for the end of a long prefix.
const HEX: usize = 8;

/// The cluster's id, 16 hexadecimal digits.
pub const CLUSTER: &str = "gristmill.dev/cluster";
/// The pool's name.
pub const POOL_LABEL: &str = "gristmill.dev/pool";
/// The generation, 8 hexadecimal digits, as in the name.
pub const GENERATION: &str = "gristmill.dev/generation";
/// The index, decimal.
pub const INDEX_LABEL: &str = "gristmill.dev/index";
/// The term of the leader that made it, decimal.
pub const TERM: &str = "gristmill.dev/term";
/// What begins so is ours to set.
const OURS: &str = "gristmill.dev/";
/// *Recommended Labels*: which of them are ours to set, and to what. The instance is the prefix.
const RECOMMENDED: [(&str, &str); 3] = [
    ("app.kubernetes.io/name", "gristmill"),
    ("app.kubernetes.io/component", "worker"),
    ("app.kubernetes.io/managed-by", "gristmill"),
];
const INSTANCE: &str = "app.kubernetes.io/instance";

/// What a pod is made of, besides its seat.
#[derive(Debug, Clone, Copy)]
pub struct Made<'m> {
    /// With what the names of pods begin: a label of DNS.
    pub prefix: &'m str,
    /// The cluster's id.
    pub cluster: u64,
    /// Of the leader that makes it.
    pub term: u64,
    /// With whom it goes.
    pub owner: Option<&'m OwnerReference>,
    /// As [`check`] let through.
    pub template: &'m PodTemplateSpec,
    /// What its pool offers.
    pub capabilities: &'m [String],
}

/// Looks whether pods can be made of a template.
///
/// # Errors
/// Which field is not as it must be.
pub fn check(template: &PodTemplateSpec) -> Result<(), String> {
    if let Some(metadata) = &template.metadata {
        let told = ObjectMeta {
            labels: metadata.labels.clone(),
            annotations: metadata.annotations.clone(),
            ..Default::default()
        };
        if *metadata != told {
            return Err("template.metadata has more than labels and annotations".into());
        }
        let reserved = |label: &&String| {
            label.starts_with(OURS) || *label == INSTANCE || RECOMMENDED.iter().any(|(ours, _)| label == ours)
        };
        if let Some(label) = metadata.labels.iter().flat_map(BTreeMap::keys).find(reserved) {
            return Err(format!("template.metadata.labels: {label} is set by gristmill; leave it out"));
        }
    }
    let Some(spec) = &template.spec else { return Err("template.spec is missing".into()) };
    let containers = spec.containers.iter().filter(|container| container.name == CONTAINER);
    if containers.count() != 1 {
        return Err(format!("template.spec.containers needs one that is called {CONTAINER}"));
    }
    if let Some(policy) = spec.restart_policy.as_deref().filter(|policy| *policy != "Never") {
        return Err(format!(
            "template.spec.restartPolicy is {policy} and must be Never: masters replace pods that have ended"
        ));
    }
    if spec.automount_service_account_token == Some(true) {
        return Err(
            "template.spec.automountServiceAccountToken must be false: workers do not use Kubernetes' API".into()
        );
    }
    Ok(())
}

/// The name of a seat's pod: PREFIX-POOL-GENERATION-INDEX. Of a prefix that is too long for that the beginning is left, and a
/// digest of all of it.
///
/// # Errors
/// An index of more than six digits.
pub fn name(prefix: &str, seat: &Seat) -> Result<String, String> {
    let index = seat.index.to_string();
    let room = (NAME - HEX - INDEX - 3).checked_sub(seat.pool.len());
    let Some(room) = room.filter(|room| *room > HEX + 1 && index.len() <= INDEX) else {
        return Err(format!("no name is short enough for pod {index} of pool {}", seat.pool));
    };
    let prefix = match prefix.len() <= room {
        true => prefix.to_string(),
        false => {
            let start = reason::cut(prefix, room - HEX - 1);
            format!("{}-{:08x}", start.trim_end_matches('-'), crc32c::crc32c(prefix.as_bytes()))
        }
    };
    Ok(format!("{prefix}-{}-{:08x}-{index}", seat.pool, seat.generation))
}

/// The pod of a seat.
///
/// # Errors
/// It can have no name, or the template is none that [`check`] lets through.
pub fn build(made: Made<'_>, seat: &Seat) -> Result<Pod, String> {
    check(made.template)?;
    let name = name(made.prefix, seat)?;
    let template = made.template.metadata.clone().unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    labels.extend(RECOMMENDED.map(|(label, value)| (label.to_string(), value.to_string())));
    labels.insert(INSTANCE.into(), made.prefix.into());
    labels.insert(CLUSTER.into(), format!("{:016x}", made.cluster));
    labels.insert(POOL_LABEL.into(), seat.pool.clone());
    labels.insert(GENERATION.into(), format!("{:08x}", seat.generation));
    labels.insert(INDEX_LABEL.into(), seat.index.to_string());
    labels.insert(TERM.into(), made.term.to_string());
    let mut spec = made.template.spec.clone().unwrap_or_default();
    spec.restart_policy = Some("Never".into());
    spec.automount_service_account_token = Some(false);
    spec.hostname.get_or_insert_with(|| name.clone());
    for container in spec.containers.iter_mut().filter(|container| container.name == CONTAINER) {
        say_who(container, made.cluster);
        offer(container, made.capabilities);
    }
    let metadata = ObjectMeta {
        name: Some(name),
        labels: Some(labels),
        annotations: template.annotations,
        owner_references: made.owner.map(|owner| vec![owner.clone()]),
        ..Default::default()
    };
    Ok(Pod { metadata, spec: Some(spec), status: None })
}

/// Tells a worker what it has, in so far as its arguments do not.
fn offer(container: &mut Container, capabilities: &[String]) {
    let flags = capabilities.iter().map(|word| format!("--capability={word}"));
    let said = container.args.take().unwrap_or_default();
    let missing: Vec<String> = flags.filter(|flag| !said.contains(flag)).collect();
    container.args = Some([said, missing].concat()).filter(|args| !args.is_empty());
}

/// Tells a container which pod it is in (*Downward API*). First, so that what the template sets can refer to it
/// (*Define Dependent Environment Variables*); what the template sets itself is left.
fn say_who(container: &mut Container, cluster: u64) {
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.into() }),
            ..Default::default()
        }),
    };
    let said = [
        field("POD_NAME", "metadata.name"),
        field("POD_UID", "metadata.uid"),
        field("POD_IP", "status.podIP"),
        field("POD_NAMESPACE", "metadata.namespace"),
        EnvVar { name: "GRISTMILL_CLUSTER".into(), value: Some(format!("{cluster:016x}")), value_from: None },
    ];
    let own = container.env.take().unwrap_or_default();
    let missing = said.into_iter().filter(|ours| own.iter().all(|theirs| theirs.name != ours.name));
    container.env = Some(missing.chain(own.iter().cloned()).collect());
}

/// What selects the workers' pods of a cluster.
pub fn selector(cluster: u64) -> String {
    format!("{CLUSTER}={cluster:016x},{}={}", RECOMMENDED[1].0, RECOMMENDED[1].1)
}

/// Which cluster's worker a pod is, by its labels.
pub fn cluster(pod: &Pod) -> Option<u64> {
    u64::from_str_radix(label(pod, CLUSTER)?, 16).ok()
}

/// Which seat a pod is in, by its labels.
pub fn seat(pod: &Pod) -> Option<Seat> {
    Some(Seat {
        pool: label(pod, POOL_LABEL).filter(|pool| !pool.is_empty())?.to_string(),
        generation: u32::from_str_radix(label(pod, GENERATION)?, 16).ok()?,
        index: label(pod, INDEX_LABEL)?.parse().ok()?,
    })
}

fn label<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    pod.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// What the engine is to know of a pod; nothing of one that has no name or UID, which no server sends.
pub fn known(pod: &Pod) -> Option<Known> {
    let (phase, leaving, reason) = reason::standing(pod);
    let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
    Some(Known {
        name: pod.metadata.name.clone()?,
        uid: pod.metadata.uid.clone()?,
        seat: seat(pod),
        term: label(pod, TERM).and_then(|term| term.parse().ok()).unwrap_or_default(),
        created_ms: u64::try_from(created).unwrap_or_default(),
        phase,
        leaving,
        reason,
    })
}

/// How many tasks a worker of this template runs at a time, as its arguments say.
pub(crate) fn slots(spec: &PodSpec) -> Option<u32> {
    let container = spec.containers.iter().find(|container| container.name == CONTAINER)?;
    let words = || container.command.iter().flatten().chain(container.args.iter().flatten());
    let joined = words().find_map(|word| word.strip_prefix("--slots="));
    let apart = words().zip(words().skip(1)).find_map(|(flag, value)| (flag == "--slots").then_some(value.as_str()));
    joined.or(apart)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn template(change: impl FnOnce(&mut Value)) -> PodTemplateSpec {
        let mut template = json!({"metadata": {}, "spec": {"containers": [{"name": "worker", "image": "i"}]}});
        change(&mut template);
        serde_json::from_value(template).expect("a template")
    }

    fn seat_of(pool: &str, generation: u32, index: u32) -> Seat {
        Seat { pool: pool.into(), generation, index }
    }

    #[test]
    fn names_fit_whatever_they_are_made_of() {
        assert_eq!(name("gristmill", &seat_of("default", 0xbeef, 7)), Ok("gristmill-default-0000beef-7".into()));
        let pool = "p".repeat(POOL);
        let mut names = std::collections::BTreeSet::new();
        for prefix in ["gristmill".to_string(), "r".repeat(53), "r".repeat(63), "abcd-efgh-ijkl-mnop-qrst".into()] {
            for seat in [seat_of(&pool, u32::MAX, 999_999), seat_of("a", 0, 0)] {
                let name = name(&prefix, &seat).expect("a name");
                assert!(name.len() <= NAME && !name.contains("--"), "{name}");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
                assert!(names.insert(name));
            }
        }
        assert!(names.iter().any(|name| name.len() == NAME));
        assert!(name("gristmill", &seat_of("a", 0, 1_000_000)).is_err());
        // No panic for what the pool's file would not let through.
        assert!(name("gristmill", &seat_of(&"p".repeat(80), 0, 0)).is_err());
    }

    #[test]
    fn templates_are_looked_at() {
        assert_eq!(check(&template(|_| ())), Ok(()));
        type Change = fn(&mut Value);
        let wrong: [(Change, &str); 7] = [
            (|t| t["spec"] = Value::Null, "template.spec is missing"),
            (|t| t["spec"]["containers"][0]["name"] = "other".into(), "needs one that is called worker"),
            (
                |t| t["spec"]["containers"] = json!([{"name": "worker"}, {"name": "worker"}]),
                "needs one that is called worker",
            ),
            (|t| t["spec"]["restartPolicy"] = "Always".into(), "must be Never"),
            (|t| t["spec"]["automountServiceAccountToken"] = true.into(), "must be false"),
            (
                |t| t["metadata"]["labels"] = json!({"gristmill.dev/term": "9"}),
                "gristmill.dev/term is set by gristmill",
            ),
            (|t| t["metadata"]["finalizers"] = json!(["a.b/c"]), "more than labels and annotations"),
        ];
        for (change, says) in wrong {
            let found = check(&template(change)).expect_err(says);
            assert!(found.contains(says), "{found}");
        }
    }

    #[test]
    fn pods_are_read_back_by_their_labels() {
        let template = template(|_| ());
        let made = Made { prefix: "gm", cluster: 0xabc, term: 12, owner: None, template: &template, capabilities: &[] };
        let seat = seat_of("default", 0xfeed_beef, 3);
        let mut pod = build(made, &seat).expect("a pod");
        assert_eq!(known(&pod), None);
        pod.metadata.uid = Some("u-1".into());
        pod.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
        let known = known(&pod).expect("it has a name and a UID");
        assert_eq!((known.seat, known.term, known.created_ms), (Some(seat), 12, 1_767_225_600_000));
        assert_eq!((cluster(&pod), known.name.as_str()), (Some(0xabc), "gm-default-feedbeef-3"));
        // Whoever changes labels takes the pod out of its pool, and out of nothing else.
        pod.metadata.labels.as_mut().expect("labels").insert(INDEX_LABEL.into(), "many".into());
        assert_eq!((super::seat(&pod), cluster(&pod)), (None, Some(0xabc)));
    }

    #[test]
    fn what_the_template_sets_is_left() {
        let template = template(|t| {
            t["spec"]["hostname"] = "fixed".into();
            t["spec"]["subdomain"] = "workers".into();
            t["spec"]["containers"][0]["env"] =
                json!([{"name": "A", "value": "$(POD_UID)"}, {"name": "POD_NAME", "value": "own"}]);
        });
        let made = Made { prefix: "gm", cluster: 1, term: 1, owner: None, template: &template, capabilities: &[] };
        let spec = build(made, &seat_of("a", 1, 0)).expect("a pod").spec.expect("a spec");
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("fixed"), Some("workers")));
        let env = spec.containers[0].env.clone().unwrap_or_default();
        let names: Vec<&str> = env.iter().map(|env| env.name.as_str()).collect();
        assert_eq!(names, ["POD_UID", "POD_IP", "POD_NAMESPACE", "GRISTMILL_CLUSTER", "A", "POD_NAME"]);
        assert_eq!(env[5].value.as_deref(), Some("own"));
    }

    #[test]
    fn slots_are_found_in_arguments() {
        let of = |args: &[&str]| {
            let template = template(|t| t["spec"]["containers"][0]["args"] = json!(args));
            slots(&template.spec.expect("a spec"))
        };
        assert_eq!(of(&["worker", "--slots=3"]), Some(3));
        assert_eq!(of(&["worker", "--slots", "4", "--memory", "1GiB"]), Some(4));
        assert_eq!(of(&["worker", "--slots=$(SLOTS)"]), None);
        assert_eq!(of(&["worker"]), None);
    }
}
