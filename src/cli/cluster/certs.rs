//! `certs`: an authority for those who have none, certificates of nodes, and a look at any certificate.

mod keep;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use self::keep::File;
use super::super::failure::{Failure, one_line};
use super::super::stdout;
use super::ask::table;
use crate::cluster::authority::{AUTHORITY_DAYS, Authority, Error, NODE_DAYS, Pair};
use crate::cluster::roles::Roles;
use crate::cluster::x509;

/// The files of an authority are called so.
const AUTHORITY: &str = "ca";
/// The roles that a certificate can be made for, which name its files too.
const ROLES: [(&str, Roles); 3] = [("master", Roles::MASTER), ("worker", Roles::WORKER), ("node", Roles::BOTH)];

pub(super) fn command(program: &str) -> Command {
    Command::new("certs")
        .about("Make certificates for the nodes of a cluster, and look at them")
        .after_help(format!("Example:\n  {program} certs init certs --name master-0.example.com"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(init_command(program))
        .subcommand(issue_command(program))
        .subcommand(show_command(program))
}

fn init_command(program: &str) -> Command {
    signing("init", "The folder for them; made if it is not there")
        .about("Make an authority, and certificates for a master, a worker and a node that is both")
        .after_help(format!(
            "Examples:\n  {program} certs init certs --name master-0.example.com --name worker-0.example.com\n  \
             {program} certs init certs --name 10.0.0.5 --days 90\n\n\
             Makes ca.pem, master.pem, worker.pem, node.pem and the key of each, as in master-key.pem. Nodes need\n\
             ca.pem and their own two files, clients ca.pem. Who has ca-key.pem can make a node of any machine:\n\
             keep it away from them."
        ))
}

fn issue_command(program: &str) -> Command {
    let role = Arg::new("role").long("role").value_name("ROLE").required(true);
    let out = Arg::new("out").long("out").value_name("NAME").required(true).value_parser(file_name);
    signing("issue", "The folder of the authority, as certs init made it")
        .about("Make one more certificate with the authority of a folder")
        .arg(role.value_parser(ROLES.map(|(name, _)| name)).help("What its holder is; node: master and worker"))
        .arg(out.help("What to call it: NAME.pem and NAME-key.pem in the same folder"))
        .after_help(format!(
            "Examples:\n  {program} certs issue certs --role worker --name worker-1.example.com --out worker-1\n  \
             {program} certs issue certs --role master --name master-0.example.com --out master --force"
        ))
}

fn show_command(program: &str) -> Command {
    let file = Arg::new("file").value_name("FILE").required(true).value_parser(value_parser!(PathBuf));
    Command::new("show")
        .about("Show what certificates in PEM say")
        .arg(file.value_hint(ValueHint::FilePath).help("The file"))
        .after_help(format!("Example:\n  {program} certs show certs/master.pem"))
}

/// A command that signs.
fn signing(name: &'static str, folder: &'static str) -> Command {
    let days = Arg::new("days").long("days").value_name("N").value_parser(value_parser!(u32).range(1..=3_650));
    let names = Arg::new("name").long("name").value_name("HOST").required(true).action(ArgAction::Append);
    let dir = Arg::new("dir").value_name("DIR").required(true).value_parser(value_parser!(PathBuf));
    Command::new(name)
        .arg(dir.value_hint(ValueHint::DirPath).help(folder))
        .arg(names.value_parser(host).help(
            "A host or address at which others reach the node, again for each; localhost, 127.0.0.1 and ::1 are always among them",
        ))
        .arg(days.help(format!("How many days it counts; by default {NODE_DAYS}")))
        .arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help("Replace files that are there"))
}

/// An address, or a name of hosts: labels of letters, digits and dashes, the first of which may be `*`.
fn host(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && name.split('.').all(label)) {
        return Ok(text.to_string());
    }
    Err("write a host as in master-0.example.com or 10.0.0.5, without a port".into())
}

/// What files may be called, beside an authority's.
fn file_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let taken = [AUTHORITY.to_string(), key_of(AUTHORITY)].iter().any(|taken| text.eq_ignore_ascii_case(taken));
    if text.is_empty() || text.len() > 200 || text.starts_with('.') || taken || !text.bytes().all(plain) {
        return Err("it is the name of a file: letters, digits, dashes, dots and underscores, and not 'ca'".into());
    }
    Ok(text.to_string())
}

fn key_of(name: &str) -> String {
    format!("{name}-key")
}

pub(super) fn certs(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    match of.subcommand() {
        Some(("init", of)) => init(program, of),
        Some(("issue", of)) => issue(of),
        Some(("show", of)) => show(of),
        _ => Ok(()),
    }
}

