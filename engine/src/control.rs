//! wip

pub mod apply;
pub mod commit;
mod fleet;
pub mod ids;
pub mod job;
pub mod limits;
pub mod master;
mod record;
mod run;
mod schedule;
pub mod snapshot;
mod spec;
pub mod state;
pub mod task;
