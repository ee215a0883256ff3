//! How far a job is, with what the leader alone knows.

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{JobStatus, TaskCounts};

use super::Master;
use crate::control::limits::{COUNTERS, FETCHED_PPM, WHOLE_PPM};

/// Parts in a million of a part of the work.
fn scaled(ppm: u32, part: u32) -> u64 {
    u64::from(ppm) * u64::from(WHOLE_PPM) / u64::from(part.max(1))
}

impl Master {
    /// A job with what the leader alone knows: how many tasks run, and how far they are.
    pub fn status(&self, job: u64) -> Option<JobStatus> {
        let mut status = self.state.job(job)?.status(self.state.cluster());
        let (mut maps, mut reduces) = (status.maps.unwrap_or_default(), status.reduces.unwrap_or_default());
        let whole = |counts: &TaskCounts| u64::from(counts.done) * u64::from(WHOLE_PPM);
        let (mut mapped, mut fetched, mut reduced) = (whole(&maps), whole(&reduces), whole(&reduces));
        let attempts = self.runs.get(&job).map(|run| &run.attempts);
        for ((stage, partition), attempts) in attempts.into_iter().flatten() {
            let counts = match stage {
                wire::Stage::Reduce => &mut reduces,
                wire::Stage::Map => &mut maps,
                _ => continue,
            };
            counts.running += 1;
            counts.backups += u32::from(attempts.len() > 1);
            let furthest = attempts.iter().filter_map(|id| self.attempts.get(id));
            let Some(furthest) = furthest.max_by_key(|running| (running.fetched, running.progress_ppm)) else {
                continue;
            };
            // Of a task that is done and runs again, what counted stays.
            let counted = self.state.job(job).and_then(|job| job.facts(*stage, *partition)?.result.as_ref()).is_some();
            for counter in furthest.counters.iter().filter(|_| !counted) {
                let known = status.counters.contains_key(&counter.name) || status.counters.len() < COUNTERS;
                if known {
                    let sum = status.counters.entry(counter.name.clone()).or_default();
                    *sum = sum.saturating_add(counter.value);
                }
            }
            let ppm = furthest.progress_ppm;
            if *stage == wire::Stage::Map {
                mapped += u64::from(ppm);
            } else if furthest.fetched {
                fetched += u64::from(WHOLE_PPM);
                reduced += scaled(ppm.saturating_sub(FETCHED_PPM), WHOLE_PPM - FETCHED_PPM);
            } else {
                fetched += scaled(ppm.min(FETCHED_PPM), FETCHED_PPM);
            }
        }
        let of = |sum: u64, counts: &TaskCounts| (sum / u64::from(counts.total.max(1))).min(WHOLE_PPM.into()) as u32;
        maps.progress_ppm = of(mapped, &maps);
        status.shuffle_ppm = of(fetched, &reduces);
        reduces.progress_ppm = of(reduced, &reduces);
        (status.maps, status.reduces) = (Some(maps), Some(reduces));
        status.notices = self.notices(job);
        Some(status)
    }
}
