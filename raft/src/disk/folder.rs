//! [`Files`] as a real folder.
//!
//! Small durable writes (the mark) and long ones (snapshots) have a thread each, so that a snapshot does not hold back
//! an acknowledgement.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::worker::Worker;
use super::{Error, FileInfo, Files};

/// While a file grows, it is synced every so many bytes, so that no sync has much to do and the log's own syncs do not
/// wait behind it.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// Locked for as long as a process uses the folder.
const LOCK: &str = "lock";

/// A folder of the file system, for one process at a time.
#[derive(Clone, Debug)]
pub struct Folder {
    inner: Arc<Inner>,
    small: Worker,
    long: Worker,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Keeps other processes out. Nothing is written once it is gone: the folder may be another's then.
    lock: RwLock<Option<Held>>,
    /// Files that stay open between writes in place.
    open: Mutex<HashMap<String, Arc<File>>>,
    /// Bytes appended since the last sync, by name.
    unsynced: Mutex<HashMap<String, u64>>,
}

impl Folder {
    /// Takes the folder at `path`, creating it if need be.
    ///
    /// # Errors
    ///
    /// If it can not be created, or no thread started.
    pub fn open(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|e| Error::new("create the folder", path.display(), e))?;
        let taken = take(&path.join(LOCK)).map_err(|e| Error::new("take the folder", path.display(), e))?;
        Self::with_lock(path, Some(taken))
    }

    /// Takes the folder at `path` to read it; nothing is created. A process that writes must not have it.
    ///
    /// # Errors
    ///
    /// If it is not there, or a process uses it.
    pub fn open_to_read(path: &Path) -> Result<Self, Error> {
        let take = || -> io::Result<Option<Held>> {
            fs::read_dir(path)?;
            let file = match File::open(path.join(LOCK)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            file.try_lock_shared().map_err(busy)?;
            Ok(Some(Held(file)))
        };
        let taken = take().map_err(|e| Error::new("read the folder", path.display(), e))?;
        Self::with_lock(path, taken)
    }

    fn with_lock(path: &Path, taken: Option<Held>) -> Result<Self, Error> {
        let start = |name| Worker::start(name).map_err(|e| Error::new("start a thread for", path.display(), e));
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                lock: RwLock::new(taken),
                open: Mutex::default(),
                unsynced: Mutex::default(),
            }),
            small: start("raft-mark")?,
            long: start("raft-files")?,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Runs `job` on `worker` and gives its errors a place.
    fn run<J: FnOnce(&Inner) -> io::Result<()> + Send + 'static>(
        &self,
        worker: &Worker,
        what: &'static str,
        name: &str,
        job: J,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<J> {
        let (inner, place) = (self.inner.clone(), self.inner.path.join(name));
        let work = worker.run(move || {
            let held = inner.lock.read().unwrap_or_else(PoisonError::into_inner);
            if held.is_none() {
                return Err(io::Error::other("the folder is closed"));
            }
            job(&inner)
        });
        async move { work.await.and_then(|r| r).map_err(|e| Error::new(what, place.display(), e)) }
    }
}

impl Inner {
    /// The file, open for writing in place; created durably if it was not there.
    fn slot(&self, name: &str) -> io::Result<Arc<File>> {
        let mut open = lock(&self.open);
        if let Some(file) = open.get(name) {
            return Ok(file.clone());
        }
        let path = self.path.join(name);
        let new = !path.exists();
        let file = Arc::new(OpenOptions::new().write(true).create(true).truncate(false).open(&path)?);
        if new {
            file.sync_all()?;
            sync_folder(&self.path)?;
        }
        open.insert(name.to_string(), file.clone());
        Ok(file)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path.join(name))?;
        file.write_all(bytes)?;
        let mut unsynced = lock(&self.unsynced);
        let waiting = unsynced.entry(name.to_string()).or_default();
        *waiting += bytes.len() as u64;
        if *waiting >= SYNC_EVERY_BYTES {
            *waiting = 0;
            file.sync_data()?;
        }
        Ok(())
    }

    fn seal(&self, name: &str, to: &str) -> io::Result<()> {
        lock(&self.unsynced).remove(name);
        lock(&self.open).remove(to);
        File::open(self.path.join(name))?.sync_all()?;
        fs::rename(self.path.join(name), self.path.join(to))?;
        sync_folder(&self.path)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.unsynced).remove(name);
        lock(&self.open).remove(name);
        match fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// The lock file, locked. It is unlocked by name: to close it would leave the lock with a process that is being started at
/// that moment, which has a copy of every open file until it becomes a program of its own (flock(2), "NOTES").
#[derive(Debug)]
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // What cannot be unlocked goes with the last copy.
        let _ = self.0.unlock();
    }
}

/// Takes the lock file, or fails if another process has it.
fn take(path: &Path) -> io::Result<Held> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.try_lock().map_err(busy)?;
    Ok(Held(file))
}

fn busy(error: fs::TryLockError) -> io::Error {
    match error {
        fs::TryLockError::WouldBlock => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it; stop that one first")
        }
        fs::TryLockError::Error(error) => error,
    }
}

/// Locks a map that no holder of the lock leaves half changed, so that a panic elsewhere does not matter.
fn lock<T>(map: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn read_up_to(file: &File, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let wanted = usize::try_from(length.saturating_sub(offset)).map_or(bytes, |left| left.min(bytes));
    let mut buffer = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

impl Files for Folder {
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, Error> {
        let path = self.inner.path.join(name);
        let result = File::open(&path).and_then(|file| read_up_to(&file, offset, bytes));
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::new("read", path.display(), e)),
        }
    }

    fn list(&self) -> Result<Vec<FileInfo>, Error> {
        let listed = || -> io::Result<Vec<FileInfo>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&self.inner.path)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                if meta.is_file() && entry.file_name() != LOCK {
                    found.push(FileInfo { name: entry.file_name().to_string_lossy().into_owned(), bytes: meta.len() });
                }
            }
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        };
        listed().map_err(|e| Error::new("list the folder", self.inner.path.display(), e))
    }

    fn overwrite(
        &self,
        name: &str,
        offset: u64,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let file = name.to_string();
        self.run(&self.small, "write to", name, move |inner| {
            let file = inner.slot(&file)?;
            file.write_all_at(&bytes, offset)?;
            file.sync_data()
        })
    }

    fn append(&self, name: &str, bytes: Vec<u8>) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let file = name.to_string();
        self.run(&self.long, "write to", name, move |inner| inner.append(&file, &bytes))
    }

    fn seal(&self, name: &str, to: &str) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let (file, target) = (name.to_string(), to.to_string());
        self.run(&self.long, "seal", to, move |inner| inner.seal(&file, &target))
    }

    fn remove(&self, name: &str) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let file = name.to_string();
        self.run(&self.long, "remove", name, move |inner| inner.remove(&file))
    }

    fn close(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let inner = self.inner.clone();
        // Behind what a snapshot still writes.
        let work = self.long.run(move || drop(inner.lock.write().unwrap_or_else(PoisonError::into_inner).take()));
        async move {
            let _ = work.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Tests of crashes met it, one of which starts processes while the other checks a folder and lets it go.
    #[test]
    fn a_folder_that_was_let_go_is_free_whatever_is_being_started() {
        let dir = tempfile::tempdir().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
            let taken = (0..2_000).try_for_each(|_| take(&dir.path().join(LOCK)).map(drop));
            over.store(true, Ordering::Relaxed);
            taken.unwrap();
        });
    }
}
