//! The apps of jobs that run here, each made once for all of its tasks, and the files that apps bring: brought here once for
//! all jobs, by the digest under which the store has them, and checked by it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use gristmill_proto::internal::v1::Failure;
use gristmill_proto::internal::v1::failure::Cause;
use gristmill_proto::v1::{App, AppFile};
use sha2::{Digest as _, Sha256};

use super::attempt::{failure, of_scratch, of_store, panicked};
use super::{Inner, paths};
use crate::control::commit;
use crate::data::output::lock;
use crate::job::Job;
use crate::node::env::Env;
use crate::node::{objects, spool};
use crate::registry;
use crate::store::{Error, Kind};

/// Bytes of files that stay here though no job needs them any more: they may be wanted again.
const KEPT: u64 = 4 << 30;

/// The apps of jobs by the jobs' numbers, with the files that they need.
pub(super) type Jobs = BTreeMap<u64, (Arc<dyn Job>, Needed)>;

type Digest = [u8; 32];

/// The files that are here, whole.
#[derive(Default)]
pub(super) struct Files {
    /// Their bytes, and when each was last asked for.
    here: BTreeMap<Digest, (u64, u64)>,
    /// How often was asked.
    asked: u64,
    /// How many apps need one that are made or have tasks here.
    needed: BTreeMap<Digest, usize>,
}

impl Files {
    /// Whether one is here.
    fn has(&mut self, digest: &Digest) -> bool {
        self.asked += 1;
        self.here.get_mut(digest).map(|(_, last)| *last = self.asked).is_some()
    }

    fn add(&mut self, digest: Digest, bytes: u64) {
        self.here.insert(digest, (bytes, self.asked));
    }

    /// Nothing is here any more.
    pub(super) fn forget(&mut self) {
        self.here.clear();
    }

    /// Forgets files that no app needs until there are no more bytes than `most`, those first that nobody asked for in the
    /// longest time, and says which.
    fn shrink(&mut self, most: u64) -> Vec<Digest> {
        let mut bytes: u64 = self.here.values().map(|(bytes, _)| bytes).sum();
        let idle = |(digest, _): &(&Digest, &(u64, u64))| !self.needed.contains_key(*digest);
        let mut idle: Vec<_> =
            self.here.iter().filter(idle).map(|(digest, (len, last))| (*last, *digest, *len)).collect();
        idle.sort_unstable();
        let mut gone = Vec::new();
        for (_, digest, len) in idle {
            if bytes <= most {
                break;
            }
            bytes -= len;
            self.here.remove(&digest);
            gone.push(digest);
        }
        gone
    }
}

/// What an app needs, which stays here for as long.
pub(super) struct Needed(Arc<Mutex<Files>>, Vec<Digest>);

impl Needed {
    fn new(files: &Arc<Mutex<Files>>, digests: Vec<Digest>) -> Self {
        let mut all = lock(files);
        digests.iter().for_each(|digest| *all.needed.entry(*digest).or_default() += 1);
        Self(files.clone(), digests)
    }
}

impl Drop for Needed {
    fn drop(&mut self) {
        let mut all = lock(&self.0);
        for digest in &self.1 {
            if let Entry::Occupied(mut count) = all.needed.entry(*digest) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

impl<E: Env> Inner<E> {
    /// The app of a job.
    pub(super) async fn job(&self, id: u64, app: App) -> Result<Arc<dyn Job>, Failure> {
        if let Some((job, _)) = self.jobs().get(&id) {
            return Ok(job.clone());
        }
        let digest = |file: &AppFile| {
            Digest::try_from(&file.digest[..]).map_err(|_| failure(Cause::App, format!("{} has no digest", file.path)))
        };
        let digests = app.files.iter().map(digest).collect::<Result<Vec<_>, _>>()?;
        let needed = Needed::new(&self.files, digests.clone());
        let mut copies = BTreeMap::new();
        for (file, digest) in app.files.iter().zip(digests) {
            copies.insert(file.path.clone(), self.file(&file.path, digest).await?);
        }
        let env = self.env.clone();
        let made =
            self.env.blocking(move || env.apps().job(&app.name, &app.arguments, registry::Files::Copies(&copies)));
        let made = made.await.ok_or_else(panicked)?.map_err(|e| failure(Cause::App, e))?;
        // Not once the job was dropped: nobody would come to remove it.
        if !self.board().has_job(id) {
            return Ok(made.into());
        }
        // Another attempt may have been quicker: all are to share one.
        Ok(self.jobs().entry(id).or_insert_with(|| (made.into(), needed)).0.clone())
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
    async fn file(&self, path: &str, digest: Digest) -> Result<PathBuf, Failure> {
        let (stored, name) = (commit::app_file(&digest), format!("{}{}", paths::APPS, commit::hex(&digest)));
        if self.files().has(&digest) {
            return Ok(self.env.scratch().place(&name));
        }
        let _fetching = self.fetching.lock().await;
        if !self.files().has(&digest) {
            let bytes = objects::whole(&self.env, &stored).await.map_err(|e| match e.kind {
                Kind::NotFound => {
                    let gone = format!("{path} of the app is not in the store any more; submit the job again");
                    failure(Cause::App, gone)
                }
                _ => of_store(e),
            })?;
            let checked = self.env.blocking(move || (Digest::from(Sha256::digest(&bytes)), bytes)).await;
            let (found, bytes) = checked.ok_or_else(panicked)?;
            if found != digest {
                return Err(of_store(Error::new(Kind::Corrupt, format!("{stored} is not what its name says"))));
            }
            let len = bytes.len() as u64;
            spool::write(&self.env, name.clone(), bytes).await.map_err(of_scratch)?;
            let gone = {
                let mut files = self.files();
                files.add(digest, len);
                files.shrink(KEPT)
            };
            for digest in gone {
                self.remove(format!("{}{}", paths::APPS, commit::hex(&digest))).await;
            }
        }
        Ok(self.env.scratch().place(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_nobody_needs_nor_asked_for_lately_go_first() {
        let files = Arc::new(Mutex::new(Files::default()));
        for n in 0..5 {
            assert!(!lock(&files).has(&[n; 32]));
            lock(&files).add([n; 32], 100);
        }
        assert!(lock(&files).has(&[0; 32]));
        let needed = [Needed::new(&files, vec![[1; 32]]), Needed::new(&files, vec![[1; 32], [2; 32]])];
        assert_eq!(lock(&files).shrink(300), [[3; 32], [4; 32]]);
        drop(needed);
        assert_eq!(lock(&files).shrink(100), [[1; 32], [2; 32]]);
        assert!(lock(&files).has(&[0; 32]) && !lock(&files).has(&[1; 32]));
        assert_eq!(lock(&files).shrink(100), <[Digest; 0]>::default());
    }
}
