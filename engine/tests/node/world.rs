//! A cluster in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream;
use gristmill_engine::apps;
use gristmill_engine::control::master::Config;
use gristmill_engine::control::rights::{Principal, Rights};
use gristmill_engine::exec::{Exec, Threads};
use gristmill_engine::node::env::{Apps, Env, Note};
use gristmill_engine::node::master::{Accounts, ApiError, MasterEnv, MasterNode, Options};
use gristmill_engine::node::rpc::{CallError, Method, Net};
use gristmill_engine::node::worker::{self, Worker};
use gristmill_engine::scratch::{self, Scratch};
use gristmill_engine::store::{self, Name, Publish, Store as _};
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1 as api;
use gristmill_raft::model::{Disk, ModelFiles, ModelKv};
use gristmill_raft::net::{BoxStream, Peer, Switchboard};
use gristmill_raft::node::Disks;
use gristmill_raft::runtime::AsyncRuntime as _;
pub use gristmill_raft::tokio::TokioRuntime as Rt;
use prost::Message as _;

use super::gated;

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(100);
pub const CLUSTER: u64 = 0xC0FFEE;

/// Somebody who may do everything, where nobody must log in.
pub fn ann() -> Principal {
    Principal::with("ann", "admin", Rights::ALL)
}

pub fn run<F: Future>(work: F) -> F::Output {
    Rt::new(2).block_on(async {
        match select(Box::pin(work), Box::pin(Rt::sleep(PATIENCE))).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => panic!("the test does not end"),
        }
    })
}

/// Waits until something holds.
pub async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    while !holds().await {
        Rt::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Default)]
struct Lines {
    masters: BTreeMap<String, MasterNode<World>>,
    workers: BTreeMap<String, Worker<World>>,
    cut: BTreeSet<(String, String)>,
}

/// The lines between workers and masters, as a node sees them.
#[derive(Clone)]
pub struct Wires {
    lines: Arc<Mutex<Lines>>,
    from: String,
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, to: &str) -> Result<(), CallError> {
        match self.lock().cut.contains(&(self.from.clone(), to.to_string())) {
            true => Err(CallError::Unknown(format!("the line to {to} is cut"))),
            false => Ok(()),
        }
    }
}

impl Net for Wires {
    fn call(
        &self,
        to: &str,
        method: Method,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<> {
        let (wires, to) = (self.clone(), to.to_string());
        async move {
            wires.check(&to)?;
            let master = wires.lock().masters.get(&to).cloned();
            let master = master.ok_or_else(|| CallError::NotSent(format!("nobody is at {to}")))?;
            let asked = async {
                match method {
                    Method::Register => {
                        let answer = master.register(wire::Register::decode(request).unwrap()).await?;
                        Ok(answer.encode_to_vec().into())
                    }
                    Method::ReadIndex => {
                        Ok(wire::ReadIndexAnswer { index: master.read_index().await? }.encode_to_vec().into())
                    }
                    Method::Audit => {
                        master.note_audit(wire::NoteAudit::decode(request).unwrap()).await?;
                        Ok(wire::AuditAnswer {}.encode_to_vec().into())
                    }
                    _ => Ok(master.poll(wire::Poll::decode(request).unwrap()).await?.encode_to_vec().into()),
                }
            };
            let answer = Rt::timeout(within, asked).await;
            wires.check(&to)?;
            answer.unwrap_or_else(|_| Err(CallError::Unknown(format!("nothing within {within:?}"))))
        }
    }

    fn fetch(&self, to: &str, _: Method, request: Bytes, _: Duration) -> BoxStream<'static, Result<Bytes, CallError>> {
        let worker = self.check(to).map(|()| self.lock().workers.get(to).cloned());
        match worker {
            Ok(Some(worker)) => worker.fetch(request),
            Ok(None) => Box::pin(stream::iter([Err(CallError::NotSent(format!("nobody is at {to}")))])),
            Err(e) => Box::pin(stream::iter([Err(e)])),
        }
    }
}

/// What one node sees.
#[derive(Clone)]
pub struct World {
    wires: Wires,
    store: store::Memory,
    scratch: Arc<dyn Scratch>,
    apps: Arc<Apps>,
    notes: Arc<Mutex<Vec<(String, Note)>>>,
}

