//! What has to be done for a job beside its tasks: planned, published, retired, archived. One thing at a time for each
//! job; what that is follows from the state.

use std::sync::Arc;
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::v1::{JobError, Phase, job_error::Reason};
use gristmill_raft::planted::{Bug, planted};

use super::outbox::Ticket;
use super::{Effect, Master, Plan, Setback};
use crate::control::commit::Publication;
use crate::control::ids::Digest;
use crate::control::job::JobState;
use crate::control::limits;

/// A wait is doubled so often at most.
const MAX_DOUBLINGS: u32 = 6;

/// What a job needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Plan,
    ProposePlan,
    Load,
    Judge,
    Publish,
    ProposePublished,
    Retire,
    ProposeArchive,
    ProposeFailure,
}

/// How far the things to do for a job are.
#[derive(Debug, Default)]
pub(super) struct Errand {
    step: Option<Step>,
    under_way: bool,
    not_before: Duration,
    tries: u32,
    /// Made or loaded, until it is handed to the run.
    pub(super) plan: Option<Arc<Plan>>,
    /// Why the job must fail; and whether that is because its decided output can not be published.
    fail: Option<(JobError, bool)>,
    published: bool,
    retired: Option<Digest>,
}

impl Master {
    fn desired(&self, job: u64, errand: &Errand) -> Option<Step> {
        let job = self.state.job(job)?;
        if let Some((_, unpublishable)) = &errand.fail
            && !job.has_ended()
            && (*unpublishable || job.state != JobState::Committing)
        {
            return Some(Step::ProposeFailure);
        }
        match job.state {
            JobState::Queued => Some(if errand.plan.is_some() { Step::ProposePlan } else { Step::Plan }),
            JobState::Committing => Some(if errand.published { Step::ProposePublished } else { Step::Publish }),
            _ if job.has_ended() => Some(if errand.retired.is_some() { Step::ProposeArchive } else { Step::Retire }),
            _ if job.is_spoilt() => Some(Step::Judge),
            JobState::Reducing if planted(Bug::UndecidedPublished) && !errand.published => Some(Step::Publish),
            _ => self.runs.get(&job.id).is_some_and(|run| run.plan.is_none()).then_some(Step::Load),
        }
    }

    /// Does what a job needs, unless it is under way or must wait.
    pub(super) fn run_errand(&mut self, id: u64) {
        let Some(job) = self.state.job(id).cloned() else {
            self.errands.remove(&id);
            return;
        };
        let mut errand = self.errands.remove(&id).unwrap_or_default();
        if job.has_ended() {
            // As large as the job; what is left to do needs nothing of it.
            errand.plan = None;
        }
        let desired = self.desired(id, &errand);
        if desired != errand.step {
            let Errand { plan, fail, published, retired, .. } = errand;
            errand = Errand { step: desired, plan, fail, published, retired, ..Errand::default() };
        }
        let due = !errand.under_way && self.now.mono >= errand.not_before;
        if let Some(step) = desired.filter(|_| due) {
            errand.under_way = true;
            match step {
                Step::Plan => self.effects.push(Effect::Plan(job)),
                Step::Load => self.effects.push(Effect::LoadPlan(job)),
                Step::Judge => self.effects.push(Effect::Judge(job)),
                Step::Publish => {
                    let publication = Publication::of(self.state.cluster(), &job);
                    self.effects.extend(publication.map(Effect::Publish));
                }
                Step::Retire => self.effects.push(Effect::Retire(job)),
                _ => self.propose_step(id, step, &errand),
            }
        }
        self.errands.insert(id, errand);
    }

    fn propose_step(&mut self, job: u64, step: Step, errand: &Errand) {
        let action = match (step, &errand.plan, errand.retired, &errand.fail) {
            (Step::ProposePlan, Some(plan), ..) => Action::PlanJob(wire::PlanJob {
                job,
                plan: bytes::Bytes::copy_from_slice(&plan.digest),
                maps: u32::try_from(plan.maps.len()).unwrap_or(u32::MAX),
                reduces: plan.reduces,
                survey: plan.survey,
                input_bytes: plan.input_bytes,
            }),
            (Step::ProposePublished, ..) => Action::JobPublished(wire::JobPublished { job }),
            (Step::ProposeArchive, _, Some(history), _) => {
                Action::ArchiveJob(wire::ArchiveJob { job, history: bytes::Bytes::copy_from_slice(&history) })
            }
            (Step::ProposeFailure, .., Some((error, unpublishable))) => {
                let (error, unpublishable) = (Some(error.clone()), *unpublishable);
                Action::FailJob(wire::FailJob { job, error, unpublishable })
            }
            _ => return,
        };
        self.propose(Ticket::Job(job), action);
    }

