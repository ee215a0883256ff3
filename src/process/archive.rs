//! Archives that jobs bring, unpacked among their files: zip (jar, whl) and tar, plain or compressed. Nothing in them is run, and
//! nothing of them lands outside of its folder: links, devices and modes but that of execution are left out. What they may
//! unpack to is bounded, in bytes, files and memory.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_engine::data::compress::{Compression, Decoder};
use gristmill_engine::error::Error;

/// Bytes between the contents of two files of a tar: headers and long names, which are held in memory.
const HEADERS: u64 = 1 << 20;
/// Bytes that are copied before it is asked whether to stop.
const STRETCH: u64 = 16 << 20;

/// What all archives of a job may unpack to.
#[derive(Debug)]
pub(crate) struct Room<'r> {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files and folders.
    pub(crate) entries: u32,
    /// The job ends.
    pub(crate) stop: &'r AtomicBool,
}

impl<'r> Room<'r> {
    pub(crate) fn new(bytes: u64, stop: &'r AtomicBool) -> Self {
        Self { bytes, entries: 1_000_000, stop }
    }

    fn one_more(&mut self) -> io::Result<()> {
        self.entries =
            self.entries.checked_sub(1).ok_or_else(|| io::Error::other("there are more than a million files"))?;
        self.goes_on()
    }

    fn goes_on(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(io::Error::other("the job ends")) } else { Ok(()) }
    }

    fn take(&mut self, bytes: u64) -> io::Result<()> {
        let too_much = || io::Error::other("there is more than the job may have in its folder (--task-scratch)");
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(too_much)?;
        Ok(())
    }

    /// Makes a file of all that is in `from`; what an entry says of its size need not be so.
    fn file(&mut self, from: &mut dyn Read, path: &Path, mode: Option<u32>) -> io::Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut made = File::create(path)?;
        loop {
            let copied = io::copy(&mut Read::take(&mut *from, STRETCH.min(self.bytes.saturating_add(1))), &mut made)?;
            self.take(copied)?;
            self.goes_on()?;
            if copied == 0 {
                break;
            }
        }
        if mode.is_some_and(|mode| mode & 0o111 != 0) {
            use std::os::unix::fs::PermissionsExt;
            made.set_permissions(fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

/// Whether a file of this name can be unpacked.
pub(crate) fn is_archive(name: &str) -> bool {
    is_zip(name) || is_tar(name)
}

fn is_zip(name: &str) -> bool {
    [".zip", ".jar", ".whl"].iter().any(|end| name.ends_with(end))
}

fn is_tar(name: &str) -> bool {
    [".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.bz2"].iter().any(|end| name.ends_with(end))
}

/// Unpacks an archive, which is called `name`, into a folder.
///
/// # Errors
/// When it is none, wants to be unpacked outside of the folder, or has too much in it.
pub(crate) fn unpack(name: &str, archive: &Path, to: &Path, room: &mut Room<'_>) -> Result<(), Error> {
    let unpacked = fs::create_dir_all(to).and_then(|()| File::open(archive)).and_then(|file| match is_zip(name) {
        true => zip(file, to, room),
        false => tar(name, file, to, room),
    });
    unpacked.map_err(|source| match source.raw_os_error() {
        // The machine's fault, as a full disk.
        Some(_) => Error::Write { action: "unpack", path: name.into(), source },
        None => Error::Usage(format!("the archive {name} cannot be unpacked: {source}")),
    })
}

/// Where an entry lies below the folder; a leading `/` says nothing, as everywhere.
fn below(name: &Path) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!("'{}' lies outside of it", name.display())));
            }
        }
    }
    Ok(path)
}

fn zip(file: File, to: &Path, room: &mut Room<'_>) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(file).map_err(io::Error::other)?;
    for n in 0..archive.len() {
        room.one_more()?;
        let mut entry = archive.by_index(n).map_err(io::Error::other)?;
        let path = to.join(below(Path::new(&*entry.name().map_err(io::Error::other)?))?);
        if entry.is_dir() {
            fs::create_dir_all(&path)?;
        } else if entry.is_file() {
            let mode = entry.unix_mode();
            room.file(&mut entry, &path, mode)?;
        }
    }
    Ok(())
}

/// Reads so many bytes and no more, until it is given more.
struct Rationed {
    from: Box<dyn Read>,
    left: Rc<Cell<u64>>,
}

impl Read for Rationed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("a header has more than 1 MiB"));
        }
        let most = usize::try_from(self.left.get()).map_or(to.len(), |left| left.min(to.len()));
        let n = self.from.read(&mut to[..most])?;
        self.left.set(self.left.get() - n as u64);
        Ok(n)
    }
}

