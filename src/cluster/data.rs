//! `gristmill.v1.Data`: the files of the cluster's store, for clients. Any master answers; nothing here takes the log.
//!
//! A file that is put comes to this node's own disk first, so that it is checked before the store hears of it, and can be
//! sent again. What clusters keep for themselves, below `.gristmill`, is not shown and not touched.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::control::rights::Principal;
use gristmill_engine::data::commit::{Manifest, SUCCESS};
use gristmill_engine::node;
use gristmill_engine::node::master::{ApiError, Code, MasterNode};
use gristmill_engine::scratch::{Mapping, map_file};
use gristmill_engine::store::{Error, Kind, Meta, Name, Pattern, READ, Store as _, list_all, read};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::data_server::DataServer;
use gristmill_proto::v1::put_request::Part;
use gristmill_raft::tokio::TokioRuntime;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::guard::who;
use super::listener::bounds;
use super::services::of_api;
use super::store::Shared;
use super::world::World;

/// Most bytes of content in a message.
pub const PIECE: usize = 1 << 20;
/// Files that come in at a time; each is on this node's disk meanwhile.
const UPLOADS: usize = 16;
/// Versions of a file that one overwrite meets before it gives up.
const RIVALS: u32 = 10;
/// Objects that are looked at for one page of a listing.
const LOOKED_AT: usize = 20_000;
/// Objects that are deleted at a time.
const DELETIONS: usize = 16;
/// How long what is stored below a prefix is not counted anew.
const COUNTED: Duration = Duration::from_secs(30);
/// Most bytes of a manifest: one of 10,000 parts has about 2 MiB.
const MANIFEST: usize = 64 << 20;
/// The folder of what clusters keep for themselves begins so.
const OURS: &str = ".gristmill";

/// Pieces on their way to a client.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<api::Chunk, Status>> + Send>>;

/// How often is looked whether somebody may have what is being sent.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes below prefixes, and when they were counted.
type Counted = BTreeMap<Arc<str>, (Instant, u64)>;

/// The service.
#[derive(Clone)]
pub struct Data {
    store: Shared,
    /// Files that come in.
    uploads: PathBuf,
    room: Arc<Semaphore>,
    /// Knows what users may store, and writes down what they do.
    node: MasterNode<World>,
    /// Bytes below prefixes of users with a quota, and when they were counted.
    stored: Arc<Mutex<Counted>>,
}

pub(super) fn status(e: Error) -> Status {
    match e.kind {
        Kind::NotFound => Status::not_found(e.text),
        Kind::AlreadyExists => Status::already_exists(e.text),
        Kind::Changed => Status::aborted(e.text),
        Kind::Denied => Status::failed_precondition(e.text),
        Kind::Retryable => Status::unavailable(e.text),
        Kind::Corrupt => Status::data_loss(e.text),
    }
}

