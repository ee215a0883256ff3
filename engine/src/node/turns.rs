//! Turns: so many at a time, so many who wait, in the order in which they came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

/// A bounded number of turns.
pub(crate) struct Turns {
    most_waiting: usize,
    taken: Mutex<Taken>,
}

struct Taken {
    free: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn; the next one's when it is dropped.
pub(crate) struct Turn(Option<Arc<Turns>>);

impl Turns {
    pub(crate) fn new(at_a_time: usize, most_waiting: usize) -> Arc<Self> {
        Arc::new(Self { most_waiting, taken: Mutex::new(Taken { free: at_a_time, waiting: VecDeque::new() }) })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn; `None` if too many wait.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Turn> {
        let waits = {
            let mut taken = self.taken();
            if taken.free > 0 {
                taken.free -= 1;
                return Some(Turn(Some(self.clone())));
            }
            // Who gave up makes room.
            taken.waiting.retain(|waiting| !waiting.is_canceled());
            if taken.waiting.len() >= self.most_waiting {
                return None;
            }
            let (send, waits) = oneshot::channel();
            taken.waiting.push_back(send);
            waits
        };
        waits.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        loop {
            let Some(next) = turns.taken().waiting.pop_front() else { break };
            match next.send(Turn(Some(turns.clone()))) {
                Ok(()) => return,
                // It waits no more: not to be given back by itself, which would come here again.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
        turns.taken().free += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_go_round_in_order_and_are_not_lost() {
        let turns = Turns::new(1, 2);
        let Poll::Ready(Some(first)) = poll(pin!(turns.take())) else { panic!() };
        let mut second = Box::pin(turns.take());
        let mut third = Box::pin(turns.take());
        assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
        assert!(matches!(poll(pin!(turns.take())), Poll::Ready(None)), "too many wait");
        drop(second);
        drop(first);
        let Poll::Ready(Some(turn)) = poll(third.as_mut()) else { panic!("passed over who gave up") };
        drop(turn);
        assert!(matches!(poll(pin!(turns.take())), Poll::Ready(Some(_))), "free again");
    }
}
