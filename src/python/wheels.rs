//! Wheels: archives of Python packages, unpacked where the functions import from. Source of the format: PEP 427.
//!
//! Packages of pure Python, and others as far as they load from where they are put; nothing in a wheel is run.

use std::path::{Path, PathBuf};

fn is_wheel(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "whl")
}

fn some(folder: &Path, mut wheels: Vec<PathBuf>) -> Result<Vec<PathBuf>, String> {
    wheels.sort();
    if wheels.is_empty() { Err(format!("{} has no wheels (*.whl)", folder.display())) } else { Ok(wheels) }
}

/// The wheels in a folder.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    some(folder, entries.flatten().map(|entry| entry.path()).filter(|path| is_wheel(path)).collect())
}

/// The wheels among copies of the files of a folder.
pub(super) fn among(folder: &Path, copies: Vec<(String, PathBuf)>) -> Result<Vec<PathBuf>, String> {
    some(folder, copies.into_iter().filter(|(name, _)| is_wheel(Path::new(name))).map(|(_, copy)| copy).collect())
}
