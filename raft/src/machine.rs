//! The seam to the state machine, and the side of it that openraft sees.
//!
//! State lives in memory and is rebuilt from the newest snapshot and the log. Snapshots are written from a view, in
//! chunks, away from the task that applies commands.

use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::WatchSenderOf;
use openraft_rt::{AsyncRuntime, OptionalSend, WatchSender as _};

use crate::disk::Files;
use crate::planted::{Bug, planted};
use crate::snapshot::{self, Kind, Sealed, Unfinished};
use crate::types::{LogId, Payload, Reply, SnapshotMeta, StoredMembership, Types};

/// What commands change. The same commands in the same order must give the same state and the same replies everywhere:
/// no clock, no randomness, no iteration in an order that is not fixed.
pub trait StateMachine: Send + 'static {
    /// The state at a moment, as chunks that [`StateMachine::restore`] reads. Taking it must be cheap; its chunks
    /// (at most 1 MiB each) are computed elsewhere, while commands go on.
    type View: Iterator<Item = Vec<u8>> + Send + 'static;

    /// Applies the command at `index` and gives the reply for who proposed it. A command that makes no sense is one that
    /// changes nothing. Commands may come twice; to tell is up to the state machine.
    ///
    /// # Errors
    ///
    /// If this build can not understand a command that others may: to pass over it would make this node differ from them
    /// in silence. The node ends then, with nothing applied from there on.
    fn apply(&mut self, index: u64, command: &[u8]) -> io::Result<Vec<u8>>;

    /// The state now.
    fn snapshot(&self) -> Self::View;

    /// Replaces the state by one that a [`StateMachine::snapshot`] gave.
    ///
    /// # Errors
    ///
    /// If it can not be understood. The node ends then.
    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()>;
}

/// The state and how far it goes.
pub(crate) struct Applied<S> {
    pub(crate) state: S,
    pub(crate) last: Option<LogId>,
    membership: StoredMembership,
    /// Bytes of commands since the last snapshot was begun.
    unsaved_bytes: u64,
}

/// A snapshot and what it covers.
type Current<F> = Option<(SnapshotMeta, Sealed<F>)>;

struct Shared<S, F> {
    applied: Mutex<Applied<S>>,
    current: Mutex<Current<F>>,
}

/// A state machine as openraft sees it.
pub(crate) struct Machine<Rt: AsyncRuntime, S, F> {
    shared: Arc<Shared<S, F>>,
    files: F,
    /// Told about bytes of commands since the last snapshot. Behind a lock because not all are [`Sync`].
    unsaved: Arc<Mutex<WatchSenderOf<Types<Rt>, u64>>>,
}

impl<Rt: AsyncRuntime, S, F: Clone> Clone for Machine<Rt, S, F> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), files: self.files.clone(), unsaved: self.unsaved.clone() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Rt: AsyncRuntime, S: StateMachine, F: Files> Machine<Rt, S, F> {
    /// A state machine in its first state, with the newest snapshot at hand for openraft to install.
    pub(crate) fn open(state: S, files: F, unsaved: WatchSenderOf<Types<Rt>, u64>) -> Result<Self, snapshot::Error> {
        let current = snapshot::newest(&files)?;
        let applied = Applied { state, last: None, membership: StoredMembership::default(), unsaved_bytes: 0 };
        let shared = Shared { applied: Mutex::new(applied), current: Mutex::new(current) };
        Ok(Self { shared: Arc::new(shared), files, unsaved: Arc::new(Mutex::new(unsaved)) })
    }

