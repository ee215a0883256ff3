//! `gristmill.v1.Apps`: files and versions of apps that users bring, as objects of the store. Any master answers; nothing here
//! takes the log.
//!
//! A file lies under its SHA-256 and is never changed. A version is an object that is made once, with all that a job's spec
//! needs to know; which one is the newest is read off the names. Jobs name digests, so that versions come and go as they like.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gristmill_engine::control::commit::{self, ROOT};
use gristmill_engine::control::limits;
use gristmill_engine::scratch::map_file;
use gristmill_engine::store::{Kind, Meta, Name, Store as _, list_all};
use gristmill_proto::prost::Message as _;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::apps_server::{Apps as Service, AppsServer};
use gristmill_proto::v1::put_request::Part;
use sha2::{Digest as _, Sha256};
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::data::{self, Data, Pieces, patiently, status};
use super::store::Shared;

/// How long a file stays that no version refers to: a submission may be about to name it, and jobs may run that do.
const STAYS: Duration = Duration::from_secs(24 * 60 * 60);
/// Versions that are looked at.
const MOST: usize = 10_000;
/// Pushes of one name that one push meets before it gives up.
const RIVALS: u32 = 100;

/// The service.
#[derive(Clone)]
pub(super) struct Apps {
    store: Shared,
    data: Data,
}

impl Apps {
    /// A service over a store; files come in as others do.
    pub(super) fn new(store: Shared, data: Data) -> Self {
        Self { store, data }
    }

    /// The service.
    pub(super) fn service(self) -> AppsServer<Self> {
        AppsServer::new(self)
    }

    async fn has(&self, digest: &[u8]) -> Result<bool, Status> {
        let name = Name::new(commit::app_file(digest)).map_err(status)?;
        match patiently(|| self.store.head(&name)).await.0 {
            Ok(_) => Ok(true),
            Err(e) if e.kind == Kind::NotFound => Ok(false),
            Err(e) => Err(status(e)),
        }
    }

    /// All versions of one app or of all, with where they lie.
    async fn versions(&self, name: &str) -> Result<Vec<(Name, u32)>, Status> {
        let root = below(name);
        let found = patiently(|| list_all(&self.store, &root)).await.0.map_err(status)?;
        let version = |(name, _): (Name, Meta)| {
            let number = name.as_str().rsplit('/').next()?.parse().ok()?;
            Some((name, number))
        };
        let mut all: Vec<(Name, u32)> = found.into_iter().filter_map(version).collect();
        // By name, and of a name the newest first.
        all.sort_by(|(a, m), (b, n)| {
            let folder = |name: &Name| name.as_str().rsplit_once('/').map(|(folder, _)| folder.to_string());
            folder(a).cmp(&folder(b)).then(n.cmp(m))
        });
        all.truncate(MOST);
        Ok(all)
    }

    async fn read(&self, at: &Name) -> Result<Option<api::PushedApp>, Status> {
        let bytes = match patiently(|| self.store.get(at, 0..limits::SPEC_BYTES as u64)).await.0 {
            // Removed meanwhile.
            Err(e) if e.kind == Kind::NotFound => return Ok(None),
            bytes => bytes.map_err(status)?,
        };
        let app = api::PushedApp::decode(&bytes[..]);
        app.map(Some).map_err(|e| Status::data_loss(format!("{at} makes no sense: {e}")))
    }

    async fn all(&self, name: &str) -> Result<Vec<api::PushedApp>, Status> {
        let mut apps = Vec::new();
        for (at, _) in self.versions(name).await? {
            apps.extend(self.read(&at).await?);
        }
        Ok(apps)
    }

