//! What a node keeps in its own folder beside the log and scratch: that it is the only one there, which cluster it belongs
//! to, and who it is as a worker.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The file whose lock a node holds for as long as it lives.
const LOCK: &str = "lock";
/// The file that holds the id of the cluster that the folder belongs to.
const CLUSTER: &str = "cluster";
/// The file that tells workers of one name apart.
const WORKER: &str = "worker";

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system, or what is in it, does not allow it.
    #[error("cannot use {}: {source}", path.display())]
    Unusable {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two nodes would write over each other.
    #[error("another process runs a node on {}; end that one first, or give this one another --data", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Unusable { path, source }
}

/// Makes a folder that is not there.
///
/// # Errors
/// [`Error::Unusable`].
pub fn make(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(unusable(path))
}

/// As [`make`], for what is nobody else's to read: verifiers of passwords and keys are in the log, and inputs in scratch. One
/// that is there is closed to others.
///
/// # Errors
/// [`Error::Unusable`].
pub fn make_private(path: &Path) -> Result<(), Error> {
    make(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(unusable(path))
}

/// Removes a folder with all that is in it, if it is there.
///
/// # Errors
/// [`Error::Unusable`].
pub fn clear(path: &Path) -> Result<(), Error> {
    gristmill_engine::scratch::remove_folder(path).map_err(unusable(path))
}

/// Takes a folder for as long as the file that this gives is open.
///
/// # Errors
/// [`Error::Taken`] while another process has it.
pub fn lock(data: &Path) -> Result<File, Error> {
    let path = data.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Taken { path: data.into() }),
        Err(TryLockError::Error(e)) => Err(unusable(&path)(e)),
    }
}

/// How far a folder has come to be a member's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It makes its cluster.
    New,
    /// It asks to be taken in. Never must it make one.
    Joining,
    /// It is being filled from a backup: what is in its log's folder is not whole.
    Restoring,
    /// It has been taken in.
    Member,
}

impl Stage {
    const ALL: [Self; 4] = [Self::New, Self::Joining, Self::Restoring, Self::Member];

    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Joining => "joining",
            Self::Restoring => "restoring",
            Self::Member => "member",
        }
    }
}

/// The cluster that a folder belongs to, and how far it has come, if it has begun to.
///
/// # Errors
/// When it cannot be read, or says something else.
pub fn cluster(data: &Path) -> Result<Option<(u64, Stage)>, Error> {
    let path = data.join(CLUSTER);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text).map(Some).ok_or_else(|| {
            let source = io::Error::other("it holds no id of a cluster; restore it, or begin with an empty folder");
            Error::Unusable { path, source }
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Unusable { path, source }),
    }
}

fn parse(text: &str) -> Option<(u64, Stage)> {
    let (cluster, word) = text.trim().split_once(' ')?;
    let stage = Stage::ALL.into_iter().find(|stage| stage.word() == word)?;
    Some((u64::from_str_radix(cluster, 16).ok()?, stage))
}

/// Writes down which cluster the folder belongs to, before anything else is in it, and how far it has come.
///
/// # Errors
/// When it cannot be written.
pub fn belong(data: &Path, cluster: u64, stage: Stage) -> Result<(), Error> {
    write(data, CLUSTER, &format!("{cluster:016x} {}\n", stage.word()))
}

/// The number by which the cluster knows that a worker that comes back is the same one; made when it is first asked for.
///
/// # Errors
/// When it cannot be read or written, or is none.
pub fn worker(data: &Path) -> Result<u64, Error> {
    let path = data.join(WORKER);
    match fs::read_to_string(&path) {
        Ok(text) => u64::from_str_radix(text.trim(), 16).map_err(|_| {
            let source = io::Error::other("it holds no worker's number; remove it");
            Error::Unusable { path, source }
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let number = rand::random::<u64>().max(1);
            write(data, WORKER, &format!("{number:016x}\n"))?;
            Ok(number)
        }
        Err(source) => Err(Error::Unusable { path, source }),
    }
}

fn write(data: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = data.join(name);
    let write = || {
        let new = data.join(format!("{name}.new"));
        fs::write(&new, text)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(data)?.sync_all()
    };
    write().map_err(unusable(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_nodes_until_that_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let refused = lock(dir.path()).unwrap_err();
        assert!(refused.to_string().contains("another process runs a node on"), "{refused}");
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn what_is_written_down_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cluster(dir.path()).unwrap(), None);
        for stage in Stage::ALL {
            belong(dir.path(), 0xAB, stage).unwrap();
            assert_eq!(cluster(dir.path()).unwrap(), Some((0xAB, stage)));
        }
        let number = worker(dir.path()).unwrap();
        assert!(number != 0 && worker(dir.path()).unwrap() == number);
        fs::write(dir.path().join(CLUSTER), "nonsense").unwrap();
        fs::write(dir.path().join(WORKER), "nonsense").unwrap();
        assert!(cluster(dir.path()).is_err() && worker(dir.path()).is_err());
    }
}