fn named(name: &str) -> Result<Name, Status> {
    let name = Name::new(name).map_err(|e| Status::invalid_argument(e.text))?;
    match is_ours(name.as_str()) {
        true => Err(Status::invalid_argument(format!("{name}: what begins with {OURS} is the cluster's own"))),
        false => Ok(name),
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(OURS)
}

fn info(name: &Name, meta: &Meta) -> api::FileInfo {
    api::FileInfo { name: name.to_string(), bytes: meta.len, crc32c: None, modified_ms: meta.modified_ms }
}

/// Does something until it goes well, fails for good, or was tried often enough. Says whether an earlier try may have
/// been carried out.
pub(super) async fn patiently<T, F>(mut what: impl FnMut() -> F) -> (Result<T, Error>, bool)
where
    F: Future<Output = Result<T, Error>>,
{
    let mut tries = 0;
    let again = || {
        tries += 1;
        what()
    };
    let done = node::patiently::<TokioRuntime, _, _>(again).await;
    (done, tries > 1)
}

impl Data {
    /// A service over a store, with a folder for files that come in. What is left there of an earlier process is removed.
    ///
    /// # Errors
    /// When the folder cannot be made or emptied.
    pub fn new(store: Shared, uploads: &Path, node: MasterNode<World>) -> io::Result<Self> {
        std::fs::create_dir_all(uploads)?;
        for left in std::fs::read_dir(uploads)? {
            std::fs::remove_file(left?.path())?;
        }
        let (uploads, room) = (uploads.into(), Arc::new(Semaphore::new(UPLOADS)));
        Ok(Self { store, uploads, room, node, stored: Arc::default() })
    }

    /// Whether somebody may store more, and how much; `None`: there is no quota.
    ///
    /// # Errors
    /// That there is no room.
    pub(super) async fn has_room(&self, who: &Principal, quota: api::Quota) -> Result<Option<u64>, Status> {
        if quota.stored_bytes == 0 || who.prefix.is_empty() {
            return Ok(None);
        }
        let counted = || self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counted().get(&who.prefix).filter(|(at, _)| at.elapsed() < COUNTED).map(|(_, bytes)| *bytes);
        let stored = match known {
            Some(bytes) => bytes,
            None => {
                let found = patiently(|| list_all(&self.store, &who.prefix)).await.0.map_err(status)?;
                let bytes = found.iter().map(|(_, meta)| meta.len).sum();
                let mut all = counted();
                all.retain(|_, (at, _)| at.elapsed() < COUNTED);
                all.insert(who.prefix.clone(), (Instant::now(), bytes));
                bytes
            }
        };
        match quota.stored_bytes.checked_sub(stored).filter(|left| *left > 0) {
            Some(left) => Ok(Some(left)),
            None => Err(Status::resource_exhausted(format!(
                "{stored} bytes are stored below {}, and the quota is {}; remove files, or ask an administrator for more",
                who.prefix, quota.stored_bytes
            ))),
        }
    }

    /// Counts what was stored just now, until all is counted anew.
    fn count(&self, who: &Principal, bytes: u64) {
        if let Some((_, stored)) = self.stored.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&who.prefix) {
            *stored = stored.saturating_add(bytes);
        }
    }

    /// Refuses somebody a file, and writes it down.
    fn refuse(&self, who: &Principal, action: &str, name: &str) -> Status {
        let next_step = match &*who.prefix {
            "" => "ask an administrator".to_string(),
            prefix => format!("your own files are below {prefix}, what all may read is below shared/"),
        };
        let why = ApiError::Refused { code: Code::Denied, message: format!("{name} is not yours"), next_step };
        self.node.denied(who, action, name, &why);
        of_api(why)
    }

    /// The service.
    pub fn service(self) -> DataServer<Self> {
        DataServer::new(self)
    }

    /// Waits for room for one more file of another service, which has it for as long as it holds this.
    pub(super) async fn room(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.room.acquire().await.map_err(|e| Status::unavailable(e.to_string()))
    }

    /// Takes in what follows the first message, at most `most` bytes, and gives where it is.
    pub(super) async fn receive(
        &self,
        name: &Name,
        most: u64,
        messages: &mut (impl Stream<Item = Result<api::PutRequest, Status>> + Unpin),
    ) -> Result<(tempfile::TempPath, u64, u32), Status> {
        let failed = |e: io::Error| {
            let text = format!("cannot take {name} in at this master: {e}; free space, or ask another one");
            Status::resource_exhausted(text)
        };
        let file = tempfile::NamedTempFile::new_in(&self.uploads).map_err(failed)?;
        let (send, mut receive) = mpsc::channel::<Bytes>(4);
        let writer = tokio::task::spawn_blocking(move || {
            let (mut file, path) = file.into_parts();
            let (mut bytes, mut crc32c) = (0, 0);
            while let Some(piece) = receive.blocking_recv() {
                file.write_all(&piece)?;
                bytes += piece.len() as u64;
                crc32c = crc32c::crc32c_append(crc32c, &piece);
            }
            Ok((path, bytes, crc32c))
        });
        let (mut got, silence) = (0, bounds().silence);
        let end = loop {
            let message = timeout(silence, messages.next()).await;
            let message = message.map_err(|_| Status::deadline_exceeded(format!("{name}: nothing for {silence:?}")))?;
            match message.transpose()?.and_then(|message| message.part) {
                Some(Part::Content(piece)) if piece.len() <= PIECE => {
                    got += piece.len() as u64;
                    if got > most {
                        return Err(Status::invalid_argument(format!("{name} has more than {} MiB", most >> 20)));
                    }
                    // It has ended early where the disk is full; the reason follows.
                    if send.send(piece).await.is_err() {
                        break None;
                    }
                }
                Some(Part::End(end)) => break Some(end),
                Some(Part::Content(_)) => {
                    return Err(Status::invalid_argument(format!("{name}: a message has more than {PIECE} bytes")));
                }
                Some(Part::Begin(_)) => return Err(Status::invalid_argument(format!("{name}: begun twice"))),
                None => return Err(Status::cancelled(format!("{name}: the client left before the file's end"))),
            }
        };
        drop(send);
        let written = writer.await.map_err(|e| Status::internal(e.to_string()))?;
        let (path, bytes, crc32c) = written.map_err(failed)?;
        match end {
            Some(end) if (end.bytes, end.crc32c) == (bytes, crc32c) => Ok((path, bytes, crc32c)),
            _ => Err(Status::data_loss(format!("{name}: what arrived is not what was sent; send it again"))),
        }
    }

    /// Puts a file in the store, whole or not at all.
    async fn store(&self, name: &Name, bytes: Arc<dyn Mapping>, overwrite: bool) -> Result<(), Error> {
        for _ in 0..RIVALS {
            let (put, again) = patiently(|| self.store.put(name, bytes.clone())).await;
            match put {
                Err(e) if e.kind == Kind::AlreadyExists && again && self.holds(name, &bytes).await? => return Ok(()),
                Err(e) if e.kind == Kind::AlreadyExists && overwrite => {}
                done => return done,
            }
            let version = match patiently(|| self.store.head(name)).await.0 {
                Err(e) if e.kind == Kind::NotFound => continue,
                meta => meta?.version,
            };
            let (replaced, again) = patiently(|| self.store.replace(name, &version, bytes.clone())).await;
            match replaced {
                Err(e) if e.kind == Kind::Changed && again && self.holds(name, &bytes).await? => return Ok(()),
                Err(e) if e.kind == Kind::Changed => {}
                done => return done,
            }
        }
        Err(Error::new(Kind::Retryable, format!("{name}: others write to it all the time")))
    }

    /// Whether an object is these bytes.
    async fn holds(&self, name: &Name, bytes: &Arc<dyn Mapping>) -> Result<bool, Error> {
        let bytes = bytes.bytes();
        let is_there = patiently(|| self.store.head(name)).await.0?.len == bytes.len() as u64;
        let (mut at, mut same) = (0, is_there);
        while same && at < bytes.len() as u64 {
            let piece = patiently(|| self.store.get(name, at..at + READ)).await.0?;
            same = !piece.is_empty() && bytes[at as usize..].starts_with(&piece);
            at += piece.len() as u64;
        }
        Ok(same)
    }

    async fn page(&self, request: &api::ListDataRequest) -> Result<api::ListDataResponse, Status> {
        let pattern = Pattern::new(&request.pattern).map_err(|e| Status::invalid_argument(e.text))?;
        let most = if request.page_size == 0 { 1000 } else { request.page_size.min(10_000) } as usize;
        let mut after = match request.page_token.as_str() {
            "" => None,
            token => Some(Name::new(token).map_err(|_| Status::invalid_argument("no page is called so"))?),
        };
        let (mut files, mut looked_at) = (Vec::new(), 0);
        loop {
            let page = patiently(|| self.store.list(pattern.prefix(), after.as_ref())).await.0.map_err(status)?;
            let last = page.objects.last().map(|(name, _)| name.clone());
            looked_at += page.objects.len();
            for (name, meta) in &page.objects {
                if pattern.matches(name) && !is_ours(name.as_str()) {
                    files.push(info(name, meta));
                }
                if files.len() == most {
                    let more = page.more || last.as_ref() != Some(name);
                    let next_page_token = if more { name.to_string() } else { String::new() };
                    return Ok(api::ListDataResponse { files, next_page_token });
                }
            }
            match last {
                Some(last) if page.more && looked_at < LOOKED_AT => after = Some(last),
                last => {
                    let next_page_token = last.filter(|_| page.more).map(|last| last.to_string());
                    return Ok(api::ListDataResponse { files, next_page_token: next_page_token.unwrap_or_default() });
                }
            }
        }
    }

    async fn remove(&self, request: &api::RemoveDataRequest) -> Result<u64, Status> {
        let name = named(request.name.trim_end_matches('/'))?;
        let gone = || Status::not_found(format!("{name}: there is no such file"));
        if !request.recursive {
            let here = !request.name.ends_with('/');
            return match patiently(|| self.store.head(&name)).await.0 {
                Ok(_) if here => {
                    patiently(|| self.store.delete(&name, None)).await.0.map_err(status)?;
                    Ok(1)
                }
                Err(e) if e.kind != Kind::NotFound => Err(status(e)),
                _ => {
                    let below = self.store.list(&name.below(), None).await.map_err(status)?;
                    match below.objects.is_empty() {
                        true => Err(gone()),
                        false => Err(Status::failed_precondition(format!("{name} is a folder; remove it with -r"))),
                    }
                }
            };
        }
        let below = &name.below();
        let found = patiently(|| list_all(&self.store, below)).await.0.map_err(status)?;
        let mut all: Vec<Name> = found.into_iter().map(|(name, _)| name).collect();
        if patiently(|| self.store.head(&name)).await.0.is_ok() {
            all.push(name.clone());
        }
        if all.is_empty() {
            return Err(gone());
        }
        // First what says that an output is whole: nobody takes half of one for it.
        let (success, rest): (Vec<Name>, Vec<Name>) =
            all.into_iter().partition(|name| name.as_str().rsplit('/').next() == Some(SUCCESS));
        let files = (success.len() + rest.len()) as u64;
        self.delete_all(success).await.map_err(status)?;
        self.delete_all(rest).await.map_err(status)?;
        Ok(files)
    }

    async fn delete_all(&self, names: Vec<Name>) -> Result<(), Error> {
        let (mut names, mut deleting) = (names.into_iter(), JoinSet::new());
        loop {
            while deleting.len() < DELETIONS
                && let Some(name) = names.next()
            {
                let store = self.store.clone();
                deleting.spawn(async move { patiently(|| store.delete(&name, None)).await.0 });
            }
            match deleting.join_next().await {
                None => return Ok(()),
                Some(Err(e)) => return Err(Error::new(Kind::Retryable, e.to_string())),
                Some(Ok(done)) => done?,
            }
        }
    }
}

