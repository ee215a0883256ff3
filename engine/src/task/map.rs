//! A map task: ranges of the input into one scratch file with a segment for each part.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use super::input::TaskInput;
use super::plan::{Object, Range};
use super::relay::Relay;
use super::shelf::{SegmentEntry, Shelf};
use super::{Objects, Which};
use crate::app::{App, Shuffle};
use crate::data::commit::part_name;
use crate::data::digest::{Digest, Digester};
use crate::data::feed::Feed;
use crate::error::Error;
use crate::job::{Context, MAX_PARTS, Options};
use crate::local::{Held, Outputs, Run, check};
use crate::scratch::{self, Scratch};

/// What a map task is to do.
#[derive(Clone, Copy)]
pub struct MapTask<'t> {
    /// Which one it is.
    pub which: Which<'t>,
    /// All inputs of the job.
    pub inputs: &'t [Object],
    /// What of them the task is for.
    pub ranges: &'t [Range],
    /// Number of parts; 0 when what is mapped is the output.
    pub parts: u32,
    /// What the survey of a sorting job found; of no meaning otherwise.
    pub splitters: &'t [Vec<u8>],
    /// The scratch file to make.
    pub file: &'t str,
}

/// Bad records that a map task met. If they are more than the job may pass over, it has one more than that, the first of
/// them in the order of the input, the task's segments are not whole, and the job is to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecords {
    /// How many.
    pub records: u64,
    /// The scratch file that holds them, a line of JSON each.
    pub file: String,
    /// Its bytes.
    pub bytes: u64,
    /// Digest of those.
    pub digest: Digest,
}

/// What came of a map task.
#[derive(Clone, Debug)]
pub struct MapOutput {
    /// The segment of each part in the task's file.
    pub segments: Vec<SegmentEntry>,
    /// Digest of all that the task leaves: segments and bad records. The same whenever and wherever the task is run, so
    /// long as the app's `combine` absorbs values in the same places however they are cut: as one does that compares
    /// neighbours, but not one that counts them. Where it differs, reducers begin anew.
    pub digest: Digest,
    /// Digest of the task's file alone.
    pub file_digest: Digest,
    /// The app's counters.
    pub counters: BTreeMap<String, u64>,
    /// Pairs emitted.
    pub emitted: u64,
    /// Bytes mapped, after decompression.
    pub input_bytes: u64,
    /// Bad records, if there were any.
    pub bad: Option<BadRecords>,
    /// Runs spilled to scratch on the way.
    pub spilled_runs: u64,
    /// Bytes of those runs.
    pub spilled_bytes: u64,
}

pub(crate) fn map<A: App>(
    app: &A,
    task: MapTask<'_>,
    objects: &dyn Objects,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<MapOutput, Error> {
    check_task(app, task, options)?;
    let format = options.format.unwrap_or(app.format());
    let held = Held::new::<A>(task.ranges.iter().map(|r| r.end - r.start).sum(), options);
    let cutting = (format, options.chunk, options.isa);
    let input = TaskInput::new((objects, task.inputs), task.ranges, cutting, held)?;
    map_feed(app, task, &input, scratch, options, context)
}

/// As [`map`], of whatever input.
pub(crate) fn map_feed<A: App>(
    app: &A,
    task: MapTask<'_>,
    input: &dyn Feed,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<MapOutput, Error> {
    let made = map_into(app, task, input, scratch, options, context);
    if made.is_err() {
        // The task has failed already; what cannot be removed goes with the job.
        let _ = scratch.remove(task.file);
        let _ = scratch.remove(&bad_file(task.file));
    }
    made
}

fn map_into<A: App>(
    app: &A,
    task: MapTask<'_>,
    input: &dyn Feed,
    scratch: &Arc<dyn Scratch>,
    options: &Options,
    context: &Context<'_>,
) -> Result<MapOutput, Error> {
    let shelf = Shelf::create(scratch.clone(), task.file, task.parts)?;
    let parts = (0..task.parts as usize).map(|part| shelf.part(part)).collect();
    let name = |part| format!("{} of {}", part_name(part, None), scratch.place(task.file).display());
    let mut outputs = Outputs::of_task(parts, (0..task.parts as usize).map(name).collect());
    let run = Run::new(Relay::of(app), options, context, input, task.parts, scratch.clone());
    let run = run.divided_by(task.splitters).of_task();
    run.run(&outputs)?;
    let summaries = outputs.finish(false)?;
    let (segments, segments_digest) = shelf.finish()?;
    let report = run.report(summaries);
    let bad = write_bad(task.file, &run.bad_records()?, report.bad_records, &**scratch)?;
    let mut all = Digester::default();
    all.update(&segments_digest.0);
    // The borders of segments are part of what they are.
    segments.iter().for_each(|s| all.update(&s.len.to_le_bytes()));
    bad.iter().for_each(|bad| all.update(&bad.digest.0));
    Ok(MapOutput {
        segments,
        digest: all.finish(),
        file_digest: segments_digest,
        // Apps only count up.
        counters: report.counters.into_iter().map(|(name, n)| (name, n.unsigned_abs())).collect(),
        emitted: report.emitted,
        input_bytes: report.input_bytes,
        bad,
        spilled_runs: report.spilled_runs,
        spilled_bytes: report.spilled_bytes,
    })
}

fn check_task<A: App>(app: &A, task: MapTask<'_>, options: &Options) -> Result<(), Error> {
    check(app, options)?;
    let MapTask { parts, splitters, .. } = task;
    if parts == 0 || parts > MAX_PARTS || (app.top().is_some() && parts > 1) {
        return Err(Error::Usage(format!("a job of {parts} parts cannot be mapped; it has 1 to {MAX_PARTS}")));
    }
    if A::SHUFFLE == Shuffle::Sort && (splitters.len() + 1 != parts as usize || !splitters.is_sorted()) {
        let n = splitters.len();
        return Err(Error::Usage(format!("{n} keys, or unsorted ones, do not divide a job into {parts} parts")));
    }
    Ok(())
}

fn bad_file(file: &str) -> String {
    format!("{file}.bad")
}

fn write_bad(file: &str, lines: &[u8], records: u64, scratch: &dyn Scratch) -> Result<Option<BadRecords>, Error> {
    if lines.is_empty() {
        return Ok(None);
    }
    let name = bad_file(file);
    let mut writer = scratch.create(&name)?;
    let written = writer.write_all(lines).and_then(|()| writer.flush());
    written.map_err(scratch::Error::at("write", scratch.place(&name)))?;
    Ok(Some(BadRecords { records, file: name, bytes: lines.len() as u64, digest: Digest::of(lines) }))
}
