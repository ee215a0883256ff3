//! The apps of jobs that run here, each made once for all of its tasks, and the files that apps bring: brought here once for
//! all jobs, by the digest under which the store has them, and checked by it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use gristmill_proto::internal::v1::Failure;
use gristmill_proto::internal::v1::failure::Cause;
use gristmill_proto::v1::{App, AppFile};
use sha2::{Digest as _, Sha256};

use super::attempt::{failure, of_scratch, of_store, panicked};
use super::{Inner, paths};
use crate::control::commit;
use crate::job::Job;
use crate::node::env::Env;
use crate::node::{objects, spool};
use crate::registry::Files;
use crate::store::{Error, Kind};

/// The apps of jobs by the jobs' numbers.
pub(super) type Jobs = BTreeMap<u64, Arc<dyn Job>>;

/// Digests of files that are here, whole.
pub(super) type Here = BTreeSet<[u8; 32]>;

impl<E: Env> Inner<E> {
    /// The app of a job.
    pub(super) async fn job(&self, id: u64, app: App) -> Result<Arc<dyn Job>, Failure> {
        if let Some(job) = self.jobs().get(&id) {
            return Ok(job.clone());
        }
        let mut copies = BTreeMap::new();
        for file in &app.files {
            copies.insert(file.path.clone(), self.file(file).await?);
        }
        let env = self.env.clone();
        let made = self.env.blocking(move || env.apps().job(&app.name, &app.arguments, Files::Copies(&copies)));
        let made = made.await.ok_or_else(panicked)?.map_err(|e| failure(Cause::App, e))?;
        // Not once the job was dropped: nobody would come to remove it.
        if !self.board().has_job(id) {
            return Ok(made.into());
        }
        // Another attempt may have been quicker: all are to share one.
        Ok(self.jobs().entry(id).or_insert_with(|| made.into()).clone())
    }

    /// Forgets jobs. What their code left is removed, which takes a while.
    pub(super) fn forget_jobs(&self, gone: impl Fn(u64) -> bool) {
        let mut jobs = self.jobs();
        let (keep, useless) = std::mem::take(&mut *jobs).into_iter().partition(|(id, _)| !gone(*id));
        *jobs = keep;
        drop(jobs);
        let useless: Jobs = useless;
        if !useless.is_empty() {
            drop(self.env.blocking(move || drop(useless)));
        }
    }

    /// Where a file of an app is on this machine.
    async fn file(&self, file: &AppFile) -> Result<PathBuf, Failure> {
        let digest = <[u8; 32]>::try_from(&file.digest[..]);
        let digest = digest.map_err(|_| failure(Cause::App, format!("{} has no digest", file.path)))?;
        let stored = commit::app_file(&digest);
        let name = format!("{}{}", paths::APPS, stored.rsplit('/').next().unwrap_or_default());
        // One after the other: whoever wants the same waits for it.
        let mut here = self.files.lock().await;
        if !here.contains(&digest) {
            let bytes = objects::whole(&self.env, &stored).await.map_err(|e| match e.kind {
                Kind::NotFound => {
                    let gone = format!("{} of the app is not in the store any more; submit the job again", file.path);
                    failure(Cause::App, gone)
                }
                _ => of_store(e),
            })?;
            let checked = self.env.blocking(move || (<[u8; 32]>::from(Sha256::digest(&bytes)), bytes)).await;
            let (found, bytes) = checked.ok_or_else(panicked)?;
            if found != digest {
                return Err(of_store(Error::new(Kind::Corrupt, format!("{stored} is not what its name says"))));
            }
            spool::write(&self.env, name.clone(), bytes).await.map_err(of_scratch)?;
            here.insert(digest);
        }
        Ok(self.env.scratch().place(&name))
    }
}
