//! An app that cannot take some records, and counts how often each of the others occurs.

use gristmill_engine::app::{App, Chunk, Emit, Output, Shuffle, Values};
use gristmill_engine::registry::Entry;

/// What is wrong with a record.
pub(crate) const REASON: &str = "it has the word in it";

/// Counts the records that it takes.
pub(crate) const TAKEN: &str = "taken";

/// Count lines, but none that has a certain word in it
#[derive(Clone, clap::Args)]
struct Picky {
    /// The word
    word: String,
}

impl App for Picky {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        for record in chunk.records() {
            match String::from_utf8_lossy(record).contains(&self.word) {
                true => out.bad_record(record, REASON),
                false => {
                    out.count(TAKEN, 1);
                    out.emit(record, 1);
                }
            }
        }
    }

    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        let total: u64 = values.iter().sum();
        out.pair(key, total);
    }
}

pub(crate) fn entry() -> Entry {
    Entry::new::<Picky>("picky")
}
