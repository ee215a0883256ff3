//! The shells of masters and workers in one process: real runtime, modelled disks, a store and scratch in memory, and lines
//! between nodes that can be cut.
//!
//! `world` is what they run over; `gated` an app that waits where it is told to; `leadership` is about
//! masters that lose their quorum, `work` about workers, `access` about users.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::disallowed_methods, reason = "tests know a clock")]

mod access;
mod gated;
mod leadership;
mod work;
mod world;
