//! Publishers that stop at any step, that go on at the same time, and that wake up too late.

#![expect(clippy::disallowed_methods, reason = "tests make folders")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::data::commit::PartEntry;
use crate::data::output::PartSummary;
use crate::scratch::Mapping;
use crate::store::conformance::now;
use crate::store::{Folder, Memory, Page};

const PARTS: u32 = 3;
const OUT: &str = "results/out";

/// A store that lets one call pass a turn, and fails from one call on: before it is carried out, or after.
#[derive(Clone)]
struct Gate<S> {
    inner: S,
    calls: Arc<AtomicUsize>,
    stop: usize,
    after: bool,
}

impl<S: Store> Gate<S> {
    fn open(inner: S) -> Self {
        Self::stopping(inner, usize::MAX, false)
    }

    fn stopping(inner: S, stop: usize, after: bool) -> Self {
        Self { inner, calls: Arc::default(), stop, after }
    }

    async fn pass<T>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let mut waited = false;
        std::future::poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending })
            .await;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let stopped = || Err(Error::new(Kind::Retryable, "stopped here"));
        if number > self.stop || (number == self.stop && !self.after) {
            return stopped();
        }
        let result = call.await;
        if number == self.stop { stopped() } else { result }
    }
}

impl<S: Store> Store for Gate<S> {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        self.pass(self.inner.head(name)).await
    }
    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        self.pass(self.inner.get(name, range)).await
    }
    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        self.pass(self.inner.put(name, bytes)).await
    }
    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        self.pass(self.inner.replace(name, version, bytes)).await
    }
    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        self.pass(self.inner.copy(from, to)).await
    }
    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        self.pass(self.inner.list(prefix, after)).await
    }
    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        self.pass(self.inner.delete(name, version)).await
    }
    fn publish(&self) -> Publish {
        self.inner.publish()
    }
    async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
        self.pass(self.inner.rename(from, to, exchange)).await
    }
}

/// Something that runs a call at a time.
struct Actor<'a>(Option<Running<'a>>, Option<Result<(), Error>>);

type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

impl<'a> Actor<'a> {
    fn new(future: impl Future<Output = Result<(), Error>> + 'a) -> Self {
        let mut actor = Self(Some(Box::pin(future)), None);
        // To before its first call.
        actor.step();
        actor
    }

