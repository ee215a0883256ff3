//! MapReduce with nothing else to run: the command line over the engine, for the built-in apps and for yours.
//!
//! A program with an app of your own is an [`App`] and a call of [`main`]. It has every command of `gristmill`
//! (`run`, `cat`, `apps`, `completions`) and gets the same engine; the app's fields are its flags, and its
//! documentation comment is its help.
//!
//! ```no_run
//! use gristmill::clap; // the derive of clap::Args looks for this name
//! use gristmill::{App, Chunk, Emit, Entry, Output, Shuffle, Values};
//!
//! /// Count lines by their length
//! #[derive(clap::Args)]
//! struct LineLengths {
//!     /// Pass over lines of fewer bytes
//!     #[arg(long, default_value_t = 0)]
//!     min: usize,
//! }
//!
//! impl App for LineLengths {
//!     type Value = u64;
//!     const SHUFFLE: Shuffle = Shuffle::Fold;
//!
//!     fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
//!         for line in chunk.records().filter(|line| line.len() >= self.min) {
//!             out.emit(line.len().to_string().as_bytes(), 1);
//!         }
//!     }
//!     fn combine(&self, total: &mut u64, n: u64) -> bool {
//!         *total += n;
//!         true
//!     }
//!     fn reduce<V: Values<u64>>(&self, length: &[u8], counts: &mut V, out: &mut Output<'_>) {
//!         out.pair(length, counts.iter().sum());
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     gristmill::main([Entry::new::<LineLengths>("line-lengths")])
//! }
//! ```
//!
//! `examples/wordfreq` is such a crate, with its test. To put your apps beside the built-in ones, chain them:
//! `gristmill::main(gristmill::apps::all().into_iter().chain([…]))`. To run jobs without a command line, use
//! [`engine::job`].

// Three exceptions: `cli::closed`, `process::child` and `wasm::pages`.
#![deny(unsafe_code)]

mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "scripts")]
mod process;
#[cfg(feature = "scripts")]
mod python;
#[cfg(feature = "scripts")]
mod sandbox;
#[cfg(feature = "scripts")]
mod streaming;
#[cfg(feature = "wasm")]
mod wasm;

#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;

pub use clap;
pub use gristmill_engine as engine;
pub use gristmill_engine::app::{
    App, ByteSet, Bytes, Chunk, Emit, Fixed, Format, InputId, Output, Shuffle, Value, Values,
};
pub use gristmill_engine::apps;
pub use gristmill_engine::registry::Entry;

/// The whole command line with these apps: reads the program's arguments, does what they say, and tells errors.
///
/// Takes over signals (SIGINT, SIGTERM, SIGHUP) while a job runs, and the panic hook: a panic of an app is told in one
/// line, with its backtrace only if `RUST_BACKTRACE` is set. Call it once, from `main`.
pub fn main(apps: impl IntoIterator<Item = Entry>) -> std::process::ExitCode {
    cli::main(apps.into_iter().collect())
}
