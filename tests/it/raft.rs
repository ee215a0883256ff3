//! The replicated log in real processes on loopback: nodes are killed, restarted, wiped and added while writes go on.
//!
//! `nodes` starts and kills them, `writers` writes and remembers what was acknowledged. `processes` is about members,
//! `snapshot` about one that is large, `failover` about how long a lost leader is missed, `commands` about `gristmill raft`.

mod commands;
mod failover;
mod nodes;
mod processes;
mod snapshot;
mod writers;

/// Whether the long version of every test is wanted.
fn long() -> bool {
    std::env::var_os("GRISTMILL_LONG").is_some_and(|wanted| wanted == "1")
}
