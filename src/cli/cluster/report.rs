//! `job report`: what a job was, in a page: how long its stages and tasks took, which were the slowest, how evenly the work
//! was spread, what failed and why. Made of the job's status and events alone, so that it can be had of any job that ever was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gristmill_proto::v1 as api;
use gristmill_proto::v1::job_event::Kind;
use serde::Serialize;

use super::super::sizes::{Size, grouped};
use super::ask::{state, table};

/// Tasks that are shown as the slowest, and failures that are shown as the last.
const SHOWN: usize = 5;
const FAILURES: usize = 20;

/// A job in numbers. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    job: String,
    app: String,
    state: String,
    took_ms: u64,
    /// From its submission until its plan was made, and from the decision on its output until it was there.
    planning_ms: u64,
    publishing_ms: u64,
    input_bytes: u64,
    output_records: u64,
    output_bytes: u64,
    stages: Vec<Stage>,
    slowest: Vec<Slow>,
    workers: BTreeMap<String, OnWorker>,
    failures: Vec<Failed>,
    failures_left_out: usize,
    counters: BTreeMap<String, u64>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Stage {
    name: &'static str,
    tasks_done: usize,
    attempts: usize,
    failed: usize,
    backups: usize,
    /// From the first attempt's beginning to the last one's end.
    took_ms: u64,
    /// Of the attempts that counted: least, median, 90th and 99th percentile, most.
    durations_ms: Option<[u64; 5]>,
    /// The largest share of one task, as a multiple of the mean: of input bytes for maps, of output records for reduces.
    skew: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Slow {
    task: String,
    worker: String,
    took_ms: u64,
}

#[derive(Debug, Default, Serialize)]
struct OnWorker {
    done: usize,
    failed: usize,
    busy_ms: u64,
}

#[derive(Debug, Serialize)]
struct Failed {
    task: String,
    attempt: String,
    worker: String,
    reason: String,
}

/// How long an attempt took, where it is known when it began.
fn took(event: &api::JobEvent) -> Option<u64> {
    (event.given_ms > 0).then(|| event.time_ms.saturating_sub(event.given_ms))
}

impl Report {
    pub(super) fn of(job: &api::JobStatus, events: &[api::JobEvent]) -> Self {
        let first = |kind: Kind| events.iter().find(|event| event.kind() == kind).map(|event| event.time_ms);
        let last_ms = events.last().map_or(job.submitted_ms, |event| event.time_ms);
        let ended_ms = if job.ended_ms > 0 { job.ended_ms } else { last_ms };
        let since = |to: Option<u64>, from: u64| to.map_or(0, |to| to.saturating_sub(from));
        let failed: Vec<&api::JobEvent> = events.iter().filter(|event| event.kind() == Kind::Failed).collect();
        let app = job.spec.as_ref().and_then(|spec| spec.app.as_ref()).map(|app| app.name.clone());
        Self {
            job: job.id.clone(),
            app: app.unwrap_or_default(),
            state: state(job),
            took_ms: ended_ms.saturating_sub(job.submitted_ms),
            planning_ms: since(first(Kind::Planned), job.submitted_ms),
            publishing_ms: first(Kind::Committed).map_or(0, |from| ended_ms.saturating_sub(from)),
            input_bytes: job.input_bytes,
            output_records: job.output_records,
            output_bytes: job.output_bytes,
            stages: ["survey", "map", "reduce"].into_iter().filter_map(|name| stage(name, events)).collect(),
            slowest: slowest(events),
            workers: workers(events),
            failures: failed.iter().rev().take(FAILURES).rev().map(|event| failure(event)).collect(),
            failures_left_out: failed.len().saturating_sub(FAILURES),
            counters: job.counters.iter().map(|(name, n)| (name.clone(), *n)).collect(),
            error: job.error.as_ref().map(|error| error.message.clone()),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut head = vec![
            ("job", self.job.clone()),
            ("app", self.app.clone()),
            ("state", format!("{} after {}", self.state, seconds(self.took_ms))),
            ("input", Size(self.input_bytes).to_string()),
            ("output", format!("{} records, {}", grouped(self.output_records), Size(self.output_bytes))),
            (
                "overhead",
                format!("planned in {}, published in {}", seconds(self.planning_ms), seconds(self.publishing_ms)),
            ),
        ];
        head.extend(self.error.iter().map(|error| ("error", error.clone())));
        let pair = |(name, value): (&str, String)| vec![name.to_string(), value];
        let mut text = table(&head.into_iter().map(pair).collect::<Vec<_>>());
        self.add_stages(&mut text);
        let slow = |s: &Slow| vec![s.task.clone(), seconds(s.took_ms), s.worker.clone()];
        section(&mut text, ["SLOWEST", "TOOK", "WORKER"], self.slowest.iter().map(slow));
        let worker = |(name, w): (&String, &OnWorker)| {
            vec![name.clone(), w.done.to_string(), w.failed.to_string(), seconds(w.busy_ms)]
        };
        section(&mut text, ["WORKER", "DONE", "FAILED", "BUSY"], self.workers.iter().map(worker));
        let failed = |f: &Failed| vec![f.task.clone(), f.attempt.clone(), f.worker.clone(), f.reason.clone()];
        section(&mut text, ["FAILED", "ATTEMPT", "WORKER", "REASON"], self.failures.iter().map(failed));
        if self.failures_left_out > 0 {
            let _ = writeln!(text, "and {} earlier ones: see job events", self.failures_left_out);
        }
        let counter = |(name, n): (&String, &u64)| vec![name.clone(), grouped(*n)];
        section(&mut text, ["COUNTER", "TOTAL"], self.counters.iter().map(counter));
        text
    }

    fn add_stages(&self, text: &mut String) {
        let row = |s: &Stage| {
            let durations = s.durations_ms.map_or([const { String::new() }; 5], |all| all.map(seconds));
            let skew = s.skew.map_or_else(String::new, |skew| format!("{skew:.1}x"));
            let counts = [s.tasks_done, s.attempts, s.failed, s.backups].map(|n| n.to_string());
            [vec![s.name.into()], counts.to_vec(), vec![seconds(s.took_ms)], durations.to_vec(), vec![skew]].concat()
        };
        let head =
            ["STAGE", "DONE", "ATTEMPTS", "FAILED", "BACKUPS", "TOOK", "LEAST", "MEDIAN", "P90", "P99", "MOST", "SKEW"];
        section(text, head, self.stages.iter().map(row));
    }
}

/// A table of its own, if it has rows.
fn section<const N: usize>(text: &mut String, head: [&str; N], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        let head = head.map(String::from).to_vec();
        text.push('\n');
        text.push_str(&table(&[vec![head], rows].concat()));
    }
}

/// Milliseconds as people read them.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn stage(name: &'static str, events: &[api::JobEvent]) -> Option<Stage> {
    let of_stage = |event: &&api::JobEvent| event.task.split(' ').next() == Some(name);
    let of_kind = |kind: Kind| events.iter().filter(of_stage).filter(move |event| event.kind() == kind);
    let done: Vec<&api::JobEvent> = of_kind(Kind::Done).collect();
    let attempts = of_kind(Kind::Given).count();
    if done.is_empty() && attempts == 0 {
        return None;
    }
    let begun = of_kind(Kind::Given).map(|event| event.time_ms).min();
    let ended = events.iter().filter(of_stage).map(|event| event.time_ms).max();
    let mut durations: Vec<u64> = done.iter().filter_map(|event| took(event)).collect();
    durations.sort_unstable();
    let share = |event: &&api::JobEvent| if name == "map" { event.input_bytes } else { event.output_records };
    Some(Stage {
        name,
        tasks_done: done.len(),
        attempts,
        failed: of_kind(Kind::Failed).count(),
        backups: of_kind(Kind::Given).filter(|event| event.backup).count(),
        took_ms: ended.zip(begun).map_or(0, |(ended, begun)| ended.saturating_sub(begun)),
        durations_ms: quantiles(&durations),
        skew: skew(&done.iter().map(share).collect::<Vec<_>>()),
    })
}

