//! Certificates: `gristmill certs` makes them, nodes know each other's roles by them, and take new ones while they run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use gristmill::cluster::channels::{Channels, Lane};
use gristmill::cluster::connector::Connector;
use gristmill::cluster::proto::internal::v1 as node;
use gristmill::cluster::proto::v1::ListJobsRequest;
use gristmill::cluster::proto::v1::jobs_client::JobsClient;
use gristmill::cluster::roles::Roles;
use gristmill::cluster::tls::{Files, Tls};
use gristmill::cluster::wire::Wire;
use node::admin_client::AdminClient;
use node::masters_client::MastersClient;
use node::peer_client::PeerClient;
use node::segments_client::SegmentsClient;
use node::workers_client::WorkersClient;
use rustix::process::Signal;
use tonic::Status;
use tonic::transport::Channel;

use crate::cluster::nodes::{logged_in, users};
use crate::process::Process;
use crate::program::{COUNTS, Folder, TEXT, until};

/// The flags of who trusts this folder's authority and shows this certificate of another one's.
fn flags(authority: &str, folder: &str, name: &str) -> String {
    format!("--tls-ca {authority}/ca.pem --tls-cert {folder}/{name}.pem --tls-key {folder}/{name}-key.pem")
}

fn start(folder: &Folder, role: &str, arguments: &str) -> (Process, String) {
    let users = if role == "worker" { String::new() } else { users(folder) };
    let arguments = format!("{role} --data {role} --store store --listen 127.0.0.1:0 {arguments}{users}");
    let mut node = Process::start(folder, role, &arguments);
    let at = node.ready();
    (node, at)
}

/// A connection of who has these certificates; `None`: of a client without one.
fn channel(folder: &Folder, at: &str, name: Option<&str>) -> Channel {
    let path = |name: String| folder.path().join("certs").join(name);
    let own = name.map(|name| (path(format!("{name}.pem")), path(format!("{name}-key.pem"))));
    let files = Files { authority: path("ca.pem".into()), own, roles: Roles::NONE };
    let wire = Wire::Tls(Tls::load(&files).unwrap());
    let connector = Connector { wire, ..Connector::new(Duration::from_secs(10)) };
    Channels::new(connector).to(at, Lane::Calls).unwrap()
}

/// Whether who asks is let through: what is answered then does not matter.
fn passes<T>(answer: Result<T, Status>) -> bool {
    let Err(status) = answer else { return true };
    assert_ne!(status.code(), tonic::Code::Unavailable, "{status}");
    let refusals = ["this is answered to ", "it is not known who asks"];
    !refusals.iter().any(|refusal| status.message().starts_with(refusal))
}

/// Of all services between nodes, those that let it through who has this certificate.
async fn let_through(folder: &Folder, (master, worker): (&str, &str), name: Option<&str>) -> Vec<&'static str> {
    let to = channel(folder, master, name);
    let beside = channel(folder, worker, name);
    let answers = [
        ("peer", passes(PeerClient::new(to.clone()).call(node::Frame::default()).await)),
        ("admin", passes(AdminClient::new(to.clone()).status(node::StatusRequest {}).await)),
        ("masters", passes(MastersClient::new(to.clone()).level(node::LevelRequest {}).await)),
        ("workers", passes(WorkersClient::new(to.clone()).poll(node::Poll::default()).await)),
        // Certificates are no users.
        ("jobs", passes(JobsClient::new(to).list(ListJobsRequest::default()).await)),
        ("segments", passes(SegmentsClient::new(beside).fetch(node::FetchRequest::default()).await)),
    ];
    answers.into_iter().filter(|(_, passes)| *passes).map(|(service, _)| service).collect()
}

