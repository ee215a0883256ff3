//! Threads that write to whoever leads, and remember what was acknowledged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::nodes::{Cluster, Line};
use crate::program::until;

/// A write that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    key: String,
    value: String,
    index: u64,
    pub(crate) begun: Instant,
    pub(crate) took: Duration,
}

struct Shared {
    /// Where nodes can be asked, with their addresses.
    places: Mutex<Vec<(String, PathBuf)>>,
    hint: AtomicUsize,
    stop: AtomicBool,
    acknowledged: Mutex<Vec<Write>>,
}

/// Threads that write until they are stopped.
pub(crate) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    pub(crate) fn start(cluster: &Cluster, count: usize) -> Self {
        let shared = Arc::new(Shared {
            places: Mutex::default(),
            hint: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            acknowledged: Mutex::default(),
        });
        let mut writers = Self { shared, threads: Vec::new() };
        writers.look_again(cluster);
        let write = |thread| {
            let shared = writers.shared.clone();
            std::thread::spawn(move || shared.write(thread))
        };
        writers.threads = (0..count).map(write).collect();
        writers
    }

    /// Nodes were added.
    pub(crate) fn look_again(&self, cluster: &Cluster) {
        let places = cluster.nodes.iter().map(|node| (node.address.clone(), node.socket.clone()));
        *self.shared.places.lock().unwrap() = places.collect();
    }

    /// How many were acknowledged so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.acknowledged.lock().unwrap().len()
    }

    /// The writes that were acknowledged after so many.
    pub(crate) fn since(&self, count: usize) -> Vec<Write> {
        self.shared.acknowledged.lock().unwrap()[count..].to_vec()
    }

    /// Waits until so many more are acknowledged that were begun after this.
    pub(crate) fn more(&self, count: usize) {
        let (now, before) = (Instant::now(), self.count());
        until("writes to go on", || self.since(before).iter().filter(|write| write.begun > now).count() >= count);
    }

    /// Ends the writing and looks for everything acknowledged on every node. Returns how many there were.
    pub(crate) fn check(mut self, cluster: &Cluster) -> usize {
        self.stop();
        let acknowledged = self.since(0);
        cluster.agree();
        for node in cluster.nodes.iter().filter(|node| node.is_up()) {
            let there = node.dump();
            for write in &acknowledged {
                let found = there.get(&write.key);
                let is = found.is_some_and(|cell| *cell == (write.index, 1, write.value.clone()));
                assert!(is, "{write:?} was acknowledged; node {} has {found:?}", node.id);
            }
        }
        acknowledged.len()
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Who panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn write(&self, thread: usize) {
        let mut line: Option<(usize, Line)> = None;
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let target = self.hint.load(Ordering::Relaxed);
            if line.as_ref().is_none_or(|(at, _)| *at != target) {
                line = self.line(target).map(|line| (target, line));
            }
            let (key, value) = (format!("w{thread}-{n}"), format!("v{}", n * 7 + thread));
            let begun = Instant::now();
            let answer = line.as_mut().and_then(|(_, line)| line.ask(&format!("put {key} {value}")).ok());
            match answer.as_deref().and_then(|answer| answer.split_once(' ')) {
                Some(("ok", index)) => {
                    let (index, took) = (index.parse().unwrap(), begun.elapsed());
                    self.acknowledged.lock().unwrap().push(Write { key, value, index, begun, took });
                }
                Some(("elsewhere", leader)) => self.go(target, Some(leader)),
                // What came of it is not known: another key next time, at another node.
                _ => {
                    line = None;
                    self.go(target, None);
                }
            }
        }
    }

    fn line(&self, target: usize) -> Option<Line> {
        let places = self.places.lock().unwrap();
        let (_, socket) = &places[target % places.len()];
        Line::open(socket).ok()
    }

    /// Not `from`, but the leader if it is known.
    fn go(&self, from: usize, leader: Option<&str>) {
        let next = {
            let places = self.places.lock().unwrap();
            let known = places.iter().position(|(address, _)| Some(address.as_str()) == leader);
            known.filter(|known| *known != from).unwrap_or((from + 1) % places.len())
        };
        // Others may have gone elsewhere already.
        let _ = self.hint.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The least value that `percent` of all do not exceed (nearest rank): of 100, p99 is the second largest.
pub(crate) fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent).div_ceil(100) - 1]
}
