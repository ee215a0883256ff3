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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use gristmill_engine::store::Name;

    use super::*;

    fn see(store: &Memory, name: &str, bytes: &str) -> Option<u8> {
        let name = Name::new(name).unwrap();
        store.put(&name, Arc::new(bytes.as_bytes().to_vec())).now_or_never().unwrap().unwrap();
        Watch.changed(&Change::Put(name), store).map(|found| found.invariant)
    }

    #[test]
    fn what_can_be_seen_is_whole() {
        let manifest = r#"{"job":"j","parts":[{"name":"part-00000","bytes":1}]}"#;
        let store = Memory::new(Publish::Copy);
        assert_eq!(see(&store, "out/a/part-00000", "1"), None, "nobody looks before there is _SUCCESS");
        assert_eq!(see(&store, "out/a/_SUCCESS", manifest), None);
        assert_eq!(see(&store, "out/b/_SUCCESS", manifest), Some(9), "its part is not there");
        assert_eq!(see(&store, "out/c/part-00000", "12"), None);
        assert_eq!(see(&store, "out/c/_SUCCESS", manifest), Some(9), "its part is longer");
        assert_eq!(see(&Memory::new(Publish::Rename), "out/a/part-00000", "1"), Some(9), "a folder comes whole");
    }
}
