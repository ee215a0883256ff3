//! Files that come together: each whole or not at all, and what was put is taken away when another cannot be.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::super::super::failure::Failure;

/// The mode of what its owner alone may read.
const SECRET: u32 = 0o600;
/// That of what everybody may.
const PUBLIC: u32 = 0o644;

/// A file that is to be.
pub(super) struct File<'a> {
    /// Its name within the folder.
    pub name: String,
    /// What it holds.
    pub text: &'a str,
    /// Whether its owner alone may read it.
    pub secret: bool,
}

/// Puts them into a folder, which is made if it is not there. With `force` they replace others of their names; what was
/// replaced before a failure stays so.
///
/// # Errors
///
/// That one is there, or cannot be written.
pub(super) fn put(folder: &Path, files: &[File<'_>], force: bool) -> Result<(), Failure> {
    if let Some(taken) = files.iter().map(|file| folder.join(&file.name)).find(|path| path.exists() && !force) {
        return Err(exists(&taken));
    }
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    // All are on the disk before the first is seen.
    let written = files.iter().map(|file| write(folder, file).map_err(failed(&folder.join(&file.name))));
    let written = written.collect::<Result<Vec<TempPath>, _>>()?;
    let mut fresh = Fresh::default();
    for (file, text) in files.iter().zip(written) {
        let path = folder.join(&file.name);
        if force {
            text.persist(&path).map_err(|e| failed(&path)(e.error))?;
        } else {
            text.persist_noclobber(&path).map_err(|e| match e.error.kind() {
                io::ErrorKind::AlreadyExists => exists(&path),
                _ => failed(&path)(e.error),
            })?;
            fresh.0.push(path);
        }
    }
    fresh.0.clear();
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

fn exists(path: &Path) -> Failure {
    Failure::Usage(format!("{} is there already; replace it with --force", path.display()))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failure + use<> {
    let path = path.to_path_buf();
    move |source| Failure::File { action: "write", path, source }
}

/// What was put where nothing was: it goes with this.
#[derive(Default)]
struct Fresh(Vec<PathBuf>);

impl Drop for Fresh {
    fn drop(&mut self) {
        for path in &self.0 {
            // That they were not all put is told already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Under a name that nobody looks for.
fn write(folder: &Path, file: &File<'_>) -> io::Result<TempPath> {
    let mut new = NamedTempFile::new_in(folder)?;
    // Nobody may read it meanwhile: it is made for its owner alone.
    new.write_all(file.text.as_bytes())?;
    let mode = if file.secret { SECRET } else { PUBLIC };
    new.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    Ok(new.into_temp_path())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(text: &str) -> [File<'_>; 2] {
        [("a", true), ("b", false)].map(|(name, secret)| File { name: name.into(), text, secret })
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn all_or_none_and_nothing_is_replaced_unasked() {
        let at = tempfile::tempdir().unwrap();
        let folder = at.path().join("new/folder");
        put(&folder, &files("one"), false).unwrap();
        for (name, mode) in [("a", 0o600), ("b", 0o644)] {
            assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777, mode);
        }
        fs::remove_file(folder.join("a")).unwrap();
        let failure = put(&folder, &files("two"), false).unwrap_err();
        assert!(failure.code() == 2 && failure.line().contains("--force"), "{failure:?}");
        assert_eq!((names(&folder), fs::read_to_string(folder.join("b")).unwrap()), (vec!["b".into()], "one".into()));
        put(&folder, &files("two"), true).unwrap();
        assert_eq!((names(&folder).len(), fs::read_to_string(folder.join("b")).unwrap()), (2, "two".into()));
        // A name that leads nowhere is seen only when it is put: what was put before it goes.
        fs::remove_file(folder.join("a")).unwrap();
        fs::remove_file(folder.join("b")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join("b")).unwrap();
        assert!(put(&folder, &files("three"), false).is_err());
        assert_eq!(names(&folder), ["b"]);
    }
}
