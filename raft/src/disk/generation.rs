//! Folders of databases that replace each other: which one counts, whatever moment a crash took.
//!
//! Each database has a numbered folder. One that is complete and durable gets the file `whole`, in one step; of those the
//! highest number counts. All others are what a crash left of a database that was being made or removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const WHOLE: &str = "whole";

/// All of them, by number.
fn all(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The one that counts; `None` if none was ever complete.
pub(super) fn newest(path: &Path) -> io::Result<Option<PathBuf>> {
    Ok(all(path)?.into_iter().map(|(_, folder)| folder).rfind(|folder| folder.join(WHOLE).exists()))
}

/// Where the next one is to be made.
pub(super) fn next(path: &Path) -> io::Result<PathBuf> {
    let last = all(path)?.last().map_or(0, |(number, _)| *number);
    Ok(path.join((last + 1).to_string()))
}

/// Makes all files of a complete database durable, with the folders that name them, and says that it counts.
pub(super) fn finish(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    // The names below must not be lost when the one that says so is not.
    for above in folder.ancestors().take(3).filter(|above| !above.as_os_str().is_empty()) {
        File::open(above)?.sync_all()?;
    }
    File::create(folder.join(WHOLE))?.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Removes all but the one that counts. After a loss of power some may be back.
pub(super) fn remove_others(path: &Path, counts: &Path) -> io::Result<()> {
    for (_, folder) in all(path)? {
        if folder != counts {
            fs::remove_dir_all(folder)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_that_is_whole_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(newest(&path).unwrap(), None);
        assert_eq!(next(&path).unwrap(), path.join("1"));
        for number in ["2", "9", "10", "11"] {
            fs::create_dir_all(path.join(number)).unwrap();
        }
        assert_eq!(newest(&path).unwrap(), None, "none was finished");
        finish(&path.join("9")).unwrap();
        finish(&path.join("10")).unwrap();
        assert_eq!(newest(&path).unwrap(), Some(path.join("10")));
        assert_eq!(next(&path).unwrap(), path.join("12"));
        remove_others(&path, &path.join("10")).unwrap();
        assert_eq!(all(&path).unwrap(), [(10, path.join("10"))]);
    }
}
