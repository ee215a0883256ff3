//! Snapshots of the state: records with lengths in front, in chunks, made from a clone away from where commands are
//! applied; and the digest by which replicas are compared.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::record::Kind;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::ids::{self, Digest, Stage};
use super::limits::SNAPSHOT_CHUNK;
use super::record;
use super::state::State;

/// Why a snapshot can not be read.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The bytes could not be had.
    #[error("the snapshot can not be read: {0}")]
    Read(#[from] io::Error),
    /// A record is none.
    #[error("a record of the snapshot can not be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A record is of a kind that was added later.
    #[error("the snapshot holds records that are unknown to this build; start a newer one here")]
    Unknown,
    /// The state is of a higher level.
    #[error("the snapshot has feature level {0}; start a newer build here")]
    Level(u32),
    /// A record makes no sense.
    #[error("the snapshot makes no sense: {0}")]
    Record(&'static str),
}

/// The state at a moment, as chunks of at most 1 MiB.
pub struct View {
    state: State,
    cursor: Cursor,
    records: u64,
    /// A record that did not fit into the chunk before.
    left: Vec<u8>,
}

/// What the last record was.
#[derive(Clone)]
enum Cursor {
    Start,
    Worker(u64),
    Archived(u64),
    Key(Digest),
    Drained(u64),
    Pool(Arc<str>),
    User(Arc<str>),
    Session(u64),
    Role(Arc<str>),
    SigningKey(Arc<str>),
    Policy,
    Audit(u64),
    Job(u64),
    Tasks(u64, Stage, usize),
    Incidents(u64, usize),
    End,
}

const STAGES: [Stage; 3] = [Stage::Survey, Stage::Map, Stage::Reduce];

impl View {
    /// The record after the last one.
    fn next_record(&mut self) -> Option<Kind> {
        loop {
            let (found, next) = self.step(self.cursor.clone())?;
            self.cursor = next;
            if found.is_some() {
                return found;
            }
        }
    }

    /// What follows, and where that is; a kind that has no more gives nothing and leads on to the next.
    fn step(&self, cursor: Cursor) -> Option<(Option<Kind>, Cursor)> {
        let State { workers, archive, keys, drained, pools, access, jobs, .. } = &self.state;
        Some(match cursor {
            Cursor::Start => (Some(self.head()), Cursor::Worker(0)),
            Cursor::Worker(last) => match after(workers, &last) {
                Some((at, worker)) => (Some(Kind::Worker((**worker).clone())), Cursor::Worker(*at)),
                None => (None, Cursor::Archived(0)),
            },
            Cursor::Archived(last) => match after(archive, &last) {
                Some((at, row)) => (Some(Kind::Archived((**row).clone())), Cursor::Archived(*at)),
                None => (None, Cursor::Key(Digest::default())),
            },
            Cursor::Key(last) => match after(keys, &last) {
                Some((at, key)) => (Some(record::key(at, *key)), Cursor::Key(*at)),
                None => (None, Cursor::Drained(0)),
            },
            Cursor::Drained(last) => match after(drained, &last) {
                Some((at, uid)) => {
                    let drained = wire::DrainedRecord { incarnation: *at, uid: uid.to_string() };
                    (Some(Kind::Drained(drained)), Cursor::Drained(*at))
                }
                None => (None, Cursor::Pool("".into())),
            },
            Cursor::Pool(last) => match after(pools, &last) {
                Some((at, pool)) => (Some(Kind::Pool((**pool).clone())), Cursor::Pool(at.clone())),
                None => (None, Cursor::User("".into())),
            },
            Cursor::User(last) => match after(&access.users, &last) {
                Some((at, user)) => (Some(Kind::User((**user).clone())), Cursor::User(at.clone())),
                None => (None, Cursor::Session(0)),
            },
            Cursor::Session(last) => match after(&access.sessions, &last) {
                Some((at, session)) => (Some(Kind::Session((**session).clone())), Cursor::Session(*at)),
                None => (None, Cursor::Role("".into())),
            },
            Cursor::Role(last) => match after(&access.roles, &last) {
                Some((at, rights)) => (Some(record::role(at, *rights)), Cursor::Role(at.clone())),
                None => (None, Cursor::SigningKey("".into())),
            },
            Cursor::SigningKey(last) => match after(&access.keys, &last) {
                Some((at, key)) => (Some(Kind::SigningKey((**key).clone())), Cursor::SigningKey(at.clone())),
                None => (None, Cursor::Policy),
            },
            Cursor::Policy => {
                let policy = wire::PolicyRecord { registration: access.registration };
                (policy.registration.then_some(Kind::Policy(policy)), Cursor::Audit(0))
            }
            Cursor::Audit(last) => match after(&access.audit, &last) {
                Some((at, event)) => (Some(Kind::Audit((**event).clone())), Cursor::Audit(*at)),
                None => (None, Cursor::Job(0)),
            },
            Cursor::Job(last) => match after(jobs, &last) {
                Some((at, job)) => (Some(record::job(job)), Cursor::Tasks(*at, STAGES[0], 0)),
                None => (Some(Kind::End(wire::EndRecord { records: self.records })), Cursor::End),
            },
            Cursor::Tasks(job, stage, first) => {
                let found = jobs.get(&job).and_then(|job| record::tasks(job, stage, first));
                let following = || STAGES.into_iter().find(|s| *s > stage).map(|s| Cursor::Tasks(job, s, 0));
                match found {
                    Some(tasks) => (Some(tasks), Cursor::Tasks(job, stage, first + record::TASKS)),
                    None => (None, following().unwrap_or(Cursor::Incidents(job, 0))),
                }
            }
            Cursor::Incidents(job, first) => match jobs.get(&job).and_then(|job| record::incidents(job, first)) {
                Some(incidents) => (Some(incidents), Cursor::Incidents(job, first + record::INCIDENTS)),
                None => (None, Cursor::Job(job)),
            },
            Cursor::End => return None,
        })
    }

    fn head(&self) -> Kind {
        let State { level, cluster, now_ms, applied, .. } = self.state;
        Kind::Head(wire::HeadRecord { level, cluster, now_ms, applied })
    }
}

fn after<'m, K: Ord + Clone, V: Clone>(map: &'m imbl::OrdMap<K, V>, last: &K) -> Option<(&'m K, &'m V)> {
    map.range((Bound::Excluded(last.clone()), Bound::Unbounded)).next()
}

