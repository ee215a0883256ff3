//! Segments on their way from maps to reducers: fetching them from other workers or the store, and serving those that
//! were made here.
//!
//! A reducer follows the leader's list of finished maps, fetches from several workers at a time, and checks what it gets
//! by the digest that the map gave. A segment that cannot be had, or is damaged, is put on the board as missing; the
//! leader then says where it is, or has it made again.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use gristmill_proto::internal::v1 as wire;
use gristmill_raft::net::BoxStream;
use gristmill_raft::planted::{Bug, planted};
use gristmill_raft::runtime::AsyncRuntime;
use prost::Message as _;

use super::board::Controls;
use super::{Inner, paths};
use crate::control::commit;
use crate::control::limits::FETCHED_PPM;
use crate::data::digest::{Digest, Digester};
use crate::data::output::lock;
use crate::node::env::Env;
use crate::node::rpc::{CallError, Method, Net as _};
use crate::node::spool::Spool;
use crate::node::{objects, spool};
use crate::scratch::{self, Mapping, Scratch, Slice};
use crate::store::{self, Name, Store as _};
use crate::task::{Segment, SegmentBytes};

/// Bytes in a piece of a segment.
const PIECE: usize = 1 << 20;
/// Segments asked for at once.
const BATCH: usize = 256;
/// Segments brought from the store one after the other, where each is at least two calls.
const STORED_BATCH: usize = 16;
/// Workers that are fetched from at a time.
const ABREAST: usize = 4;
/// How long a worker may say nothing.
const STALL: Duration = Duration::from_secs(10);
/// How often a worker is asked that does not answer before its segments are called missing.
const TRIES: u32 = 3;
/// How long a reducer waits before it looks again, whatever it hears.
const LOOK: Duration = Duration::from_millis(500);

/// A segment that is here: where in which of the attempt's files.
struct Fetched {
    lane: usize,
    offset: u64,
    len: u64,
    digest: Digest,
    from: String,
}

/// The files that segments are fetched into: as many as are fetched from at a time, however many segments there are,
/// because each is mapped at the end.
struct Lanes {
    prefix: String,
    free: Mutex<Vec<Lane>>,
    made: AtomicUsize,
}

struct Lane {
    number: usize,
    file: Spool,
}

impl Lanes {
    fn new(attempt: &str) -> Self {
        let (free, made) = Default::default();
        Self { prefix: format!("{attempt}fetched-"), free, made }
    }

    /// One that nobody writes to.
    async fn take<E: Env>(&self, env: &E) -> Result<Lane, Short> {
        if let Some(lane) = lock(&self.free).pop() {
            return Ok(lane);
        }
        let number = self.made.fetch_add(1, Relaxed);
        let file = Spool::create(env, format!("{}{number}", self.prefix)).await.map_err(on_disk)?;
        Ok(Lane { number, file })
    }

    fn put(&self, lane: Lane) {
        lock(&self.free).push(lane);
    }

    /// All of them, mapped, by number.
    async fn map<E: Env>(self, env: &E) -> Result<BTreeMap<usize, Arc<dyn Mapping>>, Short> {
        let mut mapped = BTreeMap::new();
        for lane in self.free.into_inner().unwrap_or_else(PoisonError::into_inner) {
            mapped.insert(lane.number, lane.file.map(env).await.map_err(on_disk)?);
        }
        Ok(mapped)
    }
}

/// Why a reducer has not got its segments.
pub(super) enum Short {
    Stopped,
    Disk(String),
}

fn on_disk(e: scratch::Error) -> Short {
    Short::Disk(e.to_string())
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok().map(Digest)
}

/// Answers a request for segments.
pub(super) fn serve<E: Env>(env: E, whose: (u64, u64), request: Bytes) -> BoxStream<'static, Result<Bytes, CallError>> {
    let refused = |why: String| -> BoxStream<'static, Result<Bytes, CallError>> {
        Box::pin(stream::once(async { Err(CallError::Refused(why)) }))
    };
    let request = match wire::FetchRequest::decode(request) {
        Ok(request) if request.maps.len() <= BATCH => request,
        Ok(_) => return refused(format!("more than {BATCH} segments at once")),
        Err(e) => return refused(format!("a request for segments that makes no sense: {e}")),
    };
    let wire::FetchRequest { job, part, maps, cluster, incarnation } = request;
    if (cluster, incarnation) != whose {
        return refused("the segments asked for are another worker's".into());
    }
    let sent = stream::iter((0..).zip(maps)).then(move |(position, map)| {
        let env = env.clone();
        async move {
            let (scratch, attempt) = (env.scratch().clone(), paths::map(job, map.map, map.attempt));
            match env.blocking(move || segment(&*scratch, &attempt, part)).await.flatten() {
                Some((bytes, digest)) => pieces(env, position, bytes, digest).left_stream(),
                None => {
                    let missing = wire::SegmentPiece { position, missing: true, ..Default::default() };
                    stream::once(async move { Ok(missing) }).right_stream()
                }
            }
        }
    });
    Box::pin(sent.flatten().map(|piece: Result<wire::SegmentPiece, CallError>| Ok(piece?.encode_to_vec().into())))
}

