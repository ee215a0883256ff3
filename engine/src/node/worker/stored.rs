//! What a job of phase "map" left, as a reducer of phase "reduce" reads it: each segment is a range of an object that the plan
//! names, checked by the digest that its map gave.

use std::sync::atomic::Ordering::Relaxed;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::failure::Cause;

use super::attempt::{failure, of_scratch, of_store};
use super::board::Controls;
use super::{Inner, paths};
use crate::data::digest::{Digest, Digester};
use crate::node::env::Env;
use crate::node::objects;
use crate::node::spool::Spool;
use crate::scratch::Slice;
use crate::store::{Name, READ, Store as _};
use crate::task::{Segment, SegmentBytes};

/// The share of a reducer's work that is fetching segments, in parts in a million.
const FETCHED_PPM: u64 = 400_000;

impl<E: Env> Inner<E> {
    /// All segments of a part, in the order of the maps, in one file of scratch.
    pub(super) async fn gather_stored(
        &self,
        task: &wire::Task,
        plan: &wire::PlanFile,
        controls: &Controls,
    ) -> Result<Vec<Segment>, wire::Failure> {
        let mut spool =
            Spool::create(&self.env, format!("{}stored", paths::attempt(task))).await.map_err(of_scratch)?;
        let mut places = Vec::new();
        for (map, stored) in plan.segments.iter().enumerate() {
            let slot = stored.slots.get(task.partition as usize);
            let slot = slot.ok_or_else(|| failure(Cause::Worker, "a plan with too few segments"))?;
            let name = format!("segment {} of map {map} in {} at byte {}", task.partition, stored.name, slot.offset);
            let at = spool.len();
            let digest = self.read_stored(&stored.name, slot, &mut spool).await?;
            if slot.digest != digest.0[..] {
                // It will not be another one next time.
                return Err(failure(Cause::InputChanged, format!("{name} is damaged; map again")));
            }
            places.push((name, digest, at, slot.length));
            let done = (map as u64 + 1) * FETCHED_PPM / plan.segments.len() as u64;
            controls.progress.fetch_max(done as u32, Relaxed);
        }
        let mapping = spool.map(&self.env).await.map_err(of_scratch)?;
        let segment = |(name, digest, at, length)| {
            let bytes = SegmentBytes::Mapped(Slice::new(mapping.clone(), at, length)?);
            Some(Segment { name, bytes, digest: Some(digest) })
        };
        let segments = places.into_iter().map(segment).collect::<Option<Vec<_>>>();
        let segments = segments.ok_or_else(|| failure(Cause::Worker, "scratch lost a part of what was written"))?;
        controls.fetched.store(true, Relaxed);
        self.news.raise();
        Ok(segments)
    }

    /// Appends a segment to a file; its digest.
    async fn read_stored(&self, name: &str, slot: &wire::SegmentSlot, to: &mut Spool) -> Result<Digest, wire::Failure> {
        let name = &Name::new(name).map_err(of_store)?;
        let mut digester = Digester::default();
        let (mut from, end) = (slot.offset, slot.offset.saturating_add(slot.length));
        while from < end {
            let range = from..end.min(from + READ);
            let bytes = objects::patiently::<E::Rt, _, _>(|| self.env.store().get(name, range.clone())).await;
            let bytes = bytes.map_err(of_store)?;
            if bytes.is_empty() {
                return Err(failure(
                    Cause::InputChanged,
                    format!("{name} ends at byte {from}, before {end}; map again"),
                ));
            }
            from += bytes.len() as u64;
            digester.update(&bytes);
            to.write(&self.env, bytes.into()).await.map_err(of_scratch)?;
        }
        Ok(digester.finish())
    }
}
