//! Objects that were fetched to a worker's scratch: each once, for all attempts that read it, as long as there is room.
//!
//! An object is known by name, version and length, so that what is here never goes stale. Attempts that want one that is
//! on its way wait for it. What nobody reads goes when others need the room, the one not used for longest first; what is
//! read stays, even beyond the limit.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_proto::internal::v1 as wire;
use gristmill_raft::runtime::AsyncRuntime;

use super::env::Env;
use super::objects::{self, patiently};
use super::paths;
use super::signal::Signal;
use super::spool::Spool;
use crate::scratch::{self, Mapping};
use crate::store::{self, Error, Kind, Name, Store as _};

/// Which bytes: name, version, length.
type Key = (String, String, u64);

/// The objects of one worker.
pub(crate) struct Cache<Rt: AsyncRuntime> {
    /// Bytes that may be kept.
    limit: u64,
    kept: Mutex<Kept>,
    /// Something has arrived or failed to.
    settled: Signal<Rt>,
}

#[derive(Default)]
struct Kept {
    entries: BTreeMap<Key, Entry>,
    /// Counts uses, and names files: no two have one name.
    clock: u64,
}

struct Entry {
    file: String,
    used: u64,
    /// None: it is on its way.
    mapping: Option<Arc<Counted>>,
}

/// A mapping that is counted here alone: scratch may keep one of its own.
struct Counted(Arc<dyn Mapping>);

impl Mapping for Counted {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
    fn is_intact(&self) -> bool {
        self.0.is_intact()
    }
    fn release(&self, range: Range<usize>) {
        self.0.release(range);
    }
}

impl Kept {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn bytes(&self) -> u64 {
        self.entries.keys().map(|(_, _, len)| len).sum()
    }

    /// Takes out what nobody reads until `bytes` are free below `limit`, and gives the files of it.
    fn make_room(&mut self, bytes: u64, limit: u64) -> Vec<String> {
        let mut files = Vec::new();
        while self.bytes().saturating_add(bytes) > limit {
            let idle = |(_, entry): &(&Key, &Entry)| entry.mapping.as_ref().is_some_and(|m| Arc::strong_count(m) == 1);
            let oldest = self.entries.iter().filter(idle).min_by_key(|(_, entry)| entry.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            files.extend(self.entries.remove(&key).map(|entry| entry.file));
        }
        files
    }
}

/// An object on its way. If whoever fetches it stops, others may.
struct Fetching<'c, Rt: AsyncRuntime> {
    cache: &'c Cache<Rt>,
    key: Key,
    file: String,
}

impl<Rt: AsyncRuntime> Drop for Fetching<'_, Rt> {
    fn drop(&mut self) {
        let mut kept = self.cache.kept();
        let ours = |entry: &Entry| entry.file == self.file && entry.mapping.is_none();
        if kept.entries.get(&self.key).is_some_and(ours) {
            kept.entries.remove(&self.key);
        }
        drop(kept);
        self.cache.settled.raise();
    }
}

impl<Rt: AsyncRuntime> Cache<Rt> {
    /// An empty cache of so many bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, kept: Mutex::default(), settled: Signal::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: whoever calls this removes the files.
    pub(crate) fn clear(&self) {
        self.kept().entries.clear();
        self.settled.raise();
    }

    /// The bytes of an object of the plan.
    ///
    /// # Errors
    /// Those of the store; [`Kind::Changed`] where it is another one now, [`Kind::Denied`] of the scratch disk.
    pub(crate) async fn get<E: Env<Rt = Rt>>(
        &self,
        env: &E,
        name: &Name,
        object: &wire::PlannedObject,
    ) -> Result<Arc<dyn Mapping>, Error> {
        let key = (object.name.clone(), object.version.clone(), object.size);
        let mut settled = self.settled.listen();
        let (fetching, room) = loop {
            {
                let mut kept = self.kept();
                let now = kept.tick();
                match kept.entries.get_mut(&key) {
                    Some(Entry { mapping: Some(mapping), used, .. }) => {
                        *used = now;
                        return Ok(mapping.clone());
                    }
                    Some(_) => {}
                    None => {
                        let room = kept.make_room(object.size, self.limit);
                        let file = format!("{}{now}", paths::INPUTS);
                        let entry = Entry { file: file.clone(), used: now, mapping: None };
                        kept.entries.insert(key.clone(), entry);
                        break (Fetching { cache: self, key, file }, room);
                    }
                }
            }
            settled.heard().await;
        };
        remove(env, room).await;
        let mut fetched = self.fetch(env, name, object, &fetching).await;
        if matches!(&fetched, Err(e) if e.kind == Kind::Denied) {
            // Perhaps the disk is full of what nobody reads.
            let room = self.kept().make_room(u64::MAX, self.limit);
            if !room.is_empty() {
                remove(env, room).await;
                fetched = self.fetch(env, name, object, &fetching).await;
            }
        }
        if fetched.is_err() {
            remove(env, vec![fetching.file.clone()]).await;
        }
        fetched
    }

