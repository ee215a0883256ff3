//! Scratch: a worker's own disk, as the data plane sees it.
//!
//! Files have names like `job/map-3`, are written from their start to their end and then read at any place or mapped.
//! Calls are synchronous, since whoever makes them is on a thread of its own, and few: none is made for a record. What
//! lies here may be lost at any time; the store is what keeps.

mod folder;
mod memory;

use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use folder::{Folder, map_file, remove_folder};
pub use memory::{Memory, Op};

use crate::data::segment::ReadAt;

/// Bytes that stay where they are for as long as the mapping lives.
pub trait Mapping: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// Whether all bytes that were read so far are the file's: a mapped file that others cut short reads as zeros.
    fn is_intact(&self) -> bool {
        true
    }

    /// Lets go of memory that can be had again; whoever touches those bytes later gets them.
    fn release(&self, range: Range<usize>) {
        let _ = range;
    }
}

impl Mapping for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A stretch of a mapping.
#[derive(Clone)]
pub struct Slice {
    mapping: Arc<dyn Mapping>,
    range: Range<usize>,
}

impl Slice {
    /// These bytes of a mapping; `None` when it has not as many.
    pub fn new(mapping: Arc<dyn Mapping>, offset: u64, len: u64) -> Option<Self> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (end <= mapping.bytes().len()).then_some(Self { mapping, range: start..end })
    }
}

impl Mapping for Slice {
    fn bytes(&self) -> &[u8] {
        &self.mapping.bytes()[self.range.clone()]
    }
    fn is_intact(&self) -> bool {
        self.mapping.is_intact()
    }
}

impl ReadAt for dyn Mapping {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes().read_exact_at(buf, offset)?;
        if self.is_intact() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// A file without a name: written, then read at any place, and gone when dropped or when the process ends.
pub trait Temporary: Write + ReadAt + Send + Sync {}

impl<T: Write + ReadAt + Send + Sync> Temporary for T {}

/// A worker's own disk.
pub trait Scratch: Send + Sync {
    /// Creates a file, with the folders above it. A file of that name is replaced.
    ///
    /// # Errors
    /// What the disk says.
    fn create(&self, name: &str) -> Result<Box<dyn Write + Send>, Error>;

    /// Opens a file to write behind what it holds; creates it where it is not there.
    ///
    /// # Errors
    /// What the disk says.
    fn append(&self, name: &str) -> Result<Box<dyn Write + Send>, Error>;

    /// Creates a file without a name.
    ///
    /// # Errors
    /// What the disk says.
    fn temporary(&self) -> Result<Box<dyn Temporary>, Error>;

    /// The bytes of a file. Nobody may write to it any more.
    ///
    /// # Errors
    /// What the disk says.
    fn map(&self, name: &str) -> Result<Arc<dyn Mapping>, Error>;

    /// Removes a file. It is no error if it is not there.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, name: &str) -> Result<(), Error>;

    /// All files whose names begin so, with their sizes, in the order of names.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// What the disk says.
    fn size(&self, name: &str) -> Result<u64, Error>;

    /// Where a file is, for messages; of the name `""`, where all are.
    fn place(&self, name: &str) -> PathBuf;
}

/// Why something on scratch failed: what was tried, on which file, the system's word, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
pub struct Error {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// The system's word on it.
    pub source: io::Error,
}

impl Error {
    /// An error of this action on this file.
    pub fn at(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { action, path, source }
    }
}

fn advice(e: &io::Error) -> &'static str {
    match (e.kind(), e.raw_os_error()) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
            "; free space there, or give another folder for scratch"
        }
        (io::ErrorKind::NotFound, _) => "; the task that wrote it must run again",
        (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem, _) => "; make the folder writable",
        (io::ErrorKind::InvalidInput, _) => "",
        (_, Some(libc::EIO)) => "; the disk is failing, take the worker off it",
        _ => "",
    }
}

