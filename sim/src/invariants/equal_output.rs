//! Invariant 2: Output equals the reference: the lines of plain code over the same inputs, each once, in the parts' order.

use gristmill_proto::v1::JobState;

use super::{Manifest, SUCCESS, Seen, Violation, objects, violation};
use crate::reference::App;
use crate::workload::Known;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    let mut found = Vec::new();
    for (id, job) in ledger.jobs.iter().filter(|(_, job)| job.state == JobState::Completed) {
        let output = objects(seen.store(), &format!("{}/", job.output));
        let manifest = output.get(&format!("{}/{SUCCESS}", job.output)).map(|bytes| serde_json::from_slice(bytes));
        let manifest: Manifest = match manifest {
            Some(Ok(manifest)) => manifest,
            Some(Err(e)) => {
                found.push(violation(2, format!("{SUCCESS} of {} makes no sense: {e}", job.output)));
                continue;
            }
            None => {
                found.push(violation(2, format!("{id} has completed, but {} has no {SUCCESS}", job.output)));
                continue;
            }
        };
        // Another one may have replaced it.
        if manifest.job != *id {
            let other = ledger.jobs.get(&manifest.job);
            if !other.is_some_and(|other| other.overwrite && other.output == job.output) {
                let what = format!("{id} has completed, but {} is of {}", job.output, manifest.job);
                found.push(violation(2, what));
            }
            continue;
        }
        let bytes = |name: &String| output.get(&format!("{}/{name}", job.output));
        let parts: Vec<Option<&Vec<u8>>> = manifest.parts.iter().map(|part| bytes(&part.name)).collect();
        if job.app == App::Fickle {
            continue;
        }
        if let Err(why) = compare(job, &seen.users.read_by(job), &parts) {
            found.push(violation(2, format!("{id} ({:?} of {:?}): {why}", job.app, job.inputs)));
        }
    }
    found
}

fn compare(
    job: &Known,
    inputs: &std::collections::BTreeMap<String, String>,
    parts: &[Option<&Vec<u8>>],
) -> Result<(), String> {
    let mut lines = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let bytes = part.ok_or_else(|| format!("part {n} is not there"))?;
        let text = std::str::from_utf8(bytes).map_err(|e| format!("part {n}: {e}"))?;
        let from = lines.len();
        lines.extend(text.lines());
        if !matches!(job.app, App::Grep(_)) && !lines[from..].is_sorted() {
            return Err(format!("part {n} is not in order"));
        }
    }
    if job.app.is_ordered() && !lines.is_sorted() {
        return Err("parts are not in order".into());
    }
    lines.sort_unstable();
    let want = job.app.lines(inputs);
    if lines.len() != want.len() {
        return Err(format!("{} lines, the reference has {}", lines.len(), want.len()));
    }
    match lines.iter().zip(&want).find(|(got, want)| **got != want.as_str()) {
        Some((got, want)) => Err(format!("'{got}' where the reference has '{want}'")),
        None => Ok(()),
    }
}
