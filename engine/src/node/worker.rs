//! The shell of a worker: it registers with the leading master, polls, and does what the answers say.
//!
//! `board` holds all that the worker knows and is pure; `attempt` runs one attempt at a task; `shuffle` brings the
//! segments of finished maps here and serves those that were made here; `code` has the apps of jobs, and brings the files of
//! those that come from elsewhere. Nothing here decides: the leader does.

mod attempt;
pub(crate) mod board;
mod code;
mod shuffle;
mod stored;
mod tasklog;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gristmill_proto::internal::v1 as proto;
use gristmill_raft::runtime::{AsyncRuntime, Select2};
use prost::Message as _;

use self::board::{Board, Orders};
use super::cache::Cache;
use super::clock;
use super::env::{Env, Note};
use super::masters::Masters;
use super::paths;
pub use super::paths::CODE;
use super::rpc::{CallError, Method};
use super::signal::Signal;
use super::spool;

/// How long registering may take before it is tried anew.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);
/// How long the leader may keep a poll until it has said otherwise.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// What the way there and back may take beyond that.
const SLACK: Duration = Duration::from_secs(5);
/// How long news are gathered before they are told.
const GATHER: Duration = Duration::from_millis(2);
/// The pause after a poll that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// A worker that is to end and has had no answer from any master for so long ends: there is nobody to hand over to.
const ALONE: Duration = Duration::from_secs(30);

/// Who a worker is, and what it offers.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name, unique among live workers.
    pub name: String,
    /// Where other workers reach it: host:port.
    pub address: String,
    /// Tasks that it runs at a time.
    pub slots: u32,
    /// Addresses of masters, at least one.
    pub masters: Vec<String>,
    /// Bytes of memory that one task may hold.
    pub task_memory: u64,
    /// Bytes of objects that stay on scratch when no attempt reads them: those that had to be fetched.
    pub input_cache: u64,
    /// UID of its pod, if it runs in one.
    pub uid: String,
    /// What it has that jobs may ask for.
    pub capabilities: Vec<String>,
    /// The number of its folder, by which another worker of the same name is told from this one come back. 0: none.
    pub folder: u64,
}

/// A worker. Clones are handles to the same one.
pub struct Worker<E: Env> {
    inner: Arc<Inner<E>>,
}

impl<E: Env> Clone for Worker<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<E: Env> {
    env: E,
    options: Options,
    masters: Masters,
    board: Mutex<Board>,
    /// The leader should hear something.
    news: Signal<E::Rt>,
    /// More is known of where segments are.
    segments: Signal<E::Rt>,
    /// An attempt may have been told to stop.
    stops: Signal<E::Rt>,
    draining: AtomicBool,
    stopped: AtomicBool,
    /// The cluster, once something was assigned.
    cluster: AtomicU64,
    plans: Mutex<Plans>,
    jobs: Mutex<code::Jobs>,
    files: Arc<Mutex<code::Files>>,
    /// Held by whoever fetches one: others may want the same.
    fetching: futures_util::lock::Mutex<()>,
    /// Objects of the store that were fetched.
    inputs: Cache<E::Rt>,
}

/// Plans that were read, by job and digest.
type Plans = BTreeMap<(u64, [u8; 16]), Arc<proto::PlanFile>>;

/// Why a conversation with the leader is over.
enum End {
    Fenced(String),
    Drained,
    Stopped,
}

impl<E: Env> Worker<E> {
    /// A worker that is not yet running.
    pub fn new(env: E, options: Options) -> Self {
        let masters = Masters::new(options.masters.clone());
        let board = Mutex::new(Board::new(0, options.slots));
        let inputs = Cache::new(options.input_cache);
        Self {
            inner: Arc::new(Inner {
                env,
                options,
                masters,
                board,
                news: Signal::default(),
                segments: Signal::default(),
                stops: Signal::default(),
                draining: AtomicBool::new(false),
                stopped: AtomicBool::new(false),
                cluster: AtomicU64::new(0),
                plans: Mutex::default(),
                jobs: Mutex::default(),
                files: Arc::default(),
                fetching: futures_util::lock::Mutex::default(),
                inputs,
            }),
        }
    }

