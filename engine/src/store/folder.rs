//! A store in a folder that all nodes share: a local disk, or a volume that each mounts.
//!
//! An object is a file. It is written under a hidden name and linked to its own, which fails where that exists. Hidden
//! files are locked while their writer lives; [`Folder::clean`] removes those that nobody holds. Outputs are published by
//! renaming a folder. The file system must keep hard links, exclusive renames and locks, as local ones and NFS 4 do.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the store is files here")]

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Error, Kind, Meta, Name, PAGE, Page, Publish, Store, Version};
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
        let entries = match fs::read_dir(self.root.join(HIDDEN)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| failed("list", HIDDEN, e))?,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                // If it cannot be removed it does no harm: nobody reads there.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn path(&self, name: &Name) -> Result<PathBuf, Error> {
        if name.as_str() == HIDDEN || name.as_str().starts_with(&format!("{HIDDEN}/")) {
            return Err(Error::new(Kind::Denied, format!("{name}: the store keeps that name for itself")));
        }
        Ok(self.root.join(name.as_str()))
    }

    /// A hidden file of these bytes, locked.
    fn hidden(&self, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
        let folder = self.root.join(HIDDEN);
        fs::create_dir_all(&folder)?;
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

    /// Gives `path` to the file of another name. The folders above may go while we come: others remove empty ones.
    fn link(&self, from: &Path, path: &Path) -> io::Result<()> {
        let above = path.parent().unwrap_or(&self.root);
        for _ in 0..TRIES {
            // Where one of the folders is an object, the system says that it exists.
            fs::create_dir_all(above).map_err(|e| match e.kind() {
                ErrorKind::AlreadyExists => ErrorKind::NotADirectory.into(),
                _ => e,
            })?;
            match fs::hard_link(from, path) {
                Err(e) if e.kind() == ErrorKind::NotFound && from.exists() => {}
                Ok(()) if self.sync => return sync_folder(above),
                done => return done,
            }
        }
        Err(io::Error::other("others remove its folder again and again"))
    }

    fn walk(&self, below: &str, prefix: &str, found: &mut Vec<(Name, Meta)>) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(below)) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // What cannot be named is no object.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            let within = name.starts_with(prefix) || prefix.starts_with(&format!("{name}/"));
            let (true, Ok(named)) = (within && name != HIDDEN, Name::new(name.as_str())) else { continue };
            match fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() => self.walk(&name, prefix, found)?,
                Ok(meta) if name.starts_with(prefix) => found.push((named, meta_of(&meta))),
                Ok(_) => {}
                // Deleted since, or a link that leads nowhere.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|folder| folder.sync_all())
}

fn meta_of(meta: &fs::Metadata) -> Meta {
    let version = format!("{:x}-{:x}-{:x}.{:x}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    let seconds = u64::try_from(meta.mtime()).unwrap_or(0);
    let modified_ms = seconds.saturating_mul(1000) + u64::try_from(meta.mtime_nsec()).unwrap_or(0) / 1_000_000;
    Meta { len: meta.len(), version: Version(version), modified_ms }
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
        (_, Some(libc::EIO)) => (Kind::Retryable, format!("{e}; check the store's disk")),
        _ => (Kind::Retryable, e.to_string()),
    };
    Error::new(kind, format!("cannot {action} {name}: {text}"))
}

impl Store for Folder {
    async fn head(&self, name: &Name) -> Result<Meta, Error> {
        let meta = fs::metadata(self.path(name)?).map_err(|e| failed("look up", name, e))?;
        match meta.is_dir() {
            true => Err(failed("look up", name, ErrorKind::NotFound.into())),
            false => Ok(meta_of(&meta)),
        }
    }

    async fn get(&self, name: &Name, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let read = || {
            let file = File::open(self.path(name).map_err(io::Error::other)?)?;
            let end = range.end.min(file.metadata()?.len());
            let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        };
        self.path(name)?;
        read().map_err(|e| failed("read", name, e))
    }