fn tar(name: &str, file: File, to: &Path, room: &mut Room<'_>) -> io::Result<()> {
    let kind = if name.ends_with(".tgz") { Some(Compression::Gzip) } else { Compression::of(Path::new(name)) };
    let from: Box<dyn Read> = match kind {
        None => Box::new(file),
        Some(kind) => Box::new(Decoder::new(kind, Box::new(file), name.into())?),
    };
    let left = Rc::new(Cell::new(HEADERS));
    let mut archive = tar::Archive::new(Rationed { from, left: left.clone() });
    for entry in archive.entries()? {
        let mut entry = entry?;
        room.one_more()?;
        let kind = entry.header().entry_type();
        let path = to.join(below(&entry.path()?)?);
        // All that is within an entry is read here, and bounded by room.
        left.set(u64::MAX);
        // Links could lead anywhere; devices, pipes and files with holes are of no use to code that reads its files.
        if kind.is_dir() {
            fs::create_dir_all(&path)?;
        } else if kind.is_file() {
            let mode = entry.header().mode().ok();
            room.file(&mut entry, &path, mode)?;
        }
        // What was left out is read on the way to the next header.
        let rest = io::copy(&mut Read::take(&mut entry, room.bytes.saturating_add(1)), &mut io::sink())?;
        room.take(rest)?;
        left.set(HEADERS);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A tar of entries: kind, name, mode and content, whatever they are.
    fn tar_of(entries: &[(tar::EntryType, &str, u32, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, mode, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Unpacks bytes into `to`, in so much room.
    fn unpacked(name: &str, bytes: &[u8], to: &Path, room: (u64, u32)) -> Result<(), String> {
        let archive = to.with_extension("archive");
        fs::write(&archive, bytes).unwrap();
        let stop = AtomicBool::new(false);
        let mut room = Room { bytes: room.0, entries: room.1, stop: &stop };
        unpack(name, &archive, to, &mut room).map_err(|e| e.to_string())
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const FOLDER: tar::EntryType = tar::EntryType::Directory;

    #[test]
    fn entries_land_below_the_folder_and_change_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (to, outside) = (dir.path().join("to"), dir.path().join("outside"));
        fs::write(&outside, "mine").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        let absolute = outside.to_str().unwrap();
        let archive = tar_of(&[
            // Nothing could be put into a folder like this one.
            (FOLDER, "lib", 0o555, b""),
            (FILE, "lib/run", 0o755, b"theirs"),
            (FILE, absolute, 0o4755, b"theirs"),
            (tar::EntryType::Symlink, "link", 0o777, b""),
        ]);
        unpacked("a.tar", &archive, &to, (100, 10)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((fs::read(&outside).unwrap(), mode(&outside)), (b"mine".to_vec(), 0o600));
        let below = to.join(absolute.trim_start_matches('/'));
        assert_eq!((fs::read(&below).unwrap(), mode(&below)), (b"theirs".to_vec(), 0o755));
        assert_eq!(mode(&to.join("lib/run")), 0o755);
        assert!(fs::symlink_metadata(to.join("link")).is_err());

        let archive = tar_of(&[(FILE, "a/../../outside", 0o644, b"theirs")]);
        let error = unpacked("a.tar", &archive, &to, (100, 10)).unwrap_err();
        assert!(error.contains("'a/../../outside' lies outside of it"), "{error}");
    }

    #[test]
    fn archives_have_so_much_room_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        archive.start_file("zeros", zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&[0; 1000]).unwrap();
        let archive = archive.finish().unwrap().into_inner();
        unpacked("a.zip", &archive, &to, (1000, 1)).unwrap();
        assert_eq!(fs::read(to.join("zeros")).unwrap(), [0; 1000]);
        let plain = tar_of(&[(FILE, "a", 0o644, &[0; 600]), (FILE, "b", 0o644, &[0; 400])]);
        unpacked("a.tar", &plain, &to, (1000, 2)).unwrap();
        for (name, bytes) in [("a.zip", &archive), ("a.tar", &plain)] {
            let error = unpacked(name, bytes, &to, (999, 2)).unwrap_err();
            assert!(error.contains("there is more than the job may have"), "{error}");
        }
        let error = unpacked("a.tar", &plain, &to, (1000, 1)).unwrap_err();
        assert!(error.contains("more than a million files"), "{error}");
    }

    #[test]
    fn long_names_are_not_held_whatever_their_length() {
        let dir = tempfile::tempdir().unwrap();
        let long = vec![b'n'; 2 << 20];
        let archive = tar_of(&[(tar::EntryType::GNULongName, "long", 0o644, &long), (FILE, "a", 0o644, b"")]);
        let error = unpacked("a.tar", &archive, &dir.path().join("to"), (1 << 30, 10)).unwrap_err();
        assert!(error.contains("a header has more than 1 MiB"), "{error}");
        // What is left out may be as long as there is room.
        let archive = tar_of(&[(tar::EntryType::Char, "device", 0o644, &long), (FILE, "a", 0o644, b"")]);
        unpacked("a.tar", &archive, &dir.path().join("to"), (1 << 30, 10)).unwrap();
    }

    #[test]
    fn unpacking_ends_with_the_job() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        fs::write(&archive, tar_of(&[(FILE, "a", 0o644, b"")])).unwrap();
        let stop = AtomicBool::new(true);
        let error = unpack("a.tar", &archive, &dir.path().join("to"), &mut Room::new(1000, &stop)).unwrap_err();
        assert!(error.to_string().contains("the job ends"), "{error}");
    }
}
