//! The cluster's network: gRPC between nodes, and the services of one node on one listener.
//!
//! `connector` opens connections, `wire` makes them TLS as `tls` reads it from files and `renew` reads it again, `roles` says what the holder of a
//! certificate is, `authority` makes certificates and `x509` shows them, `address` refuses what must not leave the machine in the plain,
//! `channels` keeps a few connections to every peer, `answer` gives calls a deadline and says what a failure means,
//! `store` is what the nodes share, `data` the service of its files, `apps` that of apps which users bring, `transport` is the replicated log's network, `peers` and
//! `admin` are services of a node, `listener` serves them all, `guard` lets through what may be answered, `http` offers those for clients as JSON as well. `boot` makes nodes of
//! these, `kubernetes` asks whose tokens of its service accounts are (feature `objects`), `pools` lets a master make pods of workers and run jobs that are objects there (feature `kubernetes`),
//! `begin` lets the first masters of a cluster wait for each other, `folder` is what a node keeps of itself,
//! `restore` fills it from a backup.
//! What nodes say to each other is `gristmill-proto`'s, what they agree on `gristmill-raft`'s.

pub mod address;
pub mod admin;
pub mod answer;
mod apps;
pub mod authority;
mod begin;
pub mod boot;
pub mod channels;
pub mod connector;
pub mod data;
#[cfg(feature = "failpoints")]
mod failpoint;
pub mod folder;
mod guard;
mod health;
mod http;
#[cfg(feature = "objects")]
pub mod kubernetes;
mod level;
pub mod listener;
pub mod peers;
#[cfg(feature = "kubernetes")]
pub mod pools;
mod raw;
mod renew;
pub mod restore;
pub mod roles;
pub mod services;
pub mod store;
pub mod tls;
pub mod transport;
pub mod wire;
pub mod world;
pub mod x509;

#[cfg(test)]
mod tests;

use gristmill_raft::disk::{Folder, SledKv};
use gristmill_raft::tokio::TokioRuntime;

pub use gristmill_proto as proto;
pub use gristmill_raft as raft;

/// The world of a node in production: Tokio, gRPC, sled and a folder.
#[derive(Debug)]
pub struct Production;

impl raft::Env for Production {
    type Rt = TokioRuntime;
    type Net = transport::Transport;
    type Kv = SledKv;
    type Files = Folder;
}
