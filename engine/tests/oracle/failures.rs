//! Jobs that fail, or are stopped: the error says what and where, nothing of the output is visible, nothing hidden is
//! left, an output that was there is as it was, and the next job on the same threads succeeds.

use std::fs;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_engine::app::{App, Chunk, Emit, Output, Shuffle, Values};
use gristmill_engine::data::compress::Compression;
use gristmill_engine::error::Error;
use gristmill_engine::job::{AppJob, Context, Job, Observer, Phase, Report, Target};

use crate::spills;
use crate::world::{Run, Shape, World, pool};

/// How values meet.
trait Way: Send + Sync + 'static {
    const SHUFFLE: Shuffle;
}
struct Folding;
struct Grouping;
struct Sorting;
impl Way for Folding {
    const SHUFFLE: Shuffle = Shuffle::Fold;
}
impl Way for Grouping {
    const SHUFFLE: Shuffle = Shuffle::Group;
}
impl Way for Sorting {
    const SHUFFLE: Shuffle = Shuffle::Sort;
}

/// Counts lines, and fails at those that ask for it.
struct Failing<W> {
    /// Bytes put before each key, so that little input fills memory.
    pad: usize,
    /// A file to cut short when the first line is met.
    shrink: Option<PathBuf>,
    way: PhantomData<fn(W)>,
}

impl<W: Way> Failing<W> {
    fn new() -> Self {
        Self { pad: 0, shrink: None, way: PhantomData }
    }
}

/// The value of a line that `combine` fails at.
const POISON: u64 = 1 << 40;

impl<W: Way> App for Failing<W> {
    type Value = u64;
    const SHUFFLE: Shuffle = W::SHUFFLE;

    fn map<E: Emit<u64>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        for line in chunk.records() {
            if let Some(path) = &self.shrink {
                fs::File::options().write(true).open(path).unwrap().set_len(5000).unwrap();
            }
            match line {
                b"panic in map" => told_to(),
                b"bad" => out.bad_record(line, "it says so"),
                b"panic in combine" => (0..2).for_each(|_| out.emit(b"poison", POISON)),
                _ => out.emit(&[&vec![b'k'; self.pad], line].concat(), 1),
            }
        }
    }

    fn combine(&self, total: &mut u64, n: u64) -> bool {
        if n == POISON {
            told_to();
        }
        *total += n;
        W::SHUFFLE == Shuffle::Fold
    }

    fn reduce<V: Values<u64>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        if key.ends_with(b"panic in reduce") {
            told_to();
        }
        out.pair(&key[self.pad.min(key.len())..], values.iter().sum());
    }
}

/// Panics, without the noise that a panic makes.
fn told_to() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref() != Some(&"told to") {
                before(info);
            }
        }));
    });
    panic!("told to");
}

/// Lines of which one is `line`, behind enough others that a chunk or more comes before it.
fn lines_with(line: &str) -> Vec<u8> {
    let plain = |n: u32| format!("line {n}\n");
    ((0..2000).map(plain).collect::<String>() + line + "\n" + &(0..2000).map(plain).collect::<String>()).into_bytes()
}

fn ways_to_run() -> [Run; 2] {
    [Run::PLAIN, Run { threads: 3, ..Run::tight() }]
}

/// Runs three kinds of jobs that must fail, and one after each that must not; `seen` looks at the errors.
fn fails(line: &str, seen: impl Fn(Shuffle, &World, Error)) {
    fails_with::<Folding>(line, &seen);
    fails_with::<Grouping>(line, &seen);
    fails_with::<Sorting>(line, &seen);
}

fn fails_with<W: Way>(line: &str, seen: &impl Fn(Shuffle, &World, Error)) {
    let world = World::of(&[b"nothing wrong here\n".to_vec(), lines_with(line)]);
    for run in ways_to_run() {
        // `run` sees to it that neither output, nor hidden folder, nor run is left.
        let error = world.run(Failing::<W>::new(), Shape::parts(3), run).unwrap_err();
        seen(W::SHUFFLE, &world, error);
    }
    let sound = World::of(&[lines_with("fine")]);
    for run in ways_to_run() {
        sound.run(Failing::<W>::new(), Shape::parts(3), run).unwrap();
    }
}

#[test]
fn a_panic_in_map() {
    fails("panic in map", |way, world, error| {
        let Error::Panic { phase: "map", place, message } = error else { panic!("{error}") };
        let name = world.inputs()[1].name().into_owned();
        // A job that sorts looks at a sample first.
        let sampled = way == Shuffle::Sort && place == format!("a sample of {name}");
        assert!(sampled || place.starts_with(&format!("{name} after byte ")), "{place}");
        assert_eq!(message, "told to");
    });
}

