//! Points of a node's work at which something happens to it, when a plan says so: those of the engine, where it dies, and a
//! few more, at which power is lost or lines are cut.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Points beside those of the engine: a master has granted a vote, or taken entries, and says so. It loses power there.
pub(crate) const VOTE_GRANTED: &str = "vote-granted";
pub(crate) const ENTRIES_TAKEN: &str = "entries-taken";
/// A user submits a job: the leader is cut off from the other masters while that is under way.
pub(crate) const SUBMITTING: &str = "submitting";

/// Points at which nodes are to die.
#[derive(Clone, Default)]
pub(crate) struct Points(Arc<Mutex<Vec<(String, u8)>>>);

impl Points {
    /// The next node at the point dies, after so many others passed by.
    pub(crate) fn arm(&self, point: &str, after: u8) {
        self.lock().push((point.to_string(), after));
    }

    pub(crate) fn disarm(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, u8)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node that is at the point is to die.
    pub(crate) fn reached(&self, point: &str) -> bool {
        let mut armed = self.lock();
        let Some(at) = armed.iter().position(|(name, _)| name == point) else { return false };
        match armed[at].1 {
            0 => {
                armed.remove(at);
                true
            }
            _ => {
                armed[at].1 -= 1;
                false
            }
        }
    }
}
