//! The command line as its users meet it: the program is run on files, and what it prints and leaves is looked at.
//!
//! `program` runs it, `process` beside the test; `cli` is about commands and flags, `outputs` about what is left, `telling`
//! about what is said, `apps` and `formats` about what each app computes, `errors` and `signals` about everything that goes wrong, `raft` about
//! nodes of the replicated log, `boot` about how nodes begin and end, `cluster` about jobs on masters and workers, `stores`
//! about buckets, `data` about files in the cluster's store, `pods` about installations on Kubernetes, `tls` about certificates, `door` about what connects to a node and is no good client; `http` is for servers of tests. How the engine computes is
//! tested in the engine.

mod apps;
#[cfg(feature = "cluster")]
mod boot;
mod cli;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "objects")]
mod data;
#[cfg(feature = "cluster")]
mod door;
mod errors;
mod formats;
#[cfg(feature = "cluster")]
mod history;
#[cfg(feature = "objects")]
mod http;
mod outputs;
#[cfg(feature = "kubernetes")]
mod pods;
#[cfg(feature = "cluster")]
mod process;
mod program;
#[cfg(feature = "scripts")]
mod python;
#[cfg(feature = "cluster")]
mod raft;
#[cfg(feature = "objects")]
#[cfg(feature = "scripts")]
mod sandbox;
#[cfg(feature = "scripts")]
mod scripts;
mod signals;
mod stores;
#[cfg(feature = "scripts")]
mod streaming;
mod telling;
mod tidy;
#[cfg(feature = "cluster")]
mod tls;
#[cfg(feature = "wasm")]
mod wasm;
