//! The store that all simulated nodes share: the engine's store in memory, behind a network that takes its time.
//!
//! Of a call that failed nobody knows whether it was carried out: it may have been, or not, or be so only later, when
//! who made it is dead. What a call does is the engine's own code.

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gristmill_engine::scratch::Mapping;
use gristmill_engine::store::{Error, Kind, Memory, Meta, Name, Page, Publish, Store, Version};
use openraft_rt::AsyncRuntime as _;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::marks::sometimes;
use crate::random::{Stream, below, stream};
use crate::runtime::{NodeId, OUTSIDE, SimRuntime, boots, here, mix, spawn_on};

/// How calls of the store fare. Parts are in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreWeather {
    /// Microseconds that a call takes, at least and at most.
    pub latency_us: (u32, u32),
    /// Calls that fail and do nothing.
    pub failed: u32,
    /// Calls that are carried out, and whose answer is lost.
    pub unanswered: u32,
    /// Calls whose answer is lost and that are carried out up to `late_ms` later.
    pub late: u32,
    /// Milliseconds.
    pub late_ms: u32,
}

impl Default for StoreWeather {
    fn default() -> Self {
        Self { latency_us: (200, 2000), failed: 0, unanswered: 0, late: 0, late_ms: 0 }
    }
}

/// A store as a node sees it. Clones share it.
#[derive(Clone)]
pub struct SharedStore {
    memory: Memory,
    publish: Publish,
    weather: Arc<Mutex<StoreWeather>>,
    fate: Arc<Mutex<Pcg64Mcg>>,
    changed: Arc<Hears>,
}

/// Hears of every change when it is made or tried, and whether it was.
type Hears = dyn Fn(&Change, bool) + Send + Sync;

/// What was done to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Name),
    Replaced(Name),
    Copied { from: Name, to: Name },
    Deleted(Name),
    Renamed { to: Name, exchange: bool },
}

impl Change {
    /// The object, or the folder, that is another now.
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::Put(name) | Self::Replaced(name) | Self::Deleted(name) => name,
            Self::Copied { to, .. } | Self::Renamed { to, .. } => to,
        }
    }
}

impl SharedStore {
    pub(crate) fn new(
        publish: Publish,
        weather: StoreWeather,
        changed: impl Fn(&Change, bool) + Send + Sync + 'static,
    ) -> Self {
        Self {
            memory: Memory::new(publish),
            publish,
            weather: Arc::new(Mutex::new(weather)),
            fate: Arc::new(Mutex::new(stream(0, Stream::Store, 0))),
            changed: Arc::new(changed),
        }
    }

    /// As this process of a node sees it.
    pub(crate) fn seen_by(&self, seed: u64, node: NodeId) -> Self {
        let number = u64::from(node.0) << 32 | boots(node);
        Self { fate: Arc::new(Mutex::new(stream(seed, Stream::Store, number))), ..self.clone() }
    }

    /// The objects, without any way there.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn set_weather(&self, weather: StoreWeather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// A call: there, what is done, and back.
    async fn call<T: Send + 'static, F>(&self, done: impl FnOnce(Memory) -> F + Send + 'static) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let (there, back, fails, late) = {
            let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
            let (low, high) = weather.latency_us;
            let mut half = || u64::from(low) / 2 + below(&mut fate, u64::from(high.saturating_sub(low)) / 2 + 1);
            let (there, back) = (half(), half());
            let fails = below(&mut fate, 1000) as u32;
            (there, back, fails, below(&mut fate, u64::from(weather.late_ms) * 1000 + 1))
        };
        SimRuntime::sleep(Duration::from_micros(there)).await;
        let lost = || Error::new(Kind::Retryable, "the store did not answer");
        let (failed, unanswered) = (weather.failed, weather.failed + weather.unanswered);
        if fails < failed {
            sometimes("the store does not answer");
            return Err(lost());
        }
        let wait = if fails >= unanswered && fails < unanswered + weather.late { late } else { 0 };
        if wait > 0 {
            sometimes("the store does it late");
        }
        let memory = self.memory.clone();
        // The store's own work: nobody's death stops it.
        let work = spawn_on(OUTSIDE, async move {
            SimRuntime::sleep(Duration::from_micros(wait)).await;
            done(memory).await
        });
        SimRuntime::sleep(Duration::from_micros(back)).await;
        if fails < unanswered + weather.late {
            return Err(lost());
        }
        work.await.map_err(|_| lost())?
    }

    async fn change<F>(&self, what: Change, done: impl FnOnce(Memory) -> F + Send + 'static) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (changed, by) = (self.changed.clone(), here());
        let work = move |memory: Memory| async move {
            let result = done(memory).await;
            mix(what.name().as_str().as_bytes());
            mix(&[u8::from(result.is_ok()), by.0 as u8]);
            changed(&what, result.is_ok());
            result
        };
        self.call(work).await
    }
}

impl Store for SharedStore {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        let name = name.clone();
        self.call(|memory| async move { memory.head(&name).await }).await
    }

    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let name = name.clone();
        self.call(|memory| async move { memory.get(&name, range).await }).await
    }

    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        let (change, name) = (Change::Put(name.clone()), name.clone());
        self.change(change, |memory| async move { memory.put(&name, bytes).await }).await
    }

    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        let (change, name, version) = (Change::Replaced(name.clone()), name.clone(), version.clone());
        self.change(change, |memory| async move { memory.replace(&name, &version, bytes).await }).await
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        let (change, from, to) = (Change::Copied { from: from.clone(), to: to.clone() }, from.clone(), to.clone());
        self.change(change, |memory| async move { memory.copy(&from, &to).await }).await
    }

    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        let (prefix, after) = (prefix.to_string(), after.cloned());
        self.call(|memory| async move { memory.list(&prefix, after.as_ref()).await }).await
    }

    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        let (change, name, version) = (Change::Deleted(name.clone()), name.clone(), version.cloned());
        self.change(change, |memory| async move { memory.delete(&name, version.as_ref()).await }).await
    }

    fn publish(&self) -> Publish {
        self.publish
    }

    async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
        let (change, from, to) = (Change::Renamed { to: to.clone(), exchange }, from.clone(), to.clone());
        self.change(change, move |memory| async move { memory.rename(&from, &to, exchange).await }).await
    }
}
