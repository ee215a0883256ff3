//! The world of production but for the network, which is that of one process.

use gristmill_raft::Env;
use gristmill_raft::disk::{Folder, SledKv};
use gristmill_raft::net::Switchboard;
use openraft_rt_tokio::TokioRuntime;

pub(crate) struct World;

impl Env for World {
    type Rt = TokioRuntime;
    type Net = Switchboard<TokioRuntime>;
    type Kv = SledKv;
    type Files = Folder;
}
