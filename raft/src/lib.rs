//! An embedded replicated log that loses nothing: opaque bytes, replicated with openraft, kept in sled.
//!
//! This crate lets a few processes agree on a sequence of commands without an external service. It knows nothing of
//! what the commands mean: the caller brings a state machine. It sees the world through seams (disk, network, runtime),
//! so that a simulator runs this very code.
//!
//! openraft is an implementation detail: of it, only the runtime trait is visible.

pub mod disk;
pub mod model;
pub mod suite;

pub use openraft_rt as runtime;