/// Least, median, 90th and 99th percentile by nearest rank, most.
fn quantiles(sorted: &[u64]) -> Option<[u64; 5]> {
    let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
    (!sorted.is_empty()).then(|| [sorted[0], rank(50), rank(90), rank(99), sorted[sorted.len() - 1]])
}

fn skew(shares: &[u64]) -> Option<f64> {
    let (sum, most) = (shares.iter().sum::<u64>(), shares.iter().max()?);
    (sum > 0).then(|| *most as f64 * shares.len() as f64 / sum as f64)
}

fn slowest(events: &[api::JobEvent]) -> Vec<Slow> {
    let done = events.iter().filter(|event| event.kind() == Kind::Done);
    let slow = |event: &api::JobEvent| {
        Some(Slow { task: event.task.clone(), worker: event.worker.clone(), took_ms: took(event)? })
    };
    let mut all: Vec<Slow> = done.filter_map(slow).collect();
    all.sort_by(|a, b| b.took_ms.cmp(&a.took_ms).then_with(|| a.task.cmp(&b.task)));
    all.truncate(SHOWN);
    all
}

fn workers(events: &[api::JobEvent]) -> BTreeMap<String, OnWorker> {
    let mut all = BTreeMap::<String, OnWorker>::new();
    for event in events {
        let (done, failed) = (event.kind() == Kind::Done, event.kind() == Kind::Failed);
        if done || failed {
            let worker = all.entry(event.worker.clone()).or_default();
            worker.done += usize::from(done);
            worker.failed += usize::from(failed);
            worker.busy_ms += took(event).unwrap_or(0);
        }
    }
    all
}