    /// Runs until drained or stopped. Whatever an earlier process left on scratch is removed first: the leader takes it
    /// for lost.
    pub async fn run(&self) {
        let inner = &self.inner;
        inner.clear_scratch().await;
        let mut news = inner.news.listen();
        while !inner.stopped.load(Relaxed) {
            // Until it is taken in it holds nothing that anybody needs.
            if inner.draining.load(Relaxed) {
                break;
            }
            let registered = match E::Rt::select2(inner.register().boxed(), news.heard()).await {
                Select2::First(registered) => registered,
                Select2::Second(()) => continue,
            };
            let Some(incarnation) = registered else { continue };
            *inner.board() = Board::new(incarnation, inner.options.slots);
            inner.board().draining = inner.draining.load(Relaxed);
            match inner.converse(incarnation).await {
                End::Fenced(why) => {
                    inner.env.note(Note::Fenced { why });
                    // An attempt that ends from here on is nobody's: it removes what it leaves, perhaps after all has been.
                    *inner.board() = Board::new(0, inner.options.slots);
                    inner.stops.raise();
                    inner.plans().clear();
                    inner.forget_jobs(|_| true);
                    inner.clear_scratch().await;
                }
                End::Drained | End::Stopped => break,
            }
        }
        inner.board().stop_all();
        inner.stops.raise();
    }

    /// Takes no more tasks, gives back those that run, keeps what others still need until it is in the store; then
    /// [`Worker::run`] returns.
    pub fn drain(&self) {
        self.inner.draining.store(true, Relaxed);
        let mut board = self.inner.board();
        board.draining = true;
        board.stop_all();
        drop(board);
        self.inner.stops.raise();
        self.inner.news.raise();
    }

    /// Stops at once. What it held is lost to the cluster.
    pub fn stop(&self) {
        self.inner.stopped.store(true, Relaxed);
        self.inner.board().stop_all();
        self.inner.stops.raise();
        self.inner.news.raise();
    }

    /// Answers [`Method::Fetch`]: segments that were made here.
    pub fn fetch(&self, request: Bytes) -> gristmill_raft::net::BoxStream<'static, Result<Bytes, CallError>> {
        let whose = (self.inner.cluster.load(Relaxed), self.inner.board().incarnation());
        shuffle::serve(self.inner.env.clone(), whose, request)
    }
}

