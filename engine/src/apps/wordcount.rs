//! Counts words: the first example of the MapReduce paper (Dean and Ghemawat, OSDI 2004, section 2.1).

use super::Words;
use crate::app::{App, Chunk, Emit, Output, Shuffle, Values};

/// Count how often each word occurs
///
/// A word is a run of ASCII letters and digits. Prints word, TAB, count.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WordCount {
    /// What a word is
    #[command(flatten)]
    pub words: Words,
}

impl App for WordCount {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    #[inline]
    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        self.words.each(chunk, |word| out.emit(word, 1));
    }

    #[inline]
    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        out.pair(key, values.iter().sum());
    }
}