#[tokio::test]
async fn nodes_do_a_job_and_each_is_answered_what_its_role_has_to_do_with() {
    let folder = Folder::new();
    folder.file("store/in.txt", TEXT);
    folder.out("certs init certs --name gristmill.example.com");
    folder.out("certs init other --name gristmill.example.com");
    let (_master, master) = start(&folder, "master", &flags("certs", "certs", "master"));
    let (_worker, worker) =
        start(&folder, "worker", &format!("--masters {master} {}", flags("certs", "certs", "worker")));
    logged_in(&folder, &format!("--at https://{master} --tls-ca certs/ca.pem"));
    folder.out(&format!("submit wordcount in.txt -o out --reducers 1 --at https://{master} --tls-ca certs/ca.pem"));
    let parts = folder.names("store/out").into_iter().find(|name| name.starts_with("part-")).unwrap();
    assert_eq!(folder.read(&format!("store/out/{parts}")), COUNTS);

    let at = (master.as_str(), worker.as_str());
    for (name, services) in [
        (Some("master"), vec!["peer", "admin", "masters", "workers"]),
        (Some("worker"), vec!["workers", "segments"]),
        (Some("node"), vec!["peer", "admin", "masters", "workers", "segments"]),
        (None, vec![]),
    ] {
        assert_eq!(let_through(&folder, at, name).await, services, "{name:?}");
    }

    // As people see it.
    let members = |flags: &str| {
        let mut command = folder.gristmill(&format!("raft members --at {master} {flags}"));
        // Without the user's token.
        command.env("GRISTMILL_CREDENTIALS", folder.path().join("nobody.json"));
        crate::program::ended(command.output().unwrap())
    };
    for (flags, told) in [
        (flags("certs", "certs", "worker"), "it is not known who asks"),
        ("--tls-ca certs/ca.pem".into(), "gristmill login"),
        // Of this handshake the client may hear no more than that the connection ended.
        (flags("certs", "other", "master"), "did not do it"),
        (flags("other", "certs", "master"), "certificate"),
    ] {
        let done = members(&flags);
        let lines = done.err.lines().count();
        assert!(done.code == Some(1) && done.err.contains(told) && lines == 1, "{flags}: {done:?}");
    }
    assert_eq!(members(&flags("certs", "certs", "master")).code, Some(0));
    for (role, name, lacks) in
        [("worker", "master", "worker"), ("master", "worker", "master"), ("serve", "worker", "master")]
    {
        let masters = if role == "worker" { "--masters 127.0.0.1:1" } else { "" };
        let done =
            folder.run(&format!("{role} --data d --listen 127.0.0.1:0 {masters} {}", flags("certs", "certs", name)));
        let told = format!("certs/{name}.pem does not name its holder's role: gristmill://{lacks}");
        assert!(done.code == Some(2) && done.err.contains(&told), "{role}: {done:?}");
    }
}

