//! `--explain`: what a job would do, without doing it.

use std::path::Path;

use gristmill_engine::job::Plan;

use super::failure::Failure;
use super::sizes::{Size, counted};
use super::stdout;

/// Prints a plan for people, or as one line of JSON with the fields of [`Plan`].
pub(crate) fn explain(app: &str, plan: &Plan, folder: Option<&Path>, json: bool) -> Result<(), Failure> {
    if json {
        let line = serde_json::to_string(plan).map_err(|e| Failure::Bug(e.to_string()))?;
        return stdout::print(line + "\n");
    }
    let streams = match plan.streams {
        0 => String::new(),
        n => format!(", {n} of which cannot be split"),
    };
    let shuffle = match plan.shuffle.as_str() {
        "fold" => "fold: one accumulator for each key",
        "group" => "group: all values of a key, in input order",
        "sort" => "sort: parts are ranges of keys, in total order",
        other => other,
    };
    let output = folder.map_or_else(|| "standard output".to_string(), |path| path.display().to_string());
    let lines = [
        ("app", app.to_string()),
        ("input", format!("{} of {}{streams}", counted(plan.inputs as u64, "input"), Size(plan.input_bytes))),
        ("records", plan.format.clone()),
        ("work", format!("{} for {}", counted(plan.units, "unit"), counted(plan.threads as u64, "thread"))),
        ("memory", Size(plan.memory).to_string()),
        ("shuffle", shuffle.to_string()),
        ("output", format!("{} to {output}", counted(u64::from(plan.parts), "part"))),
        ("instructions", plan.isa.clone()),
    ];
    stdout::print(lines.map(|(label, text)| format!("{label:14}{text}\n")).concat())
}
