//! An app whose maps give something else each time they run: what is in an output then says which runs it was made of.

use gristmill_engine::app::{App, Chunk, Emit, Output, Shuffle, Values};
use gristmill_engine::registry::Entry;
use openraft_rt::AsyncRuntime as _;
use rand::Rng as _;

use crate::runtime::SimRuntime;

/// Keys of each chunk, so that every part has some.
pub(crate) const KEYS: u32 = 16;

/// Write which run of a map each key is from
#[derive(Clone, clap::Args)]
struct Fickle {}

impl App for Fickle {
    type Value = u64;
    const SHUFFLE: Shuffle = Shuffle::Group;

    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let run = SimRuntime::thread_rng().next_u64();
        for key in 0..KEYS {
            out.emit(format!("{}@{}:{key}", chunk.input_name(), chunk.offset()).as_bytes(), run);
        }
    }

    fn combine(&self, _: &mut u64, _: u64) -> bool {
        false
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        for run in values.iter() {
            out.pair(key, run);
        }
    }
}

pub(crate) fn entry() -> Entry {
    Entry::new::<Fickle>("fickle")
}
