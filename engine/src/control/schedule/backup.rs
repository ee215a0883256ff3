//! Backup attempts: near the end of a stage, tasks that would take much longer than others get a second attempt
//! elsewhere, and whichever ends first counts.
//!
//! How long a task will take is judged by its own rate of progress, as LATE does (Zaharia et al., OSDI 2008): one that
//! is nearly done is left alone, however slow it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::ids::{AttemptId, Stage, TaskId};
use super::super::run::{Run, Running};

/// Second attempts at a time that a stage may have however small it is: the slots of a slow worker. They use slots that no
/// first attempt of the stage wants.
const ALWAYS: usize = 4;

/// When tasks get a second attempt.
#[derive(Clone, Debug)]
pub struct Backups {
    /// No task that runs shorter than this, or than others take.
    pub min_running: Duration,
    /// Only tasks that are expected to take so many percent of what others take.
    pub slower_percent: u32,
    /// At most so many percent of a stage's tasks at a time, but always four.
    pub share_percent: u32,
}

impl Default for Backups {
    fn default() -> Self {
        Self { min_running: Duration::from_millis(300), slower_percent: 150, share_percent: 10 }
    }
}

/// The tasks that deserve a second attempt now, the worst first cut to the share.
pub(crate) fn stragglers(
    run: &Run,
    attempts: &BTreeMap<AttemptId, Running>,
    rules: &Backups,
    now: Duration,
) -> BTreeSet<TaskId> {
    let mut found = BTreeSet::new();
    for stage in [Stage::Survey, Stage::Map, Stage::Reduce] {
        let waits = match stage {
            Stage::Map => !run.maps_wait.is_empty(),
            Stage::Reduce => !run.reduces_wait.is_empty() || run.job.maps_missing() > 0,
            Stage::Survey | Stage::Unspecified => false,
        };
        if !waits {
            found.extend(of_stage(run, attempts, rules, stage, now));
        }
    }
    found
}

fn of_stage(
    run: &Run,
    attempts: &BTreeMap<AttemptId, Running>,
    rules: &Backups,
    stage: Stage,
    now: Duration,
) -> impl Iterator<Item = TaskId> {
    let tasks = || run.attempts.range((stage, 0)..=(stage, u32::MAX));
    let mut backups = 0;
    let mut slow = Vec::new();
    let mut expected = Vec::new();
    for (_, of_task) in tasks() {
        let [attempt] = of_task.as_slice() else {
            backups += 1;
            continue;
        };
        let Some(running) = attempts.get(attempt).filter(|running| !running.reported) else { continue };
        let elapsed = now.saturating_sub(running.since);
        let whole = whole_time(elapsed, running.progress_ppm);
        expected.push(whole);
        if elapsed >= rules.min_running {
            slow.push((whole.saturating_sub(elapsed), whole, running.task));
        }
    }
    let usual = usual(run, stage, &mut expected);
    let limit = usual.unwrap_or(Duration::MAX).saturating_mul(rules.slower_percent) / 100;
    let all = match stage {
        Stage::Map => run.job.maps.len(),
        Stage::Reduce => run.job.reduces.len(),
        Stage::Survey | Stage::Unspecified => 1,
    };
    let share = (all * rules.share_percent as usize / 100).max(ALWAYS);
    let usual = usual.unwrap_or_default();
    slow.retain(|(left, whole, _)| *whole > limit && *left > usual / 4 && *whole - *left >= usual);
    slow.sort_unstable_by(|a, b| b.cmp(a));
    slow.into_iter().map(|(_, _, task)| task).take(share.saturating_sub(backups))
}

/// What the task will have taken at its end. Without any progress: twenty times what it took so far.
fn whole_time(elapsed: Duration, progress_ppm: u32) -> Duration {
    let ppm = u64::from(progress_ppm.clamp(50_000, 1_000_000));
    Duration::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(1_000_000) / ppm)
}

/// What a task of the stage usually takes: those that are done say it, else the median of those that run.
fn usual(run: &Run, stage: Stage, expected: &mut [Duration]) -> Option<Duration> {
    if let Some(pace) = run.pace.get(&stage).filter(|pace| pace.tasks > 0) {
        return Some(pace.total / pace.tasks);
    }
    expected.sort_unstable();
    (expected.len() > 2).then(|| expected[expected.len() / 2])
}
