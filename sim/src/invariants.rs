//! What must hold in every run, one file for each invariant of the design. They look at what users were told, at the bytes in
//! the store, at what nodes say of themselves, and at nothing inside of a node.

mod cheap_drain;
mod commit_stays;
mod ended_clean;
mod equal_output;
mod equal_replicas;
mod fetchable;
mod forward_only;
mod linear_looks;
mod no_loss;
mod no_panic;
mod no_phantoms;
mod no_regress;
mod one_epoch;
mod right_status;
mod tokens_end;
mod whole_output;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use gristmill_engine::store::{Memory, Name, Store as _, list_all};
use serde::{Deserialize, Serialize};

use crate::attempts::Attempts;
use crate::cluster::Cluster;
use crate::runtime::{Ended, now};
use crate::said::Said;
use crate::store::Change;
use crate::workload::Users;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The invariant's number in the design.
    pub invariant: u8,
    /// What was seen.
    pub what: String,
}

/// What a run looks like once all has healed and every job should have ended.
pub(crate) struct Seen<'s> {
    pub(crate) users: &'s Users,
    pub(crate) cluster: &'s Arc<Cluster>,
}

impl Seen<'_> {
    fn store(&self) -> &Memory {
        self.cluster.store.memory()
    }
}

/// What watches while the run goes on.
#[derive(Default)]
pub(crate) struct Watches {
    whole_output: whole_output::Watch,
    commit_stays: commit_stays::Watch,
    equal_replicas: equal_replicas::Watch,
    no_regress: no_regress::Watch,
    fetchable: fetchable::Watch,
    cheap_drain: cheap_drain::Watch,
    attempts: Attempts,
    found: Vec<Violation>,
}

impl Watches {
    /// A node says something to another.
    pub(crate) fn hear(&mut self, said: &Said, store: &Memory) {
        let found = self.attempts.hear(said);
        let found = found.into_iter().chain(self.no_regress.hear(said)).chain(self.fetchable.hear(said, now()));
        self.found.extend(found.chain(self.cheap_drain.hear(said, &self.attempts, store)));
    }

    /// From here on nothing goes wrong.
    pub(crate) fn healed(&mut self) {
        self.fetchable.healed();
    }

    /// The store is another than it was, or somebody tried.
    pub(crate) fn changed(&mut self, change: &Change, happened: bool, store: &Memory) {
        if let Change::Copied { from, to } = change {
            let bytes = happened.then(|| store.head(to).now_or_never()?.ok()).flatten().map(|meta| meta.len);
            self.found.extend(self.attempts.copied(from.as_str(), bytes));
        }
        if !happened {
            return;
        }
        let found =
            self.whole_output.changed(change, store).into_iter().chain(self.commit_stays.changed(change, store));
        self.found.extend(found);
    }

    /// A look at all masters.
    pub(crate) fn look(&mut self, cluster: &Cluster) {
        let found = self.equal_replicas.look(cluster).into_iter().chain(self.no_regress.look(cluster));
        self.found.extend(found);
    }

    pub(crate) fn found(&self) -> &[Violation] {
        &self.found
    }
}

/// All that does not hold at the end of a run.
pub(crate) fn check(seen: &Seen<'_>, ended: &Ended) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(no_loss::check(seen));
    found.extend(equal_output::check(seen));
    found.extend(right_status::check(seen));
    found.extend(commit_stays::check(seen));
    found.extend(one_epoch::check(seen));
    found.extend(forward_only::check(seen));
    found.extend(linear_looks::check(seen));
    found.extend(no_phantoms::check(seen));
    found.extend(tokens_end::check(seen));
    found.extend(no_regress::check(seen));
    found.extend(ended_clean::check(seen));
    found.extend(no_panic::check(ended));
    found
}

/// Whether nothing is left of jobs that have ended.
pub(crate) fn is_clean(seen: &Seen<'_>) -> bool {
    ended_clean::left(seen).is_empty()
}

pub(crate) fn violation(invariant: u8, what: impl Into<String>) -> Violation {
    Violation { invariant, what: what.into() }
}

/// All objects of a store whose names begin so, with their bytes.
fn objects(store: &Memory, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let names = list_all(store, prefix).now_or_never().and_then(Result::ok).unwrap_or_default();
    let bytes = |name: &Name, len| store.get(name, 0..len).now_or_never().and_then(Result::ok).unwrap_or_default();
    names.into_iter().map(|(name, meta)| (name.as_str().to_string(), bytes(&name, meta.len))).collect()
}

/// What `_SUCCESS` of an output says: which job, and of each part its name and length.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Manifest {
    job: String,
    parts: Vec<ManifestPart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ManifestPart {
    name: String,
    bytes: u64,
}

const SUCCESS: &str = "_SUCCESS";

/// How long things may take that must happen in bounded time, once all is well.
pub(crate) const BOUND: Duration = Duration::from_secs(90);
