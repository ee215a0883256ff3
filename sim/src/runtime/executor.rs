//! The executor: which task runs next, what time it is, and who is alive.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_channel::oneshot;
use rand::Rng as _;
use rand_pcg::Pcg64Mcg;

use super::{NodeId, OUTSIDE};
use crate::random::{Stream, below, stream};
use crate::trace::Trace;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type TaskId = u64;

thread_local! {
    static EXECUTOR: RefCell<Option<Executor>> = const { RefCell::new(None) };
    /// Of simulations on this thread, so that a waker of one that is over wakes nothing in the next.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Must not be called again by `f`, nor may that wake or drop what a task made.
pub(crate) fn with<R>(f: impl FnOnce(&mut Executor) -> R) -> R {
    EXECUTOR.with(|executor| f(executor.borrow_mut().as_mut().expect("a simulation runs on this thread")))
}

/// Unwinds through a task whose node is to die where it is. No panic: nothing is printed.
struct Killed;

pub(crate) struct Executor {
    number: u64,
    seed: u64,
    now: Duration,
    here: NodeId,
    processes: BTreeMap<NodeId, Process>,
    tasks: BTreeMap<TaskId, Task>,
    next_task: TaskId,
    /// Tasks that can go on, in no order that matters.
    ready: Vec<TaskId>,
    timers: BTreeMap<(Duration, u64), Waker>,
    next_timer: u64,
    scheduling: Pcg64Mcg,
    trace: Trace,
    panics: Vec<(NodeId, String)>,
    marks: BTreeSet<&'static str>,
    polls: u64,
}

struct Process {
    is_alive: bool,
    is_paused: bool,
    /// Tasks that could go on if it were not paused.
    held: Vec<TaskId>,
    clock: Clock,
    boots: u64,
    random: Pcg64Mcg,
}

/// A node's monotonic clock.
#[derive(Default)]
struct Clock {
    /// What it showed at the true time `since`.
    shown: Duration,
    since: Duration,
    /// How much faster than true time it runs, in millionths.
    drift: i32,
}

const MILLION: i128 = 1_000_000;

fn scaled(time: Duration, by: i128, per: i128) -> Duration {
    // Rounded up: whoever waits until a clock shows something does not wake before.
    let nanos = (time.as_nanos() as i128 * by + per - 1) / per;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Clock {
    fn show(&self, now: Duration) -> Duration {
        if self.drift == 0 {
            return self.shown + now.saturating_sub(self.since);
        }
        self.shown + scaled(now.saturating_sub(self.since), MILLION + i128::from(self.drift), MILLION)
    }

    /// The true time at which it shows this.
    fn when(&self, shows: Duration) -> Duration {
        let more = shows.saturating_sub(self.shown);
        if self.drift == 0 {
            return self.since + more;
        }
        self.since + scaled(more, MILLION, MILLION + i128::from(self.drift))
    }
}

struct Task {
    node: NodeId,
    /// Away while it is polled.
    work: Option<Work>,
    waker: Waker,
    is_queued: bool,
}

struct TaskWaker {
    simulation: u64,
    task: TaskId,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // After the end of a thread or a simulation there is nothing to wake.
        let _ = EXECUTOR.try_with(|executor| {
            let mut executor = executor.borrow_mut();
            if let Some(executor) = executor.as_mut().filter(|e| e.number == self.simulation) {
                executor.enqueue(self.task);
            }
        });
    }
}

impl Executor {
    fn new(number: u64, seed: u64) -> Self {
        let mut executor = Self {
            number,
            seed,
            now: Duration::ZERO,
            here: OUTSIDE,
            processes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            ready: Vec::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            scheduling: stream(seed, Stream::Scheduling, 0),
            trace: Trace::default(),
            panics: Vec::new(),
            marks: BTreeSet::new(),
            polls: 0,
        };
        executor.revive(OUTSIDE);
        executor
    }

    /// A number of the node's own stream.
    pub(super) fn draw(&mut self) -> u64 {
        let here = self.here;
        let drawn = self.processes.get_mut(&here).map_or(0, |process| process.random.next_u64());
        self.trace.mix(drawn);
        drawn
    }

    pub(super) fn local_now(&self) -> Duration {
        self.processes.get(&self.here).map_or(self.now, |process| process.clock.show(self.now))
    }

    /// Wakes the task that asks when its clock shows this. `None` if it does.
    pub(super) fn wake_at(&mut self, shows: Duration, waker: &Waker) -> Option<(Duration, u64)> {
        if self.local_now() >= shows {
            return None;
        }
        let at = self.processes.get(&self.here).map_or(shows, |process| process.clock.when(shows));
        self.next_timer += 1;
        let key = (at.max(self.now), self.next_timer);
        self.timers.insert(key, waker.clone());
        Some(key)
    }

    fn forget(&mut self, timer: (Duration, u64)) -> Option<Waker> {
        self.timers.remove(&timer)
    }

    fn enqueue(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| !task.is_queued) else { return };
        task.is_queued = true;
        match self.processes.get_mut(&task.node).filter(|process| process.is_paused) {
            Some(paused) => paused.held.push(id),
            None => self.ready.push(id),
        }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.processes.get(&node).is_some_and(|process| process.is_alive)
    }

    fn revive(&mut self, node: NodeId) {
        let boots = self.processes.get(&node).map_or(0, |process| process.boots + 1);
        let number = u64::from(node.0) << 32 | boots;
        let process = Process {
            is_alive: true,
            is_paused: false,
            held: Vec::new(),
            clock: Clock { shown: self.now, since: self.now, drift: 0 },
            boots,
            random: stream(self.seed, Stream::Nodes, number),
        };
        self.trace.mix(number);
        self.processes.insert(node, process);
    }

    /// Another task to poll: one of those that are ready, or none.
    fn next(&mut self) -> Option<(TaskId, Option<Work>, Waker)> {
        let count = self.ready.len() as u64;
        let id = match count {
            0 => return None,
            1 => self.ready.pop()?,
            _ => self.ready.swap_remove(below(&mut self.scheduling, count) as usize),
        };
        self.polls += 1;
        self.trace.mix(id ^ (self.now.as_nanos() as u64).rotate_left(20));
        let Some(task) = self.tasks.get_mut(&id) else { return Some((id, None, Waker::noop().clone())) };
        task.is_queued = false;
        self.here = task.node;
        Some((id, task.work.take(), task.waker.clone()))
    }

    /// Goes on to the next timer. `None` if there is none.
    fn advance(&mut self) -> Option<Waker> {
        let ((at, number), waker) = self.timers.pop_first()?;
        self.now = self.now.max(at);
        self.trace.mix(number);
        Some(waker)
    }
}