    async fn fetch<E: Env<Rt = Rt>>(
        &self,
        env: &E,
        name: &Name,
        object: &wire::PlannedObject,
        fetching: &Fetching<'_, Rt>,
    ) -> Result<Arc<dyn Mapping>, Error> {
        objects::unchanged(env, name, object).await?;
        let mapping = patiently::<Rt, _, _>(|| write(env, name, object.size, &fetching.file)).await?;
        let mapping = Arc::new(Counted(mapping));
        // What was read was of one version if it is the same still.
        objects::unchanged(env, name, object).await?;
        let mut kept = self.kept();
        // If it was cleared meanwhile, this is the attempt's alone, and the file goes with the others.
        if let Some(entry) = kept.entries.get_mut(&fetching.key).filter(|entry| entry.file == fetching.file) {
            entry.mapping = Some(mapping.clone());
        }
        Ok(mapping)
    }
}

async fn write<E: Env>(env: &E, name: &Name, len: u64, file: &str) -> Result<Arc<dyn Mapping>, Error> {
    let on_scratch = |e: scratch::Error| Error::new(Kind::Denied, e.to_string());
    let mut spool = Spool::create(env, file.to_string()).await.map_err(on_scratch)?;
    while spool.len() < len {
        let bytes = env.store().get(name, spool.len()..len.min(spool.len() + store::READ)).await?;
        if bytes.is_empty() {
            return Err(objects::changed(name));
        }
        spool.write(env, bytes.into()).await.map_err(on_scratch)?;
    }
    spool.map(env).await.map_err(on_scratch)
}

