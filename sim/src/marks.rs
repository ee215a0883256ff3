//! Things that must happen in some run of a campaign, or it has not looked where it should have: rare paths, and faults
//! that have met something.
//!
//! The idea is that of the "sometimes" assertions of Antithesis and of the `TEST` macro of FoundationDB's simulator (Zhou et
//! al., SIGMOD 2021, §4).

use std::collections::BTreeMap;

use gristmill_engine::node::point::Point;
use serde::{Deserialize, Serialize};

pub(crate) use crate::runtime::sometimes;

/// All marks but those of points, which are called as the points are.
const MARKS: [&str; 40] = [
    "another leader",
    "leadership handed over",
    "a worker is taken for dead",
    "a worker has drained",
    "segments are moved to the store",
    "segments are missing",
    "a second attempt beside the first",
    "an attempt fails",
    "another epoch",
    "an output replaces another",
    "a submission comes twice",
    "a submission's outcome is not known",
    "a submission is refused",
    "a submission is given up",
    "a job is cancelled",
    "a job fails",
    "a job is retried",
    "a job follows another",
    "a job reduces what another mapped",
    "bad records are passed over",
    "too many bad records",
    "a snapshot is sent",
    "a folder is refused",
    "a folder is replaced",
    "a master has what it promised",
    "a master that voted loses power",
    "a master that took entries loses power",
    "a leader is cut off while it takes a job",
    "a message is lost",
    "a message comes twice",
    "the store does not answer",
    "the store does it late",
    "a disk of a master is full",
    "a worker's disk is full",
    "a token is refused",
    "a session is refreshed",
    "a user is demoted",
    "a removed user comes back",
    "keys are rotated",
    "a master does not know who may do what",
];

/// How many runs of a campaign reached what, by mark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reached(BTreeMap<String, u64>);

impl Reached {
    /// One more run.
    pub fn add<'m>(&mut self, marks: impl IntoIterator<Item = &'m str>) {
        for mark in marks {
            *self.0.entry(mark.into()).or_default() += 1;
        }
    }

    /// Marks that no run has reached.
    pub fn never(&self) -> Vec<&'static str> {
        all().filter(|mark| !self.0.contains_key(*mark)).collect()
    }

    /// The mark that the fewest runs have reached, of those that some have.
    pub fn rarest(&self) -> Option<(&str, u64)> {
        self.0.iter().map(|(mark, runs)| (mark.as_str(), *runs)).min_by_key(|(_, runs)| *runs)
    }
}

/// All marks.
fn all() -> impl Iterator<Item = &'static str> {
    MARKS.into_iter().chain(Point::ALL.into_iter().map(Point::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_run_reached_is_told() {
        let mut reached = Reached::default();
        assert_eq!(reached.never().len(), all().count());
        reached.add(all().skip(1));
        reached.add(all().skip(2));
        assert_eq!(reached.never(), ["another leader"]);
        assert_eq!(reached.rarest(), Some(("leadership handed over", 1)));
    }

    /// A mark that is spelled in two ways would never be reached.
    #[test]
    fn every_mark_is_set_somewhere_and_no_other_is() {
        let sources = ["src", "src/invariants", "src/workload"].map(|folder| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let files =
                entries.filter(|file| file.extension().is_some_and(|e| e == "rs") && !file.ends_with("marks.rs"));
            files.map(|file| std::fs::read_to_string(file).unwrap()).collect::<String>()
        });
        let text = sources.concat();
        let set = text.split("sometimes(\"").skip(1).filter_map(|rest| rest.split_once('"').map(|(mark, _)| mark));
        let set: std::collections::BTreeSet<&str> = set.collect();
        assert_eq!(set, MARKS.into_iter().collect());
    }
}