/// Forgets a timer. After the end of its simulation there is none.
pub(super) fn forget(timer: (Duration, u64)) {
    let waker = EXECUTOR.try_with(|executor| executor.borrow_mut().as_mut().and_then(|e| e.forget(timer)));
    drop(waker);
}

/// Runs a task of `node`. If that is dead, the work is dropped.
pub(super) fn spawn(node: NodeId, work: impl Future<Output = ()> + Send + 'static) {
    let work: Work = Box::pin(work);
    let refused = with(|e| {
        if !e.is_alive(node) {
            return Some(work);
        }
        e.next_task += 1;
        let id = e.next_task;
        let waker = Waker::from(Arc::new(TaskWaker { simulation: e.number, task: id }));
        e.tasks.insert(id, Task { node, work: Some(work), waker, is_queued: false });
        e.trace.mix(id ^ u64::from(node.0) << 48);
        e.enqueue(id);
        None
    });
    // Not while the executor is borrowed: it may do anything when it is dropped.
    drop(refused);
}

/// `future`, whose panic is its result.
pub(super) async fn caught<T>(
    future: impl Future<Output = T> + Send + 'static,
    result: oneshot::Sender<std::thread::Result<T>>,
) {
    let mut future = Box::pin(future);
    let poll = |cx: &mut Context<'_>| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(killed) if killed.is::<Killed>() => resume_unwind(killed),
        Err(panic) => Poll::Ready(Err(panic)),
    };
    let done = std::future::poll_fn(poll).await;
    if let Err(panic) = &done {
        let what = told(panic.as_ref());
        with(|e| e.panics.push((e.here, what)));
    }
    let _ = result.send(done);
}

/// What a panic says.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}

/// The node whose task this is.
pub fn here() -> NodeId {
    with(|e| e.here)
}

/// True time since the simulation began.
pub fn now() -> Duration {
    with(|e| e.now)
}

/// Something happened that a reader of the run's story wants to know.
pub fn record(what: impl Into<String>) {
    let what = what.into();
    with(|e| e.trace.event(e.now, e.here, what));
}

/// Something happened that has to happen in some run: see [`crate::marks`].
pub(crate) fn sometimes(mark: &'static str) {
    with(|e| e.marks.insert(mark));
}

/// Something happened that two runs of one seed must agree on.
pub(crate) fn mix(bytes: &[u8]) {
    with(|e| e.trace.mix_bytes(bytes));
}

/// Does something as `node` would.
pub fn in_node<R>(node: NodeId, f: impl FnOnce() -> R) -> R {
    struct Back(NodeId);
    impl Drop for Back {
        fn drop(&mut self) {
            with(|e| e.here = self.0);
        }
    }
    let _back = Back(with(|e| std::mem::replace(&mut e.here, node)));
    f()
}

/// A process of the node is there from now on; its clock is true.
pub(crate) fn revive(node: NodeId) {
    with(|e| e.revive(node));
}

/// How often a process of the node was started.
pub(crate) fn boots(node: NodeId) -> u64 {
    with(|e| e.processes.get(&node).map_or(0, |process| process.boots + 1))
}

/// Whether it has a process.
pub(crate) fn is_alive(node: NodeId) -> bool {
    with(|e| e.is_alive(node))
}

