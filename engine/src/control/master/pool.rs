//! What those who make workers ask of the leader, and tell it: how much work waits, which workers have none, and why workers
//! leave or are not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gristmill_proto::internal::v1::command::Action;
use gristmill_proto::v1::{JobError, job_error::Reason};

use super::Master;
use super::outbox::Ticket;
use crate::control::history::task_name;
use crate::control::ids::TaskId;
use crate::control::state::has_all;

/// So many attempts at a task may end because its worker ran out of memory. That is the cluster's fault, and no failed attempt
/// of the task; but whoever asks for more than there is would end one worker after the other.
const OUT_OF_MEMORY: u32 = 8;
/// Notices of a job.
const NOTICES: usize = 16;

/// Tasks that wait for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The app's name and build.
    pub app: (String, String),
    /// What workers must have.
    pub requires: Vec<String>,
    /// How many slots would be used at once, beyond those that are.
    pub waiting: u64,
}

/// A worker that runs in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seated {
    /// Of its registration.
    pub incarnation: u64,
    /// Its name.
    pub name: String,
    /// Of its pod.
    pub uid: String,
    /// Tasks that it runs at a time.
    pub slots: u32,
    /// Tasks that it runs.
    pub busy: u32,
    /// It ends when it has nothing any more that others need.
    pub draining: bool,
    /// How long it has run nothing; `None`: it does.
    pub idle: Option<Duration>,
}

/// What those who make workers found out.
#[derive(Clone, Debug)]
pub enum News {
    /// A worker is gone for good: its pod has ended.
    Gone {
        /// Of its registration.
        incarnation: u64,
        /// Why, in at most 256 bytes.
        why: String,
        /// Its memory did not suffice.
        out_of_memory: bool,
    },
    /// A worker will end soon, by somebody else's decision.
    Leaves {
        /// Of its registration.
        incarnation: u64,
        /// Why, in at most 256 bytes.
        why: String,
    },
    /// A worker is to run no more tasks, finish those that it has, and drain.
    Retire {
        /// Of its registration.
        incarnation: u64,
    },
    /// What is wrong with pools now: what each can do, and a line each.
    Notices(Vec<Notices>),
}

/// What is wrong with a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// It is about all pools.
    pub general: bool,
    /// What its workers have.
    pub capabilities: Vec<String>,
    /// One line each.
    pub lines: Vec<String>,
}

impl Master {
    /// What waits for slots, a job each. A user's jobs count up to what the user may run at once.
    pub fn demand(&self) -> Vec<Demand> {
        let mut left = BTreeMap::<Arc<str>, u64>::new();
        let mut demand = Vec::new();
        for run in self.runs.values() {
            let waiting = run.waiting(self.config.slow_start_percent, self.now.mono);
            let user = &run.job.principal;
            let left = left.entry(user.clone()).or_insert_with(|| match self.state.access().quota(user).cores {
                0 => u64::MAX,
                cores => u64::from(cores).saturating_sub(self.shares.running(user) as u64),
            });
            let waiting = waiting.min(*left);
            *left -= waiting;
            if waiting > 0 {
                let app = run.job.spec.app.clone().unwrap_or_default();
                let requires = run.job.spec.requires.clone();
                demand.push(Demand { app: (app.name, app.build), requires, waiting });
            }
        }
        demand
    }