fn failure(event: &api::JobEvent) -> Failed {
    let (task, attempt, worker) = (event.task.clone(), event.attempt.clone(), event.worker.clone());
    Failed { task, attempt, worker, reason: event.detail.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(kind: Kind, task: &str, given_ms: u64, time_ms: u64, share: u64) -> [api::JobEvent; 2] {
        let (task, worker) = (task.to_string(), "w".to_string());
        let detail = "it broke".to_string();
        let end = api::JobEvent { kind: kind.into(), task, worker, given_ms, time_ms, detail, ..Default::default() };
        let end = api::JobEvent { input_bytes: share, output_records: share, ..end };
        [api::JobEvent { kind: Kind::Given.into(), time_ms: given_ms, ..end.clone() }, end]
    }

    #[test]
    fn a_report_counts_what_the_events_say() {
        let job = api::JobStatus { submitted_ms: 10, ended_ms: 110, ..Default::default() };
        let events: Vec<api::JobEvent> = [
            end(Kind::Done, "map 0", 20, 30, 100),
            end(Kind::Failed, "map 1", 20, 25, 0),
            end(Kind::Done, "map 1", 30, 90, 300),
            end(Kind::Done, "reduce 0", 60, 100, 7),
        ]
        .concat();
        let report = Report::of(&job, &events);
        let [map, reduce] = &report.stages[..] else { panic!("{report:?}") };
        assert_eq!((map.tasks_done, map.attempts, map.failed, map.took_ms), (2, 3, 1, 70));
        assert_eq!(map.durations_ms, Some([10, 10, 60, 60, 60]));
        assert_eq!((map.skew, reduce.skew), (Some(1.5), Some(1.0)));
        assert_eq!((report.took_ms, report.slowest[0].task.as_str()), (100, "map 1"));
        assert_eq!((report.workers["w"].done, report.workers["w"].failed, report.workers["w"].busy_ms), (3, 1, 115));
        let text = report.text();
        for said in ["map     2     3", "map 1   ", "it broke", "0.060 s"] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(quantiles(&hundred), Some([1, 50, 90, 99, 100]));
        assert_eq!(quantiles(&[5]), Some([5; 5]));
        assert_eq!(quantiles(&[]), None);
    }
}