/// The node's process ends where it is. If a task of its own asks for that, this does not return.
pub(crate) fn kill(node: NodeId) {
    let (gone, polled) = with(|e| {
        if let Some(process) = e.processes.get_mut(&node) {
            (process.is_alive, process.is_paused) = (false, false);
            process.held.clear();
        }
        let ids: Vec<TaskId> = e.tasks.iter().filter(|(_, task)| task.node == node).map(|(id, _)| *id).collect();
        e.ready.retain(|id| ids.binary_search(id).is_err());
        let gone: Vec<Task> = ids.iter().filter_map(|id| e.tasks.remove(id)).collect();
        let polled = gone.iter().any(|task| task.work.is_none());
        (gone, polled)
    });
    // Destructors run, but as those of a dead node: nothing that they begin comes to anything.
    in_node(node, || drop(gone));
    if polled && here() == node {
        resume_unwind(Box::new(Killed));
    }
}

/// Its tasks do not go on until it is resumed, whatever happens.
pub(crate) fn pause(node: NodeId) {
    with(|e| {
        let Executor { processes, tasks, ready, .. } = e;
        let Some(process) = processes.get_mut(&node).filter(|process| process.is_alive) else { return };
        process.is_paused = true;
        let of_node = |id: &TaskId| tasks.get(id).is_some_and(|task| task.node == node);
        process.held.extend(ready.extract_if(.., |id| of_node(id)));
    });
}

/// Goes on after [`pause`].
pub(crate) fn resume(node: NodeId) {
    with(|e| {
        let Some(process) = e.processes.get_mut(&node) else { return };
        process.is_paused = false;
        e.ready.append(&mut process.held);
    });
}

/// The node's clock runs faster than true time by so many millionths from now on.
pub(crate) fn set_drift(node: NodeId, millionths: i32) {
    with(|e| {
        let now = e.now;
        if let Some(process) = e.processes.get_mut(&node) {
            let shown = process.clock.show(now);
            process.clock = Clock { shown, since: now, drift: millionths };
        }
    });
}

/// What came of a simulation.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Over everything that happened.
    pub hash: u64,
    /// How long it took, by true time in there.
    pub time: Duration,
    /// How often a task was polled.
    pub polls: u64,
    /// Panics of tasks: whose, and what they say.
    pub panics: Vec<(NodeId, String)>,
    /// What was reached of what must be in some run.
    pub marks: BTreeSet<&'static str>,
    /// What was recorded: when, where, what.
    pub events: Vec<(Duration, NodeId, String)>,
}

/// A simulation on this thread, of which there is one at a time.
pub struct Simulation(());

impl Simulation {
    /// Begins one.
    ///
    /// # Panics
    /// If there is one on this thread.
    pub fn new(seed: u64) -> Self {
        let number = NUMBER.get() + 1;
        NUMBER.set(number);
        EXECUTOR.with(|executor| {
            let before = executor.borrow_mut().replace(Executor::new(number, seed));
            assert!(before.is_none(), "one simulation at a time");
        });
        Self(())
    }

    /// Runs the simulation until `main`, which is a task of the world around the cluster, is done.
    ///
    /// # Panics
    /// If nothing can happen any more before that.
    pub fn block_on<T>(&self, main: impl Future<Output = T>) -> T {
        struct MainWaker(AtomicBool);
        impl Wake for MainWaker {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Relaxed);
            }
        }
        let woken = Arc::new(MainWaker(AtomicBool::new(true)));
        let waker = Waker::from(woken.clone());
        let mut main = pin!(main);
        loop {
            if woken.0.swap(false, Relaxed) {
                with(|e| e.here = OUTSIDE);
                if let Poll::Ready(done) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return done;
                }
            }
            step();
        }
    }

    /// What came of it.
    pub fn ended(&self) -> Ended {
        with(|e| Ended {
            hash: e.trace.hash(),
            time: e.now,
            polls: e.polls,
            panics: e.panics.clone(),
            marks: e.marks.clone(),
            events: e.trace.events().to_vec(),
        })
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // What tasks drop may wake and spawn others.
        loop {
            let tasks = with(|e| {
                e.processes.values_mut().for_each(|process| process.is_alive = false);
                std::mem::take(&mut e.tasks)
            });
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        let executor = EXECUTOR.with(|executor| executor.borrow_mut().take());
        drop(executor);
    }
}

/// Polls one task, or goes on to the next timer.
fn step() {
    let Some((id, work, waker)) = with(Executor::next) else {
        let waker = with(Executor::advance).expect("nothing can happen any more: all wait for each other");
        waker.wake();
        return;
    };
    let Some(mut work) = work else { return };
    let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut Context::from_waker(&waker))));
    let node = with(|e| std::mem::replace(&mut e.here, OUTSIDE));
    let over = match polled {
        Ok(Poll::Pending) => with(|e| match e.tasks.get_mut(&id) {
            Some(task) => {
                task.work = Some(work);
                None
            }
            None => Some(work),
        }),
        Ok(Poll::Ready(())) => {
            drop(with(|e| e.tasks.remove(&id)));
            Some(work)
        }
        Err(killed) if killed.is::<Killed>() => Some(work),
        // Tasks catch their own panics.
        Err(panic) => resume_unwind(panic),
    };
    in_node(node, || drop(over));
}
