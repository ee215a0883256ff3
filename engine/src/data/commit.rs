//! What an output is: a folder of parts with a manifest in `_SUCCESS`, and how one is read back.
//!
//! `pending` makes one, hidden until it is whole; `target` says which names a job may write to.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "outputs are made here")]

mod pending;
mod target;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::compress::{self, Compression};
use super::output::PartSummary;

pub(crate) use pending::Pending;
pub(crate) use pending::leftover;
pub use target::check;

/// Name of the file that says that an output is complete.
pub const SUCCESS: &str = "_SUCCESS";
/// Version of the manifest's layout.
const MANIFEST_VERSION: u32 = 1;

/// What `_SUCCESS` holds. It depends on the input and the options that shape the output, on nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub version: u32,
    /// Name of the app.
    pub app: String,
    /// Version of the hash that divided keys among parts.
    pub hash_version: u32,
    /// Records of all parts.
    pub records: u64,
    /// Bytes of all parts, before compression.
    pub bytes: u64,
    /// The parts, in order.
    pub parts: Vec<PartEntry>,
    /// Counters of the app.
    pub counters: BTreeMap<String, i64>,
    /// Records that were passed over, if that was allowed.
    pub bad_records: u64,
    /// The job of a cluster that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Whether the parts are segments that are yet to be reduced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub segments: bool,
}

/// A part in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// File name.
    pub name: String,
    /// Records, bytes and checksum before compression.
    #[serde(flatten)]
    pub summary: PartSummary,
}

impl Manifest {
    pub(crate) fn new(app: &str, parts: Vec<PartEntry>, counters: BTreeMap<String, i64>, bad_records: u64) -> Self {
        Self {
            version: MANIFEST_VERSION,
            app: app.into(),
            hash_version: super::hash::HASH_VERSION,
            records: parts.iter().map(|p| p.summary.records).sum(),
            bytes: parts.iter().map(|p| p.summary.bytes).sum(),
            parts,
            counters,
            bad_records,
            job: None,
            segments: false,
        }
    }

    /// The bytes of `_SUCCESS`.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads the bytes of `_SUCCESS`.
    ///
    /// # Errors
    /// `InvalidData` when they are no manifest, or one of a later version.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("not a manifest: {e}")))?;
        if manifest.version > MANIFEST_VERSION {
            let e = format!("manifest version {} is newer than this program's {MANIFEST_VERSION}", manifest.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
        Ok(manifest)
    }

    /// Reads the manifest of an output.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when the output is not complete; `InvalidData` when the manifest is not one.
    pub fn read(folder: &Path) -> io::Result<Self> {
        Self::from_bytes(&fs::read(folder.join(SUCCESS))?)
    }
}

/// Counts as reports and manifests have them, where scripts may count down; beyond 2^63 they stay there.
pub(crate) fn totals(counts: impl IntoIterator<Item = (String, u64)>) -> BTreeMap<String, i64> {
    counts.into_iter().map(|(name, n)| (name, i64::try_from(n).unwrap_or(i64::MAX))).collect()
}

/// Name of part `n`.
pub(crate) fn part_name(n: usize, compression: Option<Compression>) -> String {
    match compression {
        Some(kind) => format!("part-{n:05}.{}", kind.extension()),
        None => format!("part-{n:05}"),
    }
}

/// Opens a part for reading, decompressed by its extension.
///
/// # Errors
/// What the system says of the file.
pub fn open_part(folder: &Path, part: &PartEntry) -> io::Result<Box<dyn Read + Send>> {
    let path = folder.join(&part.name);
    let file = File::open(&path)?;
    Ok(match Compression::of(&path) {
        Some(kind) => Box::new(compress::Decoder::new(kind, Box::new(file), path.to_string_lossy().into())?),
        None => Box::new(file),
    })
}