    /// Runs one call; false when it has ended.
    fn step(&mut self) -> bool {
        let Some(future) = &mut self.0 else { return false };
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            (self.0, self.1) = (None, Some(result));
        }
        true
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn put(store: &impl Store, to: &Name, bytes: &[u8]) {
    now(store.put(to, Arc::new(bytes.to_vec()))).unwrap();
}

fn part_bytes(job: &str, part: u32) -> Vec<u8> {
    // Part 1 is the same in all jobs.
    if part == 1 { b"same".to_vec() } else { format!("{job}, part {part}").into_bytes() }
}

/// A job that has been decided, with one attempt more than was needed.
fn decided(store: &impl Store, job: &str, overwrite: bool) -> Decision {
    let (mut parts, mut entries) = (Vec::new(), Vec::new());
    for part in 0..PARTS {
        let bytes = part_bytes(job, part);
        put(store, &attempt_key("c", job, part, "1-7").unwrap(), b"of an attempt that came too late");
        let key = attempt_key("c", job, part, "1-8").unwrap();
        put(store, &key, &bytes);
        parts.push(Source { key, len: bytes.len() as u64, digest: Digest::of(&bytes) });
        let summary = PartSummary { records: 1, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
        entries.push(PartEntry { name: format!("part-{part:05}"), summary });
    }
    let manifest = Manifest { job: Some(job.into()), ..Manifest::new("test", entries, BTreeMap::new(), 0) };
    let files = vec![("_documents".to_string(), job.as_bytes().to_vec())];
    let (cluster, output) = ("c".into(), name(OUT));
    Decision { cluster, job: job.into(), output, overwrite, parts, files, manifest }
}

/// The job whose output a reader sees; panics if what he sees is not all of it.
fn seen(store: &impl Store) -> Option<String> {
    let there = now(list_all(store, &name(OUT).below())).unwrap();
    let mut names: BTreeSet<String> = there.iter().map(|(n, _)| n.as_str()[OUT.len() + 1..].to_string()).collect();
    if !names.remove(SUCCESS) {
        assert!(store.publish() == Publish::Copy || names.is_empty(), "a folder in place without {SUCCESS}: {names:?}");
        return None;
    }
    let read = |file: &str| now(content(store, &name(OUT).join(file).unwrap())).unwrap();
    let manifest = Manifest::from_bytes(&read(SUCCESS)).unwrap();
    let job = manifest.job.unwrap();
    for (part, entry) in manifest.parts.iter().enumerate() {
        assert_eq!(read(&entry.name), part_bytes(&job, part as u32));
        names.remove(&entry.name);
    }
    assert_eq!(manifest.parts.len(), PARTS as usize);
    let documents = read("_documents");
    if store.publish() == Publish::Rename {
        assert_eq!(documents, job.as_bytes());
        names.remove("_documents");
        assert!(names.is_empty(), "{names:?}");
    }
    Some(job)
}

/// Whether the output is a job's, and nothing else of anyone is left.
fn settled(store: &impl Store, job: &str) {
    assert_eq!(seen(store).as_deref(), Some(job));
    let there = now(list_all(store, "")).unwrap();
    assert_eq!(there.len(), PARTS as usize + 2, "{there:?}");
    assert_eq!(now(content(store, &name(OUT).join("_documents").unwrap())).unwrap(), job.as_bytes());
}

/// A store as a test finds it: with the output of an earlier job, or without.
fn begun<S: Store>(store: S, overwrite: bool) -> (S, Decision) {
    if overwrite {
        let old = decided(&store, "c-0", false);
        now(publish(&store, &old, "x")).unwrap();
        now(clear(&store, "c", "c-0")).unwrap();
        settled(&store, "c-0");
    }
    let decision = decided(&store, "c-1", overwrite);
    (store, decision)
}

const WAYS: [(Publish, bool); 4] =
    [(Publish::Rename, false), (Publish::Rename, true), (Publish::Copy, false), (Publish::Copy, true)];

/// One publisher stops at a step, before or after it was carried out; another goes on; so does who clears up.
fn stops_anywhere<S: Store + Clone>(new: impl Fn() -> S, overwrite: bool) {
    let before = overwrite.then(|| "c-0".to_string());
    for after in [false, true] {
        let mut stops = 0;
        loop {
            let (store, decision) = begun(new(), overwrite);
            let ended = now(publish(&Gate::stopping(store.clone(), stops, after), &decision, "a")).is_ok();
            assert!(seen(&store) == before || seen(&store).as_deref() == Some("c-1"));
            now(publish(&store, &decision, "b")).unwrap();
            now(publish(&store, &decision, "c")).unwrap();
            assert_eq!(seen(&store).as_deref(), Some("c-1"));
            let cleared = now(clear(&Gate::stopping(store.clone(), stops, after), "c", "c-1")).is_ok();
            assert_eq!(seen(&store).as_deref(), Some("c-1"));
            now(clear(&store, "c", "c-1")).unwrap();
            settled(&store, "c-1");
            if ended && cleared {
                break;
            }
            stops += 1;
        }
        assert!(stops > 2 * PARTS as usize, "{stops}");
    }
}

#[test]
fn a_publisher_that_stops_anywhere_is_followed_by_another() {
    for (way, overwrite) in WAYS {
        stops_anywhere(|| Memory::new(way).paged(2), overwrite);
    }
}

#[test]
fn so_it_is_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let new = || {
        let root = dir.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&root).unwrap();
        Folder::new(root, false)
    };
    [false, true].into_iter().for_each(|overwrite| stops_anywhere(new, overwrite));
}

