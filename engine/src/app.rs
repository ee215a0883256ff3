//! What a user implements: [`App`], and what it meets on its way: [`Chunk`], [`Emit`], [`Values`], [`Output`].
//!
//! The interface is batch-friendly on purpose. An app gets a whole chunk and emits borrowed keys; the engine owns
//! hashing, key storage, batching, prefetch and memory. `map` is compiled once per instruction set with the emitter
//! inlined into it, so a general app costs what a hand-written program would.

use std::fmt::Display;

pub use crate::data::chunk::{Chunk, Format, InputId};
pub use crate::data::output::Output;
pub use crate::data::words::ByteSet;
pub use crate::value::{Bytes, Fixed, Value};

/// How the engine brings the values of a key together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// One accumulator per key: [`App::combine`] takes in every value and always returns `true`. It must be
    /// associative and commutative: threads fold in the order in which they find values.
    Fold,
    /// All values of a key, in input order. [`App::combine`] may absorb a value into the one before it
    /// (a list of documents without repetitions); which neighbours meet depends on how the input was cut.
    Group,
    /// As `Group`, and parts are ranges of keys: the parts one after the other are in total order. The right choice
    /// when most keys are distinct, as in sorting. There is no combining.
    Sort,
}

/// A MapReduce program.
///
/// ```
/// use gristmill_engine::app::{App, Chunk, Emit, Output, Shuffle, Values};
///
/// struct LineLengths;
///
/// impl App for LineLengths {
///     type Value = u64;
///     const SHUFFLE: Shuffle = Shuffle::Fold;
///
///     fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
///         for line in chunk.records() {
///             out.emit(line.len().to_string().as_bytes(), 1);
///         }
///     }
///     fn combine(&self, total: &mut u64, n: u64) -> bool {
///         *total += n;
///         true
///     }
///     fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
///         let total = values.iter().sum();
///         out.pair(key, total);
///     }
/// }
/// ```
pub trait App: Send + Sync + 'static {
    /// What is emitted with a key: a [`Fixed`] type (an integer, a float, a small tuple) or [`Bytes`].
    type Value: Value;

    /// How values meet. See [`Shuffle`].
    const SHUFFLE: Shuffle;

    /// Whether [`App::partition`] says which part a key belongs to. Otherwise the key's stable hash does.
    const PARTITIONS: bool = false;

    /// Emits the pairs of one chunk. A chunk holds whole records of one input; the same app maps many chunks at once,
    /// from several threads, and chunks may be cut anywhere between two records.
    fn map<E: Emit<Self::Value>>(&self, chunk: &Chunk<'_>, out: &mut E);

    /// Takes `value` into `acc` and returns `true`, or returns `false` and leaves `acc` as it was, so that the value
    /// stands by itself. Never called for [`Shuffle::Sort`], nor for values of type [`Bytes`].
    fn combine(&self, acc: &mut <Self::Value as Value>::Stored, value: <Self::Value as Value>::Stored) -> bool {
        let _ = (acc, value);
        false
    }

    /// The part that a key belongs to, below `parts`; a higher number stands for the last part. The same for the same key,
    /// whoever asks. Only asked where [`App::PARTITIONS`] is set, and never for [`Shuffle::Sort`].
    fn partition(&self, key: &[u8], parts: u32) -> u32 {
        let _ = (key, parts);
        0
    }

    /// Writes what a key and its values come to. Keys arrive in the order of their raw bytes within a part. The
    /// result must not depend on which values were combined before.
    fn reduce<V: Values<Self::Value>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>);

    /// How the input is cut into records when the user does not say.
    fn format(&self) -> Format {
        Format::Lines
    }

    /// Keep only this many records, those of the highest [`Output::rank`] (then of the lowest key), in one part.
    fn top(&self) -> Option<usize> {
        None
    }

    /// Further files of the output, with their contents. Names begin with `_`, so that readers of the parts pass
    /// them over. `inputs` are the names of the inputs in order: position `n` is the [`InputId`] `n`.
    fn extra_files(&self, inputs: &[String]) -> Vec<(String, Vec<u8>)> {
        let _ = inputs;
        Vec::new()
    }
}

/// Where [`App::map`] puts its pairs.
pub trait Emit<V: Value> {
    /// Emits a pair. The key may be of any length up to 1 GiB and any lifetime: the engine copies what it must keep.
    fn emit(&mut self, key: &[u8], value: V::Ref<'_>);

    /// Adds to a counter of the job, which is reported at its end.
    fn count(&mut self, counter: &'static str, n: u64);

    /// Says that a record cannot be mapped, and why. Emit nothing of it. The job fails with the record's file and
    /// offset, unless the user allowed bad records to be skipped; then the record is kept beside the output.
    /// `record` must be a slice of the chunk.
    fn bad_record(&mut self, record: &[u8], reason: impl Display);
}

/// The values of one key, in input order. A value is good until the next one is asked for, since it may sit in the
/// buffer of a run on disk.
pub trait Values<V: Value> {
    /// The next value, or `None` after the last.
    fn next(&mut self) -> Option<V::Ref<'_>>;

    /// The values as an iterator, where they are plain data.
    fn iter(&mut self) -> ValuesIter<'_, Self, V>
    where
        V: Fixed,
        Self: Sized,
    {
        ValuesIter { values: self, value: std::marker::PhantomData }
    }
}

/// [`Values`] of a [`Fixed`] type as an iterator.
pub struct ValuesIter<'a, S, V> {
    values: &'a mut S,
    value: std::marker::PhantomData<V>,
}

impl<V: Fixed, S: Values<V>> Iterator for ValuesIter<'_, S, V> {
    type Item = V;

    #[inline(always)]
    fn next(&mut self) -> Option<V> {
        self.values.next()
    }
}
