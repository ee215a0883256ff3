//! The seam to the disk: an ordered key-value store for the log, and plain files for what is kept outside of it.
//!
//! [`Kv`] is the database, [`Files`] the folder around it (the high-water mark, sealed snapshots, the identity).
//! Implementations: sled and a real folder in production (`SledKv`, [`Folder`]), and [`crate::model`] in the
//! simulator. [`crate::suite`] says what all of them must do. What is written and why is decided elsewhere.

mod folder;
#[cfg(feature = "sled")]
mod generation;
#[cfg(feature = "sled")]
mod sled_kv;
mod worker;

pub use folder::Folder;
#[cfg(feature = "sled")]
pub use sled_kv::SledKv;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

/// The most bytes that one value of a [`Kv`] may have. sled moves pages beyond about 128 KiB into blob files, which it
/// never syncs; a leaf holds at most 17 values, so that 4 KiB a value stays below.
pub const MAX_VALUE_BYTES: usize = 4096;

/// What went wrong with a disk, where, and while doing what. The cause is the source.
#[derive(Debug, Clone)]
pub struct Error {
    what: &'static str,
    place: String,
    source: Arc<io::Error>,
}

impl Error {
    /// An error met while doing `what` (as in "write to") at `place` (a path or the name of a store).
    pub fn new(what: &'static str, place: impl fmt::Display, source: io::Error) -> Self {
        Self { what, place: place.to_string(), source: Arc::new(source) }
    }

    /// The kind of the cause, to tell a full disk from a broken one.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.what, self.place)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// One change to a [`Kv`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets `key` to `value`, which has at most [`MAX_VALUE_BYTES`].
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes `key`, whether it is there or not.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// Changes that happen together or not at all. Of several changes to one key, the last one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, in order.
    pub ops: Vec<Op>,
}

impl Batch {
    /// Adds a [`Op::Put`].
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(Op::Put { key: key.into(), value: value.into() });
    }

    /// Adds a [`Op::Delete`].
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Delete { key: key.into() });
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered store of bytes with atomic batches and a durability barrier.
///
/// The order of batches and barriers is the order of the *calls*; the returned futures only report completion and need
/// not be polled for the work to go on. After an error of `write` or `barrier` the store must not be used again: what
/// is on the disk is unknown then, and a later success would prove nothing.
pub trait Kv: Clone + Send + Sync + 'static {
    /// Applies `batch` as a whole, after every batch before it. It is readable when the future is done, durable after
    /// the next [`Kv::barrier`]. After a crash, some prefix of the batches is there, whole.
    ///
    /// # Errors
    ///
    /// If the disk refuses, or a value is longer than [`MAX_VALUE_BYTES`].
    fn write(&self, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Self>;

    /// Makes every batch before it survive a loss of power.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn barrier(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Self>;

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The first `limit` pairs with `from <= key < to`, in the order of their keys' bytes.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, Error>;

    /// Bytes that the store takes on the disk.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn bytes_on_disk(&self) -> Result<u64, Error>;

    /// Writes all that is there into a new store and goes on with that one, durably: it takes only the bytes that it
    /// needs. Reads go on meanwhile. A crash leaves the old store or the new one.
    ///
    /// # Errors
    ///
    /// If the disk refuses. The new store needs room beside the old one.
    fn rebuild(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Self>;

    /// Releases the store, so that it can be opened again. Whatever is done with it afterwards fails.
    fn close(&self) -> impl Future<Output = ()> + Send + 'static + use<Self>;
}

/// A file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name, without the folder's.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The files of one flat folder. As with [`Kv`], work begins with the call, and an error of a write is final.
pub trait Files: Clone + Send + Sync + 'static {
    /// Up to `bytes` bytes of the file from `offset` on; fewer at its end. `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, Error>;

    /// All files, sorted by name. Folders are left out.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn list(&self) -> Result<Vec<FileInfo>, Error>;

    /// Writes `bytes` over the file at `offset`, creating it if need be. Durable when done; a crash before that may
    /// leave any mixture of old and new bytes in this range, and changes nothing outside of it.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn overwrite(
        &self,
        name: &str,
        offset: u64,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Self>;

    /// Adds `bytes` at the end of the file, creating it if need be. Not durable before [`Files::seal`].
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn append(
        &self,
        name: &str,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Self>;

    /// Makes the file durable and gives it the name `to`, replacing what had it: after a crash, `to` is the old file
    /// or the new one, whole.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn seal(&self, name: &str, to: &str) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Self>;

    /// Removes the file if it is there. After a crash it may be back.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Self>;

    /// Lets go of the folder, so that it can be opened again.
    fn close(&self) -> impl Future<Output = ()> + Send + 'static + use<Self>;
}

/// Fails for a batch that a [`Kv`] must not take.
pub(crate) fn check_values(batch: &Batch, place: &dyn fmt::Display) -> Result<(), Error> {
    for op in &batch.ops {
        if let Op::Put { value, .. } = op
            && value.len() > MAX_VALUE_BYTES
        {
            let cause = format!("a value of {} bytes; at most {MAX_VALUE_BYTES} are allowed", value.len());
            return Err(Error::new("write to", place, io::Error::new(io::ErrorKind::InvalidInput, cause)));
        }
    }
    Ok(())
}
