//! MapReduce with nothing else to run: the command line over the engine, for the built-in apps and for yours.

pub use gristmill_engine as engine;
