//! Invariant 2: Output equals the reference: the lines of plain code over the same inputs, each once, in the parts' order.

use gristmill_proto::v1::JobState;

use super::{Manifest, SUCCESS, Seen, Violation, objects, violation};
use crate::reference::App;
use crate::workload::{Half, Wish};

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    let mut found = Vec::new();
    for (id, job) in ledger.jobs.iter().filter(|(_, job)| job.state == JobState::Completed) {
        let output = objects(seen.store(), &format!("{}/", job.wish.output));
        let manifest = output.get(&format!("{}/{SUCCESS}", job.wish.output)).map(|bytes| serde_json::from_slice(bytes));
        let manifest: Manifest = match manifest {
            Some(Ok(manifest)) => manifest,
            Some(Err(e)) => {
                found.push(violation(2, format!("{SUCCESS} of {} makes no sense: {e}", job.wish.output)));
                continue;
            }
            None => {
                found.push(violation(2, format!("{id} has completed, but {} has no {SUCCESS}", job.wish.output)));
                continue;
            }
        };
        // Another one may have replaced it.
        if manifest.job != *id {
            let other = ledger.jobs.get(&manifest.job);
            if !other.is_some_and(|other| other.wish.overwrite && other.wish.output == job.wish.output) {
                let what = format!("{id} has completed, but {} is of {}", job.wish.output, manifest.job);
                found.push(violation(2, what));
            }
            continue;
        }
        let bytes = |name: &String| output.get(&format!("{}/{name}", job.wish.output));
        let parts: Vec<Option<&Vec<u8>>> = manifest.parts.iter().map(|part| bytes(&part.name)).collect();
        // Of segments another job tells whether they are right.
        if job.wish.app == App::Fickle || job.wish.half == Half::Map {
            continue;
        }
        let bad = output.get(&format!("{}/_bad/records.jsonl", job.wish.output)).map_or(0, |bytes| lines_in(bytes));
        let wanted = job.wish.bad_records(&seen.users.inputs);
        if bad != wanted {
            found.push(violation(2, format!("{id} ({}): {bad} bad records, the reference has {wanted}", job.wish)));
        }
        if let Err(why) = compare(&job.wish, &seen.users.inputs, &parts) {
            found.push(violation(2, format!("{id} ({}): {why}", job.wish)));
        }
    }
    found
}

fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn compare(
    wish: &Wish,
    inputs: &std::collections::BTreeMap<String, String>,
    parts: &[Option<&Vec<u8>>],
) -> Result<(), String> {
    let mut lines = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let bytes = part.ok_or_else(|| format!("part {n} is not there"))?;
        let text = std::str::from_utf8(bytes).map_err(|e| format!("part {n}: {e}"))?;
        let from = lines.len();
        lines.extend(text.lines());
        if !matches!(wish.app, App::Grep(_)) && !lines[from..].is_sorted() {
            return Err(format!("part {n} is not in order"));
        }
    }
    if wish.app.is_ordered() && !lines.is_sorted() {
        return Err("parts are not in order".into());
    }
    lines.sort_unstable();
    let want = wish.lines(inputs);
    if lines.len() != want.len() {
        return Err(format!("{} lines, the reference has {}", lines.len(), want.len()));
    }
    match lines.iter().zip(&want).find(|(got, want)| **got != want.as_str()) {
        Some((got, want)) => Err(format!("'{got}' where the reference has '{want}'")),
        None => Ok(()),
    }
}
