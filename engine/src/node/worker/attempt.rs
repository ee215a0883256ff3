//! One attempt at a task: what it needs is brought here, the engine runs, what it made is put where others find it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::assignment::Kind;
use gristmill_proto::internal::v1::failure::Cause;
use gristmill_proto::v1::JobSpec;
use gristmill_raft::runtime::{AsyncRuntime as _, Select2};
use prost::Message as _;

use super::board::Controls;
use super::shuffle::Short;
use super::{Inner, paths};
use crate::control::commit;
use crate::control::limits::{COUNTERS, ERROR_BYTES, FETCHED_PPM};
use crate::data::output::lock;
use crate::error::Error;
use crate::job::{Context, Job, Observer, Options, Phase, SoFar};
use crate::node::env::Env;
use crate::node::objects::{self, Inputs};
use crate::node::point::Point;
use crate::node::{spec, spool};
use crate::scratch;
use crate::store;
use crate::task::{MapOutput, MapTask, PartOutput, Range, ReduceTask, Which};

pub(super) fn failure(cause: Cause, message: impl ToString) -> wire::Failure {
    let mut message = message.to_string();
    if message.len() > ERROR_BYTES {
        let end = (0..=ERROR_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    wire::Failure { cause: cause.into(), message, ..Default::default() }
}

/// Of the store: worth another try elsewhere, unless the inputs are not what was planned.
pub(super) fn of_store(e: store::Error) -> wire::Failure {
    let cause = if e.kind == store::Kind::Changed { Cause::InputChanged } else { Cause::Worker };
    failure(cause, e)
}

pub(super) fn of_scratch(e: scratch::Error) -> wire::Failure {
    failure(Cause::Worker, e)
}

fn of_engine(e: Error) -> wire::Failure {
    let cause = match &e {
        Error::BadRecord { name, offset, .. } => {
            let (input, offset) = (name.clone(), *offset);
            return wire::Failure { input, offset, ..failure(Cause::Record, &e) };
        }
        Error::Interrupted => Cause::Returned,
        Error::Scratch(_) | Error::Write { .. } | Error::Segment(_) | Error::Open { .. } => Cause::Worker,
        Error::Read { .. } => Cause::Worker,
        Error::Shrank { .. } => Cause::InputChanged,
        _ => Cause::App,
    };
    failure(cause, e)
}

/// What user code is told of which attempt it is: the number that the leader gave it, of all that it gave out in its term.
fn number_of(task: &wire::Task) -> u32 {
    task.attempt.map_or(0, |attempt| attempt.counter as u32)
}

fn counters(all: BTreeMap<String, u64>) -> Vec<wire::Counter> {
    all.into_iter().take(COUNTERS).map(|(name, value)| wire::Counter { name, value }).collect()
}

/// Turns what the engine tells into parts in a million of a share of the work.
struct Meter {
    log: Box<dyn Fn(&str) + Send + Sync>,
    progress: Arc<AtomicU32>,
    counters: Arc<Mutex<Vec<wire::Counter>>>,
    so_far: Mutex<SoFar>,
    /// Where this stretch of the work begins and ends.
    share: (u32, u32),
    total: AtomicU64,
    done: AtomicU64,
}

impl Meter {
    fn new<E: Env>(env: &E, controls: &Controls, share: (u32, u32)) -> Self {
        let (total, done, so_far) = Default::default();
        let (env, log) = (env.clone(), controls.log.clone());
        let log = Box::new(move |line: &str| log.say(env.wall_ms(), line));
        let (progress, counters) = (controls.progress.clone(), controls.counters.clone());
        Self { log, progress, counters, so_far, share, total, done }
    }
}

impl Observer for Meter {
    fn phase(&self, phase: Phase, total: u64) {
        // What a map sorts and writes at its end is little beside reading its input.
        if self.total.load(Relaxed) == 0 || phase == Phase::Map {
            self.total.store(total.max(1), Relaxed);
        }
    }

    fn advance(&self, n: u64) {
        let (total, (from, to)) = (self.total.load(Relaxed).max(1), self.share);
        let done = (self.done.fetch_add(n, Relaxed) + n).min(total);
        let ppm = u64::from(from) + u64::from(to - from) * done / total;
        self.progress.fetch_max(ppm as u32, Relaxed);
    }

    fn note(&self, message: &str) {
        (self.log)(message);
    }

    fn log(&self, _: &str, line: &str) {
        (self.log)(line);
    }

    fn so_far(&self, task: &str, counted: &BTreeMap<String, i64>, status: Option<&str>) {
        let mut so_far = lock(&self.so_far);
        let before = so_far.status.clone();
        // A map and what combines it are two.
        so_far.hear(task, counted, status);
        let up = so_far.counters().into_iter().filter_map(|(name, n)| Some((name, u64::try_from(n).ok()?)));
        *lock(&self.counters) = counters(up.collect());
        if let Some((_, status)) = so_far.status.as_ref().filter(|_| so_far.status != before) {
            (self.log)(&format!("status: {status}"));
        }
    }
}

impl<E: Env> Inner<E> {
    /// Runs one attempt to its end.
    pub(super) async fn perform(
        &self,
        assignment: &wire::Assignment,
        controls: &Controls,
    ) -> Result<wire::Done, wire::Failure> {
        let (Some(task), Some(kind)) = (&assignment.task, &assignment.kind) else {
            return Err(failure(Cause::Worker, "an assignment without a task; the master is of another release"));
        };
        self.cluster.store(assignment.cluster, Relaxed);
        let spec = JobSpec::decode(assignment.spec.clone()).map_err(|e| failure(Cause::Worker, e))?;
        let app = spec.app.clone().unwrap_or_default();
        let job = self.unless_stopped(controls, self.job(task.job, app)).await??;
        let options = spec::options(&spec, self.options.task_memory).map_err(|e| failure(Cause::App, e))?;
        let options = Options { scratch: self.env.scratch().place(paths::CODE), ..options };
        let plan = self.unless_stopped(controls, self.plan(assignment, task)).await??;
        match kind {
            Kind::Survey(_) => {
                self.unless_stopped(controls, self.survey(assignment, task, job, options, &plan)).await?
            }
            Kind::Map(map) => self.map(assignment, (task, map), (job, options), &plan, controls).await,
            Kind::Reduce(half) => self.reduce(assignment, (task, half), (job, options), &plan, controls).await,
        }
    }

    /// Gives work up as soon as the attempt is told to stop. For what waits for others: work on this machine's disk and
    /// threads looks by itself, and must have ended before its files are removed.
    async fn unless_stopped<T>(
        &self,
        controls: &Controls,
        work: impl Future<Output = T> + Send,
    ) -> Result<T, wire::Failure> {
        let mut stops = self.stops.listen();
        let stopped = async {
            while !controls.stop.load(Relaxed) {
                stops.heard().await;
            }
        };
        match E::Rt::select2(stopped, work).await {
            Select2::First(()) => Err(failure(Cause::Returned, "the attempt was stopped")),
            Select2::Second(done) => Ok(done),
        }
    }

    /// The job's plan, which is read once.
    async fn plan(
        &self,
        assignment: &wire::Assignment,
        task: &wire::Task,
    ) -> Result<Arc<wire::PlanFile>, wire::Failure> {
        let digest = <[u8; 16]>::try_from(&assignment.plan[..]);
        let digest = digest.map_err(|_| failure(Cause::Worker, "an assignment without a plan"))?;
        if let Some(plan) = self.plans().get(&(task.job, digest)) {
            return Ok(plan.clone());
        }
        let name = commit::plan(assignment.cluster, task.job, &digest);
        let plan: Arc<wire::PlanFile> = Arc::new(objects::message(&self.env, &name, &digest).await.map_err(of_store)?);
        // Not once the job was dropped: nobody would come to remove it.
        if self.board().has_job(task.job) {
            self.plans().insert((task.job, digest), plan.clone());
        }
        Ok(plan)
    }

    async fn survey(
        &self,
        assignment: &wire::Assignment,
        task: &wire::Task,
        job: Arc<dyn Job>,
        options: Options,
        plan: &Arc<wire::PlanFile>,
    ) -> Result<wire::Done, wire::Failure> {
        let all = 0..plan.objects.len() as u32;
        let inputs = Inputs::get(&self.env, &self.inputs, plan, all).await.map_err(of_store)?;
        let (listing, parts) = (spec::listing(plan), assignment.reduces);
        let keys = self.env.offload(0, move |_| job.survey(&listing, parts, &inputs, &options)).await;
        let keys = keys.ok_or_else(panicked)?.map_err(of_engine)?;
        let keys = keys.into_iter().map(Into::into).collect();
        let bytes = wire::Boundaries { keys }.encode_to_vec();
        let digest = crate::control::ids::digest(&[&bytes]);
        let length = bytes.len() as u64;
        let name = commit::survey(assignment.cluster, task.job, task.attempt.unwrap_or_default().into());
        objects::put(&self.env, &name, Arc::new(bytes)).await.map_err(of_store)?;
        Ok(wire::Done { digest: digest.to_vec().into(), length, ..Default::default() })
    }

    /// The keys at which parts begin.
    async fn boundaries(
        &self,
        assignment: &wire::Assignment,
        task: &wire::Task,
        survey: Option<&wire::SurveyResult>,
    ) -> Result<Vec<Vec<u8>>, wire::Failure> {
        let Some(survey) = survey else { return Ok(Vec::new()) };
        let digest = <[u8; 16]>::try_from(&survey.digest[..]);
        let digest = digest.map_err(|_| failure(Cause::Worker, "a survey without a digest"))?;
        let name = commit::survey(assignment.cluster, task.job, survey.attempt.unwrap_or_default().into());
        let found: wire::Boundaries = objects::message(&self.env, &name, &digest).await.map_err(of_store)?;
        Ok(found.keys.into_iter().map(Into::into).collect())
    }

    async fn map(
        &self,
        assignment: &wire::Assignment,
        (task, map): (&wire::Task, &wire::MapTask),
        (job, options): (Arc<dyn Job>, Options),
        plan: &Arc<wire::PlanFile>,
        controls: &Controls,
    ) -> Result<wire::Done, wire::Failure> {
        let splitters = self.boundaries(assignment, task, map.survey.as_ref()).await?;
        let attempt = paths::attempt(task);
        let planned = plan.maps.get(task.partition as usize).map(|task| task.ranges.as_slice()).unwrap_or_default();
        let range =
            |r: &wire::PlannedRange| Range { object: r.object, start: r.start, end: r.start.saturating_add(r.length) };
        let ranges: Vec<Range> = planned.iter().map(range).collect();
        let numbers: Vec<u32> = ranges.iter().map(|range| range.object).collect();
        let got = self.unless_stopped(controls, Inputs::get(&self.env, &self.inputs, plan, numbers)).await?;
        let inputs = got.map_err(of_store)?;
        let planned = inputs.planned();
        let bytes: u64 = ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        let (listing, parts, file) = (spec::listing(plan), assignment.reduces, paths::segments(&attempt));
        let (scratch, stop) = (self.env.scratch().clone(), controls.stop.clone());
        let meter = Meter::new(&self.env, controls, (0, 990_000));
        let (name, number, maps) = (assignment.job_name.clone(), task.partition, assignment.maps);
        let id = number_of(task);
        let made = self.env.offload(bytes, move |exec| {
            let which = Which { job: &name, number, attempt: id, maps, reduces: parts, keep: false };
            let task = MapTask { which, inputs: &listing, ranges: &ranges, parts, splitters: &splitters, file: &file };
            let context = Context { exec, observer: &meter, stop: &stop };
            match parts {
                0 => job.part_task(task, &inputs, &scratch, &options, &context).map(Made::Part),
                _ => job.map_task(task, &inputs, &scratch, &options, &context).map(Made::Segments),
            }
        });
        let made = match made.await.ok_or_else(panicked)?.map_err(of_engine)? {
            Made::Segments(made) => made,
            Made::Part(made) => {
                objects::all_unchanged(&self.env, &planned).await.map_err(of_store)?;
                return self.put_part(assignment.cluster, task, paths::segments(&attempt), made).await;
            }
        };
        self.say_spilled(controls, made.spilled_runs);
        let slot = |s: &crate::task::SegmentEntry| wire::SegmentSlot {
            offset: s.offset,
            length: s.len,
            records: s.records,
            digest: s.digest.0.to_vec().into(),
        };
        let bad_records = made.bad.as_ref().map_or(0, |bad| bad.records);
        if let Some(bad) = &made.bad {
            let said =
                format!("{bad_records} bad records were met; they are in _bad/ of the output, if it becomes one");
            controls.log.say(self.env.wall_ms(), &said);
            let (task_id, attempt) = (task.partition, task.attempt.unwrap_or_default().into());
            let name = commit::bad_records(assignment.cluster, task.job, task_id, attempt);
            let bytes = spool::map(&self.env, bad.file.clone()).await.map_err(of_scratch)?;
            objects::put(&self.env, &name, bytes).await.map_err(of_store)?;
        }
        let index = wire::SegmentIndex { slots: made.segments.iter().map(slot).collect(), bad_records };
        objects::all_unchanged(&self.env, &planned).await.map_err(of_store)?;
        spool::write(&self.env, paths::index(&attempt), index.encode_to_vec()).await.map_err(of_scratch)?;
        self.env.reached(Point::Mapped);
        if map.store_segments {
            let stored = self.store_segments(assignment.cluster, task).await;
            stored.map_err(|e| failure(Cause::Worker, e))?;
        }
        Ok(wire::Done {
            digest: made.digest.0.to_vec().into(),
            length: made.segments.iter().map(|s| s.len).sum(),
            input_bytes: made.input_bytes,
            output_records: made.segments.iter().map(|s| s.records).sum(),
            counters: counters(made.counters),
            bad_records,
            file_digest: if map.store_segments { made.file_digest.0.to_vec().into() } else { Default::default() },
            ..Default::default()
        })
    }

    fn say_spilled(&self, controls: &Controls, runs: u64) {
        if runs > 0 {
            controls
                .log
                .say(self.env.wall_ms(), &format!("its memory was short: {runs} sorted runs went through scratch"));
        }
    }

    async fn reduce(
        &self,
        assignment: &wire::Assignment,
        (task, half): (&wire::Task, &wire::ReduceTask),
        (job, options): (Arc<dyn Job>, Options),
        plan: &Arc<wire::PlanFile>,
        controls: &Controls,
    ) -> Result<wire::Done, wire::Failure> {
        let segments = if half.from_manifest {
            self.unless_stopped(controls, self.gather_stored(task, plan, controls)).await??
        } else {
            let gathered = self.unless_stopped(controls, self.gather(assignment, controls)).await?;
            gathered.map_err(|short| match short {
                Short::Stopped => failure(Cause::Returned, "the attempt was stopped"),
                Short::Disk(e) => failure(Cause::Worker, e),
            })?
        };
        self.env.reached(Point::Fetched);
        let attempt = paths::attempt(task);
        let file = format!("{attempt}part");
        let names: Vec<String> = plan.objects.iter().map(|object| object.name.clone()).collect();
        let part = task.partition;
        let (scratch, stop, made_file) = (self.env.scratch().clone(), controls.stop.clone(), file.clone());
        let meter = Meter::new(&self.env, controls, (FETCHED_PPM, 950_000));
        let bytes = segments.iter().map(|s| s.len()).sum();
        let (job_name, maps, reduces) = (assignment.job_name.clone(), assignment.maps, assignment.reduces);
        let id = number_of(task);
        let made = self.env.offload(bytes, move |exec| {
            let extras = if part == 0 { job.extra_files(&names) } else { Vec::new() };
            let which = Which { job: &job_name, number: part, attempt: id, maps, reduces, keep: false };
            let task = ReduceTask { which, inputs: &names, part, segments, file: &made_file };
            let context = Context { exec, observer: &meter, stop: &stop };
            job.reduce_task(task, &scratch, &options, &context).map(|made| (made, extras))
        });
        let (made, extras) = made.await.ok_or_else(panicked)?.map_err(of_engine)?;
        self.say_spilled(controls, made.spilled_runs);
        // Found by whoever publishes: they are the same from every attempt.
        for (extra, bytes) in extras {
            let name = format!("{}{extra}", commit::extras(assignment.cluster, task.job));
            objects::put(&self.env, &name, Arc::new(bytes)).await.map_err(of_store)?;
        }
        self.put_part(assignment.cluster, task, file, made).await
    }

    /// Puts a part that was made into the store.
    async fn put_part(
        &self,
        cluster: u64,
        task: &wire::Task,
        file: String,
        made: PartOutput,
    ) -> Result<wire::Done, wire::Failure> {
        let name = commit::part(cluster, task.job, task.partition, task.attempt.unwrap_or_default().into());
        let bytes = spool::map(&self.env, file).await.map_err(of_scratch)?;
        objects::put(&self.env, &name, bytes).await.map_err(of_store)?;
        self.env.reached(Point::Uploaded);
        self.remove(paths::attempt(task)).await;
        Ok(wire::Done {
            digest: made.digest.0.to_vec().into(),
            length: made.bytes,
            input_bytes: made.input_bytes,
            output_records: made.summary.records,
            output_bytes: made.summary.bytes,
            counters: counters(made.counters),
            crc32c: made.summary.crc32c,
            ..Default::default()
        })
    }
}

/// What a map task made.
enum Made {
    Segments(MapOutput),
    Part(PartOutput),
}

pub(super) fn panicked() -> wire::Failure {
    failure(Cause::App, "the app panicked outside of a record; see the worker's log")
}
