//! One machine: the whole data plane in one process, from a list of inputs to a published output.
//!
//! Threads map spans of the input, each into a table or log of its own, and spill when memory is short. If nothing was
//! spilled, keys are brought together in memory; else the last of the tables is spilled too and runs are merged.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::app::{App, Shuffle};
use crate::data::chunk::Chunk;
use crate::data::commit::{Manifest, PartEntry, Pending, part_name};
use crate::data::compress::Encoder;
use crate::data::emit::{Mapper, Tally};
use crate::data::external::{AHEAD, TableSpill, part_of, reduce_entries, reduce_merge, scatter_logs, spill_log};
use crate::data::gather::{Gather, reduce_group, scatter_tables};
use crate::data::group::{Fold, Group};
use crate::data::input::Input;
use crate::data::log::{Log, LogEmitter, Shapes};
use crate::data::output::{Output, Part, PartSummary, Ranked, Sink, Top, lock};
use crate::data::runs::Runs;
use crate::data::sort::{prefix_of, sort};
use crate::data::source::{Loaded, Loader, Sources};
use crate::data::spans::Spans;
use crate::error::{Error, excerpt};
use crate::exec::{Exec, in_order};
use crate::job::{Context, MAX_PARTS, Options, Phase, Plan, Report, Target, shuffle_name};
use crate::value::Value;

/// Bytes of input for each part, when the user does not say how many.
const PART_BYTES: u64 = 128 << 20;
/// Most parts that are chosen by themselves.
const MAX_CHOSEN_PARTS: u64 = 256;
/// Keys that are reduced into one piece of a part.
const PIECE_KEYS: usize = 1 << 14;
/// Entries of a sorting job that go into one piece.
const PIECE_ENTRIES: usize = 1 << 14;
/// Records sampled to divide a sorting job into parts.
const SPLIT_SAMPLE: usize = 4096;

/// Everything that the threads of a job share.
struct Run<'r, A> {
    app: &'r A,
    options: &'r Options,
    context: &'r Context<'r>,
    sources: Sources,
    parts: u32,
    spans: Spans,
    runs: Runs,
    /// The first error; when there is one, everybody stops.
    failed: Mutex<Option<Error>>,
    stop: AtomicBool,
    input_bytes: AtomicU64,
    tally: Mutex<Tally>,
    bad: Mutex<Vec<BadRecord>>,
}

#[derive(serde::Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct BadRecord {
    #[serde(skip)]
    input_number: u32,
    input: String,
    offset: u64,
    reason: String,
    /// The record's bytes, with those that are not printable ASCII escaped as in Rust.
    record: String,
}

pub(crate) fn plan<A: App>(app: &A, inputs: &[Input], options: &Options, threads: usize) -> Result<Plan, Error> {
    check::<A>(options)?;
    let format = options.format.unwrap_or(app.format());
    let sources = Sources::new(inputs.to_vec(), format, options.chunk, options.isa)?;
    Ok(Plan {
        inputs: inputs.len(),
        input_bytes: sources.known_bytes(),
        streams: inputs.iter().filter(|i| !i.is_splittable()).count(),
        units: sources.units(),
        parts: parts(app, options, sources.known_bytes()),
        format: format.to_string(),
        shuffle: shuffle_name(A::SHUFFLE).into(),
        memory: options.memory,
        threads,
        isa: format!("{:?}", options.isa).to_lowercase(),
    })
}

fn check<A: App>(options: &Options) -> Result<(), Error> {
    let fail = |m: String| Err(Error::Usage(m));
    match options.reducers {
        Some(n) if n == 0 || n > MAX_PARTS => fail(format!("the number of reducers is 1 to {MAX_PARTS}, not {n}")),
        _ if options.memory < crate::job::MIN_MEMORY => {
            fail(format!("a job needs at least {} MiB of memory", crate::job::MIN_MEMORY >> 20))
        }
        _ => Ok(()),
    }
}

fn parts<A: App>(app: &A, options: &Options, bytes: u64) -> u32 {
    if app.top().is_some() {
        return 1;
    }
    options.reducers.unwrap_or(bytes.div_ceil(PART_BYTES).clamp(1, MAX_CHOSEN_PARTS) as u32)
}

