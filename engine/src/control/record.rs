//! The state as the records of a snapshot, and back.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::record::Kind;
use gristmill_proto::internal::v1::result::Place as WirePlace;
use gristmill_proto::v1::JobState;
use imbl::Vector;

use super::ids::{Digest, Stage};
use super::job::Job;
use super::rights::Rights;
use super::snapshot::Damage;
use super::state::{Key, State};
use super::task::{By, Facts, Failed, Place, Result as Counted};

/// Tasks in one record. At 4 KiB of error and 120 counters each they stay far below a chunk.
pub(super) const TASKS: usize = 64;
/// Incidents in one record.
pub(super) const INCIDENTS: usize = 256;

pub(super) fn job(job: &Job) -> Kind {
    Kind::Job(wire::JobRecord {
        id: job.id,
        principal: job.principal.to_string(),
        spec: Some((*job.spec).clone()),
        state: job.state.into(),
        submitted_ms: job.submitted_ms,
        started_ms: job.started_ms,
        ended_ms: job.ended_ms,
        plan: job.plan.clone(),
        epoch: job.epoch,
        counter_names: job.counter_names.iter().map(ToString::to_string).collect(),
        error: job.error.as_deref().cloned(),
        retry_of: job.retry_of,
        next: job.next,
        decided_ms: job.decided_ms,
        incidents_left_out: job.incidents_left_out,
    })
}

/// Incidents from `first` on, or `None` if there are none.
pub(super) fn incidents(job: &Job, first: usize) -> Option<Kind> {
    let incidents: Vec<_> = job.incidents.iter().skip(first).take(INCIDENTS).map(|i| (**i).clone()).collect();
    (!incidents.is_empty()).then_some(Kind::Incidents(wire::IncidentsRecord { incidents }))
}

/// Tasks of a stage from `first` on, or `None` if there are none.
pub(super) fn tasks(job: &Job, stage: Stage, first: usize) -> Option<Kind> {
    let tasks: Vec<wire::TaskRecord> = match stage {
        Stage::Map => job.maps.iter().skip(first).take(TASKS).map(task).collect(),
        Stage::Reduce => job.reduces.iter().skip(first).take(TASKS).map(task).collect(),
        _ => job.survey.iter().skip(first).take(TASKS).map(task).collect(),
    };
    (!tasks.is_empty()).then(|| Kind::Tasks(wire::TasksRecord { stage: stage.into(), tasks }))
}

fn task(facts: &Facts) -> wire::TaskRecord {
    let failed = |failed: &Failed| wire::FailedAttempt {
        attempt: Some(failed.attempt.into()),
        charged: failed.charged,
        worker: failed.worker,
        record: failed.record,
    };
    wire::TaskRecord {
        done: facts.result.as_deref().map(result),
        failed: facts.failed.iter().map(failed).collect(),
        failure: facts.failure.as_deref().cloned(),
    }
}

fn result(result: &Counted) -> wire::Result {
    let (place, worker) = match result.place {
        Place::Store => (WirePlace::Store, 0),
        Place::Worker(worker) => (WirePlace::Worker, worker),
        Place::Lost => (WirePlace::Lost, 0),
    };
    let digest = bytes::Bytes::copy_from_slice(&result.digest);
    wire::Result {
        attempt: Some(result.attempt.into()),
        place: place.into(),
        worker,
        done: Some(wire::Done { digest, ..result.done.clone() }),
        counter_names: result.counters.iter().map(|(name, _)| u32::from(*name)).collect(),
        counter_values: result.counters.iter().map(|(_, value)| *value).collect(),
        epoch: result.epoch,
        ended_ms: result.by.ended_ms,
        given_ms: result.by.given_ms,
        backup: result.by.backup,
        worker_name: result.by.worker.to_string(),
    }
}

pub(super) fn key(digest: &Digest, key: Key) -> Kind {
    Kind::Key(wire::KeyRecord {
        digest: bytes::Bytes::copy_from_slice(digest),
        spec: bytes::Bytes::copy_from_slice(&key.spec),
        job: key.job,
        at_ms: key.at_ms,
    })
}

pub(super) fn role(name: &str, rights: Rights) -> Kind {
    Kind::Role(wire::RoleRecord { name: name.into(), rights: rights.names().map(String::from).collect() })
}