/// A segment of a finished map, and its digest.
fn segment(scratch: &dyn Scratch, attempt: &str, part: u32) -> Option<(Slice, Bytes)> {
    let index = scratch.map(&paths::index(attempt)).ok()?;
    let index = wire::SegmentIndex::decode(index.bytes()).ok()?;
    let slot = index.slots.get(part as usize)?;
    let file = scratch.map(&paths::segments(attempt)).ok()?;
    Some((Slice::new(file, slot.offset, slot.length)?, slot.digest.clone()))
}

/// The pieces of a segment. Each is read from the disk when it is asked for.
fn pieces<E: Env>(
    env: E,
    position: u32,
    bytes: Slice,
    digest: Bytes,
) -> impl stream::Stream<Item = Result<wire::SegmentPiece, CallError>> + Send {
    let length = bytes.bytes().len();
    let count = length.div_ceil(PIECE).max(1);
    stream::iter(0..count).then(move |n| {
        let (env, bytes, digest) = (env.clone(), bytes.clone(), digest.clone());
        async move {
            let range = n * PIECE..length.min((n + 1) * PIECE);
            let content = env.blocking(move || Bytes::copy_from_slice(&bytes.bytes()[range])).await;
            let content = content.ok_or_else(|| CallError::Unknown("reading a segment panicked".into()))?;
            let end = (n + 1 == count).then(|| wire::SegmentEnd { length: length as u64, digest });
            Ok(wire::SegmentPiece { position, content, end, missing: false })
        }
    })
}

impl<E: Env> Inner<E> {
    /// All segments of a part, in the order of maps; waits for maps that are not done.
    pub(super) async fn gather(
        &self,
        assignment: &wire::Assignment,
        controls: &Controls,
    ) -> Result<Vec<Segment>, Short> {
        let Some(task) = &assignment.task else { return Err(Short::Stopped) };
        let mut news = self.segments.listen();
        let mut have: BTreeMap<u32, Fetched> = BTreeMap::new();
        let mut tries: BTreeMap<(String, u64), u32> = BTreeMap::new();
        let lanes = Lanes::new(&paths::attempt(task));
        loop {
            if controls.stop.load(Relaxed) {
                return Err(Short::Stopped);
            }
            let wanted = self.wanted(task, &have);
            if have.len() as u32 >= assignment.maps {
                break;
            }
            if wanted.is_empty() {
                E::Rt::select2(news.heard(), E::Rt::sleep(LOOK)).await;
                continue;
            }
            let batches = wanted.into_iter().flat_map(|((address, worker), places)| {
                let batch = |places: &[wire::SegmentPlace]| (address.clone(), worker, places.to_vec());
                places.chunks(if address.is_empty() { STORED_BATCH } else { BATCH }).map(batch).collect::<Vec<_>>()
            });
            let lanes = &lanes;
            let fetches: Vec<_> = batches
                .map(|(address, worker, places)| async move {
                    let got = self.fetch(assignment, task, &address, &places, lanes).await;
                    (address, worker, places, got)
                })
                .collect();
            let mut running = stream::iter(fetches).buffer_unordered(ABREAST);
            let mut pause = false;
            while let Some((address, worker, places, got)) = running.next().await {
                let Got { fetched, missing, trouble } = got?;
                have.extend(fetched);
                pause |= !missing.is_empty();
                for place in places.iter().filter(|place| missing.contains(&place.map)) {
                    self.missed(task, place);
                }
                let Some(what) = trouble else { continue };
                controls.log.say(self.env.wall_ms(), &what);
                self.env.note(crate::node::env::Note::Trouble { what });
                pause = true;
                let tries = tries.entry((address, worker)).or_default();
                *tries += 1;
                if *tries >= TRIES {
                    *tries = 0;
                    for place in places.iter().filter(|place| !have.contains_key(&place.map)) {
                        self.missed(task, place);
                    }
                }
            }
            drop(running);
            let done = u64::from(controls.progress.load(Relaxed).max(1))
                .max(have.len() as u64 * u64::from(FETCHED_PPM) / u64::from(assignment.maps.max(1)));
            controls.progress.store(done as u32, Relaxed);
            if pause {
                E::Rt::sleep(LOOK).await;
            }
        }
        controls.fetched.store(true, Relaxed);
        self.news.raise();
        let files = lanes.map(&self.env).await?;
        let segment = |(map, Fetched { lane, offset, len, digest, from }): (u32, Fetched)| {
            let name = format!("segment {} of map {map} from {from}", task.partition);
            let bytes = files.get(&lane).and_then(|file| Slice::new(file.clone(), offset, len));
            let bytes = bytes.ok_or_else(|| Short::Disk(format!("{name} was fetched and is gone from scratch")))?;
            Ok(Segment { name, bytes: SegmentBytes::Mapped(bytes), digest: Some(digest) })
        };
        have.into_iter().map(segment).collect()
    }

