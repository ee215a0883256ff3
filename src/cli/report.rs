//! What a job came to: a line for people, or one of JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gristmill_engine::data::output::PartSummary;
use gristmill_engine::job::Report;

use super::sizes::{Size, counted, grouped};

/// The help of `--json`: the names of the fields are a promise.
pub(crate) const JSON_HELP: &str = "\
Report on the job as one line of JSON: on standard output, or on standard error if the result is there

Fields: app, output (folder or null), inputs, input_bytes (after decompression), compressed_inputs, emitted_pairs, \
output_records, output_bytes (before compression), parts (of each: records, bytes, crc32c), counters (of the app, by \
name), bad_records, spilled_runs, spilled_bytes, phases (of each: phase, seconds), seconds (from listing the inputs to \
the end), threads, memory (bytes that the job could hold), peak_memory (most bytes resident, or null), notes. Fields \
may be added, and those that are there keep their names and senses. Nothing else is said but errors.";

/// A job's report as JSON.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Json<'r> {
    pub(crate) app: &'r str,
    pub(crate) output: Option<String>,
    pub(crate) inputs: u64,
    pub(crate) input_bytes: u64,
    pub(crate) compressed_inputs: usize,
    pub(crate) emitted_pairs: u64,
    pub(crate) output_records: u64,
    pub(crate) output_bytes: u64,
    pub(crate) parts: &'r [PartSummary],
    pub(crate) counters: &'r BTreeMap<String, u64>,
    pub(crate) bad_records: u64,
    pub(crate) spilled_runs: u64,
    pub(crate) spilled_bytes: u64,
    pub(crate) phases: Vec<PhaseTime>,
    pub(crate) seconds: f64,
    pub(crate) threads: usize,
    pub(crate) memory: u64,
    pub(crate) peak_memory: Option<u64>,
    pub(crate) notes: Vec<String>,
}

/// How long a phase took.
#[derive(Debug, serde::Serialize)]
pub(crate) struct PhaseTime {
    pub(crate) phase: &'static str,
    pub(crate) seconds: f64,
}

/// The line for people who made a folder.
pub(crate) fn summary(report: &Report, folder: &Path, time: Duration) -> String {
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
pub(crate) fn remarks(report: &Report, folder: Option<&Path>) -> Vec<String> {
    let mut all = Vec::new();
    if report.bad_records > 0 {
        let bad = counted(report.bad_records, "bad record");
        all.push(match folder {
            Some(path) => format!("passed over {bad}: see {}", path.join("_bad/records.jsonl").display()),
            None => format!("passed over {bad}; with -o DIR they are kept"),
        });
    }
    if !report.counters.is_empty() {
        let counters = report.counters.iter().map(|(name, n)| format!("{name} {}", grouped(*n)));
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
