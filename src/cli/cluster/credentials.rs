//! Tokens of users, kept for each cluster's address in a file that its owner alone can read.
//!
//! The file is JSON, beside that of the contexts: credentials.json, or where GRISTMILL_CREDENTIALS says. It is written whole or
//! not at all. Whoever changes it holds a lock beside it: a refresh token is good for once, and two commands may run at the
//! same time.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gristmill_proto::v1 as api;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::super::failure::Failure;
use super::context;

/// The variable that says where the file is.
const VARIABLE: &str = "GRISTMILL_CREDENTIALS";
/// How long others may hold the lock: they wait for a cluster.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);
/// Between two attempts to get it.
const LOCK_EVERY: Duration = Duration::from_millis(20);
/// Access tokens hold for no longer, whatever the cluster's clock says.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A user's session with a cluster. Its secrets are overwritten when it goes, and it is printed nowhere.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Who has logged in.
    pub user: String,
    /// What calls show.
    pub access_token: String,
    /// When that one expires, by this machine's clock.
    pub expires_ms: u64,
    /// What gives the next one.
    pub refresh_token: String,
    /// When the session ends.
    pub session_expires_ms: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.access_token.zeroize();
        self.refresh_token.zeroize();
    }
}

impl Entry {
    /// What a cluster has answered just now.
    pub(super) fn of(answer: api::TokenResponse) -> Self {
        let latest = now_ms().saturating_add(LONGEST.as_millis() as u64);
        Self {
            user: answer.user,
            access_token: answer.access_token,
            expires_ms: answer.expires_ms.min(latest),
            refresh_token: answer.refresh_token,
            session_expires_ms: answer.session_expires_ms,
        }
    }

    /// Whether the access token holds for so long yet.
    pub(super) fn holds(&self, least: Duration) -> bool {
        now_ms().saturating_add(least.as_millis() as u64) < self.expires_ms
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Kept {
    clusters: BTreeMap<String, Entry>,
}

/// A file with secrets, whole; `None` if there is none.
///
/// # Errors
/// That it cannot be read, or that others can.
pub(super) fn read_secret(path: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
    let failed = |source| Failure::File { action: "read", path: path.into(), source };
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let about = file.metadata().map_err(failed)?;
    if about.permissions().mode() & 0o077 != 0 {
        let what = format!("others than its owner may use it; make it yours alone: chmod 600 {}", path.display());
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, what)));
    }
    // With room for all of it, so that no part is left where it was before.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(about.len()).unwrap_or(0) + 1));
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// The file of tokens.
#[derive(Clone)]
pub(super) struct Store {
    path: PathBuf,
}

/// Held while the file is changed. It is released when this goes.
pub(super) struct Lock {
    _file: File,
}