    async fn put(&self, name: &Name, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        let path = self.path(name)?;
        // Before all bytes are written for nothing.
        if path.exists() {
            return Err(failed("put", name, ErrorKind::AlreadyExists.into()));
        }
        let hidden = self.hidden(bytes.bytes()).map_err(|e| failed("put", name, e))?;
        self.link(hidden.path(), &path).map_err(|e| failed("put", name, e))
    }

    async fn replace(&self, name: &Name, version: &Version, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
        let path = self.path(name)?;
        let changed = || Error::new(Kind::Changed, format!("{name}: it has been changed or deleted meanwhile"));
        let is_that = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta_of(&meta).version == *version);
        if !is_that(&path) {
            return Err(changed());
        }
        let fail = |e| failed("replace", name, e);
        let hidden = self.hidden(bytes.bytes()).map_err(fail)?;
        let exchange = || match renameat_with(CWD, hidden.path(), CWD, &path, RenameFlags::EXCHANGE) {
            Err(rustix::io::Errno::NOENT) if hidden.path().exists() => Err(changed()),
            done => done.map_err(|e| fail(e.into())),
        };
        exchange()?;
        // What was there is hidden now, and goes with that name, unless it is something else.
        if !is_that(hidden.path()) {
            exchange()?;
            return Err(changed());
        }
        if self.sync {
            sync_folder(path.parent().unwrap_or(&self.root)).map_err(fail)?;
        }
        Ok(())
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<(), Error> {
        let (source, target) = (self.path(from)?, self.path(to)?);
        self.head(from).await?;
        // Objects are never written to again, so that two names may share one file.
        self.link(&source, &target).map_err(|e| failed("copy", format!("{from} to {to}"), e))
    }

    async fn list(&self, prefix: &str, after: Option<&Name>) -> Result<Page, Error> {
        let mut found = Vec::new();
        let below = prefix.rsplit_once('/').map_or("", |(below, _)| below);
        if !below.is_empty() {
            Name::new(below)?;
        }
        self.walk(below, prefix, &mut found).map_err(|e| failed("list", format!("'{prefix}'"), e))?;
        found.retain(|(name, _)| after.is_none_or(|after| name > after));
        // The order of names is not that of folders: `a-b` comes before `a/b`.
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let more = found.len() > PAGE;
        found.truncate(PAGE);
        Ok(Page { objects: found, more })
    }

    async fn delete(&self, name: &Name, version: Option<&Version>) -> Result<(), Error> {
        let path = self.path(name)?;
        if let Some(version) = version
            && !self.head(name).await.is_ok_and(|meta| meta.version == *version)
        {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Ok(()) => {
                // The folders above, as far as they are empty.
                let above = path.ancestors().skip(1).take_while(|folder| *folder != self.root);
                above.map_while(|folder| fs::remove_dir(folder).ok()).for_each(drop);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
            Err(e) => Err(failed("delete", name, e)),
        }
    }

    fn publish(&self) -> Publish {
        Publish::Rename
    }

    async fn rename(&self, from: &Name, to: &Name, exchange: bool) -> Result<(), Error> {
        let (source, target) = (self.path(from)?, self.path(to)?);
        let fail = |e| failed("rename", format!("{from} to {to}"), e);
        if fs::symlink_metadata(&source).map_err(fail)?.is_file() {
            return Err(fail(ErrorKind::NotFound.into()));
        }
        if self.sync {
            sync_folder(&source).map_err(fail)?;
        }
        let above = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(above).map_err(fail)?;
        let swaps = exchange && fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_dir());
        let flags = if swaps { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &source, CWD, &target, flags).map_err(|e| match e {
            // What was there went in between.
            rustix::io::Errno::NOENT if swaps && source.exists() => {
                Error::new(Kind::Retryable, format!("cannot rename {from} to {to}: that went meanwhile"))
            }
            e => fail(e.into()),
        })?;
        if self.sync {
            sync_folder(above).map_err(fail)?;
        }
        Ok(())
    }

    fn local_path(&self, name: &Name) -> Option<PathBuf> {
        self.path(name).ok()
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
}
