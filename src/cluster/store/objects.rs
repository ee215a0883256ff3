//! The store in a bucket: names are keys below a prefix, versions are entity tags, and nothing is put or copied where
//! something is.
//!
//! What one request cannot do is done by several, and seen whole or not at all: `upload` puts large objects in parts,
//! `signed` copies within S3, which has no create-only copy. Requests that may go well another time are made again by the
//! library, a bounded number of times; what was carried out although nobody heard of it then shows as
//! [`Kind::AlreadyExists`] or [`Kind::Changed`], and callers compare.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::scratch::Mapping;
use gristmill_engine::store::{Error, Kind, Meta, Name, PAGE, Page, Publish, Store, Version};
use object_store::aws::AmazonS3;
use object_store::azure::MicrosoftAzure;
use object_store::gcp::GoogleCloudStorage;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, UpdateVersion,
};

use super::signed::Signed;
use super::{Location, failure, open, signed};

/// Below this lie objects on their way to their names. No listing shows them.
pub(super) const STAGED: &str = ".gristmill-staged/";

/// What an adapter may take: bytes of a request, tries, time.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one part of an upload: larger objects go up in several. At least 5 MiB.
    pub part: u64,
    /// Bytes of one part of a copy within S3: at least 5 MiB, at most 5 GiB.
    pub copy_part: u64,
    /// Objects of S3 up to this size are copied by reading them.
    pub whole_copy: u64,
    /// How often a request is made at most.
    pub tries: usize,
    /// The pause after the first try, doubled each time, and the longest.
    pub pauses: (Duration, Duration),
    /// After this long since the first try there is no other.
    pub within: Duration,
    /// How long a connection may take to open.
    pub connect: Duration,
    /// How long an answer, or the next bytes of it, may take.
    pub silence: Duration,
    /// How long a request may take as a whole.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            part: 16 << 20,
            copy_part: 512 << 20,
            whole_copy: 8 << 20,
            tries: 5,
            pauses: (Duration::from_millis(100), Duration::from_secs(5)),
            within: Duration::from_secs(120),
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            request: Duration::from_secs(600),
        }
    }
}

/// A store in a bucket. Clones share it.
#[derive(Clone)]
pub struct Objects(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) client: Client,
    location: Location,
    /// Empty, or ends in a slash.
    prefix: String,
    pub(super) limits: Limits,
    /// For requests that the library does not make.
    pub(super) http: reqwest::Client,
}

/// The library's client of a cloud.
pub(super) enum Client {
    S3(AmazonS3),
    Azure(MicrosoftAzure),
    Google(GoogleCloudStorage),
}

impl Client {
    pub(super) fn objects(&self) -> &dyn ObjectStore {
        match self {
            Self::S3(client) => client,
            Self::Azure(client) => client,
            Self::Google(client) => client,
        }
    }

    fn pages(&self) -> &dyn PaginatedListStore {
        match self {
            Self::S3(client) => client,
            Self::Azure(client) => client,
            Self::Google(client) => client,
        }
    }

    pub(super) fn parts(&self) -> &dyn MultipartStore {
        match self {
            Self::S3(client) => client,
            Self::Azure(client) => client,
            Self::Google(client) => client,
        }
    }
}

/// What is the version of an object: its entity tag, which every store lists. Azure lists them without their quotes.
fn version(meta: &ObjectMeta) -> Version {
    let tag = meta.e_tag.as_deref().map(|tag| tag.trim_matches('"').to_string());
    Version(tag.or_else(|| meta.version.clone()).unwrap_or_else(|| meta.last_modified.to_rfc3339()))
}

fn meta_of(meta: &ObjectMeta) -> Meta {
    let modified_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    Meta { len: meta.size, version: version(meta), modified_ms }
}

/// Bytes of a mapping without a copy of them.
pub(super) fn shared(bytes: Arc<dyn Mapping>) -> Bytes {
    struct Owner(Arc<dyn Mapping>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }
    Bytes::from_owner(Owner(bytes))
}

