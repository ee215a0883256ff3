//! The head: one record, written with every batch, that says what the log consists of.
//!
//! Because it changes in the same atomic batch as the entries, a head and its entries always belong together; because
//! it counts writes, an older state of the database is seen to be older.

use std::fmt;

use prost::Message;

use super::Error;
use super::frame::{Hash, NO_HASH, Tip};
use crate::message;
use crate::node::id;
use crate::types::{LogId, Vote};

/// Its key in the database.
pub(crate) const KEY: &[u8] = b"head";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Whose log it is.
    pub(crate) node: u64,
    /// Counts batches, from 1.
    pub(crate) write: u64,
    pub(crate) vote: Option<Vote>,
    /// The last entry, or the last purged one if there are none.
    pub(crate) last: Option<Tip>,
    /// The last entry that was purged.
    pub(crate) purged: Option<Tip>,
    /// An entry known to be committed; not always the last such.
    pub(crate) committed: Option<LogId>,
}

impl Head {
    /// The index of the first entry that is there, if any is.
    pub(crate) fn first_index(&self) -> u64 {
        next(self.purged.as_ref())
    }

    /// The index of the next entry to append.
    pub(crate) fn next_index(&self) -> u64 {
        next(self.last.as_ref())
    }

    /// The hash that the next frame refers to.
    pub(crate) fn last_hash(&self) -> Hash {
        self.last.as_ref().map_or(NO_HASH, |tip| tip.hash)
    }

    /// A CRC32C, then the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let record = Record {
            node: self.node,
            write: self.write,
            vote: self.vote.as_ref().map(Into::into),
            last: self.last.as_ref().map(Into::into),
            purged: self.purged.as_ref().map(Into::into),
            committed: self.committed.as_ref().map(Into::into),
        };
        let record = record.encode_to_vec();
        [&crc32c::crc32c(&record).to_be_bytes(), &record[..]].concat()
    }

    /// The way back, or what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some((crc, record)) = bytes.split_first_chunk::<4>() else {
            return Err(format!("a head of {} bytes", bytes.len()));
        };
        if u32::from_be_bytes(*crc) != crc32c::crc32c(record) {
            return Err("a head whose checksum is wrong".to_string());
        }
        let record = Record::decode(record).map_err(|e| format!("a head that does not decode ({e})"))?;
        Ok(Self {
            node: record.node,
            write: record.write,
            vote: record.vote.map(Into::into),
            last: record.last.map(Tip::try_from).transpose()?,
            purged: record.purged.map(Tip::try_from).transpose()?,
            committed: record.committed.map(Into::into),
        })
    }

    /// Fails unless this head, found in the database, keeps everything that `mark` says was acknowledged.
    pub(crate) fn check_against(&self, mark: &Head) -> Result<(), Error> {
        // Of two votes in one term for two nodes, neither is the later one.
        let vote_kept = match (&mark.vote, &self.vote) {
            (Some(marked), Some(found)) => found >= marked,
            (marked, _) => marked.is_none(),
        };
        let same = self.write != mark.write || self == mark;
        let purged_kept = self.first_index() >= mark.first_index();
        if self.node == mark.node && self.write >= mark.write && same && vote_kept && purged_kept {
            return Ok(());
        }
        Err(Error::loss(format!("{mark} (from the mark)"), format!("{self} (in the database)")))
    }
}

/// The index after a tip.
pub(super) fn next(tip: Option<&Tip>) -> u64 {
    tip.map_or(0, |tip| tip.id.index() + 1)
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, write {}, entries {}..{}", id(self.node), self.write, self.first_index(), self.next_index())?;
        if let Some(tip) = &self.last {
            write!(f, " up to term {} ({})", tip.id.committed_leader_id(), Hex(&tip.hash[..4]))?;
        }
        match &self.vote {
            Some(vote) => write!(f, ", vote {vote}"),
            None => write!(f, ", no vote"),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    write: u64,
    #[prost(message, optional, tag = "2")]
    vote: Option<message::Vote>,
    #[prost(message, optional, tag = "3")]
    last: Option<TipRecord>,
    #[prost(message, optional, tag = "4")]
    purged: Option<TipRecord>,
    #[prost(message, optional, tag = "5")]
    committed: Option<message::LogId>,
    #[prost(fixed64, tag = "6")]
    node: u64,
}

#[derive(Clone, PartialEq, Message)]
struct TipRecord {
    #[prost(message, optional, tag = "1")]
    id: Option<message::LogId>,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
}

impl From<&Tip> for TipRecord {
    fn from(tip: &Tip) -> Self {
        Self { id: Some((&tip.id).into()), hash: tip.hash.to_vec() }
    }
}

impl TryFrom<TipRecord> for Tip {
    type Error = String;

    fn try_from(record: TipRecord) -> Result<Self, String> {
        let id = record.id.ok_or("a head without a log id")?;
        let hash = record.hash.try_into().map_err(|_| "a head with a hash of another length")?;
        Ok(Self { id: id.into(), hash })
    }
}