    async fn make(&self, name: &str, app: api::App) -> Result<api::PushAppResponse, Status> {
        for _ in 0..RIVALS {
            let newest = self.versions(name).await?.into_iter().next();
            if let Some((at, version)) = &newest
                && self.read(at).await?.and_then(|there| there.app) == Some(app.clone())
            {
                return Ok(api::PushAppResponse { version: *version, existed: true });
            }
            let version = newest.map_or(1, |(_, newest)| newest.saturating_add(1));
            let pushed = api::PushedApp { name: name.into(), version, app: Some(app.clone()), pushed_ms: now_ms() };
            let at = Name::new(format!("{}{version:010}", below(name))).map_err(status)?;
            let bytes = Arc::new(pushed.encode_to_vec());
            match patiently(|| self.store.put(&at, bytes.clone())).await {
                (Ok(()), _) => return Ok(api::PushAppResponse { version, existed: false }),
                // Another push was quicker, or this one was carried out when it seemed not to be: the next look tells.
                (Err(e), _) if e.kind == Kind::AlreadyExists => {}
                (Err(e), _) => return Err(status(e)),
            }
        }
        Err(Status::aborted(format!("others push {name} all the time; push it again")))
    }

    /// Deletes files that no version refers to, but for new ones.
    async fn collect(&self) -> Result<u32, Status> {
        let apps = self.all("").await?;
        let files = apps.iter().flat_map(|pushed| pushed.app.iter().flat_map(|app| &app.files));
        let needed: BTreeSet<String> = files.map(|file| commit::app_file(&file.digest)).collect();
        let root = format!("{ROOT}/apps/files/");
        let found = patiently(|| list_all(&self.store, &root)).await.0.map_err(status)?;
        let old = |meta: &Meta| meta.modified_ms > 0 && meta.modified_ms + STAYS.as_millis() as u64 <= now_ms();
        let mut gone = 0;
        for (name, _) in found.iter().filter(|(name, meta)| old(meta) && !needed.contains(name.as_str())) {
            patiently(|| self.store.delete(name, None)).await.0.map_err(status)?;
            gone += 1;
        }
        Ok(gone)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Below this lie the versions of an app, or those of all.
fn below(name: &str) -> String {
    let all = format!("{ROOT}/apps/named/");
    if name.is_empty() { all } else { format!("{all}{name}/") }
}

fn check_name(name: &str) -> Result<(), Status> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if plain && name.len() <= limits::SHORT_NAME_BYTES && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok(());
    }
    let rule = "a name has letters, digits, '-', '_' and '.', at most 64, and begins with a letter";
    Err(Status::invalid_argument(format!("an app cannot be called {name:?}: {rule}")))
}

#[tonic::async_trait]
impl Service for Apps {
    async fn missing(
        &self,
        request: Request<api::MissingFilesRequest>,
    ) -> Result<Response<api::MissingFilesResponse>, Status> {
        let asked = request.into_inner().digests;
        if asked.len() > 1000 || asked.iter().any(|digest| digest.len() != 32) {
            return Err(Status::invalid_argument("at most 1000 digests of 32 bytes each can be asked for"));
        }
        let mut digests = Vec::new();
        for digest in asked {
            if !self.has(&digest).await? {
                digests.push(digest);
            }
        }
        Ok(Response::new(api::MissingFilesResponse { digests }))
    }

    async fn put_file(&self, request: Request<Streaming<api::PutRequest>>) -> Result<Response<api::FileInfo>, Status> {
        let mut messages = request.into_inner();
        let first = messages.next().await.transpose()?.and_then(|message| message.part);
        let Some(Part::Begin(begin)) = first else {
            return Err(Status::invalid_argument("the first message of a file has its digest"));
        };
        let digest = unhex(&begin.name).ok_or_else(|| {
            Status::invalid_argument(format!("{:?} is no SHA-256 in 64 hexadecimal digits", begin.name))
        })?;
        let name = Name::new(commit::app_file(&digest)).map_err(status)?;
        let (path, bytes, crc32c) = self.data.received(&name, limits::FILE_BYTES, &mut messages).await?;
        let failed = |e: std::io::Error| Status::internal(format!("cannot read {name} at this master: {e}"));
        let content = map_file(&path).map_err(failed)?;
        let digested = content.clone();
        let found = tokio::task::spawn_blocking(move || <[u8; 32]>::from(Sha256::digest(digested.bytes())));
        if found.await.map_err(|e| Status::internal(e.to_string()))? != digest {
            return Err(Status::invalid_argument(format!(
                "the file that was sent does not have digest {}",
                begin.name
            )));
        }
        match patiently(|| self.store.put(&name, content.clone())).await.0 {
            Err(e) if e.kind != Kind::AlreadyExists => return Err(status(e)),
            _ => {}
        }
        Ok(Response::new(api::FileInfo { name: begin.name, bytes, crc32c: Some(crc32c), modified_ms: 0 }))
    }