impl Objects {
    /// A store at `location`, as these environment variables configure it. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn open(
        location: &Location,
        variables: impl IntoIterator<Item = (String, String)>,
        limits: Limits,
    ) -> Result<Self, Error> {
        // What TLS is made of; whoever was first has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let variables: Vec<_> = variables.into_iter().collect();
        let client = open::client(location, &variables, &limits)?;
        let prefix = match location {
            Location::Bucket { prefix, .. } if !prefix.is_empty() => format!("{prefix}/"),
            _ => String::new(),
        };
        let http = signed::http(&limits)?;
        Ok(Self(Arc::new(Inner { client, location: location.clone(), prefix, limits, http })))
    }

    /// Looks whether the store can be listed.
    ///
    /// # Errors
    /// When it is not there, does not answer or must not be read.
    pub async fn look(&self) -> Result<(), Error> {
        let options = PaginatedListOptions { max_keys: Some(1), ..Default::default() };
        let listed = self.0.client.pages().list_paginated(Some(&self.0.prefix), options).await;
        listed.map(drop).map_err(|e| match failure::of("list", &self.0.location, &e) {
            gone if gone.kind == Kind::NotFound => {
                let text = format!("cannot use {}: there is no such bucket; make it first", self.0.location);
                Error::new(Kind::Denied, text)
            }
            e => e,
        })
    }

    pub(super) fn key(&self, name: &Name) -> Result<Path, Error> {
        if name.as_str().starts_with(STAGED) {
            return Err(Error::new(Kind::Denied, format!("{name}: the store keeps that name for itself")));
        }
        self.raw_key(name.as_str())
    }

    pub(super) fn raw_key(&self, name: &str) -> Result<Path, Error> {
        Path::parse(format!("{}{name}", self.0.prefix))
            .map_err(|e| Error::new(Kind::Denied, format!("'{name}' is no name of an object: {e}")))
    }

    async fn look_up(&self, name: &Name) -> Result<ObjectMeta, Error> {
        let found = self.0.client.objects().head(&self.key(name)?).await;
        found.map_err(|e| failure::of("look up", name, &e))
    }

    pub(super) async fn put_whole(&self, name: &Name, bytes: Bytes, mode: PutMode) -> Result<(), Error> {
        let options = PutOptions { mode, ..Default::default() };
        let done = self.0.client.objects().put_opts(&self.key(name)?, PutPayload::from(bytes), options).await;
        done.map(drop).map_err(|e| failure::of("put", name, &e))
    }

    /// Copies within S3 by reading what is small.
    async fn copy_by_reading(&self, from: &Name, to: &Name, meta: &ObjectMeta) -> Result<(), Error> {
        let options = GetOptions { if_match: meta.e_tag.clone(), ..Default::default() };
        let read = self.0.client.objects().get_opts(&self.key(from)?, options).await;
        let bytes = match read {
            Ok(found) => found.bytes().await,
            Err(e) => Err(e),
        };
        let bytes = bytes.map_err(|e| match failure::of("read", from, &e) {
            changed if changed.kind == Kind::Changed => Error::new(Kind::Retryable, changed.text),
            e => e,
        })?;
        self.put_whole(to, bytes, PutMode::Create).await
    }
}

