//! Backups of the replicated state: what the object in the store is made of, which there are, and how one becomes the state
//! that a new cluster begins with. A leader takes them (`master/backup`). The store's other files are none of its business.
//!
//! An object is `magic [8] | length of the head u32 | its CRC32C u32 | head | body | length of the body u64 | SHA-256 [32]`,
//! big-endian; the digest covers everything before it. The head is a [`BackupInfo`] without name and bytes, the body the
//! records of a snapshot of the state.
//!
//! What a restored cluster gives out must never have been given out before: jobs, workers, sessions and audit events are
//! numbered by the log's index, attempts by the leader's term, and what the old cluster left in the store after the backup was
//! taken bears such numbers. So the store counts generations of a cluster: each restoration takes the next, by an object that
//! can be made once, and its log begins at index generation * 2^40 and term generation * 2^32, more than any comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::BackupInfo;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::env::Env;
use super::objects::{self, patiently};
use super::spool::{self, Spool};
use crate::control::apply::Ended;
use crate::control::commit::{self, ROOT};
use crate::control::ids;
use crate::control::limits;
use crate::control::snapshot::Damage;
use crate::control::state::State;
use crate::scratch::{self, Mapping};
use crate::store::{self, Kind, Name, READ, Store as _};

/// What an object begins with: a word, and the version of its format.
const MAGIC: &[u8; 8] = b"GRBACK1\n";
/// The part of it that is the same in all versions.
const WORD: usize = 6;
/// Bytes before the head.
const BEFORE_HEAD: usize = 16;
/// Most bytes of a head.
const HEAD_BYTES: usize = 4096;

/// Indices of a generation, as a power of two: a million commands a second for twelve days, or a thousand for 34 years.
const INDICES: u32 = 40;
/// Terms of a generation, as a power of two: an election each 0.1 seconds for 13 years.
const TERMS: u32 = 32;
/// Generations that a cluster may have.
const GENERATIONS: u64 = 1 << 20;
/// How often the next generation is tried for that others take at the same time.
const TRIES: u32 = 100;

/// The newest backups that a listing shows.
const MOST_LISTED: usize = 1000;
/// Below this lie files of scratch that are on their way to a store or from one.
pub(crate) const SCRATCH: &str = "backup/";
/// What stands for the newest backup.
pub const LATEST: &str = "latest";

/// Why there is no state to begin with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The node's own disk failed.
    #[error(transparent)]
    Scratch(#[from] scratch::Error),
    /// There is none.
    #[error("the store has no backup{}; `gristmill cluster backups` lists those of a cluster that lives", called(.0))]
    None(String),
    /// There are several.
    #[error("the store has more than one that could be meant; name one of {}", .0.join(", "))]
    Several(Vec<String>),
    /// It is not what was written.
    #[error("backup {name} is damaged: {what}; restore another one, nothing was begun")]
    Damaged {
        /// Of the object.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A later release wrote it.
    #[error("backup {name} is of a later release ({what}); restore it with that one")]
    Later {
        /// Of the object.
        name: String,
        /// What this build does not understand.
        what: String,
    },
    /// There are too many restorations.
    #[error("cluster {0} was restored too often, or is being restored elsewhere; begin another one")]
    Generations(String),
}

fn called(name: &str) -> String {
    if name == LATEST { String::new() } else { format!(" called {name}") }
}

fn damaged(name: &str, what: impl Into<String>) -> Error {
    Error::Damaged { name: name.into(), what: what.into() }
}

fn later(name: &str, what: impl Into<String>) -> Error {
    Error::Later { name: name.into(), what: what.into() }
}

/// Below this lie a cluster's backups.
pub(crate) fn folder(cluster: u64) -> String {
    format!("{}backups/", commit::scratch_root(cluster))
}

/// Below this lie what generations of a cluster are counted by.
fn generations(cluster: u64) -> String {
    format!("{}restored/", commit::scratch_root(cluster))
}

/// What an object begins with.
pub(crate) fn head(info: &BackupInfo) -> Vec<u8> {
    let head = info.encode_to_vec();
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&MAGIC[..], &length, &crc32c::crc32c(&head).to_be_bytes(), &head].concat()
}

