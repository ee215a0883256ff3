//! A store in a folder that all nodes share: a local disk, or a volume that each mounts.
//!
//! An object is a file. It is written under a hidden name and linked to its own, which fails where that exists. Hidden
//! files are locked while their writer lives; [`Folder::clean`] removes those that nobody holds. Outputs are published by
//! renaming a folder. The file system must keep hard links, exclusive renames and locks, as local ones and NFS 4 do.
//!
//! Symbolic links below the folder are no objects: they are not listed, and no call follows one ([`beneath`]). The folder
//! itself may be reached by links.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the store is files here")]

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, fstat, linkat, openat, renameat_with, statat,
    unlinkat,
};

use super::{Error, Kind, Meta, Name, PAGE, Page, Publish, Store, Version, beneath};
use crate::scratch::Mapping;

/// Where files lie before they have their name.
const HIDDEN: &str = ".gristmill-tmp";
/// How often a hidden file is made anew when others take it for a dead one's.
const TRIES: usize = 10;

/// A store below a folder.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    sync: bool,
}

impl Folder {
    /// A store below `root`, which is there. With `sync`, what was put survives a loss of power.
    pub fn new(root: impl Into<PathBuf>, sync: bool) -> Self {
        Self { root: root.into(), sync }
    }

    /// Removes what writers left that died before they were done. For when a node starts.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn clean(&self) -> Result<(), Error> {
        let fail = |e| failed("list", HIDDEN, e);
        let folder = match beneath::at(&self.root().map_err(fail)?, HIDDEN, LISTED) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            folder => folder.map_err(fail)?,
        };
        for entry in Dir::read_from(&folder).map_err(|e| fail(e.into()))?.flatten() {
            let opened = openat(&folder, entry.file_name(), ALONE, Mode::empty());
            if opened.is_ok_and(|file| File::from(file).try_lock().is_ok()) {
                // If it cannot be removed it does no harm: nobody reads there.
                let _ = unlinkat(&folder, entry.file_name(), AtFlags::empty());
            }
        }
        Ok(())
    }

    fn root(&self) -> io::Result<OwnedFd> {
        beneath::root(&self.root)
    }

    /// What is known of the file or folder of this name.
    fn stat(&self, name: &Name) -> io::Result<Stat> {
        Ok(fstat(beneath::at(&self.root()?, name.as_str(), OFlags::PATH)?)?)
    }

    /// Refuses names that the store keeps for itself.
    fn free(name: &Name) -> Result<(), Error> {
        if name.as_str() == HIDDEN || name.as_str().starts_with(&format!("{HIDDEN}/")) {
            return Err(Error::new(Kind::Denied, format!("{name}: the store keeps that name for itself")));
        }
        Ok(())
    }

    /// A hidden file of these bytes, locked.
    fn hidden(&self, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
        let folder = self.root.join(HIDDEN);
        fs::create_dir_all(&self.root)?;
        beneath::made_above(&self.root()?, &format!("{HIDDEN}/"))?;
        for _ in 0..TRIES {
            let mut builder = tempfile::Builder::new();
            let mut file = builder.permissions(readable()).tempfile_in(&folder)?;
            file.as_file().try_lock().map_err(io::Error::from)?;
            if file.as_file().metadata()?.nlink() == 0 {
                // Taken for a dead writer's, between its creation and its lock.
                continue;
            }
            file.write_all(bytes)?;
            if self.sync {
                file.as_file().sync_all()?;
            }
            return Ok(file);
        }
        Err(io::Error::other("others remove new files again and again"))
    }

    /// Gives `name` to the file of another name. The folders above may go while we come: others remove empty ones.
    fn link(&self, (folder, from): (BorrowedFd<'_>, &Path), name: &Name) -> io::Result<()> {
        let (root, last) = (self.root()?, beneath::split(name.as_str()).1);
        for _ in 0..TRIES {
            let linked = beneath::made_above(&root, name.as_str()).and_then(|above| {
                linkat(folder, from, &above, last, AtFlags::empty())?;
                if self.sync { sync_folder(&above) } else { Ok(()) }
            });
            match linked {
                Err(e) if e.kind() == ErrorKind::NotFound && is_there(folder, from) => {}
                done => return done,
            }
        }
        Err(io::Error::other("others remove its folder again and again"))
    }

    /// Adds all objects of a folder, which is called `below`, whose names begin with `prefix`.
    fn walk(&self, folder: &OwnedFd, below: &str, prefix: &str, found: &mut Vec<(Name, Meta)>) -> io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            // What cannot be named is no object.
            let Ok(name) = entry.file_name().to_str() else { continue };
            let last = name;
            let name = if below.is_empty() { name.to_string() } else { format!("{below}/{name}") };
            let within = name.starts_with(prefix) || prefix.starts_with(&format!("{name}/"));
            let (true, Ok(named)) = (within && name != HIDDEN, Name::new(name.as_str())) else { continue };
            match statat(folder, last, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => match openat(folder, last, LISTED | ALONE, Mode::empty()) {
                        Ok(folder) => self.walk(&folder, &name, prefix, found)?,
                        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                        Err(e) => return Err(e.into()),
                    },
                    FileType::Symlink => {}
                    _ if name.starts_with(prefix) => found.push((named, meta_of(&stat))),
                    _ => {}
                },
                // Deleted since.
                Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// A folder whose entries are read.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// What an entry of a folder is itself, whatever that is.
const ALONE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// Makes what was done in a folder survive a loss of power.
fn sync_folder(folder: &OwnedFd) -> io::Result<()> {
    File::from(openat(folder, ".", LISTED, Mode::empty())?).sync_all()
}

fn is_there(folder: BorrowedFd<'_>, path: &Path) -> bool {
    statat(folder, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

#[allow(clippy::unnecessary_cast, reason = "these numbers have other types elsewhere")]
fn meta_of(stat: &Stat) -> Meta {
    let version = format!("{:x}-{:x}-{:x}.{:x}", stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let modified_ms = seconds.saturating_mul(1000) + stat.st_mtime_nsec / 1_000_000;
    Meta { len: stat.st_size as u64, version: Version(version), modified_ms }
}

fn failed(action: &str, name: impl std::fmt::Display, e: io::Error) -> Error {
    let (kind, text) = match (e.kind(), e.raw_os_error()) {
        (ErrorKind::NotFound, _) => (Kind::NotFound, "there is no such object".into()),
        (ErrorKind::AlreadyExists, _) | (ErrorKind::DirectoryNotEmpty, _) => {
            (Kind::AlreadyExists, "it exists already".into())
        }
        (ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem, _) => {
            (Kind::Denied, format!("{e}; give the process access to the store's folder"))
        }
        (ErrorKind::IsADirectory | ErrorKind::NotADirectory, _) => {
            (Kind::Denied, "an object and a folder would have one name".into())
        }
        (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => {
            (Kind::Retryable, format!("{e}; free space in the store"))
        }
        (_, Some(libc::ELOOP)) => {
            // To who looks, a link is nothing; who would write there hears why it cannot be.
            let kind = if matches!(action, "look up" | "read") { Kind::NotFound } else { Kind::Denied };
            (kind, "a symbolic link is on the way, and a store follows none; put the file itself there".into())
        }
        (_, Some(libc::EIO)) => (Kind::Retryable, format!("{e}; check the store's disk")),
        _ => (Kind::Retryable, e.to_string()),
    };
    Error::new(kind, format!("cannot {action} {name}: {text}"))
}

impl Store for Folder {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        Self::free(name)?;
        let stat = self.stat(name).map_err(|e| failed("look up", name, e))?;
        match is_folder(&stat) {
            true => Err(failed("look up", name, ErrorKind::NotFound.into())),
            false => Ok(meta_of(&stat)),
        }
    }

    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let read = || {
            let file = File::from(beneath::at(&self.root()?, name.as_str(), OFlags::RDONLY)?);
            let end = range.end.min(file.metadata()?.len());
            let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        };
        Self::free(name)?;
        read().map_err(|e| failed("read", name, e))
    }

    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        Self::free(name)?;
        // Before all bytes are written for nothing.
        match self.stat(name) {
            Ok(_) => return Err(failed("put", name, ErrorKind::AlreadyExists.into())),
            Err(e) if beneath::is_link(&e) => return Err(failed("put", name, e)),
            Err(_) => {}
        }
        let hidden = self.hidden(bytes.bytes()).map_err(|e| failed("put", name, e))?;
        self.link((CWD, hidden.path()), name).map_err(|e| failed("put", name, e))
    }

    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        Self::free(name)?;
        let changed = || Error::new(Kind::Changed, format!("{name}: it has been changed or deleted meanwhile"));
        let is_that = |stat: &Stat| meta_of(stat).version == *version;
        let fail = |e| failed("replace", name, e);
        match self.stat(name) {
            Err(e) if beneath::is_link(&e) => return Err(fail(e)),
            Ok(stat) if is_that(&stat) => {}
            _ => return Err(changed()),
        }
        let hidden = self.hidden(bytes.bytes()).map_err(fail)?;
        let above = self.root().and_then(|root| beneath::above(&root, name.as_str())).map_err(|_| changed())?;
        let last = beneath::split(name.as_str()).1;
        let exchange = || match renameat_with(CWD, hidden.path(), &above, last, RenameFlags::EXCHANGE) {
            Err(rustix::io::Errno::NOENT) if hidden.path().exists() => Err(changed()),
            done => done.map_err(|e| fail(e.into())),
        };
        exchange()?;
        // What was there is hidden now, and goes with that name, unless it is something else.
        if !statat(CWD, hidden.path(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| is_that(&stat)) {
            exchange()?;
            return Err(changed());
        }
        if self.sync {
            sync_folder(&above).map_err(fail)?;
        }
        Ok(())
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        Self::free(to)?;
        self.head(from).await?;
        let fail = |e| failed("copy", format!("{from} to {to}"), e);
        let source = self.root().and_then(|root| beneath::above(&root, from.as_str())).map_err(fail)?;
        // Objects are never written to again, so that two names may share one file.
        self.link((source.as_fd(), Path::new(beneath::split(from.as_str()).1)), to).map_err(fail)
    }

    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        let mut found = Vec::new();
        let below = prefix.rsplit_once('/').map_or("", |(below, _)| below);
        if !below.is_empty() {
            Name::new(below)?;
        }
        let fail = |e| failed("list", format!("'{prefix}'"), e);
        let root = self.root().map_err(fail)?;
        let folder = match below {
            "" => openat(&root, ".", LISTED, Mode::empty()).map_err(io::Error::from),
            below => beneath::at(&root, below, LISTED),
        };
        match folder {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) || beneath::is_link(&e) => {}
            folder => folder.and_then(|folder| self.walk(&folder, below, prefix, &mut found)).map_err(fail)?,
        }
        found.retain(|(name, _)| after.is_none_or(|after| name > after));
        // The order of names is not that of folders: `a-b` comes before `a/b`.
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let more = found.len() > PAGE;
        found.truncate(PAGE);
        Ok(Page { objects: found, more })
    }

    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        Self::free(name)?;
        if let Some(version) = version
            && !self.head(name).await.is_ok_and(|meta| meta.version == *version)
        {
            return Ok(());
        }
        let removed = |root: &OwnedFd, name: &str, flags| -> io::Result<()> {
            Ok(unlinkat(beneath::above(root, name)?, beneath::split(name).1, flags)?)
        };
        let fail = |e| failed("delete", name, e);
        let root = self.root().map_err(fail)?;
        match removed(&root, name.as_str(), AtFlags::empty()) {
            Ok(()) => {
                // The folders above, as far as they are empty.
                let above = std::iter::successors(Some(name.as_str()), |name| Some(beneath::split(name).0));
                let above = above.skip(1).take_while(|folder| !folder.is_empty());
                above.map_while(|folder| removed(&root, folder, AtFlags::REMOVEDIR).ok()).for_each(drop);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
            Err(e) => Err(fail(e)),
        }
    }

    fn publish(&self) -> Publish {
        Publish::Rename
    }

    async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
        Self::free(from).and_then(|()| Self::free(to))?;
        let fail = |e| failed("rename", format!("{from} to {to}"), e);
        let root = self.root().map_err(fail)?;
        let source = beneath::at(&root, from.as_str(), OFlags::PATH).map_err(fail)?;
        if !is_folder(&fstat(&source).map_err(|e| fail(e.into()))?) {
            return Err(fail(ErrorKind::NotFound.into()));
        }
        if self.sync {
            sync_folder(&source).map_err(fail)?;
        }
        let source = beneath::above(&root, from.as_str()).map_err(fail)?;
        let target = beneath::made_above(&root, to.as_str()).map_err(fail)?;
        let (first, last) = (beneath::split(from.as_str()).1, beneath::split(to.as_str()).1);
        let there = statat(&target, last, AtFlags::SYMLINK_NOFOLLOW);
        let swaps = exchange && there.is_ok_and(|stat| is_folder(&stat));
        let flags = if swaps { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(&source, first, &target, last, flags).map_err(|e| match e {
            // What was there went in between.
            rustix::io::Errno::NOENT if swaps && is_there(source.as_fd(), Path::new(first)) => {
                Error::new(Kind::Retryable, format!("cannot rename {from} to {to}: that went meanwhile"))
            }
            e => fail(e.into()),
        })?;
        if self.sync {
            sync_folder(&target).map_err(fail)?;
        }
        Ok(())
    }

    fn local_path(&self, name: &Name) -> Option<PathBuf> {
        // Whether a link is on the way is asked by whoever asks what is known of it, which comes first.
        Self::free(name).ok().map(|()| self.root.join(name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_of_the_dead_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Folder::new(dir.path(), false);
        store.clean().unwrap();
        let living = store.hidden(b"x").unwrap();
        let dead = dir.path().join(HIDDEN).join("dead");
        fs::write(&dead, "y").unwrap();
        store.clean().unwrap();
        assert!(living.path().exists() && !dead.exists());
    }

    /// Whoever can put links into the folder reads, writes and removes nothing outside by way of the store.
    #[test]
    fn links_lead_nowhere() {
        use std::os::unix::fs::symlink;

        use super::super::conformance::now;
        let (inner, outer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outer.path().join("secret"), "s").unwrap();
        fs::create_dir(outer.path().join("folder")).unwrap();
        symlink(inner.path(), outer.path().join("store")).unwrap();
        let store = Folder::new(outer.path().join("store"), true);
        symlink(outer.path(), inner.path().join("out")).unwrap();
        symlink(outer.path().join("secret"), inner.path().join("leak")).unwrap();
        symlink("in", inner.path().join("within")).unwrap();
        let name = |name: &str| Name::new(name).unwrap();
        let bytes = || Arc::new(b"new".to_vec());
        now(store.put(&name("in/file"), bytes())).unwrap();
        let denied = |done: Result<(), Error>| assert_eq!(done.unwrap_err().kind, Kind::Denied);
        let absent = |done: Result<(), Error>| assert_eq!(done.unwrap_err().kind, Kind::NotFound);
        for link in ["out/secret", "leak", "within/file"] {
            absent(now(store.head(&name(link))).map(drop));
            absent(now(store.get(&name(link), 0..1)).map(drop));
            absent(now(store.copy(&name(link), &name("copied"))));
            denied(now(store.put(&name(link), bytes())));
            denied(now(store.replace(&name(link), &Version("x".into()), bytes())));
        }
        denied(now(store.put(&name("out/new/file"), bytes())));
        denied(now(store.copy(&name("in/file"), &name("out/copied"))));
        denied(now(store.delete(&name("out/secret"), None)));
        denied(now(store.rename(&name("out/folder"), &name("moved"), false)));
        denied(now(store.rename(&name("in"), &name("out/moved"), false)));
        denied(now(store.rename(&name("out"), &name("moved"), false)));
        for prefix in ["", "out/", "leak", "within/"] {
            let found = now(store.list(prefix, None)).unwrap().objects;
            assert!(found.iter().all(|(name, _)| name.as_str() == "in/file"), "{prefix}: {found:?}");
        }
        // A link goes itself, and nothing behind it.
        now(store.delete(&name("leak"), None)).unwrap();
        let mut left: Vec<_> = fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["folder", "secret", "store"]);
        // Nor do hidden files lie elsewhere.
        fs::remove_dir_all(inner.path().join(HIDDEN)).unwrap();
        symlink(outer.path(), inner.path().join(HIDDEN)).unwrap();
        denied(store.clean());
        denied(now(store.put(&name("b"), bytes())));
        assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"s");
    }
}
