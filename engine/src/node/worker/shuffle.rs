//! Segments on their way from maps to reducers: fetching them from other workers or the store, and serving those that
//! were made here.
//!
//! A reducer follows the leader's list of finished maps, fetches from several workers at a time, and checks what it gets
//! by the digest that the map gave. A segment that cannot be had, or is damaged, is put on the board as missing; the
//! leader then says where it is, or has it made again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use gristmill_proto::internal::v1 as wire;
use gristmill_raft::net::BoxStream;
use gristmill_raft::runtime::AsyncRuntime;
use prost::Message as _;

use super::board::Controls;
use super::{Inner, paths};
use crate::control::commit;
use crate::data::digest::{Digest, Digester};
use crate::node::env::Env;
use crate::node::objects;
use crate::node::rpc::{CallError, Method, Net as _};
use crate::scratch::{self, Mapping, Slice};
use crate::store::{Name, Store as _};
use crate::task::{Segment, SegmentBytes};

/// Bytes in a piece of a segment.
const PIECE: usize = 1 << 20;
/// Segments asked for at once.
const BATCH: usize = 256;
/// Workers that are fetched from at a time.
const ABREAST: usize = 4;
/// How long a worker may say nothing.
const STALL: Duration = Duration::from_secs(10);
/// How often a worker is asked that does not answer before its segments are called missing.
const TRIES: u32 = 3;
/// How long a reducer waits before it looks again, whatever it hears.
const LOOK: Duration = Duration::from_millis(500);

/// A segment that is here.
struct Fetched {
    bytes: Slice,
    digest: Digest,
    from: String,
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
    let pieces = (0..).zip(maps).flat_map(move |(position, map)| {
        let missing = wire::SegmentPiece { position, missing: true, ..Default::default() };
        let here = segment(&env, &paths::map(job, map.map, map.attempt), part);
        let (found, missing) = match here {
            Some((bytes, digest)) => (Some(pieces(position, bytes, digest)), None),
            None => (None, Some(missing)),
        };
        found.into_iter().flatten().chain(missing)
    });
    Box::pin(stream::iter(pieces.map(|piece| Ok(piece.encode_to_vec().into()))))
}

/// A segment of a finished map, and its digest.
fn segment<E: Env>(env: &E, attempt: &str, part: u32) -> Option<(Slice, Bytes)> {
    let index = env.scratch().map(&paths::index(attempt)).ok()?;
    let index = wire::SegmentIndex::decode(index.bytes()).ok()?;
    let slot = index.slots.get(part as usize)?;
    let file = env.scratch().map(&paths::segments(attempt)).ok()?;
    Some((Slice::new(file, slot.offset, slot.length)?, slot.digest.clone()))
}

