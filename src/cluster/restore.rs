//! A master's folder that begins with a backup in the store.
//!
//! The backup is read and checked whole before anything is written. The log that is made then is a new cluster's, under an id of
//! its own, so that no master of the old one is taken for a member; what the cluster is called in names of jobs and in the store
//! is in the state, and stays. Until the folder is complete it says that it is not, and is made anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gristmill_engine::node::backup::{self, Beginning};
use gristmill_engine::node::env::{Env as _, Note};
use gristmill_raft::node;
use gristmill_raft::tokio::TokioRuntime;
use gristmill_raft::verify;

use super::folder::{self, Stage};
use super::world::World;

/// Why a folder was not made to begin with a backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, or it cannot be used.
    #[error(transparent)]
    Backup(#[from] backup::Error),
    /// The folder is a cluster's.
    #[error(
        "{} is of cluster {cluster:016x} already; --restore begins a new cluster: leave it out, or give it an empty folder",
        path.display()
    )]
    Taken {
        /// The folder.
        path: PathBuf,
        /// The cluster.
        cluster: u64,
    },
    /// The folder has a log and does not say whose.
    #[error("{} is there already; --restore begins with an empty folder", .0.display())]
    Log(PathBuf),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The log cannot be made.
    #[error(transparent)]
    Raft(#[from] gristmill_raft::Error),
}

/// Fills the folder `data` of a master at `here` from the backup that is wanted.
///
/// # Errors
/// Why it did not. The folder is as before, or says that it is not complete.
pub(super) async fn begin(data: &Path, wanted: &str, here: &str, world: &World) -> Result<(), Error> {
    let log = data.join("raft");
    let begun = match folder::cluster(data)? {
        None => false,
        Some((_, Stage::Restoring)) => true,
        Some((cluster, _)) => return Err(Error::Taken { path: data.into(), cluster }),
    };
    if !begun && !is_empty(&log).map_err(|source| folder::Error::Unusable { path: log.clone(), source })? {
        return Err(Error::Log(log));
    }
    let name = backup::find(world, wanted).await?;
    let loaded = backup::load(world, &name).await?;
    let mut told = format!("begins a new cluster with backup {name}, of {} commands", loaded.info.applied);
    let Beginning { state, term, index, ended } = backup::begin_anew(world, loaded).await?;
    if ended > 0 {
        told += &format!("; {ended} jobs had ended since");
    }

    let cluster = rand::random::<u64>().max(1);
    folder::belong(data, cluster, Stage::Restoring)?;
    // What an earlier call began, if there was one.
    folder::clear(&log)?;
    folder::make_private(&log)?;
    let disks = verify::open(&log)?;
    let beginning = node::Beginning { cluster, address: here.to_string(), term, index };
    let made = node::begin::<TokioRuntime, _, _>(&disks, &beginning, &mut state.snapshot()).await;
    release(disks).await;
    made?;
    folder::belong(data, cluster, Stage::Member)?;
    world.note(Note::Trouble { what: told });
    Ok(())
}

/// Lets go of a folder, so that a node can be started from it.
async fn release<K: gristmill_raft::disk::Kv, F: gristmill_raft::disk::Files>(disks: node::Disks<K, F>) {
    disks.kv.close().await;
    disks.files.close().await;
}

/// Whether nothing is in a folder, or there is none.
fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}
