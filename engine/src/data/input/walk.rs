//! Walks folders: which entries are input, what symbolic links lead to, and when a link
//! leads back to where the walk came from.
//!
//! Kinds come from the folder itself, so an entry costs one lookup (a file's length) or
//! none (a folder). Nothing recurses: depth is bounded by the system's paths alone.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, FileType, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Error, Input, Listing, is_absent, metadata_error};
use crate::data::commit::SUCCESS;

/// Threads that list folders. Two hide most of the waiting; more find little to do.
const THREADS: usize = 2;
/// Folders in a level from which a second thread is worth its start.
const FOLDERS_MIN: usize = 8;

/// Appends all files below `folder`; an error if there are none.
pub(super) fn list_folder(folder: &Path, listing: &mut Listing) -> Result<(), Error> {
    let before = listing.inputs.len();
    let root = without_trailing_slashes(folder);
    list_below(root, root.to_owned(), listing)?;
    if listing.inputs.len() == before {
        let path = folder.to_owned();
        return Err(Error::EmptyFolder { path });
    }
    Ok(())
}

/// Appends all files below `folder`, if any, on a walk that started at `root`.
///
/// Goes level by level: the folders of a level are independent of each other, so wide
/// levels are shared out among threads.
pub(super) fn list_below(root: &Path, folder: PathBuf, listing: &mut Listing) -> Result<(), Error> {
    let mut named = Some(folder.clone());
    let mut level = vec![folder];
    while !level.is_empty() {
        let mut below = Vec::new();
        for part in list_level(root, &level) {
            let part = part?;
            below.extend(part.folders);
            listing.inputs.extend(part.inputs);
            listing.hidden += part.hidden;
            // What the user named is meant to be read, output or not.
            listing.outputs.extend(part.outputs.into_iter().filter(|folder| named.as_ref() != Some(folder)));
        }
        named = None;
        level = below;
    }
    Ok(())
}

/// What one thread found in the folders it took.
#[derive(Default)]
struct Found {
    folders: Vec<PathBuf>,
    inputs: Vec<Input>,
    hidden: u64,
    /// Folders with a `_SUCCESS`.
    outputs: Vec<PathBuf>,
}

/// Lists the folders of one level, in one part for each thread that took some.
fn list_level(root: &Path, level: &[PathBuf]) -> Vec<Result<Found, Error>> {
    let next = AtomicUsize::new(0);
    let list_some = || {
        let mut found = Found::default();
        // Folders differ widely in size, so each is taken when a thread is free for it.
        while let Some(folder) = level.get(next.fetch_add(1, Ordering::Relaxed)) {
            list_entries(root, folder, &mut found)?;
        }
        Ok(found)
    };
    thread::scope(|scope| {
        let others = if level.len() < FOLDERS_MIN { 0 } else { THREADS - 1 };
        // A thread that cannot be had is no error: its share is done by the others.
        let others: Vec<_> =
            (0..others).filter_map(|_| thread::Builder::new().spawn_scoped(scope, list_some).ok()).collect();
        let mut parts = vec![list_some()];
        for other in others {
            match other.join() {
                Ok(part) => parts.push(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    })
}

fn list_entries(root: &Path, folder: &Path, found: &mut Found) -> Result<(), Error> {
    for entry in read_folder(folder)? {
        let name = entry.file_name();
        if is_hidden(&name) {
            found.hidden += 1;
            if name == SUCCESS {
                found.outputs.push(folder.to_owned());
            }
            continue;
        }
        match classify(root, folder.join(name), &entry)? {
            Entry::Folder(path) => found.folders.push(path),
            Entry::File(input) => found.inputs.push(input),
            Entry::Other(path, kind) => return Err(Error::NotAFile { path, kind }),
        }
    }
    Ok(())
}

/// An entry of a folder, links followed.
pub(super) enum Entry {
    Folder(PathBuf),
    File(Input),
    Other(PathBuf, &'static str),
}

/// Tells what the entry at `path` is, found on the walk that started at `root`.
///
/// The path is not the entry's own, which begins with `./` in the current folder.
pub(super) fn classify(root: &Path, path: PathBuf, entry: &DirEntry) -> Result<Entry, Error> {
    let kind = entry.file_type();
    let kind = kind.map_err(|error| metadata_error(&path, error))?;
    if kind.is_symlink() {
        return follow(root, path);
    }
    if kind.is_file() {
        // Looked up relative to the open folder, which spares walking the path again.
        let metadata = entry.metadata();
        let len = metadata.map_err(|error| metadata_error(&path, error))?.len();
        return Ok(Entry::File(Input::file(path, len)));
    }
    Ok(of_other_kind(path, kind))
}

/// Whether the entry at `path` is a folder or a link to one. What cannot be looked up
/// is none: the caller has no use for it either way.
pub(super) fn is_folder(path: &Path, entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir() || (kind.is_symlink() && path.is_dir()))
}

fn of_other_kind(path: PathBuf, kind: FileType) -> Entry {
    if kind.is_dir() {
        Entry::Folder(path)
    } else if kind.is_fifo() {
        Entry::Other(path, "a named pipe")
    } else if kind.is_socket() {
        Entry::Other(path, "a socket")
    } else {
        Entry::Other(path, "a device")
    }
}

/// Tells what a symbolic link leads to.
fn follow(root: &Path, link: PathBuf) -> Result<Entry, Error> {
    let metadata = match fs::metadata(&link) {
        Ok(metadata) => metadata,
        Err(error) if is_absent(&error) => {
            let target = fs::read_link(&link).map_err(|_| metadata_error(&link, error))?;
            return Err(Error::BrokenLink { link, target });
        }
        Err(error) => return Err(metadata_error(&link, error)),
    };
    if metadata.is_file() {
        return Ok(Entry::File(Input::file(link, metadata.len())));
    }
    if metadata.is_dir()
        && let Some(target) = ancestor(root, &link, &metadata)?
    {
        return Err(Error::Loop { link, target });
    }
    Ok(of_other_kind(link, metadata.file_type()))
}

/// The folder between `root` and `link` that is the very folder `target` describes.
///
/// Only a link can close a loop, so folders are compared when a link is met and never
/// on the way down.
fn ancestor(root: &Path, link: &Path, target: &Metadata) -> Result<Option<PathBuf>, Error> {
    for folder in link.ancestors().skip(1) {
        let looked_up = or_current(folder);
        let metadata = fs::metadata(looked_up);
        let metadata = metadata.map_err(|error| metadata_error(looked_up, error))?;
        if (metadata.dev(), metadata.ino()) == (target.dev(), target.ino()) {
            return Ok(Some(looked_up.to_owned()));
        }
        if folder == root {
            break;
        }
    }
    Ok(None)
}

/// The entries of a folder; an empty path is the current folder.
pub(super) fn read_folder(folder: &Path) -> Result<Vec<DirEntry>, Error> {
    fs::read_dir(or_current(folder))
        .and_then(Iterator::collect)
        .map_err(|source| Error::Folder { path: or_current(folder).to_owned(), source })
}

fn or_current(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Whether Hadoop's `FileInputFormat` would skip the name, too.
fn is_hidden(name: &OsStr) -> bool {
    matches!(name.as_bytes().first(), Some(b'_' | b'.'))
}

fn without_trailing_slashes(folder: &Path) -> &Path {
    let bytes = folder.as_os_str().as_bytes();
    let len = bytes.iter().rposition(|&b| b != b'/').map_or(1, |at| at + 1);
    Path::new(OsStr::from_bytes(&bytes[..len.min(bytes.len())]))
}