/// Somebody to whom bytes are sent, for as long as that one may have them.
pub(super) struct Reader {
    node: MasterNode<World>,
    who: Principal,
    looked: Instant,
}

impl Reader {
    pub(super) fn new(node: &MasterNode<World>, who: &Principal) -> Self {
        Self { node: node.clone(), who: who.clone(), looked: Instant::now() }
    }

    /// Looks again once a second.
    async fn is_here(&mut self) -> Result<(), Status> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        self.node.is_still_here(&self.who).await.map_err(of_api)
    }
}

/// Sends bytes of an object, at most `length` from `offset` on.
///
/// # Errors
/// Those of the store; that the reader is not here any more. `None`: nobody listens any more.
pub(super) async fn send(
    store: &Shared,
    name: &Name,
    (offset, length): (u64, u64),
    to: &mpsc::Sender<Result<api::Chunk, Status>>,
    reader: &mut Reader,
) -> Result<Option<()>, Status> {
    let meta = patiently(|| store.head(name)).await.0.map_err(status)?;
    let end = meta.len.min(offset.saturating_add(length));
    let mut at = offset;
    let changed =
        |how: &str| status(Error::new(Kind::Changed, format!("{name} {how} while it was read; read it again")));
    while at < end {
        reader.is_here().await?;
        let read = patiently(|| store.get(name, at..end.min(at + READ))).await.0.map_err(status)?;
        let mut bytes = Bytes::from(read);
        if bytes.is_empty() {
            return Err(changed("became shorter"));
        }
        at += bytes.len() as u64;
        while !bytes.is_empty() {
            let content = bytes.split_to(PIECE.min(bytes.len()));
            let chunk = api::Chunk { crc32c: Some(crc32c::crc32c(&content)), content };
            if to.send(Ok(chunk)).await.is_err() {
                return Ok(None);
            }
        }
    }
    let now = patiently(|| store.head(name)).await.0.map_err(status)?;
    if now.version == meta.version { Ok(Some(())) } else { Err(changed("was replaced")) }
}

