//! From folders and addresses to running nodes: a master, a worker, or both in one process.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::control::master::Config;
use gristmill_engine::node::env::{Apps, Note};
use gristmill_engine::node::master::{self, MasterNode};
use gristmill_engine::node::worker::{self, Worker};
use gristmill_engine::scratch;
use gristmill_engine::store;
use gristmill_raft::net::Peer;
use gristmill_raft::verify;
use tokio::sync::watch;
use tonic::service::Routes;

use super::channels::Channels;
use super::connector::Connector;
use super::listener::{self, Listener};
use super::services::{Master, Shelf};
use super::transport::Transport;
use super::world::World;
use super::{address, admin, peers};

/// The file that holds the id of the cluster that a folder belongs to.
const CLUSTER: &str = "cluster";
/// How long a cluster may take to take a new master in.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How long a worker may take to hand over what it has.
const DRAIN_WITHIN: Duration = Duration::from_secs(300);
/// Between two attempts to make a new cluster known to itself.
const INIT_EVERY: Duration = Duration::from_millis(20);

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none or is taken.
    #[error(transparent)]
    Listener(#[from] listener::Error),
    /// The address is none or must not be spoken to.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The replicated log.
    #[error(transparent)]
    Log(#[from] gristmill_raft::Error),
    /// Another master did not do its part.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// A folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The node ended by itself.
    #[error("the node has ended: {0}")]
    Ended(String),
}

/// What every node has.
#[derive(Debug, Clone)]
pub struct Common {
    /// The node's own folder.
    pub data: PathBuf,
    /// The folder that all nodes share.
    pub store: PathBuf,
    /// Where to listen.
    pub listen: String,
    /// Whether plain connections to other machines are allowed.
    pub insecure: bool,
}

/// A master's own.
#[derive(Debug, Clone, Default)]
pub struct MasterPart {
    /// A master of the cluster to be joined; none: a cluster of its own.
    pub join: Option<String>,
}

/// A worker's own.
#[derive(Debug, Clone)]
pub struct WorkerPart {
    /// Its name.
    pub name: String,
    /// Masters; empty: the one in this process.
    pub masters: Vec<String>,
    /// Tasks at a time.
    pub slots: u32,
    /// Threads of a task.
    pub threads: usize,
    /// Bytes of memory of all tasks.
    pub memory: u64,
}

fn folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::Folder { path: path.into(), source })
}

/// How far a folder has come to be a member's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It makes its cluster.
    New,
    /// It asks to be taken in. Never must it make one.
    Joining,
    Member,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Joining => "joining",
            Self::Member => "member",
        }
    }
}

/// The cluster that a folder belongs to, and how far it has come, if it has begun to.
fn cluster_of(data: &Path) -> Result<Option<(u64, Stage)>, Error> {
    let path = data.join(CLUSTER);
    match std::fs::read_to_string(&path) {
        Ok(text) => match parse(&text) {
            Some(found) => Ok(Some(found)),
            None => {
                let source = io::Error::other("it holds no id of a cluster; restore it, or begin with an empty folder");
                Err(Error::Folder { path, source })
            }
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Folder { path, source }),
    }
}

fn parse(text: &str) -> Option<(u64, Stage)> {
    let (cluster, word) = text.trim().split_once(' ')?;
    let stage = [Stage::New, Stage::Joining, Stage::Member].into_iter().find(|stage| stage.word() == word)?;
    Some((u64::from_str_radix(cluster, 16).ok()?, stage))
}

/// Writes down which cluster the folder belongs to, before anything else is in it, and how far it has come.
fn belong(data: &Path, cluster: u64, stage: Stage) -> Result<(), Error> {
    let path = data.join(CLUSTER);
    let write = || {
        let new = data.join("cluster.new");
        std::fs::write(&new, format!("{cluster:016x} {}\n", stage.word()))?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &path)?;
        std::fs::File::open(data)?.sync_all()
    };
    write().map_err(|source| Error::Folder { path, source })
}

