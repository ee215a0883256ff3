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

#[cfg(test)]
mod tests {
    use std::future::{Future, ready};
    use std::sync::Arc;

    use gristmill_raft::net::BoxStream;
    use gristmill_raft::tokio::TokioRuntime;

    use super::*;

    type Answer = fn(&str) -> Result<Bytes, CallError>;

    /// Answers as a function of the address says, and notes who was asked.
    #[derive(Clone)]
    struct Fake(Answer, Arc<Mutex<Vec<String>>>);

    impl Net for Fake {
        fn call(
            &self,
            to: &str,
            _: Method,
            _: Bytes,
            _: Duration,
        ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<> {
            self.1.lock().unwrap().push(to.to_string());
            ready((self.0)(to))
        }

        fn fetch(&self, _: &str, _: Method, _: Bytes, _: Duration) -> BoxStream<'static, Result<Bytes, CallError>> {
            unreachable!("nothing is fetched from a master")
        }
    }

    /// What comes of `n` calls, and who was asked.
    fn ask(n: usize, answer: Answer) -> (Vec<Result<Bytes, CallError>>, Vec<String>) {
        let masters = Masters::new(vec!["a".into(), "b".into(), "c".into()]);
        let net = Fake(answer, Arc::default());
        let within = Duration::from_millis(300);
        let mut outcomes = Vec::new();
        for _ in 0..n {
            let call = masters.call::<TokioRuntime, _>(&net, Method::Poll, Bytes::new(), within);
            outcomes.push(TokioRuntime::run(call));
        }
        let asked = net.1.lock().unwrap().clone();
        (outcomes, asked)
    }

    #[test]
    fn the_leader_that_is_named_is_asked_and_remembered() {
        let (outcomes, asked) = ask(2, |to| match to {
            "c" => Ok(Bytes::new()),
            _ => Err(CallError::NotLeader { leader: Some("c".into()) }),
        });
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(asked, ["a", "c", "c"]);
    }

    #[test]
    fn a_master_that_does_not_answer_is_not_the_only_one_asked() {
        let (outcomes, asked) = ask(3, |to| match to {
            "a" => Err(CallError::Unknown("it hangs".into())),
            _ => Ok(Bytes::new()),
        });
        // What may have been carried out is not sent again; the next call goes elsewhere.
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(asked, ["a", "b", "b"]);
    }

    #[test]
    fn who_cannot_be_reached_is_passed_over_until_the_time_is_up() {
        let (outcomes, asked) = ask(1, |_| Err(CallError::NotSent("no route".into())));
        assert!(matches!(&outcomes[0], Err(CallError::NotSent(why)) if why.contains("within 300ms")), "{outcomes:?}");
        assert_eq!(asked[..4], ["a", "b", "c", "a"]);
    }
}
