//! The async shells of a master and a worker, generic over the seam of `env`: the simulator runs them as they are.

pub mod backup;
mod cache;
mod clock;
pub mod env;
pub mod master;
mod masters;
mod objects;
mod paths;
pub mod pods;
pub mod point;
mod replica;
pub mod rpc;
mod signal;
mod spec;
mod spool;
mod turns;
pub mod worker;

pub use objects::patiently;
pub use spec::options as options_of;
