//! Archives that jobs bring, unpacked among their files: zip (jar, whl) and tar, plain or compressed. Nothing in them is run, and
//! nothing of them lands outside of its folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use gristmill_engine::data::compress::{Compression, Decoder};

/// Most bytes that one archive may unpack to.
const MOST: u64 = 8 << 30;

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
pub(crate) fn unpack(name: &str, archive: &Path, to: &Path) -> Result<(), String> {
    let unpacked = fs::create_dir_all(to).and_then(|()| File::open(archive)).and_then(|file| match is_zip(name) {
        true => zip(file, to),
        false => tar(name, file, to),
    });
    unpacked.map_err(|e| format!("the archive {name} cannot be unpacked: {e}"))
}

fn outside(name: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("'{name}' lies outside of it"))
}

fn too_much() -> io::Error {
    io::Error::other(format!("it has more than {} GiB", MOST >> 30))
}

fn zip(file: File, to: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(file).map_err(io::Error::other)?;
    let mut left = MOST;
    for n in 0..archive.len() {
        let mut entry = archive.by_index(n).map_err(io::Error::other)?;
        let name = entry.enclosed_name().ok_or_else(|| outside(&entry.name().unwrap_or_default()))?;
        let path = to.join(name);
        if entry.is_dir() {
            fs::create_dir_all(&path)?;
            continue;
        }
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut made = File::create(&path)?;
        // What an entry says of its size need not be so.
        let copied = io::copy(&mut (&mut entry).take(left + 1), &mut made)?;
        left = left.checked_sub(copied).ok_or_else(too_much)?;
        runs(&path, entry.unix_mode())?;
    }
    Ok(())
}

/// Keeps it that a file can be executed.
fn runs(path: &Path, mode: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if mode.is_some_and(|mode| mode & 0o111 != 0) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn tar(name: &str, file: File, to: &Path) -> io::Result<()> {
    let kind = if name.ends_with(".tgz") { Some(Compression::Gzip) } else { Compression::of(Path::new(name)) };
    let plain: Box<dyn Read> = match kind {
        None => Box::new(file),
        Some(kind) => Box::new(Decoder::new(kind, Box::new(file), name.into())?),
    };
    let mut archive = tar::Archive::new(plain.take(MOST));
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        // Devices, pipes and links are of no use to code that reads its files; a link could lead anywhere.
        if !kind.is_file() && !kind.is_dir() {
            continue;
        }
        let mode = entry.header().mode().ok();
        let path = entry.path()?.into_owned();
        if !entry.unpack_in(to)? {
            return Err(outside(&path.display()));
        }
        if kind.is_file() {
            runs(&to.join(path), mode)?;
        }
    }
    Ok(())
}
