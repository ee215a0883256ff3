//! Scratch in memory: for the simulator and for tests, with a hook that makes calls fail.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Error, Mapping, Scratch, Temporary, check_name};
use crate::data::output::lock;
use crate::data::segment::ReadAt;

/// What is about to be done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creating it, or opening it to append. Of a file without a name the name is empty.
    Create,
    /// Writing that many bytes.
    Write(usize),
    /// Reading from a file without a name.
    Read,
    /// Mapping it.
    Map,
    /// Removing it.
    Remove,
    /// Listing files; the name is the prefix.
    List,
    /// Asking for its size.
    Size,
}

/// Says whether a call is to fail, and how.
type Fault = dyn Fn(Op, &str) -> Option<io::Error> + Send + Sync;

/// Scratch in memory. Clones share it.
#[derive(Clone, Default)]
pub struct Memory {
    files: Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>,
    fault: Option<Arc<Fault>>,
}

impl Memory {
    /// Scratch whose calls fail where `fault` says so.
    pub fn failing(fault: impl Fn(Op, &str) -> Option<io::Error> + Send + Sync + 'static) -> Self {
        Self { files: Arc::default(), fault: Some(Arc::new(fault)) }
    }

    /// Forgets all files, as a disk that was replaced.
    pub fn wipe(&self) {
        lock(&self.files).clear();
    }

    fn check(&self, op: Op, name: &str) -> io::Result<()> {
        if op != Op::List {
            check_name(name)?;
        }
        self.hook(op, name)
    }

    fn hook(&self, op: Op, name: &str) -> io::Result<()> {
        self.fault.as_ref().and_then(|fault| fault(op, name)).map_or(Ok(()), Err)
    }

    fn get(&self, op: Op, name: &str) -> io::Result<Arc<Vec<u8>>> {
        self.check(op, name)?;
        lock(&self.files).get(name).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn open(&self, name: &str, keep: bool) -> io::Result<Box<dyn Write + Send>> {
        self.check(Op::Create, name)?;
        let mut files = lock(&self.files);
        if !keep {
            files.remove(name);
        }
        files.entry(name.into()).or_default();
        Ok(Box::new(Named { memory: self.clone(), name: name.into() }))
    }
}

impl Scratch for Memory {
    fn create(&self, name: &str) -> Result<Box<dyn Write + Send>, Error> {
        self.open(name, false).map_err(Error::at("create", name))
    }

    fn append(&self, name: &str) -> Result<Box<dyn Write + Send>, Error> {
        self.open(name, true).map_err(Error::at("open", name))
    }

    fn temporary(&self) -> Result<Box<dyn Temporary>, Error> {
        self.hook(Op::Create, "").map_err(Error::at("create a file in", "memory"))?;
        Ok(Box::new(Unnamed { memory: self.clone(), bytes: Vec::new() }))
    }

    fn map(&self, name: &str) -> Result<Arc<dyn Mapping>, Error> {
        self.get(Op::Map, name).map(|bytes| bytes as _).map_err(Error::at("map", name))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.check(Op::Remove, name).map_err(Error::at("remove", name))?;
        lock(&self.files).remove(name);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        self.check(Op::List, prefix).map_err(Error::at("list", prefix))?;
        let files = lock(&self.files);
        let found = files.range(prefix.to_string()..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        self.get(Op::Size, name).map(|bytes| bytes.len() as u64).map_err(Error::at("look up", name))
    }

    fn place(&self, name: &str) -> PathBuf {
        if name.is_empty() { "memory".into() } else { name.into() }
    }
}

struct Named {
    memory: Memory,
    name: String,
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.memory.hook(Op::Write(bytes.len()), &self.name)?;
        // As on a disk, what was removed may still be written to by whoever has it open.
        if let Some(file) = lock(&self.memory.files).get_mut(&self.name) {
            Arc::make_mut(file).extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Unnamed {
    memory: Memory,
    bytes: Vec<u8>,
}

impl Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.memory.hook(Op::Write(bytes.len()), "")?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadAt for Unnamed {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.memory.hook(Op::Read, "")?;
        self.bytes.read_exact_at(buf, offset)
    }
}