/// What cannot be removed now goes when the worker begins anew.
async fn remove<E: Env>(env: &E, files: Vec<String>) {
    let scratch = env.scratch().clone();
    env.blocking(move || files.iter().for_each(|file| drop(scratch.remove(file)))).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use std::time::Duration;

    use bytes::Bytes;
    use gristmill_raft::net::BoxStream;
    use gristmill_raft::tokio::TokioRuntime;

    use super::super::env::{Apps, Note};
    use super::super::rpc::{CallError, Method, Net};
    use super::*;
    use crate::exec::Exec;
    use crate::scratch::{Memory as Disk, Op, Scratch};
    use crate::store::{Memory, Meta, Page, Publish, Store, Version};

    /// A store that counts reads, and waits in each.
    struct Reads(Memory, AtomicUsize);

    impl Store for Reads {
        async fn head(&self, name: &Name) -> Result<Meta, Error> {
            self.0.head(name).await
        }
        async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
            self.1.fetch_add(1, Relaxed);
            TokioRuntime::sleep(std::time::Duration::from_millis(5)).await;
            self.0.get(name, range).await
        }
        async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
            self.0.put(name, bytes).await
        }
        async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
            self.0.replace(name, version, bytes).await
        }
        async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
            self.0.copy(from, to).await
        }
        async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
            self.0.list(prefix, after).await
        }
        async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
            self.0.delete(name, version).await
        }
        fn publish(&self) -> Publish {
            self.0.publish()
        }
        async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
            self.0.rename(from, to, exchange).await
        }
    }

    /// A world with a store and a disk, and nobody else.
    #[derive(Clone)]
    struct World(Arc<(Reads, Arc<dyn Scratch>, Apps)>);

    #[derive(Clone)]
    struct Nobody;

    impl Net for Nobody {
        fn call(
            &self,
            _: &str,
            _: Method,
            _: Bytes,
            _: Duration,
        ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<> {
            std::future::ready(Err(CallError::NotSent("nobody".into())))
        }
        fn fetch(&self, _: &str, _: Method, _: Bytes, _: Duration) -> BoxStream<'static, Result<Bytes, CallError>> {
            Box::pin(futures_util::stream::empty())
        }
    }

    impl Env for World {
        type Rt = TokioRuntime;
        type Net = Nobody;
        type Store = Reads;
        fn net(&self) -> &Nobody {
            &Nobody
        }
        fn store(&self) -> &Reads {
            &self.0.0
        }
        fn scratch(&self) -> &Arc<dyn Scratch> {
            &self.0.1
        }
        fn apps(&self) -> &Apps {
            &self.0.2
        }
        fn offload<T: Send + 'static>(
            &self,
            _: u64,
            _: impl FnOnce(&dyn Exec) -> T + Send + 'static,
        ) -> impl Future<Output = Option<T>> + Send {
            std::future::ready(None)
        }
        fn blocking<T: Send + 'static>(
            &self,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> impl Future<Output = Option<T>> + Send {
            std::future::ready(Some(work()))
        }
        fn wall_ms(&self) -> u64 {
            0
        }
        fn note(&self, _: Note) {}
    }

    /// A world whose store has objects that are called as they read.
    async fn world(disk: Disk, names: &[&str]) -> (World, Vec<wire::PlannedObject>) {
        let store = Reads(Memory::new(Publish::Copy), AtomicUsize::new(0));
        let mut planned = Vec::new();
        for name in names {
            let at = &Name::new(*name).unwrap();
            store.put(at, Arc::new(name.as_bytes().to_vec())).await.unwrap();
            let meta = store.head(at).await.unwrap();
            planned.push(wire::PlannedObject { name: name.to_string(), version: meta.version.0, size: meta.len });
        }
        (World(Arc::new((store, Arc::new(disk), Apps::new([], "")))), planned)
    }

    impl World {
        async fn get(
            &self,
            cache: &Cache<TokioRuntime>,
            object: &wire::PlannedObject,
        ) -> Result<Arc<dyn Mapping>, Error> {
            cache.get(self, &Name::new(object.name.as_str())?, object).await
        }
        fn reads(&self) -> usize {
            self.0.0.1.load(Relaxed)
        }
        fn files(&self) -> usize {
            self.scratch().list("").unwrap().len()
        }
    }

    fn run(test: impl Future<Output = ()>) {
        // It has timers.
        TokioRuntime::new(1).block_on(test);
    }

    #[test]
    fn an_object_is_fetched_once_for_all_who_want_it() {
        run(async {
            let (world, planned) = world(Disk::default(), &["aaaa"]).await;
            let cache = Cache::new(100);
            let get = || world.get(&cache, &planned[0]);
            let ((one, two), three) = both(both(get(), get()), get()).await;
            for mapping in [one, two, three, get().await] {
                assert_eq!(mapping.unwrap().bytes(), b"aaaa");
            }
            assert_eq!(world.reads(), 1);
        });
    }

    #[test]
    fn what_nobody_reads_makes_room_the_oldest_first() {
        run(async {
            let (world, planned) = world(Disk::default(), &["aaaa", "bbbb", "cccc", "dddd"]).await;
            let cache = Cache::new(8);
            let get = async |n: usize| world.get(&cache, &planned[n]).await.unwrap();
            let held = get(0).await;
            drop(get(1).await);
            drop(get(2).await);
            assert_eq!(world.files(), 2, "b went");
            drop(get(0).await);
            drop(get(2).await);
            assert_eq!(world.reads(), 3, "a and c are here");
            drop(held);
            drop(get(2).await);
            drop(get(3).await);
            assert_eq!(world.files(), 2, "a went");
            drop(get(2).await);
            assert_eq!(world.reads(), 4);
        });
    }

    #[test]
    fn what_changed_is_not_taken_for_what_was_planned() {
        run(async {
            let (world, planned) = world(Disk::default(), &["aaaa"]).await;
            let cache = Cache::new(8);
            let other = wire::PlannedObject { version: "other".into(), ..planned[0].clone() };
            let longer = wire::PlannedObject { size: 5, ..planned[0].clone() };
            for object in [other, longer] {
                assert_eq!(world.get(&cache, &object).await.map(drop).unwrap_err().kind, Kind::Changed);
            }
            world.store().delete(&Name::new("aaaa").unwrap(), None).await.unwrap();
            let e = world.get(&cache, &planned[0]).await.map(drop).unwrap_err();
            assert!(e.kind == Kind::Changed && e.text.contains("is gone"), "{e}");
            assert_eq!(world.files(), 0, "nothing is left");
        });
    }

    #[test]
    fn a_full_disk_is_emptied_of_what_nobody_reads() {
        run(async {
            let written = AtomicUsize::new(0);
            // The second file does not fit the first time.
            let disk = Disk::failing(move |op, _| match op {
                Op::Write(_) if written.fetch_add(1, Relaxed) == 1 => Some(std::io::ErrorKind::StorageFull.into()),
                _ => None,
            });
            let (world, planned) = world(disk, &["aaaa", "bbbb"]).await;
            let cache = Cache::new(100);
            for object in &planned {
                drop(world.get(&cache, object).await.unwrap());
            }
            assert_eq!(world.files(), 1, "a went");
        });
    }

    /// Both at once.
    async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
        let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
        let (mut got_a, mut got_b) = (None, None);
        std::future::poll_fn(|context| {
            use std::task::Poll;
            if got_a.is_none()
                && let Poll::Ready(value) = a.as_mut().poll(context)
            {
                got_a = Some(value);
            }
            if got_b.is_none()
                && let Poll::Ready(value) = b.as_mut().poll(context)
            {
                got_b = Some(value);
            }
            match (got_a.take(), got_b.take()) {
                (Some(a), Some(b)) => Poll::Ready((a, b)),
                (a, b) => {
                    (got_a, got_b) = (a, b);
                    Poll::Pending
                }
            }
        })
        .await
    }
}