/// A stream of pieces that `work` sends, ended by its error if it has one.
pub(super) fn pieces<F>(work: impl FnOnce(mpsc::Sender<Result<api::Chunk, Status>>) -> F) -> Pieces
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (send, receive) = mpsc::channel(4);
    let working = work(send.clone());
    tokio::spawn(async move {
        if let Err(status) = working.await {
            // Who does not listen any more needs no reason.
            let _ = send.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receive))
}

/// `Jobs.Result`: the parts of a job's output, or one of them.
pub(super) async fn result(
    store: Shared,
    job: &api::JobStatus,
    part: Option<u32>,
    mut reader: Reader,
) -> Result<Pieces, Status> {
    if job.state() != api::JobState::Completed {
        let state = job.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase();
        return Err(Status::failed_precondition(format!("job {} is {state}: it has no result", job.id)));
    }
    let output = job.spec.as_ref().map(|spec| spec.output.clone()).unwrap_or_default();
    let output = Name::new(output).map_err(status)?;
    let gone = |why: &str| Status::not_found(format!("the result of job {} at {output} {why}", job.id));
    let manifest = match manifest(&store, &output).await {
        Err(e) if e.kind == Kind::NotFound => return Err(gone("has been removed")),
        manifest => manifest.map_err(status)?,
    };
    if manifest.job.as_ref() != Some(&job.id) {
        return Err(gone("has been replaced by another output"));
    }
    let parts = match part {
        None => &manifest.parts[..],
        Some(part) => {
            let none = || Status::not_found(format!("job {} has {} parts, from 0", job.id, manifest.parts.len()));
            std::slice::from_ref(manifest.parts.get(part as usize).ok_or_else(none)?)
        }
    };
    let names: Result<Vec<Name>, Error> = parts.iter().map(|part| output.join(&part.name)).collect();
    let names = names.map_err(status)?;
    Ok(pieces(|to| async move {
        for name in names {
            if send(&store, &name, (0, u64::MAX), &to, &mut reader).await?.is_none() {
                break;
            }
        }
        Ok(())
    }))
}

