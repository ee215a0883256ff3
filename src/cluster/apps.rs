//! `gristmill.v1.Apps`: files and versions of apps that users bring, as objects of the store. Any master answers; nothing here
//! takes the log.
//!
//! A file lies under its SHA-256 and is never changed. A version is an object that is made once, with all that a job's spec
//! needs to know; which one is the newest is read off the names. What is left of a removed one is an empty object, so that its
//! number is not given again: for a day, within which every push has ended that saw it free, and of the newest for ever. Jobs
//! name digests, so that versions come and go as they like: a file stays while a version or an open job refers to it, and else
//! for a day after it came or was written again. That happens to older ones of which somebody hears that they are there.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gristmill_engine::control::commit::{self, ROOT};
use gristmill_engine::control::limits;
use gristmill_engine::control::rights::{Principal, Right};
use gristmill_engine::node::env::{Env as _, Note};
use gristmill_engine::node::master::{ApiError, Code, MasterNode};
use gristmill_engine::scratch::{Mapping, map_file};
use gristmill_engine::store::{Error, Kind, Meta, Name, Store as _, Version, list_all, read};
use gristmill_proto::prost::Message as _;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::apps_server::{Apps as Service, AppsServer};
use gristmill_proto::v1::put_request::Part;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::data::{self, Data, Pieces, patiently, status};
use super::guard::who;
use super::services::of_api;
use super::store::Shared;
use super::world::World;

/// How long a file stays that nothing refers to: a submission may be about to name it.
const STAYS: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two looks for files that nothing refers to.
const COLLECT_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// Versions on a page of a list, and bytes of them at which it is full.
const PAGE: (usize, usize) = (500, 2 << 20);
/// Others who write the same that one call meets before it gives up.
const RIVALS: u32 = 100;

/// The service.
#[derive(Clone)]
pub(super) struct Apps {
    store: Shared,
    data: Data,
    /// Knows which jobs there are.
    node: MasterNode<World>,
    /// Hears what did not work.
    world: World,
    /// Held while a file is written again, all of which may be in memory then.
    renewing: Arc<Mutex<()>>,
}

/// A version, as far as the name and the size of its object tell.
struct Kept {
    app: String,
    version: u32,
    at: Name,
    meta: Meta,
}

impl Kept {
    fn of(at: Name, meta: Meta) -> Option<Self> {
        let (app, version) = at.as_str().strip_prefix(&below(""))?.split_once('/')?;
        let (app, version) = (app.to_string(), version.parse().ok()?);
        Some(Self { app, version, at, meta })
    }

    /// Only its number is left.
    fn is_removed(&self) -> bool {
        self.meta.len == 0
    }
}

impl Apps {
    /// A service over a store; files come in as others do.
    pub(super) fn new(store: Shared, data: Data, node: MasterNode<World>, world: World) -> Self {
        Self { store, data, node, world, renewing: Arc::default() }
    }

    /// The service.
    pub(super) fn service(self) -> AppsServer<Self> {
        AppsServer::new(self)
    }

    /// What is known of an object; `None` if there is none.
    async fn look_up(&self, name: &Name) -> Result<Option<Meta>, Status> {
        match patiently(|| self.store.head(name)).await.0 {
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            meta => meta.map(Some).map_err(status),
        }
    }

    /// Whether a file is there, and so stays long enough to be referred to.
    async fn has(&self, digest: &[u8]) -> Result<bool, Status> {
        let name = Name::new(commit::app_file(digest)).map_err(status)?;
        for _ in 0..RIVALS {
            let Some(meta) = self.look_up(&name).await? else { return Ok(false) };
            if !is_older(&meta, STAYS / 2) {
                return Ok(true);
            }
            match self.renew(&name, &meta.version).await {
                Ok(()) => return Ok(true),
                // Another call has renewed or deleted it, or this one's try was carried out when it seemed not to be.
                Err(e) if matches!(e.kind, Kind::Changed | Kind::NotFound) => {}
                Err(e) => return Err(status(e)),
            }
        }
        Err(Status::aborted(format!("others write to {name} all the time; try again")))
    }

