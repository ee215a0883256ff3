//! What becomes of a backup's state when a new cluster begins with it.
//!
//! Workers are gone, and with them the segments that only they had. Jobs that ended after the backup was taken are as their
//! histories in the store say: what they left there may be cleared away, so that they could not go on from where the backup has
//! them. All others can: what their attempts put into the store stays until their histories are there. This is no command, as
//! there is no log yet; it uses what commands use.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::JobStatus;

use super::Step;
use crate::control::ids::{Digest, job_of_name};
use crate::control::job::{Job, JobState};
use crate::control::rights::SYSTEM;
use crate::control::state::State;

/// Why workers of before are gone, for the histories of jobs.
const WHY: &str = "the cluster was restored from a backup";

/// How a job ended after the backup was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// What its history says last.
    pub status: JobStatus,
    /// The digest of that history.
    pub history: Digest,
}

impl State {
    /// Makes this the state that a new cluster begins with, at the index `first` of its log or a little above it; gives that
    /// index. No command of the cluster that the state is from may have had one as high. `ended` says how jobs ended since, and
    /// those that they began.
    pub fn begin_anew(&mut self, first: u64, now_ms: u64, ended: &BTreeMap<u64, Ended>) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        let (principal, from, touched) = (SYSTEM.into(), "".into(), Vec::new());
        let mut step = Step { index: first, principal, session: 0, from, account: false, touched };
        let workers: Vec<u64> = self.workers.keys().copied().collect();
        for incarnation in workers {
            self.remove(&mut step, wire::RemoveWorker { incarnation, why: WHY.into() });
        }
        let open: Vec<u64> = self.jobs.values().filter(|job| !job.has_ended()).map(|job| job.id).collect();
        open.into_iter().for_each(|job| self.has_ended_since(&mut step, job, ended));
        self.applied = step.index;
        step.index
    }

    /// Keeps the row of a job that ended since, and of those after it. The first of these of which nothing is known begins.
    fn has_ended_since(&mut self, step: &mut Step, id: u64, ended: &BTreeMap<u64, Ended>) {
        let Some(mut found) = ended.get(&id) else { return };
        let Some(job) = self.jobs.remove(&id) else { return };
        self.leave(&job);
        let mut job = Job::clone(&job);
        loop {
            self.keep_row(row(&job, found));
            let then = job.spec.then.clone().filter(|_| found.status.state() == JobState::Completed);
            let Some(then) = then else { return };
            let next = job_of_name(self.cluster, &found.status.next);
            match next.and_then(|next| Some((next, ended.get(&next)?))) {
                Some((next, following)) => {
                    job = Job::new(next, job.principal.clone(), Arc::new(*then), following.status.submitted_ms);
                    found = following;
                }
                None => {
                    // An index is one job's id.
                    step.index += 1;
                    return self.begin_next(step, &job);
                }
            }
        }
    }
}

fn row(job: &Job, ended: &Ended) -> wire::ArchiveRecord {
    let Ended { status, history } = ended;
    wire::ArchiveRecord {
        id: job.id,
        principal: job.principal.to_string(),
        app: job.called().to_string(),
        state: status.state,
        submitted_ms: status.submitted_ms,
        ended_ms: status.ended_ms,
        history: Bytes::copy_from_slice(history),
        reason: status.error.as_ref().map_or(0, |error| error.reason),
    }
}
