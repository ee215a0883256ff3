//! The data plane: from bytes of input to sorted parts.
//!
//! The way of a record: `input` lists, `source` loads chunks, an app maps them (`chunk`, `words`), `emit` batches what
//! it emits into a `table` of accumulators or lists (`group`), or into a `log` where order is all; `gather` and
//! `scatter` bring keys together and sort them, `external` does so over `runs` on disk when memory is short, and
//! `output` writes parts, which `commit` publishes.

pub(crate) mod arena;
pub(crate) mod buckets;
pub mod chunk;
pub mod commit;
pub mod compress;
pub(crate) mod emit;
pub(crate) mod external;
pub(crate) mod fault;
pub(crate) mod gather;
pub(crate) mod group;
pub mod hash;
pub mod input;
pub(crate) mod item;
pub(crate) mod log;
pub mod merge;
pub mod output;
pub(crate) mod pages;
pub(crate) mod pieces;
pub(crate) mod ranges;
pub(crate) mod runs;
pub(crate) mod scatter;
pub mod segment;
pub(crate) mod sort;
pub(crate) mod source;
pub(crate) mod spans;
pub(crate) mod table;
pub(crate) mod tasks;
pub mod words;