pub(crate) fn run<A: App>(
    app: &A,
    name: &str,
    inputs: Vec<Input>,
    options: &Options,
    target: Target,
    context: &Context<'_>,
) -> Result<Report, Error> {
    check::<A>(options)?;
    let format = options.format.unwrap_or(app.format());
    let mut sources = Sources::new(inputs, format, options.chunk, options.isa)?;
    let mapped = sources.mapped_bytes();
    // Pages of input are given back as they are used, unless there is plenty of memory for them.
    sources.release = mapped > options.memory / 4;
    sources.pin = A::SHUFFLE == Shuffle::Sort || (A::Value::REFERS && mapped <= options.memory / 3);
    let parts = parts(app, options, sources.known_bytes());
    let mut outputs = Outputs::open(target, parts, options)?;
    let run = Run {
        app,
        options,
        context,
        spans: Spans::new(sources.units(), context.exec.threads()),
        runs: Runs::new(options.scratch.clone(), parts),
        sources,
        parts,
        failed: Mutex::new(None),
        stop: AtomicBool::new(false),
        input_bytes: AtomicU64::new(0),
        tally: Mutex::default(),
        bad: Mutex::default(),
    };
    context.observer.phase(Phase::Map, run.sources.known_bytes());
    match A::SHUFFLE {
        Shuffle::Fold => run.with_tables(&|_| Fold(app), &outputs)?,
        Shuffle::Group => {
            let budget = run.share() * 3 / 4;
            run.with_tables(&|_| Group::new(app, budget), &outputs)?
        }
        Shuffle::Sort => run.with_logs(&outputs)?,
    }
    context.observer.phase(Phase::Commit, 1);
    let summaries = outputs.finish(options.sync)?;
    let report = run.report(summaries);
    outputs.publish(name, &run, &report)?;
    Ok(report)
}