#[test]
fn two_publishers_at_once_whoever_is_quicker() {
    for (way, overwrite) in WAYS {
        for first in 0.. {
            let mut ended = true;
            for second in 0..first + 2 {
                let (store, decision) = begun(Memory::new(way), overwrite);
                let gate = Gate::open(store.clone());
                let (mut a, mut b) =
                    (Actor::new(publish(&gate, &decision, "a")), Actor::new(publish(&gate, &decision, "b")));
                let mut visible = seen(&store);
                let mut look = || {
                    let now = seen(&store);
                    // Once it is there it stays.
                    assert!(now == visible || now.as_deref() == Some("c-1"), "{visible:?} to {now:?}");
                    visible = now;
                };
                for _ in 0..first {
                    a.step();
                    look();
                }
                ended &= a.0.is_none();
                (0..second).for_each(|_| {
                    b.step();
                    look();
                });
                while a.step() || b.step() {
                    look();
                }
                for result in [a.1, b.1] {
                    assert_eq!(result, Some(Ok(())));
                }
                now(clear(&store, "c", "c-1")).unwrap();
                settled(&store, "c-1");
            }
            if ended {
                break;
            }
        }
    }
}

/// A publisher falls asleep at every step and wakes up when the job has ended: while it is cleared up after, when another
/// job has replaced the output, and when someone has removed it.
#[test]
fn a_publisher_that_wakes_up_too_late_changes_nothing() {
    for (way, overwrite) in WAYS {
        'asleep: for asleep in 0.. {
            for clearing in 0..30 {
                for removed in [false, true] {
                    let (store, decision) = begun(Memory::new(way), overwrite);
                    let gate = Gate::open(store.clone());
                    let mut late = Actor::new(publish(&gate, &decision, "late"));
                    for _ in 0..asleep {
                        if !late.step() {
                            break 'asleep;
                        }
                    }
                    now(publish(&store, &decision, "b")).unwrap();
                    let mut clears = Actor::new(clear(&gate, "c", "c-1"));
                    for _ in 0..clearing {
                        clears.step();
                    }
                    let ended = clears.0.is_none();
                    if ended && removed {
                        for (name, _) in now(list_all(&store, OUT)).unwrap() {
                            now(store.delete(&name, None)).unwrap();
                        }
                    } else if ended {
                        let next = decided(&store, "c-2", true);
                        now(publish(&store, &next, "n")).unwrap();
                        now(clear(&store, "c", "c-2")).unwrap();
                    }
                    let want = seen(&store);
                    while late.step() {
                        assert_eq!(seen(&store), want, "asleep at {asleep}");
                    }
                    while clears.step() {
                        assert_eq!(seen(&store), want);
                    }
                    now(clear(&store, "c", "c-1")).unwrap();
                    assert!(now(list_all(&store, HOME)).unwrap().is_empty());
                    assert_eq!(seen(&store), want);
                }
            }
        }
    }
}

#[test]
fn what_is_no_output_of_ours_is_left_alone() {
    for way in [Publish::Rename, Publish::Copy] {
        let store = Memory::new(way);
        let first = decided(&store, "c-0", false);
        now(publish(&store, &first, "a")).unwrap();
        let second = decided(&store, "c-1", false);
        let error = now(publish(&store, &second, "a")).unwrap_err();
        assert_eq!(error.kind, Kind::AlreadyExists);
        assert!(error.text.contains("--overwrite"), "{error}");
        assert_eq!(seen(&store).as_deref(), Some("c-0"));

        let store = Memory::new(way);
        let precious = name(OUT).join("part-00002").unwrap();
        put(&store, &precious, b"precious");
        let kinds = [(false, Kind::AlreadyExists), (true, Kind::Denied)];
        for (job, (overwrite, kind)) in ["c-1", "c-2"].into_iter().zip(kinds) {
            let decision = decided(&store, job, overwrite);
            assert_eq!(now(publish(&store, &decision, "a")).unwrap_err().kind, kind);
            assert_eq!(now(content(&store, &precious)).unwrap(), b"precious");
        }
    }
}

#[test]
fn a_decision_that_is_not_whole_publishes_nothing() {
    let store = Memory::new(Publish::Copy);
    let mut decision = decided(&store, "c-1", false);
    decision.parts.pop();
    assert_eq!(now(publish(&store, &decision, "a")).unwrap_err().kind, Kind::Corrupt);
    assert_eq!(seen(&store), None);
    assert_eq!(renamed("part-00001.gz", "c-9"), "part-00001-c-9.gz");
}
