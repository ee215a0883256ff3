//! Jobs cut into tasks, as a cluster runs them: the same output as a local job's, byte for byte, whatever the size of tasks
//! and wherever they run; and tasks that fail.
//!
//! [`same_as`] is called for every job that any test of the oracle runs. Objects, scratch and segments are in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_engine::app::Shuffle;
use gristmill_engine::data::commit::{Manifest, PartEntry, SUCCESS};
use gristmill_engine::data::digest::Digest;
use gristmill_engine::data::input::Input;
use gristmill_engine::error::Error;
use gristmill_engine::job::{AppJob, Context, Job, Options};
use gristmill_engine::scratch::{Mapping, Memory, Scratch, Slice};
use gristmill_engine::task::{
    self, MapOutput, MapTask, Object, Objects, PartOutput, ReduceTask, Segment, SegmentBytes, TaskPlan, Which,
};

use crate::apps::{Inputs, Keys, Listing, LongTails, Places, SortedPlaces, Sum};
use crate::failures::{Failing, Grouping, lines_with};
use crate::world::{Outcome, Run, Shape, World, pool};

/// Inputs in memory.
struct Stored(Vec<Arc<Vec<u8>>>);

impl Objects for Stored {
    fn map(&self, number: u32) -> io::Result<Arc<dyn Mapping>> {
        Ok(self.0[number as usize].clone())
    }
}

/// A job that is run in tasks.
struct Tasks<'w> {
    world: &'w World,
    job: &'w dyn Job,
    listing: Vec<Object>,
    stored: Stored,
    scratch: Memory,
    plan: TaskPlan,
    splitters: Vec<Vec<u8>>,
    shape: Shape,
}

impl<'w> Tasks<'w> {
    fn new(world: &'w World, job: &'w dyn Job, shape: Shape, run: Run, target: u64) -> Result<Self, Error> {
        let inputs = world.inputs();
        let object = |input: &Input| Object { name: input.name().into_owned(), len: input.len };
        let listing: Vec<Object> = inputs.iter().map(object).collect();
        let stored = Stored(inputs.iter().map(|i| Arc::new(std::fs::read(&i.path).unwrap())).collect());
        let options = options(world, shape, run);
        let plan = job.divide(&listing, &options, target)?;
        let splitters = job.survey(&listing, plan.parts, &stored, &options)?;
        assert_eq!(plan.survey, !splitters.is_empty());
        Ok(Self { world, job, listing, stored, scratch: Memory::default(), plan, splitters, shape })
    }

    fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(self.scratch.clone())
    }

    fn map(&self, number: usize, file: &str, run: Run) -> Result<MapOutput, Error> {
        let task = MapTask {
            which: Which::default(),
            inputs: &self.listing,
            ranges: &self.plan.tasks[number],
            parts: self.plan.parts,
            splitters: &self.splitters,
            file,
        };
        self.with(run, &AtomicBool::new(false), |options, context| {
            self.job.map_task(task, &self.stored, &self.scratch(), options, context)
        })
    }

    fn with<T>(&self, run: Run, stop: &AtomicBool, f: impl FnOnce(&Options, &Context<'_>) -> T) -> T {
        let context = Context { exec: pool(run.threads), observer: &(), stop };
        f(&options(self.world, self.shape, run), &context)
    }

    fn segment(&self, file: &str, map: &MapOutput, part: usize, streamed: bool) -> Segment {
        let mapping = self.scratch.map(file).unwrap();
        let entry = map.segments[part];
        let slice = Slice::new(mapping, entry.offset, entry.len).unwrap();
        let bytes = match streamed {
            true => SegmentBytes::Stream(Box::new(io::Cursor::new(slice.bytes().to_vec())), entry.len),
            false => SegmentBytes::Mapped(slice),
        };
        Segment { name: format!("segment {part} of {file}"), bytes, digest: Some(entry.digest) }
    }

    fn reduce(&self, part: u32, segments: Vec<Segment>, run: Run) -> Result<PartOutput, Error> {
        let inputs: Vec<String> = self.listing.iter().map(|o| o.name.clone()).collect();
        let task = ReduceTask { which: Which::default(), inputs: &inputs, part, segments, file: "part" };
        self.with(run, &AtomicBool::new(false), |options, context| {
            self.job.reduce_task(task, &self.scratch(), options, context)
        })
    }

    /// Runs all tasks; the files of the output.
    fn run(&self, run: Run) -> Result<BTreeMap<PathBuf, Vec<u8>>, Error> {
        let file = |n: usize| format!("job/map-{n}");
        let maps = (0..self.plan.tasks.len()).map(|n| self.map(n, &file(n), run)).collect::<Result<Vec<_>, _>>()?;
        let (mut files, mut parts) = (BTreeMap::new(), Vec::new());
        for part in 0..self.plan.parts {
            let segment = |(n, map)| self.segment(&file(n), map, part as usize, n % 2 == 1);
            let out = self.reduce(part, maps.iter().enumerate().map(segment).collect(), run)?;
            let bytes = self.scratch.map("part").unwrap().bytes().to_vec();
            assert_eq!((out.bytes, out.digest), (bytes.len() as u64, Digest::of(&bytes)));
            parts.push(PartEntry { name: out.name.clone(), summary: out.summary });
            files.insert(out.name.into(), bytes);
        }
        let mut counters = BTreeMap::new();
        maps.iter().flat_map(|m| &m.counters).for_each(|(name, n)| *counters.entry(name.clone()).or_default() += n);
        let bad: Vec<_> = maps.iter().filter_map(|m| m.bad.as_ref()).collect();
        let records = bad.iter().map(|b| b.records).sum();
        let bytes: Vec<_> = bad.iter().map(|b| self.scratch.map(&b.file).unwrap()).collect();
        let names: Vec<String> = self.listing.iter().map(|o| o.name.clone()).collect();
        let extra = self.job.extra_files(&names).into_iter().chain(task::bad_records(bytes.iter().map(|b| b.bytes())));
        files.extend(extra.map(|(name, bytes)| (name.into(), bytes)));
        files.insert(SUCCESS.into(), task::manifest("test", "job-1", parts, counters, records)?);
        Ok(files)
    }
}

