//! What the leader has done for a job that takes the store: its plan, its publication, its history. Each can be done any
//! number of times, by several masters at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{JobError, Phase, job_error::Reason};
use gristmill_raft::runtime::AsyncRuntime as _;
use prost::Message as _;
use rand::Rng as _;

use super::halves::{MOST_SEGMENTS, segments_name};
use super::{Inner, MasterEnv};
use crate::control::commit::{self, Publication};
use crate::control::history;
use crate::control::ids::{self, Digest};
use crate::control::job::Job;
use crate::control::master::{Plan, Setback};
use crate::data::commit::{Manifest, PartEntry, part_name, totals};
use crate::data::output::PartSummary;
use crate::node::env::Note;
use crate::node::point::Point;
use crate::node::{objects, spec};
use crate::registry::Files;
use crate::store::{self, Kind, Name, Pattern, Store as _};
use crate::task::plan::TASK_BYTES;
use crate::task::{self, Range, TaskPlan, publish};

/// Objects in a plan: more need larger ones.
const MOST_OBJECTS: usize = 1_000_000;
/// What a plan takes for the memory of a task; nothing of it depends on that.
const MEMORY: u64 = 1 << 30;

pub(super) fn never(reason: Reason, message: impl Into<String>, next_step: &str) -> Setback {
    Setback::Never(JobError { reason: reason.into(), message: message.into(), next_step: next_step.into() })
}

pub(super) fn later(e: store::Error) -> Setback {
    Setback::Later(e.to_string())
}

impl<E: MasterEnv> Inner<E> {
    /// Lists the inputs, divides them, stores the plan.
    pub(super) async fn plan(&self, job: &Job) -> Result<Plan, Setback> {
        self.env.reached(Point::Planning);
        let file = match job.phase() {
            Phase::Reduce => self.plan_half(job).await?,
            _ => self.plan_whole(job).await?,
        };
        if job.phase() == Phase::Map && file.maps.len() as u64 * u64::from(file.reduces) > MOST_SEGMENTS {
            let message =
                format!("{} map tasks of {} parts are too many segments to keep", file.maps.len(), file.reduces);
            return Err(never(Reason::Input, message, "make map tasks larger, or give fewer reducers"));
        }
        let bytes = file.encode_to_vec();
        let digest = ids::digest(&[&bytes]);
        let name = commit::plan(self.state().cluster(), job.id, &digest);
        objects::put(&self.env, &name, Arc::new(bytes)).await.map_err(later)?;
        self.env.reached(Point::PlanStored);
        Ok(plan_of(&file, digest))
    }

    async fn plan_whole(&self, job: &Job) -> Result<wire::PlanFile, Setback> {
        let mut file = wire::PlanFile::default();
        for pattern in &job.spec.inputs {
            let found = self.list(pattern).await?;
            if found.is_empty() {
                let message = format!("no object in the store is called {pattern}");
                return Err(never(
                    Reason::Input,
                    message,
                    "put files into the store's folder first, or correct the name",
                ));
            }
            let object = |(name, meta): (Name, store::Meta)| wire::PlannedObject {
                name: name.as_str().to_string(),
                version: meta.version.0,
                size: meta.len,
            };
            file.objects.extend(found.into_iter().map(object));
            if file.objects.len() > MOST_OBJECTS {
                let message = format!("the inputs are more than {MOST_OBJECTS} objects");
                return Err(never(Reason::Input, message, "name fewer, or join small ones"));
            }
        }
        // As a local run numbers its inputs, whatever the order of the patterns.
        file.objects.sort_by(|a, b| a.name.cmp(&b.name));
        let divided = self.divide(job, &file).await?;
        let range = |r: &Range| wire::PlannedRange { object: r.object, start: r.start, length: r.end - r.start };
        let task = |ranges: &Vec<Range>| wire::PlannedTask { ranges: ranges.iter().map(range).collect() };
        file.maps = divided.tasks.iter().map(task).collect();
        (file.reduces, file.survey) = (divided.parts, divided.survey);
        Ok(file)
    }

