//! `k8s`: what is done around an installation on Kubernetes. Manifests and the definition of MapReduceJob are printed, the
//! Secrets of a new cluster made, and what is wrong with one is looked for.
//!
//! `gristmill-k8s` knows Kubernetes; here are the command line and what it takes of this program: who signs certificates, and
//! how a password is made up. No secret is ever printed.

use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command, value_parser};
use gristmill_engine::auth::Secret;
use gristmill_engine::auth::password::{MADE_UP, made_up};
use gristmill_k8s::doctor::{Finding, Verdict};
use gristmill_k8s::{client, crd, doctor, manifests, secrets};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::failure::{Failure, one_line};
use super::super::sizes::counted;
use super::super::{say, stdout};
use super::ask::{format, table};
use super::at::runtime;
use crate::cluster::authority::{Authority, Error, NODE_DAYS, Pair};
use crate::cluster::roles::Roles;

/// What everything is called unless it is said.
const NAME: &str = "gristmill";

pub(super) fn command(program: &str) -> Command {
    Command::new("k8s")
        .about("Install a cluster on Kubernetes, and look at one")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(manifests_command(program))
        .subcommand(
            Command::new("crd").about("Print the definition of MapReduceJob, for kubectl apply").after_help(format!(
                "Example:\n  {program} k8s crd | kubectl apply --server-side --force-conflicts -f -"
            )),
        )
        .subcommand(secrets_command(program))
        .subcommand(doctor_command(program))
        .after_help(format!("Example:\n  {program} k8s manifests --namespace gristmill | kubectl apply -f -"))
}

fn namespace(help: &'static str) -> Arg {
    Arg::new("namespace").long("namespace").short('n').value_name("NAME").help(help)
}

fn manifests_command(program: &str) -> Command {
    let image = Arg::new("image").long("image").value_name("IMAGE");
    let masters = Arg::new("masters").long("masters").value_name("N").value_parser(value_parser!(u32));
    let store = Arg::new("store").long("store").value_name("URL");
    Command::new("manifests")
        .about("Print all that a cluster on Kubernetes consists of, for kubectl apply")
        .arg(namespace("The namespace of it all; by default gristmill"))
        .arg(image.help("The image of masters and workers; by default that of this version"))
        .arg(masters.help("How many masters: 1, 3 or 5; by default 3"))
        .arg(store.help(
            "The bucket with inputs and outputs, as s3://BUCKET/PREFIX, az:// or gs://; by default a volume that all pods write",
        ))
        .after_help(format!(
            "Examples:\n  {program} k8s manifests --namespace gristmill --image registry.example.com/gristmill:0.1.0 | kubectl apply -f -\n  \
             {program} k8s manifests --store s3://my-bucket/gristmill --masters 1\n\n\
             For a bucket the ServiceAccounts gristmill-master and gristmill-worker need an identity of the cloud, or their\n\
             containers an envFrom with its keys: neither is among what is printed. The Helm chart has more choices."
        ))
}

fn secrets_command(program: &str) -> Command {
    let name = Arg::new("name").long("name").value_name("NAME").default_value(NAME);
    Command::new("secrets")
        .about("Make the Secrets of a new cluster that are not there: an authority, certificates, the first password")
        .arg(name.help("What the cluster is called; the Secrets are NAME-ca, NAME-master-tls, NAME-worker-tls and NAME-admin"))
        .arg(namespace("Their namespace; by default the one of this pod, or of the kubeconfig file"))
        .after_help(format!(
            "Example:\n  {program} k8s secrets --name gristmill --namespace gristmill\n\n\
             What is there stays as it is. A certificate counts for {NODE_DAYS} days; to have a new one, delete its Secret first."
        ))
}

fn doctor_command(program: &str) -> Command {
    let name = Arg::new("name").long("name").value_name("NAME").default_value(NAME);
    let output = Arg::new("output").long("output").short('o').value_name("FORMAT").default_value("table");
    Command::new("doctor")
        .about("Look for what is wrong with an installation, and say what to do; fails if something does not work")
        .arg(name.help("What the cluster is called: as its StatefulSet"))
        .arg(output.value_parser(["table", "json"]).help("How to print"))
        .arg(namespace("Where it is; by default the namespace of this pod, or of the kubeconfig file"))
        .after_help(format!("Example:\n  {program} k8s doctor --namespace gristmill"))
}

