//! Whole jobs against a plain oracle in memory that shares no code with the engine's data plane.
//!
//! `world` makes files and runs jobs over them, `naive` is the oracle, `apps` are the apps that jobs run; `jobs` draws
//! random inputs and ways to run; `spills` makes jobs spill, `hostile` is about keys that collide, `failures` about jobs that
//! fail or are stopped, `builtin` about the built-in apps. `GRISTMILL_CASES` multiplies the number of random cases.

#![allow(missing_docs, unreachable_pub)]

mod apps;
mod builtin;
mod failures;
mod hostile;
mod jobs;
mod naive;
mod spills;
mod world;
