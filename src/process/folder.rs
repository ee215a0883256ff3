//! The files of a job's scripts: one folder a job with copies of what was shipped, one folder an attempt with links to them,
//! and what is kept of an attempt that failed. An attempt can read the first and write the second, and comes no further.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use gristmill_engine::error::Error;
use gristmill_engine::registry;
use gristmill_engine::runner::Input;
use gristmill_engine::scratch::remove_folder;

use super::Command;
use super::archive::{self, Room};

/// The folder for temporary files within that of an attempt.
pub(crate) const TMP: &str = ".tmp";

/// Names within the folder of an attempt or of what was shipped that are ours.
const RESERVED: [&str; 3] = [TMP, ".harness", ".wheels"];

/// The folder for what was shipped within that of the job.
const SHIPPED: &str = "files";

/// Most bytes of input that are kept of an attempt.
const MOST_KEPT: u64 = 1 << 30;

/// A file that a job brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// What scripts call it: a name without a folder.
    pub(crate) name: String,
    /// Where the job's flags say that it is.
    pub(crate) path: PathBuf,
    /// Where its copy is on this machine, or copies of all files of a folder by their names below it; nothing where it is
    /// at its path.
    copies: Vec<(String, PathBuf)>,
    /// It is an archive, and its name that of a folder with what is in it.
    unpack: bool,
}

impl Shipped {
    pub(crate) fn new(name: String, path: PathBuf) -> Self {
        Self { name, path, copies: Vec::new(), unpack: false }
    }

    /// An archive to be unpacked.
    pub(crate) fn archive(name: String, path: PathBuf) -> Self {
        Self { unpack: true, ..Self::new(name, path) }
    }

    /// Whether a command's word, which is a path, means this file.
    pub(crate) fn is_meant(&self, word: &str) -> bool {
        let word = Path::new(word);
        if !self.copies.is_empty() {
            // Where it was is another machine's business.
            let plain = |path: &Path| path.components().filter(|c| *c != Component::CurDir).collect::<PathBuf>();
            let (one, other) = (plain(word), plain(&self.path));
            return one == other || (one.is_absolute() && one.ends_with(&other));
        }
        match (self.path.canonicalize(), word.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }

    /// Puts it below a folder; files are made executable there.
    fn ship(&self, files: &Path, room: &mut Room<'_>) -> Result<(), Error> {
        let to = files.join(&self.name);
        let failed = |source| Error::Write { action: "ship", path: self.path.clone(), source };
        let copy = |from: &Path, to: &Path| {
            fs::copy(from, to)?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o755))
        };
        if self.unpack {
            let from = self.copies.first().map_or(&self.path, |(_, copy)| copy);
            return archive::unpack(&self.path.to_string_lossy(), from, &to, room);
        }
        if self.copies.is_empty() {
            let path = self.path.canonicalize().map_err(failed)?;
            return if path.is_dir() { symlink(path, to) } else { copy(&path, &to) }.map_err(failed);
        }
        for (below, from) in &self.copies {
            let to = if below.is_empty() { to.clone() } else { to.join(below) };
            let made = to.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| copy(from, &to)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Where the files of a folder are, or of one file, by their names below it.
///
/// # Errors
/// When there are none.
pub(crate) fn copies_of(path: &Path, all: &BTreeMap<String, PathBuf>) -> Result<Vec<(String, PathBuf)>, String> {
    let name = path.to_string_lossy();
    if let Some(copy) = all.get(&*name) {
        return Ok(vec![(String::new(), copy.clone())]);
    }
    let below = format!("{}/", name.trim_end_matches('/'));
    let found = all.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
    let found: Vec<_> = found.map(|(name, copy)| (name[below.len()..].to_string(), copy.clone())).collect();
    let plain = |name: &str| Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    match found.iter().find(|(name, _)| !plain(name)) {
        Some((bad, _)) => Err(format!("the job brings a file called {bad}, which would lie outside of its folder")),
        None if found.is_empty() => Err(format!("the job did not bring {name}")),
        None => Ok(found),
    }
}

/// The files to ship, each under a name of its own.
///
/// # Errors
/// When two would have the same name.
pub(crate) fn shipped(plain: &[PathBuf], named: &[String], archives: &[String]) -> Result<Vec<Shipped>, String> {
    let mut all: Vec<Shipped> = Vec::new();
    let apart = |file: &String| match file.rsplit_once('#') {
        Some((path, name)) => (PathBuf::from(path.strip_prefix("file://").unwrap_or(path)), Some(name.to_string())),
        None => (PathBuf::from(file.strip_prefix("file://").unwrap_or(file)), None),
    };
    let plain = plain.iter().map(|path| (path.clone(), None, false));
    let named = named.iter().map(apart).map(|(path, name)| (path, name, false));
    let archives = archives.iter().map(apart).map(|(path, name)| (path, name, true));
    for (path, name, unpack) in plain.chain(named).chain(archives) {
        if unpack && !archive::is_archive(&path.to_string_lossy()) {
            let path = path.display();
            return Err(format!(
                "'{path}' is no archive that is unpacked: zip, jar, tar, tgz, tar.gz, tar.zst, tar.bz2"
            ));
        }
        let own = || path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.or_else(own).unwrap_or_default();
        if name.is_empty() || name.contains('/') || name == "." || name == ".." || RESERVED.contains(&name.as_str()) {
            return Err(format!(
                "'{}' cannot be shipped as '{name}': a name of its own is needed, without a folder",
                path.display()
            ));
        }
        match all.iter().find(|other| other.name == name) {
            Some(other) if other.path == path => {}
            Some(other) => {
                let (one, two) = (other.path.display(), path.display());
                return Err(format!(
                    "{one} and {two} would both be called {name}; give one another name: -files {two}#NAME"
                ));
            }
            None if unpack => all.push(Shipped::archive(name, path)),
            None => all.push(Shipped::new(name, path)),
        }
    }
    Ok(all)
}

/// Looks whether files are there, and where.
///
/// # Errors
/// When one is not.
pub(crate) fn find(shipped: &mut [Shipped], files: registry::Files<'_>) -> Result<(), String> {
    for file in shipped {
        match files {
            registry::Files::Elsewhere => {}
            registry::Files::Here => {
                let there = fs::metadata(&file.path);
                there.map_err(|e| format!("cannot ship {}: {e}", file.path.display()))?;
            }
            registry::Files::Copies(all) => file.copies = copies_of(&file.path, all)?,
        }
    }
    Ok(())
}

/// A folder in which code works. Gone when dropped, whatever the code made of it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now goes when the worker begins anew.
        let _ = remove_folder(self.path());
    }
}

