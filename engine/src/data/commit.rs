//! Publishing a folder of parts, all or nothing, and reading one back.
//!
//! Parts are written into a hidden folder beside the output; when all are complete and `_SUCCESS` holds the manifest,
//! one rename makes them visible. A folder to be overwritten is exchanged for the new one in the same step and
//! removed after. Hidden folders are locked while their process lives; the next job for the same output removes those
//! that nobody holds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::compress::{self, Compression};
use super::output::PartSummary;
use crate::error::Error;

/// Name of the file that says that an output is complete.
pub const SUCCESS: &str = "_SUCCESS";
/// Version of the manifest's layout.
const MANIFEST_VERSION: u32 = 1;

/// What `_SUCCESS` holds. It depends on the input and the options that shape the output, on nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub version: u32,
    /// Name of the app.
    pub app: String,
    /// Version of the hash that divided keys among parts.
    pub hash_version: u32,
    /// Records of all parts.
    pub records: u64,
    /// Bytes of all parts, before compression.
    pub bytes: u64,
    /// The parts, in order.
    pub parts: Vec<PartEntry>,
    /// Counters of the app.
    pub counters: BTreeMap<String, u64>,
    /// Records that were passed over, if that was allowed.
    pub bad_records: u64,
}

/// A part in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// File name.
    pub name: String,
    /// Records, bytes and checksum before compression.
    #[serde(flatten)]
    pub summary: PartSummary,
}

impl Manifest {
    pub(crate) fn new(app: &str, parts: Vec<PartEntry>, counters: BTreeMap<String, u64>, bad_records: u64) -> Self {
        Self {
            version: MANIFEST_VERSION,
            app: app.into(),
            hash_version: super::hash::HASH_VERSION,
            records: parts.iter().map(|p| p.summary.records).sum(),
            bytes: parts.iter().map(|p| p.summary.bytes).sum(),
            parts,
            counters,
            bad_records,
        }
    }

    /// Reads the manifest of an output.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when the output is not complete; `InvalidData` when the manifest is not one.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let manifest: Self = serde_json::from_slice(&fs::read(folder.join(SUCCESS))?)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("not a manifest: {e}")))?;
        if manifest.version > MANIFEST_VERSION {
            let e = format!("manifest version {} is newer than this program's {MANIFEST_VERSION}", manifest.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
        Ok(manifest)
    }
}

/// Name of part `n`.
pub(crate) fn part_name(n: usize, compression: Option<Compression>) -> String {
    match compression {
        Some(kind) => format!("part-{n:05}.{}", kind.extension()),
        None => format!("part-{n:05}"),
    }
}

/// Opens a part for reading, decompressed by its extension.
///
/// # Errors
/// What the system says of the file.
pub fn open_part(folder: &Path, part: &PartEntry) -> io::Result<Box<dyn Read + Send>> {
    let path = folder.join(&part.name);
    let file = File::open(&path)?;
    Ok(match Compression::of(&path) {
        Some(kind) => Box::new(compress::Decoder::new(kind, Box::new(file), path.to_string_lossy().into())?),
        None => Box::new(file),
    })
}

/// A hidden folder where an output is being made. Removed when dropped, unless published.
#[derive(Debug)]
pub(crate) struct Pending {
    target: PathBuf,
    hidden: PathBuf,
    overwrite: bool,
    /// Holds the lock.
    _held: File,
    published: bool,
}

impl Pending {
    /// Refuses an existing output, clears what dead processes left, and makes the hidden folder.
    pub(crate) fn begin(target: &Path, overwrite: bool) -> Result<Self, Error> {
        refuse_existing(target, overwrite)?;
        let (parent, prefix) = neighbours(target);
        fs::create_dir_all(&parent).map_err(Error::write("create folder", &parent))?;
        clear_dead(&parent, &prefix);
        loop {
            let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent);
            let hidden = folder.map_err(Error::write("create a folder in", &parent))?.keep();
            // Temporary folders are private; an output is as open as any other new folder.
            let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777 & !umask());
            let ready = File::open(&hidden).and_then(|held| {
                held.try_lock().map_err(io::Error::from)?;
                fs::set_permissions(&hidden, open)?;
                Ok(held)
            });
            match ready {
                Ok(held) if hidden.exists() => {
                    return Ok(Self { target: target.into(), hidden, overwrite, _held: held, published: false });
                }
                // Another process took it for a dead one's, between its creation and its lock.
                _ if !hidden.exists() => {}
                Ok(_) => {}
                Err(e) => return Err(Error::write("lock folder", hidden)(e)),
            }
        }
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.target.clone()
    }

    #[cfg(test)]
    fn folder(&self) -> &Path {
        &self.hidden
    }

    /// Creates a file in the hidden folder.
    pub(crate) fn create(&self, name: &str) -> Result<File, Error> {
        let path = self.hidden.join(name);
        File::create_new(&path).map_err(Error::write("create", self.target.join(name)))
    }

    /// Writes a whole file into the hidden folder.
    pub(crate) fn write(&self, name: &str, bytes: &[u8], sync: bool) -> Result<(), Error> {
        let path = self.hidden.join(name);
        let result = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            let mut file = File::create_new(&path)?;
            io::Write::write_all(&mut file, bytes)?;
            if sync { file.sync_all() } else { Ok(()) }
        });
        result.map_err(Error::write("write", self.target.join(name)))
    }

    /// Makes the output visible with its manifest.
    pub(crate) fn publish(mut self, manifest: &Manifest, sync: bool) -> Result<(), Error> {
        let mut json = serde_json::to_vec_pretty(manifest).map_err(|e| Error::write("write", SUCCESS)(e.into()))?;
        json.push(b'\n');
        self.write(SUCCESS, &json, sync)?;
        let fail = || Error::write("publish", &self.target);
        if sync {
            File::open(&self.hidden).and_then(|d| d.sync_all()).map_err(fail())?;
        }
        match renameat_with(CWD, &self.hidden, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) if self.overwrite => {
                renameat_with(CWD, &self.hidden, CWD, &self.target, RenameFlags::EXCHANGE)
                    .map_err(|e| fail()(e.into()))?;
                fs::remove_dir_all(&self.hidden).map_err(Error::write("remove the old output in", &self.hidden))?;
            }
            Err(rustix::io::Errno::EXIST) => return Err(Error::OutputExists(self.target.clone())),
            // A file system without exclusive renames: an empty folder is all that this could replace.
            Err(rustix::io::Errno::INVAL) if !self.overwrite => {
                fs::rename(&self.hidden, &self.target).map_err(fail())?;
            }
            Err(e) => return Err(fail()(e.into())),
        }
        self.published = true;
        if sync {
            let (parent, _) = neighbours(&self.target);
            File::open(&parent).and_then(|d| d.sync_all()).map_err(fail())?;
        }
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.published {
            // The job has failed already; what cannot be removed is left to the next.
            let _ = fs::remove_dir_all(&self.hidden);
        }
    }
}

