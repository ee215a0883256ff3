//! `serve`, `master` and `worker`: nodes of a cluster, until a signal.

mod accounts;
#[cfg(feature = "objects")]
mod kubernetes;
#[cfg(feature = "kubernetes")]
mod pools;
mod secret;

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use gristmill_engine::auth::Secret;
use gristmill_engine::node::backup::LATEST;
use gristmill_engine::node::env::{Apps, Note};
use gristmill_engine::registry::Entry;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::failure::Failure;
use super::super::sizes::Size;
use super::super::{memory, say};
use crate::cluster::boot::{self, Common, MasterPart, WorkerPart};
use crate::cluster::roles::Roles;
use crate::cluster::store::Location;
use crate::cluster::tls::{Files, Tls};
use crate::cluster::wire::{Plain, Wire};

/// Words of a worker at most.
const CAPABILITIES: usize = 16;

fn node(name: &'static str, listen: &'static str) -> Command {
    Command::new(name)
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::DirPath)
                .help("The node's own folder; made if it is not there"),
        )
        .arg(
            Arg::new("store")
                .long("store")
                .value_name("DIR|URL")
                .value_parser(|place: &str| place.parse::<Location>())
                .value_hint(ValueHint::DirPath)
                .help("Where inputs and outputs are, for all nodes: a folder, file:///PATH, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX; by default 'store' in the node's own folder"),
        )
        .arg(Arg::new("listen").long("listen").value_name("ADDRESS").default_value(listen).help("Where to listen"))
        .args(["tls-ca", "tls-cert", "tls-key"].into_iter().zip(TLS).map(|(name, help)| {
            let file = Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf));
            let others = ["tls-ca", "tls-cert", "tls-key"].into_iter().filter(move |other| *other != name);
            file.value_hint(ValueHint::FilePath).help(help).requires_all(others)
        }))
        .arg(
            Arg::new("advertise")
                .long("advertise")
                .value_name("ADDRESS")
                .help("Where other nodes reach this one, as HOST:PORT, port 0 for the one listened at; by default where it listens"),
        )
        .arg(
            Arg::new("insecure")
                .long("insecure")
                .action(ArgAction::SetTrue)
                .conflicts_with("tls-ca")
                .help("Allow plain connections to other machines: anybody between can read and change them"),
        )
        .arg(
            Arg::new("node-secret")
                .long("node-secret")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .conflicts_with("tls-ca")
                .help(
                    "What nodes prove to each other where they have no certificates: the same file for all; by default the first \
                     master makes 'node-secret' in its own folder",
                ),
        )
}

const TLS: [&str; 3] = [
    "Serve and connect with TLS: the authority that signed the certificates of all nodes, in PEM",
    "This node's certificate, in PEM, with the names and addresses by which others reach it and its role: see certs",
    "The certificate's private key, in PEM",
];

/// How the flags of a node say that connections are made, which is what this command says.
fn wire(role: &str, data: &Path, of: &ArgMatches) -> Result<Wire, Failure> {
    let file = |name| of.get_one::<PathBuf>(name).cloned();
    let Some(((authority, cert), key)) = file("tls-ca").zip(file("tls-cert")).zip(file("tls-key")) else {
        let nodes = secret::proof(role, data, of)?;
        return Ok(Wire::Plain(Plain { beyond: of.get_flag("insecure"), nodes }));
    };
    let roles = match role {
        "master" => Roles::MASTER,
        "worker" => Roles::WORKER,
        _ => Roles::BOTH,
    };
    let tls = Tls::load(&Files { authority, own: Some((cert, key)), roles });
    tls.map(Wire::Tls).map_err(|e| Failure::Usage(e.to_string()))
}

fn working(command: Command) -> Command {
    super::code::flags(command)
        .arg(
            Arg::new("slots")
                .long("slots")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=1024))
                .help("Tasks at a time; by default as many as the machine has threads"),
        )
        .arg(
            Arg::new("memory")
                .long("memory")
                .value_name("SIZE")
                .value_parser(value_parser!(Size))
                .help("Memory for all tasks; by default half of what there is"),
        )
        .arg(
            Arg::new("input-cache")
                .long("input-cache")
                .value_name("SIZE")
                .value_parser(value_parser!(Size))
                .default_value("32GiB")
                .help("Disk for inputs that were fetched from a bucket, beyond what tasks read at the time"),
        )
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .help("The worker's name; by default made of the machine's and the folder's"),
        )
        .arg(
            Arg::new("capability")
                .long("capability")
                .value_name("WORD")
                .action(ArgAction::Append)
                .value_parser(capability)
                .help("Something that it has and jobs may ask for with submit --require, again for each: at most 16"),
        )
}

