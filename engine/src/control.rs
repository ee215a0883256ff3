//! wip

pub mod apply;
pub mod ids;
pub mod job;
pub mod limits;
mod record;
pub mod snapshot;
mod spec;
pub mod state;
pub mod task;