async fn manifest(store: &Shared, output: &Name) -> Result<Manifest, Error> {
    let name = output.join(SUCCESS)?;
    let bytes = patiently(|| async {
        let mut all = Vec::new();
        let whole = read(store, &name, |bytes| {
            all.extend_from_slice(bytes);
            match all.len() > MANIFEST {
                true => Err(Error::new(Kind::Corrupt, format!("{name} is too large for a manifest"))),
                false => Ok(()),
            }
        });
        whole.await?;
        Ok(all)
    });
    let bytes = bytes.await.0?;
    Manifest::from_bytes(&bytes).map_err(|e| Error::new(Kind::Corrupt, format!("{name}: {e}")))
}

#[tonic::async_trait]
impl api::data_server::Data for Data {
    type GetStream = Pieces;

    async fn list(&self, request: Request<api::ListDataRequest>) -> Result<Response<api::ListDataResponse>, Status> {
        let (who, mut request) = (who(&request)?, request.into_inner());
        if request.pattern.is_empty() && !who.may_read("") {
            request.pattern = who.prefix.to_string();
        }
        let pattern = Pattern::new(&request.pattern).map_err(|e| Status::invalid_argument(e.text))?;
        // A user's folder may be named without the slash.
        let own = |prefix: &str| who.may_read(prefix) || who.may_read(&format!("{prefix}/"));
        if !own(pattern.prefix()) {
            return Err(self.refuse(&who, "Data/List", &request.pattern));
        }
        let mut page = self.page(&request).await?;
        page.files.retain(|file| who.may_read(&file.name));
        Ok(Response::new(page))
    }