/// Refuses names that lead out of scratch, or that no disk takes.
fn check_name(name: &str) -> io::Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    if name.split('/').all(plain) && name.len() <= 1024 && !name.contains('\0') {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a file on scratch; report this as a bug"))
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "tests look at files")]
mod tests {
    use super::*;

    /// What every scratch must do.
    fn conforms(scratch: &dyn Scratch) {
        let write = |name: &str, bytes: &[u8]| scratch.create(name).unwrap().write_all(bytes).unwrap();
        write("job/b", b"old and long");
        write("job/b", b"bytes");
        write("job/a/1", b"");
        let mut more = scratch.append("job/b").unwrap();
        more.write_all(b" and ").unwrap();
        more.write_all(b"more").unwrap();
        drop(more);
        scratch.append("other").unwrap().write_all(b"x").unwrap();
        let mapped = scratch.map("job/b").unwrap();
        assert_eq!((mapped.bytes(), mapped.is_intact()), (&b"bytes and more"[..], true));
        mapped.release(0..mapped.bytes().len());
        assert_eq!(mapped.bytes(), b"bytes and more");
        assert_eq!(scratch.map("job/a/1").unwrap().bytes(), b"");
        assert_eq!(scratch.size("job/b").unwrap(), 14);
        assert_eq!(scratch.list("job/").unwrap(), [("job/a/1".into(), 0), ("job/b".into(), 14)]);
        assert_eq!(scratch.list("job/b").unwrap(), [("job/b".into(), 14)]);
        assert_eq!(scratch.list("job/a/").unwrap(), [("job/a/1".into(), 0)]);
        assert_eq!(scratch.list("none/here/").unwrap(), []);
        assert_eq!(scratch.list("").unwrap().len(), 3);
        let slice = Slice::new(mapped.clone(), 6, 3).unwrap();
        assert_eq!(slice.bytes(), b"and");
        assert!(Slice::new(mapped.clone(), 6, 9).is_none() && Slice::new(mapped, u64::MAX, 9).is_none());
        scratch.remove("job/b").unwrap();
        scratch.remove("job/b").unwrap();
        for error in [scratch.map("job/b").err(), scratch.size("job/b").err()] {
            let error = error.unwrap();
            assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains("job/b"), "{error}");
        }
        let mut temporary = scratch.temporary().unwrap();
        temporary.write_all(b"0123456789").unwrap();
        let mut got = [0; 3];
        temporary.read_exact_at(&mut got, 4).unwrap();
        assert_eq!(&got, b"456");
        assert!(temporary.read_exact_at(&mut got, 8).is_err());
        assert_eq!(scratch.list("").unwrap().len(), 2);
        for name in ["", "/etc/x", "../x", "a//b", "a/./b", "a/..", "a\0", &"x".repeat(300)] {
            assert!(scratch.create(name).is_err(), "{name}");
            assert!(scratch.map(name).is_err(), "{name}");
            assert!(scratch.remove(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_folder_is_scratch() {
        let dir = tempfile::tempdir().unwrap();
        conforms(&Folder::new(dir.path()));
    }

    #[test]
    fn memory_is_scratch() {
        conforms(&Memory::default());
    }

    #[test]
    fn a_folder_that_is_full_says_so() {
        let Ok(mut full) = std::fs::File::options().write(true).open("/dev/full") else { return };
        let error = full.write_all(b"x").map_err(Error::at("write", "map-1")).unwrap_err();
        assert!(
            error.to_string().contains("map-1: No space left on device") && error.to_string().contains("free space")
        );
    }

    #[test]
    fn memory_fails_where_it_is_told_to() {
        let memory = Memory::failing(|op, name| {
            let fails = matches!(op, Op::Write(_)) && name == "b";
            fails.then(|| io::Error::from_raw_os_error(libc::EIO))
        });
        memory.create("a").unwrap().write_all(b"x").unwrap();
        let error = memory.create("b").unwrap().write_all(b"x").map_err(Error::at("write", "b")).unwrap_err();
        assert!(error.to_string().contains("the disk is failing"), "{error}");
    }
}