    fn missed(&self, task: &wire::Task, place: &wire::SegmentPlace) {
        self.board().missed(task.job, task.epoch, place);
        self.news.raise();
    }

    /// What is known and not here, by worker.
    fn wanted(
        &self,
        task: &wire::Task,
        have: &BTreeMap<u32, Fetched>,
    ) -> BTreeMap<(String, u64), Vec<wire::SegmentPlace>> {
        let board = self.board();
        let of_epoch = |epoch: u32| epoch == task.epoch || planted(Bug::EpochIgnored);
        let known = board.segments(task.job).filter(|known| of_epoch(known.epoch));
        let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for place in known.into_iter().flat_map(|known| known.places.values()) {
            if !have.contains_key(&place.map) && !board.is_missing(task.job, task.epoch, place) {
                wanted.entry((place.address.clone(), place.incarnation)).or_default().push(place.clone());
            }
        }
        wanted
    }

    async fn fetch(
        &self,
        assignment: &wire::Assignment,
        task: &wire::Task,
        address: &str,
        places: &[wire::SegmentPlace],
        lanes: &Lanes,
    ) -> Result<Got, Short> {
        let mut lane = lanes.take(&self.env).await?;
        let got = if address.is_empty() {
            self.fetch_stored(assignment, task, places, &mut lane).await
        } else {
            self.fetch_from(assignment, task, address, places, &mut lane).await
        };
        lanes.put(lane);
        got
    }

