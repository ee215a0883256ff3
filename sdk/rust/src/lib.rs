//! Apps for Gristmill as WebAssembly, in Rust: a type that implements [`App`], and [`export!`].
//!
//! ```sh
//! cargo build --release --target wasm32-unknown-unknown -p gristmill-guest --example wordcount
//! gristmill run wasm target/wasm32-unknown-unknown/release/examples/wordcount.wasm books/ -o out
//! ```
//!
//! What is exported is a plain module whose functions are as the canonical ABI has those of the world `gristmill:app/app`
//! (`docs/wasm.md`): nothing else is needed to make an app of it. `abi` is that ABI, `pairs` how pairs are packed, `sums` a table for those
//! who count.
//! An error of a function fails its task, with its text; so does a panic, without.

pub mod abi;
mod pairs;
mod sums;

pub use pairs::{Pairs, Values};
pub use sums::Sums;

/// What a task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Records to pairs.
    Map,
    /// Pairs to lines.
    Reduce,
}

/// A task, made anew for each.
#[derive(Clone, Copy, Debug)]
pub struct Task<'t> {
    /// What it is to do.
    pub stage: Stage,
    /// The name of what is mapped.
    pub input: &'t str,
    /// Batches are lines with their ends; else records, each behind its length in 32 bits, little-endian.
    pub lines: bool,
}

/// What an app does in one task.
pub trait App: Sized {
    /// Begins a task.
    ///
    /// # Errors
    /// Why the task fails.
    fn begin(task: Task<'_>) -> Result<Self, String>;

    /// Maps whole records, about a MiB of them, to pairs.
    ///
    /// # Errors
    /// Why the task fails.
    fn map(&mut self, records: &[u8], out: &mut Pairs) -> Result<(), String>;

    /// Ends a map: what is left to hand on.
    ///
    /// # Errors
    /// Why the task fails.
    fn mapped(&mut self, out: &mut Pairs) -> Result<(), String> {
        let _ = out;
        Ok(())
    }

    /// Sums up values of a key before they are shuffled: all of the key's at hand, or some.
    ///
    /// # Errors
    /// Why the task fails.
    fn combine(&mut self, key: &[u8], values: Values<'_>, out: &mut Pairs) -> Result<(), String> {
        values.for_each(|value| out.push(key, value));
        Ok(())
    }

    /// Reduces all values of a key to lines of the output. Keys come in the order of their bytes.
    ///
    /// # Errors
    /// Why the task fails.
    fn reduce(&mut self, key: &[u8], values: Values<'_>, out: &mut Vec<u8>) -> Result<(), String>;
}

/// Adds to a counter of the job. It counts once the task has succeeded.
pub fn count(group: &str, name: &str, amount: i64) {
    abi::count(group, name, amount);
}

/// Says how far the task is.
pub fn status(text: &str) {
    abi::status(text);
}

/// Says a line for people.
pub fn log(line: &str) {
    abi::log(line);
}

/// Exports an app, with `combine` where that is named: `export!(WordCount)` or `export!(WordCount, combine)`.
#[macro_export]
macro_rules! export {
    ($app:ty) => {
        $crate::abi::exports!($app);
    };
    ($app:ty, combine) => {
        $crate::abi::exports!($app);
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn combine(at: *mut u8, len: usize) -> *mut $crate::abi::Area {
                // SAFETY: by the ABI they are there, and ours.
                let pairs = unsafe { $crate::abi::given(at, len) };
                APP.with_borrow_mut(|app| $crate::abi::combine(app, pairs))
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_combine(area: *mut $crate::abi::Area) {
                // SAFETY: by the ABI it is a result that was read.
                unsafe { $crate::abi::free(area) }
            }
        };
    };
}
