//! Stores in buckets, against what speaks their protocols: that they are stores as the engine means it, also where requests
//! fail, and that jobs over them leave the bytes of a local run.

mod emulators;
mod google;
mod proxy;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill::cluster::store::{Limits, Objects};
use gristmill::engine::scratch::Mapping;
use gristmill::engine::store::{Error, Kind, Meta, Name, Page, Publish, Store, Version, conformance, list_all, read};

use crate::http::Request;
use crate::process::Process;
use crate::program::Folder;
use emulators::Emulator;
use proxy::Fault;

/// The smallest part that stores take.
const PART: u64 = 5 << 20;

/// Patient enough for a loaded machine, with small parts, quick to try again.
fn limits() -> Limits {
    Limits {
        part: PART,
        copy_part: PART,
        whole_copy: 1 << 20,
        tries: 6,
        pauses: (Duration::from_millis(5), Duration::from_millis(50)),
        silence: Duration::from_secs(10),
        ..Limits::default()
    }
}

fn open(emulator: &Emulator, prefix: &str, through: SocketAddr, limits: Limits) -> Objects {
    let location = emulator.url(prefix).parse().unwrap();
    Objects::open(&location, emulator.variables(through), limits).unwrap()
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn noise(len: u64) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

async fn content(store: &Objects, of: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let each = |bytes: &[u8]| {
        all.extend_from_slice(bytes);
        Ok(())
    };
    read(store, &name(of), each).await.unwrap();
    all
}

fn kind<T>(result: Result<T, Error>) -> Option<Kind> {
    result.err().map(|e| e.kind)
}

/// A store whose callers try again, as the engine does.
struct Patient(Objects);

/// Calls until it is not to be tried again.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(mut call: impl FnMut() -> F) -> Result<T, Error> {
    for _ in 0..5 {
        match call().await {
            Err(e) if e.kind == Kind::Retryable => {}
            done => return done,
        }
    }
    call().await
}

impl Store for Patient {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        patiently(|| self.0.head(name)).await
    }
    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        patiently(|| self.0.get(name, range.clone())).await
    }
    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        patiently(|| self.0.put(name, bytes.clone())).await
    }
    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        patiently(|| self.0.replace(name, version, bytes.clone())).await
    }
    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        patiently(|| self.0.copy(from, to)).await
    }
    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        patiently(|| self.0.list(prefix, after)).await
    }
    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        patiently(|| self.0.delete(name, version)).await
    }
    fn publish(&self) -> Publish {
        self.0.publish()
    }
    async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
        self.0.rename(from, to, exchange).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_conform() {
    for emulator in Emulator::all() {
        for url in [emulator.url("deep/er"), emulator.url("").replace("bucket", "alone")] {
            let variables = emulator.variables(emulator.address);
            let store = Objects::open(&url.parse().unwrap(), variables, limits()).unwrap();
            store.look().await.unwrap();
            conformance::check(&store).await;
        }
        let nowhere = emulator.url("").replace("bucket", "nobucket").parse().unwrap();
        let nowhere = Objects::open(&nowhere, emulator.variables(emulator.address), limits()).unwrap();
        let e = nowhere.look().await.unwrap_err();
        assert!(e.text.contains("no such bucket; make it first"), "{}: {e}", emulator.kind);
    }
}

