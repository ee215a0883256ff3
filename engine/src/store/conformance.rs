//! What every store must do. Give [`check`] an empty store; it panics at the first thing that is otherwise.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Error, Kind, Name, Publish, Store, list_all, read};

/// Runs a future that never waits for anything but itself, as those of the stores here.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap_or_else(|e| panic!("{e}"))
}

fn good<T>(what: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|e| panic!("{what}: {e}"))
}

#[track_caller]
fn bad<T>(kind: Kind, result: Result<T, Error>) {
    match result {
        Err(e) => assert_eq!(e.kind, kind, "{e}"),
        Ok(_) => panic!("succeeds where it must fail as {kind:?}"),
    }
}

async fn put<S: Store>(store: &S, to: &str, bytes: &[u8]) -> Result<(), Error> {
    store.put(&name(to), Arc::new(bytes.to_vec())).await
}

async fn content<S: Store>(store: &S, of: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let each = |bytes: &[u8]| {
        all.extend_from_slice(bytes);
        Ok(())
    };
    good(of, read(store, &name(of), each).await);
    all
}

/// All of the below.
pub async fn check<S: Store>(store: &S) {
    objects(store).await;
    listings(store).await;
    replacing(store).await;
    if store.publish() == Publish::Rename {
        renames(store).await;
    }
    assert!(good("list", list_all(store, "").await).is_empty(), "nothing is left");
}

async fn objects<S: Store>(store: &S) {
    good("put", put(store, "a/b", b"0123456789").await);
    bad(Kind::AlreadyExists, put(store, "a/b", b"other").await);
    good("put", put(store, "empty", b"").await);
    bad(Kind::AlreadyExists, put(store, "empty", b"other").await);
    assert_eq!(content(store, "a/b").await, b"0123456789");
    assert_eq!(content(store, "empty").await, b"");
    for (range, want) in [(0..3, "012"), (8..20, "89"), (4..4, ""), (20..30, "")] {
        assert_eq!(good("get", store.get(&name("a/b"), range).await), want.as_bytes());
    }
    let meta = good("head", store.head(&name("a/b")).await);
    assert_eq!((meta.len, &meta), (10, &good("head", store.head(&name("a/b")).await)));
    for missing in ["a", "a/b/c", "c"] {
        bad(Kind::NotFound, store.head(&name(missing)).await.map_err(|e| Error { kind: not_found(e.kind), ..e }));
    }
    bad(Kind::NotFound, store.get(&name("c"), 0..1).await);
    good("copy", store.copy(&name("a/b"), &name("d/e/f")).await);
    bad(Kind::AlreadyExists, store.copy(&name("empty"), &name("d/e/f")).await);
    bad(Kind::NotFound, store.copy(&name("c"), &name("g")).await);
    bad(Kind::NotFound, store.copy(&name("c"), &name("d/e/f")).await);
    good("delete", store.delete(&name("a/b"), None).await);
    good("delete what is gone", store.delete(&name("a/b"), None).await);
    assert_eq!(content(store, "d/e/f").await, b"0123456789");
    bad(Kind::NotFound, store.head(&name("a/b")).await);
    if let Some(path) = store.local_path(&name("d/e/f")) {
        assert!(path.ends_with("d/e/f"));
    }
    good("put again", put(store, "a/b", b"new").await);
    assert_eq!(content(store, "a/b").await, b"new");
    for object in ["a/b", "d/e/f", "empty"] {
        good("delete", store.delete(&name(object), None).await);
    }
}

/// A name below an object may be refused as well.
fn not_found(kind: Kind) -> Kind {
    if kind == Kind::Denied { Kind::NotFound } else { kind }
}

async fn listings<S: Store>(store: &S) {
    let mut names = ["a-b", "a/b", "a/b-", "a/c/d", "a/c/e", "a0", "b/é", ".h/x", "_x"].map(String::from).to_vec();
    for object in &names {
        good("put", put(store, object, b"x").await);
    }
    names.sort();
    for prefix in ["", "a", "a/", "a/c/", "a/b", "b/", "zzz", "a/c/d", "a/c/d/", "."] {
        let want: Vec<&String> = names.iter().filter(|n| n.starts_with(prefix)).collect();
        let got = good("list", list_all(store, prefix).await);
        assert!(got.iter().map(|(n, _)| n.as_str()).eq(want.iter().map(|n| n.as_str())), "'{prefix}': {got:?}");
        assert!(got.iter().all(|(_, meta)| meta.len == 1));
        if let Some((first, meta)) = got.first() {
            assert_eq!(good("head", store.head(first).await), *meta, "{first} is listed as it is");
        }
        for (i, after) in want.iter().enumerate() {
            let page = good("list", store.list(prefix, Some(&name(after))).await);
            let next = page.objects.first().map(|(n, _)| n.as_str());
            assert_eq!(next, want.get(i + 1).map(|n| n.as_str()), "'{prefix}' after {after}");
        }
    }
    for object in &names {
        good("delete", store.delete(&name(object), None).await);
    }
}

