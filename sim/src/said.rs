//! What nodes say to each other, as somebody hears it who stands beside the lines.

use gristmill_proto::internal::v1 as wire;
use gristmill_raft::promise::{Asked, Promise};

/// Something that was said, when it was said: whether it was heard is another matter.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// A worker to the leader.
    Poll(wire::Poll),
    /// The leader to a worker of this incarnation.
    Answer(u64, wire::PollAnswer),
    /// Something is asked of a member of the log, and has arrived there.
    Asked(Asked),
    /// A member of the log, in its answer to what was asked.
    Promised(Asked, Promise),
    /// What a member's disk had when it was started.
    Holds(u64, Promise),
}
