//! A modelled disk in memory: what the simulator and the tests use where production has sled and a folder.
//!
//! It keeps what a real disk would still have after a loss of power apart from what programs can read, and breaks on
//! request: crash, torn batch, bit rot, silent rollback, misdirected write, errors, a full disk, slowness. Every choice
//! comes from the seed. When to break what is the caller's plan, not decided here.

mod files;
mod kv;

pub use files::ModelFiles;
pub use kv::ModelKv;

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft_rt::AsyncRuntime;

use crate::disk::Error;

/// Barriers whose effects are remembered, so that [`Disk::roll_back`] can take them back.
const REMEMBERED_BARRIERS: usize = 64;
/// The longest that a write takes which need not be durable yet.
const MOST_OF_A_WRITE: Duration = Duration::from_millis(5);

/// How the disk behaves from now on. All off by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Every write fails with this.
    pub write_error: Option<io::ErrorKind>,
    /// Every barrier and seal fails with this.
    pub sync_error: Option<io::ErrorKind>,
    /// Every rebuild of the database fails with this: there may be room for what is written and none for a second
    /// database.
    pub rebuild_error: Option<io::ErrorKind>,
    /// Writes fail with `StorageFull` when more than so many bytes would be kept.
    pub capacity_bytes: Option<u64>,
    /// The shortest time that something durable takes.
    pub sync_min: Duration,
    /// The longest.
    pub sync_max: Duration,
    /// After a crash, the first batch that is lost may have left some of its changes behind.
    pub torn_batches: bool,
    /// Barriers and durable writes report success without being durable. (A disk that lies.)
    pub lying_sync: bool,
}

/// The disk of one machine. It outlives crashes; what a program holds of it ([`Disk::boot`]) does not.
pub struct Disk<Rt> {
    inner: Shared,
    runtime: PhantomData<fn() -> Rt>,
}

impl<Rt> Clone for Disk<Rt> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), runtime: PhantomData }
    }
}

type Shared = Arc<Mutex<Inner>>;

#[derive(Debug, Default)]
struct Inner {
    kv: kv::State,
    files: files::State,
    faults: Faults,
    random: Random,
    /// Counts starts of the machine. Handles of another boot are dead.
    boot: u64,
}

impl<Rt: AsyncRuntime> Disk<Rt> {
    /// An empty disk whose accidents follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let inner = Inner { random: Random(seed), ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), runtime: PhantomData }
    }

    /// What a program that starts now uses. Handles given out before are dead from here on, as those of a process that
    /// was killed.
    pub fn boot(&self) -> (ModelKv<Rt>, ModelFiles<Rt>) {
        let mut inner = lock(&self.inner);
        inner.boot += 1;
        let handle = Handle { shared: self.inner.clone(), boot: inner.boot };
        (ModelKv::new(handle.clone()), ModelFiles::new(handle))
    }

    /// Changes how the disk behaves.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.inner).faults = faults;
    }

    /// The machine loses power: of what no barrier covered, some prefix is left.
    pub fn crash(&self) {
        let mut inner = lock(&self.inner);
        let Inner { kv, files, faults, random, boot } = &mut *inner;
        *boot += 1;
        kv.crash(random, faults.torn_batches);
        files.crash(random);
    }

    /// The process dies, the machine goes on: nothing is lost but the handles.
    pub fn kill(&self) {
        lock(&self.inner).boot += 1;
    }

    /// Flips one bit of what is stored, in the database or a file. Says where, or `None` if the disk is empty.
    pub fn rot(&self) -> Option<String> {
        let mut inner = lock(&self.inner);
        let Inner { kv, files, random, .. } = &mut *inner;
        let (in_kv, in_files) = (kv.bytes(), files.bytes());
        if in_kv + in_files == 0 {
            return None;
        }
        let at = random.below(in_kv + in_files);
        let bit = 1 << random.below(8);
        if at < in_kv { kv.flip(at, bit) } else { files.flip(at - in_kv, bit) }
    }

    /// The database silently goes back to where it was `barriers` barriers ago (at most 64). Files stay.
    pub fn roll_back(&self, barriers: usize) {
        let mut inner = lock(&self.inner);
        inner.boot += 1;
        inner.kv.roll_back(barriers);
    }

    /// One value of the database lands under another's key. Says which, or `None` if there are less than two.
    pub fn misdirect(&self) -> Option<String> {
        let mut inner = lock(&self.inner);
        let Inner { kv, random, .. } = &mut *inner;
        kv.misdirect(random)
    }

    /// Everything is gone.
    pub fn wipe(&self) {
        let mut inner = lock(&self.inner);
        inner.boot += 1;
        inner.kv = kv::State::default();
        inner.files = files::State::default();
    }

    /// Bytes kept: of the database, and of files.
    pub fn bytes(&self) -> (u64, u64) {
        let inner = lock(&self.inner);
        (inner.kv.bytes(), inner.files.bytes())
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Inner> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one boot of a program holds of the disk.
#[derive(Debug, Clone)]
struct Handle {
    shared: Shared,
    boot: u64,
}

impl Handle {
    /// Runs `job` on the disk if this boot is still alive.
    fn with<T>(&self, what: &'static str, job: impl FnOnce(&mut Inner) -> io::Result<T>) -> Result<T, Error> {
        let mut inner = lock(&self.shared);
        let alive = if inner.boot == self.boot { Ok(()) } else { Err(io::Error::other("the machine has crashed")) };
        alive.and_then(|()| job(&mut inner)).map_err(|e| Error::new(what, "the modelled disk", e))
    }

    /// How long the next durable thing takes, or why it fails.
    fn begin_sync(&self, what: &'static str) -> Result<Duration, Error> {
        self.with(what, |inner| match inner.faults.sync_error {
            Some(kind) => Err(kind.into()),
            None => Ok(inner.sync_time()),
        })
    }

    /// How long something takes that need not be durable yet: part of what a sync does.
    fn write_time(&self) -> Duration {
        self.with("write to", |inner| Ok(inner.sync_time() / 4)).unwrap_or_default().min(MOST_OF_A_WRITE)
    }
}

impl Inner {
    fn sync_time(&mut self) -> Duration {
        let (min, max) = (self.faults.sync_min, self.faults.sync_max.max(self.faults.sync_min));
        let spread = u64::try_from((max - min).as_nanos()).unwrap_or(u64::MAX);
        min + Duration::from_nanos(if spread == 0 { 0 } else { self.random.below(spread) })
    }

    /// Whether `more` bytes may be written now.
    fn admit(&self, more: usize) -> io::Result<()> {
        if let Some(kind) = self.faults.write_error {
            return Err(kind.into());
        }
        let kept = self.kv.bytes() + self.files.bytes();
        match self.faults.capacity_bytes {
            Some(capacity) if kept + more as u64 > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): small, and the same for
/// ever, which a recorded failure needs.
#[derive(Debug, Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0. Its bias is below 2^-32 for all bounds used here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Finds the stored byte number `at` of a map and flips `bit` in it.
fn flip_in<K>(map: &mut BTreeMap<K, Vec<u8>>, mut at: u64, bit: u8, name: impl Fn(&K) -> String) -> Option<String> {
    for (key, value) in map {
        if at < value.len() as u64 {
            let at = usize::try_from(at).ok()?;
            *value.get_mut(at)? ^= bit;
            return Some(format!("bit {bit:#04x} of byte {at} of {}", name(key)));
        }
        at -= value.len() as u64;
    }
    None
}
