//! Which names a job may write its output to. All that can be known before the job runs is refused before it runs.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::SUCCESS;
use crate::error::Error;

/// Longest name of a file, in bytes, on the file systems of Linux.
const LONGEST_NAME: usize = 255;
/// What is put behind the name of an output in that of its hidden folder, before the random end.
const MARK: &str = ".gristmill-";
/// Bytes of random letters at its end.
const RANDOM: usize = 6;

/// Refuses an output that a job could not publish: one that exists and is not to be replaced, one that is no output of
/// a job and so is never replaced, and names under which no folder can be made.
///
/// # Errors
/// Why the name cannot be taken, with what to do.
pub fn check(target: &Path, overwrite: bool) -> Result<(), Error> {
    if target.as_os_str().is_empty() {
        return Err(Error::Usage("the output has an empty name; name a folder, or - for standard output".into()));
    }
    let shown = target.display();
    let meta = match fs::symlink_metadata(target) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::InvalidFilename => {
            return Err(Error::Usage(format!("output {shown}: the name is too long; choose a shorter one")));
        }
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            let file = target.ancestors().skip(1).find(|p| p.is_file()).unwrap_or(target);
            let file = file.display();
            return Err(Error::Usage(format!("output {shown}: {file} is a file, not a folder; choose another name")));
        }
        // Absent, or not to be looked at: making the hidden folder will tell.
        Err(_) => return own_name(target),
    };
    if !overwrite {
        return Err(Error::OutputExists(target.into()));
    }
    own_name(target)?;
    if meta.is_symlink() {
        let to = fs::read_link(target).unwrap_or_default();
        let to = to.display();
        return Err(Error::Usage(format!("output {shown} is a symbolic link to {to}; name the folder itself")));
    }
    match is_replaceable(target, &meta) {
        true => Ok(()),
        false => Err(Error::NotAnOutput(target.into())),
    }
}

/// A folder that has no name of its own in the path (`.`, `..`, `/`) cannot be exchanged for another.
fn own_name(target: &Path) -> Result<(), Error> {
    match target.file_name() {
        Some(_) => Ok(()),
        None => Err(Error::Usage(format!("output {}: give the folder's own name, as in -o parts", target.display()))),
    }
}

/// Whether nothing is lost but an earlier result when this is removed: it is an output of ours, or an empty folder.
pub(super) fn is_replaceable(path: &Path, meta: &Metadata) -> bool {
    let is_empty = || fs::read_dir(path).is_ok_and(|mut d| d.next().is_none());
    meta.is_dir() && (path.join(SUCCESS).is_file() || is_empty())
}

/// The path without `.` and slashes at its end, so that it can be renamed.
pub(super) fn plain(target: &Path) -> PathBuf {
    target.components().collect()
}

/// The folder that an output is in, and how the names of hidden folders for it begin.
pub(super) fn neighbours(target: &Path) -> (PathBuf, OsString) {
    let parent = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let name = target.file_name().unwrap_or_default().as_bytes();
    let mut prefix = vec![b'.'];
    let room = LONGEST_NAME - 1 - MARK.len() - RANDOM;
    if name.len() <= room {
        prefix.extend_from_slice(name);
    } else {
        // What is cut off is told apart by a checksum.
        let sum = format!("~{:08x}", crc32c::crc32c(name));
        prefix.extend_from_slice(&name[..room - sum.len()]);
        prefix.extend_from_slice(sum.as_bytes());
    }
    prefix.extend_from_slice(MARK.as_bytes());
    (parent, OsString::from_vec(prefix))
}