/// Runs a node with these parts until `stop`, then lets it hand over what it has.
///
/// # Errors
/// Why it did not start, or ended.
pub async fn run(
    common: Common,
    master: Option<MasterPart>,
    worker: Option<WorkerPart>,
    apps: impl Fn() -> Apps,
    note: impl Fn(Note) + Send + Sync + Clone + 'static,
    ready: impl FnOnce(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    folder(&common.data)?;
    folder(&common.store)?;
    let log = gristmill_raft::Options::new(0);
    let connector = Connector { insecure: common.insecure, ..Connector::new(log.election_min) };
    let channels = Channels::new(connector);
    let shared = store::Folder::new(&common.store, true);
    let listener = Listener::bind(&common.listen, common.insecure).await?;
    let here = listener.address().to_string();
    let world = |folder: &Path, threads| {
        let scratch: Arc<dyn scratch::Scratch> = Arc::new(scratch::Folder::new(folder));
        World::new(channels.clone(), shared.clone(), scratch, apps(), threads, note.clone())
    };

    let mut routes = Routes::default();
    let mut leader = None;
    if let Some(part) = master {
        let scratch = common.data.join("master");
        folder(&scratch)?;
        let node = start_master(&common.data, part, world(&scratch, 1), &channels, log, &mut routes).await?;
        leader = Some(node);
    }
    let mut labourer = None;
    if let Some(part) = worker {
        let scratch = common.data.join("scratch");
        folder(&scratch)?;
        let masters = if part.masters.is_empty() { vec![here.clone()] } else { part.masters };
        for address in &masters {
            address::check_plain(address, common.insecure)?;
        }
        let options = worker::Options {
            name: part.name,
            address: here.clone(),
            slots: part.slots,
            masters,
            task_memory: part.memory / u64::from(part.slots.max(1)),
            uid: String::new(),
        };
        let node = Worker::new(world(&scratch, part.threads), options);
        routes = routes.add_service(Shelf(node.clone()).service());
        labourer = Some(node);
    }

    let (end, mut ended) = watch::channel(false);
    let serving = tokio::spawn(listener.serve(routes, async move {
        let _ = ended.wait_for(|over| *over).await;
    }));
    let mut leading = leader.clone().map(|(node, _)| tokio::spawn(async move { node.run().await }));
    if let Some((node, found)) = &leader {
        found.settle(node, &channels, &here).await?;
        belong(&common.data, found.cluster(), Stage::Member)?;
    }
    let mut working = labourer.clone().map(|node| tokio::spawn(async move { node.run().await }));
    ready(&here);

    let broken = async {
        match &mut leading {
            Some(leading) => leading.await.unwrap_or_else(|e| e.to_string()),
            None => std::future::pending().await,
        }
    };
    // A worker that was drained has no more to do.
    let drained = async {
        match &mut working {
            Some(working) if leader.is_none() => drop(working.await),
            _ => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        () = stop => Ok(()),
        () = drained => Ok(()),
        why = broken => Err(Error::Ended(why)),
    };
    if outcome.is_ok() {
        if let (Some(node), Some(working)) = (&labourer, working.filter(|working| !working.is_finished())) {
            // Alone in its process with the only master there is nobody to hand over to.
            if leader.is_some() {
                node.stop()
            } else {
                node.drain()
            }
            let _ = tokio::time::timeout(DRAIN_WITHIN, working).await;
        }
        if let Some((node, _)) = &leader {
            node.stop().await;
        }
    }
    end.send_replace(true);
    let _ = serving.await;
    outcome
}

/// How a master comes to its cluster.
#[derive(Clone)]
enum Found {
    /// It has been a member.
    Member(u64),
    /// It makes one.
    New(u64),
    /// It joins that of another master.
    Joins(u64, String),
}

impl Found {
    fn cluster(&self) -> u64 {
        let (Self::Member(cluster) | Self::New(cluster) | Self::Joins(cluster, _)) = self;
        *cluster
    }

    async fn settle(&self, node: &MasterNode<World>, channels: &Channels, here: &str) -> Result<(), Error> {
        let me = || Peer { id: node.log().identity().node, address: here.to_string() };
        match self {
            Self::Member(_) => Ok(()),
            Self::New(cluster) => {
                node.log().initialize(&[me()]).await?;
                while node.init(*cluster).await.is_err() {
                    tokio::time::sleep(INIT_EVERY).await;
                }
                Ok(())
            }
            Self::Joins(cluster, at) => {
                let client = admin::Client::new(channels.clone(), at, JOIN_WITHIN);
                Ok(client.add(*cluster, &me()).await?)
            }
        }
    }
}

async fn start_master(
    data: &Path,
    part: MasterPart,
    world: World,
    channels: &Channels,
    mut log: gristmill_raft::Options,
    routes: &mut Routes,
) -> Result<(MasterNode<World>, Found), Error> {
    let found = match (cluster_of(data)?, part.join) {
        (Some((cluster, Stage::Member)), _) => Found::Member(cluster),
        (Some((cluster, Stage::New)), _) => Found::New(cluster),
        (Some((cluster, Stage::Joining)), Some(at)) => Found::Joins(cluster, at),
        (Some((_, Stage::Joining)), None) => {
            let source = io::Error::other(
                "it was to join a cluster and never did; give --join again, or begin with an empty folder",
            );
            return Err(Error::Folder { path: data.into(), source });
        }
        (None, Some(at)) => {
            let client = admin::Client::new(channels.clone(), &at, JOIN_WITHIN);
            Found::Joins(client.status().await?.cluster, at)
        }
        (None, None) => Found::New(rand::random::<u64>().max(1)),
    };
    log.cluster = found.cluster();
    match found {
        Found::Member(_) => {}
        Found::New(cluster) => belong(data, cluster, Stage::New)?,
        Found::Joins(cluster, _) => belong(data, cluster, Stage::Joining)?,
    }
    let raft = data.join("raft");
    folder(&raft)?;
    let disks = verify::open(&raft)?;
    let transport = Transport::new(channels.clone());
    let options = master::Options { log: log.clone(), leader: Config::default() };
    let node = MasterNode::start(world, options, disks, |_| transport).await?;
    // What it was to do may have been done before it could write that down.
    let metrics = node.log().metrics();
    let found =
        if metrics.voters.is_empty() && metrics.learners.is_empty() { found } else { Found::Member(log.cluster) };
    let (workers, jobs, cluster) = Master::new(node.clone(), channels.clone()).services();
    *routes = std::mem::take(routes)
        .add_service(peers::service(node.log().clone()))
        .add_service(admin::service(node.log().clone()))
        .add_service(workers)
        .add_service(jobs)
        .add_service(cluster);
    Ok((node, found))
}
