//! What a map reads: inputs laid out in numbered units, wherever they are. `source` gives the files of a local job,
//! `task::input` the ranges of objects that one task of a cluster's job is for.

use std::sync::atomic::AtomicBool;

use super::chunk::Format;
use super::source::{Loader, Sources, Visit};
use crate::error::Error;

/// Inputs in numbered units. Units are in input order, and any thread can load any unit.
pub(crate) trait Feed: Sync {
    /// The names of all inputs of the job, in order.
    fn names(&self) -> &[String];

    /// How they are cut into records.
    fn format(&self) -> Format;

    /// How many units there are.
    fn units(&self) -> u64;

    /// Bytes of input whose size is known before it is read.
    fn known_bytes(&self) -> u64;

    /// Loads a unit and calls `visit` with each of its chunks, in order. Returns the bytes of input seen.
    fn load(&self, unit: u64, loader: &mut Loader, stop: &AtomicBool, visit: &mut Visit<'_>) -> Result<u64, Error>;

    /// Whole records here and there, with the inputs that they are from; see [`super::sample`].
    fn sample(&self, n: usize, size: usize) -> Result<Vec<(u32, Vec<u8>)>, Error>;

    /// Gives back the pages of input that stays mapped; they come back when touched.
    fn release_pinned(&self);
}

impl Feed for Sources {
    fn names(&self) -> &[String] {
        &self.names
    }
    fn format(&self) -> Format {
        self.format
    }
    fn units(&self) -> u64 {
        self.units()
    }
    fn known_bytes(&self) -> u64 {
        self.known_bytes()
    }
    fn load(&self, unit: u64, loader: &mut Loader, stop: &AtomicBool, visit: &mut Visit<'_>) -> Result<u64, Error> {
        self.load(unit, loader, stop, visit)
    }
    fn sample(&self, n: usize, size: usize) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        self.sample(n, size)
    }
    fn release_pinned(&self) {
        self.release_pinned()
    }
}
