//! One task of a cluster's job, on whichever worker runs it: the data plane of [`local`](crate::job::Job::run), cut into
//! pieces that meet only through objects, scratch and digests.
//!
//! [`plan`] divides a listing of objects into map tasks. `survey` looks where the parts of a sorting job begin. `map`
//! makes one scratch file of a map task, with a segment for each part, and `reduce` one part of the segments of all map
//! tasks. [`publish`] makes parts that were decided on visible. A map task is a local job whose reduce hands its pairs on
//! (`relay`) into segments (`shelf`) instead of parts; a reduce task is the last stretch of a local job that spilled.
//!
//! Which worker runs what, and when, is left to `control`; moving segments from worker to worker, to `node`. Nothing
//! here reads a clock, and threads are those of [`Exec`](crate::exec::Exec).

mod input;
mod map;
pub mod plan;
pub mod publish;
mod reduce;
mod relay;
mod shelf;
mod survey;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

pub use map::{BadRecords, MapOutput, MapTask};
pub use plan::{Object, Range, TaskPlan};
pub use reduce::{PartOutput, ReduceTask, Segment, SegmentBytes};
pub use shelf::SegmentEntry;

pub(crate) use input::TaskInput;
pub(crate) use map::{map, map_feed};
pub(crate) use reduce::{PartFile, merge, reduce};
pub(crate) use survey::survey;

use crate::data::commit::{Manifest, PartEntry};
use crate::error::Error;
use crate::scratch::Mapping;

/// Which task of which job: for user code that wants to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Which<'t> {
    /// The job, as people call it.
    pub job: &'t str,
    /// Number of the map task or of the part.
    pub number: u32,
    /// Number of this attempt among those at the task.
    pub attempt: u32,
    /// Map tasks of the job.
    pub maps: u32,
    /// Parts that are reduced; 0 when the job only maps.
    pub reduces: u32,
    /// Keep what a failed attempt was given, with the command that does it again: for people who look for the cause.
    pub keep: bool,
}

/// The objects of a job's listing, by their numbers in it, as a worker has them.
pub trait Objects: Sync {
    /// The bytes of a whole object.
    ///
    /// # Errors
    /// When they cannot be had.
    fn map(&self, number: u32) -> io::Result<Arc<dyn Mapping>>;

    /// Reads some bytes of an object from `offset` on, none at its end: for looking here and there at objects that need
    /// not be fetched for it.
    ///
    /// # Errors
    /// When they cannot be had.
    fn read_at(&self, number: u32, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mapping = self.map(number)?;
        let bytes = mapping.bytes();
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        if mapping.is_intact() { Ok(n) } else { Err(io::Error::other("it shrank while it was read")) }
    }
}

/// The bytes of `_SUCCESS`, as a local job would write them but for the job's id.
///
/// # Errors
/// None that is known; encoding may fail in theory.
pub fn manifest(
    app: &str,
    job: &str,
    parts: Vec<PartEntry>,
    counters: BTreeMap<String, u64>,
    bad_records: u64,
) -> Result<Vec<u8>, Error> {
    let counters = crate::data::commit::totals(counters);
    let manifest = Manifest { job: Some(job.into()), ..Manifest::new(app, parts, counters, bad_records) };
    manifest.to_bytes().map_err(Error::write("write", crate::data::commit::SUCCESS))
}

/// The error with which a job ends that may pass over so many bad records, by those of all map tasks in the order of the
/// tasks; `None` if they are no more. It is that of a local run.
pub fn too_many_bad_records<'t>(tasks: impl IntoIterator<Item = &'t [u8]>, allowed: u64) -> Option<Error> {
    let mut left = usize::try_from(allowed).unwrap_or(usize::MAX);
    for lines in tasks {
        if let Some(error) = crate::local::bad_record_error(lines, left) {
            return Some(error);
        }
        left -= lines.iter().filter(|byte| **byte == b'\n').count().min(left);
    }
    None
}

/// The file of bad records in an output: those of all map tasks, in the order of the tasks; `None` if there are none.
pub fn bad_records<'t>(tasks: impl IntoIterator<Item = &'t [u8]>) -> Option<(String, Vec<u8>)> {
    let all: Vec<u8> = tasks.into_iter().flatten().copied().collect();
    (!all.is_empty()).then(|| (crate::local::BAD_RECORDS.into(), all))
}