/// The files of a job. Gone when dropped.
pub(crate) struct Files {
    folder: Folder,
    names: Vec<String>,
    /// Where folders of failed attempts are kept.
    keep: PathBuf,
}

impl Files {
    /// Copies what was shipped into a new folder below `parent`; files are made executable there.
    pub(crate) fn new(parent: &Path, shipped: &[Shipped], room: &mut Room<'_>) -> Result<Self, Error> {
        let failed = |source| Error::Write { action: "create a folder in", path: parent.into(), source };
        // A worker's need not be there yet.
        fs::create_dir_all(parent).map_err(failed)?;
        let folder = Folder(private().prefix("gristmill-files-").tempdir_in(parent).map_err(failed)?);
        if rustix::process::geteuid().is_root() {
            // The code of root is another user, who comes through here to its own folder; what there is beside, it does not see.
            let passes = fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711));
            passes.map_err(failed)?;
        }
        let files = folder.path().join(SHIPPED);
        let mut names = Vec::new();
        fs::create_dir(&files).map_err(failed)?;
        for file in shipped {
            file.ship(&files, room)?;
            names.push(file.name.clone());
        }
        Ok(Self { folder, names, keep: parent.into() })
    }

    /// The folder with what was shipped.
    pub(crate) fn shipped(&self) -> PathBuf {
        self.folder.path().join(SHIPPED)
    }

    /// What attempts read: the copies, and folders, which are where they were.
    pub(crate) fn readable(&self) -> Vec<PathBuf> {
        let shipped = self.shipped();
        let folders = self.names.iter().filter_map(|name| fs::read_link(shipped.join(name)).ok()).collect::<Vec<_>>();
        [vec![shipped], folders].concat()
    }

    /// A folder for an attempt, with all files of the job in it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn attempt(&self) -> Result<Folder, Error> {
        let made = || {
            let folder = Folder(private().prefix("attempt-").tempdir_in(self.folder.path())?);
            for name in &self.names {
                symlink(self.shipped().join(name), folder.path().join(name))?;
            }
            fs::create_dir(folder.path().join(TMP))?;
            Ok(folder)
        };
        made().map_err(|source| Error::Write { action: "create a folder in", path: self.folder.path().into(), source })
    }

    /// Keeps what a failed attempt needs, and returns the script that does it again.
    pub(crate) fn keep(&self, command: &Command, input: &mut Input<'_>) -> Result<PathBuf, Error> {
        let written = |e| Error::Write { action: "write", path: self.keep.clone(), source: e };
        let folder = private().prefix("gristmill-failed-").tempdir_in(&self.keep).map_err(written)?;
        let files = folder.path().join("files");
        let file = fs::File::create_new(folder.path().join("input")).map_err(written)?;
        let mut to = BufWriter::new(Bounded { file, left: MOST_KEPT });
        input(&mut to)?;
        to.flush().map_err(written)?;
        let copy = || {
            copy_all(&self.shipped(), &files)?;
            fs::create_dir_all(files.join(TMP))?;
            let script = folder.path().join("run.sh");
            fs::write(&script, run_again(command, &self.shipped(), &files))?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
        };
        copy().map_err(written)?;
        Ok(folder.keep().join("run.sh"))
    }
}

/// A file that takes so many bytes and no more.
struct Bounded {
    file: fs::File,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Folders that nobody else looks into.
fn private() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.permissions(fs::Permissions::from_mode(0o700));
    builder
}

/// Copies a folder that is ours; links in it stay links.
fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match kind {
            kind if kind.is_symlink() => symlink(fs::read_link(path)?, to)?,
            kind if kind.is_dir() => copy_all(&path, &to)?,
            _ => fs::copy(path, to).map(drop)?,
        }
    }
    Ok(())
}

/// The script that does an attempt again, with what was `shipped` in `files`.
fn run_again(command: &Command, shipped: &Path, files: &Path) -> String {
    let quoted = |text: &str| shlex::try_quote(text).map_or_else(|_| "''".into(), |quoted| quoted.into_owned());
    let [folder, shipped, files] = [&command.folder, shipped, files].map(|path| path.to_string_lossy());
    let moved = |text: String| text.replace(&*folder, &files).replace(&*shipped, &files);
    let mut text = "#!/bin/sh\n# Does a task again that failed, over the same input.\ncd \"$(dirname \"$0\")/files\" || exit 1\nexec env -i".to_string();
    for (name, value) in &command.environment {
        let pair = format!("{}={}", name.to_string_lossy(), moved(value.to_string_lossy().into_owned()));
        text += &format!(" \\\n  {}", quoted(&pair));
    }
    for word in &command.words {
        text += &format!(" \\\n  {}", quoted(&moved(word.clone())));
    }
    text + " < ../input\n"
}
