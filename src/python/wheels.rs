//! Wheels: archives of Python packages, unpacked where the functions import from. Source of the format: PEP 427.
//!
//! Packages of pure Python, and others as far as they load from where they are put; nothing in a wheel is run.

use std::fs::File;
use std::path::{Path, PathBuf};

/// Most bytes that the wheels of a job unpack to, each.
const MOST: u64 = 2 << 30;

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

/// Unpacks a wheel into a folder.
///
/// # Errors
/// When it is none, wants to be unpacked outside of the folder, or has too much in it.
pub(super) fn unpack(wheel: &Path, to: &Path) -> Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("the wheel {} cannot be unpacked: {e}", wheel.display());
    let file = File::open(wheel).map_err(|e| failed(&e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| failed(&e))?;
    let mut left = MOST;
    for n in 0..archive.len() {
        let mut entry = archive.by_index(n).map_err(|e| failed(&e))?;
        let Some(name) = entry.enclosed_name() else {
            return Err(failed(&format!("'{}' lies outside of it", entry.name().unwrap_or_default())));
        };
        let path = to.join(name);
        if entry.is_dir() {
            std::fs::create_dir_all(&path).map_err(|e| failed(&e))?;
            continue;
        }
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| failed(&e))?;
        let mut made = File::create(&path).map_err(|e| failed(&e))?;
        // What an entry says of its size need not be so.
        let copied =
            std::io::copy(&mut std::io::Read::take(&mut entry, left + 1), &mut made).map_err(|e| failed(&e))?;
        left = left.checked_sub(copied).ok_or_else(|| failed(&format!("it has more than {} MiB", MOST >> 20)))?;
    }
    Ok(())
}
