//! An embedded replicated log that loses nothing: opaque bytes, replicated with openraft, kept in sled.
//!
//! This crate lets a few processes agree on a sequence of commands without an external service. It knows nothing of
//! what the commands mean: the caller brings a state machine. It sees the world through seams (disk, network, runtime),
//! so that a simulator runs this very code.
//!
//! openraft is an implementation detail: of it, only the runtime trait is visible.

pub mod disk;
mod identity;
pub mod log;
mod machine;
mod message;
pub mod model;
pub mod net;
pub mod node;
mod peer;
pub mod planted;
pub mod promise;
pub mod report;
mod snapshot;
pub mod suite;
mod types;
#[cfg(feature = "sled")]
pub mod verify;

pub use identity::{Error as IdentityError, Identity};
pub use machine::StateMachine;
pub use node::{Env, Error, Node, Options};
pub use openraft_rt as runtime;
#[cfg(feature = "tokio")]
pub use openraft_rt_tokio as tokio;
pub use snapshot::Error as SnapshotError;

/// An error and all its causes in one line, for messages that cross a boundary as text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