    async fn put(&self, request: Request<Streaming<api::PutRequest>>) -> Result<Response<api::FileInfo>, Status> {
        let (who, mut messages) = (who(&request)?, request.into_inner());
        let first = timeout(bounds().silence, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no name was sent"))??;
        let Some(Part::Begin(begin)) = first.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("the first message has the name"));
        };
        let name = named(&begin.name)?;
        if !who.may_write(name.as_str()) {
            return Err(self.refuse(&who, "Data/Put", name.as_str()));
        }
        let quota = self.node.who_am_i(&who).quota.unwrap_or_default();
        let most = self.has_room(&who, quota).await?.unwrap_or(u64::MAX);
        let full = |_| Status::resource_exhausted(format!("{UPLOADS} files are coming in at this master; try again"));
        let _room = self.room.try_acquire().map_err(full)?;
        if !begin.overwrite && patiently(|| self.store.head(&name)).await.0.is_ok() {
            return Err(Status::already_exists(format!("{name} exists; choose another name or pass --overwrite")));
        }
        let (path, bytes, crc32c) = self.receive(&name, most, &mut messages).await?;
        let mapped = map_file(&path).map_err(|e| Status::internal(format!("{name}: {e}")))?;
        // It may have taken hours.
        self.node.is_still_here(&who).await.map_err(of_api)?;
        self.store(&name, mapped, begin.overwrite).await.map_err(status)?;
        self.count(&who, bytes);
        self.node.done(&who, "Data/Put", name.as_str());
        Ok(Response::new(api::FileInfo { name: begin.name, bytes, crc32c: Some(crc32c), modified_ms: 0 }))
    }

    async fn get(&self, request: Request<api::GetDataRequest>) -> Result<Response<Pieces>, Status> {
        let (who, request) = (who(&request)?, request.into_inner());
        let (name, store) = (named(&request.name)?, self.store.clone());
        if !who.may_read(name.as_str()) {
            return Err(self.refuse(&who, "Data/Get", name.as_str()));
        }
        // That it is not there is told before the stream begins.
        patiently(|| store.head(&name)).await.0.map_err(status)?;
        let length = if request.length == 0 { u64::MAX } else { request.length };
        let mut reader = Reader::new(&self.node, &who);
        Ok(Response::new(pieces(|to| async move {
            send(&store, &name, (request.offset, length), &to, &mut reader).await.map(drop)
        })))
    }

    async fn remove(
        &self,
        request: Request<api::RemoveDataRequest>,
    ) -> Result<Response<api::RemoveDataResponse>, Status> {
        let (who, request) = (who(&request)?, request.into_inner());
        named(request.name.trim_end_matches('/'))?;
        if !who.may_write(&request.name) {
            return Err(self.refuse(&who, "Data/Remove", &request.name));
        }
        let files = Self::remove(self, &request).await?;
        self.node.done(&who, "Data/Remove", &request.name);
        Ok(Response::new(api::RemoveDataResponse { files }))
    }
}
