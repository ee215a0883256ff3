//! Who a folder is: a node id made at random with the folder, and the cluster that it belongs to.
//!
//! An id is never used again by another folder: whoever lost its folder comes back as somebody else, so that nobody
//! counts on a promise that is forgotten. The identity is the last thing made, so that a folder with one is complete.

use crate::disk::{self, Files};

const FILE: &str = "identity";
const UNFINISHED: &str = "identity.new";
const MAX_BYTES: usize = 4096;

/// Who a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The id of the node.
    pub node: u64,
    /// The id of the cluster.
    pub cluster: u64,
}

/// Why a folder's identity can not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk failed.
    #[error("the disk of the node's folder failed")]
    Disk(#[from] disk::Error),
    /// The file is not what was written.
    #[error("the file identity is damaged: {0}")]
    Damaged(String),
    /// The folder has no identity.
    #[error("the folder has no identity; it is not a node's, or was not made to the end")]
    None,
    /// The folder belongs to another cluster.
    #[error(
        "the folder belongs to cluster {found:016x}, not to {expected:016x}; use another folder or the right token"
    )]
    OtherCluster {
        /// The cluster that was asked for.
        expected: u64,
        /// The folder's.
        found: u64,
    },
}

impl Identity {
    /// Reads the identity of a folder. `None` if it has none.
    pub(crate) fn read<F: Files>(files: &F) -> Result<Option<Self>, Error> {
        let Some(bytes) = files.read(FILE, 0, MAX_BYTES)? else { return Ok(None) };
        parse(&bytes).map(Some).map_err(Error::Damaged)
    }

    /// Gives the folder an identity, durably.
    pub(crate) async fn write<F: Files>(self, files: &F) -> Result<(), Error> {
        files.remove(UNFINISHED).await?;
        files.append(UNFINISHED, self.text().into_bytes()).await?;
        Ok(files.seal(UNFINISHED, FILE).await?)
    }

    /// Fails if the folder belongs to another cluster.
    pub(crate) fn check(self, cluster: u64) -> Result<Self, Error> {
        if self.cluster == cluster {
            return Ok(self);
        }
        Err(Error::OtherCluster { expected: cluster, found: self.cluster })
    }

    fn text(self) -> String {
        let text = format!("gristmill-raft 1\nnode {:016x}\ncluster {:016x}\n", self.node, self.cluster);
        format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }
}

fn parse(bytes: &[u8]) -> Result<Identity, String> {
    let text = str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let mut lines = text.lines();
    let mut value = |name: &str| {
        let line = lines.next().unwrap_or_default();
        line.strip_prefix(name).map(str::trim_start).ok_or_else(|| format!("{line:?} where {name} is expected"))
    };
    let hex = |value: &str| u64::from_str_radix(value, 16).map_err(|e| format!("{value:?}: {e}"));
    let version = value("gristmill-raft")?;
    let (node, cluster) = (hex(value("node")?)?, hex(value("cluster")?)?);
    let identity = Identity { node, cluster };
    if version != "1" {
        return Err(format!("format {version:?}; this release knows format 1"));
    }
    // The text is a function of the identity: anything else is not what was written.
    if text == identity.text() { Ok(identity) } else { Err("its checksum is wrong".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let identity = Identity { node: 0xdead_beef, cluster: 7 };
        let text = identity.text();
        assert_eq!(parse(text.as_bytes()), Ok(identity));
        for bit in 0..text.len() * 8 {
            let mut bad = text.clone().into_bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad).is_err(), "bit {bit}");
        }
    }
}