impl Store {
    /// Where variables and home say.
    ///
    /// # Errors
    /// That there is no home for it.
    pub(super) fn new() -> Result<Self, Failure> {
        if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            return Ok(Self { path: path.into() });
        }
        let none =
            |_| Failure::Usage(format!("there is no home folder for tokens; say where they are with {VARIABLE}"));
        Ok(Self { path: context::path().map_err(none)?.with_file_name("credentials.json") })
    }

    /// Another file of the user's, beside this one.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Makes the folder, for its owner alone, if it is not there.
    pub(super) fn make_folder(&self) -> Result<&Path, Failure> {
        let folder = self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Failure::File { action: "create", path: folder.into(), source })?;
        Ok(folder)
    }

    fn load(&self) -> Result<Kept, Failure> {
        let Some(text) = read_secret(&self.path)? else { return Ok(Kept::default()) };
        // What is wrong is not told in serde's words: they may have a token in them.
        let at = |e: serde_json::Error| format!("line {}, column {}", e.line(), e.column());
        let path = self.path.display();
        let wrong = |e| Failure::Usage(format!("{path} holds no tokens (see {}); remove it and log in again", at(e)));
        serde_json::from_str(&text).map_err(wrong)
    }

    fn write(&self, kept: &Kept) -> Result<(), Failure> {
        let folder = self.make_folder()?;
        let write = || {
            let text = Zeroizing::new(serde_json::to_string_pretty(kept)?);
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|source| Failure::File { action: "write", path: self.path.clone(), source })
    }

    /// What is kept for a cluster.
    pub(super) fn get(&self, address: &str) -> Result<Option<Entry>, Failure> {
        Ok(self.load()?.clusters.remove(address))
    }

    /// Keeps something for a cluster, or nothing any more.
    pub(super) fn put(&self, _held: &Lock, address: &str, entry: Option<Entry>) -> Result<(), Failure> {
        let mut kept = self.load()?;
        match entry {
            Some(entry) => kept.clusters.insert(address.into(), entry),
            None => kept.clusters.remove(address),
        };
        self.write(&kept)
    }

    /// The same, by itself.
    pub(super) async fn keep(&self, address: &str, entry: Option<Entry>) -> Result<(), Failure> {
        let held = self.lock().await?;
        self.put(&held, address, entry)
    }

    /// Waits until nobody else changes the file. Another task of this process may hold the lock: the thread is not held up.
    pub(super) async fn lock(&self) -> Result<Lock, Failure> {
        self.make_folder()?;
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| Failure::File { action: "lock", path: path.clone(), source };
        let opened = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(failed)?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCKED_WITHIN => tokio::time::sleep(LOCK_EVERY).await,
                Err(Errno::WOULDBLOCK) => {
                    return Err(failed(io::Error::other("another command holds it; see which, and try again")));
                }
                Err(e) => return Err(failed(e.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(user: &str, expires_ms: u64) -> Entry {
        let (access_token, refresh_token) = ("access".into(), "refresh".into());
        Entry { user: user.into(), access_token, expires_ms, refresh_token, session_expires_ms: expires_ms }
    }

    fn at(folder: &tempfile::TempDir) -> Store {
        Store { path: folder.path().join("own/credentials.json") }
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again_and_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = at(&folder);
        assert!(store.get("a:1").unwrap().is_none());
        store.keep("a:1", Some(entry("ann", 7))).await.unwrap();
        store.keep("b:1", Some(entry("bob", 8))).await.unwrap();
        let kept = store.get("a:1").unwrap().unwrap();
        assert_eq!((kept.user.as_str(), kept.access_token.as_str(), kept.expires_ms), ("ann", "access", 7));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.path), 0o600);
        assert_eq!(mode(store.path.parent().unwrap()), 0o700);
        store.keep("a:1", None).await.unwrap();
        assert!(store.get("a:1").unwrap().is_none() && store.get("b:1").unwrap().is_some());
    }

    #[tokio::test]
    async fn a_file_that_others_may_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = at(&folder);
        store.keep("a:1", Some(entry("ann", 7))).await.unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&store.path, fs::Permissions::from_mode(mode)).unwrap();
            let failure = store.get("a:1").err().unwrap();
            assert!(failure.line().contains("chmod 600"), "{}", failure.line());
            assert_eq!(failure.code(), 4);
        }
    }

    #[tokio::test]
    async fn a_file_of_something_else_is_told_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let store = at(&folder);
        store.keep("a:1", None).await.unwrap();
        fs::write(&store.path, r#"{"clusters": "eyJ"}"#).unwrap();
        let failure = store.get("a:1").err().unwrap();
        assert!(failure.line().contains("remove it") && !failure.line().contains("eyJ"), "{}", failure.line());
    }

    #[tokio::test]
    async fn one_changes_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = at(&folder);
        let held = store.lock().await.unwrap();
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, store.keep("a:1", None)).await.is_err());
        drop(held);
        store.keep("a:1", None).await.unwrap();
    }

    #[test]
    fn a_token_holds_until_it_expires() {
        let entry = entry("ann", now_ms() + 90_000);
        assert!(entry.holds(Duration::from_secs(60)) && !entry.holds(Duration::from_secs(120)));
        let answer = api::TokenResponse { expires_ms: u64::MAX, ..Default::default() };
        assert!(!Entry::of(answer).holds(LONGEST + Duration::from_secs(1)), "whatever the cluster's clock says");
    }
}
