//! Objects of the store as a node needs them: small ones whole, inputs mapped, files of scratch put there. What may go
//! well another time is tried again here, a bounded number of times.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_raft::runtime::AsyncRuntime;
use prost::Message;

use super::cache::Cache;
use super::env::Env;
use crate::control::ids::{self, Digest};
use crate::scratch::{Mapping, map_file};
use crate::store::{self, Error, Kind, Name, Store};
use crate::task::Objects;

/// How often something is tried that may go well another time, and the pause after the first try; doubled each time.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// The most bytes of an object that is read whole into memory: a plan of 100,000 tasks has about 20 MiB.
const MOST_WHOLE: u64 = 256 << 20;

/// Does something with a store until it goes well, fails for good, or was tried five times, with pauses of 0.1 to 0.8 seconds.
///
/// # Errors
/// That of the last try.
pub async fn patiently<Rt, T, F>(mut what: impl FnMut() -> F) -> Result<T, Error>
where
    Rt: AsyncRuntime,
    F: Future<Output = Result<T, Error>>,
{
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match what().await {
            Err(e) if e.kind == Kind::Retryable => Rt::sleep(pause).await,
            done => return done,
        }
        pause *= 2;
    }
    what().await
}

/// A whole object.
pub(crate) async fn whole<E: Env>(env: &E, name: &str) -> Result<Vec<u8>, Error> {
    let name = &Name::new(name)?;
    patiently::<E::Rt, _, _>(|| async move {
        let mut all = Vec::new();
        store::read(env.store(), name, |piece| {
            all.extend_from_slice(piece);
            match all.len() as u64 > MOST_WHOLE {
                true => Err(Error::new(Kind::Corrupt, format!("{name} has more than {MOST_WHOLE} bytes"))),
                false => Ok(()),
            }
        })
        .await?;
        Ok(all)
    })
    .await
}

/// Puts an object that nobody else writes: that it is there already means that an earlier try went well.
pub(crate) async fn put<E: Env>(env: &E, name: &str, bytes: Arc<dyn Mapping>) -> Result<(), Error> {
    let name = &Name::new(name)?;
    let bytes = &bytes;
    let done = patiently::<E::Rt, _, _>(|| env.store().put(name, bytes.clone())).await;
    done.or_else(|e| if e.kind == Kind::AlreadyExists { Ok(()) } else { Err(e) })
}

/// A message that was put under its digest.
pub(crate) async fn message<E: Env, M: Message + Default>(env: &E, name: &str, digest: &Digest) -> Result<M, Error> {
    let bytes = whole(env, name).await?;
    if ids::digest(&[&bytes]) != *digest {
        return Err(Error::new(Kind::Corrupt, format!("{name} is not what was written")));
    }
    M::decode(&bytes[..]).map_err(|e| Error::new(Kind::Corrupt, format!("{name}: {e}")))
}

/// The inputs of a job on a worker.
pub(crate) struct Inputs {
    places: BTreeMap<u32, Place>,
    planned: Vec<wire::PlannedObject>,
}

enum Place {
    File(PathBuf),
    Fetched(Arc<dyn Mapping>),
}

impl Inputs {
    /// Makes these objects of the plan available: where they lie if that is on this machine, else by the cache of those
    /// that were fetched.
    pub(crate) async fn get<E: Env>(
        env: &E,
        cache: &Cache<E::Rt>,
        plan: &wire::PlanFile,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Result<Self, Error> {
        let (mut places, mut planned) = (BTreeMap::new(), Vec::new());
        for number in numbers {
            let Some(object) = plan.objects.get(number as usize) else { continue };
            if places.contains_key(&number) {
                continue;
            }
            let name = &Name::new(object.name.as_str())?;
            let place = match env.store().local_path(name) {
                Some(path) => {
                    unchanged(env, name, object).await?;
                    Place::File(path)
                }
                None => Place::Fetched(cache.get(env, name, object).await?),
            };
            places.insert(number, place);
            planned.push(object.clone());
        }
        Ok(Self { places, planned })
    }

    /// The objects of a job, as it was planned with.
    pub(crate) fn planned(&self) -> Vec<wire::PlannedObject> {
        self.planned.clone()
    }
}

/// Fails if one of these objects is not what it was when the job was planned. To be asked again once all was read: what is
/// written to meanwhile would be a mixture.
pub(crate) async fn all_unchanged<E: Env>(env: &E, planned: &[wire::PlannedObject]) -> Result<(), Error> {
    for object in planned {
        unchanged(env, &Name::new(object.name.as_str())?, object).await?;
    }
    Ok(())
}

pub(crate) async fn unchanged<E: Env>(env: &E, name: &Name, object: &wire::PlannedObject) -> Result<(), Error> {
    let now = patiently::<E::Rt, _, _>(|| env.store().head(name)).await.map_err(|e| match e.kind {
        Kind::NotFound => Error::new(Kind::Changed, format!("{name} is gone since the job was planned")),
        _ => e,
    })?;
    match now.version.0 == object.version && now.len == object.size {
        true => Ok(()),
        false => Err(changed(name)),
    }
}

pub(crate) fn changed(name: &Name) -> Error {
    let text = format!("{name} has changed since the job was planned; submit the job again when nothing writes to it");
    Error::new(Kind::Changed, text)
}

impl Objects for Inputs {
    fn map(&self, number: u32) -> io::Result<Arc<dyn Mapping>> {
        match self.places.get(&number) {
            Some(Place::File(path)) => map_file(path),
            Some(Place::Fetched(mapping)) => Ok(mapping.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
