//! An output that is being made: a hidden folder beside it, published by one rename when it is whole.
//!
//! A folder to be overwritten is exchanged for the new one in the same step, looked at, and removed: if it has become
//! something else than an output since the job began, it is exchanged back. Hidden folders are locked while their
//! process lives; the next job for the same output removes those that nobody holds.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::target::{check, is_replaceable, neighbours, plain};
use super::{Manifest, SUCCESS};
use crate::error::Error;

/// How often a hidden folder is tried to be made, when others remove it or the folder that it is in.
const TRIES: usize = 100;

/// A hidden folder where an output is being made. Removed when dropped, unless published.
#[derive(Debug)]
pub(crate) struct Pending {
    target: PathBuf,
    hidden: PathBuf,
    overwrite: bool,
    /// Holds the lock.
    _held: File,
    published: bool,
    parents: Parents,
}

impl Pending {
    /// Refuses an existing output, clears what dead processes left, and makes the hidden folder.
    pub(crate) fn begin(target: &Path, overwrite: bool) -> Result<Self, Error> {
        check(target, overwrite)?;
        let target = plain(target);
        let (parent, prefix) = neighbours(&target);
        let parents = Parents::make(&parent)?;
        clear_dead(&parent, &prefix);
        for _ in 0..TRIES {
            // Not the builder's own folders: those are private, and their errors tell the random name.
            let folder = tempfile::Builder::new().prefix(&prefix).make_in(&parent, |path| fs::create_dir(path));
            let hidden = match folder.and_then(|folder| Ok(folder.into_temp_path().keep()?)) {
                Ok(hidden) => hidden,
                // Another job that shares the folder has failed, and taken it along.
                Err(e) if e.kind() == io::ErrorKind::NotFound && parents.again().is_ok() => continue,
                Err(e) => return Err(Error::write("create a folder in", &parent)(e)),
            };
            match held(&hidden) {
                Ok(held) if hidden.exists() => {
                    return Ok(Self { target, hidden, overwrite, _held: held, published: false, parents });
                }
                // Another process took it for a dead one's, between its creation and its lock.
                _ if !hidden.exists() => {}
                Ok(_) => {}
                Err(e) => return Err(Error::write("lock folder", hidden)(e)),
            }
        }
        let e = io::Error::other("others remove it again and again");
        Err(Error::write("create a folder in", &parent)(e))
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.target.clone()
    }

    #[cfg(test)]
    fn folder(&self) -> &Path {
        &self.hidden
    }

    /// Creates a file in the hidden folder.
    pub(crate) fn create(&self, name: &str) -> Result<File, Error> {
        let path = self.hidden.join(name);
        File::create_new(&path).map_err(Error::write("create", self.target.join(name)))
    }

