//! Invariants 8 and 10: A commit happens once, and late effects change nothing that a reader sees: what was published stays as it is until another
//! job replaces it, and what was replaced does not come back.

use std::collections::BTreeMap;

use gristmill_engine::store::Memory;

use crate::marks::sometimes;

use super::whole_output::output_of;
use super::{Manifest, SUCCESS, Violation, objects, violation};
use crate::store::Change;

#[derive(Default)]
pub(super) struct Watch {
    outputs: BTreeMap<String, Seen>,
}

#[derive(Default)]
struct Seen {
    /// The jobs that published it, one after the other.
    jobs: Vec<String>,
    /// What the newest published: names and bytes.
    parts: BTreeMap<String, Vec<u8>>,
}

impl Watch {
    pub(super) fn changed(&mut self, change: &Change, store: &Memory) -> Option<Violation> {
        let output = output_of(change.name().as_str())?;
        let there = objects(store, &format!("{output}/"));
        let manifest = there.get(&format!("{output}/{SUCCESS}")).map(|bytes| serde_json::from_slice::<Manifest>(bytes));
        let seen = self.outputs.entry(output.to_string()).or_default();
        let Some(Ok(manifest)) = manifest else {
            let newest = seen.jobs.last();
            return newest.map(|job| violation(10, format!("{output} of {job} is gone after {change:?}")));
        };
        let part = |name: String| Some((name.clone(), there.get(&format!("{output}/{name}"))?.clone()));
        let parts: BTreeMap<String, Vec<u8>> =
            manifest.parts.iter().map(|part| part.name.clone()).filter_map(part).collect();
        if seen.jobs.last() == Some(&manifest.job) {
            let same = seen.parts == parts;
            seen.parts = parts;
            return (!same).then(|| violation(10, format!("{output} of {} is another after {change:?}", manifest.job)));
        }
        if !seen.jobs.is_empty() {
            sometimes("an output replaces another");
        }
        let again = seen.jobs.contains(&manifest.job);
        let job = manifest.job;
        (seen.jobs, seen.parts) = (seen.jobs.drain(..).chain([job.clone()]).collect(), parts);
        again.then(|| violation(8, format!("{output} is of {job} again after {change:?}")))
    }
}
