//! A network within one process, for tests: lines can be cut, in one direction or both.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, BoxStream};

use super::{Error, Net, Peer, Service};

#[derive(Default)]
struct Lines {
    services: BTreeMap<u64, Arc<dyn Service>>,
    cut: BTreeSet<(u64, u64)>,
}

/// Connects the nodes of one process. Clones for one node come from [`Switchboard::line`].
pub struct Switchboard<Rt> {
    lines: Arc<Mutex<Lines>>,
    from: u64,
    runtime: PhantomData<fn() -> Rt>,
}

impl<Rt> Clone for Switchboard<Rt> {
    fn clone(&self) -> Self {
        self.line(self.from)
    }
}

impl<Rt> Default for Switchboard<Rt> {
    fn default() -> Self {
        Self { lines: Arc::default(), from: 0, runtime: PhantomData }
    }
}

impl<Rt> Switchboard<Rt> {
    /// The network as node `from` sees it.
    pub fn line(&self, from: u64) -> Self {
        Self { lines: self.lines.clone(), from, runtime: PhantomData }
    }

    /// Node `id` can be reached now.
    pub fn connect(&self, id: u64, service: impl Service) {
        self.lock().services.insert(id, Arc::new(service));
    }

    /// Node `id` can not be reached any more.
    pub fn disconnect(&self, id: u64) {
        self.lock().services.remove(&id);
    }

    /// Nothing goes from `from` to `to` any more.
    pub fn cut(&self, from: u64, to: u64) {
        self.lock().cut.insert((from, to));
    }

    /// All cut lines work again.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn service(&self, to: u64) -> Result<Arc<dyn Service>, Error> {
        let lines = self.lock();
        if lines.cut.contains(&(self.from, to)) {
            return Err(Error::NotSent(format!("the line to node {to:016x} is cut")));
        }
        lines.services.get(&to).cloned().ok_or_else(|| Error::NotSent(format!("node {to:016x} is not there")))
    }

    /// An answer comes back only over a line that works.
    fn answer(&self, to: u64, answer: Result<Bytes, Error>) -> Result<Bytes, Error> {
        if self.lock().cut.contains(&(to, self.from)) {
            return Err(Error::Unknown(format!("the line from node {to:016x} is cut")));
        }
        answer
    }
}

impl<Rt: AsyncRuntime> Net for Switchboard<Rt> {
    fn call(
        &self,
        to: &Peer,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + 'static + use<Rt> {
        let (line, to) = (self.clone(), to.id);
        async move {
            let answer = Rt::timeout(within, line.service(to)?.handle(request)).await;
            line.answer(to, answer.unwrap_or_else(|_| Err(Error::Unknown(format!("nothing within {within:?}")))))
        }
    }

    fn stream(
        &self,
        to: &Peer,
        chunks: BoxStream<'static, Bytes>,
        _stall: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + 'static + use<Rt> {
        let (line, to) = (self.clone(), to.id);
        async move {
            let answer = line.service(to)?.receive(chunks).await;
            line.answer(to, answer)
        }
    }
}