impl Env for World {
    type Rt = Rt;
    type Net = Wires;
    type Store = store::Memory;

    fn net(&self) -> &Wires {
        &self.wires
    }

    fn store(&self) -> &store::Memory {
        &self.store
    }

    fn scratch(&self) -> &Arc<dyn Scratch> {
        &self.scratch
    }

    fn apps(&self) -> &Apps {
        &self.apps
    }

    fn offload<T: Send + 'static>(
        &self,
        _: u64,
        work: impl FnOnce(&dyn Exec) -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        let (send, done) = futures_channel::oneshot::channel();
        std::thread::spawn(move || {
            let pool = Threads::new(1).unwrap();
            let _ = send.send(work(&pool));
        });
        async move { done.await.ok() }
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        self.offload(0, |_| work())
    }

    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
    }

    fn note(&self, note: Note) {
        println!("{}: {note:?}", self.wires.from);
        self.notes.lock().unwrap().push((self.wires.from.clone(), note));
    }
}

/// The world of the masters' log.
pub struct Log;

impl gristmill_raft::Env for Log {
    type Rt = Rt;
    type Net = Switchboard<Rt>;
    type Kv = ModelKv<Rt>;
    type Files = ModelFiles<Rt>;
}

impl MasterEnv for World {
    type Log = Log;
}

/// Masters, workers, and what they share.
pub struct Cluster {
    pub masters: Vec<MasterNode<World>>,
    pub store: store::Memory,
    /// Files that were made on scratch.
    pub created: Arc<Mutex<BTreeSet<String>>>,
    log_net: Switchboard<Rt>,
    wires: Wires,
    notes: Arc<Mutex<Vec<(String, Note)>>>,
    accounts: Accounts,
}

fn log_options() -> gristmill_raft::Options {
    let ms = Duration::from_millis;
    // Room for a machine that is busy with other tests.
    let (heartbeat, election_min, election_max) = (ms(50), ms(250), ms(400));
    gristmill_raft::Options { heartbeat, election_min, election_max, ..gristmill_raft::Options::new(CLUSTER) }
}

impl Cluster {
    /// A cluster of so many masters, of which one leads.
    pub async fn of(masters: usize) -> Self {
        Self::with(masters, Accounts::default()).await
    }

    /// As [`Cluster::of`], with users or without.
    pub async fn with(masters: usize, accounts: Accounts) -> Self {
        let cluster = Self::before(masters, accounts).await;
        cluster.begin().await;
        cluster
    }

    /// Masters that have not begun a cluster yet.
    pub async fn before(masters: usize, accounts: Accounts) -> Self {
        let wires = Wires { lines: Arc::default(), from: String::new() };
        let (store, created, notes) = (store::Memory::new(Publish::Copy), Arc::default(), Arc::default());
        let (masters_of, log_net) = (Vec::new(), Switchboard::default());
        let mut cluster = Self { masters: masters_of, store, created, log_net, wires, notes, accounts };
        for n in 0..masters {
            cluster.start_master(n).await;
        }
        cluster
    }

    /// Has the masters begin a cluster, and waits until one leads.
    pub async fn begin(&self) {
        let peers: Vec<Peer> = (0..self.masters.len()).map(|n| self.peer(n)).collect();
        self.masters[0].log().initialize(&peers).await.unwrap();
        until(async || self.masters[self.leader().await].init(CLUSTER).await.is_ok()).await;
    }

    fn peer(&self, n: usize) -> Peer {
        Peer { id: self.masters[n].log().identity().node, address: format!("m{n}") }
    }

    fn world(&self, name: &str) -> World {
        let created = self.created.clone();
        World {
            wires: Wires { from: name.to_string(), ..self.wires.clone() },
            store: self.store.clone(),
            scratch: Arc::new(scratch::Memory::failing(move |op, file| {
                if op == scratch::Op::Create {
                    created.lock().unwrap().insert(file.to_string());
                }
                None
            })),
            apps: Arc::new(Apps::new(apps::all().into_iter().chain([gated::entry()]), "b1")),
            notes: self.notes.clone(),
        }
    }

