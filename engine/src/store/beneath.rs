//! Ways below a folder on which no symbolic link is followed: whoever can put a link into a store cannot make it lead
//! elsewhere. The folder itself may be reached by links, and may be a place where another disk is mounted.
//!
//! Names are those of [`Name`](super::Name): without `.` and `..`, and never absolute. A link on the way is `ELOOP`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2, statat};
use rustix::io::Errno;

/// A folder that is looked through, not read.
const WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Of a folder that is made; less what the process takes away.
const FOLDER: Mode = Mode::from_raw_mode(0o777);

/// Opens the folder that all is below.
pub(super) fn root(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, WAY, Mode::empty())?)
}

/// Opens what has this name below `root`.
pub(super) fn at(root: &impl AsFd, name: &str, how: OFlags) -> io::Result<OwnedFd> {
    match openat2(root, name, how | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Older systems, and sandboxes that do not know it.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => stepwise(root, name, how),
        opened => Ok(opened?),
    }
}

/// As [`at`], folder by folder.
fn stepwise(root: &impl AsFd, name: &str, how: OFlags) -> io::Result<OwnedFd> {
    let (above, last) = split(name);
    let mut folder = openat(root, ".", WAY, Mode::empty())?;
    for part in above.split('/').filter(|part| !part.is_empty()) {
        folder = step(&folder, part)?;
    }
    // With O_PATH a link would be opened itself.
    unlinked(&folder, last)?;
    Ok(openat(&folder, last, how | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn step(folder: &OwnedFd, part: &str) -> io::Result<OwnedFd> {
    openat(folder, part, WAY | OFlags::NOFOLLOW, Mode::empty()).map_err(|e| match unlinked(folder, part) {
        Err(link) if e == Errno::NOTDIR => link,
        _ => e.into(),
    })
}

/// Fails if this is a symbolic link.
fn unlinked(folder: &OwnedFd, part: &str) -> io::Result<()> {
    match statat(folder, part, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink() => Err(Errno::LOOP.into()),
        _ => Ok(()),
    }
}

/// The folder above this name.
pub(super) fn above(root: &impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match split(name).0 {
        "" => Ok(openat(root, ".", WAY, Mode::empty())?),
        above => at(root, above, WAY),
    }
}

/// As [`above`]; makes the folders that are not there.
pub(super) fn made_above(root: &impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match above(root, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let mut folder = openat(root, ".", WAY, Mode::empty())?;
    for part in split(name).0.split('/') {
        match mkdirat(&folder, part, FOLDER) {
            Ok(()) | Err(Errno::EXIST) => folder = step(&folder, part)?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(folder)
}

/// A name's folder, empty if it has none, and its last part.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// Whether an error says that a link is on the way.
pub(super) fn is_link(e: &io::Error) -> bool {
    Errno::from_io_error(e) == Some(Errno::LOOP)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "the store is files here")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_by_neither_way_of_opening() {
        let (inner, outer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, out) = (inner.path(), outer.path());
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(path.join("a/b/file"), "x").unwrap();
        std::fs::write(out.join("file"), "secret").unwrap();
        symlink(out, path.join("a/out")).unwrap();
        symlink(out.join("file"), path.join("a/leak")).unwrap();
        symlink("b/file", path.join("a/within")).unwrap();
        symlink(path, out.join("root")).unwrap();
        // The root itself may be one.
        let root = root(&out.join("root")).unwrap();
        for how in [OFlags::PATH, OFlags::RDONLY] {
            for open in [at, stepwise] {
                assert!(open(&root, "a/b/file", how).is_ok());
                assert_eq!(open(&root, "a/none", how).unwrap_err().kind(), io::ErrorKind::NotFound);
                assert_eq!(open(&root, "a/b/file/x", how).unwrap_err().kind(), io::ErrorKind::NotADirectory);
                for link in ["a/out", "a/out/file", "a/leak", "a/within"] {
                    assert!(is_link(&open(&root, link, how).unwrap_err()), "{link}");
                }
            }
        }
        assert!(is_link(&made_above(&root, "a/out/new/x").unwrap_err()) && !out.join("new").exists());
        assert!(made_above(&root, "c/d/x").is_ok() && path.join("c/d").is_dir());
    }
}
