//! A whole cluster in one process and one thread: the real masters and workers, the real replicated log, the real control
//! and data plane, over a simulated network, disks and clocks that are broken on purpose.
//!
//! A run is a seed and a [`plan::Plan`]; the same two give the same [`run::Outcome`], hash and all, on any machine. The
//! runtime (`runtime`) has virtual time and picks among ready tasks; `net`, `store` and raft's disk model stand where
//! production has gRPC, buckets and sled; `cluster` does what machines and operators do, `faults` what goes wrong,
//! `workload` what users want. `invariants` look from outside.
//!
//! Beside it, `paper` has the scheduler alone on modelled machines: how long jobs take on clusters that nobody has at hand.
//!
//! No master or worker behaviour is written here, nor does anything here look into one. What is not simulated: gRPC,
//! sled, the kernel; the process tests of the workspace cover them.

mod attempts;
pub mod case;
mod cluster;
mod faults;
mod fickle;
mod invariants;
pub mod marks;
pub mod net;
pub mod paper;
mod picky;
pub mod plan;
mod points;
mod random;
mod reference;
pub mod run;
pub mod runtime;
mod said;
pub mod store;
mod trace;
mod workload;
pub mod world;

pub use invariants::Violation;
