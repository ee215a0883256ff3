//! A thread that does blocking disk work, one job after another, for callers that must not block.
//!
//! Jobs are done in the order of the calls. What they do is the caller's.

use std::future::Future;
use std::io;
use std::sync::mpsc;

use futures_channel::oneshot;

/// Jobs that may wait. Callers are few (the log's writer, a snapshot), so this is never reached in practice; beyond it
/// a call blocks.
const MAX_WAITING_JOBS: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone, Debug)]
pub(super) struct Worker {
    jobs: mpsc::SyncSender<Job>,
}

impl Worker {
    /// Starts the thread. It ends when all clones are gone.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, todo) = mpsc::sync_channel::<Job>(MAX_WAITING_JOBS);
        std::thread::Builder::new().name(name.to_string()).spawn(move || {
            while let Ok(job) = todo.recv() {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    /// Queues `job`; the future gives its result. A job that panics ends the thread, and this and all later jobs with
    /// an error.
    pub(super) fn run<T: Send + 'static, J: FnOnce() -> T + Send + 'static>(
        &self,
        job: J,
    ) -> impl Future<Output = io::Result<T>> + Send + 'static + use<T, J> {
        let (done, result) = oneshot::channel();
        let queued = self.jobs.send(Box::new(move || {
            let _ = done.send(job());
        }));
        async move {
            queued.map_err(|_| gone())?;
            result.await.map_err(|_| gone())
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that works on the disk has ended; an earlier message says why")
}
