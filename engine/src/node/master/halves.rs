//! Halves of jobs: what a job of phase "map" leaves for one of phase "reduce", and the plan of that one.
//!
//! The output of the first half is a folder like any other, whose parts are files of segments, one of each map task; beside
//! them lies an index that says where each segment is, and what the job was.

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::job_error::Reason;
use prost::Message as _;

use super::errands::{later, never};
use super::{Inner, MasterEnv};
use crate::control::commit::Publication;
use crate::control::job::Job;
use crate::control::master::Setback;
use crate::data::commit::{Manifest, SUCCESS};
use crate::node::objects;
use crate::store::{Kind, Name};

/// Name of the index in an output of segments.
const INDEX: &str = "_segments";
/// Segments of such an output: what an index is made of.
pub(super) const MOST_SEGMENTS: u64 = 4 << 20;

/// Name of the file of segments that map `n` left.
pub(super) fn segments_name(n: usize) -> String {
    format!("segments-{n:05}")
}

impl<E: MasterEnv> Inner<E> {
    /// The index that goes with segments that are published.
    pub(super) async fn index_of(&self, publication: &Publication) -> Result<(String, Vec<u8>), Setback> {
        let state = self.state();
        let job = state.job(publication.job).ok_or_else(|| Setback::Later("the job is not known here".into()))?;
        let digest = job.plan.as_ref().map(|plan| plan.plan.clone()).unwrap_or_default();
        let plan = self.plan_file(job).await?;
        let mut index = wire::StoredHalf { spec: Some((*job.spec).clone()), plan: digest, ..Default::default() };
        index.inputs = plan.objects.into_iter().map(|object| object.name).collect();
        index.reduces = plan.reduces;
        for object in &publication.objects {
            let bytes = objects::whole(&self.env, &format!("{}.index", object.from)).await.map_err(later)?;
            let of_map = wire::SegmentIndex::decode(&bytes[..]).map_err(|e| Setback::Later(e.to_string()))?;
            index.maps.push(of_map);
        }
        Ok((INDEX.into(), index.encode_to_vec()))
    }

    /// The plan of a job that reduces what another one mapped.
    pub(super) async fn plan_half(&self, job: &Job) -> Result<wire::PlanFile, Setback> {
        let folder = job.spec.inputs.first().map(|input| input.trim_end_matches('/')).unwrap_or_default();
        let input = |why: String| never(Reason::Input, why, "name the output of a job of phase map");
        let folder = Name::new(folder).map_err(|e| input(e.to_string()))?;
        let none = || input(format!("{folder} is not an output (it has no {SUCCESS})"));
        let success = folder.join(SUCCESS).map_err(|e| input(e.to_string()))?;
        let success = objects::whole(&self.env, success.as_str()).await;
        let success = success.map_err(|e| if e.kind == Kind::NotFound { none() } else { later(e) })?;
        let manifest = Manifest::from_bytes(&success).map_err(|e| input(format!("{folder}/{SUCCESS}: {e}")))?;
        if !manifest.segments {
            return Err(input(format!("{folder} is the output of a whole job, not the segments of one of phase map")));
        }
        let index = folder.join(INDEX).map_err(|e| input(e.to_string()))?;
        let index = objects::whole(&self.env, index.as_str()).await.map_err(later)?;
        let index = wire::StoredHalf::decode(&index[..]).map_err(|e| input(format!("{folder}/{INDEX}: {e}")))?;
        self.same_job(job, &folder, &index)?;
        let mut plan = wire::PlanFile { reduces: index.reduces, ..wire::PlanFile::default() };
        plan.objects.extend(index.inputs.into_iter().map(|name| wire::PlannedObject { name, ..Default::default() }));
        for (part, of_map) in manifest.parts.iter().zip(index.maps) {
            let name = folder.join(&part.name).map_err(|e| input(e.to_string()))?;
            plan.segments.push(wire::StoredSegments { name: name.as_str().into(), slots: of_map.slots });
        }
        if plan.segments.len() != manifest.parts.len() {
            return Err(input(format!("{folder}/{INDEX} and {SUCCESS} are not of the same job")));
        }
        Ok(plan)
    }

    /// Segments hold what one app with its flags made, cut as the first half was told.
    fn same_job(&self, job: &Job, folder: &Name, index: &wire::StoredHalf) -> Result<(), Setback> {
        let first = index.spec.clone().unwrap_or_default();
        let app = |spec: &gristmill_proto::v1::JobSpec| {
            let app = spec.app.clone().unwrap_or_default();
            [vec![app.name], app.arguments].concat().join(" ")
        };
        let refused = |why: String| {
            never(Reason::Arguments, why, "give the app, its flags and --input-format as to the job of phase map")
        };
        if app(&first) != app(&job.spec) {
            return Err(refused(format!("{folder} was mapped by {:?}, not by {:?}", app(&first), app(&job.spec))));
        }
        if first.format != job.spec.format {
            return Err(refused(format!(
                "{folder} was mapped with format {:?}, not {:?}",
                first.format, job.spec.format
            )));
        }
        if job.spec.reducers != 0 && job.spec.reducers != index.reduces {
            let text = format!("{folder} is divided into {} parts, not {}", index.reduces, job.spec.reducers);
            return Err(never(Reason::Arguments, text, "leave --reducers out, or map again"));
        }
        Ok(())
    }
}