/// Whether a client is answered that trusts this authority and no other.
fn is_answered(folder: &Folder, at: &str, authority: &str) -> bool {
    folder.run(&format!("raft members --timeout 5 --at {at} {}", flags(authority, authority, "master"))).code == Some(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_new_certificates_while_it_runs() {
    let folder = Folder::new();
    for authority in ["certs", "new"] {
        folder.out(&format!("certs init {authority} --name gristmill.example.com"));
    }
    let take = |from: &str| {
        for name in ["ca.pem", "master.pem", "master-key.pem"] {
            let text = folder.read(&format!("{from}/{name}"));
            folder.file(&format!("now/{name}.new"), text);
            let path = folder.path().join("now").join(name);
            fs::rename(path.with_file_name(format!("{name}.new")), path).unwrap();
        }
    };
    take("certs");
    let (mut master, at) = start(&folder, "master", &flags("now", "now", "master"));
    let mut before = MastersClient::new(channel(&folder, &at, Some("master")));
    before.level(node::LevelRequest {}).await.unwrap();
    assert!(is_answered(&folder, &at, "certs") && !is_answered(&folder, &at, "new"));

    // By itself.
    take("new");
    master.says("new connections are made with the new certificates of now/master.pem");
    until("the new certificates in all files", || is_answered(&folder, &at, "new"));
    assert!(!is_answered(&folder, &at, "certs"));
    // Over the connection that was there before: whoever trusts the old authority alone could make no other.
    before.level(node::LevelRequest {}).await.unwrap();

    // When it is told to: what is wrong leaves all as it was.
    let own = folder.read("now/master.pem");
    folder.file("now/master.pem", "nothing");
    master.signal(Signal::HUP);
    master.says("keeps the certificates that it has: there is no certificate in now/master.pem");
    assert!(is_answered(&folder, &at, "new"));
    // Both authorities, as while one follows the other.
    folder.file("now/master.pem", own);
    folder.file("now/ca.pem", folder.read("certs/ca.pem") + &folder.read("new/ca.pem"));
    master.signal(Signal::HUP);
    let both = format!("raft members --timeout 5 --at {at} {}", flags("new", "certs", "master"));
    until("who shows what the old one signed to be let in", || folder.run(&both).code == Some(0));
    assert!(master.is_up());
}

#[test]
fn certificates_are_made_and_shown() {
    let folder = Folder::new();
    let told = folder.out("certs init certs --name master-0.example.com --name 10.0.0.5");
    assert!(told.contains("--tls-cert certs/master.pem"), "{told}");
    let keys = ["ca-key.pem", "master-key.pem", "node-key.pem", "worker-key.pem"];
    let all = [
        "ca-key.pem",
        "ca.pem",
        "master-key.pem",
        "master.pem",
        "node-key.pem",
        "node.pem",
        "worker-key.pem",
        "worker.pem",
    ];
    assert_eq!(folder.names("certs"), all);
    for name in all {
        let mode = fs::metadata(folder.path().join("certs").join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if keys.contains(&name) { 0o600 } else { 0o644 }, "{name}");
    }

    let shown = folder.out("certs show certs/node.pem");
    let row =
        |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{shown}")).trim();
    assert_eq!(row("subject"), "CN=gristmill master and worker");
    assert_eq!(
        row("names"),
        "master-0.example.com, 10.0.0.5, localhost, 127.0.0.1, ::1, gristmill://master, gristmill://worker"
    );
    assert_eq!((row("roles"), row("sha256").len()), ("master and worker", 32 * 3 - 1));
    assert!(row("not before").ends_with(" UTC") && row("not before") < row("not after"), "{shown}");
    assert!(folder.out("certs show certs/ca.pem").contains("roles       none\n"));

    // Nothing is replaced unasked, and a new authority's files all are.
    let before = folder.read("certs/ca.pem");
    let done = folder.run("certs init certs --name m");
    assert!(done.code == Some(2) && done.err.contains("certs/ca-key.pem is there already"), "{done:?}");
    assert_eq!(folder.read("certs/ca.pem"), before);
    folder.out("certs issue certs --role worker --name w1 --out w1 --days 2");
    assert!(folder.out("certs show certs/w1.pem").contains("\nroles       worker\n"));
    let w1 = folder.read("certs/w1.pem");
    let again = "certs issue certs --role worker --name w1 --out w1";
    assert_eq!((folder.run(again).code, folder.read("certs/w1.pem") == w1), (Some(2), true));
    folder.out(&format!("{again} --force"));
    assert_ne!(folder.read("certs/w1.pem"), w1);

    folder.out("certs init other --name m");
    folder.file("mixed/ca.pem", folder.read("certs/ca.pem"));
    folder.file("mixed/ca-key.pem", folder.read("other/ca-key.pem"));
    folder.file("empty", "");
    for (arguments, code, told) in [
        ("certs issue mixed --role worker --name w --out w", 2, "this authority cannot sign"),
        ("certs issue none --role worker --name w --out w", 1, "none/ca.pem"),
        ("certs issue certs --role worker --name w --out ca --force", 2, "--out"),
        ("certs issue certs --role worker --name w:1 --out w", 2, "without a port"),
        ("certs issue certs --role operator --name w --out w", 2, "possible values: master, worker, node"),
        ("certs show empty", 2, "there is no certificate in it"),
        ("certs show certs/ca-key.pem", 2, "there is no certificate in it"),
        ("certs init x", 2, "--name"),
    ] {
        let done = folder.run(arguments);
        assert!(done.code == Some(code) && done.err.contains(told), "{arguments}: {done:?}");
    }
    assert_eq!(folder.names("mixed"), ["ca-key.pem", "ca.pem"]);
}
