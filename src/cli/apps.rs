//! `apps`: which apps there are.

use gristmill_engine::registry::Entry;

use super::failure::Failure;
use super::stdout;

/// Prints a line for each app: its name and what it does.
pub(crate) fn apps(all: &[Entry]) -> Result<(), Failure> {
    let width = all.iter().map(|entry| entry.name().len()).max().unwrap_or(0);
    let lines = all.iter().map(|entry| format!("{:width$}  {}\n", entry.name(), entry.about()));
    stdout::print(lines.collect::<String>())
}
