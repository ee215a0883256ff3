//! A store in memory, for tests and the simulator. It is told which way outputs are published, so that it can stand for a
//! shared folder and for an object store.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex};

use super::{Error, Kind, Meta, Name, PAGE, Page, Publish, Store, Version};
use crate::data::output::lock;
use crate::scratch::Mapping;

/// A store in memory. Clones share it.
#[derive(Clone)]
pub struct Memory {
    objects: Arc<Mutex<Objects>>,
    publish: Publish,
    page: usize,
}

/// Bytes, and the number of the write that put them.
type Object = (Arc<dyn Mapping>, u64);

#[derive(Default)]
struct Objects {
    all: BTreeMap<String, Object>,
    writes: u64,
}

impl Memory {
    /// An empty store that publishes this way.
    pub fn new(publish: Publish) -> Self {
        Self { objects: Arc::default(), publish, page: PAGE }
    }

    /// Lists this many objects a page.
    pub fn paged(self, page: usize) -> Self {
        Self { page: page.clamp(1, PAGE), ..self }
    }

    fn only(&self, publish: Publish, what: &str) -> Result<(), Error> {
        if self.publish == publish {
            return Ok(());
        }
        Err(Error::new(Kind::Denied, format!("this store cannot {what}")))
    }
}

impl Objects {
    fn find(&self, name: &str) -> Result<&Object, Error> {
        self.all.get(name).ok_or_else(|| Error::new(Kind::NotFound, format!("{name}: there is no such object")))
    }

    fn insert(&mut self, name: &str, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        // As in a folder, a name is an object or a folder of others.
        let above = name.match_indices('/').any(|(at, _)| self.all.contains_key(&name[..at]));
        if above || self.has_below(name) {
            return Err(Error::new(Kind::Denied, format!("{name}: an object and a folder would have one name")));
        }
        if self.all.contains_key(name) {
            return Err(Error::new(Kind::AlreadyExists, format!("{name}: it exists already")));
        }
        self.writes += 1;
        self.all.insert(name.into(), (bytes, self.writes));
        Ok(())
    }

    fn has_below(&self, name: &str) -> bool {
        let below = format!("{name}/");
        self.all.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }

    fn take_below(&mut self, name: &str) -> Vec<(String, Object)> {
        let below = format!("{name}/");
        let names: Vec<String> =
            self.all.range(below.clone()..).map(|(n, _)| n.clone()).take_while(|n| n.starts_with(&below)).collect();
        let take = |n: String| self.all.remove(&n).map(|object| (n[below.len()..].to_string(), object));
        names.into_iter().filter_map(take).collect()
    }
}

fn meta((bytes, write): &Object) -> Meta {
    Meta { len: bytes.bytes().len() as u64, version: Version(write.to_string()), modified_ms: 0 }
}

impl Store for Memory {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        lock(&self.objects).find(name.as_str()).map(meta)
    }

    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let objects = lock(&self.objects);
        let bytes = objects.find(name.as_str())?.0.bytes();
        let end = range.end.min(bytes.len() as u64) as usize;
        Ok(bytes[(range.start as usize).min(end)..end].to_vec())
    }

    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        lock(&self.objects).insert(name.as_str(), bytes)
    }

    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        let mut objects = lock(&self.objects);
        objects.writes += 1;
        let write = objects.writes;
        match objects.all.get_mut(name.as_str()) {
            Some(object) if meta(object).version == *version => *object = (bytes, write),
            _ => return Err(Error::new(Kind::Changed, format!("{name}: it has been changed or deleted meanwhile"))),
        }
        Ok(())
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        let mut objects = lock(&self.objects);
        let bytes = objects.find(from.as_str())?.0.clone();
        objects.insert(to.as_str(), bytes)
    }

    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        let objects = lock(&self.objects);
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str().to_string()),
            _ => Bound::Included(prefix.to_string()),
        };
        let mut found = objects.all.range((from, Bound::Unbounded)).take_while(|(name, _)| name.starts_with(prefix));
        let named = |(name, object): (&String, &_)| Ok((Name::new(name.as_str())?, meta(object)));
        let page = found.by_ref().take(self.page).map(named).collect::<Result<_, Error>>()?;
        Ok(Page { objects: page, more: found.next().is_some() })
    }

    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        let mut objects = lock(&self.objects);
        let found = objects.all.get(name.as_str());
        if found.is_some_and(|object| version.is_none_or(|version| meta(object).version == *version)) {
            objects.all.remove(name.as_str());
        }
        Ok(())
    }

    fn publish(&self) -> Publish {
        self.publish
    }

    async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
        self.only(Publish::Rename, "rename a folder")?;
        let mut objects = lock(&self.objects);
        if !objects.has_below(from.as_str()) {
            return Err(Error::new(Kind::NotFound, format!("{from}: there is no such folder")));
        }
        if objects.all.contains_key(to.as_str()) || (objects.has_below(to.as_str()) && !exchange) {
            return Err(Error::new(Kind::AlreadyExists, format!("{to}: it exists already")));
        }
        let (new, old) = (objects.take_below(from.as_str()), objects.take_below(to.as_str()));
        for (folder, all) in [(to, new), (from, old)] {
            objects.all.extend(all.into_iter().map(|(name, object)| (format!("{folder}/{name}"), object)));
        }
        Ok(())
    }
}
