//! What the fuzzers do with their bytes, one module a target: each has a `run` that panics when something is wrong.
//!
//! The programs in `fuzz_targets` hand it what libFuzzer makes up; `replay` hands it the files of `corpus` in the
//! ordinary tests. `bytes` takes inputs apart, `memory` counts what a decoder allocates.

#![cfg(any(test, feature = "libfuzzer"))]

mod bytes;
pub mod chunks;
pub mod decompress;
pub mod flags;
mod lz4;
mod memory;
pub mod messages;
#[cfg(test)]
mod replay;
pub mod segments;

/// What a target does with an input.
pub type Run = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Run); 7] = [
    ("chunks", chunks::run),
    ("decompress", decompress::run),
    ("flags", flags::run),
    ("messages", messages::run),
    ("python", gristmill::fuzz::python),
    ("segments", segments::run),
    ("wasm", gristmill::fuzz::wasm),
];
