//! A cluster's certificates and its administrator's password as Secrets: made once, and never changed.
//!
//! Who makes them is given nothing but the right to create Secrets and to read these four, and runs before a cluster is there
//! and again at each upgrade. So what is there stays as it is, whatever is in it. Certificates have to be of the authority that
//! is there: [`found`] reads it, the caller signs, [`make`] creates. Values are in no error and no output; copies that the
//! client makes on their way are not ours to overwrite.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

/// What follows the name, in the order in which they are made: what is signed comes after who signs.
const SUFFIXES: [&str; 4] = ["ca", "master-tls", "worker-tls", "admin"];

/// A certificate and its key, in PEM. Printed, it tells neither.
#[derive(Clone, Copy)]
pub struct Pair<'p> {
    /// The certificate.
    pub certificate: &'p str,
    /// Its key.
    pub key: &'p str,
}

impl fmt::Debug for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair")
    }
}

/// All that Secrets are made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'p> {
    /// The authority that signed the others: a new one, or the one that [`found`] read.
    pub authority: Pair<'p>,
    /// Of masters: for `*.NAME-masters.NAMESPACE.svc`, `NAME.NAMESPACE.svc`, `NAME` and this machine.
    pub master: Pair<'p>,
    /// Of workers: for `*.NAME-workers.NAMESPACE.svc` and this machine.
    pub worker: Pair<'p>,
    /// The administrator's password.
    pub password: Password<'p>,
}

/// A password. Printed, it is not told.
#[derive(Clone, Copy)]
pub struct Password<'p>(pub &'p str);

impl fmt::Debug for Password<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// What is there already.
#[derive(Default)]
pub struct Found {
    /// Names of the Secrets that are missing: nothing is to be made if there are none.
    pub missing: Vec<String>,
    /// The authority's certificate and key in PEM, if it is there.
    pub authority: Option<(String, String)>,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("missing", &self.missing).finish_non_exhaustive()
    }
}

/// Why Secrets were not read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do it.
    #[error("cannot {what} Secret {name}{hint}")]
    Api {
        /// "read" or "create".
        what: &'static str,
        /// Which one.
        name: String,
        /// What to do, after a colon; may be empty.
        hint: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Somebody else made an authority at the same time: what this one signed, that one did not.
    #[error("another one made Secret {0} at the same time: run it again, and its authority signs")]
    Meanwhile(String),
    /// Certificates are missing, and whoever signed the others is not there.
    #[error(
        "Secret {missing} is to be signed, and {authority} is not there: put the authority back, or delete all certificates"
    )]
    Lost {
        /// The authority's Secret.
        authority: String,
        /// The first that is missing.
        missing: String,
    },
    /// The authority's Secret is not what is made here.
    #[error("Secret {0} has no ca.crt and ca.key: delete it to have an authority made, or put both in it")]
    Authority(String),
}

/// Names of the four Secrets of a cluster.
pub fn names(name: &str) -> [String; 4] {
    SUFFIXES.map(|suffix| format!("{name}-{suffix}"))
}

/// Looks which of a cluster's Secrets are there. An authority that somebody took away once all was signed is not missed.
///
/// # Errors
/// [`Error::Api`]; [`Error::Lost`] or [`Error::Authority`] if something is to be signed and there is nobody to do it.
pub async fn found(client: &Client, namespace: &str, name: &str) -> Result<Found, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let all = names(name);
    let mut there = Vec::new();
    for name in &all {
        there.push(api.get_opt(name).await.map_err(|e| failed("read", name, e))?);
    }
    let missing = missing(&all, [0, 1, 2, 3].map(|index| there[index].is_some()))?;
    let is_signing = missing.iter().any(|name| *name != all[3]);
    let authority = match &there[0] {
        Some(secret) if is_signing => Some(pair(secret).ok_or_else(|| Error::Authority(all[0].clone()))?),
        _ => None,
    };
    Ok(Found { missing, authority })
}

/// Which of the four are to be made.
fn missing(all: &[String; 4], there: [bool; 4]) -> Result<Vec<String>, Error> {
    let [ca, master, worker, admin] = there;
    let is_needed = !(master && worker);
    if !ca && is_needed && (master || worker) {
        let missing = if master { &all[2] } else { &all[1] };
        return Err(Error::Lost { authority: all[0].clone(), missing: missing.clone() });
    }
    let wanted = [ca || !is_needed, master, worker, admin];
    Ok(all.iter().zip(wanted).filter(|(_, there)| !there).map(|(name, _)| name.clone()).collect())
}

/// An authority's certificate and key.
fn pair(secret: &Secret) -> Option<(String, String)> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?.0.clone();
        String::from_utf8(bytes).ok().filter(|text| !text.trim().is_empty())
    };
    text("ca.crt").zip(text("ca.key"))
}