    /// Workers that run in pods.
    pub fn seated(&self) -> impl Iterator<Item = Seated> + '_ {
        self.fleet.workers.iter().filter(|(_, worker)| !worker.uid.is_empty()).map(|(incarnation, worker)| Seated {
            incarnation: *incarnation,
            name: worker.name.clone(),
            uid: worker.uid.clone(),
            slots: worker.slots,
            busy: u32::try_from(worker.attempts.len()).unwrap_or(u32::MAX),
            draining: worker.draining || worker.retiring,
            idle: worker
                .idle_since
                .filter(|_| worker.attempts.is_empty())
                .map(|since| self.now.mono.saturating_sub(since)),
        })
    }

    /// Why workers that a job waits for are not there.
    pub(super) fn notices(&self, job: u64) -> Vec<String> {
        let Some(run) = self.runs.get(&job) else { return Vec::new() };
        let leaving = self.fates.iter().filter(|(id, _)| self.jobs_of(**id).contains(&job)).filter_map(|(id, why)| {
            let worker = self.fleet.workers.get(id)?;
            Some(format!("worker {} leaves: {why}", worker.name))
        });
        let waits = run.waiting(self.config.slow_start_percent, Duration::MAX) > 0;
        let of_pools = self
            .pool_notices
            .iter()
            .filter(|pool| waits && (pool.general || has_all(&pool.capabilities, &run.job.spec.requires)));
        leaving.chain(of_pools.flat_map(|pool| pool.lines.iter().cloned())).take(NOTICES).collect()
    }

    pub(super) fn pools(&mut self, news: News) {
        match news {
            News::Gone { incarnation, why, out_of_memory } => {
                if !self.fleet.workers.contains_key(&incarnation) {
                    return;
                }
                if self.fates.insert(incarnation, why.clone()).as_ref() != Some(&why) && out_of_memory {
                    self.count_out_of_memory(incarnation, &why);
                }
                self.propose_remove(incarnation);
            }
            News::Leaves { incarnation, why } => {
                if self.fleet.workers.contains_key(&incarnation) {
                    self.fates.insert(incarnation, why);
                    // At once, although it may be draining by itself already: jobs are to know why.
                    let drain = self.drain_of(incarnation);
                    self.propose(Ticket::Worker, Action::DrainWorker(drain));
                }
            }
            News::Retire { incarnation } => self.retire(incarnation),
            News::Notices(notices) => self.pool_notices = notices,
        }
    }

    /// A worker gets nothing more to do, from this moment on; once it has nothing, it drains. So no task is done again because
    /// of it, whatever was given out meanwhile.
    fn retire(&mut self, incarnation: u64) {
        let now = self.now.mono;
        self.fleet.change(incarnation, now, |worker| worker.retiring = true);
        let empty =
            self.fleet.workers.get(&incarnation).is_some_and(|worker| worker.attempts.is_empty() && !worker.draining);
        if empty {
            self.propose_drain(incarnation);
        }
    }

    fn count_out_of_memory(&mut self, incarnation: u64, why: &str) {
        let attempts = self.fleet.workers.get(&incarnation).map(|worker| worker.attempts.clone()).unwrap_or_default();
        let tasks: Vec<TaskId> = attempts.iter().filter_map(|a| self.attempts.get(a)).map(|r| r.task).collect();
        for task in tasks {
            let Some(run) = self.runs.get_mut(&task.job) else { continue };
            let times = run.out_of_memory.entry((task.stage, task.partition)).or_default();
            *times += 1;
            let job = task.job;
            if *times >= OUT_OF_MEMORY {
                let task = task_name(task.stage, task.partition);
                let message = format!("{task} ran on {OUT_OF_MEMORY} workers that ran out of memory; the last: {why}");
                let next_step =
                    "give the pool's pods more memory or fewer slots, or the job smaller map tasks".to_string();
                self.fail(job, JobError { reason: Reason::TaskFailed.into(), message, next_step }, false);
            }
        }
    }

    /// Notes which workers have nothing to do, and lets those drain that were to when they have nothing.
    pub(super) fn tick_idle(&mut self) {
        let now = self.now.mono;
        let mut empty = Vec::new();
        for (id, worker) in &mut self.fleet.workers {
            if !worker.attempts.is_empty() {
                worker.idle_since = None;
                continue;
            }
            worker.idle_since.get_or_insert(now);
            if worker.retiring && !worker.draining {
                empty.push(*id);
            }
        }
        empty.into_iter().for_each(|id| self.propose_drain(id));
        self.fates.retain(|id, _| self.fleet.workers.contains_key(id));
    }
}