fn options(world: &World, shape: Shape, run: Run) -> Options {
    // Nobody looks there: scratch is in memory.
    Options { scratch: "/does/not/exist".into(), ..world.options(shape, run) }
}

/// Whether a job in tasks leaves what it left when it was run at once. The size of tasks is drawn from the way it was run.
pub fn same_as(world: &World, job: &dyn Job, shape: Shape, run: Run, want: &Outcome) {
    let seed = (run.chunk as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let bytes: u64 = world.inputs().iter().map(|i| i.len).sum();
    // One to twenty tasks or so.
    let tasks = Tasks::new(world, job, shape, run, (bytes / (1 + seed % 20)).max(1)).unwrap();
    assert_eq!(tasks.plan.parts as usize, want.parts.len());
    let mut files = tasks.run(run).unwrap();
    let success = files.get_mut(&PathBuf::from(SUCCESS)).unwrap();
    let manifest: Manifest = serde_json::from_slice(success).unwrap();
    assert_eq!(manifest.job.as_deref(), Some("job-1"));
    *success = want.files[&PathBuf::from(SUCCESS)].clone();
    assert_eq!(Manifest { job: None, ..manifest }, want.manifest, "{run:?}");
    for (name, bytes) in &files {
        assert!(want.files.get(name) == Some(bytes), "{} differs, {run:?}", name.display());
    }
    assert_eq!(files.len(), want.files.len());
    // Not the chunk: what an app emits of one may depend on it, and it is the job's.
    let again = Run { threads: 3, memory: 64 << 20, ..run };
    let some = seed as usize % tasks.plan.tasks.len().max(1);
    if some < tasks.plan.tasks.len() {
        let (once, twice) = (tasks.map(some, "once", run).unwrap(), tasks.map(some, "twice", again).unwrap());
        assert_eq!((once.digest, &once.segments), (twice.digest, &twice.segments), "{run:?} and {again:?}");
        assert_eq!((once.emitted, once.input_bytes, once.counters), (twice.emitted, twice.input_bytes, twice.counters));
    }
}

/// Lines whose keys come back.
fn lines(n: u32) -> Vec<u8> {
    (0..n).flat_map(|i| format!("key {}:{i}\n", i.wrapping_mul(2_654_435_761) % 500).into_bytes()).collect()
}

/// Tasks that spill, and more of them than one merge reads.
#[test]
fn tasks_that_spill_and_merges_of_several_passes() {
    let inputs = vec![lines(700), lines(600)];
    fn check<K: crate::apps::Kind>(inputs: &[Vec<u8>], keys: Keys, target: u64, spills: bool) {
        let world = World::of(inputs);
        let job = AppJob(Listing::<K>::new(keys));
        let shape = Shape::parts(3);
        let want = world.run_job(&job, shape, Run::PLAIN).unwrap();
        let mut digests = Vec::new();
        for run in [Run::tight(), Run { threads: 1, chunk: 333, ..Run::tight() }] {
            let tasks = Tasks::new(&world, &job, shape, Run { chunk: 64, ..run }, target).unwrap();
            let map = tasks.map(0, "first", run).unwrap();
            // A small task may spill as well: at the least memory a thread's share holds little more than a log's first pages.
            assert!(map.spilled_runs > 1 || !spills, "{run:?} {}", map.spilled_runs);
            digests.push(map.digest);
            let files = tasks.run(run).unwrap();
            for (name, bytes) in want.files.iter().filter(|(name, _)| name.to_str() != Some(SUCCESS)) {
                assert!(files.get(name) == Some(bytes), "{}", name.display());
            }
        }
        assert_eq!(digests[0], digests[1]);
    }
    let all = u64::MAX;
    check::<LongTails>(&inputs, Keys::Within, all, true);
    check::<Places>(&inputs, Keys::Padded(60_000), all, true);
    check::<SortedPlaces>(&inputs, Keys::Padded(60_000), all, true);
    check::<Sum>(&inputs, Keys::Padded(60_000), all, true);
    check::<Inputs>(&inputs, Keys::Within, 64, false);
    check::<Places>(&inputs, Keys::Within, 64, false);
    check::<SortedPlaces>(&inputs, Keys::Within, 64, false);
}

/// What is not whole, or not what it was, is refused with its name and place.
#[test]
fn damaged_segments_are_refused() {
    let inputs = vec![lines(5000)];
    let world = World::of(&inputs);
    let job = AppJob(Listing::<Places>::new(Keys::Within));
    let tasks = Tasks::new(&world, &job, Shape::parts(2), Run { chunk: 1000, ..Run::PLAIN }, 10_000).unwrap();
    let maps: Vec<MapOutput> =
        (0..tasks.plan.tasks.len()).map(|n| tasks.map(n, &format!("map-{n}"), Run::PLAIN).unwrap()).collect();
    let refused = |change: &dyn Fn(&mut Vec<u8>), streamed: bool, says: &[&str]| {
        let segment = |(n, map): (usize, &MapOutput)| tasks.segment(&format!("map-{n}"), map, 1, false);
        let mut segments: Vec<Segment> = maps.iter().enumerate().map(segment).collect();
        let SegmentBytes::Mapped(slice) = &segments[2].bytes else { unreachable!() };
        let mut bytes = slice.bytes().to_vec();
        let len = bytes.len() as u64;
        change(&mut bytes);
        segments[2].bytes = match streamed {
            true => SegmentBytes::Stream(Box::new(io::Cursor::new(bytes)), len),
            false => {
                let len = bytes.len() as u64;
                SegmentBytes::Mapped(Slice::new(Arc::new(bytes), 0, len).unwrap())
            }
        };
        let error = tasks.reduce(1, segments, Run::PLAIN).unwrap_err().to_string();
        for text in [&["segment 1 of map-2"], says].concat() {
            assert!(error.contains(text), "{error}");
        }
        assert!(tasks.scratch.list("part").unwrap().is_empty(), "nothing is left of a part that failed");
    };
    refused(&|bytes| bytes[20] ^= 1, false, &["block at byte 0", "checksum"]);
    refused(&|bytes| bytes.truncate(bytes.len() - 1), false, &["footer at byte", "no segment ends here"]);
    refused(&|bytes| bytes.truncate(10), false, &["byte 0", "cannot hold"]);
    refused(&|bytes| bytes.truncate(bytes.len() - 1), true, &["it ends after"]);
    refused(&|bytes| bytes[20] ^= 1, true, &["its digest is"]);
}

#[test]
fn bad_records_are_kept_and_the_job_fails_for_the_one_that_it_fails_for_at_once() {
    let text = [lines_with("bad"), lines_with("bad"), b"bad\nbad\n".to_vec()];
    let world = World::of(&text);
    let job = AppJob(Failing::<Grouping>::new());
    let shape = Shape { skip: 4, ..Shape::parts(2) };
    // Compares the tasks' bad records with the job's.
    let want = world.run_job(&job, shape, Run { chunk: 1000, ..Run::PLAIN }).unwrap();
    assert_eq!(want.report.bad_records, 4);
    assert!(want.files.contains_key(&PathBuf::from("_bad/records.jsonl")));
    for skip in 0..5 {
        let shape = Shape { skip, ..Shape::parts(2) };
        let tasks = Tasks::new(&world, &job, shape, Run { chunk: 1000, ..Run::PLAIN }, 10_000).unwrap();
        let bad = |n| {
            let map = tasks.map(n, "map", Run::PLAIN).unwrap();
            let bad = map.bad.map(|bad| tasks.scratch.map(&bad.file).unwrap().bytes().to_vec());
            assert_eq!(map.segments.len(), 2, "segments that can be read, even if they are not whole");
            bad.unwrap_or_default()
        };
        let all: Vec<Vec<u8>> = (0..tasks.plan.tasks.len()).map(bad).collect();
        assert!(all.iter().filter(|bad| !bad.is_empty()).count() >= 3);
        let want = world.run_job(&job, shape, Run::PLAIN).err().map(|e| e.to_string());
        let got = task::too_many_bad_records(all.iter().map(Vec::as_slice), skip).map(|e| e.to_string());
        assert_eq!((got, skip == 4), (want.clone(), want.is_none()));
    }
}

#[test]
fn tasks_stop_when_they_are_told_to_and_say_where_an_app_panicked() {
    let world = World::of(&[lines_with("panic in map"), lines_with("panic in reduce")]);
    let job = AppJob(Failing::<Grouping>::new());
    let tasks = Tasks::new(&world, &job, Shape::parts(1), Run::PLAIN, 1 << 20).unwrap();
    let stop = AtomicBool::new(true);
    let task = MapTask {
        which: Which::default(),
        inputs: &tasks.listing,
        ranges: &tasks.plan.tasks[0],
        parts: 1,
        splitters: &[],
        file: "map",
    };
    let stopped = tasks.with(Run::PLAIN, &stop, |options, context| {
        job.map_task(task, &tasks.stored, &tasks.scratch(), options, context)
    });
    assert!(matches!(stopped, Err(Error::Interrupted)) && stop.load(Ordering::Relaxed));
    let error = tasks.map(0, "map", Run::PLAIN).unwrap_err().to_string();
    assert!(error.contains("the app panicked in map") && error.contains("00000 after byte 0"), "{error}");
    assert!(tasks.scratch.list("").unwrap().is_empty(), "nothing is left of a task that failed");

    let world = World::of(&[lines_with("panic in reduce")]);
    let tasks = Tasks::new(&world, &job, Shape::parts(1), Run::PLAIN, 1 << 20).unwrap();
    let map = tasks.map(0, "map", Run::PLAIN).unwrap();
    let error = tasks.reduce(0, vec![tasks.segment("map", &map, 0, false)], Run::PLAIN).unwrap_err().to_string();
    assert!(error.contains("the app panicked in reduce (part-00000)"), "{error}");
}

/// An object that is not what was listed is no input.
#[test]
fn objects_that_changed_are_refused() {
    let world = World::of(&[lines(100)]);
    let job = AppJob(Listing::<Places>::new(Keys::Within));
    let mut tasks = Tasks::new(&world, &job, Shape::parts(1), Run::PLAIN, 1 << 20).unwrap();
    assert_eq!(job.shuffle(), Shuffle::Group);
    let before = tasks.map(0, "map", Run::PLAIN).unwrap();
    let mut longer = tasks.stored.0[0].to_vec();
    longer.extend(b"more\n");
    tasks.stored.0[0] = Arc::new(longer.clone());
    assert_eq!(tasks.map(0, "map", Run::PLAIN).unwrap().digest, before.digest);
    longer.truncate(50);
    tasks.stored.0[0] = Arc::new(longer);
    assert!(matches!(tasks.map(0, "map", Run::PLAIN), Err(Error::Shrank { offset: 50, .. })));
}

/// A disk that fails ends the task with its name and what to do.
#[test]
fn scratch_that_is_full_is_told_of() {
    let world = World::of(&[lines(3000)]);
    let job = AppJob(Listing::<Places>::new(Keys::Within));
    for limit in [0, 1, 1000] {
        let mut tasks = Tasks::new(&world, &job, Shape::parts(2), Run::PLAIN, 1 << 20).unwrap();
        let written = std::sync::atomic::AtomicUsize::new(0);
        tasks.scratch = Memory::failing(move |op, _| {
            let gristmill_engine::scratch::Op::Write(n) = op else { return None };
            let full = written.fetch_add(n, Ordering::Relaxed) + n > limit;
            full.then(|| io::Error::from_raw_os_error(28))
        });
        let error = tasks.map(0, "map", Run::PLAIN).unwrap_err().to_string();
        assert!(error.contains("map") && error.contains("free space there"), "{error}");
        assert!(tasks.scratch.list("").unwrap().is_empty());
    }
}
