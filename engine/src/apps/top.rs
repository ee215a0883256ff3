//! The most frequent words or records.

use super::Words;
use crate::app::{App, Chunk, Emit, Output, Shuffle, Values};
use crate::job::{AppJob, Job};

/// Find the K most frequent words
///
/// Prints word, TAB, count, the most frequent first; words that are equally frequent in the order of their bytes.
#[derive(Clone, Debug, clap::Args)]
pub struct TopWords {
    /// How many to keep
    #[arg(long, short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub k: u32,
    /// Count whole records instead of words
    #[arg(long)]
    pub records: bool,
    /// What a word is
    #[command(flatten)]
    pub words: Words,
}

impl TopWords {
    pub(super) fn job(self) -> Result<Box<dyn Job>, String> {
        if self.records && (self.words.ignore_case || self.words.unicode) {
            return Err("--records counts records as they are: --ignore-case and --unicode are about words".into());
        }
        Ok(Box::new(AppJob(self)))
    }
}

impl App for TopWords {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    #[inline]
    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        if self.records {
            chunk.records().for_each(|record| out.emit(record, 1));
        } else {
            self.words.each(chunk, |word| out.emit(word, 1));
        }
    }

    #[inline]
    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        let total = values.iter().sum();
        out.rank(total);
        out.pair(key, total);
    }

    fn top(&self) -> Option<usize> {
        Some(self.k as usize)
    }
}