/// The flag of a master that begins with a backup.
fn restore() -> Arg {
    let restore = Arg::new("restore").long("restore").value_name("NAME").num_args(0..=1).default_missing_value(LATEST);
    restore.help(
        "Begin a new cluster, in an empty folder, with this backup in the store, by default the newest: see cluster backups. Nothing \
         of the cluster that it is from may run any more",
    )
}

pub(super) fn serve_command(program: &str) -> Command {
    accounts::flags(working(node("serve", "127.0.0.1:7070")))
        .about("Run a whole cluster in one process: a master and a worker")
        .arg(restore())
        .after_help(format!("Example:\n  {program} serve --data /var/lib/gristmill --store /srv/files"))
}

pub(super) fn master_command(program: &str) -> Command {
    let join = Arg::new("join").long("join").value_name("ADDRESS").conflicts_with("peers");
    let peers = Arg::new("peers").long("peers").value_name("ADDRESSES").value_delimiter(',');
    let token = Arg::new("cluster-token").long("cluster-token").value_name("TOKEN").requires("peers");
    let master = accounts::flags(node("master", "127.0.0.1:7070"));
    #[cfg(feature = "kubernetes")]
    let master = pools::flags(master);
    master
        .about("Run a master")
        .arg(join.help("A master of the cluster to be joined; without it and --peers, a new folder begins a new cluster"))
        .arg(peers.help(
            "All masters that begin a cluster together, this one among them: each waits until all are there; a folder that has a \
             cluster keeps to it",
        ))
        .arg(token.help("A word that all masters given the same --peers must be given alike, to tell clusters apart"))
        .arg(restore().conflicts_with("join"))
        .after_help(format!(
            "Examples:\n  {program} master --data m1 --store files\n  \
             {program} master --data m2 --store files --listen 127.0.0.1:7071 --join 127.0.0.1:7070\n  \
             {program} master --data m --store files --listen 0.0.0.0:7070 --advertise master-0:7070 --insecure \\\n    \
             --peers master-0:7070,master-1:7070,master-2:7070\n\n\
             SIGTERM hands leadership over and ends the master; a second signal ends it at once."
        ))
}

pub(super) fn worker_command(program: &str) -> Command {
    let masters = Arg::new("masters").long("masters").value_name("ADDRESSES").required(true).value_delimiter(',');
    let pod = Arg::new("pod-uid").long("pod-uid").value_name("UID");
    let worker = working(node("worker", "127.0.0.1:0"))
        .about("Run a worker, or change how many there are")
        .arg(pod.help("UID of the pod that it runs in, by which masters that made the pod know it"))
        .arg(masters.help("Where masters of the cluster are; any of them will do"))
        .after_help(format!(
            "Examples:\n  {program} worker --data w1 --store files --masters 127.0.0.1:7070,127.0.0.1:7071\n  \
             {program} worker pool ls\n\n\
             SIGTERM drains the worker: it gives its tasks back, stores what others still need of it, and ends. A second\n\
             signal ends it at once."
        ));
    super::pool::beside(program, worker)
}

/// A word for something that workers have and jobs ask for.
pub(super) fn capability(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 if !text.chars().any(|c| c.is_control() || c.is_whitespace()) => Ok(text.to_string()),
        _ => Err("it is a word of 1 to 64 bytes, without spaces".into()),
    }
}

