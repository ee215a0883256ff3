//! Workers come, drain, and end. An incarnation is the log index of its registration.

use std::collections::BTreeSet;
use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::internal::v1::reply::Outcome;

use super::{ACCEPTED, ALREADY, Decision, Step, Touch, refused};
use crate::control::ids::{Stage, TaskId};
use crate::control::limits;
use crate::control::state::State;
use crate::control::task::{Place, cut};

impl State {
    /// Whoever registers under a name ends the one before: a worker has one life at a time.
    pub(super) fn register(&mut self, step: &mut Step, info: wire::Register) -> Decision<Outcome> {
        check(&info)?;
        if let Some(before) = self.worker_names.get(info.name.as_str()).copied() {
            self.end_worker(step, before, "it registered again");
        }
        if self.workers.len() >= limits::WORKERS {
            let message = format!("the cluster has {} workers already", limits::WORKERS);
            return Err(refused(Code::Limit, message, "use fewer workers with more slots"));
        }
        let incarnation = step.index;
        self.worker_names.insert(info.name.as_str().into(), incarnation);
        let record = wire::WorkerRecord { incarnation, info: Some(info), draining: false };
        self.workers.insert(incarnation, Arc::new(record));
        step.touched.push(Touch::Worker(incarnation));
        Ok(Outcome::Registered(wire::Registered { incarnation, refused: String::new() }))
    }

    pub(super) fn remove(&mut self, step: &mut Step, remove: wire::RemoveWorker) -> Outcome {
        let why = cut(remove.why, limits::INCIDENT_BYTES);
        if self.end_worker(step, remove.incarnation, &why).is_some() { ACCEPTED } else { ALREADY }
    }

    pub(super) fn drain(&mut self, step: &mut Step, drain: wire::DrainWorker) -> Decision<Outcome> {
        let incarnation = drain.incarnation;
        let worker = self.workers.get_mut(&incarnation).ok_or_else(|| no_worker(incarnation))?;
        if worker.draining && drain.why.is_empty() {
            return Ok(ALREADY);
        }
        let worker = Arc::make_mut(worker);
        let name = worker.info.as_ref().map(|info| info.name.clone()).unwrap_or_default();
        if !std::mem::replace(&mut worker.draining, true) {
            step.touched.push(Touch::Worker(incarnation));
        }
        if !drain.why.is_empty() {
            let concerned = drain.jobs.into_iter().take(limits::DRAINED_JOBS).collect();
            self.note_leaving(incarnation, name, &cut(drain.why, limits::INCIDENT_BYTES), concerned);
        }
        Ok(ACCEPTED)
    }

    /// Tells jobs that have something on a worker, and those said to run there, that it leaves. Each is told once.
    fn note_leaving(&mut self, incarnation: u64, worker: String, why: &str, mut concerned: BTreeSet<u64>) {
        let holds = self.jobs.values().filter(|job| job.maps_on(incarnation).next().is_some());
        concerned.extend(holds.map(|job| job.id));
        let kind = wire::incident::Kind::WorkerLeaves.into();
        let incident = wire::Incident { at_ms: self.now_ms, kind, worker, detail: why.into(), ..Default::default() };
        for job in concerned {
            let Some(job) = self.job_mut(job).filter(|job| job.is_open()) else { continue };
            let told = |before: &Arc<wire::Incident>| {
                before.kind == kind && before.worker == incident.worker && before.detail == incident.detail
            };
            if !job.incidents.iter().any(told) {
                job.note(incident.clone());
            }
        }
    }

    pub(super) fn worker_drained(&mut self, step: &mut Step, incarnation: u64) -> Decision<Outcome> {
        if self.drained.contains_key(&incarnation) {
            return Ok(ALREADY);
        }
        let worker = self.workers.get(&incarnation).ok_or_else(|| no_worker(incarnation))?;
        if !worker.draining {
            return Err(refused(Code::State, format!("worker {incarnation} is not draining"), ""));
        }
        if self.jobs.values().any(|job| job.maps_on(incarnation).next().is_some()) {
            let message = format!("worker {incarnation} holds segments that are needed");
            return Err(refused(Code::State, message, ""));
        }
        let uid = self.end_worker(step, incarnation, "").unwrap_or_default();
        self.drained.insert(incarnation, uid);
        while self.drained.len() > limits::DRAINED {
            let Some(oldest) = self.drained.get_min().map(|(incarnation, _)| *incarnation) else { break };
            self.drained.remove(&oldest);
        }
        Ok(ACCEPTED)
    }

    /// Ends an incarnation and gives its UID. What lay on it is lost to jobs that may still need it, whose histories get to know
    /// why.
    fn end_worker(&mut self, step: &mut Step, incarnation: u64, why: &str) -> Option<Arc<str>> {
        let worker = self.workers.remove(&incarnation)?;
        let info = worker.info.clone().unwrap_or_default();
        self.worker_names.remove(info.name.as_str());
        step.touched.push(Touch::Worker(incarnation));
        let lost = self.jobs.values().map(|job| (job.id, job.maps_on(incarnation).collect::<Vec<_>>()));
        let lost: Vec<(u64, Vec<u32>)> = lost.filter(|(_, maps)| !maps.is_empty()).collect();
        for (job, maps) in lost {
            let tasks = u32::try_from(maps.len()).unwrap_or(u32::MAX);
            maps.into_iter().for_each(|map| self.lose(step, job, map));
            let (at_ms, kind) = (self.now_ms, wire::incident::Kind::WorkerLost.into());
            if let Some(job) = self.job_mut(job) {
                let (worker, detail) = (info.name.clone(), why.to_string());
                job.note(wire::Incident { at_ms, kind, worker, tasks, detail, ..wire::Incident::default() });
            }
        }
        Some(info.uid.into())
    }

    /// A finished map's segments are gone.
    pub(super) fn lose(&mut self, step: &mut Step, id: u64, partition: u32) {
        let task = TaskId { job: id, stage: Stage::Map, partition };
        let Some(job) = self.job_mut(id) else { return };
        let Some(result) = job.facts_mut(task).and_then(|facts| facts.result.as_mut()) else { return };
        Arc::make_mut(result).place = Place::Lost;
        job.maps_missing += 1;
        step.touched.push(Touch::Task(task));
    }
}

fn check(info: &wire::Register) -> Decision<()> {
    let app = |app: &wire::AppOffer| {
        (1..=limits::SHORT_NAME_BYTES).contains(&app.name.len()) && app.build.len() <= limits::SHORT_NAME_BYTES
    };
    let bounds = [
        ((1..=limits::LONG_NAME_BYTES).contains(&info.name.len()), "its name has 1 to 128 bytes"),
        ((1..=256).contains(&info.address.len()), "its address has 1 to 256 bytes"),
        ((1..=limits::SLOTS).contains(&info.slots), "it has 1 to 1024 slots"),
        (info.apps.len() <= limits::APPS && info.apps.iter().all(app), "it offers at most 256 apps"),
        (info.uid.len() <= limits::SHORT_NAME_BYTES, "its UID has at most 64 bytes"),
        (limits::are_capabilities(&info.capabilities), "it has at most 16 capabilities, of 1 to 64 bytes"),
    ];
    match bounds.into_iter().find(|(holds, _)| !holds) {
        Some((_, message)) => Err(refused(Code::Invalid, format!("the worker is not acceptable: {message}"), "")),
        None => Ok(()),
    }
}

fn no_worker(incarnation: u64) -> wire::Refused {
    refused(Code::NotFound, format!("worker {incarnation} does not live"), "list the workers")
}