/// Keys that other programs put, and names that need care on the way.
#[tokio::test(flavor = "multi_thread")]
async fn names_arrive_as_they_are() {
    for emulator in Emulator::all() {
        let store = open(emulator, "p", emulator.address, limits());
        for odd in ["a b+c", "50%", "x=y&z", "é/ü", "q?#[1]~", "'quote\"d'", "*"] {
            store.put(&name(odd), Arc::new(odd.as_bytes().to_vec())).await.unwrap();
            let listed = list_all(&store, odd).await.unwrap();
            assert_eq!(listed.len(), 1, "{}: {odd}", emulator.kind);
            assert_eq!((listed[0].0.as_str(), content(&store, odd).await), (odd, odd.into()), "{}", emulator.kind);
            store.copy(&name(odd), &name("copy")).await.unwrap();
            store.delete(&name("copy"), None).await.unwrap();
            store.delete(&name(odd), None).await.unwrap();
        }
        // Another prefix begins alike.
        let other = open(emulator, "p2", emulator.address, limits());
        other.put(&name("x"), Arc::new(b"x".to_vec())).await.unwrap();
        assert!(list_all(&store, "").await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_several_parts() {
    let bytes = noise(2 * PART + 12_345);
    for emulator in Emulator::all() {
        let (through, _) = proxy::start(emulator.address, |_, _| None);
        let store = open(emulator, "parts", through, limits());
        let put = |to: &'static str, bytes: Vec<u8>| {
            let store = store.clone();
            async move { store.put(&name(to), Arc::new(bytes)).await }
        };
        // Two at once: one of them, and whole.
        let mut other = bytes.clone();
        other[0] ^= 1;
        let (one, two) = tokio::join!(put("big", bytes.clone()), put("big", other.clone()));
        let mut ends = [kind(one.clone()), kind(two)];
        ends.sort_by_key(Option::is_some);
        assert_eq!(ends, [None, Some(Kind::AlreadyExists)], "{}", emulator.kind);
        let want = if one.is_ok() { &bytes } else { &other };
        assert!(content(&store, "big").await == *want, "{}: other bytes", emulator.kind);
        assert_eq!(kind(put("big", bytes.clone()).await), Some(Kind::AlreadyExists), "{}", emulator.kind);
        store.copy(&name("big"), &name("copied")).await.unwrap();
        assert!(content(&store, "copied").await == *want, "{}: other bytes", emulator.kind);
        assert_eq!(kind(store.copy(&name("big"), &name("copied")).await), Some(Kind::AlreadyExists));
        assert_eq!(store.get(&name("big"), PART - 2..PART + 2).await.unwrap(), want[PART as usize - 2..][..4]);
        for object in ["big", "copied"] {
            store.delete(&name(object), None).await.unwrap();
        }
        assert!(list_all(&store, "").await.unwrap().is_empty());
    }
}

/// Every request fails once or twice, in ways that the store does not hear of, or that are about reading.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again() {
    for emulator in Emulator::all() {
        let faults = [Fault::Status(500), Fault::Status(503), Fault::Status(429), Fault::Lost];
        let counter = Mutex::new(0);
        let (through, seen) = proxy::start(emulator.address, move |request, before| {
            let mut counter = counter.lock().unwrap();
            *counter += 1;
            match before {
                0 => Some(faults[*counter % faults.len()]),
                1 if request.method == "GET" => Some(Fault::Cut),
                _ => None,
            }
        });
        let store = Patient(open(emulator, "faults", through, limits()));
        conformance::check(&store).await;
        let bytes = noise(PART + 1);
        store.put(&name("big"), Arc::new(bytes.clone())).await.unwrap();
        store.copy(&name("big"), &name("copied")).await.unwrap();
        assert!(content(&store.0, "copied").await == bytes, "{}: other bytes", emulator.kind);
        let faults = seen.lock().unwrap().iter().filter(|(_, fault)| fault.is_some()).count();
        assert!(faults > 50, "{}: {faults} faults", emulator.kind);
    }
}

/// An answer that stops is given up and asked for again; a store that always fails is not asked for ever.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end() {
    for emulator in Emulator::all() {
        let direct = open(emulator, "slow", emulator.address, limits());
        direct.put(&name("x"), Arc::new(noise(100_000))).await.unwrap();
        let get = |request: &Request| request.method == "GET";
        let impatient = Limits { silence: Duration::from_secs(1), ..limits() };
        let (stalls, seen) = proxy::start(emulator.address, move |request, before| {
            (get(request) && before == 0).then_some(Fault::Stalls)
        });
        let store = open(emulator, "slow", stalls, impatient);
        assert!(content(&store, "x").await == noise(100_000), "{}", emulator.kind);
        assert!(seen.lock().unwrap().iter().any(|(_, fault)| *fault == Some(Fault::Stalls)));
        let (down, seen) = proxy::start(emulator.address, |_, _| Some(Fault::Status(503)));
        let store = open(emulator, "slow", down, limits());
        assert_eq!(kind(store.head(&name("x")).await), Some(Kind::Retryable), "{}", emulator.kind);
        assert_eq!(seen.lock().unwrap().len(), limits().tries, "{}", emulator.kind);
    }
}

/// The store did what it was asked for, and nobody heard of it: it is there once, whole, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_unheard_is_there_once() {
    for emulator in Emulator::all() {
        // The first of each kind.
        let kinds = Mutex::new(BTreeSet::new());
        let (through, _) = proxy::start(emulator.address, move |request, _| {
            let parameters = ["uploads", "uploadId", "partNumber", "comp"].map(|name| request.query(name).is_some());
            let writes = matches!(request.method.as_str(), "PUT" | "POST");
            let kind = (request.method.clone(), request.path().ends_with("small"), parameters);
            (writes && kinds.lock().unwrap().insert(kind)).then_some(Fault::Unheard)
        });
        let store = open(emulator, "unheard", through, limits());
        let direct = open(emulator, "unheard", emulator.address, limits());
        for (object, bytes) in [("small", noise(1000)), ("big", noise(PART + 1))] {
            let done = Patient(store.clone()).put(&name(object), Arc::new(bytes.clone())).await;
            assert!(
                matches!(kind(done.clone()), None | Some(Kind::AlreadyExists)),
                "{} {object}: {done:?}",
                emulator.kind
            );
            assert!(content(&direct, object).await == bytes, "{}: other bytes", emulator.kind);
        }
        assert_eq!(list_all(&direct, "").await.unwrap().len(), 2);
    }
}