fn pieces(position: u32, bytes: Slice, digest: Bytes) -> impl Iterator<Item = wire::SegmentPiece> {
    let length = bytes.bytes().len();
    let count = length.div_ceil(PIECE).max(1);
    (0..count).map(move |n| {
        let content = Bytes::copy_from_slice(&bytes.bytes()[n * PIECE..length.min((n + 1) * PIECE)]);
        let end = (n + 1 == count).then(|| wire::SegmentEnd { length: length as u64, digest: digest.clone() });
        wire::SegmentPiece { position, content, end, missing: false }
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
        let mut files = 0;
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
                places.chunks(BATCH).map(batch).collect::<Vec<_>>()
            });
            let fetches: Vec<_> = batches
                .map(|(address, worker, places)| {
                    files += 1;
                    let file = format!("{}fetched-{files}", paths::attempt(task));
                    async move {
                        let got = self.fetch(assignment, task, &address, &places, &file).await;
                        (address, worker, places, got)
                    }
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
                .max(have.len() as u64 * 400_000 / u64::from(assignment.maps.max(1)));
            controls.progress.store(done as u32, Relaxed);
            if pause {
                E::Rt::sleep(LOOK).await;
            }
        }
        controls.fetched.store(true, Relaxed);
        self.news.raise();
        let segment = |(map, fetched): (u32, Fetched)| Segment {
            name: format!("segment {} of map {map}{}", task.partition, fetched.from),
            bytes: SegmentBytes::Mapped(fetched.bytes),
            digest: Some(fetched.digest),
        };
        Ok(have.into_iter().map(segment).collect())
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
        let known = board.segments(task.job).filter(|known| known.epoch == task.epoch);
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
        file: &str,
    ) -> Result<Got, Short> {
        if address.is_empty() {
            return self.fetch_stored(assignment, task, places).await;
        }
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
        self.take(answers, address, places, file).await
    }

    /// Writes the pieces of segments into a file.
    async fn take(
        &self,
        mut answers: Pin<Box<dyn stream::Stream<Item = Result<Bytes, CallError>> + Send>>,
        address: &str,
        places: &[wire::SegmentPlace],
        file: &str,
    ) -> Result<Got, Short> {
        let scratch = self.env.scratch();
        let mut writer = scratch.create(file).map_err(on_disk)?;
        let mut got = Got::default();
        let mut whole: Vec<(u32, u64, u64, Digest)> = Vec::new();
        let (mut at, mut begun, mut digester) = (0u64, 0u64, Digester::default());
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
                (begun, digester) = (at, Digester::default());
                continue;
            }
            let place_on_disk = scratch.place(file);
            writer.write_all(&piece.content).map_err(scratch::Error::at("write", place_on_disk)).map_err(on_disk)?;
            digester.update(&piece.content);
            at += piece.content.len() as u64;
            if let Some(end) = piece.end {
                let digest = digest(&end.digest).filter(|d| *d == digester.finish() && at - begun == end.length);
                match digest {
                    Some(digest) => whole.push((place.map, begun, at - begun, digest)),
                    None => {
                        got.missing.insert(place.map);
                    }
                }
                (begun, digester) = (at, Digester::default());
            }
        }
        writer.flush().map_err(scratch::Error::at("write", scratch.place(file))).map_err(on_disk)?;
        drop(writer);
        if whole.is_empty() {
            return Ok(got);
        }
        let mapping: Arc<dyn Mapping> = scratch.map(file).map_err(on_disk)?;
        for (map, offset, length, digest) in whole {
            if let Some(bytes) = Slice::new(mapping.clone(), offset, length) {
                let from = format!(" from {address}");
                got.fetched.push((map, Fetched { bytes, digest, from }));
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
    ) -> Result<Got, Short> {
        let mut got = Got::default();
        for place in places {
            let Some(attempt) = place.attempt else { continue };
            let name = commit::segments(assignment.cluster, task.job, place.map, attempt.into());
            match self.stored(&name, task.partition).await {
                Ok(Some((bytes, digest))) => {
                    got.fetched.push((place.map, Fetched { bytes, digest, from: " from the store".into() }));
                }
                Ok(None) => {
                    got.missing.insert(place.map);
                }
                Err(what) => got.trouble = Some(what),
            }
        }
        Ok(got)
    }

    async fn stored(&self, name: &str, part: u32) -> Result<Option<(Slice, Digest)>, String> {
        let told = |e: crate::store::Error| format!("reading {name} failed: {e}");
        let gone = |e: &crate::store::Error| e.kind == crate::store::Kind::NotFound;
        let index = match objects::whole(&self.env, &format!("{name}.index")).await {
            Err(e) if gone(&e) => return Ok(None),
            index => index.map_err(told)?,
        };
        let index = wire::SegmentIndex::decode(&index[..]).unwrap_or_default();
        let Some(slot) = index.slots.get(part as usize) else { return Ok(None) };
        let object = &Name::new(name).map_err(told)?;
        let range = slot.offset..slot.offset.saturating_add(slot.length);
        let store = self.env.store();
        let bytes = match objects::patiently::<E::Rt, _, _>(|| store.get(object, range.clone())).await {
            Err(e) if gone(&e) => return Ok(None),
            bytes => bytes.map_err(told)?,
        };
        let right = digest(&slot.digest).filter(|d| *d == Digest::of(&bytes));
        let length = bytes.len() as u64;
        Ok(right.and_then(|digest| Some((Slice::new(Arc::new(bytes), 0, length)?, digest))))
    }

    /// Puts the segments of a finished map into the store.
    pub(super) async fn store_segments(&self, cluster: u64, task: &wire::Task) -> Result<(), String> {
        let told = |e: &dyn std::fmt::Display| {
            format!("putting the segments of map {} into the store failed: {e}", task.partition)
        };
        let attempt = paths::attempt(task);
        let name = commit::segments(cluster, task.job, task.partition, task.attempt.unwrap_or_default().into());
        let scratch = self.env.scratch();
        let index = scratch.map(&paths::index(&attempt)).map_err(|e| told(&e))?;
        let segments = scratch.map(&paths::segments(&attempt)).map_err(|e| told(&e))?;
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
