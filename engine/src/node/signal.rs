//! Wakes tasks that wait for news, through the runtime's own watch channel.

use std::sync::{Mutex, PoisonError};

use gristmill_raft::runtime::{AsyncRuntime, Watch, WatchReceiver as _, WatchSender as _};

type Sender<Rt> = <<Rt as AsyncRuntime>::Watch as Watch>::Sender<u64>;
type Receiver<Rt> = <<Rt as AsyncRuntime>::Watch as Watch>::Receiver<u64>;

/// Something may be new. Raising it twice before anybody looks is raising it once.
pub(crate) struct Signal<Rt: AsyncRuntime> {
    /// Behind a lock because not all senders are [`Sync`].
    sender: Mutex<Sender<Rt>>,
}

/// One task's view of a [`Signal`].
pub(crate) struct Listener<Rt: AsyncRuntime>(Receiver<Rt>);

impl<Rt: AsyncRuntime> Default for Signal<Rt> {
    fn default() -> Self {
        Self { sender: Mutex::new(Rt::Watch::channel(0).0) }
    }
}

impl<Rt: AsyncRuntime> Signal<Rt> {
    pub(crate) fn raise(&self) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send_if_modified(|n| {
            *n = n.wrapping_add(1);
            true
        });
    }

    /// Hears of what is raised from now on.
    pub(crate) fn listen(&self) -> Listener<Rt> {
        Listener(self.sender.lock().unwrap_or_else(PoisonError::into_inner).subscribe())
    }
}

impl<Rt: AsyncRuntime> Listener<Rt> {
    /// Waits until the signal was raised since the last time, for ever if there is nobody left who could.
    pub(crate) async fn heard(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