    type GetFileStream = Pieces;

    async fn get_file(&self, request: Request<api::GetFileRequest>) -> Result<Response<Pieces>, Status> {
        let digest = request.into_inner().digest;
        if digest.len() != 32 {
            return Err(Status::invalid_argument("a digest has 32 bytes"));
        }
        let (name, store) = (Name::new(commit::app_file(&digest)).map_err(status)?, self.store.clone());
        let sent = |to| async move { data::send(&store, &name, (0, u64::MAX), &to).await.map(drop).map_err(status) };
        Ok(Response::new(data::pieces(sent)))
    }

    async fn push(&self, request: Request<api::PushAppRequest>) -> Result<Response<api::PushAppResponse>, Status> {
        let api::PushAppRequest { name, app } = request.into_inner();
        check_name(&name)?;
        let app = api::App { build: String::new(), pushed: String::new(), ..app.unwrap_or_default() };
        if app.name.is_empty() || app.encoded_len() > limits::SPEC_BYTES - 1024 || app.files.len() > limits::FILES {
            let most = limits::FILES;
            let what =
                format!("an app has the name of what runs it, at most {most} files, and 63 KiB of flags and names");
            return Err(Status::invalid_argument(what));
        }
        for file in &app.files {
            if file.digest.len() != 32 || !self.has(&file.digest).await? {
                return Err(Status::failed_precondition(format!(
                    "the cluster does not have {}; send it first",
                    file.path
                )));
            }
        }
        Ok(Response::new(self.make(&name, app).await?))
    }

    async fn list(&self, request: Request<api::ListAppsRequest>) -> Result<Response<api::ListAppsResponse>, Status> {
        let name = request.into_inner().name;
        if !name.is_empty() {
            check_name(&name)?;
        }
        let apps = self.all(&name).await?;
        if apps.is_empty() && !name.is_empty() {
            return Err(Status::not_found(format!("no app was pushed as {name}")));
        }
        Ok(Response::new(api::ListAppsResponse { apps }))
    }

    async fn remove(
        &self,
        request: Request<api::RemoveAppRequest>,
    ) -> Result<Response<api::RemoveAppResponse>, Status> {
        let api::RemoveAppRequest { name, version } = request.into_inner();
        check_name(&name)?;
        let all = self.versions(&name).await?;
        let chosen: Vec<Name> =
            all.into_iter().filter(|(_, n)| version == 0 || *n == version).map(|(at, _)| at).collect();
        if chosen.is_empty() {
            let which = if version == 0 { name } else { format!("{name}@{version}") };
            return Err(Status::not_found(format!("no app was pushed as {which}")));
        }
        for at in &chosen {
            patiently(|| self.store.delete(at, None)).await.0.map_err(status)?;
        }
        let versions = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        Ok(Response::new(api::RemoveAppResponse { versions, files: self.collect().await? }))
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    // from_str_radix takes a sign.
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (n, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_apps_and_digests() {
        for good in ["wc", "Word-Count_2.0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a/b", "..", "1st", "a b", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        let digest = [0xab; 32];
        let name = commit::app_file(&digest);
        assert_eq!(unhex(name.rsplit('/').next().unwrap()), Some(digest));
        for bad in ["", "ab", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert_eq!(unhex(bad), None, "{bad:?}");
        }
    }
}
