//! Invariants 8 and 10: A commit happens once, and late effects change nothing that a reader sees: what was published stays as it is until another
//! job replaces it, and what was replaced does not come back.

use std::collections::BTreeMap;

use gristmill_engine::store::Memory;
use gristmill_proto::v1::JobState;

use super::whole_output::output_of;
use super::{Manifest, SUCCESS, Seen as Run, Violation, objects, violation};
use crate::marks::sometimes;
use crate::store::Change;

/// A job is published, or it has failed or been cancelled, but not both.
pub(super) fn check(run: &Run<'_>) -> Vec<Violation> {
    let ledger = run.users.ledger();
    let success = objects(run.store(), "out/").into_iter().filter(|(name, _)| name.ends_with(SUCCESS));
    let published = success.filter_map(|(_, bytes)| Some(serde_json::from_slice::<Manifest>(&bytes).ok()?.job));
    let ended = |id: &String| ledger.jobs.get(id).map_or(JobState::Unspecified, |job| job.state);
    published.filter_map(|id| is_not_both(&id, ended(&id))).collect()
}

fn is_not_both(published: &str, state: JobState) -> Option<Violation> {
    let is_ended = matches!(state, JobState::Failed | JobState::Cancelled);
    is_ended.then(|| violation(8, format!("{published} is published and {state:?}")))
}

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use gristmill_engine::store::{Name, Publish, Store as _};

    use super::*;
    use crate::runtime::Simulation;

    fn put(store: &Memory, name: &str, bytes: &str) -> Change {
        let name = Name::new(name).unwrap();
        let _ = store.delete(&name, None).now_or_never();
        store.put(&name, Arc::new(bytes.as_bytes().to_vec())).now_or_never().unwrap().unwrap();
        Change::Put(name)
    }

    fn success(store: &Memory, job: &str) -> Change {
        let manifest = format!(r#"{{"job":"{job}","parts":[{{"name":"part-00000","bytes":1}}]}}"#);
        put(store, "out/a/_SUCCESS", &manifest)
    }

    #[test]
    fn what_is_published_stays_until_another_job_replaces_it() {
        let _simulation = Simulation::new(0);
        let (store, mut watch) = (Memory::new(Publish::Copy), Watch::default());
        let mut see = |change: &Change| watch.changed(change, &store).map(|found| found.invariant);
        assert_eq!(see(&put(&store, "out/a/part-00000", "1")), None);
        assert_eq!(see(&success(&store, "j-1")), None);
        assert_eq!(see(&put(&store, "out/a/part-00000", "2")), Some(10), "a late copy");
        assert_eq!(see(&success(&store, "j-2")), None);
        assert_eq!(see(&success(&store, "j-1")), Some(8), "again");
        let name = Name::new("out/a/_SUCCESS").unwrap();
        store.delete(&name, None).now_or_never().unwrap().unwrap();
        assert_eq!(see(&Change::Deleted(name)), Some(10));
    }

    #[test]
    fn what_was_cancelled_is_not_published() {
        assert_eq!(is_not_both("j", JobState::Completed), None);
        assert_eq!(is_not_both("j", JobState::Cancelled).map(|found| found.invariant), Some(8));
    }
}
