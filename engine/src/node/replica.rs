//! The replicated state as the log's state machine: applies, and remembers what was touched for the leader.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use gristmill_raft::StateMachine;
use gristmill_raft::runtime::AsyncRuntime;
use prost::Message as _;

use super::signal::Signal;
use crate::control::apply::Touch;
use crate::control::snapshot::View;
use crate::control::state::State;

/// What a leader has not been told yet. More than this and it looks at everything anew.
const MOST_TOUCHED: usize = 100_000;

/// What was applied since it was last asked.
pub(crate) struct News<Rt: AsyncRuntime> {
    touched: Mutex<Touched>,
    pub(crate) applied: Signal<Rt>,
}

#[derive(Default)]
struct Touched {
    touched: Vec<Touch>,
    /// More than could be remembered.
    all: bool,
}

impl<Rt: AsyncRuntime> Default for News<Rt> {
    fn default() -> Self {
        Self { touched: Mutex::default(), applied: Signal::default() }
    }
}

impl<Rt: AsyncRuntime> News<Rt> {
    /// What was touched since the last time; `None` if that is not known.
    pub(crate) fn take(&self) -> Option<Vec<Touch>> {
        let Touched { touched, all } =
            std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        (!all).then_some(touched)
    }

    fn add(&self, touched: Vec<Touch>) {
        let mut known = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if known.touched.len() + touched.len() > MOST_TOUCHED {
            *known = Touched { touched: Vec::new(), all: true };
        } else {
            known.touched.extend(touched);
        }
        drop(known);
        self.applied.raise();
    }

    fn lose_track(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Touched { touched: Vec::new(), all: true };
        self.applied.raise();
    }
}

/// The state on one node.
pub struct Replica<Rt: AsyncRuntime> {
    pub(crate) state: State,
    news: Arc<News<Rt>>,
}

impl<Rt: AsyncRuntime> Replica<Rt> {
    /// Of a build that understands commands up to this feature level.
    pub(crate) fn new(news: Arc<News<Rt>>, level: u32) -> Self {
        Self { state: State::understanding(level), news }
    }
}

impl<Rt: AsyncRuntime> StateMachine for Replica<Rt> {
    type View = View;

    fn apply(&mut self, index: u64, command: &[u8]) -> io::Result<Vec<u8>> {
        let applied = self.state.apply(index, command).map_err(io::Error::other)?;
        self.news.add(applied.touched);
        Ok(applied.reply.encode_to_vec())
    }

    fn snapshot(&self) -> View {
        self.state.snapshot()
    }

    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()> {
        self.state = self.state.restored(snapshot).map_err(io::Error::other)?;
        self.news.lose_track();
        Ok(())
    }
}
