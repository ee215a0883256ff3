//! Objects of more bytes than one request should carry: they go up in parts, a few at a time, and are seen when all are
//! there and nothing has their name.
//!
//! S3 completes an upload on that condition. Azure and Google do not, but copy on it: there the parts make an object of a
//! name that nobody else has, which is copied into place and deleted. What a process leaves that is killed in between is
//! never listed; a rule of the bucket should delete it after a day (`docs/stores.md`).

use bytes::Bytes;
use gristmill_engine::store::{Error, Kind, Name};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt as _, PutPayload};
use tokio::task::JoinSet;

use super::failure;
use super::objects::{Client, Objects, STAGED};
use super::signed::Signed;

/// Parts that are sent at a time.
const AT_ONCE: usize = 4;
/// Parts that an upload may have; the stores' own limits are 10,000 and more.
const MOST_PARTS: u64 = 9_000;

impl Objects {
    /// Puts a large object where there is none.
    pub(super) async fn put_in_parts(&self, name: &Name, bytes: Bytes) -> Result<(), Error> {
        let key = self.key(name)?;
        if let Client::S3(client) = &self.0.client {
            let signed = Signed::new(client, &self.0, "put", name);
            return self.upload(&key, name, &bytes, async |id, parts| signed.complete(&key, id, parts).await).await;
        }
        let staged = self.raw_key(&format!("{STAGED}{:032x}", rand::random::<u128>()))?;
        let complete = async |id: &MultipartId, parts| {
            let done = self.0.client.parts().complete_multipart(&staged, id, parts).await;
            let Err(e) = done else { return Ok(()) };
            // Nobody else has that name: if it is there, an earlier try completed it.
            let there = self.0.client.objects().head(&staged).await;
            match there.is_ok_and(|there| there.size == bytes.len() as u64) {
                true => Ok(()),
                false => Err(failure::of("put", name, &e)),
            }
        };
        let mut done = self.upload(&staged, name, &bytes, complete).await;
        if done.is_ok() {
            done = self.copy_within(&staged, &key).await;
        }
        // It may be there although nobody heard of it. If it stays it does no harm.
        let _ = self.remove(&staged).await;
        done
    }

    /// Sends all parts and completes the upload, or gives it up.
    async fn upload(
        &self,
        key: &Path,
        name: &Name,
        bytes: &Bytes,
        complete: impl AsyncFnOnce(&MultipartId, Vec<PartId>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let created = self.0.client.parts().create_multipart(key).await;
        let id = created.map_err(|e| failure::of("put", name, &e))?;
        let done = match self.send(key, &id, bytes).await {
            Ok(parts) => complete(&id, parts).await,
            Err(e) => Err(failure::of("put", name, &e)),
        };
        if done.is_err() {
            // Parts cost money until they are gone. Whoever cannot do it now leaves it to the bucket's rule.
            let _ = self.0.client.parts().abort_multipart(key, &id).await;
        }
        done
    }

    async fn send(&self, key: &Path, id: &MultipartId, bytes: &Bytes) -> Result<Vec<PartId>, object_store::Error> {
        let len = bytes.len() as u64;
        let size = self.0.limits.part.max(len.div_ceil(MOST_PARTS)) as usize;
        let mut ranges = (0..bytes.len().div_ceil(size)).map(|n| (n, n * size..bytes.len().min((n + 1) * size)));
        let mut sent: Vec<Option<PartId>> = vec![None; ranges.len()];
        let mut sending = JoinSet::new();
        loop {
            while sending.len() < AT_ONCE
                && let Some((n, range)) = ranges.next()
            {
                let (store, key, id, part) = (self.clone(), key.clone(), id.clone(), bytes.slice(range));
                sending.spawn(async move {
                    let sent = store.0.client.parts().put_part(&key, &id, n, PutPayload::from(part)).await;
                    sent.map(|part| (n, part))
                });
            }
            let Some(done) = sending.join_next().await else { break };
            let (n, part) = done??;
            sent[n] = Some(part);
        }
        Ok(sent.into_iter().flatten().collect())
    }
}

/// What was there already.
pub(super) fn exists(e: Error, action: &str, what: &str) -> Error {
    match e.kind {
        Kind::Changed => Error::new(Kind::AlreadyExists, format!("cannot {action} {what}: it exists already")),
        _ => e,
    }
}
