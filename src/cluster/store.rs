//! The store that all nodes of a cluster share, by its URL: a folder, or a bucket of S3, Azure or Google Cloud.
//!
//! A folder is the engine's own; its calls are made aside, because a sync of files may take long. `objects` is the adapter
//! to object stores (feature `objects`): what a name, a version and a create-only put are there. What environment
//! variables say where and who is in `docs/stores.md`.

#[cfg(feature = "objects")]
mod failure;
#[cfg(feature = "objects")]
mod objects;
#[cfg(feature = "objects")]
mod open;
#[cfg(feature = "objects")]
mod signed;
#[cfg(feature = "objects")]
mod upload;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use gristmill_engine::scratch::Mapping;
use gristmill_engine::store::{Error, Folder, Kind, Meta, Name, Page, Publish, Store, Version};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

#[cfg(feature = "objects")]
pub use objects::{Limits, Objects};

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder that every node can reach under this path.
    Folder(PathBuf),
    /// A bucket or container.
    Bucket {
        /// Whose.
        cloud: Cloud,
        /// Its name.
        bucket: String,
        /// What the names of all objects begin with: empty, or a path without a slash at its ends.
        prefix: String,
    },
}

/// Who keeps a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, or what speaks its protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Google,
}

impl Cloud {
    const ALL: [Self; 3] = [Self::S3, Self::Azure, Self::Google];

    /// What its URLs begin with.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "az",
            Self::Google => "gs",
        }
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err("a store needs a place".into()) } else { Ok(Self::Folder(text.into())) };
        };
        if scheme == "file" {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            return match path.starts_with('/') {
                true => Ok(Self::Folder(path.into())),
                false => {
                    Err(format!("'{text}' names another machine; the path of a file URL is absolute: file:///path"))
                }
            };
        }
        let Some(cloud) = Cloud::ALL.into_iter().find(|cloud| cloud.scheme() == scheme) else {
            return Err(format!("there are no stores at {scheme}://; take a path, file://, s3://, az:// or gs://"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() || bucket.contains(['?', '#', '@', ':']) {
            return Err(format!("'{text}' names no bucket; it goes as {scheme}://BUCKET/PREFIX"));
        }
        if !prefix.is_empty() {
            Name::new(prefix).map_err(|e| e.to_string())?;
        }
        Ok(Self::Bucket { cloud, bucket: bucket.into(), prefix: prefix.into() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket { cloud, bucket, prefix } if prefix.is_empty() => write!(f, "{}://{bucket}", cloud.scheme()),
            Self::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

/// The store of a cluster. Clones share it.
#[derive(Clone)]
pub enum Shared {
    /// In a folder.
    Folder(Folder),
    /// In a bucket.
    #[cfg(feature = "objects")]
    Objects(Objects),
}

impl Shared {
    /// Opens the store and looks whether it can be read. A folder is made if it is not there, a bucket is not.
    ///
    /// # Errors
    /// When it is not there or must not be read, or its configuration makes no sense.
    pub async fn open(location: &Location) -> Result<Self, Error> {
        match location {
            Location::Folder(path) => {
                std::fs::create_dir_all(path)
                    .map_err(|e| Error::new(Kind::Denied, format!("cannot use the store {}: {e}", path.display())))?;
                let folder = Folder::new(path, true);
                // What writers left that died is of no use to anybody.
                folder.clean()?;
                Ok(Self::Folder(folder))
            }
            #[cfg(feature = "objects")]
            Location::Bucket { .. } => {
                let objects = Objects::open(location, std::env::vars(), Limits::default())?;
                objects.look().await?;
                Ok(Self::Objects(objects))
            }
            #[cfg(not(feature = "objects"))]
            Location::Bucket { .. } => {
                let text = format!("this program cannot use {location}: it was built without the feature 'objects'");
                Err(Error::new(Kind::Denied, text))
            }
        }
    }
}

/// Makes a call of a folder's store away from the tasks of the runtime.
async fn aside<T, F>(folder: &Folder, call: impl FnOnce(Folder) -> F + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>>,
{
    let (folder, here) = (folder.clone(), Handle::current());
    let done = spawn_blocking(move || here.block_on(call(folder))).await;
    done.unwrap_or_else(|e| Err(Error::new(Kind::Retryable, format!("a call of the store was given up: {e}"))))
}

impl Store for Shared {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        match self {
            Self::Folder(folder) => folder.head(name).await,
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.head(name).await,
        }
    }

    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        match self {
            Self::Folder(folder) => {
                let name = name.clone();
                aside(folder, |folder| async move { folder.get(&name, range).await }).await
            }
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.get(name, range).await,
        }
    }

    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => {
                let name = name.clone();
                aside(folder, |folder| async move { folder.put(&name, bytes).await }).await
            }
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.put(name, bytes).await,
        }
    }

    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => {
                let (name, version) = (name.clone(), version.clone());
                aside(folder, |folder| async move { folder.replace(&name, &version, bytes).await }).await
            }
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.replace(name, version, bytes).await,
        }
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => {
                let (from, to) = (from.clone(), to.clone());
                aside(folder, |folder| async move { folder.copy(&from, &to).await }).await
            }
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.copy(from, to).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        match self {
            Self::Folder(folder) => {
                let (prefix, after) = (prefix.to_string(), after.cloned());
                aside(folder, |folder| async move { folder.list(&prefix, after.as_ref()).await }).await
            }
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.list(prefix, after).await,
        }
    }

    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => {
                let (name, version) = (name.clone(), version.cloned());
                aside(folder, |folder| async move { folder.delete(&name, version.as_ref()).await }).await
            }
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.delete(name, version).await,
        }
    }

    fn publish(&self) -> Publish {
        match self {
            Self::Folder(folder) => folder.publish(),
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.publish(),
        }
    }

    async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => {
                let (from, to) = (from.clone(), to.clone());
                aside(folder, move |folder| async move { folder.rename(&from, &to, exchange).await }).await
            }
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.rename(from, to, exchange).await,
        }
    }

    fn local_path(&self, name: &Name) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => folder.local_path(name),
            #[cfg(feature = "objects")]
            Self::Objects(objects) => objects.local_path(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_stores() {
        let bucket = |cloud, bucket: &str, prefix: &str| Location::Bucket {
            cloud,
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        for (text, want) in [
            ("store", Location::Folder("store".into())),
            ("/srv/files", Location::Folder("/srv/files".into())),
            ("file:///srv/a b", Location::Folder("/srv/a b".into())),
            ("file://localhost/srv", Location::Folder("/srv".into())),
            ("s3://b", bucket(Cloud::S3, "b", "")),
            ("s3://b/", bucket(Cloud::S3, "b", "")),
            ("az://c/x/y/", bucket(Cloud::Azure, "c", "x/y")),
            ("gs://b/x", bucket(Cloud::Google, "b", "x")),
        ] {
            assert_eq!(text.parse::<Location>().as_ref(), Ok(&want), "{text}");
            if !text.starts_with("file:") {
                assert_eq!(want.to_string(), text.trim_end_matches('/'));
            }
        }
        for (text, why) in [
            ("", "needs a place"),
            ("file://host/x", "another machine"),
            ("http://x/y", "no stores at http://"),
            ("s3:///x", "no bucket"),
            ("s3://b:80/x", "no bucket"),
            ("gs://b//x", "slash"),
            ("az://b/../x", "lead nowhere"),
        ] {
            let e = text.parse::<Location>().unwrap_err();
            assert!(e.contains(why), "{text}: {e}");
        }
    }
}