/// An existing output is refused; one to be overwritten must be an output, so that a slip costs no other folder.
fn refuse_existing(target: &Path, overwrite: bool) -> Result<(), Error> {
    let Ok(meta) = fs::symlink_metadata(target) else { return Ok(()) };
    if !overwrite {
        return Err(Error::OutputExists(target.into()));
    }
    let is_output = meta.is_dir() && target.join(SUCCESS).is_file();
    let is_empty = meta.is_dir() && fs::read_dir(target).is_ok_and(|mut d| d.next().is_none());
    if is_output || is_empty {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} is not the output of a job (it has no {SUCCESS}), so --overwrite leaves it alone; remove it yourself",
        target.display()
    )))
}

/// The folder that an output is in, and how the names of hidden folders for it begin.
fn neighbours(target: &Path) -> (PathBuf, OsString) {
    let parent = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".gristmill-");
    (parent, prefix)
}

/// Removes hidden folders for this output that no living process holds.
fn clear_dead(parent: &Path, prefix: &OsString) {
    use std::os::unix::ffi::OsStrExt;
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().as_bytes().starts_with(prefix.as_bytes())) {
        let path = entry.path();
        let dead = File::open(&path).is_ok_and(|f| f.try_lock().is_ok());
        if dead {
            // If it cannot be removed it does no harm: readers never look at hidden folders.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn umask() -> u32 {
    let now = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::umask(now);
    now.as_raw_mode()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let summary = PartSummary { records: 1, bytes: 2, crc32c: 3 };
        let parts = vec![PartEntry { name: part_name(0, None), summary }];
        Manifest::new("test", parts, BTreeMap::from([("seen".into(), 4)]), 0)
    }

    fn make(target: &Path, overwrite: bool, content: &[u8]) -> Result<(), Error> {
        let pending = Pending::begin(target, overwrite)?;
        pending.write("part-00000", content, false)?;
        assert!(!target.join("part-00000").exists() || overwrite);
        pending.publish(&manifest(), true)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        all.sort();
        all
    }

    #[test]
    fn output_appears_whole_and_is_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/out");
        make(&out, false, b"one").unwrap();
        assert_eq!(Manifest::read(&out).unwrap(), manifest());
        assert!(matches!(make(&out, false, b"two"), Err(Error::OutputExists(_))));
        assert_eq!(fs::read(out.join("part-00000")).unwrap(), b"one");
        make(&out, true, b"three").unwrap();
        assert_eq!(fs::read(out.join("part-00000")).unwrap(), b"three");
        assert_eq!(names(&dir.path().join("a")), ["out"]);
    }

    #[test]
    fn a_folder_that_is_no_output_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), b"data").unwrap();
        let error = make(dir.path(), true, b"").unwrap_err();
        assert!(error.to_string().contains("_SUCCESS"), "{error}");
        assert_eq!(names(dir.path()), ["precious"]);
    }

    #[test]
    fn an_output_that_failed_leaves_nothing_and_dead_ones_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        drop(Pending::begin(&out, false).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
        // As a killed process leaves it: nobody holds the lock.
        fs::create_dir(dir.path().join(".out.gristmill-dead")).unwrap();
        let living = Pending::begin(&out, false).unwrap();
        make(&out, false, b"x").unwrap();
        assert!(living.folder().exists());
        assert!(!dir.path().join(".out.gristmill-dead").exists());
        assert!(matches!(living.publish(&manifest(), false), Err(Error::OutputExists(_))));
    }
}
