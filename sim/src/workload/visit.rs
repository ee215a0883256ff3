//! Who was let in, and what was taken away from whom: as users and the administrator were told.

use std::time::Duration;

use gristmill_engine::control::rights::Rights;

use super::Ledger;
use crate::runtime::now;

/// What somebody showed that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A token: this is what its bearer may do.
    Token(Rights),
    /// The word that continues a session.
    Refresh,
    /// A password.
    Password,
}

/// Somebody was let in by a master.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) user: String,
    pub(crate) way: Way,
    /// The session's number.
    pub(crate) session: u64,
    /// When the token or word was told that was shown.
    pub(crate) since: Duration,
    pub(crate) asked: Duration,
    pub(crate) answered: Duration,
}

/// What is taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// All sessions.
    Sessions,
    /// The session of this number.
    Session(u64),
    /// The keys that tokens were signed with.
    Keys,
    /// All rights but these, until they are given back.
    RightsBut(Rights),
    /// The user is, until it comes back: removed, or disabled.
    User,
}

/// Something was taken away.
#[derive(Debug, Clone)]
pub(crate) struct Revocation {
    /// From whom; `None`: from everybody.
    pub(crate) user: Option<String>,
    pub(crate) taken: Taken,
    /// When it was first asked for.
    pub(crate) begun: Duration,
    pub(crate) acknowledged: Duration,
    /// When it was first asked for that it be given back.
    pub(crate) undone: Option<Duration>,
}

impl Ledger {
    /// What was taken away, as is known now.
    pub(super) fn took(&mut self, user: Option<&str>, taken: Taken, begun: Duration) {
        let (user, acknowledged) = (user.map(String::from), now());
        self.revocations.push(Revocation { user, taken, begun, acknowledged, undone: None });
    }

    /// From now on a user may get back what was taken away.
    pub(super) fn gives_back(&mut self, user: &str) {
        for revocation in self.revocations.iter_mut().filter(|revocation| revocation.user.as_deref() == Some(user)) {
            revocation.undone = revocation.undone.or(Some(now()));
        }
    }
}