#[test]
fn a_panic_in_combine() {
    let seen = |_, _: &World, error| assert!(matches!(error, Error::Panic { phase: "map", .. }), "{error}");
    fails_with::<Folding>("panic in combine", &seen);
    fails_with::<Grouping>("panic in combine", &seen);
}

#[test]
fn a_panic_in_reduce() {
    fails("panic in reduce", |_, _, error| {
        let Error::Panic { phase: "reduce", place, message } = error else { panic!("{error}") };
        assert!(place.starts_with("part-0000"), "{place}");
        assert_eq!(message, "told to");
    });
}

#[test]
fn a_panic_in_reduce_of_runs() {
    fn check<W: Way>() {
        let mut inputs = spills::inputs();
        inputs[1].extend(b"panic in reduce\n");
        let world = World::of(&inputs);
        for run in spills::tight() {
            let app = Failing::<W> { pad: 2500, ..Failing::new() };
            let error = world.run(app, Shape::parts(3), run).unwrap_err();
            assert!(matches!(error, Error::Panic { phase: "reduce", .. }), "{error}");
        }
    }
    check::<Folding>();
    check::<Grouping>();
    check::<Sorting>();
}

#[test]
fn a_bad_record_is_named_with_its_file_and_offset() {
    fails("bad", |_, world, error| {
        let Error::BadRecord { name, offset, reason, excerpt } = error else { panic!("{error}") };
        assert_eq!(name, world.inputs()[1].name());
        let place = lines_with("bad").windows(5).position(|w| w == b"\nbad\n").unwrap() + 1;
        assert_eq!((offset, reason.as_str(), excerpt.as_str()), (place as u64, "it says so", "bad"));
    });
}

/// As many bad records as are allowed are kept beside the output, in order; one more fails the job.
#[test]
fn bad_records_that_are_allowed() {
    fn check<W: Way>() {
        let inputs = [b"a\nbad\nb\nbad\n".to_vec(), lines_with("bad")];
        let world = World::of(&inputs);
        for run in ways_to_run() {
            let at = |skip| Shape { skip, ..Shape::parts(2) };
            let got = world.run(Failing::<W>::new(), at(3), run).unwrap();
            assert_eq!((got.report.bad_records, got.manifest.bad_records), (3, 3));
            let offset = inputs[1].windows(5).position(|w| w == b"\nbad\n").unwrap() + 1;
            let kept = String::from_utf8(got.files[&PathBuf::from("_bad/records.jsonl")].clone()).unwrap();
            let places: Vec<String> = kept
                .lines()
                .map(|l| l.split("\"offset\":").nth(1).unwrap().split(',').next().unwrap().into())
                .collect();
            assert_eq!(places, ["2".to_string(), "8".into(), offset.to_string()]);
            assert!(matches!(world.run(Failing::<W>::new(), at(2), run), Err(Error::BadRecord { .. })));
        }
    }
    check::<Folding>();
    check::<Grouping>();
    check::<Sorting>();
}

/// Whichever thread meets which first: the one after those that are passed over, in input order.
#[test]
fn the_bad_record_that_fails_a_job_is_always_the_same() {
    fn check<W: Way>() {
        // Two threads divide the lines in the middle, so that the second one meets a bad record at once.
        let mut lines = vec![b"a line\n".to_vec(); 20_000];
        let places = [9_990, 10_010, 10_020, 19_990];
        places.iter().for_each(|i| lines[*i] = b"bad\n".to_vec());
        let offsets = places.map(|i| lines[..i].iter().map(Vec::len).sum::<usize>() as u64);
        let plain = World::of(&[lines.concat()]);
        let compressed = World::stored([(&lines.concat()[..], Some(Compression::Gzip)), (b"bad\nbad\n", None)]);
        for (skip, want) in offsets.into_iter().enumerate() {
            for world in [&plain, &compressed] {
                for run in ways_to_run() {
                    let shape = Shape { skip: skip as u64, ..Shape::parts(2) };
                    match world.run(Failing::<W>::new(), shape, run) {
                        Err(Error::BadRecord { offset, .. }) => assert_eq!(offset, want, "{skip} passed over, {run:?}"),
                        other => panic!("{:?}", other.map(|o| o.report.bad_records)),
                    }
                }
            }
        }
    }
    check::<Folding>();
    check::<Grouping>();
    check::<Sorting>();
}

/// Small inputs are read and large ones mapped: both were longer when they were listed.
#[test]
fn an_input_that_shrank_before_it_was_read() {
    for len in [1000, 300_000] {
        let world = World::of(&[b"ab\n".repeat(len / 3)]);
        let mut inputs = world.inputs();
        inputs[0].len += 100;
        for run in ways_to_run() {
            let error =
                run_over(&world, &AppJob(Failing::<Folding>::new()), inputs.clone(), run, &(), false).unwrap_err();
            assert!(matches!(&error, Error::Shrank { name, .. } if *name == inputs[0].name()), "{error}");
            assert_eq!(world.left(), ["in"]);
        }
    }
}

