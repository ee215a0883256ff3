//! Invariant 6: All reducers of a stage read one map epoch: in the output of an app whose maps give something else each time,
//! all keys of one stretch of input are from the same run of its map.

use std::collections::BTreeMap;

use gristmill_proto::v1::JobState;

use super::{Manifest, SUCCESS, Seen, Violation, objects, violation};
use crate::fickle::KEYS;
use crate::reference::App;
use crate::workload::Half;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    let mut found = Vec::new();
    let done = ledger.jobs.iter().filter(|(_, job)| job.state == JobState::Completed);
    let fickle =
        done.map(|(id, job)| (id, &job.wish)).filter(|(_, wish)| wish.app == App::Fickle && wish.half != Half::Map);
    for (id, job) in fickle {
        let output = objects(seen.store(), &format!("{}/", job.output));
        let success = output.get(&format!("{}/{SUCCESS}", job.output));
        let manifest: Option<Manifest> = success.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let Some(manifest) = manifest.filter(|manifest| manifest.job == *id) else { continue };
        let parts = manifest.parts.iter().filter_map(|part| output.get(&format!("{}/{}", job.output, part.name)));
        let text: String = parts.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
        let wanted: Vec<String> = job
            .texts(&seen.users.inputs)
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, _)| name)
            .collect();
        if let Err(why) = agree(&text, &wanted) {
            found.push(violation(6, format!("{id}: {why}")));
        }
    }
    found
}

/// Whether all keys of a stretch name the same run, and none is missing.
fn agree(text: &str, inputs: &[String]) -> Result<(), String> {
    let mut runs = BTreeMap::<&str, Vec<&str>>::new();
    for line in text.lines() {
        let (stretch, run) = line.split_once(':').ok_or_else(|| format!("'{line}' is no line of it"))?;
        runs.entry(stretch).or_default().push(run.split_once('\t').map_or("", |(_, run)| run));
    }
    for (stretch, of) in &runs {
        if of.len() != KEYS as usize || of.iter().any(|run| *run != of[0]) {
            return Err(format!("the keys of {stretch} are from the runs {of:?}"));
        }
    }
    let missing = inputs.iter().find(|input| !runs.contains_key(format!("{input}@0").as_str()));
    missing.map_or(Ok(()), |input| Err(format!("nothing is from {input}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_stretch_are_of_one_run() {
        let text = |last: u64| -> String {
            (0..KEYS).map(|key| format!("in/a@0:{key}\t{}\n", if key + 1 == KEYS { last } else { 7 })).collect()
        };
        let inputs = ["in/a".to_string()];
        assert_eq!(agree(&text(7), &inputs), Ok(()));
        assert!(agree(&text(8), &inputs).unwrap_err().contains("in/a@0 are from"));
        assert!(agree(text(7).trim_end().rsplit_once('\n').unwrap().0, &inputs).is_err(), "one is missing");
        assert!(agree("", &inputs).unwrap_err().contains("nothing is from in/a"));
    }
}
