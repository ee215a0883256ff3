//! Invariant 2: Output equals the reference: the lines of plain code over the same inputs, each once, in the parts' order.

use std::collections::BTreeMap;

use gristmill_proto::v1::JobState;

use super::{Manifest, SUCCESS, Seen, Violation, objects, violation};
use crate::reference::App;
use crate::workload::Half;

/// Where what was passed over is kept.
const BAD_RECORDS: &str = "_bad/records.jsonl";

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
        if let Some(stray) = stray(&job.wish.output, &output, &manifest) {
            found.push(violation(2, format!("{stray} is there, and {SUCCESS} does not name it")));
        }
        let bytes = |name: &String| output.get(&format!("{}/{name}", job.wish.output));
        let parts: Vec<Option<&Vec<u8>>> = manifest.parts.iter().map(|part| bytes(&part.name)).collect();
        // Of segments another job tells whether they are right.
        if job.wish.app == App::Fickle || job.wish.half == Half::Map {
            continue;
        }
        let bad = output.get(&format!("{}/{BAD_RECORDS}", job.wish.output)).map_or(0, |bytes| lines_in(bytes));
        let wanted = job.wish.bad_records(&seen.users.inputs);
        if bad != wanted {
            found.push(violation(2, format!("{id} ({}): {bad} bad records, the reference has {wanted}", job.wish)));
        }
        if let Err(why) = compare(&job.wish.app, &job.wish.lines(&seen.users.inputs), &parts) {
            found.push(violation(2, format!("{id} ({}): {why}", job.wish)));
        }
    }
    found
}

/// An object that readers of the folder take for a part and that is none. They pass over names that begin with '_'.
fn stray<'o>(folder: &str, output: &'o BTreeMap<String, Vec<u8>>, manifest: &Manifest) -> Option<&'o String> {
    output.keys().find(|name| {
        let name = name.strip_prefix(folder).and_then(|name| name.strip_prefix('/')).unwrap_or(name);
        !name.starts_with('_') && manifest.parts.iter().all(|part| part.name != name)
    })
}

fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn compare(app: &App, want: &[String], parts: &[Option<&Vec<u8>>]) -> Result<(), String> {
    let mut lines = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let bytes = part.ok_or_else(|| format!("part {n} is not there"))?;
        let text = std::str::from_utf8(bytes).map_err(|e| format!("part {n}: {e}"))?;
        let from = lines.len();
        lines.extend(text.lines());
        if !matches!(app, App::Grep(_)) && !lines[from..].is_sorted() {
            return Err(format!("part {n} is not in order"));
        }
    }
    if app.is_ordered() && !lines.is_sorted() {
        return Err("parts are not in order".into());
    }
    lines.sort_unstable();
    if lines.len() != want.len() {
        return Err(format!("{} lines, the reference has {}", lines.len(), want.len()));
    }
    match lines.iter().zip(want).find(|(got, want)| **got != want.as_str()) {
        Some((got, want)) => Err(format!("'{got}' where the reference has '{want}'")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::ManifestPart;

    #[test]
    fn parts_hold_the_lines_of_the_reference_in_their_order() {
        let want: Vec<String> = ["a\t1", "b\t2", "c\t1"].map(String::from).into();
        let said = |app: App, parts: &[&str]| {
            let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
            compare(&app, &want, &parts.iter().map(Some).collect::<Vec<_>>())
        };
        let words = || App::WordCount;
        assert_eq!(said(words(), &["b\t2\n", "a\t1\nc\t1\n"]), Ok(()));
        assert!(said(words(), &["b\t2\n", "c\t1\na\t1\n"]).unwrap_err().contains("part 1 is not in order"));
        assert!(said(App::Sort, &["b\t2\n", "a\t1\nc\t1\n"]).unwrap_err().contains("parts are not in order"));
        assert!(said(words(), &["b\t2\n", "a\t1\n"]).unwrap_err().contains("2 lines, the reference has 3"));
        assert!(said(words(), &["b\t2\n", "a\t1\na\t1\n"]).unwrap_err().contains("'a\t1' where"));
        assert!(said(words(), &["b\t3\n", "a\t1\nc\t1\n"]).unwrap_err().contains("'b\t3' where"));
        assert!(compare(&words(), &want, &[None]).unwrap_err().contains("part 0 is not there"));
    }

    #[test]
    fn nothing_else_is_in_an_output() {
        let part = ManifestPart { name: "part-00000".into(), bytes: 3 };
        let manifest = Manifest { job: "j".into(), parts: vec![part] };
        let output = |names: &[&str]| names.iter().map(|name| (format!("out/a/{name}"), Vec::new())).collect();
        let mine: BTreeMap<_, _> = output(&["part-00000", SUCCESS, BAD_RECORDS]);
        assert_eq!(stray("out/a", &mine, &manifest), None);
        let more: BTreeMap<_, _> = output(&["part-00000", "part-00001", SUCCESS]);
        assert_eq!(stray("out/a", &more, &manifest).map(String::as_str), Some("out/a/part-00001"));
    }
}