    /// Looks at the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&lock(&self.shared.applied).state)
    }

    /// The newest snapshot's last log id and size in bytes.
    pub(crate) fn snapshot(&self) -> Option<(Option<LogId>, u64)> {
        lock(&self.shared.current).as_ref().map(|(meta, sealed)| (meta.last_log_id, sealed.bytes))
    }

    fn apply_one(&self, id: LogId, payload: Payload) -> io::Result<Reply> {
        let mut applied = lock(&self.shared.applied);
        let reply = match payload {
            Payload::Blank => Vec::new(),
            Payload::Normal(command) => {
                applied.unsaved_bytes += command.0.len() as u64;
                applied.state.apply(id.index(), &command.0)?
            }
            Payload::Membership(membership) => {
                applied.membership = StoredMembership::new(Some(id), membership);
                Vec::new()
            }
        };
        applied.last = Some(id);
        Ok(Reply(Bytes::from(reply)))
    }
}

/// Writes one snapshot.
pub(crate) struct Builder<Rt, S: StateMachine, F> {
    shared: Arc<Shared<S, F>>,
    files: F,
    meta: SnapshotMeta,
    /// Behind a lock only because openraft shares builders between threads.
    view: Mutex<Option<S::View>>,
    runtime: PhantomData<fn() -> Rt>,
}

impl<Rt: AsyncRuntime, S: StateMachine, F: Files> RaftSnapshotBuilder<Types<Rt>> for Builder<Rt, S, F> {
    type SnapshotData = Sealed<F>;

    async fn build_snapshot(&mut self) -> Result<openraft::alias::SnapshotOf<Types<Rt>, Sealed<F>>, io::Error> {
        let view = lock(&self.view).take();
        let Some(mut view) = view else { return Err(io::Error::other("a snapshot is built once")) };
        let unfinished = Unfinished::begin(self.files.clone(), Kind::Built).await?;
        if planted(Bug::SnapshotAhead) {
            self.meta.last_log_id = lock(&self.shared.applied).last;
        }
        let sealed = unfinished.write(&self.meta, &mut view).await?;
        keep_newest(&self.shared.current, &self.meta, &sealed);
        Ok(openraft::Snapshot { meta: self.meta.clone(), snapshot: sealed })
    }
}

fn keep_newest<F: Clone>(current: &Mutex<Current<F>>, meta: &SnapshotMeta, sealed: &Sealed<F>) {
    let mut current = lock(current);
    if current.as_ref().is_none_or(|(old, _)| old.last_log_id <= meta.last_log_id) {
        *current = Some((meta.clone(), sealed.clone()));
    }
}

impl<Rt: AsyncRuntime, S: StateMachine, F: Files> RaftStateMachine<Types<Rt>> for Machine<Rt, S, F> {
    type SnapshotData = Sealed<F>;
    type SnapshotBuilder = Builder<Rt, S, F>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = lock(&self.shared.applied);
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<St>(&mut self, mut entries: St) -> Result<(), io::Error>
    where
        St: Stream<Item = Result<EntryResponder<Types<Rt>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let reply = self.apply_one(entry.log_id(), entry.payload)?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        let unsaved = lock(&self.shared.applied).unsaved_bytes;
        lock(&self.unsaved).send_if_different(unsaved);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let mut applied = lock(&self.shared.applied);
        applied.unsaved_bytes = 0;
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone() };
        let view = Mutex::new(Some(applied.state.snapshot()));
        Builder { shared: self.shared.clone(), files: self.files.clone(), meta, view, runtime: PhantomData }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Sealed<F>) -> Result<(), io::Error> {
        let sealed = snapshot.adopt(meta).await?;
        {
            let mut applied = lock(&self.shared.applied);
            let mut body = sealed.body()?;
            applied.state.restore(&mut body).map_err(|e| sealed.restore_error(&e))?;
            applied.last = meta.last_log_id;
            applied.membership = meta.last_membership.clone();
            applied.unsaved_bytes = 0;
        }
        keep_newest(&self.shared.current, meta, &sealed);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<Types<Rt>, Sealed<F>>>, io::Error> {
        let current = lock(&self.shared.current).clone();
        Ok(current.map(|(meta, snapshot)| openraft::Snapshot { meta, snapshot }))
    }
}
