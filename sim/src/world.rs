//! What one process of a simulated node sees: the same seams that production fills with Tokio, gRPC, files and rayon.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use gristmill_engine::exec::Exec;
use gristmill_engine::node::env::{Apps, Env, Note};
use gristmill_engine::node::master::MasterEnv;
use gristmill_engine::node::point::Point;
use gristmill_engine::scratch::Scratch;
use gristmill_raft::model::{ModelFiles, ModelKv};
use openraft_rt::AsyncRuntime as _;
use rand::Rng as _;

use crate::marks::sometimes;
use crate::net::Network;
use crate::points::Points;
use crate::runtime::{NodeId, SimRuntime, here, kill, now, record};
use crate::store::SharedStore;

/// Milliseconds since 1970 when a simulation begins.
const BEGINNING_MS: u64 = 1_700_000_000_000;
/// What work takes beside what its bytes take.
const WORK: Duration = Duration::from_micros(200);
/// No work takes less than that on so many bytes.
const LEAST: u64 = 64 << 10;
/// One in so many takes up to so many times as long as others.
const SLOW: u64 = 8;
const TIMES: u64 = 12;
/// What waiting for a disk takes.
const DISK: Duration = Duration::from_micros(100);

/// What one process sees. Clones see the same.
#[derive(Clone)]
pub struct World(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) network: Network,
    pub(crate) store: SharedStore,
    pub(crate) scratch: Arc<dyn Scratch>,
    pub(crate) apps: Arc<Apps>,
    /// Kibibytes that work is done on in a second.
    pub(crate) speed: u32,
    pub(crate) points: Points,
    /// How far the machine's clock of the day is ahead, in milliseconds.
    pub(crate) wall_offset_ms: Arc<AtomicI64>,
}

/// One slice after the other, on the simulation's thread.
struct Inline;

impl Exec for Inline {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, n: usize, slice: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(slice);
    }
}

impl Inner {
    /// How long work on so many bytes takes; some of it, for no reason that anybody knows, much longer.
    fn takes(&self, bytes: u64) -> Duration {
        let (number, usual) =
            (SimRuntime::thread_rng().next_u64(), bytes.max(LEAST) * 1_000_000 / 1024 / u64::from(self.speed));
        let times = if number.is_multiple_of(SLOW) { TIMES } else { 1 };
        Duration::from_micros(usual + usual * times * (number >> 8 & 0x3ff) / 0x400)
    }

    /// Does `work` in a task of its own, which nobody who stops waiting can stop, when it would be done.
    fn later<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        takes: Duration,
        work: F,
    ) -> impl Future<Output = Option<T>> + Send + use<T, F> {
        let done = SimRuntime::spawn(async move {
            SimRuntime::sleep(takes).await;
            // Apps may panic: that is the caller's to tell, not a defect of the node.
            catch_unwind(AssertUnwindSafe(work)).ok()
        });
        async move { done.await.ok().flatten() }
    }
}

impl Env for World {
    type Rt = SimRuntime;
    type Net = Network;
    type Store = SharedStore;

    fn net(&self) -> &Network {
        &self.0.network
    }

    fn store(&self) -> &SharedStore {
        &self.0.store
    }

    fn scratch(&self) -> &Arc<dyn Scratch> {
        &self.0.scratch
    }

    fn apps(&self) -> &Apps {
        &self.0.apps
    }

    fn offload<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce(&dyn Exec) -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        self.0.later(WORK + self.0.takes(bytes), move || work(&Inline))
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        self.0.later(DISK, work)
    }

    fn wall_ms(&self) -> u64 {
        let true_ms = BEGINNING_MS + u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        true_ms.saturating_add_signed(self.0.wall_offset_ms.load(Relaxed))
    }

    fn note(&self, note: Note) {
        match note {
            Note::Registered { incarnation } => record(format!("is taken in as {incarnation}")),
            Note::Fenced { why } => {
                sometimes("a worker is taken for dead");
                record(format!("is given up: {why}"));
            }
            Note::Leads { term } => {
                if term > 1 {
                    sometimes("another leader");
                }
                record(format!("leads in term {term}"));
            }
            Note::Follows => record("leads no longer"),
            Note::Trouble { what } => record(format!("trouble: {what}")),
            _ => {}
        }
    }

    fn reached(&self, point: Point) {
        if self.0.points.reached(point.name()) {
            sometimes(point.name());
            record(format!("dies at the point {}", point.name()));
            debug_assert_eq!(here(), self.0.node);
            kill(self.0.node);
        }
    }
}

/// The clock of the day without any node's offset, in milliseconds since 1970, as what runs here now would see it drift.
pub fn wall_of_here() -> u64 {
    let since = <crate::runtime::Instant as openraft_rt::Instant>::now().since_start();
    BEGINNING_MS + u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The world of the masters' log.
pub struct Log;

impl gristmill_raft::Env for Log {
    type Rt = SimRuntime;
    type Net = Network;
    type Kv = ModelKv<SimRuntime>;
    type Files = ModelFiles<SimRuntime>;
}

impl MasterEnv for World {
    type Log = Log;
}
