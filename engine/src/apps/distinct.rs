//! The different records of the input.

use crate::app::{App, Chunk, Emit, Output, Shuffle, Values};

/// Keep one of each distinct record
///
/// Prints records in the order of their bytes. Lines that end in CR LF are the same as with LF, and come out with LF.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Distinct {
    /// Print how often each occurs: record, TAB, count, and what ends a record of the input
    #[arg(long, short)]
    pub count: bool,
}

impl App for Distinct {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    #[inline]
    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        for record in chunk.records() {
            out.emit(record, 1);
        }
    }

    #[inline]
    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        if !self.count {
            return out.record(key);
        }
        out.put(key);
        out.put(b"\t");
        out.number(values.iter().sum());
        // Records divided by NUL may hold line feeds.
        out.put(&[out.separator().unwrap_or(b'\n')]);
        out.end();
    }
}
