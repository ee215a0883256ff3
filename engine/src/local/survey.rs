//! A look at a sample of the input of a sorting job: where its parts begin, and ranges to sort in.
//!
//! Parts depend on the input alone; ranges are for speed, and for what a thread holds before it spills.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::logs::map_log;
use super::{Run, panic_message};
use crate::app::{App, Chunk};
use crate::data::emit::Tally;
use crate::data::feed::Feed;
use crate::data::log::{Log, Shapes};
use crate::data::ranges::Ranges;
use crate::data::source::Loaded;
use crate::data::words::Isa;
use crate::error::Error;
use crate::value::Stable;

/// Bytes of input in one range, about: its entries are sorted in the cache, and a log writes to few places at once.
const RANGE_BYTES: u64 = 2 << 20;
/// Most ranges. A log writes to all of them at once, and each takes 4 KiB at least.
const MOST_RANGES: u64 = 4096;
/// Records sampled to divide a job into parts.
const SPLIT_SAMPLE: usize = 4096;
/// Records sampled for each range, when there are no parts to divide.
const RANGE_SAMPLE: u64 = 2;

/// Bytes of the pieces of input in which those records are looked for, at first.
const PIECE: usize = 4 << 10;
/// Most bytes of a piece, where smaller ones held no record that the app wants.
const MOST_PIECE: usize = 16 << 20;
/// Bytes of all larger pieces together: an app may want no record at all.
const LARGER_PIECES: usize = 64 << 20;

/// How the keys of a job are divided.
pub(super) struct Survey {
    pub(super) ranges: Ranges,
    /// The first keys of all parts but the first.
    pub(super) splitters: Vec<Vec<u8>>,
}

impl<A: App> Run<'_, A> {
    pub(super) fn survey(&self) -> Result<Survey, Error> {
        let known = self.feed.known_bytes();
        // A log is spilled before it holds more than its share: ranges are for what it holds by then.
        let most = (known.min(self.share() as u64) / RANGE_BYTES).min(MOST_RANGES);
        let records = match self.splitters {
            None if self.parts > 1 => split_sample(self.parts),
            _ => (most * RANGE_SAMPLE) as usize,
        };
        let sample = Sample::take(self.app, self.feed, self.options.isa, records)?;
        let keys = &sample.keys;
        let n = (keys.len() as u128 * u128::from(known) / u128::from(sample.bytes.max(1))) as u64;
        let ranges = if most < 2 { Ranges::one() } else { Ranges::fit(keys, n as usize, (n / most) as usize) };
        let splitters = match self.splitters {
            Some(given) => given.to_vec(),
            None => sample.splitters(self.parts),
        };
        Ok(Survey { ranges, splitters })
    }
}

/// The first keys of all parts but the first, of a job over all that `feed` has.
pub(crate) fn splitters<A: App>(app: &A, feed: &dyn Feed, isa: Isa, parts: u32) -> Result<Vec<Vec<u8>>, Error> {
    if parts < 2 {
        return Ok(Vec::new());
    }
    Ok(Sample::take(app, feed, isa, split_sample(parts))?.splitters(parts))
}

fn split_sample(parts: u32) -> usize {
    SPLIT_SAMPLE.max(16 * parts as usize)
}

#[derive(Default)]
struct Sample {
    /// In order.
    keys: Vec<Vec<u8>>,
    /// Bytes of the records that they are of.
    bytes: u64,
}

impl Sample {
    /// The keys of records here and there.
    fn take<A: App>(app: &A, feed: &dyn Feed, isa: Isa, records: usize) -> Result<Self, Error> {
        let mut sample = Self::default();
        let mut size = PIECE;
        while records > 0 && sample.keys.is_empty() && size <= MOST_PIECE {
            let pieces = if size == PIECE { records } else { records.min(LARGER_PIECES / size) };
            sample = Self::of_pieces(app, feed, isa, pieces, size)?;
            size *= 64;
        }
        sample.keys.sort_unstable();
        Ok(sample)
    }

    /// The keys of records that are looked for in pieces of `size` bytes.
    fn of_pieces<A: App>(app: &A, feed: &dyn Feed, isa: Isa, records: usize, size: usize) -> Result<Self, Error> {
        let ranges = Ranges::one();
        let (mut log, mut tally, shapes) = (Log::new(&ranges), Tally::default(), Shapes::default());
        let mut sampled = 0;
        for (input, bytes) in feed.sample(records, size)? {
            let name = &feed.names()[input as usize];
            let chunk = Chunk::new_with(&bytes, feed.format(), input, name, isa);
            let loaded = Loaded { chunk, stable: Stable::NONE };
            let mapped = catch_unwind(AssertUnwindSafe(|| {
                map_log(app, &mut log, &mut tally, &ranges, &shapes, &loaded);
            }));
            mapped.map_err(|panic| {
                let place = format!("a sample of {name}");
                Error::Panic { phase: "map", place, message: panic_message(&*panic) }
            })?;
            sampled += bytes.len() as u64;
        }
        let known = shapes.known();
        // SAFETY: nothing of the samples was stable, so all is in the log.
        let keys = log.entries().map(|e| unsafe { known.key(e) }.to_vec()).collect();
        Ok(Self { keys, bytes: sampled })
    }

    fn splitters(&self, parts: u32) -> Vec<Vec<u8>> {
        let (keys, parts) = (&self.keys, parts as usize);
        let splitter = |i: usize| if keys.is_empty() { Vec::new() } else { keys[keys.len() * i / parts].clone() };
        (1..parts).map(splitter).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::app::{Emit, Format, Output, Shuffle, Values};
    use crate::data::output::lock;
    use crate::data::source::{Loader, Visit};

    /// Wants no record.
    struct Nothing;

    impl App for Nothing {
        type Value = ();
        const SHUFFLE: Shuffle = Shuffle::Sort;
        fn map<E: Emit<()>>(&self, _: &Chunk<'_>, _: &mut E) {}
        fn combine(&self, (): &mut (), (): ()) -> bool {
            false
        }
        fn reduce<V: Values<()>>(&self, _: &[u8], _: &mut V, _: &mut Output<'_>) {}
    }

    /// Input without end, and how many pieces of which size were asked for.
    #[derive(Default)]
    struct Endless {
        asked: Mutex<Vec<(usize, usize)>>,
    }

    impl Feed for Endless {
        fn names(&self) -> &[String] {
            &[]
        }
        fn format(&self) -> Format {
            Format::Lines
        }
        fn units(&self) -> u64 {
            1
        }
        fn known_bytes(&self) -> u64 {
            1 << 40
        }
        fn load(&self, _: u64, _: &mut Loader, _: &AtomicBool, _: &mut Visit<'_>) -> Result<u64, Error> {
            Ok(0)
        }
        fn sample(&self, n: usize, size: usize) -> Result<Vec<(u32, Vec<u8>)>, Error> {
            lock(&self.asked).push((n, size));
            Ok(Vec::new())
        }
        fn release_pinned(&self) {}
    }

    /// Found by the simulator: with two reducers, `grep --lines` for what no line has looked into 64 GiB, for a small file too.
    #[test]
    fn an_app_that_wants_nothing_does_not_read_everything_many_times() {
        let feed = Endless::default();
        splitters(&Nothing, &feed, Isa::best(), 2).unwrap();
        let asked = lock(&feed.asked);
        assert_eq!(asked[0], (SPLIT_SAMPLE, PIECE));
        assert!(
            asked.len() == 3 && asked[1..].iter().all(|(n, size)| *n > 0 && n * size <= LARGER_PIECES),
            "{asked:?}"
        );
    }
}