    /// Divides the inputs into tasks. The app's own code looks at its flags: it may panic.
    async fn divide(&self, job: &Job, file: &wire::PlanFile) -> Result<TaskPlan, Setback> {
        let arguments = |e: String| never(Reason::Arguments, e, "see `gristmill run APP --help`");
        let app = job.spec.app.clone().unwrap_or_default();
        if !self.env.apps().has(&app.name) {
            // It was taken by a master of another build: one that has the app may lead later.
            return Err(Setback::Later(format!(
                "this master's build has no app '{}'; let one lead that has it",
                app.name
            )));
        }
        let options = spec::options(&job.spec, MEMORY).map_err(arguments)?;
        let target = if job.spec.map_task_bytes == 0 { TASK_BYTES } else { job.spec.map_task_bytes };
        let (listing, env) = (spec::listing(file), self.env.clone());
        let divided = self.env.offload(0, move |_| {
            let runs = env.apps().job(&app.name, &app.arguments, Files::Elsewhere).map_err(arguments)?;
            let divided = runs.divide(&listing, &options, target);
            divided.map_err(|e| never(Reason::Input, e.to_string(), ""))
        });
        let panicked = || {
            Err(never(Reason::Arguments, "the app panicked over its flags; see the master's log", "correct the flags"))
        };
        divided.await.unwrap_or_else(panicked)
    }

    /// The objects that one of the inputs of a job stands for.
    async fn list(&self, pattern: &str) -> Result<Vec<(Name, store::Meta)>, Setback> {
        let bad = |e: store::Error| never(Reason::Input, format!("input {pattern}: {e}"), "");
        let mut named = Pattern::new(pattern).map_err(bad)?;
        if !named.is_glob() && !pattern.ends_with('/') {
            let name = &Name::new(pattern).map_err(bad)?;
            match objects::patiently::<E::Rt, _, _>(|| self.env.store().head(name)).await {
                Ok(meta) => return Ok(vec![(name.clone(), meta)]),
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => return Err(later(e)),
            }
            named = Pattern::new(&format!("{pattern}/")).map_err(bad)?;
        }
        let found = objects::patiently::<E::Rt, _, _>(|| store::list_all(self.env.store(), named.prefix())).await;
        Ok(found.map_err(later)?.into_iter().filter(|(name, _)| named.names_input(name)).collect())
    }

    pub(super) async fn load_plan(&self, job: &Job) -> Result<Plan, Setback> {
        let file = self.plan_file(job).await?;
        let digest = job.plan.as_ref().and_then(|plan| Digest::try_from(&plan.plan[..]).ok());
        Ok(plan_of(&file, digest.unwrap_or_default()))
    }

    pub(super) async fn plan_file(&self, job: &Job) -> Result<wire::PlanFile, Setback> {
        let digest = job.plan.as_ref().and_then(|plan| Digest::try_from(&plan.plan[..]).ok());
        let digest = digest.ok_or_else(|| Setback::Later("the job has no plan".into()))?;
        let name = commit::plan(self.state().cluster(), job.id, &digest);
        objects::message(&self.env, &name, &digest).await.map_err(later)
    }

    /// Stores what is known of an ended job, then deletes what its attempts left.
    pub(super) async fn retire(&self, job: &Job) -> Result<Digest, Setback> {
        let cluster = self.state().cluster();
        let (status, events) = (Some(job.status(cluster)), history::events(cluster, job));
        let history = wire::HistoryFile { status, events }.encode_to_vec();
        let digest = ids::digest(&[&history]);
        objects::put(&self.env, &commit::history(cluster, job.id), Arc::new(history)).await.map_err(later)?;
        self.env.reached(Point::HistoryStored);
        let (cluster, id) = (format!("{cluster:016x}"), ids::job_name(cluster, job.id));
        let store = self.env.store();
        objects::patiently::<E::Rt, _, _>(|| publish::clear(store, &cluster, &id)).await.map_err(later)?;
        self.env.reached(Point::Cleared);
        Ok(digest)
    }

    /// Deletes what zombies wrote after their job was retired.
    pub(super) async fn sweep(&self, upto: u64, keep: &BTreeSet<u64>) {
        let cluster = self.state().cluster();
        // Not histories and logs, of which there may be many.
        for root in commit::all_scratch(cluster) {
            let listed = objects::patiently::<E::Rt, _, _>(|| store::list_all(self.env.store(), &root)).await;
            let swept = match listed {
                Ok(found) => self.sweep_found(cluster, found, upto, keep).await,
                Err(e) => Err(e),
            };
            if let Err(e) = swept {
                self.env.note(Note::Trouble { what: format!("sweeping the store failed: {e}") });
            }
        }
    }

    async fn sweep_found(
        &self,
        cluster: u64,
        found: Vec<(Name, store::Meta)>,
        upto: u64,
        keep: &BTreeSet<u64>,
    ) -> Result<(), store::Error> {
        for (name, _) in &found {
            let job = commit::job_of(cluster, name.as_str());
            if job.is_some_and(|job| job <= upto && !keep.contains(&job)) {
                objects::patiently::<E::Rt, _, _>(|| self.env.store().delete(name, None)).await?;
            }
        }
        Ok(())
    }

