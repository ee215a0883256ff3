//! Hashtags: an app of your own, in a crate of your own, with all of Gristmill around it.
//!
//! ```text
//! $ cargo run --release -p wordfreq -- run hashtags --min-length 3 posts/ -o out/
//! $ cargo run --release -p wordfreq -- cat out/ | head -2
//! #mapreduce      7
//! #rust   12
//! ```
//!
//! To begin a crate like this: `cargo new mine`, `cargo add gristmill`, and write `src/main.rs` as below.

use std::process::ExitCode;

// The derive of `clap::Args` looks for the name `clap`; Gristmill's own will do, so there is nothing else to depend on.
use gristmill::clap;
use gristmill::{App, Chunk, Emit, Entry, Output, Shuffle, Values};

/// Count hashtags
///
/// A hashtag is a '#' and the letters, digits and underscores behind it. Prints hashtag, TAB, count.
#[derive(clap::Args)]
struct Hashtags {
    /// Pass over hashtags of fewer characters, not counting the '#'
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_length: usize,
}

impl App for Hashtags {
    /// What goes with each key: here, how often it was seen.
    type Value = u64;
    /// One count for each key is all that is kept, however often a key is emitted.
    const SHUFFLE: Shuffle = Shuffle::Fold;

    /// Called with pieces of the input, from several threads at once. Whole lines, so no hashtag is cut in two.
    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        for line in chunk.records() {
            for (at, _) in line.iter().enumerate().filter(|(_, byte)| **byte == b'#') {
                let name = &line[at + 1..];
                let end = name.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_').unwrap_or(name.len());
                if end >= self.min_length.max(1) {
                    out.emit(&line[at..=at + end], 1);
                }
            }
        }
    }

    /// Two counts of one hashtag make one.
    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    /// Called with each hashtag, in order, to write its line of the result.
    fn reduce<V: Values<u64>>(&self, hashtag: &[u8], counts: &mut V, out: &mut Output<'_>) {
        out.pair(hashtag, counts.iter().sum());
    }
}

fn main() -> ExitCode {
    gristmill::main([Entry::new::<Hashtags>("hashtags").with_example("posts/ -o out/")])
}