async fn renames<S: Store>(store: &S) {
    bad(Kind::NotFound, store.rename(&name("no"), &name("out"), false).await);
    good("put", put(store, "w/1/x", b"1").await);
    good("put", put(store, "w/1/y/z", b"2").await);
    good("rename", store.rename(&name("w/1"), &name("far/out"), false).await);
    assert_eq!(content(store, "far/out/y/z").await, b"2");
    bad(Kind::NotFound, store.rename(&name("w/1"), &name("far/out"), true).await);
    good("put", put(store, "w/2/x", b"3").await);
    bad(Kind::AlreadyExists, store.rename(&name("w/2"), &name("far/out"), false).await);
    assert_eq!(content(store, "far/out/x").await, b"1");
    good("exchange", store.rename(&name("w/2"), &name("far/out"), true).await);
    let found = good("list", list_all(store, "").await);
    assert!(found.iter().map(|(n, _)| n.as_str()).eq(["far/out/x", "w/2/x", "w/2/y/z"]), "{found:?}");
    assert_eq!(content(store, "far/out/x").await, b"3");
    good("exchange with nothing", store.rename(&name("far/out"), &name("other"), true).await);
    for object in ["other/x", "w/2/x", "w/2/y/z"] {
        good("delete", store.delete(&name(object), None).await);
    }
    bad(
        Kind::Denied,
        store.rename(&name("other"), &name("x"), false).await.map_err(|e| Error { kind: Kind::Denied, ..e }),
    );
}

async fn replacing<S: Store>(store: &S) {
    good("put", put(store, "r", b"old").await);
    let old = good("head", store.head(&name("r")).await).version;
    good("replace", store.replace(&name("r"), &old, Arc::new(b"new".to_vec())).await);
    assert_eq!(content(store, "r").await, b"new");
    bad(Kind::Changed, store.replace(&name("r"), &old, Arc::new(b"late".to_vec())).await);
    bad(Kind::Changed, store.replace(&name("none"), &old, Arc::new(b"late".to_vec())).await);
    let new = good("head", store.head(&name("r")).await).version;
    assert_ne!(old, new);
    good("delete the version", store.delete(&name("r"), Some(&new)).await);
    bad(Kind::NotFound, store.head(&name("r")).await);
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests look at files")]
mod tests {
    use super::super::{Folder, Memory};
    use super::*;

    #[test]
    fn memory_conforms_both_ways() {
        for publish in [Publish::Rename, Publish::Copy] {
            for page in [1, 2, 1000] {
                now(check(&Memory::new(publish).paged(page)));
            }
        }
    }

    #[test]
    fn a_folder_conforms() {
        for sync in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            now(check(&Folder::new(dir.path(), sync)));
            // Nothing but the folder of hidden files, which is empty, and perhaps one that an output went from.
            let files = walk(dir.path());
            assert!(files.is_empty(), "{files:?}");
        }
    }

    fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn a_deletion_of_another_version_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        now(late_deletion(&Folder::new(dir.path(), false)));
        now(late_deletion(&Memory::new(Publish::Copy)));
    }

    async fn late_deletion<S: Store>(store: &S) {
        put(store, "x", b"old").await.unwrap();
        let old = store.head(&name("x")).await.unwrap().version;
        store.delete(&name("x"), None).await.unwrap();
        put(store, "x", b"newer").await.unwrap();
        store.delete(&name("x"), Some(&old)).await.unwrap();
        assert_eq!(content(store, "x").await, b"newer");
    }

    #[test]
    fn a_folder_keeps_its_hidden_name_and_stays_within() {
        let dir = tempfile::tempdir().unwrap();
        let store = Folder::new(dir.path(), false);
        bad(Kind::Denied, now(put(&store, ".gristmill-tmp/x", b"")));
        assert!(store.local_path(&name(".gristmill-tmp/x")).is_none());
        now(put(&store, "a", b"")).unwrap();
        bad(Kind::Denied, now(put(&store, "a/b", b"")));
        assert!(now(store.list("../", None)).is_err());
    }
}
