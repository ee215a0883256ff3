//! What MapReduce is: the data plane of Gristmill, without network or clock.
//!
//! An [`app::App`] is run over files by a [`job::Job`] on threads given by an [`exec::Exec`]. The crate is
//! synchronous; time, progress on a terminal and command lines are the business of whoever calls it.

pub mod app;
pub mod apps;
pub mod auth;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod control;
pub mod data;
pub mod error;
pub mod exec;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod job;
mod local;
pub mod node;
pub mod registry;
pub mod runner;
pub mod scratch;
pub mod store;
pub mod task;
pub mod value;