impl<E: Env> Inner<E> {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, code::Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, code::Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies on scratch belongs to an incarnation that has ended.
    fn clear_scratch(&self) -> BoxFuture<'_, ()> {
        async {
            self.inputs.clear();
            self.remove(paths::JOBS.to_string()).await;
            self.remove(paths::INPUTS.to_string()).await;
            let _fetching = self.fetching.lock().await;
            self.files().forget();
            self.remove(paths::APPS.to_string()).await;
        }
        .boxed()
    }

    async fn register(&self) -> Option<u64> {
        let options = &self.options;
        let request = proto::Register {
            name: options.name.clone(),
            address: options.address.clone(),
            slots: options.slots,
            apps: self.env.apps().offers(),
            uid: options.uid.clone(),
            folder: options.folder,
            capabilities: options.capabilities.clone(),
        };
        let asked = Bytes::from(request.encode_to_vec());
        let answered = self.masters.call::<E::Rt, _>(self.env.net(), Method::Register, asked, REGISTER_WITHIN).await;
        let trouble = match answered.map(proto::Registered::decode) {
            Ok(Ok(registered)) if registered.incarnation != 0 => {
                self.env.note(Note::Registered { incarnation: registered.incarnation });
                return Some(registered.incarnation);
            }
            Ok(Ok(registered)) => format!("the cluster does not take this worker: {}", registered.refused),
            Ok(Err(e)) => format!("the answer to a registration makes no sense: {e}"),
            Err(e) => format!("could not register: {e}"),
        };
        self.env.note(Note::Trouble { what: trouble });
        E::Rt::sleep(PAUSE.1).await;
        None
    }

    /// Polls until the incarnation ends.
    async fn converse(self: &Arc<Self>, incarnation: u64) -> End {
        let (mut wait, mut pause) = (FIRST_WAIT, PAUSE.0);
        let mut answered_at = clock::now::<E::Rt>();
        let mut news = self.news.listen();
        loop {
            if self.stopped.load(Relaxed) {
                return End::Stopped;
            }
            let poll = Bytes::from(self.board().poll().encode_to_vec());
            let call = self.masters.call::<E::Rt, _>(self.env.net(), Method::Poll, poll, wait + SLACK);
            let answered = match E::Rt::select2(call, news.heard()).await {
                Select2::First(answered) => answered,
                // The answer that is under way is given up: the next poll says again what runs here.
                Select2::Second(()) => {
                    E::Rt::sleep(GATHER).await;
                    continue;
                }
            };
            let answer = match answered.map(proto::PollAnswer::decode) {
                Ok(Ok(answer)) => answer,
                failed => {
                    let what = match failed {
                        Ok(Err(e)) => format!("the answer to a poll makes no sense: {e}"),
                        Err(e) => format!("a poll failed: {e}"),
                        Ok(Ok(_)) => continue,
                    };
                    self.env.note(Note::Trouble { what });
                    if self.draining.load(Relaxed) && clock::now::<E::Rt>() >= answered_at + ALONE {
                        let what = format!("ends without handing over: no master has answered for {ALONE:?}");
                        self.env.note(Note::Trouble { what });
                        return End::Stopped;
                    }
                    E::Rt::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    continue;
                }
            };
            (pause, answered_at) = (PAUSE.0, clock::now::<E::Rt>());
            if answer.wait_ms > 0 {
                wait = Duration::from_millis(answer.wait_ms.min(60_000).into());
            }
            let orders = self.board().heed(answer);
            self.stops.raise();
            if let Some(end) = self.carry_out(incarnation, orders) {
                return end;
            }
        }
    }

    fn carry_out(self: &Arc<Self>, incarnation: u64, orders: Orders) -> Option<End> {
        if let Some(why) = orders.fenced {
            return Some(End::Fenced(why));
        }
        let mut useless: Vec<String> = orders.discard.iter().map(paths::attempt).collect();
        self.forget_jobs(|job| orders.drop_jobs.contains(&job));
        for job in orders.drop_jobs {
            useless.push(paths::job(job));
            self.plans().retain(|(of, _), _| *of != job);
        }
        if !useless.is_empty() {
            let worker = self.clone();
            // The next poll does not wait for it.
            drop(E::Rt::spawn(async move {
                for prefix in useless {
                    worker.remove(prefix).await;
                }
            }));
        }
        if !orders.segments.is_empty() {
            self.segments.raise();
        }
        for (assignment, controls) in orders.begin {
            let worker = self.clone();
            drop(E::Rt::spawn(async move { worker.attempt(incarnation, assignment, controls).await }));
        }
        for task in orders.upload {
            let worker = self.clone();
            drop(E::Rt::spawn(async move { worker.upload(task).await }));
        }
        orders.drained.then_some(End::Drained)
    }

    async fn remove(&self, prefix: String) {
        if let Err(e) = spool::remove(&self.env, prefix).await {
            self.env.note(Note::Trouble { what: e.to_string() });
        }
    }

    /// Runs an attempt and puts its end on the board.
    async fn attempt(self: Arc<Self>, incarnation: u64, assignment: proto::Assignment, controls: board::Controls) {
        let task = assignment.task;
        let (log, cluster, name) = (controls.log.clone(), assignment.cluster, self.options.name.clone());
        let given_ms = assignment.given_ms;
        if let Some(task) = task {
            drop(E::Rt::spawn(log.clone().follow(self.env.clone(), cluster, task, name.clone())));
        }
        let worker = self.clone();
        // Of its own, so that a panic ends the attempt and not what is to be done about it.
        let performed = E::Rt::spawn(async move { worker.perform(&assignment, &controls).await });
        let end = match performed.await.unwrap_or_else(|_| Err(attempt::panicked())) {
            Ok(done) => proto::task_report::End::Done(done),
            Err(failure) => proto::task_report::End::Failure(failure),
        };
        let words = match &end {
            // One that was stopped has nothing to say.
            proto::task_report::End::Failure(f) if f.cause() != proto::failure::Cause::Returned => Some(&*f.message),
            _ => None,
        };
        log.end(self.env.wall_ms(), words.map(|words| format!("failed: {words}")).as_deref());
        if let Some(task) = &task {
            // Before the end is told: who hears of it finds the reason.
            log.store(&self.env, cluster, task, &name).await;
        }
        // What an earlier incarnation ran is nobody's.
        let mine = self.board().incarnation() == incarnation;
        if let Some(task) = task.filter(|_| !mine || matches!(end, proto::task_report::End::Failure(_))) {
            self.remove(paths::attempt(&task)).await;
        }
        let mut board = self.board();
        if board.incarnation() == incarnation {
            board.ended(proto::TaskReport { task, end: Some(end), given_ms });
        }
        drop(board);
        self.news.raise();
    }

    /// Puts a finished map's segments into the store, for a drain.
    async fn upload(self: Arc<Self>, task: proto::Task) {
        match self.store_segments(self.cluster.load(Relaxed), &task).await {
            Ok(()) => {
                let end = Some(proto::task_report::End::Moved(proto::Moved {}));
                self.board().ended(proto::TaskReport { task: Some(task), end, given_ms: 0 });
            }
            Err(what) => {
                self.env.note(Note::Trouble { what });
                self.board().upload_failed(&task);
            }
        }
        self.news.raise();
    }
}