    /// Writes a file again, so that it is new.
    async fn renew(&self, name: &Name, version: &Version) -> Result<(), Error> {
        let _turn = self.renewing.lock().await;
        let bytes = patiently(|| async {
            let mut all = Vec::new();
            let whole = read(&self.store, name, |bytes| {
                all.extend_from_slice(bytes);
                Ok(())
            });
            whole.await?;
            Ok(all)
        });
        let bytes: Arc<dyn Mapping> = Arc::new(bytes.await.0?);
        patiently(|| self.store.replace(name, version, bytes.clone())).await.0
    }

    /// All versions of one app or of all, removed ones among them: by name, and of a name the newest first.
    async fn versions(&self, name: &str) -> Result<Vec<Kept>, Status> {
        let root = below(name);
        let found = patiently(|| list_all(&self.store, &root)).await.0.map_err(status)?;
        let mut all: Vec<Kept> = found.into_iter().filter_map(|(at, meta)| Kept::of(at, meta)).collect();
        all.sort_by(|a, b| a.app.cmp(&b.app).then(b.version.cmp(&a.version)));
        Ok(all)
    }

    async fn read(&self, at: &Name) -> Result<Option<api::PushedApp>, Status> {
        let bytes = match patiently(|| self.store.get(at, 0..limits::SPEC_BYTES as u64)).await.0 {
            Err(e) if e.kind == Kind::NotFound => return Ok(None),
            bytes => bytes.map_err(status)?,
        };
        // It was removed.
        if bytes.is_empty() {
            return Ok(None);
        }
        let app = api::PushedApp::decode(&bytes[..]);
        app.map(Some).map_err(|e| Status::data_loss(format!("{at} makes no sense: {e}")))
    }

    /// Whose app it is: the newest version that is there says. `None`: nobody's.
    async fn owner(&self, versions: &[Kept]) -> Result<Option<String>, Status> {
        for kept in versions.iter().filter(|kept| !kept.is_removed()) {
            if let Some(pushed) = self.read(&kept.at).await? {
                return Ok(Some(pushed.owner));
            }
        }
        Ok(None)
    }

    /// Refuses somebody another's app, and writes it down.
    fn refuse(&self, who: &Principal, action: &str, name: &str) -> Status {
        let (message, next_step) = (format!("app {name} is another's"), "push yours under another name".to_string());
        let why = ApiError::Refused { code: Code::Denied, message, next_step };
        self.node.denied(who, action, name, &why);
        of_api(why)
    }