/// Creates those of a cluster's Secrets that were not there, and says which. One that is there now is not looked at.
///
/// # Errors
/// [`Error::Api`]. [`Error::Meanwhile`] if the authority was missing and is there now.
pub async fn make(
    client: &Client,
    namespace: &str,
    name: &str,
    found: &Found,
    parts: &Parts<'_>,
) -> Result<Vec<String>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let [authority, ..] = names(name);
    let mut made = Vec::new();
    for secret in secrets(name, parts) {
        let called = secret.metadata.name.clone().unwrap_or_default();
        if !found.missing.contains(&called) {
            continue;
        }
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => made.push(called),
            Err(kube::Error::Api(status)) if status.code == 409 && called == authority => {
                return Err(Error::Meanwhile(called));
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(e) => return Err(failed("create", &called, e)),
        }
    }
    Ok(made)
}

/// The four Secrets, in the order in which they are made.
fn secrets(name: &str, parts: &Parts<'_>) -> [Secret; 4] {
    let [ca, master, worker, admin] = names(name);
    let signed = |called, pair: &Pair<'_>| {
        let data = [("ca.crt", parts.authority.certificate), ("tls.crt", pair.certificate), ("tls.key", pair.key)];
        secret(name, called, "kubernetes.io/tls", &data)
    };
    let authority = [("ca.crt", parts.authority.certificate), ("ca.key", parts.authority.key)];
    [
        secret(name, ca, "Opaque", &authority),
        signed(master, &parts.master),
        signed(worker, &parts.worker),
        secret(name, admin, "Opaque", &[("password", parts.password.0)]),
    ]
}

fn secret(instance: &str, name: String, kind: &str, data: &[(&str, &str)]) -> Secret {
    let labels = [
        ("app.kubernetes.io/name", "gristmill"),
        ("app.kubernetes.io/instance", instance),
        ("app.kubernetes.io/component", "init"),
        ("app.kubernetes.io/managed-by", "gristmill"),
    ];
    let data = data.iter().map(|(key, value)| ((*key).to_string(), ByteString(value.as_bytes().to_vec())));
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels.map(|(key, value)| (key.to_string(), value.to_string())).into()),
            ..ObjectMeta::default()
        },
        type_: Some(kind.into()),
        data: Some(data.collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    }
}

fn failed(what: &'static str, name: &str, source: kube::Error) -> Error {
    let hint = match &source {
        kube::Error::Api(status) if status.code == 403 => {
            ": the service account needs the rights of the Role NAME-init in the chart"
        }
        _ => "",
    };
    Error::Api { what, name: name.into(), hint, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts<'static> = Parts {
        authority: Pair { certificate: "A-CERT", key: "A-CANARY" },
        master: Pair { certificate: "M-CERT", key: "M-CANARY" },
        worker: Pair { certificate: "W-CERT", key: "W-CANARY" },
        password: Password("P-CANARY"),
    };

    #[test]
    fn each_secret_has_what_its_mount_wants() {
        let all = secrets("gm", &PARTS);
        let told = all.map(|secret| {
            let text = |(key, value): (String, ByteString)| format!("{key}={}", String::from_utf8(value.0).unwrap());
            let data: Vec<String> = secret.data.unwrap().into_iter().map(text).collect();
            (secret.metadata.name.unwrap(), secret.type_.unwrap(), data.join(" "))
        });
        let wanted = [
            ("gm-ca", "Opaque", "ca.crt=A-CERT ca.key=A-CANARY"),
            ("gm-master-tls", "kubernetes.io/tls", "ca.crt=A-CERT tls.crt=M-CERT tls.key=M-CANARY"),
            ("gm-worker-tls", "kubernetes.io/tls", "ca.crt=A-CERT tls.crt=W-CERT tls.key=W-CANARY"),
            ("gm-admin", "Opaque", "password=P-CANARY"),
        ];
        assert_eq!(told, wanted.map(|(name, kind, data)| (name.to_string(), kind.to_string(), data.to_string())));
    }

    #[test]
    fn what_is_made_is_signed_by_who_signed_the_rest() {
        let all = names("gm");
        let told = |there: [bool; 4]| {
            let made = missing(&all, there).map_err(|e| e.to_string());
            made.map(|made| made.iter().map(|name| name.trim_start_matches("gm-")).collect::<Vec<_>>().join(" "))
        };
        let table = [
            ([false; 4], "ca master-tls worker-tls admin"),
            ([true, false, false, false], "master-tls worker-tls admin"),
            ([true, true, false, true], "worker-tls"),
            ([true, true, true, false], "admin"),
            ([true; 4], ""),
            // The authority was taken away, and nothing is to be signed.
            ([false, true, true, true], ""),
            ([false, true, true, false], "admin"),
        ];
        for (there, wanted) in table {
            assert_eq!(told(there).as_deref(), Ok(wanted), "{there:?}");
        }
        for (there, wanted) in
            [([false, true, false, true], "gm-worker-tls"), ([false, false, true, true], "gm-master-tls")]
        {
            let why = told(there).unwrap_err();
            assert!(why.contains(wanted) && why.contains("gm-ca is not there"), "{why}");
        }
    }

    #[test]
    fn nothing_prints_a_key_or_a_password() {
        let found = Found { missing: vec!["gm-admin".into()], authority: Some(("A-CERT".into(), "A-CANARY".into())) };
        let printed = format!("{PARTS:?} {found:?}");
        assert!(!printed.contains("CANARY") && printed.contains("gm-admin"), "{printed}");
    }
}
