//! Sealed snapshots: files beside the database, written once, with a digest over all that they say.
//!
//! A file is `magic [8] | length of the meta u32 | its CRC32C u32 | meta | body | length of the body u64 | SHA-256 [32]`,
//! big-endian; the digest covers everything before it. The meta is a prost message: what the snapshot covers. A snapshot
//! travels as the bytes of its file. What the body means, the state machine knows.

use std::io;
use std::task::Poll;

use prost::Message;
use sha2::{Digest, Sha256};

use crate::disk::{self, Files};
use crate::message;
use crate::types::{LogId, SnapshotMeta};

const MAGIC: &[u8; 8] = b"GRSNAP1\n";
const HEADER_BYTES: u64 = 16;
const TRAILER_BYTES: u64 = 40;

/// The most bytes of meta: a membership of a few hundred members.
const MAX_META_BYTES: usize = 1 << 16;

/// How much is read at a time.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Snapshots kept: the current one, and the one before, which may be on its way to a follower.
const KEPT: usize = 2;

const PREFIX: &str = "snapshot-";
const UNFINISHED: &str = "unfinished-";

/// Why a snapshot can not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk failed.
    #[error("the disk of the snapshots failed")]
    Disk(#[from] disk::Error),
    /// The file is not what was written.
    #[error("the snapshot {name} is damaged: expected {expected}; found {found}")]
    Damaged {
        /// The file.
        name: String,
        /// What must be there.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// The state machine does not take it.
    #[error("the state machine can not restore the snapshot {name}: {problem}")]
    Restore {
        /// The file.
        name: String,
        /// What it said.
        problem: String,
    },
}

impl Error {
    fn damaged(name: &str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Damaged { name: name.to_string(), expected: expected.to_string(), found: found.to_string() }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(crate::chain(&error))
    }
}

#[derive(Clone, PartialEq, Message)]
struct MetaRecord {
    #[prost(message, optional, tag = "1")]
    last: Option<message::LogId>,
    #[prost(message, optional, tag = "2")]
    membership: Option<message::StoredMembership>,
}

/// A file that was written whole; whether it still is, [`Sealed::check`] says.
#[derive(Debug, Clone)]
pub(crate) struct Sealed<F> {
    files: F,
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Where a snapshot comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// From this node's state.
    Built,
    /// From the leader.
    Received,
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Unfinished<F> {
    files: F,
    name: String,
    bytes: u64,
}

impl<F: Files> Unfinished<F> {
    /// Begins a file. There is one of each `kind` at a time.
    pub(crate) async fn begin(files: F, kind: Kind) -> Result<Self, Error> {
        let name = match kind {
            Kind::Built => format!("{UNFINISHED}built"),
            Kind::Received => format!("{UNFINISHED}received"),
        };
        files.remove(&name).await?;
        Ok(Self { files, name, bytes: 0 })
    }

    /// Adds bytes of the file as it came from another node.
    pub(crate) async fn add(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        Ok(self.files.append(&self.name, bytes).await?)
    }

    /// Writes a whole snapshot.
    pub(crate) async fn write(
        mut self,
        meta: &SnapshotMeta,
        body: &mut (dyn Iterator<Item = Vec<u8>> + Send),
    ) -> Result<Sealed<F>, Error> {
        let membership = Some((&meta.last_membership).into());
        let record = MetaRecord { last: meta.last_log_id.as_ref().map(Into::into), membership }.encode_to_vec();
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes();
        let header = [&MAGIC[..], &length, &crc32c::crc32c(&record).to_be_bytes(), &record].concat();
        let mut digest = Sha256::new_with_prefix(&header);
        let (mut length, mut buffer) = (0_u64, header);
        for chunk in body {
            digest.update(&chunk);
            length += chunk.len() as u64;
            // A state machine may give many small chunks; the disk gets few large ones.
            buffer.extend_from_slice(&chunk);
            if buffer.len() >= CHUNK_BYTES {
                self.add(std::mem::take(&mut buffer)).await?;
            }
        }
        self.add(buffer).await?;
        digest.update(length.to_be_bytes());
        self.add([&length.to_be_bytes()[..], &digest.finalize()].concat()).await?;
        self.seal(meta).await
    }

    /// Gives a whole file its name, durably, and removes the oldest.
    pub(crate) async fn seal(self, meta: &SnapshotMeta) -> Result<Sealed<F>, Error> {
        let name = file_name(meta.last_log_id.as_ref());
        self.files.seal(&self.name, &name).await?;
        let mut others = names(&self.files)?;
        others.truncate(others.len().saturating_sub(KEPT));
        for old in others {
            self.files.remove(&old).await?;
        }
        Ok(Sealed { files: self.files, name, bytes: self.bytes })
    }

    pub(crate) fn into_sealed(self) -> Sealed<F> {
        Sealed { files: self.files, name: self.name, bytes: self.bytes }
    }

    pub(crate) async fn discard(self) {
        // What stays is removed at the next start.
        let _ = self.files.remove(&self.name).await;
    }
}

impl<F: Files> Sealed<F> {
    /// Gives a file that came from another node its name.
    pub(crate) async fn adopt(self, meta: &SnapshotMeta) -> Result<Self, Error> {
        if self.name.starts_with(PREFIX) {
            return Ok(self);
        }
        Unfinished { files: self.files, name: self.name, bytes: self.bytes }.seal(meta).await
    }

    /// The bytes from `offset` on, at most a chunk of them.
    pub(crate) fn chunk(&self, offset: u64) -> Result<Vec<u8>, Error> {
        match self.files.read(&self.name, offset, CHUNK_BYTES)? {
            Some(bytes) => Ok(bytes),
            None => Err(Error::damaged(&self.name, "a file", "none")),
        }
    }

    /// Reads all of it and compares it with its digest; says what it covers.
    pub(crate) fn check(&self) -> Result<SnapshotMeta, Error> {
        let (meta, mut digest, mut offset) = (self.meta()?, Sha256::new(), 0);
        while self.digest_chunk(&mut digest, &mut offset)? {}
        self.compare(digest)?;
        Ok(meta)
    }

    /// The same on a task that must let others run.
    pub(crate) async fn check_in_turns(&self) -> Result<SnapshotMeta, Error> {
        let (meta, mut digest, mut offset) = (self.meta()?, Sha256::new(), 0);
        while self.digest_chunk(&mut digest, &mut offset)? {
            let mut yielded = false;
            std::future::poll_fn(|context| {
                if std::mem::replace(&mut yielded, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        self.compare(digest)?;
        Ok(meta)
    }

    /// Adds the chunk at `offset` to the digest; `false` if there is no more.
    fn digest_chunk(&self, digest: &mut Sha256, offset: &mut u64) -> Result<bool, Error> {
        let end = self.bytes.saturating_sub(32);
        if *offset >= end {
            return Ok(false);
        }
        let mut chunk = self.chunk(*offset)?;
        chunk.truncate(usize::try_from(end - *offset).unwrap_or(usize::MAX));
        if chunk.is_empty() {
            return Err(Error::damaged(&self.name, format!("{} bytes", self.bytes), format!("{offset} bytes")));
        }
        digest.update(&chunk);
        *offset += chunk.len() as u64;
        Ok(true)
    }

    fn compare(&self, digest: Sha256) -> Result<(), Error> {
        if self.chunk(self.bytes.saturating_sub(32))?[..] == digest.finalize()[..] {
            return Ok(());
        }
        Err(Error::damaged(&self.name, "the digest at its end", "another content"))
    }

    fn meta(&self) -> Result<SnapshotMeta, Error> {
        let damaged = |found: String| Error::damaged(&self.name, "what a snapshot begins with", found);
        let start = self.files.read(&self.name, 0, 16 + MAX_META_BYTES)?.unwrap_or_default();
        let (length, crc) = match (start.get(..8), number(&start, 8), number(&start, 12)) {
            (Some(magic), Some(length), Some(crc)) if magic == MAGIC => (length, crc),
            _ => return Err(damaged("something else".to_string())),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let record = start.get(16..).and_then(|rest| rest.get(..length));
        let record = record.ok_or_else(|| damaged(format!("a meta of {length} bytes")))?;
        if crc32c::crc32c(record) != crc {
            return Err(damaged("a meta whose checksum is wrong".to_string()));
        }
        let read = MetaRecord::decode(record).map_err(message::Invalid::from).and_then(|record| {
            let membership = record.membership.ok_or(message::Invalid::Missing("the membership"))?;
            message::check_index(record.last.map_or(0, |last| last.index))?;
            Ok(SnapshotMeta { last_log_id: record.last.map(Into::into), last_membership: membership.try_into()? })
        });
        read.map_err(|e| damaged(crate::chain(&e)))
    }

    /// The body, to be restored from. Its content has been checked.
    pub(crate) fn body(&self) -> Result<Body<'_, F>, Error> {
        let start = self.files.read(&self.name, 0, 16)?.unwrap_or_default();
        let meta = number(&start, 8).map_or(0, u64::from);
        let end = self.bytes.saturating_sub(TRAILER_BYTES);
        Ok(Body { sealed: self, offset: HEADER_BYTES + meta, end, chunk: Vec::new(), used: 0 })
    }

    pub(crate) fn restore_error(&self, problem: &io::Error) -> Error {
        Error::Restore { name: self.name.clone(), problem: problem.to_string() }
    }
}

/// Reads the body of a snapshot.
pub(crate) struct Body<'a, F> {
    sealed: &'a Sealed<F>,
    offset: u64,
    end: u64,
    chunk: Vec<u8>,
    used: usize,
}

impl<F: Files> io::Read for Body<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.chunk.len() && self.offset < self.end {
            self.chunk = self.sealed.chunk(self.offset)?;
            self.chunk.truncate(usize::try_from(self.end - self.offset).unwrap_or(usize::MAX));
            self.offset += self.chunk.len() as u64;
            self.used = 0;
        }
        let left = self.chunk.get(self.used..).unwrap_or_default();
        let taken = left.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&left[..taken]);
        self.used += taken;
        Ok(taken)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

/// Names sort as what they cover does.
fn file_name(last: Option<&LogId>) -> String {
    let (term, index) = last.map_or((0, 0), |id| (id.committed_leader_id().term, id.index()));
    format!("{PREFIX}{index:016x}-{term:016x}")
}

/// The names of all sealed snapshots, oldest first.
fn names<F: Files>(files: &F) -> Result<Vec<String>, Error> {
    Ok(files.list()?.into_iter().map(|file| file.name).filter(|name| name.starts_with(PREFIX)).collect())
}

/// The newest snapshot, checked.
pub(crate) fn newest<F: Files>(files: &F) -> Result<Option<(SnapshotMeta, Sealed<F>)>, Error> {
    let newest = files.list()?.into_iter().rfind(|file| file.name.starts_with(PREFIX));
    let Some(file) = newest else { return Ok(None) };
    let sealed = Sealed { files: files.clone(), name: file.name, bytes: file.bytes };
    let meta = sealed.check()?;
    if file_name(meta.last_log_id.as_ref()) != sealed.name {
        return Err(Error::damaged(&sealed.name, "the snapshot of that name", "another one"));
    }
    Ok(Some((meta, sealed)))
}

/// Removes what was never finished.
pub(crate) async fn remove_unfinished<F: Files>(files: &F) -> Result<(), Error> {
    for file in files.list()? {
        if file.name.starts_with(UNFINISHED) {
            files.remove(&file.name).await?;
        }
    }
    Ok(())
}
