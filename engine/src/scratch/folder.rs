//! Scratch in a folder of the file system.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "scratch is files here")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, Mapping, Scratch, Temporary, check_name};
use crate::data::fault::Guard;
use crate::data::segment::ReadAt;

/// Scratch below a folder.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// Scratch below `dir`, which is there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn open(
        &self,
        action: &'static str,
        name: &str,
        options: &fs::OpenOptions,
    ) -> Result<Box<dyn Write + Send>, Error> {
        let path = self.dir.join(name);
        let open = || {
            check_name(name)?;
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            options.open(&path)
        };
        open().map(|file| Box::new(file) as _).map_err(Error::at(action, &path))
    }

    fn walk(&self, below: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
        let entries = match fs::read_dir(self.dir.join(below)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !below.is_empty() => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // What is not UTF-8 is not ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => self.walk(&name, found)?,
                Ok(meta) => found.push((name, meta.len())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Scratch for Folder {
    fn create(&self, name: &str) -> Result<Box<dyn Write + Send>, Error> {
        self.open("create", name, File::options().write(true).create(true).truncate(true))
    }

    fn append(&self, name: &str) -> Result<Box<dyn Write + Send>, Error> {
        self.open("open", name, File::options().append(true).create(true))
    }

    fn temporary(&self) -> Result<Box<dyn Temporary>, Error> {
        let file = tempfile::tempfile_in(&self.dir).map_err(Error::at("create a file in", &self.dir))?;
        Ok(Box::new(Unnamed(file)))
    }

    fn map(&self, name: &str) -> Result<Arc<dyn Mapping>, Error> {
        let path = self.dir.join(name);
        check_name(name).and_then(|()| map_file(&path)).map_err(Error::at("map", &path))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        match check_name(name).and_then(|()| fs::remove_file(&path)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::at("remove", path)(e)),
            _ => {
                // The folders above, as far as they are empty.
                let above = Path::new(name).ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
                above.map_while(|folder| fs::remove_dir(self.dir.join(folder)).ok()).for_each(drop);
                Ok(())
            }
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let mut found = Vec::new();
        let below = prefix.rsplit_once('/').map_or("", |(below, _)| below);
        if !below.is_empty() {
            check_name(below).map_err(Error::at("list", self.dir.join(below)))?;
        }
        self.walk(below, &mut found).map_err(Error::at("list", &self.dir))?;
        found.retain(|(name, _)| name.starts_with(prefix));
        found.sort();
        Ok(found)
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        let path = self.dir.join(name);
        let meta = check_name(name).and_then(|()| fs::metadata(&path));
        meta.map(|meta| meta.len()).map_err(Error::at("look up", path))
    }

    fn place(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }
}

struct Unnamed(File);

impl Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl ReadAt for Unnamed {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.0, buf, offset)
    }
}

struct Mapped {
    // Before the mapping, so that it is dropped first.
    guard: Guard,
    map: memmap2::Mmap,
    file: File,
}

/// Removes a folder with all that is in it, if it is there; also folders within it that nobody may look into, as code that
/// ran in it can leave them.
///
/// # Errors
/// What the system says of what is left.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        removed => removed,
    };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Lets folders be read and written, as far as they are ours.
fn open_up(path: &Path) {
    // Not deeper than a path can be long; folders are never links here.
    if fs::symlink_metadata(path).is_ok_and(|at| at.is_dir()) {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            open_up(&entry.path());
        }
    }
}

/// Maps a file, guarded against whoever cuts it short meanwhile. Where no more mappings can be guarded, and for a file
/// of no bytes, it is read instead.
///
/// # Errors
/// What the system says of the file.
pub fn map_file(path: &Path) -> io::Result<Arc<dyn Mapping>> {
    let mut file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if len > 0 {
        // SAFETY: others may write to the file while it is mapped. Bytes are read through plain loads that make no
        // assumption about their values, and a file that shrinks is caught by the guard.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(&file) }?;
        if let Some(guard) = Guard::new(map.as_ptr(), map.len()) {
            return Ok(Arc::new(Mapped { guard, map, file }));
        }
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Arc::new(bytes))
}

impl Mapping for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn is_intact(&self) -> bool {
        // Within the last page of a shrunk file zeros are read without a fault.
        !self.guard.was_hit() && self.file.metadata().is_ok_and(|meta| meta.len() >= self.map.len() as u64)
    }

    fn release(&self, range: Range<usize>) {
        const PAGE: usize = 4096;
        let (start, end) = (range.start / PAGE * PAGE, range.end.min(self.map.len()) / PAGE * PAGE);
        if start < end && !self.guard.was_hit() {
            // SAFETY: the mapping is of a file: dropped pages come back with the file's bytes.
            let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_that_shrinks_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![7; 20_000]).unwrap();
        let mapping = map_file(&path).unwrap();
        assert!(mapping.is_intact());
        File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert_eq!(mapping.bytes()[19_999], 0);
        assert!(!mapping.is_intact());
    }

    #[test]
    fn what_is_removed_takes_its_empty_folders_along() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Folder::new(dir.path());
        for name in ["a/b/c", "a/d"] {
            scratch.create(name).unwrap();
        }
        scratch.remove("a/b/c").unwrap();
        assert!(!dir.path().join("a/b").exists() && dir.path().join("a/d").exists());
        scratch.remove("a/d").unwrap();
        assert!(!dir.path().join("a").exists() && dir.path().exists());
    }

    #[test]
    fn a_folder_goes_whatever_modes_are_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (all, closed) = (dir.path().join("all"), dir.path().join("all/a/closed"));
        fs::create_dir_all(closed.join("b")).unwrap();
        fs::write(closed.join("b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/", all.join("link")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
        remove_folder(&all).unwrap();
        assert!(!all.exists());
        remove_folder(&all).unwrap();
    }
}