    /// The error with which a job ends that met too many bad records: that of a local run.
    pub(super) async fn judge(&self, job: &Job) -> Result<JobError, Setback> {
        let met = self.wholes(&commit::all_bad_records(self.state().cluster(), job)).await?;
        let error = task::too_many_bad_records(met.iter().map(Vec::as_slice), job.spec.skip_bad_records);
        let unreadable = || Setback::Later("the bad records that were kept are not those that were met".into());
        let message = error.ok_or_else(unreadable)?.to_string();
        Ok(JobError { reason: Reason::BadRecord.into(), message, next_step: String::new() })
    }

    /// Objects as they are, in order.
    async fn wholes(&self, names: &[String]) -> Result<Vec<Vec<u8>>, Setback> {
        let mut all = Vec::new();
        for name in names {
            all.push(objects::whole(&self.env, name).await.map_err(later)?);
        }
        Ok(all)
    }

    /// Makes a decided output visible.
    pub(super) async fn publish(&self, publication: &Publication) -> Result<(), Setback> {
        self.env.reached(Point::Publishing);
        let cluster = self.state().cluster();
        let decision = self.decision(cluster, publication).await?;
        let call = format!("{:016x}", E::Rt::thread_rng().next_u64());
        let before = |step: &publish::Step| self.env.reached(Point::before(step));
        let published = publish::publish_stepwise(self.env.store(), &decision, &call, before).await;
        if published.is_ok() {
            self.env.reached(Point::Published);
        }
        published.map_err(|e| match e.kind {
            Kind::AlreadyExists | Kind::Denied => {
                let advice = "submit the job again with another output, or with --overwrite";
                never(Reason::Output, format!("the output cannot be published: {e}"), advice)
            }
            _ => later(e),
        })
    }

    /// What was decided, and what belongs to it beside.
    async fn decision(&self, cluster: u64, publication: &Publication) -> Result<publish::Decision, Setback> {
        let Publication { job, output, overwrite, app, counters, compress, objects, bad, segments } = publication;
        let unnamed = |e: store::Error| never(Reason::Output, e.to_string(), "");
        let compress = spec::compression(*compress);
        let part = |(n, object): (usize, &commit::Object)| PartEntry {
            name: if *segments { segments_name(n) } else { part_name(n, compress) },
            summary: PartSummary { records: object.records, bytes: object.bytes, crc32c: object.crc32c },
        };
        let parts = objects.iter().enumerate().map(part).collect();
        let source = |object: &commit::Object| {
            let (len, digest) = (object.length, crate::data::digest::Digest(object.digest));
            Name::new(object.from.as_str()).map(|key| publish::Source { key, len, digest })
        };
        let sources: Result<Vec<_>, _> = objects.iter().map(source).collect();
        let prefix = commit::extras(cluster, *job);
        let extras = objects::patiently::<E::Rt, _, _>(|| store::list_all(self.env.store(), &prefix)).await;
        let mut files = Vec::new();
        for (name, _) in extras.map_err(later)? {
            let bytes = objects::whole(&self.env, name.as_str()).await.map_err(later)?;
            files.push((name.as_str()[prefix.len()..].to_string(), bytes));
        }
        if *segments {
            files.push(self.index_of(publication).await?);
        }
        let kept = self.wholes(&bad.0).await?;
        files.extend(task::bad_records(kept.iter().map(Vec::as_slice)));
        let manifest = Manifest::new(app, parts, totals(counters.clone()), bad.1);
        let (job_name, segments) = (Some(ids::job_name(cluster, *job)), *segments);
        let manifest = Manifest { job: job_name, segments, ..manifest };
        Ok(publish::Decision {
            cluster: format!("{cluster:016x}"),
            job: ids::job_name(cluster, *job),
            output: Name::new(output.as_str()).map_err(unnamed)?,
            overwrite: *overwrite,
            parts: sources.map_err(unnamed)?,
            files,
            manifest,
        })
    }
}

fn plan_of(file: &wire::PlanFile, digest: Digest) -> Plan {
    let range = |r: &wire::PlannedRange| {
        let object = file.objects.get(r.object as usize).cloned().unwrap_or_default();
        wire::InputRange {
            name: object.name,
            version: object.version,
            input: r.object,
            start: r.start,
            end: r.start.saturating_add(r.length),
            size: object.size,
        }
    };
    let maps = file.maps.iter().map(|task| task.ranges.iter().map(range).collect()).collect();
    let stored = file.segments.iter().flat_map(|segments| &segments.slots).map(|slot| slot.length);
    let input_bytes = file.objects.iter().map(|object| object.size).chain(stored).fold(0, u64::saturating_add);
    Plan { digest, maps, reduces: file.reduces, survey: file.survey, input_bytes }
}
