//! The command line as its users meet it: the program is run on files, and what it prints and leaves is looked at.
//!
//! `program` runs it; `cli` is about commands and flags, `apps` about what each app computes, `errors` about everything
//! that goes wrong. How the engine computes is tested in the engine.

mod apps;
mod cli;
mod errors;
mod program;
mod signals;