/// What an object says of itself in its first bytes, and where its body begins.
fn read_head(name: &str, start: &[u8]) -> Result<(BackupInfo, usize), Error> {
    let number = |at: usize| start.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    if !start.starts_with(&MAGIC[..WORD]) {
        return Err(damaged(name, "it does not begin as one"));
    }
    if !start.starts_with(MAGIC) {
        return Err(later(name, "of another format"));
    }
    let (Some(length), Some(crc)) = (number(8), number(12)) else { return Err(damaged(name, "its head is missing")) };
    let length = usize::try_from(length).ok().filter(|length| *length <= HEAD_BYTES);
    let end = length.ok_or_else(|| damaged(name, "its head is too long"))? + BEFORE_HEAD;
    let head = start.get(BEFORE_HEAD..end).filter(|head| crc32c::crc32c(head) == crc);
    let head = head.ok_or_else(|| damaged(name, "its head has another checksum"))?;
    Ok((BackupInfo::decode(head).map_err(|e| damaged(name, e.to_string()))?, end))
}

/// Fails for what this build does not understand.
fn understood(info: &BackupInfo, name: &str, level: u32) -> Result<(), Error> {
    if info.feature_level <= level {
        return Ok(());
    }
    let (theirs, version) = (info.feature_level, &info.version);
    Err(later(name, format!("{version}, of feature level {theirs}; this one has {level}")))
}

/// A backup as a listing has it. One that cannot be read has a name and bytes alone.
async fn told<E: Env>(env: &E, name: &Name, bytes: u64) -> Result<BackupInfo, store::Error> {
    let most = (BEFORE_HEAD + HEAD_BYTES) as u64;
    let start = patiently::<E::Rt, _, _>(|| env.store().get(name, 0..most)).await?;
    let info = read_head(name.as_str(), &start).map(|(info, _)| info).unwrap_or_default();
    Ok(BackupInfo { name: name.to_string(), bytes, ..info })
}

/// The newest backups of a cluster, oldest first.
///
/// # Errors
/// Those of the store.
pub(crate) async fn list<E: Env>(env: &E, cluster: u64) -> Result<Vec<BackupInfo>, store::Error> {
    let folder = folder(cluster);
    let mut found = patiently::<E::Rt, _, _>(|| store::list_all(env.store(), &folder)).await?;
    found.sort_by_key(|(_, meta)| meta.modified_ms);
    let mut all = Vec::new();
    for (name, meta) in found.split_off(found.len().saturating_sub(MOST_LISTED)) {
        match told(env, &name, meta.len).await {
            // It was removed meanwhile.
            Err(e) if e.kind == Kind::NotFound => {}
            info => all.push(info?),
        }
    }
    all.sort_by(|a, b| (a.time_ms, &a.name).cmp(&(b.time_ms, &b.name)));
    Ok(all)
}

/// The clusters that have something in a store.
async fn clusters<E: Env>(env: &E) -> Result<Vec<u64>, store::Error> {
    let root = format!("{ROOT}/");
    let (mut found, mut after) = (Vec::new(), None::<Name>);
    loop {
        let page = patiently::<E::Rt, _, _>(|| env.store().list(&root, after.as_ref())).await?;
        let Some((first, _)) = page.objects.first() else { return Ok(found) };
        let below = first.as_str().strip_prefix(&root).unwrap_or_default();
        let folder = below.split('/').next().unwrap_or_default();
        found.extend(u64::from_str_radix(folder, 16).ok().filter(|_| folder.len() == 16));
        // '0' is the sign after '/': all that is in the folder lies before that.
        after = Some(Name::new(format!("{root}{folder}0"))?);
    }
}

/// The object that is meant by its whole name, by its name among a cluster's backups, or by [`LATEST`], the newest.
///
/// # Errors
/// That there is none, or more than one; those of the store.
pub async fn find<E: Env>(env: &E, wanted: &str) -> Result<Name, Error> {
    if wanted.contains('/') {
        return Ok(Name::new(wanted)?);
    }
    let mut found = Vec::new();
    for cluster in clusters(env).await? {
        let mut readable = list(env, cluster).await?;
        readable.retain(|info| !info.cluster.is_empty() || wanted != LATEST);
        let meant = readable.into_iter().rfind(|info| wanted == LATEST || info.name == folder(cluster) + wanted);
        found.extend(meant.map(|info| info.name));
    }
    match found.len() {
        0 => Err(Error::None(wanted.into())),
        1 => Ok(Name::new(found.remove(0))?),
        _ => Err(Error::Several(found)),
    }
}

/// What a backup holds, of which all has been checked.
pub struct Loaded {
    /// What it says of itself.
    pub info: BackupInfo,
    /// The state.
    pub state: State,
}