    async fn start_master(&mut self, n: usize) {
        let name = format!("m{n}");
        let (kv, files) = Disk::new(n as u64 + 1).boot();
        let options =
            Options { log: log_options(), leader: Config::default(), accounts: self.accounts.clone(), pods: None };
        let connect = |identity: gristmill_raft::Identity| self.log_net.line(identity.node);
        let node = MasterNode::start(self.world(&name), options, Disks { kv, files }, connect).await.unwrap();
        self.log_net.connect(node.log().identity().node, node.log().clone());
        self.wires.lock().masters.insert(name, node.clone());
        self.masters.push(node.clone());
        drop(Rt::spawn(async move { node.run().await }));
    }

    /// Starts a worker that knows all masters.
    pub fn work(&self, name: &str, slots: u32) -> Worker<World> {
        let options = worker::Options {
            name: name.into(),
            address: name.into(),
            slots,
            masters: (0..self.masters.len()).map(|n| format!("m{n}")).collect(),
            task_memory: 64 << 20,
            uid: String::new(),
            capabilities: Vec::new(),
            input_cache: 1 << 30,
            folder: 0,
        };
        let worker = Worker::new(self.world(name), options);
        self.wires.lock().workers.insert(name.into(), worker.clone());
        let running = worker.clone();
        drop(Rt::spawn(async move { running.run().await }));
        worker
    }

    /// The master that leads and of which a quorum says so.
    pub async fn leader(&self) -> usize {
        loop {
            if let Some(n) = self.masters.iter().position(|node| node.log().has_quorum()) {
                return n;
            }
            Rt::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Cuts a master off from all others, not from workers.
    pub fn cut_off(&self, n: usize) {
        let id = |n: usize| self.masters[n].log().identity().node;
        for other in (0..self.masters.len()).filter(|other| *other != n) {
            self.log_net.cut(id(n), id(other));
            self.log_net.cut(id(other), id(n));
        }
    }

    pub fn heal(&self) {
        self.log_net.heal();
    }

    /// What a node has noted.
    pub fn noted(&self, name: &str, what: impl Fn(&Note) -> bool) -> usize {
        self.notes.lock().unwrap().iter().filter(|(of, note)| of == name && what(note)).count()
    }

    pub async fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.store.put(&Name::new(name).unwrap(), Arc::new(bytes.into())).await.unwrap();
    }

    /// Submits a job to whoever leads and gives its name. Every input of a MiB is a map task.
    pub async fn submit(&self, app: &str, flags: &[&str], output: &str) -> String {
        loop {
            match self.try_submit(app, flags, output).await {
                Ok(job) => return job,
                Err(e) => println!("{e}"),
            }
            Rt::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn try_submit(&self, app: &str, flags: &[&str], output: &str) -> Result<String, ApiError> {
        let arguments = flags.iter().map(|flag| flag.to_string()).collect();
        let app = Some(api::App { name: app.into(), arguments, ..Default::default() });
        let spec = api::JobSpec {
            app,
            inputs: vec!["in/".into()],
            output: output.into(),
            reducers: 2,
            map_task_bytes: 1 << 20,
            ..Default::default()
        };
        let request = api::SubmitRequest { key: output.into(), spec: Some(spec) };
        Ok(self.masters[self.leader().await].submit(&ann(), request).await?.job)
    }

    /// How a job is, as whoever leads says.
    pub async fn job(&self, job: &str) -> api::JobStatus {
        loop {
            match self.masters[self.leader().await].job(&ann(), job).await {
                Ok(status) => return status,
                Err(e) => println!("{e}"),
            }
            Rt::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a job has ended.
    pub async fn ended(&self, job: &str) -> api::JobStatus {
        loop {
            let status = self.job(job).await;
            if status.state() >= api::JobState::Completed {
                return status;
            }
            Rt::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All that is written below an output, sorted by lines.
    pub async fn output(&self, output: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, meta) in store::list_all(&self.store, &format!("{output}/part-")).await.unwrap() {
            let bytes = self.store.get(&name, 0..meta.len).await.unwrap();
            lines.extend(String::from_utf8(bytes).unwrap().lines().map(str::to_string));
        }
        lines.sort();
        lines
    }
}
