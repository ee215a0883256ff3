//! From folders and addresses to running nodes: a master, a worker, or both in one process.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::control::master::Config;
use gristmill_engine::node::env::{Apps, Env as _, Note};
use gristmill_engine::node::master::{self, Accounts, MasterNode};
use gristmill_engine::node::pods::Pods;
use gristmill_engine::node::worker::{self, CODE, Worker};
use gristmill_engine::scratch;
use gristmill_engine::store;
use gristmill_raft::net::Peer;
use gristmill_raft::verify;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use super::begin::{Peers, Turn};
use super::channels::Channels;
use super::connector::Connector;
use super::data::Data;
use super::folder::{self, Stage};
use super::guard::Guard;
use super::health::Ready;
use super::listener::{self, Listener};
use super::services::{Master, Shelf};
use super::store::{Location, Shared};
use super::transport::Transport;
use super::wire::Wire;
use super::world::World;
use super::{address, admin, health, http, level, peers, renew};

/// How long a cluster may take to take a new master in.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How long a worker may take to hand over what it has.
const DRAIN_WITHIN: Duration = Duration::from_secs(300);
/// Between two attempts to make a new cluster known to itself.
const INIT_EVERY: Duration = Duration::from_millis(20);
/// Between two attempts to join, or to say where this master is now.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long one master may take to take another in.
const ADD_WITHIN: Duration = Duration::from_secs(20);

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
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The folder was to join a cluster and does not know which any more.
    #[error("{} was to join a cluster and never did; give --join again, or begin with an empty folder", .0.display())]
    Joining(PathBuf),
    /// The folder was to be filled from a backup and is not.
    #[error("{} was to be restored and never was to the end; give --restore again, or begin with an empty folder", .0.display())]
    Restoring(PathBuf),
    /// There is no backup to begin with, or the folder is not free for it.
    #[error(transparent)]
    Restore(#[from] super::restore::Error),
    /// The masters that begin together are not told so that this one is among them.
    #[error(
        "--peers {peers} does not name this master, which is at {here}; name it, or say with --advertise where it is"
    )]
    Peers {
        /// This master's address.
        here: String,
        /// What it was told.
        peers: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is told of the API cannot be made: a build that is broken.
    #[error(transparent)]
    Reflection(#[from] tonic_reflection::server::Error),
    /// It cannot be told to look for new certificates.
    #[error("cannot listen to SIGHUP")]
    Signal(#[source] io::Error),
    /// Kubernetes cannot be spoken to.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    Kubernetes(#[from] super::pools::Error),
    /// The node ended by itself.
    #[error("the node has ended: {0}")]
    Ended(String),
}

/// What every node has.
#[derive(Debug, Clone)]
pub struct Common {
    /// The node's own folder.
    pub data: PathBuf,
    /// The store that all nodes share.
    pub store: Location,
    /// Where to listen.
    pub listen: String,
    /// Where others reach the node; none: where it listens.
    pub advertise: Option<String>,
    /// How connections are made.
    pub wire: Wire,
}

/// A master's own.
#[derive(Debug, Clone, Default)]
pub struct MasterPart {
    /// A master of the cluster to be joined.
    pub join: Option<String>,
    /// Addresses of the masters, this one among them, that begin a cluster together. Neither these nor one to join: a
    /// cluster of its own.
    pub peers: Vec<String>,
    /// What these must have been told alike.
    pub token: String,
    /// The backup with which it begins a cluster: a name as `gristmill_engine::node::backup::find` takes it. Neither one to join
    /// nor other masters to begin with, then.
    pub restore: Option<String>,
    /// Who may ask it.
    pub access: Access,
    /// The Kubernetes in which it makes workers, or looks for jobs; none: it does neither.
    #[cfg(feature = "kubernetes")]
    pub kubernetes_pools: Option<super::pools::Config>,
}

/// How a master deals with users.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Whether users must log in; else everybody may do everything.
    pub login: bool,
    /// How their passwords are kept, and who is the first of them.
    pub accounts: Accounts,
    /// Where tokens of Kubernetes' service accounts are reviewed; none: they are not accepted.
    #[cfg(feature = "objects")]
    pub kubernetes: Option<super::kubernetes::Config>,
}

impl MasterPart {
    fn gathers(&self) -> Option<Peers> {
        (!self.peers.is_empty()).then(|| Peers::new(&self.peers, &self.token))
    }
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
    /// Bytes of objects of a bucket that stay on the worker's disk when no task reads them.
    pub input_cache: u64,
    /// UID of its pod; empty: it runs in none.
    pub uid: String,
    /// What it has that jobs may ask for: at most 16 words of 1 to 64 bytes.
    pub capabilities: Vec<String>,
}

/// Runs a node with these parts until `stop`, then lets it hand over what it has.
///
/// # Errors
/// Why it did not start, or ended.
pub async fn run(
    common: Common,
    master: Option<MasterPart>,
    worker: Option<WorkerPart>,
    (of_masters, of_workers): (impl Fn() -> Apps, impl Fn() -> Apps),
    note: impl Fn(Note) + Send + Sync + Clone + 'static,
    ready: impl FnOnce(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut stop = std::pin::pin!(stop);
    folder::make(&common.data)?;
    // Until this returns.
    let _lock = folder::lock(&common.data)?;
    let _renewing = renew::begin(&common.wire, note.clone()).map_err(Error::Signal)?;
    let log = gristmill_raft::Options::new(0);
    let connector = Connector { wire: common.wire.clone(), ..Connector::new(log.election_min) };
    let channels = Channels::new(connector);
    let shared = Shared::open(&common.store).await?;
    let told = note.clone();
    let listener = Listener::bind(&common.listen, common.wire.clone()).await?;
    let listener = listener.telling(move |what| told(Note::Trouble { what }));
    let here = address::advertised(common.advertise.as_deref(), listener.address())?;
    common.wire.check(&here)?;
    let readiness = Ready::not_yet("this node is not one of the cluster's yet");
    // Beside a master it is that one which clients ask.
    let (told, seen) = (note.clone(), master.is_none().then(|| readiness.clone()));
    let noted = move |note: Note| {
        seen.iter().for_each(|ready| ready.hear(&note));
        told(note);
    };
    let world = |folder: &Path, apps, threads| {
        let scratch: Arc<dyn scratch::Scratch> = Arc::new(scratch::Folder::new(folder));
        World::new(channels.clone(), shared.clone(), scratch, apps, threads, noted.clone())
    };

    let mut routes = Routes::default();
    let login = master.as_ref().is_none_or(|part| part.access.login);
    #[cfg(feature = "objects")]
    let reviewer =
        master.as_ref().and_then(|part| part.access.kubernetes.clone()).map(super::kubernetes::Reviewer::new);
    let (mut leader, mut kept, mut operating) = (None, None, None);
    if let Some(part) = master {
        let scratch = common.data.join("master");
        folder::make_private(&scratch)?;
        let told = note.clone();
        let tell = move |what| told(Note::Trouble { what });
        let start = async {
            let world = world(&scratch, of_masters(), 1);
            if let Some(wanted) = &part.restore {
                super::restore::begin(&common.data, wanted, &here, &world).await?;
            }
            let found = find(&common.data, &part, &listener, &channels, &here, &tell).await?;
            start_master(&common, &part, found, (world, &shared), &channels, log, &mut routes).await
        };
        let Started { node, found, apps, operator } = tokio::select! {
            started = start => started?,
            () = &mut stop => return Ok(()),
        };
        (leader, kept, operating) = (Some((node, found)), Some(apps), operator);
    }
    let mut labourer = None;
    if let Some(part) = worker {
        let scratch = common.data.join("scratch");
        folder::make_private(&scratch)?;
        folder::clear(&scratch.join(CODE))?;
        let masters = if part.masters.is_empty() { vec![here.clone()] } else { part.masters };
        for address in &masters {
            common.wire.check(address)?;
        }
        let options = worker::Options {
            name: part.name,
            address: here.clone(),
            slots: part.slots,
            masters,
            task_memory: part.memory / u64::from(part.slots.max(1)),
            input_cache: part.input_cache,
            uid: part.uid,
            capabilities: part.capabilities,
            folder: folder::worker(&common.data)?,
        };
        let node = Worker::new(world(&scratch, of_workers(), part.threads), options);
        routes = routes.add_service(Shelf(node.clone()).service());
        labourer = Some(node);
    }

    let node = leader.as_ref().map(|(node, _)| node);
    let guard = Guard::new(node.cloned(), login);
    #[cfg(feature = "objects")]
    let guard = guard.reviewing(reviewer);
    let routes = routes.add_service(health::health(node, &channels, &readiness));
    let routes = health::probed(http::beside(guard.before(routes), node.is_some(), login), readiness);
    let (end, mut ended) = watch::channel(false);
    let serving = tokio::spawn(listener.serve(routes, async move {
        let _ = ended.wait_for(|over| *over).await;
    }));
    let mut leading = leader.clone().map(|(node, _)| tokio::spawn(async move { node.run().await }));
    let settled = async {
        let Some((node, found)) = &leader else { return Ok(()) };
        found.settle(node, &channels, &here).await?;
        folder::belong(&common.data, found.cluster(), Stage::Member).map_err(Error::from)
    };
    let settled = tokio::select! {
        settled = settled => settled.map(|()| true)?,
        () = &mut stop => false,
    };
    let moved = leader.clone().filter(|_| settled).map(|(node, _)| {
        let (channels, here) = (channels.clone(), here.clone());
        tokio::spawn(async move { say_where(&node, &channels, &here).await })
    });
    let collecting = kept.filter(|_| settled).map(|apps| tokio::spawn(apps.collect_for_ever()));
    let mut working = labourer.clone().filter(|_| settled).map(|node| tokio::spawn(async move { node.run().await }));
    if settled {
        ready(&here);
    }

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
    let stopped = async {
        if settled {
            stop.await;
        }
    };
    let outcome = tokio::select! {
        () = stopped => Ok(()),
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
            if tokio::time::timeout(DRAIN_WITHIN, working).await.is_err() {
                let what = format!("ends although its segments were not all stored within {DRAIN_WITHIN:?}");
                note(Note::Trouble { what });
            }
        }
        if let Some((node, _)) = &leader {
            node.stop().await;
        }
    }
    for task in [moved, collecting, operating].into_iter().flatten() {
        task.abort();
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
    /// It joins that of one of these masters.
    Joins(u64, Vec<String>),
}

impl Found {
    fn cluster(&self) -> u64 {
        let (Self::Member(cluster) | Self::New(cluster) | Self::Joins(cluster, _)) = self;
        *cluster
    }

    async fn settle(&self, node: &MasterNode<World>, channels: &Channels, here: &str) -> Result<(), Error> {
        let me = Peer { id: node.log().identity().node, address: here.to_string() };
        match self {
            Self::Member(_) => Ok(()),
            Self::New(cluster) => {
                node.log().initialize(&[me]).await?;
                while node.init(*cluster).await.is_err() {
                    tokio::time::sleep(INIT_EVERY).await;
                }
                Ok(())
            }
            Self::Joins(cluster, masters) => join(*cluster, masters, channels, &me).await,
        }
    }
}

/// Asks these masters until one has this one taken in. Others may be taken in at the same time, or nobody leads yet: that
/// passes.
async fn join(cluster: u64, masters: &[String], channels: &Channels, me: &Peer) -> Result<(), Error> {
    let begun = tokio::time::Instant::now();
    loop {
        let mut failed = None;
        for at in masters {
            let client = admin::Client::new(channels.clone(), at, ADD_WITHIN);
            match join_at(&client, cluster, me).await {
                Ok(()) => return Ok(()),
                Err(e) => failed = Some(e),
            }
        }
        if let Some(e) = failed.filter(|_| begun.elapsed() > JOIN_WITHIN) {
            return Err(e.into());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn join_at(client: &admin::Client, cluster: u64, me: &Peer) -> Result<(), admin::Error> {
    client.add(cluster, me).await?;
    // Who was here before has lost its folder: nobody else can be at this address.
    let status = client.status().await?;
    let before = status.voters.iter().chain(&status.learners).filter(|m| m.address == me.address && m.id != me.id);
    for member in before {
        client.remove(member.id).await?;
    }
    Ok(())
}

/// Tells the cluster where this member is, if it knows it at another address.
async fn say_where(node: &MasterNode<World>, channels: &Channels, here: &str) {
    let me = Peer { id: node.log().identity().node, address: here.to_string() };
    loop {
        let metrics = node.log().metrics();
        let members: Vec<Peer> = metrics.voters.into_iter().chain(metrics.learners).collect();
        match members.iter().find(|member| member.id == me.id) {
            Some(known) if known.address != here => {}
            _ => return,
        }
        let others = members.iter().filter(|member| member.id != me.id).map(|member| member.address.as_str());
        for at in [here].into_iter().chain(others) {
            let client = admin::Client::new(channels.clone(), at, ADD_WITHIN);
            if client.add(node.log().identity().cluster, &me).await.is_ok() {
                break;
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Finds out how the master comes to its cluster, and writes it down.
async fn find(
    data: &Path,
    part: &MasterPart,
    listener: &Listener,
    channels: &Channels,
    here: &str,
    tell: &impl Fn(String),
) -> Result<Found, Error> {
    let others = || part.gathers().map_or_else(Vec::new, |peers| peers.others(here));
    let masters = || part.join.clone().map_or_else(others, |at| vec![at]);
    let found = match (folder::cluster(data)?, &part.join, part.gathers()) {
        (Some((cluster, Stage::Member)), ..) => return Ok(Found::Member(cluster)),
        (Some((cluster, Stage::New)), ..) => return Ok(Found::New(cluster)),
        (Some((_, Stage::Restoring)), ..) => return Err(Error::Restoring(data.into())),
        (Some((_, Stage::Joining)), None, None) => return Err(Error::Joining(data.into())),
        (Some((cluster, Stage::Joining)), ..) => return Ok(Found::Joins(cluster, masters())),
        (None, Some(at), _) => {
            let client = admin::Client::new(channels.clone(), at, JOIN_WITHIN);
            Found::Joins(client.status().await?.cluster, masters())
        }
        (None, None, Some(peers)) => match peers.wait(listener, channels, here, tell).await? {
            Turn::Make => Found::New(rand::random::<u64>().max(1)),
            Turn::Join(cluster) => Found::Joins(cluster, masters()),
        },
        (None, None, None) => Found::New(rand::random::<u64>().max(1)),
    };
    let stage = if matches!(found, Found::New(_)) { Stage::New } else { Stage::Joining };
    folder::belong(data, found.cluster(), stage)?;
    Ok(found)
}

/// A master that is in its cluster's log, or about to be.
struct Started {
    node: MasterNode<World>,
    found: Found,
    apps: super::apps::Apps,
    /// What runs jobs that are objects of Kubernetes, while the node leads.
    operator: Option<JoinHandle<()>>,
}

async fn start_master(
    common: &Common,
    part: &MasterPart,
    found: Found,
    (world, shared): (World, &Shared),
    channels: &Channels,
    mut log: gristmill_raft::Options,
    routes: &mut Routes,
) -> Result<Started, Error> {
    log.cluster = found.cluster();
    let raft = common.data.join("raft");
    folder::make_private(&raft)?;
    let disks = verify::open(&raft)?;
    let transport = Transport::new(channels.clone());
    let accounts = part.access.accounts.clone();
    #[cfg(feature = "kubernetes")]
    let kubernetes = match part.kubernetes_pools.clone() {
        Some(config) => Some(super::pools::Kubernetes::connect(config, &world).await?),
        None => None,
    };
    let pods: Option<Arc<dyn Pods>> = None;
    #[cfg(feature = "kubernetes")]
    let pods = kubernetes.as_ref().and_then(super::pools::Kubernetes::pods).or(pods);
    let options = master::Options { log: log.clone(), leader: Config::default(), accounts, pods };
    let (level, seen) = (world.level(), world.clone());
    let node = MasterNode::start(world, options, disks, |_| transport).await?;
    let uploads = common.data.join("uploads");
    folder::make_private(&uploads)?;
    let files = Data::new(shared.clone(), &uploads, node.clone());
    let files = files.map_err(|source| folder::Error::Unusable { path: uploads, source })?;
    // What it was to do may have been done before it could write that down.
    let metrics = node.log().metrics();
    let found =
        if metrics.voters.is_empty() && metrics.learners.is_empty() { found } else { Found::Member(log.cluster) };
    let offers = Master::new(node.clone(), channels.clone(), shared.clone(), files.clone());
    let apps = super::apps::Apps::new(shared.clone(), files.clone(), node.clone(), seen);
    let operator = None;
    #[cfg(feature = "kubernetes")]
    let operator = kubernetes.and_then(|it| it.operate(&node, (&files, &apps), part.access.login)).or(operator);
    let begun_with = part.gathers().map_or((0, 0), |peers| (peers.gathering, peers.token));
    *routes = offers
        .public(std::mem::take(routes))
        .add_service(apps.clone().service())
        .add_service(files.service())
        .add_service(health::reflection()?)
        .add_service(peers::service(node.log().clone()))
        .add_service(admin::service(node.log().clone(), begun_with))
        .add_service(offers.workers())
        .add_service(level::service(level, node.clone()));
    Ok(Started { node, found, apps, operator })
}