impl Store for Objects {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        Ok(meta_of(&self.look_up(name).await?))
    }

    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let begin = range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
        let read = async {
            let found = self.0.client.objects().get_opts(&self.key(name)?, options).await;
            let bytes = match found {
                Ok(found) => found.bytes().await,
                Err(e) => Err(e),
            };
            bytes.map_err(|e| failure::of("read", name, &e))
        };
        match read.await {
            Ok(bytes) => Ok(bytes.into()),
            // Stores refuse a range that begins at the end or behind it.
            Err(e) if e.kind != Kind::NotFound && self.head(name).await.is_ok_and(|meta| meta.len <= begin) => {
                Ok(Vec::new())
            }
            Err(e) => Err(e),
        }
    }

    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        let bytes = shared(bytes);
        if bytes.len() as u64 <= self.0.limits.part {
            return self.put_whole(name, bytes, PutMode::Create).await;
        }
        // Before all bytes are sent for nothing.
        match self.head(name).await {
            Ok(_) => return Err(Error::new(Kind::AlreadyExists, format!("cannot put {name}: it exists already"))),
            Err(e) if e.kind != Kind::NotFound => return Err(e),
            Err(_) => {}
        }
        self.put_in_parts(name, bytes).await
    }

    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        let changed = || Error::new(Kind::Changed, format!("{name}: it has been changed or deleted meanwhile"));
        let now = match self.look_up(name).await {
            Err(e) if e.kind == Kind::NotFound => return Err(changed()),
            now => now?,
        };
        if self::version(&now) != *version {
            return Err(changed());
        }
        let mode = PutMode::Update(UpdateVersion { e_tag: now.e_tag, version: now.version });
        self.put_whole(name, shared(bytes), mode)
            .await
            .map_err(|e| if e.kind == Kind::NotFound { changed() } else { e })
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        let meta = self.look_up(from).await?;
        let (source, target) = (self.key(from)?, self.key(to)?);
        if let Client::S3(client) = &self.0.client {
            if meta.size <= self.0.limits.whole_copy {
                return self.copy_by_reading(from, to, &meta).await;
            }
            return Signed::new(client, &self.0, "copy", from).copy(&source, &target, &meta).await;
        }
        self.copy_within(&source, &target).await
    }

    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        let full = format!("{}{prefix}", self.0.prefix);
        let behind = after.filter(|after| after.as_str() >= prefix).map(|after| format!("{}{after}", self.0.prefix));
        // Azure and its emulator do not agree on how a query is escaped: what is before such characters is asked for.
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        let asked = match &self.0.client {
            Client::Azure(_) => full.split(|c| !plain(c)).next().unwrap_or_default(),
            _ => &full,
        };
        let mut token = None;
        loop {
            let options = PaginatedListOptions {
                offset: behind.clone(),
                max_keys: Some(PAGE),
                page_token: token,
                ..Default::default()
            };
            let listed = self.0.client.pages().list_paginated(Some(asked), options).await;
            let listed = listed.map_err(|e| failure::of("list", format!("'{prefix}'"), &e))?;
            let mut objects: Vec<_> = listed.result.objects.iter().filter_map(|meta| self.listed(meta)).collect();
            // Not every store takes a place to begin at.
            objects.retain(|(name, _)| after.is_none_or(|after| name > after) && name.as_str().starts_with(prefix));
            // Azure's emulator leaves out what is called just so.
            if let (Client::Azure(_), None, Ok(name)) = (&self.0.client, after, Name::new(prefix))
                && !objects.iter().any(|(listed, _)| *listed == name)
            {
                match self.head(&name).await {
                    Ok(meta) => objects.push((name, meta)),
                    Err(e) if matches!(e.kind, Kind::NotFound | Kind::Denied) => {}
                    Err(e) => return Err(e),
                }
            }
            objects.sort_by(|a, b| a.0.cmp(&b.0));
            let more = listed.page_token.is_some();
            if !objects.is_empty() || !more {
                return Ok(Page { objects, more });
            }
            token = listed.page_token;
        }
    }

    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        if let Some(version) = version {
            match self.head(name).await {
                Ok(now) if now.version != *version => return Ok(()),
                Err(e) if e.kind == Kind::NotFound => return Ok(()),
                now => drop(now?),
            }
        }
        self.remove(&self.key(name)?).await
    }

    fn publish(&self) -> Publish {
        Publish::Copy
    }

    async fn rename(&self, from: &Name, to: &Name, _: bool) -> Result<(), Error> {
        Err(Error::new(Kind::Denied, format!("cannot rename {from} to {to}: an object store has no folders")))
    }

    fn local_path(&self, _: &Name) -> Option<PathBuf> {
        None
    }
}

impl Objects {
    /// The name of a key, unless it is none that this store could have put.
    fn listed(&self, meta: &ObjectMeta) -> Option<(Name, Meta)> {
        let name = meta.location.as_ref().strip_prefix(&self.0.prefix)?;
        let name = Name::new(name).ok().filter(|name| !name.as_str().starts_with(STAGED))?;
        Some((name, meta_of(meta)))
    }

    pub(super) async fn remove(&self, key: &Path) -> Result<(), Error> {
        match self.0.client.objects().delete(key).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(e) => Err(failure::of("delete", key, &e)),
        }
    }

    /// Copies within Azure or Google, where the store does so if nothing is there.
    pub(super) async fn copy_within(&self, source: &Path, target: &Path) -> Result<(), Error> {
        let options = CopyOptions { mode: CopyMode::Create, ..Default::default() };
        let copied = self.0.client.objects().copy_opts(source, target, options).await;
        copied.map_err(|e| match failure::of("copy", format!("{source} to {target}"), &e) {
            there if there.kind == Kind::Changed => {
                Error::new(Kind::AlreadyExists, format!("cannot copy {source} to {target}: it exists already"))
            }
            e => e,
        })?;
        if let Client::Azure(client) = &self.0.client {
            return signed::azure_copied(client, &self.0, target).await;
        }
        Ok(())
    }
}