    async fn fetch_from(
        &self,
        assignment: &wire::Assignment,
        task: &wire::Task,
        address: &str,
        places: &[wire::SegmentPlace],
        lane: &mut Lane,
    ) -> Result<Got, Short> {
        let maps = places.iter().map(|p| wire::FinishedMap { map: p.map, attempt: p.attempt }).collect();
        let incarnation = places.first().map_or(0, |place| place.incarnation);
        let whose = (assignment.cluster, incarnation);
        let request = wire::FetchRequest { job: task.job, part: task.partition, maps, cluster: whose.0, incarnation };
        let request = Bytes::from(request.encode_to_vec());
        let answers: BoxStream<'static, _> = if *address == self.options.address {
            serve(self.env.clone(), (assignment.cluster, self.board().incarnation()), request)
        } else {
            self.env.net().fetch(address, Method::Fetch, request, STALL)
        };
        self.take(answers, address, places, lane).await
    }

    /// Writes the pieces of segments into a file.
    async fn take(
        &self,
        mut answers: Pin<Box<dyn stream::Stream<Item = Result<Bytes, CallError>> + Send>>,
        address: &str,
        places: &[wire::SegmentPlace],
        lane: &mut Lane,
    ) -> Result<Got, Short> {
        let mut got = Got::default();
        let (mut begun, mut digester) = (lane.file.len(), Digester::default());
        while let Some(answer) = answers.next().await {
            let decoded = answer.and_then(|bytes| {
                wire::SegmentPiece::decode(bytes).map_err(|e| CallError::Unknown(format!("a piece that is none: {e}")))
            });
            let piece = match decoded {
                Ok(piece) => piece,
                Err(e) => {
                    got.trouble = Some(format!("fetching segments from {address} failed: {e}"));
                    break;
                }
            };
            let Some(place) = places.get(piece.position as usize) else { continue };
            if piece.missing {
                got.missing.insert(place.map);
                (begun, digester) = (lane.file.len(), Digester::default());
                continue;
            }
            digester.update(&piece.content);
            if !piece.content.is_empty() {
                lane.file.write(&self.env, piece.content).await.map_err(on_disk)?;
            }
            if let Some(end) = piece.end {
                let len = lane.file.len() - begun;
                let digest = digest(&end.digest).filter(|d| *d == digester.finish() && len == end.length);
                match digest {
                    Some(digest) => got.have(place.map, lane, begun, digest, address),
                    None => {
                        got.missing.insert(place.map);
                    }
                }
                (begun, digester) = (lane.file.len(), Digester::default());
            }
        }
        Ok(got)
    }

    /// Segments that a drained worker, or a job of phase "map", put into the store.
    async fn fetch_stored(
        &self,
        assignment: &wire::Assignment,
        task: &wire::Task,
        places: &[wire::SegmentPlace],
        lane: &mut Lane,
    ) -> Result<Got, Short> {
        let mut got = Got::default();
        for place in places {
            let Some(attempt) = place.attempt else { continue };
            let name = commit::segments(assignment.cluster, task.job, place.map, attempt.into());
            let begun = lane.file.len();
            match self.stored(&name, task.partition, lane).await? {
                Ok(Some(digest)) => got.have(place.map, lane, begun, digest, "the store"),
                Ok(None) => {
                    got.missing.insert(place.map);
                }
                Err(what) => got.trouble = Some(what),
            }
        }
        Ok(got)
    }

    /// Brings a segment here; gives its digest, or none if there is no such segment, or what there is is damaged.
    async fn stored(&self, name: &str, part: u32, lane: &mut Lane) -> Result<Result<Option<Digest>, String>, Short> {
        let told = |e: store::Error| format!("reading {name} failed: {e}");
        let gone = |e: &store::Error| e.kind == store::Kind::NotFound;
        let index = match objects::whole(&self.env, &format!("{name}.index")).await {
            Err(e) if gone(&e) => return Ok(Ok(None)),
            Err(e) => return Ok(Err(told(e))),
            Ok(index) => wire::SegmentIndex::decode(&index[..]).unwrap_or_default(),
        };
        let (Some(slot), Ok(object)) = (index.slots.get(part as usize), &Name::new(name)) else { return Ok(Ok(None)) };
        let (mut at, end) = (slot.offset, slot.offset.saturating_add(slot.length));
        let mut digester = Digester::default();
        while at < end {
            let range = at..end.min(at + PIECE as u64);
            let got = objects::patiently::<E::Rt, _, _>(|| self.env.store().get(object, range.clone())).await;
            let bytes = match got {
                Err(e) if gone(&e) => return Ok(Ok(None)),
                Err(e) => return Ok(Err(told(e))),
                Ok(bytes) if bytes.is_empty() => return Ok(Ok(None)),
                Ok(bytes) => bytes,
            };
            at += bytes.len() as u64;
            digester.update(&bytes);
            lane.file.write(&self.env, bytes.into()).await.map_err(on_disk)?;
        }
        Ok(Ok(digest(&slot.digest).filter(|d| *d == digester.finish())))
    }

    /// Puts the segments of a finished map into the store.
    pub(super) async fn store_segments(&self, cluster: u64, task: &wire::Task) -> Result<(), String> {
        let told = |e: &dyn std::fmt::Display| {
            format!("putting the segments of map {} into the store failed: {e}", task.partition)
        };
        let attempt = paths::attempt(task);
        let name = commit::segments(cluster, task.job, task.partition, task.attempt.unwrap_or_default().into());
        let index = spool::map(&self.env, paths::index(&attempt)).await.map_err(|e| told(&e))?;
        let segments = spool::map(&self.env, paths::segments(&attempt)).await.map_err(|e| told(&e))?;
        objects::put(&self.env, &format!("{name}.index"), index).await.map_err(|e| told(&e))?;
        objects::put(&self.env, &name, segments).await.map_err(|e| told(&e))
    }
}

/// What came of asking one worker.
#[derive(Default)]
struct Got {
    fetched: Vec<(u32, Fetched)>,
    missing: BTreeSet<u32>,
    trouble: Option<String>,
}

impl Got {
    /// A segment is here: it ends where the lane's file does.
    fn have(&mut self, map: u32, lane: &Lane, offset: u64, digest: Digest, from: &str) {
        let (lane, len, from) = (lane.number, lane.file.len() - offset, from.to_string());
        self.fetched.push((map, Fetched { lane, offset, len, digest, from }));
    }
}