/// An upload whose parts do not arrive leaves nothing, and is given up at the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_upload_leaves_nothing() {
    for emulator in Emulator::all() {
        let (through, seen) = proxy::start(emulator.address, |request, _| {
            let second = request.method == "PUT"
                && (request.target.contains("partNumber=2") || request.target.contains("comp=block&"));
            second.then_some(Fault::Status(500))
        });
        let store = open(emulator, "aborted", through, limits());
        let done = store.put(&name("big"), Arc::new(noise(2 * PART + 1))).await;
        assert_eq!(kind(done), Some(Kind::Retryable), "{}", emulator.kind);
        let direct = open(emulator, "", emulator.address, limits());
        let left: Vec<_> = list_all(&direct, "aborted/").await.unwrap();
        assert!(left.is_empty(), "{}: {left:?}", emulator.kind);
        // Azure has no uploads: parts that belong to nothing go by themselves.
        let gave_up = |(request, _): &(Request, _)| request.method == "DELETE" && request.target.contains("uploadId=");
        assert_eq!(seen.lock().unwrap().iter().any(gave_up), emulator.kind != "az", "{}", emulator.kind);
    }
}

/// A whole job over each kind of bucket, through a proxy that fails now and then, leaves the bytes of a local run.
#[test]
fn jobs_over_buckets_give_the_bytes_of_local_runs() {
    for emulator in Emulator::all() {
        let folder = Folder::new();
        for file in 0..3 {
            let line = |n: usize| format!("the mill {} grinds corn {}\n", n % 997, (n * 7 + file) % 53);
            folder.file(&format!("books/{file}.txt"), (0..40_000).map(line).collect::<String>());
        }
        let (through, _) = proxy::start(emulator.address, |request, before| {
            (before == 0 && request.body.len() % 7 == 3).then_some(Fault::Status(503))
        });
        let url = emulator.url("jobs");
        let mut serve = folder.gristmill(&format!("serve --data data --store {url} --listen 127.0.0.1:0 --no-login"));
        serve.envs(emulator.variables(through));
        let mut node = Process::of(serve, folder.path().join("log"));
        let at = node.ready();
        let ask = |arguments: &str| folder.out(&format!("{arguments} --at {at}"));
        ask("data put books in/books");
        assert_eq!(ask("data ls in -o name"), "in/books/0.txt\nin/books/1.txt\nin/books/2.txt\n");
        for (n, app) in ["wordcount", "sort --key 1-3"].into_iter().enumerate() {
            let rest = "--reducers 3 --map-task-size 1MiB";
            let job = ask(&format!("submit {app} in/books/ {rest} -o out/{n} --submission-key {n} --detach"));
            ask(&format!("job watch {}", job.trim()));
            let result = ask(&format!("job result {}", job.trim()));
            folder.out(&format!("run {app} books/ --reducers 3 -q -o ref/{n}"));
            assert!(result == folder.out(&format!("cat ref/{n}")), "{}: {app} differs", emulator.kind);
            // Each part by itself, and the output as a folder.
            ask(&format!("data get out/{n}/ got/{n}"));
            for part in 0..3 {
                let name = format!("{n}/part-{part:05}");
                assert!(folder.read(&format!("got/{name}")) == folder.read(&format!("ref/{name}")), "{name} differs");
            }
            let old = ask(&format!("data ls out/{n} -o name"));
            // Another output in its place, then none.
            ask(&format!("submit {app} in/books/0.txt {rest} -o out/{n} --overwrite"));
            let new = ask(&format!("data ls out/{n} -o name"));
            assert!(new.lines().count() == 4 && old != new, "{}: {new}", emulator.kind);
            let done = folder.run(&format!("job result {} --at {at}", job.trim()));
            assert!(done.code == Some(1) && done.err.contains("has been replaced"), "{done:?}");
            ask(&format!("data rm -r out/{n}"));
        }
        let done = folder.run(&format!("data ls out --at {at}"));
        assert!(done.code == Some(1) && done.err.contains("no file in the store is called out"), "{done:?}");
    }
}
