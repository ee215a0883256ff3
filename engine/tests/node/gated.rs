//! An app that waits where a test wants it to, and counts what it was given.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use gristmill_engine::app::{App, Chunk, Emit, Output, Shuffle, Values};
use gristmill_engine::job::AppJob;
use gristmill_engine::registry::Entry;

/// What one test tells its app, and hears of it.
#[derive(Default)]
pub struct Gate {
    /// Maps wait.
    pub holds_maps: AtomicBool,
    /// Reducers wait.
    pub holds_reducers: AtomicBool,
    /// The app panics over its flags.
    pub hopeless: AtomicBool,
    /// Maps that have begun.
    pub maps: AtomicU64,
    /// Records that were mapped.
    pub records: AtomicU64,
    /// Reducers that have begun.
    pub reducers: AtomicU64,
}

/// One for each test.
pub static GATES: LazyLock<[Gate; 4]> = LazyLock::new(Default::default);

fn wait(holds: &AtomicBool) {
    while holds.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Count the first words of lines
#[derive(Clone, clap::Args)]
struct Gated {
    /// Which gate
    #[arg(long)]
    gate: usize,
}

impl App for Gated {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Fold;

    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let gate = &GATES[self.gate];
        gate.maps.fetch_add(1, SeqCst);
        wait(&gate.holds_maps);
        for line in chunk.records() {
            gate.records.fetch_add(1, SeqCst);
            out.emit(line.split(|byte| *byte == b' ').next().unwrap_or_default(), 1);
        }
    }

    fn combine(&self, total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        let gate = &GATES[self.gate];
        gate.reducers.fetch_add(1, SeqCst);
        wait(&gate.holds_reducers);
        out.pair(key, values.iter().sum());
    }
}

pub fn entry() -> Entry {
    Entry::with::<Gated>("gated", |app| {
        assert!(!GATES[app.gate].hopeless.load(SeqCst), "the app panics");
        Ok(Box::new(AppJob(app)))
    })
}