/// Fetches a backup and reads it, as far as this node's build understands it. Takes its bytes on the node's disk for as long, and
/// the state in memory.
///
/// # Errors
/// That it is damaged, not whole, or of a later release; those of the store and of the disk.
pub async fn load<E: Env>(env: &E, name: &Name) -> Result<Loaded, Error> {
    spool::remove(env, SCRATCH.into()).await?;
    let file = fetch(env, name).await?;
    let (level, named) = (env.level(), name.to_string());
    let loaded = env.blocking(move || read(&named, file.bytes(), level)).await;
    spool::remove(env, SCRATCH.into()).await?;
    let (info, state) = loaded.unwrap_or_else(|| Err(damaged(name.as_str(), "reading it panicked")))?;
    Ok(Loaded { info: BackupInfo { name: name.to_string(), ..info }, state })
}

/// Brings the bytes of an object here.
async fn fetch<E: Env>(env: &E, name: &Name) -> Result<Arc<dyn Mapping>, Error> {
    let meta = patiently::<E::Rt, _, _>(|| env.store().head(name)).await.map_err(|e| match e.kind {
        Kind::NotFound => Error::None(name.to_string()),
        _ => e.into(),
    })?;
    // Before all of it is brought here.
    let most = (BEFORE_HEAD + HEAD_BYTES) as u64;
    let start = patiently::<E::Rt, _, _>(|| env.store().get(name, 0..most)).await?;
    understood(&read_head(name.as_str(), &start)?.0, name.as_str(), env.level())?;
    let mut spool = Spool::create(env, format!("{SCRATCH}fetched")).await?;
    while spool.len() < meta.len {
        let range = spool.len()..meta.len.min(spool.len() + READ);
        let bytes = patiently::<E::Rt, _, _>(|| env.store().get(name, range.clone())).await?;
        if bytes.is_empty() {
            return Err(damaged(name.as_str(), format!("it ends at byte {} of {}", spool.len(), meta.len)));
        }
        spool.write(env, bytes.into()).await?;
    }
    Ok(spool.map(env).await?)
}

/// Checks all of an object and takes it apart.
fn read(name: &str, bytes: &[u8], level: u32) -> Result<(BackupInfo, State), Error> {
    let (info, begins) = read_head(name, bytes)?;
    understood(&info, name, level)?;
    let short = || damaged(name, "its end is missing");
    let (covered, digest) = bytes.split_last_chunk::<32>().ok_or_else(short)?;
    if Sha256::digest(covered)[..] != digest[..] {
        return Err(damaged(name, "bytes of it are missing or changed: it has another digest"));
    }
    let (before, length) = covered.split_last_chunk::<8>().ok_or_else(short)?;
    let body = before.get(begins..).filter(|body| body.len() as u64 == u64::from_be_bytes(*length));
    let mut rest = body.ok_or_else(short)?;
    let state = State::understanding(level).restored(&mut rest).map_err(|e| match e {
        Damage::Level(_) | Damage::Unknown => later(name, e.to_string()),
        e => damaged(name, e.to_string()),
    })?;
    let same = format!("{:016x}", state.cluster()) == info.cluster && state.applied() == info.applied;
    if !rest.is_empty() || !same || state.cluster() == 0 {
        return Err(damaged(name, "its head is not that of its body"));
    }
    Ok((info, state))
}

/// What a new cluster begins with.
pub struct Beginning {
    /// The state.
    pub state: State,
    /// The log's term up to there.
    pub term: u64,
    /// The log's index up to there.
    pub index: u64,
    /// How many jobs had ended since the backup was taken.
    pub ended: usize,
}

/// Makes of a backup what a new cluster begins with: workers are gone, jobs that ended since are as the store has them, and a new
/// generation begins. Every call begins another one. Nobody else may write to the cluster's part of the store meanwhile.
///
/// # Errors
/// Those of the store; that there are too many generations.
pub async fn begin_anew<E: Env>(env: &E, Loaded { info, mut state }: Loaded) -> Result<Beginning, Error> {
    let ended = ended_since(env, &state).await?;
    let generation = next_generation(env, &state, &info).await?;
    let index = state.begin_anew(generation << INDICES, env.wall_ms(), &ended);
    Ok(Beginning { state, term: generation << TERMS, index, ended: ended.len() })
}

