//! The runtime of a simulated cluster: one thread, virtual time, and a seeded choice among tasks that are ready.
//!
//! Every task belongs to a [`NodeId`], as does whatever it spawns. A node can be killed (its tasks are dropped where they
//! are), paused (its tasks are not polled, as those of a process that was stopped) and given a clock that runs faster or
//! slower than true time. Node 0 is the world around the cluster: its clock is true and it never dies.
//!
//! Everything that happens goes into the trace: two runs of one seed have the same hash, on another machine too.
//! Not here: what nodes say to each other and what their disks do.

mod executor;
mod sleep;

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_channel::oneshot;
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::SimWatch;
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub use executor::{Ended, Simulation, here, in_node, now, record};
pub(crate) use executor::{boots, is_alive, kill, mix, pause, resume, revive, set_drift, sometimes};
pub use sleep::{Elapsed, Sleep, Timeout};

/// A process of the simulation. 0 is the world around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// The world around the cluster.
pub const OUTSIDE: NodeId = NodeId(0);

/// Time of one node's clock since the simulation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

/// Clocks do not begin at 0: who subtracts from the first instant does not fail for that alone.
const BEGINNING: Duration = Duration::from_secs(1 << 20);

impl Instant {
    pub(crate) fn since_start(self) -> Duration {
        self.0.saturating_sub(BEGINNING)
    }

    pub(crate) fn at(since_start: Duration) -> Self {
        Self(BEGINNING + since_start)
    }
}

impl openraft_rt::Instant for Instant {
    fn now() -> Self {
        Self::at(executor::with(|e| e.local_now()))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl std::ops::Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

impl std::ops::Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::AddAssign<Duration> for Instant {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl std::ops::SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, by: Duration) {
        *self = *self - by;
    }
}

/// The runtime as openraft and the nodes' shells see it.
#[derive(Debug)]
pub struct SimRuntime(());

/// Why a task has no result.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It panicked.
    #[error("the task panicked")]
    Panicked(Box<dyn Any + Send>),
    /// Its node is dead.
    #[error("the task is gone with its node")]
    Gone,
}

/// Waits for a task's result.
pub struct JoinHandle<T>(oneshot::Receiver<std::thread::Result<T>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(panic)) => Err(JoinError::Panicked(panic)),
            Err(oneshot::Canceled) => Err(JoinError::Gone),
        })
    }
}

/// Runs `future` as a task of `node`. If that is dead, it is dropped.
pub fn spawn_on<T>(node: NodeId, future: T) -> JoinHandle<T::Output>
where
    T: Future + Send + 'static,
    T::Output: Send + 'static,
{
    let (send, receive) = oneshot::channel();
    executor::spawn(node, executor::caught(future, send));
    JoinHandle(receive)
}

impl AsyncRuntime for SimRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = SmallRng;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        spawn_on(here(), future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Self::sleep_until(<Instant as openraft_rt::Instant>::now() + duration)
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout::new(future, Self::sleep(duration))
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Timeout<F> {
        Timeout::new(future, Self::sleep_until(deadline))
    }

    fn is_panic(join_error: &JoinError) -> bool {
        matches!(join_error, JoinError::Panicked(_))
    }

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(executor::with(executor::Executor::draw))
    }

    // Tokio's channels and its mutex need no runtime of Tokio's and wake who waits in the order in which they came. Its
    // watch wakes in an order of its own.
    type Mpsc = TokioMpsc;
    type Watch = SimWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    /// For tests of the runtime itself: seed 0.
    fn new(_threads: usize) -> Self {
        Self(())
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        Simulation::new(0).block_on(future)
    }

    /// Fails: what waits for a machine goes through the seams of a node.
    fn spawn_blocking<F, T>(_: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        std::future::ready(Err(io::Error::new(io::ErrorKind::Unsupported, "a simulation has no threads")))
    }
}

#[cfg(test)]
mod tests;