pub(super) fn run(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    match of.subcommand() {
        Some(("manifests", of)) => print_manifests(of),
        Some(("crd", _)) => stdout::print(crd::yaml()),
        Some(("secrets", of)) => make_secrets(program, of),
        Some(("doctor", of)) => examine(of),
        _ => Ok(()),
    }
}

fn text(of: &ArgMatches, id: &str) -> Option<String> {
    of.get_one::<String>(id).cloned()
}

/// An error with its causes, where none says again what was said.
fn failed(e: impl std::error::Error) -> Failure {
    let causes = std::iter::successors(e.source(), |cause| (*cause).source());
    Failure::Kubernetes(
        causes
            .map(ToString::to_string)
            .fold(e.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") }),
    )
}

fn print_manifests(of: &ArgMatches) -> Result<(), Failure> {
    let choices = manifests::Choices {
        namespace: text(of, "namespace"),
        image: text(of, "image"),
        masters: of.get_one::<u32>("masters").copied(),
        store: text(of, "store"),
    };
    stdout::print(manifests::render(&choices).map_err(|e| Failure::Usage(e.to_string()))?)
}

fn make_secrets(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let name = text(of, "name").unwrap_or_else(|| NAME.into());
    let made = runtime()?.block_on(async {
        let client = client::connect().await.map_err(failed)?;
        let namespace = text(of, "namespace").unwrap_or_else(|| client.default_namespace().to_string());
        let found = secrets::found(&client, &namespace, &name).await.map_err(failed)?;
        if found.missing.is_empty() {
            return Ok(Vec::new());
        }
        let signed = Signed::new(found.authority.as_ref(), &name, &namespace, SystemTime::now())?;
        secrets::make(&client, &namespace, &name, &found, &signed.parts()).await.map_err(failed)
    })?;
    match made.as_slice() {
        [] => say(&format!("{program}: all Secrets of {name} are there; nothing is made")),
        made => say(&format!("{program}: made {}", made.join(", "))),
    }
    Ok(())
}

fn examine(of: &ArgMatches) -> Result<(), Failure> {
    let found = runtime()?.block_on(async {
        let client = client::connect().await.map_err(failed)?;
        let options = doctor::Options {
            namespace: text(of, "namespace").unwrap_or_else(|| client.default_namespace().to_string()),
            name: text(of, "name").unwrap_or_else(|| NAME.into()),
            in_pod: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        };
        Ok::<_, Failure>(doctor::examine(client, &options).await)
    })?;
    stdout::print(if format(of) == "json" { as_json(&found) } else { listed(&found) })?;
    match found.iter().filter(|finding| finding.verdict == Verdict::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::Kubernetes(format!("{} of the installation; see above", counted(bad as u64, "problem")))),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Warning => "warning",
        Verdict::Bad => "bad",
    }
}

fn as_json(found: &[Finding]) -> String {
    let finding = |of: &Finding| json!({"check": of.check, "verdict": word(of.verdict), "what": of.what, "next_step": of.next_step});
    Value::from(found.iter().map(finding).collect::<Vec<_>>()).to_string() + "\n"
}

/// A line for each finding, and one below where there is something to do.
fn listed(found: &[Finding]) -> String {
    let rows = found.iter().flat_map(|of| {
        let row = |first: &str, check: &str, text: &str| vec![first.to_string(), check.to_string(), one_line(text)];
        let next = (!of.next_step.is_empty()).then(|| row("", "", &of.next_step));
        std::iter::once(row(word(of.verdict), of.check, &of.what)).chain(next)
    });
    table(&rows.collect::<Vec<_>>())
}

/// All that the Secrets of a cluster are made of.
struct Signed {
    authority: Pair,
    master: Pair,
    worker: Pair,
    password: Secret,
}