/// How jobs ended that a backup has and that had not, and those that they began.
async fn ended_since<E: Env>(env: &E, state: &State) -> Result<BTreeMap<u64, Ended>, Error> {
    let mut ended = BTreeMap::new();
    let open: Vec<u64> = state.jobs().filter(|job| !job.has_ended()).map(|job| job.id).collect();
    for open in open {
        let mut next = Some(open);
        // As many as a chain may have.
        for _ in 0..limits::CHAIN {
            let Some(job) = next else { break };
            let name = commit::history(state.cluster(), job);
            let bytes = match objects::whole(env, &name).await {
                Err(e) if e.kind == Kind::NotFound => break,
                bytes => bytes?,
            };
            let file = wire::HistoryFile::decode(&bytes[..]);
            let file = file.map_err(|e| store::Error::new(Kind::Corrupt, format!("{name} is damaged: {e}")))?;
            let status = file.status.unwrap_or_default();
            next = ids::job_of_name(state.cluster(), &status.next);
            ended.insert(job, Ended { status, history: ids::digest(&[&bytes]) });
        }
    }
    Ok(ended)
}

/// Takes the number of a generation that none has or had.
async fn next_generation<E: Env>(env: &E, state: &State, info: &BackupInfo) -> Result<u64, Error> {
    let folder = generations(state.cluster());
    let known = patiently::<E::Rt, _, _>(|| store::list_all(env.store(), &folder)).await?;
    let number = |name: &Name| name.as_str().strip_prefix(&folder)?.parse::<u64>().ok();
    let known = known.iter().filter_map(|(name, _)| number(name)).max().unwrap_or(0);
    // The store may be a copy that lacks them.
    let last = known.max(state.applied() >> INDICES);
    let told: Arc<dyn Mapping> = Arc::new(format!("{} at {}\n", info.name, env.wall_ms()).into_bytes());
    for generation in (last.saturating_add(1)..GENERATIONS).take(TRIES as usize) {
        let name = &Name::new(format!("{folder}{generation:08}"))?;
        match patiently::<E::Rt, _, _>(|| env.store().put(name, told.clone())).await {
            // By somebody else, or by this call, which did not hear of it.
            Err(e) if e.kind == Kind::AlreadyExists => {}
            done => return done.map(|()| generation).map_err(Error::from),
        }
    }
    Err(Error::Generations(info.cluster.clone()))
}

#[cfg(test)]
mod tests {
    use gristmill_proto::internal::v1::command::Action;

    use super::*;

    const LEVEL: u32 = limits::LEVEL;

    fn state() -> State {
        let init = Action::InitCluster(wire::InitCluster { cluster: 7, level: 1 });
        let command = wire::Command { now_ms: 5, level: 1, action: Some(init), ..Default::default() };
        let mut state = State::default();
        state.apply(3, &command.encode_to_vec()).unwrap();
        state
    }

    fn info() -> BackupInfo {
        let (cluster, version) = ("0000000000000007".into(), "1.2.3".into());
        BackupInfo { cluster, applied: 3, time_ms: 9, version, feature_level: 1, ..Default::default() }
    }

    fn sealed(info: &BackupInfo, body: &[u8]) -> Vec<u8> {
        let covered = [&head(info)[..], body, &(body.len() as u64).to_be_bytes()].concat();
        [&covered[..], &Sha256::digest(&covered)[..]].concat()
    }

    fn object() -> Vec<u8> {
        sealed(&info(), &state().snapshot().collect::<Vec<_>>().concat())
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read("b", &object(), LEVEL).unwrap(), (info(), state()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let object = object();
        for bit in 0..object.len() * 8 {
            let mut bad = object.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = read("b", &bad, LEVEL).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. } | Error::Later { .. }), "bit {bit}: {error}");
        }
        for length in 0..object.len() {
            let error = read("b", &object[..length], LEVEL).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. } | Error::Later { .. }), "{length} bytes: {error}");
        }
        let error = read("b", &[&object[..], b"x"].concat(), LEVEL).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }

    #[test]
    fn what_a_later_release_wrote_is_told_from_damage() {
        let mut format = object();
        format[WORD] += 1;
        let level = sealed(&BackupInfo { feature_level: LEVEL + 1, ..info() }, b"");
        for (object, told) in [(format, "another format"), (level, "1.2.3, of feature level")] {
            let error = read("b", &object, LEVEL).unwrap_err();
            assert!(matches!(error, Error::Later { .. }) && error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_head_that_is_not_the_bodys_is_refused() {
        let body = state().snapshot().collect::<Vec<_>>().concat();
        for other in [BackupInfo { applied: 4, ..info() }, BackupInfo { cluster: String::new(), ..info() }] {
            let error = read("b", &sealed(&other, &body), LEVEL).unwrap_err();
            assert!(error.to_string().contains("not that of its body"), "{error}");
        }
        let error = read("b", &sealed(&info(), b""), LEVEL).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}