/// The digest of this program, by which builds are told apart.
fn build() -> Result<String, Failure> {
    let read = || std::fs::read(std::env::current_exe()?);
    let bytes = read().map_err(|e| Failure::System("read this program's own file", e))?;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    Ok(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A name that stays the same when the worker is started again: its new incarnation replaces the old one at once.
fn unnamed(data: &Path) -> String {
    let folder = std::path::absolute(data).unwrap_or_else(|_| data.into());
    let digest: [u8; 32] = Sha256::digest(folder.as_os_str().as_encoded_bytes()).into();
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{machine}-{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2])
}

pub(super) fn run(program: &str, role: &str, here: &[Entry], of: &ArgMatches) -> Result<(), Failure> {
    let data: PathBuf = of.get_one::<PathBuf>("data").cloned().unwrap_or_default();
    let store = of.get_one::<Location>("store").cloned().unwrap_or_else(|| Location::Folder(data.join("store")));
    let listen = of.get_one::<String>("listen").cloned().unwrap_or_default();
    let advertise = of.get_one::<String>("advertise").cloned();
    let wire = wire(role, &data, of)?;
    let common = Common { data, store, listen: listen.clone(), advertise, wire };
    let text = |name| of.try_get_one::<String>(name).ok().flatten().cloned();
    let texts = |name| of.try_get_many::<String>(name).ok().flatten().into_iter().flatten().cloned().collect();
    let access = (role != "worker").then(|| accounts::access(of)).transpose()?;
    #[cfg(feature = "kubernetes")]
    let kubernetes_pools = pools::config(of);
    let capabilities: Vec<String> = texts("capability");
    if capabilities.len() > CAPABILITIES {
        let what = format!("--capability is given {} times; a worker has at most {CAPABILITIES}", capabilities.len());
        return Err(Failure::Usage(what));
    }
    let (restore, peers): (_, Vec<String>) = (text("restore"), texts("peers"));
    if restore.is_some() && peers.len() > 1 {
        let what = "--restore begins a cluster of one master, and --peers names more: add the others when it runs";
        return Err(Failure::Usage(what.into()));
    }
    let master = access.map(|access| MasterPart {
        join: text("join"),
        peers,
        token: text("cluster-token").unwrap_or_default(),
        restore,
        access,
        #[cfg(feature = "kubernetes")]
        kubernetes_pools,
    });
    let machine = available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let worker = (role != "master").then(|| {
        let given = of.get_one::<String>("name").cloned();
        let unnamed = || unnamed(&common.data);
        WorkerPart {
            name: given.unwrap_or_else(unnamed),
            masters: texts("masters"),
            slots: of.get_one::<u32>("slots").copied().unwrap_or(machine),
            threads: 1,
            memory: of.get_one::<Size>("memory").map_or_else(memory::half, |size| size.0),
            input_cache: of.get_one::<Size>("input-cache").map_or(0, |size| size.0),
            uid: text("pod-uid").unwrap_or_default(),
            capabilities,
        }
    });
    // Masters look at all apps and run none.
    let of_worker = match &worker {
        Some(part) => super::code::of_worker(here, of, part.slots, super::code::rest(part.memory))?,
        None => Vec::new(),
    };
    let build = build()?;
    let told = program.to_string();
    let note = move |note: Note| match note {
        Note::Registered { incarnation } => say(&format!("{told}: registered as worker {incarnation}")),
        Note::Fenced { why } => say(&format!("{told}: begins anew: {why}")),
        Note::Leads { term } => say(&format!("{told}: leads in term {term}")),
        Note::Follows => say(&format!("{told}: leads no longer")),
        Note::FirstUser { name, password } => say(&first_user(&told, &name, password.as_ref())),
        Note::Trouble { what } => say(&format!("{told}: {what}")),
        _ => {}
    };
    let ready = |here: &str| say(&format!("{program}: {role} at {here} is ready"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::System("start the network", e))?;
    let done = runtime.block_on(async {
        let stop = stopped(program).map_err(|e| Failure::System("listen to signals", e))?;
        let apps = |entries: &[Entry]| Apps::new(entries.iter().cloned(), build.clone());
        let apps = (|| apps(here), || apps(&of_worker));
        Ok(boot::run(common, master, worker, apps, note, ready, stop).await?)
    });
    // What still runs on blocking threads has nobody to report to.
    runtime.shutdown_background();
    done
}

/// What is said once, of the user who manages the others.
fn first_user(program: &str, name: &str, password: Option<&Secret>) -> String {
    let login = format!("log in with `{program} login {name}`");
    match password {
        Some(password) => {
            format!(
                "{program}: the first user is {name}, with the password {}; {login} and change it",
                password.expose()
            )
        }
        None => format!("{program}: the first user is {name}; {login}"),
    }
}

/// Waits for a signal to end. The second one does not wait for anything.
fn stopped(program: &str) -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let program = program.to_string();
    Ok(async move {
        heard(&mut interrupt, &mut terminate).await;
        tokio::spawn(async move {
            let kind = heard(&mut interrupt, &mut terminate).await;
            say(&format!("{program}: a second signal; ends at once"));
            std::process::exit(128 + kind.as_raw_value());
        });
    })
}

async fn heard(interrupt: &mut Signal, terminate: &mut Signal) -> SignalKind {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    }
}