fn failed(e: Error) -> Failure {
    Failure::Usage(e.to_string())
}

fn folder(of: &ArgMatches) -> PathBuf {
    of.get_one::<PathBuf>("dir").cloned().unwrap_or_default()
}

/// Signs as the command's flags say.
fn sign(authority: &Authority, roles: Roles, of: &ArgMatches) -> Result<Pair, Failure> {
    let names: Vec<String> = of.get_many::<String>("name").into_iter().flatten().cloned().collect();
    let days = of.get_one::<u32>("days").copied().unwrap_or(NODE_DAYS);
    authority.sign(roles, &names, SystemTime::now(), days).map_err(failed)
}

/// Keeps certificates with their keys, all or none.
fn put(of: &ArgMatches, pairs: &[(String, Pair)]) -> Result<(), Failure> {
    let files = pairs.iter().flat_map(|(name, pair)| {
        let key = File { name: format!("{}.pem", key_of(name)), text: &pair.key, secret: true };
        [key, File { name: format!("{name}.pem"), text: &pair.certificate, secret: false }]
    });
    keep::put(&folder(of), &files.collect::<Vec<_>>(), of.get_flag("force"))
}

fn init(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let (authority, own) = Authority::new(SystemTime::now()).map_err(failed)?;
    let mut pairs = vec![(AUTHORITY.to_string(), own)];
    for (name, roles) in ROLES {
        pairs.push((name.to_string(), sign(&authority, roles, of)?));
    }
    put(of, &pairs)?;
    let dir = folder(of);
    let dir = dir.display();
    let next = format!(
        "made an authority, which counts for {AUTHORITY_DAYS} days, and certificates of a master, a worker and a node in {dir}\n\
         next: {program} master --tls-ca {dir}/ca.pem --tls-cert {dir}/master.pem --tls-key {dir}/master-key.pem …\n"
    );
    stdout::print(next)
}

fn issue(of: &ArgMatches) -> Result<(), Failure> {
    let dir = folder(of);
    let certificate = read(&dir.join(format!("{AUTHORITY}.pem")))?;
    let key = read(&dir.join(format!("{}.pem", key_of(AUTHORITY))))?;
    let authority = Authority::of(&certificate, &key).map_err(failed)?;
    let role = of.get_one::<String>("role").map_or("", String::as_str);
    let roles = ROLES.iter().find(|(name, _)| *name == role).map_or(Roles::NONE, |(_, roles)| *roles);
    let name = of.get_one::<String>("out").cloned().unwrap_or_default();
    put(of, &[(name, sign(&authority, roles, of)?)])
}

/// A file in PEM; it may be a key.
fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let read = fs::read_to_string(path).map(Zeroizing::new);
    read.map_err(|source| Failure::File { action: "read", path: path.into(), source })
}

fn show(of: &ArgMatches) -> Result<(), Failure> {
    let path = of.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let text = read(&path)?;
    let wrong = |why: String| Failure::Usage(format!("cannot show {}: {why}", path.display()));
    let mut shown = Vec::new();
    for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|e| wrong(e.to_string()))?;
        let none = || wrong("a certificate in it cannot be read".into());
        shown.push(table(&rows(&der, &x509::Certificate::read(&der).ok_or_else(none)?)));
    }
    if shown.is_empty() {
        return Err(wrong("there is no certificate in it; it has to be PEM, with lines 'BEGIN CERTIFICATE'".into()));
    }
    stdout::print(shown.join("\n"))
}

/// What is shown of one.
fn rows(der: &CertificateDer<'_>, read: &x509::Certificate) -> Vec<Vec<String>> {
    let digest: [u8; 32] = Sha256::digest(der).into();
    let row = |name: &str, value: &str| vec![name.to_string(), one_line(value)];
    vec![
        row("subject", &read.subject),
        row("names", &read.names.join(", ")),
        row("roles", &Roles::of(der).to_string()),
        row("not before", &read.begins),
        row("not after", &read.ends),
        row("sha256", &digest.map(|byte| format!("{byte:02x}")).join(":")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_no_ports_and_files_no_folders() {
        for good in ["master-0.example.com", "*.masters.ns.svc", "10.0.0.5", "::1", "localhost", "a"] {
            assert_eq!(host(good), Ok(good.to_string()));
        }
        for bad in ["", "m:7070", "[::1]", "a..b", "-a", "a-", "*", "a.*.b", "mä", "a b", "https://m", &"a".repeat(64)]
        {
            assert!(host(bad).is_err(), "{bad}");
        }
        assert!(file_name("worker-1").is_ok() && file_name("w.2_b").is_ok());
        for bad in ["", "ca", "CA", "ca-key", "../x", "a/b", ".hidden", "a b"] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
    }
}