    /// Writes a whole file into the hidden folder.
    pub(crate) fn write(&self, name: &str, bytes: &[u8], sync: bool) -> Result<(), Error> {
        let path = self.hidden.join(name);
        let result = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            let mut file = File::create_new(&path)?;
            io::Write::write_all(&mut file, bytes)?;
            if sync { file.sync_all() } else { Ok(()) }
        });
        result.map_err(Error::write("write", self.target.join(name)))
    }

    /// Makes the output visible with its manifest.
    pub(crate) fn publish(mut self, manifest: &Manifest, sync: bool) -> Result<(), Error> {
        let json = manifest.to_bytes().map_err(Error::write("write", SUCCESS))?;
        self.write(SUCCESS, &json, sync)?;
        let fail = || Error::write("publish", &self.target);
        if sync {
            File::open(&self.hidden).and_then(|d| d.sync_all()).map_err(fail())?;
        }
        match renameat_with(CWD, &self.hidden, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) if self.overwrite => self.exchange()?,
            Err(rustix::io::Errno::EXIST) => return Err(Error::OutputExists(self.target.clone())),
            // A file system without exclusive renames: an empty folder is all that this could replace.
            Err(rustix::io::Errno::INVAL) => fs::rename(&self.hidden, &self.target).map_err(fail())?,
            Err(e) => return Err(fail()(e.into())),
        }
        self.published = true;
        if sync {
            let (parent, _) = neighbours(&self.target);
            File::open(&parent).and_then(|d| d.sync_all()).map_err(Error::write("sync", parent))?;
        }
        Ok(())
    }

    /// Exchanges what is there for the new output, and removes it if it may be removed.
    fn exchange(&mut self) -> Result<(), Error> {
        let swap = || renameat_with(CWD, &self.hidden, CWD, &self.target, RenameFlags::EXCHANGE);
        swap().map_err(|e| Error::write("publish", &self.target)(e.into()))?;
        // Only now can nobody put anything there any more: what it was when the job began does not count.
        if fs::symlink_metadata(&self.hidden).is_ok_and(|meta| is_replaceable(&self.hidden, &meta)) {
            // What cannot be removed is told of by whoever asks `leftover`: the result is published.
            let _ = fs::remove_dir_all(&self.hidden);
            return Ok(());
        }
        if let Err(e) = swap() {
            // It must not be removed with us.
            self.published = true;
            let kept = self.hidden.display();
            let e = format!("what was there is no output and is kept as {kept}, since it cannot be put back: {e}");
            return Err(Error::write("publish", &self.target)(io::Error::other(e)));
        }
        Err(Error::NotAnOutput(self.target.clone()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.published {
            // The job has failed already; what cannot be removed is left to the next.
            let _ = fs::remove_dir_all(&self.hidden);
            self.parents.remove();
        }
    }
}

/// The folders above an output that were not there before.
#[derive(Debug)]
struct Parents {
    parent: PathBuf,
    /// The deepest first.
    made: Vec<PathBuf>,
}

impl Parents {
    fn make(parent: &Path) -> Result<Self, Error> {
        let made = parent.ancestors().filter(|p| !p.as_os_str().is_empty()).take_while(|p| !p.exists());
        let parents = Self { parent: parent.into(), made: made.map(Path::to_path_buf).collect() };
        match parents.again() {
            Ok(()) => Ok(parents),
            Err(e) => {
                parents.remove();
                Err(Error::write("create folder", parent)(e))
            }
        }
    }

    fn again(&self) -> io::Result<()> {
        fs::create_dir_all(&self.parent)
    }

    /// Removes those that we made and nobody uses.
    fn remove(&self) {
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// Locks a new hidden folder.
fn held(hidden: &Path) -> io::Result<File> {
    let held = File::open(hidden)?;
    held.try_lock().map_err(io::Error::from)?;
    Ok(held)
}

/// Hidden folders for this output that no living process holds.
fn dead(parent: &Path, prefix: &OsStr) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let ours = entries.flatten().filter(|e| e.file_name().as_bytes().starts_with(prefix.as_bytes()));
    ours.map(|e| e.path()).filter(|path| File::open(path).is_ok_and(|f| f.try_lock().is_ok())).collect()
}

fn clear_dead(parent: &Path, prefix: &OsString) {
    for path in dead(parent, prefix) {
        // If it cannot be removed it does no harm: readers never look at hidden folders.
        let _ = fs::remove_dir_all(&path);
    }
}

/// An earlier output that could not be removed after it was replaced.
pub(crate) fn leftover(target: &Path) -> Option<PathBuf> {
    let (parent, prefix) = neighbours(&plain(target));
    dead(&parent, &prefix).pop()
}

#[cfg(test)]
mod tests {
    use super::super::{PartEntry, part_name};
    use super::*;
    use crate::data::output::PartSummary;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    fn manifest() -> Manifest {
        let summary = PartSummary { records: 1, bytes: 2, crc32c: 3 };
        let parts = vec![PartEntry { name: part_name(0, None), summary }];
        Manifest::new("test", parts, BTreeMap::from([("seen".into(), 4)]), 0)
    }

    fn make(target: &Path, overwrite: bool, content: &[u8]) -> Result<(), Error> {
        let pending = Pending::begin(target, overwrite)?;
        pending.write("part-00000", content, false)?;
        assert!(!target.join("part-00000").exists() || overwrite);
        pending.publish(&manifest(), true)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        all.sort();
        all
    }

    #[test]
    fn output_appears_whole_and_is_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/out");
        make(&out, false, b"one").unwrap();
        assert_eq!(Manifest::read(&out).unwrap(), manifest());
        assert!(matches!(make(&out, false, b"two"), Err(Error::OutputExists(_))));
        assert_eq!(fs::read(out.join("part-00000")).unwrap(), b"one");
        make(&out, true, b"three").unwrap();
        assert_eq!(fs::read(out.join("part-00000")).unwrap(), b"three");
        assert_eq!(names(&dir.path().join("a")), ["out"]);
    }

    #[test]
    fn a_folder_that_is_no_output_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), b"data").unwrap();
        let error = make(dir.path(), true, b"").unwrap_err();
        assert!(error.to_string().contains("_SUCCESS"), "{error}");
        assert_eq!(names(dir.path()), ["precious"]);
    }

    #[test]
    fn an_output_that_failed_leaves_nothing_and_dead_ones_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        drop(Pending::begin(&out, false).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
        // As a killed process leaves it: nobody holds the lock.
        fs::create_dir(dir.path().join(".out.gristmill-dead")).unwrap();
        let living = Pending::begin(&out, false).unwrap();
        make(&out, false, b"x").unwrap();
        assert!(living.folder().exists());
        assert!(!dir.path().join(".out.gristmill-dead").exists());
        assert!(matches!(living.publish(&manifest(), false), Err(Error::OutputExists(_))));
    }

    #[test]
    fn what_became_precious_while_the_job_ran_is_put_back() {
        let precious = |out: &Path| fs::write(out.join("precious"), "data").unwrap();
        type Step<'s> = &'s dyn Fn(&Path);
        // What is there when the job begins, and what is done to it until it ends.
        let cases: [(Step<'_>, Step<'_>); 4] = [
            (&|_| {}, &|out| fs::create_dir(out).unwrap()),
            (&|out| fs::create_dir(out).unwrap(), &|_| {}),
            (&|out| make(out, false, b"old").unwrap(), &|out| fs::remove_file(out.join(SUCCESS)).unwrap()),
            (&|_| {}, &|out| symlink(".", out).unwrap()),
        ];
        for (n, (before, meanwhile)) in cases.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            before(&out);
            let pending = Pending::begin(&out, true).unwrap();
            meanwhile(&out);
            precious(&out);
            assert!(matches!(pending.publish(&manifest(), false), Err(Error::NotAnOutput(_))), "{n}");
            assert_eq!(fs::read(out.join("precious")).unwrap(), b"data", "{n}");
            assert_eq!(names(dir.path()).iter().filter(|name| name.starts_with('.')).count(), 0, "{n}");
        }
    }

    #[test]
    fn folders_made_for_an_output_that_failed_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b/out");
        drop(Pending::begin(&out, false).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
        fs::create_dir(dir.path().join("a")).unwrap();
        drop(Pending::begin(&out, false).unwrap());
        assert_eq!(names(dir.path()), ["a"]);
        let failed = Pending::begin(&out, false).unwrap();
        fs::write(dir.path().join("a/b/of others"), "").unwrap();
        drop(failed);
        assert_eq!(names(&dir.path().join("a/b")), ["of others"]);
    }

    #[test]
    fn names_that_cannot_be_published_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        make(&path("real"), false, b"").unwrap();
        symlink("real", path("link")).unwrap();
        fs::write(path("file"), "").unwrap();
        for (name, overwrite, part) in [
            ("link", true, "is a symbolic link to real; name the folder itself"),
            ("file/out", false, "file is a file, not a folder"),
            ("real/..", true, "give the folder's own name"),
            ("none/..", false, "give the folder's own name"),
            (&"x".repeat(256), false, "the name is too long"),
        ] {
            let error = Pending::begin(&path(name), overwrite).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
        assert!(check(Path::new(""), false).unwrap_err().to_string().contains("empty name"));
        for name in ["new/.", "slash/", &"y".repeat(245), &"y".repeat(255)] {
            make(&path(name), false, b"").unwrap();
            make(&path(name), true, b"").unwrap();
        }
        assert_eq!(names(dir.path()).iter().filter(|name| name.starts_with('.')).count(), 0);
    }

    #[test]
    fn an_old_output_that_cannot_be_removed_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        assert_eq!(leftover(&out), None);
        fs::create_dir(dir.path().join(".out.gristmill-old")).unwrap();
        assert_eq!(leftover(&out), Some(dir.path().join(".out.gristmill-old")));
    }
}