/// The file is cut while it is mapped; reading on is neither a fault nor a result.
#[test]
fn an_input_that_shrinks_while_it_is_read() {
    fn check<W: Way>() {
        for run in ways_to_run() {
            let world = World::of(&[b"some line\n".repeat(60_000)]);
            let app = Failing::<W> { shrink: Some(world.inputs()[0].path.clone()), ..Failing::new() };
            let error = world.run(app, Shape::parts(2), run).unwrap_err();
            assert!(matches!(error, Error::Shrank { .. }), "{error}");
        }
    }
    check::<Folding>();
    check::<Grouping>();
    check::<Sorting>();
}

/// Sets the stop flag when a phase begins, or when the first work of it is done.
struct Stopper<'s> {
    at: Phase,
    begun: AtomicBool,
    after_work: bool,
    stop: &'s AtomicBool,
}

impl Observer for Stopper<'_> {
    fn phase(&self, phase: Phase, _: u64) {
        self.begun.store(phase == self.at, Ordering::SeqCst);
        self.stop.fetch_or(phase == self.at && !self.after_work, Ordering::SeqCst);
    }
    fn advance(&self, _: u64) {
        self.stop.fetch_or(self.begun.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

#[test]
fn a_job_that_is_stopped_leaves_nothing_new() {
    fn check<W: Way>() {
        let inputs = spills::inputs();
        let world = World::of(&inputs);
        for (pad, run) in [(0, Run::PLAIN)].into_iter().chain(spills::tight().map(|run| (2500, run))) {
            for (at, after_work) in
                [(Phase::Map, false), (Phase::Map, true), (Phase::Shuffle, false), (Phase::Reduce, false)]
            {
                let job = AppJob(Failing::<W> { pad, ..Failing::new() });
                let stop = AtomicBool::new(false);
                let stopper = Stopper { at, begun: AtomicBool::new(false), after_work, stop: &stop };
                let result = run_stopped(&world, &job, run, &stopper, &stop, false);
                assert!(matches!(result, Err(Error::Interrupted)), "{at:?}, {after_work}, {run:?}: {result:?}");
                assert_eq!(world.left(), ["in"], "{at:?}, {run:?}");
            }
        }
    }
    check::<Folding>();
    check::<Grouping>();
    check::<Sorting>();
}

/// A job that was to replace an output and does not come to its end leaves the old one as it was.
#[test]
fn an_output_to_be_replaced_survives_failures() {
    let world = World::of(&[lines_with("fine")]);
    let run = Run { threads: 2, ..Run::tight() };
    run_over(&world, &AppJob(Failing::<Sorting>::new()), world.inputs(), run, &(), false).unwrap();
    let before = world.output_files();
    let bad = World::of(&[lines_with("panic in reduce")]);
    let again = AppJob(Failing::<Folding>::new());
    let error = run_over(&world, &again, bad.inputs(), run, &(), true).unwrap_err();
    assert!(matches!(error, Error::Panic { .. }), "{error}");
    let stop = AtomicBool::new(false);
    let stopper = Stopper { at: Phase::Reduce, begun: AtomicBool::new(false), after_work: false, stop: &stop };
    assert!(run_stopped(&world, &again, run, &stopper, &stop, true).is_err());
    let error = run_over(&world, &again, world.inputs(), run, &(), false).unwrap_err();
    assert!(matches!(error, Error::OutputExists(_)), "{error}");
    assert_eq!(world.left(), ["in", "out"]);
    assert!(world.output_files() == before);
    run_over(&world, &again, world.inputs(), run, &(), true).unwrap();
    assert!(world.output_files() != before);
}

fn run_over(
    world: &World,
    job: &dyn Job,
    inputs: Vec<gristmill_engine::data::input::Input>,
    run: Run,
    observer: &dyn Observer,
    overwrite: bool,
) -> Result<Report, Error> {
    let context = Context { exec: pool(run.threads), observer, stop: &AtomicBool::new(false) };
    let target = Target::Folder { path: world.output(), overwrite };
    job.run("test", inputs, &world.options(Shape::parts(3), run), target, &context)
}

fn run_stopped(
    world: &World,
    job: &dyn Job,
    run: Run,
    observer: &dyn Observer,
    stop: &AtomicBool,
    overwrite: bool,
) -> Result<Report, Error> {
    let context = Context { exec: pool(run.threads), observer, stop };
    let target = Target::Folder { path: world.output(), overwrite };
    job.run("test", world.inputs(), &world.options(Shape::parts(3), run), target, &context)
}