impl<A: App> Run<'_, A> {
    /// Bytes that the map may hold on each thread.
    fn share(&self) -> usize {
        (self.options.memory * 6 / 10 / self.context.exec.threads() as u64) as usize
    }

    fn fail(&self, error: Error) {
        self.stop.store(true, Ordering::Relaxed);
        lock(&self.failed).get_or_insert(error);
    }

    fn stopped(&self) -> bool {
        if self.context.stop.load(Ordering::Relaxed) {
            self.fail(Error::Interrupted);
        }
        self.stop.load(Ordering::Relaxed)
    }

    /// The first error, if there was one.
    fn outcome(&self) -> Result<(), Error> {
        lock(&self.failed).take().map_or(Ok(()), Err)
    }

    /// Runs work of one thread; an error or panic stops the job.
    fn guarded(&self, phase: &'static str, place: &dyn Fn() -> String, work: impl FnOnce() -> Result<(), Error>) {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.fail(e),
            Err(panic) => self.fail(Error::Panic { phase, place: place(), message: panic_message(&*panic) }),
        }
    }

    /// Loads a unit and maps its chunks; panics of the app become errors that say where.
    fn map_unit(
        &self,
        unit: u64,
        loader: &mut Loader,
        mut map: impl FnMut(&Loaded<'_>) -> Result<Tally, Error>,
    ) -> Result<(), Error> {
        let bytes = self.sources.load(unit, loader, self.context.stop, &mut |loaded| {
            let mapped = catch_unwind(AssertUnwindSafe(|| map(loaded)));
            let tally = mapped.unwrap_or_else(|panic| {
                let place = format!("{} after byte {}", loaded.chunk.input_name(), loaded.chunk.offset());
                Err(Error::Panic { phase: "map", place, message: panic_message(&*panic) })
            })?;
            self.input_bytes.fetch_add(loaded.chunk.bytes().len() as u64, Ordering::Relaxed);
            self.context.observer.advance(loaded.chunk.bytes().len() as u64);
            self.take(tally, loaded)?;
            if self.stopped() { Err(Error::Interrupted) } else { Ok(()) }
        });
        bytes.map(|_| ())
    }

    /// Takes over what a chunk left beside pairs.
    fn take(&self, mut tally: Tally, loaded: &Loaded<'_>) -> Result<(), Error> {
        if !tally.bad.is_empty() {
            self.take_bad(std::mem::take(&mut tally.bad), loaded)?;
        }
        if tally.emitted > 0 || !tally.counters.is_empty() {
            lock(&self.tally).absorb(tally);
        }
        Ok(())
    }

    #[cold]
    fn take_bad(&self, bad: Vec<crate::data::emit::Bad>, loaded: &Loaded<'_>) -> Result<(), Error> {
        let mut all = lock(&self.bad);
        for record in bad {
            let input = loaded.chunk.input_name().to_string();
            let offset = loaded.chunk.offset() + record.at as u64;
            if all.len() as u64 >= self.options.skip_bad_records {
                let excerpt = excerpt(&record.record);
                return Err(Error::BadRecord { name: input, offset, reason: record.reason, excerpt });
            }
            let bytes = record.record.escape_ascii().to_string();
            let input_number = loaded.chunk.input();
            all.push(BadRecord { input_number, input, offset, reason: record.reason, record: bytes });
        }
        Ok(())
    }

    fn with_tables<'j, M>(&'j self, slots: &(dyn Fn(()) -> M + Sync), outputs: &Outputs) -> Result<(), Error>
    where
        M: Gather<A> + Send + 'j,
    {
        let done: Mutex<Vec<(u64, Mapper<'j, A, M>)>> = Mutex::default();
        let exec = self.context.exec;
        exec.run(exec.threads(), &|thread| {
            self.guarded("map", &|| "between chunks".into(), || self.map_tables(thread, slots, &done));
        });
        self.outcome()?;
        let mut mappers = std::mem::take(&mut *lock(&done));
        mappers.sort_by_key(|(start, _)| *start);
        let mappers: Vec<Mapper<'j, A, M>> = mappers.into_iter().map(|(_, m)| m).collect();
        let held: usize = mappers.iter().map(Mapper::bytes).sum();
        let external = !self.runs.is_empty()
            || mappers.iter().any(|m| m.table.is_reseeded())
            || held as u64 > self.options.memory * 8 / 10;
        if external {
            let waiting: Vec<Mutex<Option<Mapper<'j, A, M>>>> =
                mappers.into_iter().map(|m| Mutex::new(Some(m))).collect();
            in_order(exec, waiting.len(), &|i| {
                self.guarded("map", &|| "spilling".into(), || {
                    let Some(mut mapper) = lock(&waiting[i]).take() else { return Ok(()) };
                    mapper.spill();
                    mapper.error.map_or(Ok(()), Err)
                });
            });
            self.outcome()?;
            return self.reduce_runs(outputs);
        }
        self.context.observer.phase(Phase::Shuffle, 1);
        let mut scattered = scatter_tables(exec, &mappers, self.parts as usize);
        let slots: Vec<&M> = mappers.iter().map(|m| &m.slots).collect();
        let groups = scattered.groups(PIECE_KEYS);
        self.reduce_pieces(groups, outputs, |group, out| reduce_group(self.app, group, &slots, out))?;
        Ok(())
    }

    /// The work of one thread: spans of units into tables.
    fn map_tables<'j, M: Gather<A> + Send + 'j>(
        &'j self,
        thread: usize,
        slots: &dyn Fn(()) -> M,
        done: &Mutex<Vec<(u64, Mapper<'j, A, M>)>>,
    ) -> Result<(), Error> {
        let mut loader = Loader::default();
        let mut current: Option<(u64, Mapper<'j, A, M>)> = None;
        let mut held = 0;
        while !self.stopped()
            && let Some(claim) = self.spans.claim(thread, current.is_none())
        {
            // Folding does not ask for order: one table will do for all spans.
            if claim.fresh
                && A::SHUFFLE != Shuffle::Fold
                && let Some((start, mut mapper)) = current.take()
            {
                if held + mapper.bytes() > self.share() / 2 {
                    mapper.spill();
                }
                held += mapper.bytes();
                lock(done).push((start, mapper));
            }
            let (_, mapper) = current.get_or_insert_with(|| {
                let spill = TableSpill::<A> {
                    runs: &self.runs,
                    parts: self.parts,
                    order: (claim.unit, 0),
                    app: std::marker::PhantomData,
                };
                let budget = self.share().saturating_sub(held).max(self.share() / 4);
                (claim.unit, Mapper::new(self.app, slots(()), self.options.isa, budget, Box::new(spill)))
            });
            mapper.done = self.spans.done();
            self.map_unit(claim.unit, &mut loader, |loaded| {
                mapper.map(&loaded.chunk, loaded.stable);
                match mapper.error.take() {
                    Some(e) => Err(e),
                    None => Ok(std::mem::take(&mut mapper.tally)),
                }
            })?;
        }
        lock(done).extend(current);
        Ok(())
    }

    /// Reduces groups of keys on all threads, each into a piece of its part.
    fn reduce_pieces<T: Copy + Send>(
        &self,
        groups: Vec<crate::data::scatter::Group<'_, T>>,
        outputs: &Outputs,
        reduce: impl Fn(&mut crate::data::scatter::Group<'_, T>, &mut Output<'_>) + Sync,
    ) -> Result<(), Error> {
        self.context.observer.phase(Phase::Reduce, groups.len() as u64);
        let mut pieces = vec![0; self.parts as usize];
        let mut number = |part: usize| {
            pieces[part] += 1;
            pieces[part] - 1
        };
        let numbers: Vec<usize> = groups.iter().map(|g| number(g.part)).collect();
        outputs.expect(&pieces);
        let ranked: Mutex<BTreeMap<usize, Vec<Ranked>>> = Mutex::default();
        let groups: Vec<Mutex<_>> = groups.into_iter().map(Mutex::new).collect();
        in_order(self.context.exec, groups.len(), &|i| {
            if self.stopped() {
                return;
            }
            let mut group = lock(&groups[i]);
            self.guarded("reduce", &|| part_name(group_part(&groups, i), None), || {
                let mut out = self.output(self.app.top());
                reduce(&mut group, &mut out);
                let (bytes, records) = (std::mem::take(&mut out.buf), out.records);
                if self.app.top().is_some() {
                    lock(&ranked).insert(i, out.into_ranked());
                } else {
                    outputs.submit(group.part, numbers[i], bytes, records)?;
                }
                self.context.observer.advance(1);
                Ok(())
            });
        });
        self.outcome()?;
        let ranked = std::mem::take(&mut *lock(&ranked));
        self.write_top(ranked.into_values().flatten(), outputs)
    }

    /// Writes the best of the ranked records, if the app asked for the best only.
    fn write_top(&self, ranked: impl Iterator<Item = Ranked>, outputs: &Outputs) -> Result<(), Error> {
        let Some(most) = self.app.top() else { return Ok(()) };
        let mut top = Top::new(most);
        ranked.for_each(|r| top.add(r));
        let best = top.into_best();
        outputs.expect(&[1]);
        outputs.submit(0, 0, best.iter().flat_map(|r| r.record.iter().copied()).collect(), best.len() as u64)
    }

    /// Reduces what was spilled, a partition a thread.
    fn reduce_runs(&self, outputs: &Outputs) -> Result<(), Error> {
        self.context.observer.phase(Phase::Shuffle, 1);
        self.runs.reduce_to_fan_in()?;
        self.context.observer.phase(Phase::Reduce, u64::from(self.parts));
        outputs.expect(&vec![1; self.parts as usize]);
        let reduce = |part: usize| {
            if self.stopped() {
                return;
            }
            self.guarded("reduce", &|| part_name(part, None), || self.reduce_part(part, outputs));
        };
        if outputs.is_stream() {
            // One stream takes one part after the other.
            (0..self.parts as usize).for_each(reduce);
        } else {
            in_order(self.context.exec, self.parts as usize, &reduce);
        }
        self.outcome()
    }

    fn reduce_part(&self, part: usize, outputs: &Outputs) -> Result<(), Error> {
        let merge = self.runs.merge(part as u32)?;
        let failed = std::cell::RefCell::new(None);
        let mut flush = |buf: &mut Vec<u8>| {
            if let Err(e) = outputs.append(part, buf) {
                failed.borrow_mut().get_or_insert(e);
            }
            buf.clear();
        };
        let mut out = self.output(self.app.top()).flushing(&mut flush);
        reduce_merge(self.app, merge, &mut out, |_| match failed.borrow_mut().take() {
            Some(e) => Err(e),
            None if self.stopped() => Err(Error::Interrupted),
            None => Ok(()),
        })?;
        let (bytes, records) = (std::mem::take(&mut out.buf), out.records);
        if self.app.top().is_some() {
            return self.write_top(out.into_ranked().into_iter(), outputs);
        }
        drop(out);
        if let Some(e) = failed.into_inner() {
            return Err(e);
        }
        outputs.append(part, &bytes)?;
        outputs.count(part, records);
        self.context.observer.advance(1);
        Ok(())
    }

    fn with_logs(&self, outputs: &Outputs) -> Result<(), Error> {
        let splitters = self.splitters()?;
        let shapes = Shapes::default();
        let done: Mutex<Vec<(u64, Log)>> = Mutex::default();
        let exec = self.context.exec;
        exec.run(exec.threads(), &|thread| {
            self.guarded("map", &|| "between chunks".into(), || self.map_logs(thread, &shapes, &splitters, &done));
        });
        self.outcome()?;
        let mut logs = std::mem::take(&mut *lock(&done));
        logs.sort_by_key(|(start, _)| *start);
        let known = shapes.known();
        if !self.runs.is_empty() {
            in_order(exec, logs.len(), &|i| {
                self.guarded("map", &|| "spilling".into(), || {
                    spill_log(&Alone, &logs[i].1, &known, &splitters, &self.runs, (logs[i].0, u64::MAX))
                });
            });
            self.outcome()?;
            drop(logs);
            self.sources.release_pinned();
            return self.reduce_runs(outputs);
        }
        self.context.observer.phase(Phase::Shuffle, 1);
        let all: Vec<&Log> = logs.iter().map(|(_, log)| log).collect();
        let (mut scattered, buckets) = scatter_logs(exec, &all);
        let borders: Vec<usize> = splitters.iter().map(|s| buckets.of(prefix_of(s))).collect();
        self.reduce_sorted(&mut scattered, &borders, &splitters, &known, outputs)?;
        Ok(())
    }

    /// The work of one thread: spans of units into logs.
    fn map_logs(
        &self,
        thread: usize,
        shapes: &Shapes,
        splitters: &[Vec<u8>],
        done: &Mutex<Vec<(u64, Log)>>,
    ) -> Result<(), Error> {
        let mut loader = Loader::default();
        let mut current: Option<(u64, Log)> = None;
        // Bytes of input that the log refers to, and how often it was spilled.
        let (mut referred, mut held, mut spills) = (0, 0, 0);
        while !self.stopped()
            && let Some(claim) = self.spans.claim(thread, current.is_none())
        {
            if claim.fresh
                && let Some((start, log)) = current.take()
            {
                held += 2 * log.bytes() + std::mem::take(&mut referred);
                lock(done).push((start, log));
            }
            let (start, log) = current.get_or_insert_with(|| {
                spills = 0;
                (claim.unit, Log::default())
            });
            self.map_unit(claim.unit, &mut loader, |loaded| {
                let mut tally = Tally::default();
                map_log(self.app, log, &mut tally, shapes, loaded);
                referred += loaded.chunk.bytes().len();
                let budget = self.share().saturating_sub(held).max(self.share() / 4);
                // Sorting takes as many entries again.
                if 2 * log.bytes() + referred > budget {
                    spill_log(&Alone, log, &shapes.known(), splitters, &self.runs, (*start, spills))?;
                    spills += 1;
                    *log = Log::default();
                    referred = 0;
                    self.sources.release_pinned();
                }
                Ok(tally)
            })?;
        }
        lock(done).extend(current);
        Ok(())
    }

    /// Sorts and reduces scattered entries, cut into parts at the splitters.
    fn reduce_sorted(
        &self,
        scattered: &mut crate::data::scatter::Scattered<crate::data::log::Entry>,
        borders: &[usize],
        splitters: &[Vec<u8>],
        known: &crate::data::log::Known,
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let groups = scattered.groups(PIECE_ENTRIES);
        self.context.observer.phase(Phase::Reduce, groups.len() as u64);
        // A part's pieces come from the groups between those that hold its borders.
        let group_of = |bucket: &usize| groups.partition_point(|g| g.first <= *bucket).saturating_sub(1);
        let mut firsts: Vec<usize> = std::iter::once(0).chain(borders.iter().map(group_of)).collect();
        let lasts: Vec<usize> = firsts[1..].iter().copied().chain([groups.len().saturating_sub(1)]).collect();
        firsts.truncate(self.parts as usize);
        let pieces: Vec<usize> = firsts.iter().zip(&lasts).map(|(f, l)| l + 1 - f).collect();
        outputs.expect(&pieces);
        let groups: Vec<Mutex<_>> = groups.into_iter().map(Mutex::new).collect();
        in_order(self.context.exec, groups.len(), &|i| {
            if self.stopped() {
                return;
            }
            self.guarded("reduce", &|| format!("sorted group {i}"), || {
                let mut group = lock(&groups[i]);
                // SAFETY: logs and input are alive.
                let key = |e: &crate::data::log::Entry| -> *const [u8] { unsafe { known.key(e) } };
                group.each_bucket(|bucket| sort(bucket, &key));
                let mut rest: &[_] = group.items;
                for part in 0..self.parts as usize {
                    if !(firsts[part]..=lasts[part]).contains(&i) {
                        continue;
                    }
                    // SAFETY: as above.
                    let ours = |e: &_| part_of(splitters, unsafe { &*key(e) }) as usize <= part;
                    let (entries, others) = match part + 1 < self.parts as usize && lasts[part] == i {
                        true => rest.split_at(rest.partition_point(ours)),
                        false => (rest, &rest[rest.len()..]),
                    };
                    rest = others;
                    let mut out = self.output(None);
                    out.buf.reserve(known.size_of(entries));
                    for entry in &entries[..entries.len().min(AHEAD)] {
                        known.prefetch(entry);
                    }
                    reduce_entries(self.app, entries, known, &mut out);
                    let (bytes, records) = (std::mem::take(&mut out.buf), out.records);
                    outputs.submit(part, i - firsts[part], bytes, records)?;
                }
                self.context.observer.advance(1);
                Ok(())
            });
        });
        self.outcome()
    }

    /// Keys that divide a sample of the input evenly. The sample depends on the input alone.
    fn splitters(&self) -> Result<Vec<Vec<u8>>, Error> {
        let parts = self.parts as usize;
        if parts == 1 {
            return Ok(Vec::new());
        }
        let mut keys = Vec::new();
        let mut size = 4 << 10;
        while keys.is_empty() && size <= 16 << 20 {
            for (input, bytes) in self.sources.sample(SPLIT_SAMPLE.max(16 * parts), size)? {
                self.sample_keys(input, &bytes, &mut keys)?;
            }
            size *= 64;
        }
        keys.sort_unstable();
        if keys.is_empty() {
            return Ok(vec![Vec::new(); parts - 1]);
        }
        Ok((1..parts).map(|i| keys[keys.len() * i / parts].clone()).collect())
    }

    fn sample_keys(&self, input: u32, bytes: &[u8], keys: &mut Vec<Vec<u8>>) -> Result<(), Error> {
        let name = &self.sources.names[input as usize];
        let chunk = Chunk::new(bytes, self.sources.format, input, name);
        let (mut log, mut tally, shapes) = (Log::default(), Tally::default(), Shapes::default());
        let stable = crate::value::Stable::NONE;
        let loaded = Loaded { chunk, stable };
        catch_unwind(AssertUnwindSafe(|| map_log(self.app, &mut log, &mut tally, &shapes, &loaded))).map_err(
            |panic| Error::Panic {
                phase: "map",
                place: format!("a sample of {name}"),
                message: panic_message(&*panic),
            },
        )?;
        let known = shapes.known();
        // SAFETY: the log and what it refers to are alive.
        keys.extend(log.blocks().flatten().map(|e| unsafe { known.key(e) }.to_vec()));
        Ok(())
    }

    fn output(&self, top: Option<usize>) -> Output<'_> {
        Output::new(&self.sources.names, self.sources.format.separator(), top)
    }

    fn report(&self, parts: Vec<PartSummary>) -> Report {
        let tally = lock(&self.tally);
        let (spilled_runs, spilled_bytes) = self.runs.spilled();
        Report {
            inputs: self.sources.inputs.len() as u64,
            input_bytes: self.input_bytes.load(Ordering::Relaxed),
            emitted: tally.emitted,
            output_records: parts.iter().map(|p| p.records).sum(),
            output_bytes: parts.iter().map(|p| p.bytes).sum(),
            parts,
            counters: tally.counters.iter().map(|(name, n)| (name.to_string(), *n)).collect(),
            bad_records: lock(&self.bad).len() as u64,
            spilled_runs,
            spilled_bytes,
        }
    }

    /// The files beside the parts: bad records and what the app adds.
    fn extra_files(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut files = self.app.extra_files(&self.sources.names);
        let mut bad = lock(&self.bad);
        if !bad.is_empty() {
            bad.sort();
            let mut lines = Vec::new();
            for record in bad.iter() {
                let json = serde_json::to_vec(record).map_err(|e| Error::write("write", "_bad")(e.into()))?;
                lines.extend(json);
                lines.push(b'\n');
            }
            files.push(("_bad/records.jsonl".into(), lines));
        }
        Ok(files)
    }
}

fn group_part<T>(groups: &[Mutex<crate::data::scatter::Group<'_, T>>], i: usize) -> usize {
    groups[i].try_lock().map_or(0, |g| g.part)
}

#[inline(never)]
fn map_log<A: App>(app: &A, log: &mut Log, tally: &mut Tally, shapes: &Shapes, loaded: &Loaded<'_>) {
    app.map(&loaded.chunk, &mut LogEmitter::new(log, tally, shapes, &loaded.chunk, loaded.stable));
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or("no message".into());
    text.lines().next().unwrap_or_default().into()
}

/// No threads but this one: for work inside of a slice.
struct Alone;

impl Exec for Alone {
    fn threads(&self) -> usize {
        1
    }
    fn run(&self, n: usize, slice: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(slice);
    }
}

/// Where parts go.
struct Outputs {
    pending: Option<Pending>,
    parts: Vec<Part>,
    names: Vec<String>,
    /// On a stream, the number of the first piece of each part.
    bases: Mutex<Vec<usize>>,
}

impl Outputs {
    fn open(target: Target, parts: u32, options: &Options) -> Result<Self, Error> {
        let (path, overwrite) = match target {
            Target::Writer(sink) => {
                let parts = vec![Part::new(Sink::Stream(sink))];
                return Ok(Self { pending: None, parts, names: Vec::new(), bases: Mutex::default() });
            }
            Target::Folder { path, overwrite } => (path, overwrite),
        };
        let pending = Pending::begin(&path, overwrite)?;
        let names: Vec<String> = (0..parts as usize).map(|n| part_name(n, options.compress)).collect();
        let open = |name: &String| {
            let file = pending.create(name)?;
            Ok(Part::new(match options.compress {
                None => Sink::File(file),
                Some(kind) => Sink::Compressed(Encoder::new(kind, file).map_err(Error::write("compress", name))?),
            }))
        };
        let parts = names.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { pending: Some(pending), parts, names, bases: Mutex::default() })
    }

    fn is_stream(&self) -> bool {
        self.pending.is_none()
    }

    /// Says how many pieces each part will have.
    fn expect(&self, pieces: &[usize]) {
        let bases = pieces.iter().scan(0, |next, n| {
            *next += n;
            Some(*next - n)
        });
        *lock(&self.bases) = bases.collect();
    }

    fn submit(&self, part: usize, piece: usize, bytes: Vec<u8>, records: u64) -> Result<(), Error> {
        if self.is_stream() {
            let base = lock(&self.bases)[part];
            return self.parts[0].submit(base + piece, bytes, records).map_err(Error::Stdout);
        }
        self.parts[part].submit(piece, bytes, records).map_err(|e| self.write_error(part, e))
    }

    fn append(&self, part: usize, bytes: &[u8]) -> Result<(), Error> {
        if self.is_stream() {
            return self.parts[0].append(bytes).map_err(Error::Stdout);
        }
        self.parts[part].append(bytes).map_err(|e| self.write_error(part, e))
    }

    fn count(&self, part: usize, records: u64) {
        self.parts[if self.is_stream() { 0 } else { part }].count(records);
    }

    fn write_error(&self, part: usize, e: std::io::Error) -> Error {
        let folder = self.pending.as_ref().map(|p| p.target()).unwrap_or_default();
        Error::write("write", folder.join(&self.names[part]))(e)
    }

    fn finish(&mut self, sync: bool) -> Result<Vec<PartSummary>, Error> {
        let finish = |(n, part): (usize, &Part)| {
            part.finish(sync).map_err(|e| if self.is_stream() { Error::Stdout(e) } else { self.write_error(n, e) })
        };
        self.parts.iter().enumerate().map(finish).collect()
    }

    fn publish<A: App>(self, app: &str, run: &Run<'_, A>, report: &Report) -> Result<(), Error> {
        let Some(pending) = self.pending else { return Ok(()) };
        for (name, bytes) in run.extra_files()? {
            pending.write(&name, &bytes, run.options.sync)?;
        }
        let parts = self.names.into_iter().zip(&report.parts);
        let parts = parts.map(|(name, summary)| PartEntry { name, summary: *summary }).collect();
        pending.publish(&Manifest::new(app, parts, report.counters.clone(), report.bad_records), run.options.sync)
    }
}
