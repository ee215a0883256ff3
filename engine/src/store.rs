//! The shared store: inputs, outputs, histories and what tasks leave for each other, under names like `logs/2024/a.log`.
//!
//! A small trait that folders and object stores can both keep. Objects are written once: there is put-if-absent and
//! copy-if-absent and no plain overwriting, so that a late writer finds that it is late. Listings are in the order of the
//! names' bytes. Retrying, credentials and protocols are the adapters' business; what is here has no network.
//!
//! [`Folder`] keeps a store in a folder that all nodes share, [`Memory`] in memory; [`conformance`] is what both, and every
//! adapter, must pass.

mod beneath;
pub mod conformance;
mod folder;
mod memory;
mod name;
mod pattern;

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use folder::Folder;
pub use memory::Memory;
pub use name::Name;
pub use pattern::Pattern;

use crate::scratch::Mapping;

/// Most objects on one page of a listing.
pub const PAGE: usize = 1000;
/// Bytes of a ranged read of [`read`].
pub const READ: u64 = 8 << 20;

/// Which version of an object is meant: equal only for the same bytes written by the same call, as far as the store can
/// tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Version(pub String);

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Meta {
    /// Bytes.
    pub len: u64,
    /// Its version.
    pub version: Version,
    /// When it was written, in milliseconds since 1970 by the store's clock; 0 if the store does not say.
    #[serde(default)]
    pub modified_ms: u64,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects in the order of their names' bytes.
    pub objects: Vec<(Name, Meta)>,
    /// Whether there may be more.
    pub more: bool,
}

/// How an output is made visible in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// A folder is renamed into place.
    Rename,
    /// Objects are copied into place, `_SUCCESS` last; who reads must ask for that one.
    Copy,
}

/// A shared store.
///
/// Every call may fail with [`Kind::Retryable`] whether or not it was carried out, or will be later.
pub trait Store: Send + Sync + 'static {
    /// What is known of an object.
    fn head(&self, name: &Name) -> impl Future<Output = Result<Meta, Error>> + Send;

    /// Bytes of an object: as many of the range as it has.
    fn get(&self, name: &Name, range: Range<u64>) -> impl Future<Output = Result<Vec<u8>, Error>> + Send;

    /// Puts an object where there is none: whole or not at all. Fails with [`Kind::AlreadyExists`] else.
    fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Puts an object in the place of this version of it. Fails with [`Kind::Changed`] where there is another version or
    /// none. In a folder, another version may be away for a moment before that is found out.
    fn replace(
        &self,
        name: &Name,
        version: &Version,
        bytes: Arc<dyn Mapping>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Copies an object to where there is none. Fails with [`Kind::AlreadyExists`], or with [`Kind::NotFound`] where there
    /// is nothing to copy; that is found out first.
    fn copy(&self, from: &Name, to: &Name) -> impl Future<Output = Result<(), Error>> + Send;

    /// Objects whose names begin so, behind `after`: at most [`PAGE`] of them.
    fn list(&self, prefix: &str, after: Option<&Name>) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Deletes an object. It is no error if it is not there, nor if it is not of the version that is named, if one is;
    /// a store that cannot compare may then delete any.
    fn delete(&self, name: &Name, version: Option<&Version>) -> impl Future<Output = Result<(), Error>> + Send;

    /// How outputs are made visible here.
    fn publish(&self) -> Publish;

    /// Renames a folder: all objects below `from/` are below `to/` in one step. Where objects are below `to/` already it
    /// fails with [`Kind::AlreadyExists`], or exchanges the two if `exchange` is set. Only of stores that publish by
    /// [`Publish::Rename`].
    fn rename(&self, from: &Name, to: &Name, exchange: bool) -> impl Future<Output = Result<(), Error>> + Send;

    /// The file that holds an object, if it is one on this machine: it is mapped where it lies.
    fn local_path(&self, name: &Name) -> Option<PathBuf> {
        let _ = name;
        None
    }
}

/// What kind of an error it is, by which a caller decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such object.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// There is another version than the one that was named.
    Changed,
    /// Not allowed, or not possible here.
    Denied,
    /// It may succeed if it is tried again. Whether it was carried out is not known.
    Retryable,
    /// What is there is not what was written.
    Corrupt,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// What kind of an error it is.
    pub kind: Kind,
    /// What, where, and what to do, in a line.
    pub text: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// Reads an object from its start to its end, calling `each` with its pieces in order, and returns its length. Pieces
/// are of one version, unless the store has none.
///
/// # Errors
/// Those of the store and of `each`.
pub async fn read<S: Store>(
    store: &S,
    name: &Name,
    mut each: impl FnMut(&[u8]) -> Result<(), Error> + Send,
) -> Result<u64, Error> {
    let len = store.head(name).await?.len;
    let mut at = 0;
    while at < len {
        let bytes = store.get(name, at..len.min(at + READ)).await?;
        if bytes.is_empty() {
            let text = format!("{name}: it ends at byte {at} of {len}; something else writes to it");
            return Err(Error::new(Kind::Corrupt, text));
        }
        each(&bytes)?;
        at += bytes.len() as u64;
    }
    Ok(len)
}

/// All objects whose names begin so, a page at a time.
///
/// # Errors
/// Those of the store.
pub async fn list_all<S: Store>(store: &S, prefix: &str) -> Result<Vec<(Name, Meta)>, Error> {
    let mut all: Vec<(Name, Meta)> = Vec::new();
    loop {
        let page = store.list(prefix, all.last().map(|(name, _)| name)).await?;
        let ended = !page.more || page.objects.is_empty();
        all.extend(page.objects);
        if ended {
            return Ok(all);
        }
    }
}
