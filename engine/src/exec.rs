//! Where CPU work runs: on rayon's threads in production, on one thread in a seeded order in a simulator.

#![expect(clippy::disallowed_types, reason = "the one adapter of rayon")]

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Runs slices of CPU work. The one place in the engine that knows of threads.
pub trait Exec: Sync {
    /// How many slices run at once.
    fn threads(&self) -> usize;

    /// Runs `slice(0)` to `slice(n - 1)`, each once, and returns when all are done. A panic in a slice is passed on.
    fn run(&self, n: usize, slice: &(dyn Fn(usize) + Sync));
}

/// Slices on a pool of threads of their own.
pub struct Threads(rayon::ThreadPool);

impl Threads {
    /// A pool of `n` threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(n: usize) -> std::io::Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n.max(1))
            .thread_name(|i| format!("gristmill-{i}"))
            .build()
            .map(Self)
            .map_err(std::io::Error::other)
    }
}

impl Exec for Threads {
    fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, n: usize, slice: &(dyn Fn(usize) + Sync)) {
        if self.threads() == 1 || n == 1 {
            return self.0.install(|| (0..n).for_each(slice));
        }
        self.0.install(|| (0..n).into_par_iter().with_max_len(1).for_each(slice));
    }
}

/// Slices one after the other, on the thread that asks.
pub(crate) struct Inline;

impl Exec for Inline {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, n: usize, slice: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(slice);
    }
}

/// Runs `f(0)` to `f(n - 1)` on all threads, begun in this order: what must be written in order does not pile up.
pub(crate) fn in_order(exec: &dyn Exec, n: usize, f: &(dyn Fn(usize) + Sync)) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    exec.run(exec.threads().min(n), &|_| {
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if i >= n {
                return;
            }
            f(i);
        }
    });
}
