//! What a job came to: a line for people, or one of JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gristmill_engine::data::output::PartSummary;
use gristmill_engine::job::Report;

use super::memory;
use super::sizes::{Size, counted, grouped};

/// The help of `--json`: the names of the fields are a promise.
pub(crate) const JSON_HELP: &str = "\
Report on the job as one line of JSON: on standard output, or on standard error if the result is there

Fields: app, output (folder or null), inputs, input_bytes (after decompression), compressed_inputs, emitted_pairs, \
output_records, output_bytes (before compression), parts (of each: records, bytes, crc32c), counters (of the app, by \
name), bad_records, spilled_runs, spilled_bytes, phases (of each: phase, seconds), seconds (from listing the inputs to \
the end), threads, memory (bytes that the job could hold), peak_memory (most bytes resident, or null), notes. Fields \
may be added, and those that are there keep their names and senses. Nothing else is said but errors.";

/// A job that has ended, with all that is told of it.
pub(crate) struct Done<'r> {
    pub(crate) app: &'r str,
    pub(crate) folder: Option<&'r Path>,
    pub(crate) report: &'r Report,
    pub(crate) compressed_inputs: usize,
    pub(crate) phases: Vec<(&'static str, f64)>,
    pub(crate) time: Duration,
    pub(crate) threads: usize,
    pub(crate) memory: u64,
    pub(crate) notes: Vec<String>,
}

/// The JSON of a report, field by field.
#[derive(Debug, serde::Serialize)]
struct Json<'r> {
    app: &'r str,
    output: Option<String>,
    inputs: u64,
    input_bytes: u64,
    compressed_inputs: usize,
    emitted_pairs: u64,
    output_records: u64,
    output_bytes: u64,
    parts: &'r [PartSummary],
    counters: &'r BTreeMap<String, i64>,
    bad_records: u64,
    spilled_runs: u64,
    spilled_bytes: u64,
    phases: Vec<PhaseTime>,
    seconds: f64,
    threads: usize,
    memory: u64,
    peak_memory: Option<u64>,
    notes: &'r [String],
}

#[derive(Debug, serde::Serialize)]
struct PhaseTime {
    phase: &'static str,
    seconds: f64,
}

impl Done<'_> {
    /// All of it as one line of JSON.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let phase = |(phase, seconds): &(&'static str, f64)| PhaseTime { phase, seconds: rounded(*seconds) };
        serde_json::to_string(&Json {
            app: self.app,
            output: self.folder.map(|path| path.to_string_lossy().into_owned()),
            inputs: self.report.inputs,
            input_bytes: self.report.input_bytes,
            compressed_inputs: self.compressed_inputs,
            emitted_pairs: self.report.emitted,
            output_records: self.report.output_records,
            output_bytes: self.report.output_bytes,
            parts: &self.report.parts,
            counters: &self.report.counters,
            bad_records: self.report.bad_records,
            spilled_runs: self.report.spilled_runs,
            spilled_bytes: self.report.spilled_bytes,
            phases: self.phases.iter().map(phase).collect(),
            seconds: rounded(self.time.as_secs_f64()),
            threads: self.threads,
            memory: self.memory,
            peak_memory: memory::peak(),
            notes: &self.notes,
        })
    }

    /// What people should know of it, a line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let summary = self.folder.map(|path| summary(self.report, path, self.time));
        self.notes.iter().cloned().chain(summary).chain(remarks(self.report, self.folder))
    }
}

/// Seconds to the microsecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// The line for people who made a folder.
fn summary(report: &Report, folder: &Path, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let rate = Size((report.input_bytes as f64 / seconds.max(1e-9)) as u64);
    let mut line = format!(
        "{} in {} of {}; read {} in {seconds:.2} s, {rate}/s",
        counted(report.output_records, "record"),
        counted(report.parts.len() as u64, "part"),
        folder.display(),
        Size(report.input_bytes),
    );
    if report.spilled_bytes > 0 {
        line += &format!("; spilled {} in {}", Size(report.spilled_bytes), counted(report.spilled_runs, "run"));
    }
    line
}

/// What else people should know: bad records and counters.
fn remarks(report: &Report, folder: Option<&Path>) -> Vec<String> {
    let mut all = Vec::new();
    if report.bad_records > 0 {
        let bad = counted(report.bad_records, "bad record");
        all.push(match folder {
            Some(path) => format!("passed over {bad}: see {}", path.join("_bad/records.jsonl").display()),
            None => format!("passed over {bad}; with -o DIR they are kept"),
        });
    }
    if !report.counters.is_empty() {
        let counters = report.counters.iter().map(|(name, n)| {
            let sign = if *n < 0 { "-" } else { "" };
            format!("{name} {sign}{}", grouped(n.unsigned_abs()))
        });
        all.push(counters.collect::<Vec<_>>().join(", "));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_and_how_fast() {
        let part = PartSummary { records: 617, bytes: 9, crc32c: 0 };
        let mut report =
            Report { input_bytes: 3 << 30, output_records: 1234, parts: vec![part, part], ..Report::default() };
        let line = summary(&report, Path::new("out"), Duration::from_secs(2));
        assert_eq!(line, "1,234 records in 2 parts of out; read 3.0 GiB in 2.00 s, 1.5 GiB/s");
        assert_eq!(remarks(&report, None), [""; 0]);
        report.spilled_runs = 1;
        report.spilled_bytes = 5 << 20;
        assert!(summary(&report, Path::new("out"), Duration::ZERO).ends_with("; spilled 5.0 MiB in 1 run"));
        report.bad_records = 2;
        report.counters = [("lines".to_string(), 1000), ("odd".to_string(), 1)].into();
        let folder = Some(Path::new("out"));
        assert_eq!(
            remarks(&report, folder),
            ["passed over 2 bad records: see out/_bad/records.jsonl", "lines 1,000, odd 1"]
        );
    }
}
