//! The database of the modelled disk: [`Kv`] in memory, with an undo for every change that a crash may take back.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Bound;

use openraft_rt::AsyncRuntime;

use super::{Handle, REMEMBERED_BARRIERS, Random, flip_in};
use crate::disk::{Batch, Error, Kv, Op, Pair, check_values};

#[derive(Debug, Default)]
pub(super) struct State {
    now: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: u64,
    /// Bytes on the disk that hold nothing any more, as a real store has them until it is rebuilt.
    waste: u64,
    /// Batches that no barrier covers, oldest first.
    pending: VecDeque<Written>,
    /// What the last barriers covered, oldest first.
    covered: VecDeque<Vec<Written>>,
    /// Counts batches.
    written: u64,
}

/// A batch that was applied, and how to take it back: the value before each change.
#[derive(Debug)]
struct Written {
    number: u64,
    undo: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl State {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn set(&mut self, key: &[u8], value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let new = value.as_ref().map_or(0, |v| v.len() as u64);
        let old = match value {
            Some(value) => self.now.insert(key.to_vec(), value),
            None => self.now.remove(key),
        };
        self.bytes = self.bytes + new - old.as_ref().map_or(0, |v| v.len() as u64);
        old
    }

    fn apply(&mut self, batch: Batch) {
        let mut undo = Vec::with_capacity(batch.ops.len());
        for op in batch.ops {
            let (key, value) = match op {
                Op::Put { key, value } => (key, Some(value)),
                Op::Delete { key } => (key, None),
            };
            let old = self.set(&key, value);
            self.waste += old.as_ref().map_or(0, |v| v.len() as u64);
            undo.push((key, old));
        }
        self.written += 1;
        self.pending.push_back(Written { number: self.written, undo });
    }

    /// Everything up to batch `number` is durable.
    fn cover(&mut self, number: u64) {
        let mut covered = Vec::new();
        while self.pending.front().is_some_and(|first| first.number <= number) {
            covered.extend(self.pending.pop_front());
        }
        if !covered.is_empty() {
            self.covered.push_back(covered);
        }
        if self.covered.len() > REMEMBERED_BARRIERS {
            self.covered.pop_front();
        }
    }

    /// Takes back the changes of `written` but for the first `keep`.
    fn take_back(&mut self, written: Written, keep: usize) {
        for (key, old) in written.undo.into_iter().skip(keep).rev() {
            self.set(&key, old);
        }
    }

    pub(super) fn crash(&mut self, random: &mut Random, torn: bool) {
        let survive = random.below(self.pending.len() as u64 + 1);
        let lost = self.pending.len() as u64 - survive;
        for nth in 0..lost {
            let Some(written) = self.pending.pop_back() else { break };
            let first_lost = nth + 1 == lost;
            let keep = if torn && first_lost { random.below(written.undo.len() as u64 + 1) } else { 0 };
            self.take_back(written, usize::try_from(keep).unwrap_or(0));
        }
        self.cover(u64::MAX);
    }

    pub(super) fn roll_back(&mut self, barriers: usize) {
        while let Some(written) = self.pending.pop_back() {
            self.take_back(written, 0);
        }
        for _ in 0..barriers {
            for written in self.covered.pop_back().into_iter().flatten().rev() {
                self.take_back(written, 0);
            }
        }
    }

    pub(super) fn flip(&mut self, at: u64, bit: u8) -> Option<String> {
        flip_in(&mut self.now, at, bit, |key| format!("the value of key {key:02x?}"))
    }

    pub(super) fn misdirect(&mut self, random: &mut Random) -> Option<String> {
        let keys: Vec<_> = self.now.keys().cloned().collect();
        if keys.len() < 2 {
            return None;
        }
        let mut pick = || keys.get(usize::try_from(random.below(keys.len() as u64)).ok()?);
        let (from, to) = (pick()?, pick()?);
        let value = self.now.get(from)?.clone();
        self.set(to, Some(value));
        Some(format!("the value of key {from:02x?} under key {to:02x?}"))
    }
}

/// [`Kv`] of a modelled disk, as one boot of a program holds it.
pub struct ModelKv<Rt> {
    handle: Handle,
    runtime: PhantomData<fn() -> Rt>,
}

impl<Rt> Clone for ModelKv<Rt> {
    fn clone(&self) -> Self {
        Self::new(self.handle.clone())
    }
}

impl<Rt> ModelKv<Rt> {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, runtime: PhantomData }
    }
}

impl<Rt: AsyncRuntime> ModelKv<Rt> {
    /// Makes everything before it durable when a sync would be done.
    fn durably(
        &self,
        what: &'static str,
        also: fn(&mut State),
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        let begun = self.handle.begin_sync(what).and_then(|time| {
            let upto = self.handle.with(what, |inner| match inner.faults.rebuild_error {
                Some(kind) if what == "rebuild" => Err(kind.into()),
                _ => Ok(inner.kv.written),
            })?;
            Ok((time, upto))
        });
        let handle = self.handle.clone();
        let cover = move |upto| {
            handle.with(what, |inner| {
                if !inner.faults.lying_sync {
                    inner.kv.cover(upto);
                }
                also(&mut inner.kv);
                Ok(())
            })
        };
        let running = match begun {
            Ok((time, upto)) if time.is_zero() => Err(cover(upto)),
            Ok((time, upto)) => Ok(Rt::spawn(async move {
                Rt::sleep(time).await;
                cover(upto)
            })),
            Err(e) => Err(Err(e)),
        };
        async move {
            match running {
                Err(done) => done,
                Ok(task) => task.await.unwrap_or_else(|e| {
                    Err(Error::new(what, "the modelled disk", std::io::Error::other(e.to_string())))
                }),
            }
        }
    }
}

impl<Rt: AsyncRuntime> Kv for ModelKv<Rt> {
    fn write(&self, batch: Batch) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        let result = check_values(&batch, &"the modelled disk").and_then(|()| {
            let size = |op: &Op| match op {
                Op::Put { value, .. } => value.len(),
                Op::Delete { .. } => 0,
            };
            self.handle.with("write to", |inner| {
                inner.admit(batch.ops.iter().map(size).sum())?;
                inner.kv.apply(batch);
                Ok(())
            })
        });
        std::future::ready(result)
    }

    fn barrier(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        self.durably("sync", |_| {})
    }

    fn rebuild(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        self.durably("rebuild", |state| state.waste = 0)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.handle.with("read from", |inner| Ok(inner.kv.now.get(key).cloned()))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, Error> {
        if from >= to {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.handle.with("read from", |inner| {
            let pairs = inner.kv.now.range::<[u8], _>(bounds).take(limit);
            Ok(pairs.map(|(k, v)| (k.clone(), v.clone())).collect())
        })
    }

    fn bytes_on_disk(&self) -> Result<u64, Error> {
        self.handle.with("read the size of", |inner| Ok(inner.kv.bytes + inner.kv.waste))
    }

    fn close(&self) -> impl Future<Output = ()> + Send + 'static + use<Rt> {
        let _ = self.handle.with("close", |inner| {
            inner.boot += 1;
            Ok(())
        });
        std::future::ready(())
    }
}