    async fn make(&self, who: &Principal, name: &str, app: api::App) -> Result<api::PushAppResponse, Status> {
        for _ in 0..RIVALS {
            let versions = self.versions(name).await?;
            let owner = self.owner(&versions).await?.unwrap_or_else(|| who.name.to_string());
            if !who.may(Right::AppsPush, Right::AppsPushAny, &owner) {
                return Err(self.refuse(who, "Apps/Push", name));
            }
            let newest = versions.into_iter().next();
            if let Some(newest) = &newest
                && self.read(&newest.at).await?.and_then(|there| there.app) == Some(app.clone())
            {
                return Ok(api::PushAppResponse { version: newest.version, existed: true });
            }
            let version = newest.map_or(1, |newest| newest.version.saturating_add(1));
            let app = Some(app.clone());
            let pushed = api::PushedApp { name: name.into(), version, app, pushed_ms: now_ms(), owner };
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

    /// Empties a version. It is no error if another removal does the same.
    async fn forget(&self, kept: &Kept) -> Result<(), Status> {
        let nothing: Arc<dyn Mapping> = Arc::new(Vec::<u8>::new());
        match patiently(|| self.store.replace(&kept.at, &kept.meta.version, nothing.clone())).await.0 {
            Err(e) if e.kind != Kind::Changed => Err(status(e)),
            _ => Ok(()),
        }
    }

    /// Deletes files that neither a version nor an open job refers to, but for new ones; and what is left of versions that were
    /// removed long ago. Nothing, where it cannot be known what jobs there are: the master that leads does it.
    async fn collect(&self) -> Result<u32, Status> {
        if self.node.app_files().await.is_err() {
            return Ok(0);
        }
        let root = format!("{ROOT}/apps/files/");
        let mut files = patiently(|| list_all(&self.store, &root)).await.0.map_err(status)?;
        files.retain(|(_, meta)| is_older(meta, STAYS));
        // Jobs last: one may be submitted just before the version is removed that it is made of.
        let versions = self.versions("").await?;
        let mut needed = BTreeSet::new();
        for kept in &versions {
            if !kept.is_removed() {
                let app = self.read(&kept.at).await?.and_then(|pushed| pushed.app).unwrap_or_default();
                needed.extend(app.files.iter().map(|file| commit::app_file(&file.digest)));
            }
        }
        let Ok(of_jobs) = self.node.app_files().await else { return Ok(0) };
        needed.extend(of_jobs.iter().map(|digest| commit::app_file(digest)));
        files.retain(|(name, _)| !needed.contains(name.as_str()));
        let mut gone = 0;
        for (name, _) in &files {
            // Somebody may have asked for it since it was listed.
            let meta = self.look_up(name).await?;
            if let Some(meta) = meta.filter(|meta| is_older(meta, STAYS)) {
                patiently(|| self.store.delete(name, Some(&meta.version))).await.0.map_err(status)?;
                gone += 1;
            }
        }
        for pair in versions.windows(2) {
            let [newer, kept] = pair else { continue };
            if kept.is_removed() && newer.app == kept.app && is_older(&kept.meta, STAYS) {
                patiently(|| self.store.delete(&kept.at, None)).await.0.map_err(status)?;
            }
        }
        Ok(gone)
    }

    /// As [`Apps::collect`]; that it did not work is told to the operator, and another time will do.
    async fn collected(&self) -> u32 {
        self.collect().await.unwrap_or_else(|e| {
            let what = format!("files of apps that nothing refers to were not all deleted: {}", e.message());
            self.world.note(Note::Trouble { what });
            0
        })
    }

    /// Deletes what nothing refers to, every few hours.
    pub(super) async fn collect_for_ever(self) {
        loop {
            tokio::time::sleep(COLLECT_EVERY).await;
            self.collected().await;
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an object was written so long ago, as far as the store says.
fn is_older(meta: &Meta, than: Duration) -> bool {
    meta.modified_ms > 0 && u128::from(meta.modified_ms) + than.as_millis() <= u128::from(now_ms())
}

fn no_such(name: &str, version: u32) -> Status {
    let which = if version == 0 { name.to_string() } else { format!("{name}@{version}") };
    Status::not_found(format!("no app was pushed as {which}"))
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
        // Until it is stored.
        let _room = self.data.room().await?;
        let (path, bytes, crc32c) = self.data.receive(&name, limits::FILE_BYTES, &mut messages).await?;
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
        let is_there = match patiently(|| self.store.put(&name, content.clone())).await.0 {
            Err(e) if e.kind == Kind::AlreadyExists => self.has(&digest).await?,
            put => put.map(|()| true).map_err(status)?,
        };
        if !is_there {
            return Err(Status::aborted(format!("{name} was deleted meanwhile; send it again")));
        }
        Ok(Response::new(api::FileInfo { name: begin.name, bytes, crc32c: Some(crc32c), modified_ms: 0 }))
    }

    type GetFileStream = Pieces;

    async fn get_file(&self, request: Request<api::GetFileRequest>) -> Result<Response<Pieces>, Status> {
        let (who, digest) = (who(&request)?, request.into_inner().digest);
        if digest.len() != 32 {
            return Err(Status::invalid_argument("a digest has 32 bytes"));
        }
        let (name, store) = (Name::new(commit::app_file(&digest)).map_err(status)?, self.store.clone());
        let mut reader = data::Reader::new(&self.node, &who);
        let sent = |to| async move { data::send(&store, &name, (0, u64::MAX), &to, &mut reader).await.map(drop) };
        Ok(Response::new(data::pieces(sent)))
    }

    async fn push(&self, request: Request<api::PushAppRequest>) -> Result<Response<api::PushAppResponse>, Status> {
        let who = who(&request)?;
        let api::PushAppRequest { name, app } = request.into_inner();
        check_name(&name)?;
        let app = api::App { build: String::new(), pushed: String::new(), ..app.unwrap_or_default() };
        if app.name.is_empty() || app.encoded_len() > limits::SPEC_BYTES - 1024 || app.files.len() > limits::FILES {
            let most = limits::FILES;
            let what =
                format!("an app has the name of what runs it, at most {most} files, and 63 KiB of flags and names");
            return Err(Status::invalid_argument(what));
        }
        if app.files.iter().map(|file| &file.path).collect::<BTreeSet<_>>().len() < app.files.len() {
            return Err(Status::invalid_argument("two files of the app have one name; rename one of them"));
        }
        for file in &app.files {
            if file.digest.len() != 32 || !self.has(&file.digest).await? {
                return Err(Status::failed_precondition(format!(
                    "the cluster does not have {}; send it first",
                    file.path
                )));
            }
        }
        let pushed = self.make(&who, &name, app).await?;
        self.node.done(&who, "Apps/Push", &format!("{name}@{}", pushed.version));
        Ok(Response::new(pushed))
    }

    async fn list(&self, request: Request<api::ListAppsRequest>) -> Result<Response<api::ListAppsResponse>, Status> {
        let who = who(&request)?;
        let api::ListAppsRequest { name, version, newest, page_token } = request.into_inner();
        if !name.is_empty() {
            check_name(&name)?;
        }
        let mut all = self.versions(&name).await?;
        if !name.is_empty() {
            let owner = self.owner(&all).await?.unwrap_or_default();
            if !who.may(Right::AppsRead, Right::AppsReadAny, &owner) {
                return Err(no_such(&name, version));
            }
        }
        all.retain(|kept| !kept.is_removed() && (version == 0 || kept.version == version));
        if all.is_empty() && !name.is_empty() {
            return Err(no_such(&name, version));
        }
        if newest {
            all.dedup_by(|next, first| next.app == first.app);
        }
        if !page_token.is_empty() {
            let last = page_token.split_once('@').and_then(|(app, version)| Some((app, version.parse::<u32>().ok()?)));
            let (app, version) = last.ok_or_else(|| Status::invalid_argument("no page is called so"))?;
            all.retain(|kept| (kept.app.as_str(), Reverse(kept.version)) > (app, Reverse(version)));
        }
        let (mut answer, mut bytes) = (api::ListAppsResponse::default(), 0);
        for (n, kept) in all.iter().enumerate() {
            let pushed = self.read(&kept.at).await?;
            if let Some(pushed) = pushed.filter(|pushed| who.may(Right::AppsRead, Right::AppsReadAny, &pushed.owner)) {
                bytes += pushed.encoded_len();
                answer.apps.push(pushed);
            }
            if (answer.apps.len() >= PAGE.0 || bytes >= PAGE.1) && n + 1 < all.len() {
                answer.next_page_token = format!("{}@{}", kept.app, kept.version);
                break;
            }
        }
        Ok(Response::new(answer))
    }

    async fn remove(
        &self,
        request: Request<api::RemoveAppRequest>,
    ) -> Result<Response<api::RemoveAppResponse>, Status> {
        let who = who(&request)?;
        let api::RemoveAppRequest { name, version } = request.into_inner();
        check_name(&name)?;
        let mut chosen = self.versions(&name).await?;
        let owner = self.owner(&chosen).await?.unwrap_or_default();
        if !who.may(Right::AppsPush, Right::AppsPushAny, &owner) {
            // Who does not see it is not told that it is there.
            let sees = who.may(Right::AppsRead, Right::AppsReadAny, &owner);
            return Err(if sees { self.refuse(&who, "Apps/Remove", &name) } else { no_such(&name, version) });
        }
        chosen.retain(|kept| !kept.is_removed() && (version == 0 || kept.version == version));
        if chosen.is_empty() {
            return Err(no_such(&name, version));
        }
        for kept in &chosen {
            self.forget(kept).await?;
        }
        self.node.done(&who, "Apps/Remove", &name);
        let versions = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        Ok(Response::new(api::RemoveAppResponse { versions, files: self.collected().await }))
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

    #[test]
    fn objects_tell_of_versions_and_their_age() {
        let meta = |len, modified_ms| Meta { len, version: Version(String::new()), modified_ms };
        let kept = |name: &str, len| Kept::of(Name::new(name).unwrap(), meta(len, 0));
        let name = format!("{}{:010}", below("words"), 7);
        let one = kept(&name, 1).unwrap();
        assert_eq!((one.app.as_str(), one.version, one.is_removed()), ("words", 7, false));
        assert!(kept(&name, 0).unwrap().is_removed());
        for other in ["x/words/7", &below("words/x"), &below("words")] {
            assert!(kept(other.trim_end_matches('/'), 1).is_none(), "{other}");
        }
        // A store that does not say keeps everything.
        for (modified_ms, is) in [(0, false), (1, true), (now_ms(), false), (u64::MAX, false)] {
            assert_eq!(is_older(&meta(1, modified_ms), STAYS), is, "{modified_ms}");
        }
    }
}