impl Signed {
    /// By the authority that there is, a certificate and its key, or by a new one.
    fn new(there: Option<&(String, String)>, name: &str, namespace: &str, now: SystemTime) -> Result<Self, Failure> {
        let cannot = |e: Error| Failure::Usage(e.to_string());
        let (signs, authority) = match there {
            Some((certificate, key)) => {
                let authority = Pair { certificate: certificate.clone(), key: Zeroizing::new(key.clone()) };
                (Authority::of(certificate, key).map_err(cannot)?, authority)
            }
            None => Authority::new(now).map_err(cannot)?,
        };
        let sign = |roles| signs.sign(roles, &names_of(roles, name, namespace), now, NODE_DAYS).map_err(cannot);
        let password = made_up(&rand::random::<[u8; MADE_UP]>());
        Ok(Self { authority, master: sign(Roles::MASTER)?, worker: sign(Roles::WORKER)?, password })
    }

    fn parts(&self) -> secrets::Parts<'_> {
        secrets::Parts {
            authority: pair(&self.authority),
            master: pair(&self.master),
            worker: pair(&self.worker),
            password: secrets::Password(self.password.expose()),
        }
    }
}

fn pair(pair: &Pair) -> secrets::Pair<'_> {
    secrets::Pair { certificate: &pair.certificate, key: &pair.key }
}

/// Where masters of a cluster are, or workers, besides this machine: as `--advertise` says in their pods, and as clients know
/// the cluster.
fn names_of(roles: Roles, name: &str, namespace: &str) -> Vec<String> {
    match roles {
        Roles::MASTER => vec![
            format!("*.{name}-masters.{namespace}.svc"),
            format!("{name}-masters.{namespace}.svc"),
            format!("{name}.{namespace}.svc"),
            name.to_string(),
        ],
        _ => vec![format!("*.{name}-workers.{namespace}.svc")],
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::cluster::x509;

    fn names(pair: &Pair) -> (Roles, Vec<String>) {
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        (Roles::of(&der), x509::Certificate::read(&der).unwrap().names)
    }

    #[test]
    fn certificates_are_for_where_pods_are() {
        let now = SystemTime::now();
        let first = Signed::new(None, "gm", "batch", now).unwrap();
        let here = ["localhost", "127.0.0.1", "::1"];
        let of_master = ["*.gm-masters.batch.svc", "gm-masters.batch.svc", "gm.batch.svc", "gm"];
        let master = of_master.into_iter().chain(here).chain(["gristmill://master"]).map(String::from).collect();
        assert_eq!(names(&first.master), (Roles::MASTER, master));
        let worker = ["*.gm-workers.batch.svc"].into_iter().chain(here).chain(["gristmill://worker"]);
        assert_eq!(names(&first.worker), (Roles::WORKER, worker.map(String::from).collect()));
        // Those that are missing later are signed by the same one.
        let there = (first.authority.certificate.clone(), first.authority.key.to_string());
        let again = Signed::new(Some(&there), "gm", "batch", now).unwrap();
        assert_eq!(again.authority.certificate, first.authority.certificate);
        assert_ne!(again.password.expose(), first.password.expose());
        assert_eq!(again.parts().authority.key, first.authority.key.as_str());
        let other = Signed::new(None, "gm", "batch", now).unwrap();
        let mixed = (first.authority.certificate.clone(), other.authority.key.to_string());
        assert!(Signed::new(Some(&mixed), "gm", "batch", now).is_err(), "a key of another authority");
    }

    #[test]
    fn what_to_do_stands_below_what_is_wrong() {
        let finding =
            |check, verdict, next: &str| Finding { check, verdict, what: "x y".into(), next_step: next.into() };
        let found = [finding("version", Verdict::Good, ""), finding("store", Verdict::Bad, "do that")];
        assert_eq!(listed(&found), "good  version  x y\nbad   store    x y\n               do that\n");
        let told: Value = serde_json::from_str(&as_json(&found)).unwrap();
        assert_eq!((&told[0]["verdict"], &told[1]["next_step"]), (&json!("good"), &json!("do that")));
    }

    #[test]
    fn the_commands_are_sound() {
        command("g").debug_assert();
        let read = |line: &str| command("g").no_binary_name(true).try_get_matches_from(line.split(' ')).map(drop);
        read("manifests --namespace n --image i:1 --masters 5 --store s3://b/p").unwrap();
        read("secrets --name gm --namespace n").unwrap();
        read("doctor -n n").unwrap();
        assert!(read("manifests --masters x").is_err() && read("crd x").is_err());
    }
}
