//! Objects in memory, the counter of resource versions, and the changes that watches read.
//!
//! One counter numbers all changes of all resources, as etcd's revision does (API concepts, "Resource versions"). Changes
//! are kept up to [`KEPT`], older ones are compacted away; lists at an older version undo changes from the newest back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

/// So many changes are kept for watches that begin in the past.
const KEPT: usize = 50_000;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// `pods`, or `jobs.batch`.
    pub(crate) storage: String,
    /// Empty for what is of the whole cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(storage: &str, namespace: &str, name: &str) -> Key {
        Key { storage: storage.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// A write.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// The object before; none: it was created.
    pub(crate) was: Option<Arc<Value>>,
    /// The object after; of a deletion, its last state under the version of the deletion.
    pub(crate) object: Arc<Value>,
    pub(crate) deleted: bool,
}

/// All objects, and the latest changes.
#[derive(Debug)]
pub(crate) struct Store {
    version: u64,
    /// The oldest version at which a watch may begin.
    oldest: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    changes: VecDeque<Change>,
    told: tokio::sync::watch::Sender<u64>,
}

impl Store {
    pub(crate) fn new() -> Store {
        // Versions are opaque; a start beyond small numbers finds tests that count on them.
        let version = 1000;
        let (told, _) = tokio::sync::watch::channel(version);
        Store { version, oldest: version, objects: BTreeMap::new(), changes: VecDeque::new(), told }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Hears of every new version.
    pub(crate) fn listen(&self) -> tokio::sync::watch::Receiver<u64> {
        self.told.subscribe()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// Objects of a resource by namespace and name, which is the order of lists; an empty namespace means all.
    pub(crate) fn list<'a>(&'a self, storage: &'a str, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Value>> {
        let all = self.objects.range(Key::new(storage, namespace, "")..);
        let same = move |key: &Key| key.storage == storage && (namespace.is_empty() || key.namespace == namespace);
        all.take_while(move |(key, _)| same(key)).map(|(_, object)| object)
    }

    /// All objects, of whatever resource.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// What `list` answered when `version` was the latest. The caller knows that it is not compacted.
    pub(crate) fn list_at(&self, storage: &str, namespace: &str, version: u64) -> Vec<Arc<Value>> {
        let same = |key: &Key| key.storage == storage && (namespace.is_empty() || key.namespace == namespace);
        let mut past: BTreeMap<Key, Arc<Value>> = BTreeMap::new();
        for (key, object) in self.objects.range(Key::new(storage, namespace, "")..).take_while(|(key, _)| same(key)) {
            past.insert(key.clone(), object.clone());
        }
        let later = self.changes.iter().rev().take_while(|change| change.version > version);
        for change in later.filter(|change| same(&change.key)) {
            match &change.was {
                Some(was) => past.insert(change.key.clone(), was.clone()),
                None => past.remove(&change.key),
            };
        }
        past.into_values().collect()
    }

    /// Changes after `version`, oldest first.
    pub(crate) fn since(&self, version: u64) -> impl Iterator<Item = &Change> {
        let from = self.changes.partition_point(|change| change.version <= version);
        self.changes.range(from..)
    }

    /// Writes an object under the next version.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        let was = self.objects.insert(key.clone(), object.clone());
        self.log(Change { version: self.version, key, was, object: object.clone(), deleted: false });
        object
    }

    /// Takes an object away; its deletion is a version of its own.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let was = self.objects.remove(key)?;
        self.version += 1;
        let mut last = (*was).clone();
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Arc::new(last);
        let change =
            Change { version: self.version, key: key.clone(), was: Some(was), object: last.clone(), deleted: true };
        self.log(change);
        Some(last)
    }

    /// Forgets what was: all versions handed out until now are too old from now on.
    pub(crate) fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        // Running watches have their place in the changes and are not disturbed, so these stay.
        self.told.send_replace(self.version);
    }

    fn log(&mut self, change: Change) {
        self.changes.push_back(change);
        if self.changes.len() > KEPT
            && let Some(gone) = self.changes.pop_front()
        {
            self.oldest = self.oldest.max(gone.version);
        }
        self.told.send_replace(self.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(objects: &[Arc<Value>]) -> Vec<&str> {
        objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_past_is_undone_from_the_newest_back() {
        let mut store = Store::new();
        let put = |store: &mut Store, name: &str, value: u32| {
            store.put(Key::new("pods", "a", name), json!({"metadata": {"name": name}, "value": value}));
        };
        put(&mut store, "one", 1);
        put(&mut store, "two", 1);
        let then = store.version();
        put(&mut store, "one", 2);
        store.remove(&Key::new("pods", "a", "two"));
        put(&mut store, "three", 1);
        let past = store.list_at("pods", "a", then);
        assert_eq!(names(&past), ["one", "two"]);
        assert_eq!(past[0]["value"], 1);
        assert_eq!(store.list("pods", "a").count(), 2);
        assert_eq!(store.list("pods", "").count(), 2);
        assert_eq!(store.since(then).count(), 3);
    }
}
