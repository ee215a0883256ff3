//! A run as a file: a seed, a plan and what was found, so that it can be run again, made smaller, and told.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::plan::{Plan, tree};
use crate::run::{Outcome, run};

/// A run that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What it shows, for people.
    #[serde(default)]
    pub about: String,
    /// From which everything beyond the plan follows.
    pub seed: u64,
    /// Whether the plan was made with a subset of the kinds of faults.
    pub swarm: bool,
    /// Whether the plan was made for a large cluster.
    #[serde(default)]
    pub large: bool,
    /// Invariants that did not hold when it was found.
    #[serde(default)]
    pub invariants: Vec<u8>,
    /// What happens.
    pub plan: Plan,
}

/// The numbers of the invariants that an outcome breaks.
pub fn broken(outcome: &Outcome) -> Vec<u8> {
    let mut numbers: Vec<u8> = outcome.violations.iter().map(|violation| violation.invariant).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

impl Case {
    /// The case that a seed stands for: see [`tree`].
    pub fn of(seed: u64, swarm: bool, large: bool) -> Self {
        let plan = tree(seed, swarm, large).current();
        Self { about: String::new(), seed, swarm, large, invariants: Vec::new(), plan }
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        run(self.seed, &self.plan)
    }

    /// Reads one.
    ///
    /// # Errors
    /// One line: that the file cannot be read, or is no case.
    pub fn read(file: &Path) -> Result<Self, String> {
        let bytes = fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        serde_json::from_slice(&bytes).map_err(|e| format!("{} is no case: {e}", file.display()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// One line.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        fs::write(file, text + "\n").map_err(|e| format!("cannot write {}: {e}", file.display()))
    }

    /// A case with as little in it as proptest finds that still breaks one of the same invariants. `more` says after each
    /// run whether there is time for another; it is given how many faults are left.
    ///
    /// # Errors
    /// That the plan is not the one of its seed, which is what can be made smaller, or that it breaks nothing.
    pub fn shrink(&self, mut more: impl FnMut(usize) -> bool) -> Result<Self, String> {
        let mut tree = tree(self.seed, self.swarm, self.large);
        if tree.current() != self.plan {
            return Err("only the plan that a seed stands for can be made smaller; this is another".into());
        }
        let wanted = broken(&self.run());
        if wanted.is_empty() {
            return Err("this run breaks no invariant".into());
        }
        let mut smallest = Self { invariants: wanted.clone(), ..self.clone() };
        let mut simpler = tree.simplify();
        while simpler {
            let plan = tree.current();
            let broken = broken(&run(self.seed, &plan));
            simpler = match broken.iter().any(|number| wanted.contains(number)) {
                true => {
                    smallest = Self { invariants: broken, plan, ..smallest };
                    tree.simplify()
                }
                false => tree.complicate(),
            };
            if !more(smallest.plan.faults.len()) {
                break;
            }
        }
        Ok(smallest)
    }
}
