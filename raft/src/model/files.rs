//! The files of the modelled disk: [`Files`] in memory, with what would be left after a loss of power kept apart.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use openraft_rt::AsyncRuntime;

use super::{Handle, Inner, Random, flip_in};
use crate::disk::{Error, FileInfo, Files};

#[derive(Debug, Default)]
pub(super) struct State {
    now: BTreeMap<String, Vec<u8>>,
    /// What a loss of power leaves for certain.
    durable: BTreeMap<String, Vec<u8>>,
    /// Durable work that has begun, by number: a loss of power may leave it done, half done or undone.
    running: BTreeMap<u64, Work>,
    begun: u64,
    /// Files that were removed and may be back.
    removed: Vec<String>,
}

#[derive(Debug, Clone)]
enum Work {
    Overwrite { name: String, offset: usize, bytes: Vec<u8> },
    Seal { name: String, to: String },
}

impl State {
    pub(super) fn bytes(&self) -> u64 {
        self.now.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn begin(&mut self, work: Work) -> u64 {
        if let Work::Overwrite { name, offset, bytes } = &work {
            put(self.now.entry(name.clone()).or_default(), *offset, bytes);
        }
        self.begun += 1;
        self.running.insert(self.begun, work);
        self.begun
    }

    fn finish(&mut self, number: u64, lie: bool) -> io::Result<()> {
        match self.running.remove(&number) {
            Some(Work::Overwrite { .. }) if lie => Ok(()),
            Some(Work::Overwrite { name, offset, bytes }) => {
                // A sync is of the whole file: also of what a process wrote that was killed before its own.
                let of_it = |work: &Work| matches!(work, Work::Overwrite { name: other, .. } if *other == name);
                let before = self.running.extract_if(..number, |_, work| of_it(work)).map(|(_, work)| work);
                let content = self.durable.entry(name.clone()).or_default();
                for work in before.collect::<Vec<_>>() {
                    if let Work::Overwrite { offset, bytes, .. } = work {
                        put(content, offset, &bytes);
                    }
                }
                put(content, offset, &bytes);
                Ok(())
            }
            Some(Work::Seal { name, to }) => {
                let content = self.now.remove(&name).ok_or(io::ErrorKind::NotFound)?;
                if !lie {
                    self.durable.insert(to.clone(), content.clone());
                    self.durable.remove(&name);
                    for gone in self.removed.drain(..) {
                        self.durable.remove(&gone);
                    }
                }
                self.now.insert(to, content);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn crash(&mut self, random: &mut Random) {
        for work in std::mem::take(&mut self.running).into_values() {
            match work {
                Work::Overwrite { name, offset, bytes } => {
                    let kept = usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap_or(0);
                    put(self.durable.entry(name).or_default(), offset, bytes.get(..kept).unwrap_or_default());
                }
                Work::Seal { name, to } => {
                    if random.below(2) == 0
                        && let Some(content) = self.now.get(&name)
                    {
                        self.durable.insert(to, content.clone());
                    }
                }
            }
        }
        for gone in std::mem::take(&mut self.removed) {
            if random.below(2) == 0 {
                self.durable.remove(&gone);
            }
        }
        // Files that were only appended to: some prefix is there.
        for (name, content) in &self.now {
            if !self.durable.contains_key(name) {
                let kept = usize::try_from(random.below(content.len() as u64 + 1)).unwrap_or(0);
                self.durable.insert(name.clone(), content.get(..kept).unwrap_or_default().to_vec());
            }
        }
        self.now = self.durable.clone();
    }

    pub(super) fn flip(&mut self, at: u64, bit: u8) -> Option<String> {
        let place = flip_in(&mut self.now, at, bit, |name| format!("file {name}"));
        flip_in(&mut self.durable, at, bit, Clone::clone);
        place
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// [`Files`] of a modelled disk, as one boot of a program holds them.
pub struct ModelFiles<Rt> {
    handle: Handle,
    runtime: PhantomData<fn() -> Rt>,
}

impl<Rt> Clone for ModelFiles<Rt> {
    fn clone(&self) -> Self {
        Self::new(self.handle.clone())
    }
}

impl<Rt> ModelFiles<Rt> {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, runtime: PhantomData }
    }
}

impl<Rt: AsyncRuntime> ModelFiles<Rt> {
    /// Begins `work` now and finishes it when a sync would be done.
    fn durably(
        &self,
        what: &'static str,
        bytes: usize,
        work: Work,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        let begun = self.handle.begin_sync(what).and_then(|time| {
            let begin = |inner: &mut Inner| inner.admit(bytes).map(|()| inner.files.begin(work));
            Ok((time, self.handle.with(what, begin)?))
        });
        let handle = self.handle.clone();
        let finish = move |number| {
            handle.with(what, |inner| {
                let lie = inner.faults.lying_sync;
                inner.files.finish(number, lie)
            })
        };
        let running = match begun {
            Ok((time, number)) if time.is_zero() => Err(finish(number)),
            Ok((time, number)) => Ok(Rt::spawn(async move {
                Rt::sleep(time).await;
                finish(number)
            })),
            Err(e) => Err(Err(e)),
        };
        async move {
            match running {
                Err(done) => done,
                Ok(task) => task
                    .await
                    .unwrap_or_else(|e| Err(Error::new(what, "the modelled disk", io::Error::other(e.to_string())))),
            }
        }
    }
}

/// Gives a result after a while, in which others go on.
async fn after<Rt: AsyncRuntime>(time: Duration, result: Result<(), Error>) -> Result<(), Error> {
    if !time.is_zero() {
        Rt::sleep(time).await;
    }
    result
}

impl<Rt: AsyncRuntime> Files for ModelFiles<Rt> {
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>, Error> {
        self.handle.with("read", |inner| {
            Ok(inner.files.now.get(name).map(|content| {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                let end = start.saturating_add(bytes).min(content.len());
                content.get(start..end).unwrap_or_default().to_vec()
            }))
        })
    }

    fn list(&self) -> Result<Vec<FileInfo>, Error> {
        self.handle.with("list", |inner| {
            let info =
                |(name, content): (&String, &Vec<u8>)| FileInfo { name: name.clone(), bytes: content.len() as u64 };
            Ok(inner.files.now.iter().map(info).collect())
        })
    }

    fn overwrite(
        &self,
        name: &str,
        offset: u64,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.durably("write to", 0, Work::Overwrite { name: name.to_string(), offset, bytes })
    }

    fn append(&self, name: &str, bytes: Vec<u8>) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        let result = self.handle.with("write to", |inner| {
            inner.admit(bytes.len())?;
            inner.files.now.entry(name.to_string()).or_default().extend_from_slice(&bytes);
            Ok(())
        });
        after::<Rt>(self.handle.write_time(), result)
    }

    fn seal(&self, name: &str, to: &str) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        self.durably("seal", 0, Work::Seal { name: name.to_string(), to: to.to_string() })
    }

    fn remove(&self, name: &str) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<Rt> {
        let result = self.handle.with("remove", |inner| {
            if inner.files.now.remove(name).is_some() {
                inner.files.removed.push(name.to_string());
            }
            Ok(())
        });
        after::<Rt>(self.handle.write_time(), result)
    }

    fn close(&self) -> impl Future<Output = ()> + Send + 'static + use<Rt> {
        std::future::ready(())
    }
}
