//! `--explain`: what a job would do, without doing it.

use std::borrow::Cow;
use std::path::Path;

use gristmill_engine::data::commit;
use gristmill_engine::job::Plan;

use super::failure::{Failure, one_line};
use super::flags::JobFlags;
use super::sizes::{Size, counted};
use super::stdout;

/// What is printed as one line of JSON.
#[derive(Debug, serde::Serialize)]
struct Json<'e> {
    app: &'e str,
    output: Option<Cow<'e, str>>,
    /// Why the job would be refused.
    refused: Option<&'e str>,
    hidden: u64,
    #[serde(flatten)]
    plan: &'e Plan,
}

/// Prints a plan for people, or as one line of JSON with the fields of [`Plan`] and more. `hidden`: entries of folders
/// that are passed over.
pub(crate) fn explain(app: &str, plan: Plan, hidden: u64, flags: &JobFlags) -> Result<(), Failure> {
    let folder = flags.folder();
    let refused = folder.and_then(|path| commit::check(path, flags.overwrite).err()).map(|e| e.to_string());
    if flags.json {
        let output = folder.map(Path::to_string_lossy);
        let json = Json { app, output, refused: refused.as_deref(), hidden, plan: &plan };
        let line = serde_json::to_string(&json).map_err(|e| Failure::Bug(e.to_string()))?;
        return stdout::print(line + "\n");
    }
    let mut lines = lines(app, &plan, folder);
    if hidden > 0 {
        let text = format!("{} whose names begin with '_' or '.'", counted(hidden, "file or folder"));
        lines.insert(2, ("passed over", text.replace("file or folders", "files or folders")));
    }
    lines.extend(refused.map(|e| ("refused", e)));
    stdout::print(lines.iter().map(|(label, text)| format!("{label:14}{}\n", one_line(text))).collect::<String>())
}

fn lines(app: &str, plan: &Plan, folder: Option<&Path>) -> Vec<(&'static str, String)> {
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
    vec![
        ("app", app.to_string()),
        ("input", format!("{} of {}{streams}", counted(plan.inputs as u64, "input"), Size(plan.input_bytes))),
        ("records", plan.format.clone()),
        ("work", format!("{} for {}", counted(plan.units, "unit"), counted(plan.threads as u64, "thread"))),
        ("memory", Size(plan.memory).to_string()),
        ("shuffle", shuffle.to_string()),
        ("output", format!("{} to {output}", counted(u64::from(plan.parts), "part"))),
        ("instructions", plan.isa.clone()),
    ]
}
