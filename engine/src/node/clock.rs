//! The monotonic clock, which is the runtime's: nothing else may be asked for the time.

use gristmill_raft::runtime::{AsyncRuntime, Instant};

/// Now.
pub(crate) fn now<Rt: AsyncRuntime>() -> Rt::Instant {
    <Rt::Instant as Instant>::now()
}
