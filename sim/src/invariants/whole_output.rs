//! Invariant 9: Nothing of a job is visible at its output before the job commits: a folder that is renamed into place is whole from the
//! first moment, and where objects are copied there is no `_SUCCESS` before all parts are there.

use gristmill_engine::store::{Memory, Publish, Store as _};

use super::{Manifest, SUCCESS, Violation, objects, violation};
use crate::store::Change;

#[derive(Default)]
pub(super) struct Watch;

/// The output that an object belongs to.
pub(super) fn output_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("out/")?;
    let end = rest.find('/').unwrap_or(rest.len());
    Some(&name[.."out/".len() + end])
}

impl Watch {
    pub(super) fn changed(&mut self, change: &Change, store: &Memory) -> Option<Violation> {
        let output = output_of(change.name().as_str())?;
        let there = objects(store, &format!("{output}/"));
        let Some(success) = there.get(&format!("{output}/{SUCCESS}")) else {
            let is_hidden = there.is_empty() || store.publish() == Publish::Copy;
            return (!is_hidden).then(|| violation(9, format!("{output} is there without {SUCCESS} after {change:?}")));
        };
        let manifest: Manifest = match serde_json::from_slice(success) {
            Ok(manifest) => manifest,
            Err(e) => return Some(violation(9, format!("{SUCCESS} of {output} makes no sense: {e}"))),
        };
        let partial = manifest.parts.iter().find(|part| {
            there.get(&format!("{output}/{}", part.name)).is_none_or(|bytes| bytes.len() as u64 != part.bytes)
        });
        partial.map(|part| violation(9, format!("{output} has {SUCCESS} without {} after {change:?}", part.name)))
    }
}