impl Iterator for View {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = std::mem::take(&mut self.left);
        while let Some(kind) = self.next_record() {
            self.records += 1;
            let record = wire::Record { kind: Some(kind) }.encode_length_delimited_to_vec();
            if chunk.len() + record.len() > SNAPSHOT_CHUNK {
                self.left = record;
                break;
            }
            chunk.extend_from_slice(&record);
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

impl State {
    /// The state as it is now. Cheap; the work is in the iteration.
    pub fn snapshot(&self) -> View {
        View { state: self.clone(), cursor: Cursor::Start, records: 0, left: Vec::new() }
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// [`Damage`]: it is not whole, or of a later release.
    pub fn restore(snapshot: &mut dyn io::Read) -> Result<Self, Damage> {
        Self::default().restored(snapshot)
    }

    /// As [`State::restore`], by the build of this state.
    ///
    /// # Errors
    /// As [`State::restore`].
    pub fn restored(&self, snapshot: &mut dyn io::Read) -> Result<Self, Damage> {
        let mut state = Self::understanding(self.understands.0);
        let (mut last, mut records) = (None, 0);
        let mut bytes = Vec::new();
        loop {
            read_record(snapshot, &mut bytes)?;
            let kind = wire::Record::decode(bytes.as_slice())?.kind.ok_or(Damage::Unknown)?;
            if records == 0 && !matches!(kind, Kind::Head(_)) {
                return Err(Damage::Record("it does not begin with its head"));
            }
            let end = if let Kind::End(end) = &kind { Some(end.records) } else { None };
            state.take(kind, &mut last)?;
            match end {
                Some(expected) if expected == records => return Ok(state),
                Some(_) => return Err(Damage::Record("records are missing")),
                None => records += 1,
            }
        }
    }

    /// The same on all replicas that applied the same commands. As costly as a snapshot.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        self.snapshot().for_each(|chunk| hash.update(&chunk));
        ids::first(hash)
    }
}

/// The next record's bytes.
fn read_record(snapshot: &mut dyn io::Read, bytes: &mut Vec<u8>) -> Result<(), Damage> {
    let (mut len, mut shift) = (0u64, 0);
    loop {
        let mut byte = [0];
        snapshot.read_exact(&mut byte)?;
        len |= u64::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            break;
        }
        if shift > 28 {
            return Err(Damage::Record("a record of more than 1 MiB"));
        }
    }
    let len = usize::try_from(len).ok().filter(|len| *len <= SNAPSHOT_CHUNK);
    bytes.resize(len.ok_or(Damage::Record("a record of more than 1 MiB"))?, 0);
    Ok(snapshot.read_exact(bytes)?)
}
