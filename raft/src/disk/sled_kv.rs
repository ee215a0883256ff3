//! [`Kv`] as a sled database. The only file that knows sled.
//!
//! What is known to go wrong in sled 0.34 and what is done about it here: `flush()` ends in `sync_file_range`, which a
//! loss of power does not respect, so a barrier adds `fdatasync` on the database file; large pages go to blob files
//! that are never synced, so values are short and `blobs/` is asserted to be empty; its background flusher is off. That
//! it drops corrupt data silently at open, or panics, is the business of the log's own checks ([`crate::log`]) and of
//! [`crate::verify`].

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use super::worker::Worker;
use super::{Batch, Error, Kv, Op, Pair, check_values};

/// Bytes of pages that sled may keep in memory. The log is read from the writer's own tail; this serves old entries.
const CACHE_BYTES: u64 = 32 << 20;

/// A sled database in a folder of its own.
#[derive(Clone, Debug)]
pub struct SledKv {
    inner: Arc<Inner>,
    worker: Worker,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    open: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    db: sled::Db,
    /// The database file once more, for `fdatasync`; sled keeps its own handle to itself.
    file: File,
}

impl SledKv {
    /// Opens the database in the folder `path`, creating it if need be. Only one process can have it open.
    ///
    /// sled may panic over a damaged database, and it writes while it opens: [`crate::verify`] does it in a child
    /// process first.
    ///
    /// # Errors
    ///
    /// If the disk refuses, another process has the database, or sled finds it damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = || -> io::Result<Open> {
            let new = !path.exists();
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .mode(sled::Mode::HighThroughput)
                .open()?;
            if new {
                sync_new(path)?;
            }
            let file = OpenOptions::new().read(true).write(true).open(path.join("db"))?;
            Ok(Open { db, file })
        };
        let place = |e| Error::new("open the database", path.display(), e);
        let inner = Inner { path: path.to_owned(), open: RwLock::new(Some(caught(opened).map_err(place)?)) };
        inner.with("open", |open| inner.no_blobs(open))?;
        let worker = Worker::start("raft-log").map_err(place)?;
        Ok(Self { inner: Arc::new(inner), worker })
    }

    fn run<J: FnOnce(&Inner, &Open) -> io::Result<()> + Send + 'static>(
        &self,
        what: &'static str,
        job: J,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<J> {
        let (inner, place) = (self.inner.clone(), self.inner.path.clone());
        let work = self.worker.run(move || inner.with(what, |open| job(&inner, open)));
        async move { work.await.unwrap_or_else(|e| Err(Error::new(what, place.display(), e))) }
    }
}

impl Inner {
    fn with<T>(&self, what: &'static str, job: impl FnOnce(&Open) -> io::Result<T>) -> Result<T, Error> {
        let open = self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(|| io::Error::other("the database is closed"));
        open.and_then(|open| caught(|| job(open))).map_err(|e| Error::new(what, self.path.display(), e))
    }

    /// Fails if sled has put anything into a blob file, which no barrier makes durable.
    fn no_blobs(&self, _open: &Open) -> io::Result<()> {
        match fs::read_dir(self.path.join("blobs"))?.next() {
            None => Ok(()),
            Some(entry) => {
                let name = entry?.file_name();
                Err(io::Error::other(format!(
                    "sled wrote the blob file blobs/{}, which is never synced",
                    name.display()
                )))
            }
        }
    }
}

/// Makes an error of a panic: sled panics over damage. The error ends the node, so that nothing half done is used.
fn caught<T>(job: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        Err(io::Error::other(format!("sled panicked: {text}")))
    })
}

/// Makes the files of a new database and the folders that name them durable.
fn sync_new(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(path)?.sync_all()?;
    path.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

impl Kv for SledKv {
    fn write(&self, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let checked = check_values(&batch, &self.inner.path.display());
        let work = checked.map(|()| {
            self.run("write to", move |_, open| {
                let mut writes = sled::Batch::default();
                for op in batch.ops {
                    match op {
                        Op::Put { key, value } => writes.insert(key, value),
                        Op::Delete { key } => writes.remove(key),
                    }
                }
                Ok(open.db.apply_batch(writes)?)
            })
        });
        async move { work?.await }
    }

    fn barrier(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        self.run("sync", |inner, open| {
            open.db.flush()?;
            open.file.sync_data()?;
            inner.no_blobs(open)
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.inner.with("read from", |open| Ok(open.db.get(key)?.map(|value| value.to_vec())))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, Error> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.inner.with("read from", |open| {
            let pairs = open.db.range(from..to).take(limit);
            pairs.map(|pair| pair.map(|(k, v)| (k.to_vec(), v.to_vec())).map_err(io::Error::from)).collect()
        })
    }

    fn bytes_on_disk(&self) -> Result<u64, Error> {
        self.inner.with("read the size of", |open| Ok(open.db.size_on_disk()?))
    }

    fn close(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let inner = self.inner.clone();
        let work = self.worker.run(move || {
            drop(inner.open.write().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        });
        async move {
            let _ = work.await;
        }
    }
}
