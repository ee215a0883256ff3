//! [`Kv`] as a sled database. The only file that knows sled.
//!
//! What is known to go wrong in sled 0.34 and what is done about it here: `flush()` ends in `sync_file_range`, which a
//! loss of power does not respect, so a barrier adds `fdatasync` on the database file; large pages go to blob files
//! that are never synced, so values are short and `blobs/` is asserted to be empty; its background flusher is off; its
//! file grows and never shrinks, so [`Kv::rebuild`] writes a new one (`generation`). That it drops corrupt data silently
//! at open, or panics, is the business of the log's own checks ([`crate::log`]) and of [`crate::verify`].

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::generation;
use super::worker::Worker;
use super::{Batch, Error, Kv, Op, Pair, check_values};

/// Bytes of pages that sled may keep in memory. The log is read from the writer's own tail; this serves old entries.
const CACHE_BYTES: u64 = 32 << 20;

/// Pairs that a rebuild copies at a time: up to 1 MiB.
const PAIRS_COPIED_AT_A_TIME: usize = 256;

/// How often and for how long it is looked whether sled's threads have let go of a closed database.
const CLOSING_LOOKS: usize = 5000;
const CLOSING_LOOK_EVERY: Duration = Duration::from_millis(1);

/// A sled database in a folder of its own.
#[derive(Clone, Debug)]
pub struct SledKv {
    inner: Arc<Inner>,
    worker: Worker,
}

#[derive(Debug)]
struct Inner {
    /// The folder of all generations.
    path: PathBuf,
    open: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    /// The folder of this generation.
    path: PathBuf,
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
            let open = if let Some(newest) = generation::newest(path)? {
                Open::at(newest)?
            } else {
                let open = Open::at(generation::next(path)?)?;
                generation::finish(&open.path)?;
                open
            };
            generation::remove_others(path, &open.path)?;
            Ok(open)
        };
        let place = |e| Error::new("open the database", path.display(), e);
        let open = caught(opened).map_err(place)?;
        let worker = Worker::start("raft-log").map_err(place)?;
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), open: RwLock::new(Some(open)) }), worker })
    }

    /// Runs `job` on the worker, in the order of the calls, and gives its errors a place.
    fn queue<J: FnOnce(&Inner) -> Result<(), Error> + Send + 'static>(
        &self,
        what: &'static str,
        job: J,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<J> {
        let (inner, place) = (self.inner.clone(), self.inner.path.clone());
        let work = self.worker.run(move || job(&inner));
        async move { work.await.unwrap_or_else(|e| Err(Error::new(what, place.display(), e))) }
    }

    fn run<J: FnOnce(&Open) -> io::Result<()> + Send + 'static>(
        &self,
        what: &'static str,
        job: J,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<J> {
        self.queue(what, move |inner| inner.with(what, job))
    }
}

impl Inner {
    fn with<T>(&self, what: &'static str, job: impl FnOnce(&Open) -> io::Result<T>) -> Result<T, Error> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(|| io::Error::other("the database is closed"));
        open.and_then(|open| caught(|| job(open))).map_err(|e| Error::new(what, self.path.display(), e))
    }

    /// Writes the next generation and goes on with it. Reads go on meanwhile; writes wait, as this is their thread.
    fn rebuild(&self) -> Result<(), Error> {
        let next = self.with("rebuild", |old| {
            let path = generation::next(&self.path)?;
            let new = Open::at(path.clone())?;
            copy(&old.db, &new.db)?;
            new.sync()?;
            new.close()?;
            // What a restart would find is compared, not what sled has in memory.
            let new = Open::at(path)?;
            compare(&old.db, &new.db)?;
            generation::finish(&new.path)?;
            Ok(new)
        })?;
        let now = next.path.clone();
        let old = self.open.write().unwrap_or_else(PoisonError::into_inner).replace(next);
        let removed = caught(|| {
            old.map_or(Ok(()), Open::close)?;
            generation::remove_others(&self.path, &now)
        });
        removed.map_err(|e| Error::new("remove the old database of", self.path.display(), e))
    }
}

impl Open {
    /// Opens the database in the folder `path`, creating it if need be.
    fn at(path: PathBuf) -> io::Result<Self> {
        let db = sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open()?;
        let file = OpenOptions::new().read(true).write(true).open(path.join("db"))?;
        let open = Self { path, db, file };
        open.no_blobs()?;
        Ok(open)
    }

    /// Makes what was written survive a loss of power.
    fn sync(&self) -> io::Result<()> {
        self.db.flush()?;
        self.file.sync_data()?;
        self.no_blobs()
    }

    /// Lets go of the database and waits until sled's own threads have done so too: its lock is theirs as well.
    fn close(self) -> io::Result<()> {
        drop(self.db);
        for _ in 0..CLOSING_LOOKS {
            match self.file.try_lock() {
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(CLOSING_LOOK_EVERY),
                Err(fs::TryLockError::Error(error)) => return Err(error),
                Ok(()) => return self.file.unlock(),
            }
        }
        Err(io::Error::other("sled does not let go of the database"))
    }

    /// Fails if sled has put anything into a blob file, which no barrier makes durable.
    fn no_blobs(&self) -> io::Result<()> {
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

fn copy(from: &sled::Db, to: &sled::Db) -> io::Result<()> {
    let mut pairs = from.iter();
    loop {
        let mut batch = sled::Batch::default();
        let mut copied = 0;
        for pair in pairs.by_ref().take(PAIRS_COPIED_AT_A_TIME) {
            let (key, value) = pair?;
            batch.insert(key, value);
            copied += 1;
        }
        if copied == 0 {
            return Ok(());
        }
        to.apply_batch(batch)?;
    }
}

/// Fails unless both have the same pairs.
fn compare(old: &sled::Db, new: &sled::Db) -> io::Result<()> {
    let mut found = new.iter();
    for pair in old.iter() {
        if found.next().transpose()? != Some(pair?) {
            return Err(io::Error::other("sled lost something of the new database while it was written"));
        }
    }
    match found.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::other("sled made up something in the new database while it was written")),
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

impl Kv for SledKv {
    fn write(&self, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let checked = check_values(&batch, &self.inner.path.display());
        let work = checked.map(|()| {
            self.run("write to", move |open| {
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
        self.run("sync", Open::sync)
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

    fn rebuild(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        self.queue("rebuild", Inner::rebuild)
    }

    fn close(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let inner = self.inner.clone();
        let work = self.worker.run(move || {
            let open = inner.open.write().unwrap_or_else(PoisonError::into_inner).take();
            // Everything is durable that must be; who opens it next is told that it is still in use.
            let _ = caught(|| open.map_or(Ok(()), Open::close));
        });
        async move {
            let _ = work.await;
        }
    }
}
