//! An app that misbehaves on purpose, for the tests of how errors are told.

use std::process::ExitCode;

use gristmill::clap;
use gristmill::{App, Chunk, Emit, Entry, Output, Shuffle, Values};

/// Fail where the input says so
///
/// Lines are keys. `map` panics on the line panic-in-map and calls bad-record bad; `reduce` panics on panic-in-reduce.
#[derive(clap::Args)]
struct Faulty {
    /// Wait so long before each line, in milliseconds
    #[arg(long, default_value_t = 0)]
    slow: u64,
}

impl App for Faulty {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        for line in chunk.records() {
            std::thread::sleep(std::time::Duration::from_millis(self.slow));
            assert_ne!(line, b"panic-in-map", "told to");
            match line {
                b"bad-record" => out.bad_record(line, "it says so itself"),
                _ => out.emit(line, 1),
            }
            out.count("lines", 1);
        }
    }

    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        assert!(key != b"panic-in-reduce", "told to");
        out.pair(key, values.iter().sum());
    }
}

/// Take a flag that every app has
#[derive(clap::Args)]
struct Clashing {
    /// Taken
    #[arg(long)]
    threads: bool,
}

impl App for Clashing {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    fn map<E: Emit<u64>>(&self, _: &Chunk<'_>, _: &mut E) {}

    fn combine(&self, _: &mut u64, _: u64) -> bool {
        true
    }

    fn reduce<V: Values<u64>>(&self, _: &[u8], _: &mut V, _: &mut Output<'_>) {}
}

fn main() -> ExitCode {
    let more = match std::env::var("FAULTY").unwrap_or_default().as_str() {
        "same-flag" => Some(Entry::new::<Clashing>("clashing")),
        "same-name" => Some(Entry::new::<Faulty>("faulty")),
        "panic" => Some(Entry::with::<Crash>("crash", |_| panic!("told to"))),
        _ => None,
    };
    gristmill::main([Entry::new::<Faulty>("faulty")].into_iter().chain(more))
}

/// Panic outside of any job
#[derive(clap::Args)]
struct Crash {}