impl State {
    /// Takes in a record. Tasks belong to `last`, the job before them.
    pub(super) fn take(&mut self, kind: Kind, last: &mut Option<Job>) -> Result<(), Damage> {
        if !matches!(kind, Kind::Tasks(_) | Kind::Incidents(_)) {
            self.take_job(last.take());
        }
        match kind {
            Kind::Head(head) => {
                if head.level > self.understands.0 {
                    return Err(Damage::Level(head.level));
                }
                self.level = head.level;
                self.cluster = head.cluster;
                self.now_ms = head.now_ms;
                self.applied = head.applied;
            }
            Kind::Job(record) => *last = Some(read_job(record)?),
            Kind::Tasks(record) => {
                let job = last.as_mut().ok_or(Damage::Record("tasks without a job"))?;
                read_tasks(job, record)?;
            }
            Kind::Incidents(record) => {
                let job = last.as_mut().ok_or(Damage::Record("incidents without a job"))?;
                job.incidents.extend(record.incidents.into_iter().map(Arc::new));
            }
            Kind::Worker(worker) => {
                let name = worker.info.as_ref().map(|info| info.name.as_str()).unwrap_or_default();
                self.worker_names.insert(name.into(), worker.incarnation);
                self.workers.insert(worker.incarnation, Arc::new(worker));
            }
            Kind::Archived(row) => {
                self.archive.insert(row.id, Arc::new(row));
            }
            Kind::Key(row) => {
                let (key, spec) = (digest(&row.digest)?, digest(&row.spec)?);
                self.remember(key, Key { spec, job: row.job, at_ms: row.at_ms });
            }
            Kind::Drained(drained) => {
                self.drained.insert(drained.incarnation, drained.uid.into());
            }
            Kind::Pool(pool) => {
                self.pools.insert(pool.name.as_str().into(), Arc::new(pool));
            }
            Kind::User(user) => self.access.insert_user(user),
            Kind::Session(session) => self.access.insert_session(session),
            Kind::Role(role) => {
                let rights = Rights::of(role.rights.iter().map(String::as_str));
                let rights = rights.map_err(|_| Damage::Record("a role with a right that is none"))?;
                self.access.roles.insert(role.name.into(), rights);
            }
            Kind::SigningKey(key) => {
                self.access.keys.insert(key.kid.as_str().into(), Arc::new(key));
            }
            Kind::Policy(policy) => self.access.registration = policy.registration,
            Kind::Audit(event) => {
                self.access.audit.insert(event.id, Arc::new(event));
            }
            Kind::End(_) => {}
        }
        Ok(())
    }

    fn take_job(&mut self, job: Option<Job>) {
        let Some(mut job) = job else { return };
        job.recount();
        if !job.has_ended() {
            self.enter(&job);
        } else if job.state == JobState::Completed {
            self.hold_output(&job);
        }
        self.jobs.insert(job.id, Arc::new(job));
    }
}

fn digest(bytes: &[u8]) -> Result<Digest, Damage> {
    bytes.try_into().map_err(|_| Damage::Record("a digest that has not 16 bytes"))
}

fn read_job(record: wire::JobRecord) -> Result<Job, Damage> {
    let state = JobState::try_from(record.state).map_err(|_| Damage::Record("a job in no known state"))?;
    let spec = record.spec.ok_or(Damage::Record("a job without a description"))?;
    let mut job = Job::new(record.id, record.principal.into(), Arc::new(spec), record.submitted_ms);
    job.state = state;
    job.started_ms = record.started_ms;
    job.ended_ms = record.ended_ms;
    job.plan = record.plan;
    job.epoch = record.epoch;
    job.counter_names = record.counter_names.into_iter().map(Into::into).collect();
    job.error = record.error.map(Arc::new);
    job.retry_of = record.retry_of;
    job.next = record.next;
    job.decided_ms = record.decided_ms;
    job.incidents_left_out = record.incidents_left_out;
    Ok(job)
}

fn read_tasks(job: &mut Job, record: wire::TasksRecord) -> Result<(), Damage> {
    let stage = record.stage();
    for record in record.tasks {
        let facts = read_task(record)?;
        let tasks: &mut Vector<Facts> = match stage {
            Stage::Map => &mut job.maps,
            Stage::Reduce => &mut job.reduces,
            Stage::Survey | Stage::Unspecified => {
                job.survey = Some(facts);
                continue;
            }
        };
        tasks.push_back(facts);
    }
    Ok(())
}

fn read_task(record: wire::TaskRecord) -> Result<Facts, Damage> {
    let failed = |failed: wire::FailedAttempt| Failed {
        attempt: failed.attempt.unwrap_or_default().into(),
        charged: failed.charged,
        worker: failed.worker,
        record: failed.record,
    };
    Ok(Facts {
        result: record.done.map(read_result).transpose()?.map(Arc::new),
        failed: record.failed.into_iter().map(failed).collect(),
        failure: record.failure.map(Arc::new),
    })
}

fn read_result(record: wire::Result) -> Result<Counted, Damage> {
    let place = match record.place() {
        WirePlace::Store => Place::Store,
        WirePlace::Worker => Place::Worker(record.worker),
        WirePlace::Lost => Place::Lost,
        WirePlace::Unspecified => return Err(Damage::Record("a result without a place")),
    };
    let mut done = record.done.unwrap_or_default();
    let digest = digest(&done.digest)?;
    done.digest = bytes::Bytes::new();
    let names = record.counter_names.into_iter().map(|name| u16::try_from(name).unwrap_or(u16::MAX));
    Ok(Counted {
        attempt: record.attempt.unwrap_or_default().into(),
        epoch: record.epoch,
        place,
        digest,
        done,
        counters: names.zip(record.counter_values).collect(),
        by: By {
            worker: record.worker_name.into(),
            given_ms: record.given_ms,
            ended_ms: record.ended_ms,
            backup: record.backup,
        },
    })
}
