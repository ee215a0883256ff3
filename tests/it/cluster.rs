//! A cluster as its users meet it: nodes are processes on this machine, jobs are submitted by the command line, and what
//! they leave is what `run` leaves.
//!
//! `nodes` starts, kills and pauses processes and knows what a cluster may leave behind, `outputs` watches what readers see,
//! `net` cuts networks. `jobs` is about what is said of jobs, `apps` about what each app computes, `usercode` about those that users bring, `points` about nodes that
//! die at each point of their work, `chaos` about those that die, stop and are cut off at random, `upgrade` about two
//! releases in one cluster, `backup` about clusters that begin with one, `api` about other ways in, `access`, `secrets` and `kubernetes` about users, `straggler` and `figures` about what all that costs.

mod access;
pub(crate) mod api;
mod apps;
mod backup;
mod chaos;
mod figures;
mod jobs;
#[cfg(feature = "objects")]
mod kubernetes;
mod net;
pub(crate) mod nodes;
mod outputs;
mod points;
mod secrets;
mod straggler;
mod upgrade;
mod usercode;
