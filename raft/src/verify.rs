//! Folders of production: opening one, checking one before it is served, and looking into one without a trace.
//!
//! sled may panic over a damaged database, or worse; so the check runs in a child process first, which the program makes
//! of itself (a hidden subcommand that calls [`child`]).

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use crate::disk::{self, Folder, SledKv};
use crate::identity::{Error as IdentityError, Identity};
use crate::node::{Disks, Error};
use crate::report::{self, Report};

/// The database's folder within a node's.
const LOG: &str = "log";

/// The exit code of a child that refuses the folder; its standard error says why.
const REFUSED: u8 = 3;

/// The most bytes that are read of what a child says.
const MAX_WORDS_BYTES: u64 = 64 << 10;

/// How often a child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Opens the folder of a node, creating it if need be, and keeps other processes out.
///
/// # Errors
///
/// If another process has it, the disk refuses, or sled finds it damaged.
pub fn open(folder: &Path) -> Result<Disks<SledKv, Folder>, Error> {
    let files = Folder::open(folder)?;
    Ok(Disks { kv: SledKv::open(&folder.join(LOG))?, files })
}

/// Checks the folder of a node that does not run: everything is read. An empty folder passes, without a report.
///
/// # Errors
///
/// Those of [`report::check`]. sled may panic instead.
pub fn folder(folder: &Path) -> Result<Option<Report>, Error> {
    let empty = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().all(|entry| entry.file_name() == "lock"),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    };
    if empty {
        return Ok(None);
    }
    let disks = open(folder)?;
    if !folder.join("identity").exists() && disks.files_are_new()? {
        return Ok(None);
    }
    report::check(&disks.kv, &disks.files).map(Some)
}

impl Disks<SledKv, Folder> {
    /// Whether an interrupted creation may have left this: it is made again then.
    fn files_are_new(&self) -> Result<bool, Error> {
        crate::log::open::is_new(&self.kv, &self.files).map_err(|source| Error::Log { node: None, source })
    }
}

/// What the child does: checks the folder and says so by its exit code.
pub fn child(path: &Path) -> ExitCode {
    match folder(path) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent reads it.
            eprintln!("{}", crate::chain(&error));
            ExitCode::from(REFUSED)
        }
    }
}

/// Runs `command`, which must end in [`child`], and waits for it, `within` at most.
///
/// # Errors
///
/// What the child found, or how it died.
pub fn in_child(command: &mut Command, within: Duration) -> Result<(), Error> {
    let failed = |what, e| Error::Disk(disk::Error::new(what, "the folder in a child process", e));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed("check", e))?;
    let words = child.stderr.take();
    let words = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(words) = words {
            // Half a message is better than none.
            let _ = words.take(MAX_WORDS_BYTES).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).trim().to_string()
    });
    let mut looks = within.as_nanos() / LOOK_EVERY.as_nanos();
    let status = loop {
        match child.try_wait().map_err(|e| failed("wait for the check of", e))? {
            Some(status) => break Some(status),
            None if looks == 0 => break None,
            None => std::thread::sleep(LOOK_EVERY),
        }
        looks -= 1;
    };
    if status.is_none() {
        // It may have just ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    let words = words.join().unwrap_or_default();
    verdict(status, &words, within)
}

fn verdict(status: Option<ExitStatus>, words: &str, within: Duration) -> Result<(), Error> {
    let how = match status {
        Some(status) if status.success() => return Ok(()),
        Some(status) if status.code() == Some(i32::from(REFUSED)) => return Err(Error::Checked(words.to_string())),
        Some(status) => format!("ended with {status}"),
        None => format!("did not end within {within:?}"),
    };
    let last = words.lines().last().unwrap_or("it said nothing");
    Err(Error::Checked(format!(
        "the check of the folder {how}; the database is damaged (the last words were: {last}); move the folder away, \
         start with an empty one, and remove the old node id from the cluster"
    )))
}

/// Looks into the folder of a node that does not run. It works on a copy of the database (sled writes whenever it opens
/// one), made below `scratch`, and leaves no trace in the folder.
///
/// # Errors
///
/// Those of [`report::check`]; [`Error::Disk`] if a process uses the folder or there is none.
pub fn inspect(folder: &Path, scratch: &Path) -> Result<Report, Error> {
    let files = Folder::open_to_read(folder)?;
    // Before the database is looked for: a folder that is no node's has none.
    Identity::read(&files)?.ok_or(IdentityError::None)?;
    let copy = scratch.join(format!("gristmill-inspect-{}", std::process::id()));
    let copied = copy_folder(&folder.join(LOG), &copy);
    let report = copied.map_err(|e| Error::Disk(disk::Error::new("copy the database to", copy.display(), e)));
    let report = report.and_then(|()| report::check(&SledKv::open(&copy)?, &files));
    // It lies in a folder for scratch.
    let _ = fs::remove_dir_all(&copy);
    report
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
