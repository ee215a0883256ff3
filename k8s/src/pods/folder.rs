//! The folder of pools as it was last read: read again every few seconds, and kept as it was while a file is wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gristmill_engine::node::pods::{Pool, Reason, Seat};

use crate::pool::{self, File};
use crate::reason::reason;

/// How often it is looked whether files have changed. Kubernetes itself takes up to a minute to put a changed ConfigMap into a
/// pod (*ConfigMaps*, mounted ConfigMaps are updated automatically).
pub(super) const EVERY: Duration = Duration::from_secs(3);

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    /// As last read, to know whether anything is new.
    texts: Option<Result<BTreeMap<String, String>, String>>,
    /// The last that were all good.
    good: BTreeMap<String, Arc<File>>,
    /// Whether they ever were.
    was_good: bool,
    /// What is wrong since.
    wrong: Option<Reason>,
}

impl Folder {
    /// Reads it for the first time. What is wrong with it is told by [`Folder::pools`].
    pub(super) fn new(path: PathBuf) -> Self {
        let folder = Self { path, read: Mutex::default() };
        folder.read_again();
        folder
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads it, and says whether anything is new. Blocks.
    pub(super) fn read_again(&self) -> bool {
        // A ConfigMap's files are replaced while they are read: the second time all are of the new one.
        let texts = pool::texts(&self.path).or_else(|_| pool::texts(&self.path));
        let mut read = self.read();
        if read.texts.as_ref() == Some(&texts) {
            return false;
        }
        match texts.as_ref().map_err(Clone::clone).and_then(pool::files) {
            Ok(files) => {
                read.good = files.into_iter().map(|(name, file)| (name, Arc::new(file))).collect();
                (read.wrong, read.was_good) = (None, true);
            }
            Err(wrong) => read.wrong = Some(reason("PoolsInvalid", &wrong)),
        }
        read.texts = Some(texts);
        true
    }

    /// All pools as they were last good, or what is wrong with their files if they never were.
    pub(super) fn pools(&self) -> Result<Vec<Pool>, Reason> {
        let read = self.read();
        match &read.wrong {
            Some(wrong) if !read.was_good => Err(wrong.clone()),
            _ => Ok(read.good.values().map(|file| file.pool.clone()).collect()),
        }
    }

    /// What is wrong with the files.
    pub(super) fn trouble(&self) -> Option<Reason> {
        self.read().wrong.clone()
    }

    /// The file that says how this seat's pod is to be made, as long as it is the one that says so.
    pub(super) fn file(&self, seat: &Seat) -> Option<Arc<File>> {
        self.read().good.get(&seat.pool).filter(|file| file.pool.generation == seat.generation).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(image: &str) -> String {
        format!("max: 3\nslots: 1\ntemplate: {{spec: {{containers: [{{name: worker, image: {image}}}]}}}}")
    }

    #[test]
    fn pools_stay_as_they_were_while_a_file_is_wrong() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |text: &str| std::fs::write(dir.path().join("a.yaml"), text).expect("a file");
        write(&text("one"));
        let folder = Folder::new(dir.path().into());
        let first = folder.pools().expect("they are good").remove(0);
        let seat = Seat { pool: "a".into(), generation: first.generation, index: 0 };
        assert!(!folder.read_again() && folder.file(&seat).is_some());
        write("max: many");
        assert!(folder.read_again() && !folder.read_again());
        assert_eq!(folder.pools(), Ok(vec![first.clone()]));
        let wrong = folder.trouble().expect("it is wrong");
        assert!(wrong.word == "PoolsInvalid" && wrong.text.starts_with("a.yaml: "), "{wrong}");
        assert!(folder.file(&seat).is_some());
        write(&text("two"));
        assert!(folder.read_again() && folder.trouble().is_none());
        assert_ne!(folder.pools().expect("it is good again").remove(0).generation, first.generation);
        assert!(folder.file(&seat).is_none());
        std::fs::remove_file(dir.path().join("a.yaml")).expect("it was there");
        assert!(folder.read_again());
        assert_eq!(folder.pools(), Ok(Vec::new()));
    }

    #[test]
    fn a_folder_that_is_missing_is_said_to_be() {
        let folder = Folder::new("/nonexistent/pools".into());
        assert!(folder.pools().expect_err("there is none").text.contains("/nonexistent/pools cannot be read"));
    }
}