    /// What was under way has come to its end. If the state says that it is still to be done, that waits a little.
    pub(super) fn errand_over(&mut self, job: u64, well: bool) {
        let (now, retry) = (self.now.mono, self.config.retry);
        let Some(errand) = self.errands.get_mut(&job) else { return };
        errand.under_way = false;
        errand.not_before = now + retry * (1 << errand.tries.min(MAX_DOUBLINGS));
        errand.tries += u32::from(!well);
        self.run_errand(job);
    }

    /// A job must fail.
    pub(super) fn fail(&mut self, job: u64, error: JobError, unpublishable: bool) {
        let errand = self.errands.entry(job).or_default();
        errand.fail.get_or_insert((error, unpublishable));
        self.run_errand(job);
    }

    pub(super) fn planned(&mut self, job: u64, result: Result<Plan, Setback>) {
        let well = result.is_ok();
        let of = self.state.job(job);
        let whole = of.is_none_or(|job| job.phase() == Phase::Unspecified);
        let expected = of.and_then(|job| job.plan.as_ref()).map(|plan| plan.plan.clone());
        match result {
            Ok(plan) if plan.reduces == 0 && !whole => {
                let message = "a job that only maps has no halves".to_string();
                let next_step = "leave --phase out".to_string();
                self.fail(job, JobError { reason: Reason::Arguments.into(), message, next_step }, false);
            }
            Ok(plan) if plan.reduces == 0 && plan.maps.len() > limits::PARTS as usize => {
                let message = format!("it would have {} parts, one for each map task", plan.maps.len());
                let next_step = "make map tasks larger, or name fewer inputs: at most 10000".to_string();
                self.fail(job, JobError { reason: Reason::Input.into(), message, next_step }, false);
            }
            Ok(plan) if plan.maps.len() > limits::MAPS as usize || plan.reduces > limits::PARTS => {
                let message = format!("it would take {} map tasks and {} reducers", plan.maps.len(), plan.reduces);
                let next_step = "make map tasks larger, or give at most 10000 reducers".to_string();
                self.fail(job, JobError { reason: Reason::Input.into(), message, next_step }, false);
            }
            Ok(plan) if expected.is_none_or(|digest| *digest == plan.digest) => {
                if let Some(errand) = self.errands.get_mut(&job) {
                    errand.plan = Some(Arc::new(plan));
                }
            }
            Ok(_) | Err(Setback::Later(_)) => {}
            Err(Setback::Never(error)) => self.fail(job, error, false),
        }
        self.errand_over(job, well);
        self.sync_job(job);
    }

    pub(super) fn judged(&mut self, job: u64, result: Result<JobError, Setback>) {
        let well = result.is_ok();
        match result {
            Ok(error) | Err(Setback::Never(error)) => self.fail(job, error, false),
            Err(Setback::Later(_)) => {}
        }
        self.errand_over(job, well);
    }

    pub(super) fn published(&mut self, job: u64, result: Result<(), Setback>) {
        let well = result.is_ok();
        match result {
            Ok(()) => {
                if let Some(errand) = self.errands.get_mut(&job) {
                    errand.published = true;
                }
            }
            Err(Setback::Later(_)) => {}
            Err(Setback::Never(error)) => self.fail(job, error, true),
        }
        self.errand_over(job, well);
    }

    pub(super) fn retired(&mut self, job: u64, result: Result<Digest, Setback>) {
        let history = result.ok();
        if let Some(errand) = self.errands.get_mut(&job) {
            errand.retired = errand.retired.or(history);
        }
        self.errand_over(job, history.is_some());
    }
}
