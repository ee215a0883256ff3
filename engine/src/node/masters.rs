//! How a worker or a client finds the master that leads, and keeps asking until one answers.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gristmill_raft::runtime::AsyncRuntime;

use super::clock;
use super::rpc::{CallError, Method, Net};

/// The shortest and the longest pause between two attempts to be heard.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The masters of a cluster, and which of them led when last heard of.
pub(crate) struct Masters {
    addresses: Vec<String>,
    leader: Mutex<Option<String>>,
    /// Whom to ask while no leader is known: another one after each failure.
    next: AtomicUsize,
}

impl Masters {
    /// Of these addresses, at least one, one or more may answer.
    pub(crate) fn new(addresses: Vec<String>) -> Self {
        Self { addresses, leader: Mutex::default(), next: AtomicUsize::new(0) }
    }

    fn leader(&self) -> Option<String> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_leader(&self, leader: Option<String>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    /// Asks whoever leads, for as long as `within`. A request that may have been carried out is not sent again.
    pub(crate) async fn call<Rt: AsyncRuntime, N: Net>(
        &self,
        net: &N,
        method: Method,
        request: Bytes,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let deadline = clock::now::<Rt>() + within;
        let mut pause = PAUSE.0;
        loop {
            let known = self.leader();
            let to = match &known {
                Some(leader) => leader.clone(),
                None => self.addresses[self.next.fetch_add(1, Relaxed) % self.addresses.len()].clone(),
            };
            let now = clock::now::<Rt>();
            if now >= deadline {
                return Err(CallError::NotSent(format!("no leading master was found within {within:?}")));
            }
            let failed = match net.call(&to, method, request.clone(), deadline - now).await {
                Ok(answer) => {
                    self.set_leader(Some(to));
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            match failed {
                CallError::NotLeader { leader: Some(leader) } if leader != to => {
                    // Told by one who may be mistaken: bounded by the pause once it has been tried.
                    self.set_leader(Some(leader));
                    if known.is_none() {
                        continue;
                    }
                }
                CallError::NotLeader { .. } | CallError::NotSent(_) => self.set_leader(None),
                CallError::Unknown(_) => {
                    self.set_leader(None);
                    return Err(failed);
                }
                CallError::Refused(_) => return Err(failed),
            }
            Rt::sleep(pause.min(deadline - now)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}
