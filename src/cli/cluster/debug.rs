//! `debug-task`: one task of a cluster's job, done again here over the same input, to see what becomes of it.
//!
//! The job is divided as its master divided it: that follows from the inputs and the flags alone. Of the inputs only what the
//! task reads is fetched. A reduce needs what all maps made, which is gone once a job has ended: they are done here first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Arg, ArgMatches, Command, value_parser};
use gristmill_engine::control::commit::hex;
use gristmill_engine::exec::Threads;
use gristmill_engine::job::{Context, Job, Observer, Options};
use gristmill_engine::node;
use gristmill_engine::registry::{Entry, Files};
use gristmill_engine::scratch::{Folder, Mapping, Scratch, Slice, map_file};
use gristmill_engine::store::{Name, Pattern};
use gristmill_engine::task::plan::TASK_BYTES;
use gristmill_engine::task::{
    MapTask, Object, Objects, PartOutput, Range, ReduceTask, Segment, SegmentBytes, TaskPlan, Which,
};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::apps_client::AppsClient;
use gristmill_proto::v1::data_client::DataClient;
use gristmill_proto::v1::jobs_client::JobsClient;
use sha2::{Digest as _, Sha256};

use super::super::failure::Failure;
use super::super::sizes::Size;
use super::super::{memory, say, stdout};
use super::ask::{WITHIN, answered, answered_within, block_on, channel};
use super::bearer::Client;
use super::data;
use crate::cluster::answer;

/// How long an answer to a request for bytes may take to begin.
const FETCHED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
/// What is fetched beyond a task's range at first: the rest of its last record.
const BEYOND: u64 = 16 << 20;

pub(super) fn command(program: &str) -> Command {
    let id = Arg::new("job").value_name("JOB").required(true).help("The job's id, as jobs shows it");
    let stage = Arg::new("stage").value_name("STAGE").required(true).value_parser(["map", "reduce"]);
    let number = Arg::new("number").value_name("N").required(true).value_parser(value_parser!(u32));
    let keep = Arg::new("keep").long("keep").value_name("DIR").value_parser(value_parser!(PathBuf));
    Command::new("debug-task")
        .about("Do one task of a job again on this machine, over the same input")
        .long_about(
            "Do one task of a job again on this machine, over the same input\n\n\
             The task runs in the sandbox and under the contract that it has on a cluster. What it makes is printed; where it \
             fails, its last words are, and the command that does it again without a cluster. Its job may have ended; its inputs \
             must still be as they were.",
        )
        .arg(id)
        .arg(stage.help("map or reduce"))
        .arg(number.help("Number of the task, as the job's error and job report tell it"))
        .arg(keep.help("A folder for what is fetched and made, which stays; by default a temporary one"))
        .after_help(format!("Example:\n  {program} debug-task 5b1c0a94e37d2f68-12 map 3"))
}

/// Inputs of which as much is here as the tasks read.
struct Fetched(BTreeMap<u32, PathBuf>);

impl Objects for Fetched {
    fn map(&self, number: u32) -> io::Result<Arc<dyn Mapping>> {
        map_file(self.0.get(&number).ok_or(io::ErrorKind::NotFound)?)
    }
}

/// Says what the task says.
struct Told<'t>(&'t str);

impl Observer for Told<'_> {
    fn note(&self, message: &str) {
        say(&format!("{}: {message}", self.0));
    }
    fn log(&self, task: &str, line: &str) {
        say(&format!("{}: {task}: {line}", self.0));
    }
}

/// A job of a cluster as it is done again here.
struct Again<'a> {
    program: &'a str,
    channel: Client,
    /// For what is fetched and made.
    folder: &'a Path,
    id: String,
    job: Box<dyn Job>,
    /// Its code came with it, and what that writes can be shown.
    brings_code: bool,
    options: Options,
    listing: Vec<Object>,
    plan: TaskPlan,
}

pub(super) fn run(program: &str, here: &[Entry], of: &ArgMatches) -> Result<(), Failure> {
    let text = |name| of.get_one::<String>(name).cloned().unwrap_or_default();
    let (id, stage, number) = (text("job"), text("stage"), of.get_one::<u32>("number").copied().unwrap_or(0));
    let channel = channel(of)?;
    let request = answer::request(api::GetJobRequest { job: id.clone() }, WITHIN);
    let status = block_on(async { answered(JobsClient::new(channel.clone()).get(request)).await })?;
    let temporary = match of.get_one::<PathBuf>("keep") {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|e| Failure::System("make a temporary folder", e))?),
    };
    let kept = of.get_one::<PathBuf>("keep").map(PathBuf::as_path).or(temporary.as_ref().map(|folder| folder.path()));
    let folder =
        std::path::absolute(kept.unwrap_or(Path::new("."))).map_err(|e| Failure::System("find a folder", e))?;
    let again = Again::new(program, here, channel, &folder, &status)?;
    let total = if stage == "map" { again.plan.tasks.len() as u32 } else { again.plan.parts };
    if number >= total {
        return Err(Failure::Usage(format!("the job has {total} {stage} tasks; their numbers begin at 0")));
    }
    match stage.as_str() {
        "map" => again.map(number),
        _ => again.reduce(number),
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::File { action, path: path.into(), source }
}

impl<'a> Again<'a> {
    fn new(
        program: &'a str,
        here: &[Entry],
        channel: Client,
        folder: &'a Path,
        status: &api::JobStatus,
    ) -> Result<Self, Failure> {
        let spec = status.spec.clone().unwrap_or_default();
        let app = spec.app.clone().unwrap_or_default();
        let entry = here.iter().find(|entry| entry.name() == app.name).ok_or_else(|| {
            Failure::Usage(format!("this program has no app '{}'; use the one that the cluster runs", app.name))
        })?;
        if spec.phase() != api::Phase::Unspecified {
            return Err(Failure::Usage("tasks of half a job (--phase) cannot be done again here".into()));
        }
        let copies = app_files(&channel, &app, folder)?;
        let matches = entry.command().no_binary_name(true).try_get_matches_from(&app.arguments)?;
        let job = entry.job(&matches, Files::Copies(&copies))?;
        let options = node::options_of(&spec, memory::half()).map_err(Failure::Usage)?;
        let options = Options { scratch: folder.into(), ..options };
        let listing = listing(&channel, &spec)?;
        let target = if spec.map_task_bytes == 0 { TASK_BYTES } else { spec.map_task_bytes };
        let plan = job.divide(&listing, &options, target)?;
        let (maps, parts) = (counted(status.maps.as_ref()), counted(status.reduces.as_ref()));
        // A job that failed early was not divided.
        let same = (plan.tasks.len() as u32, plan.parts, plan.bytes) == (maps, parts, status.input_bytes);
        if maps > 0 && !same {
            let (before, now) = (Size(status.input_bytes), Size(plan.bytes));
            let tasks = plan.tasks.len();
            return Err(Failure::Job {
                message: format!(
                    "the job had {maps} map tasks over {before}, and its inputs are now {tasks} over {now}"
                ),
                next_step: "put them back as they were, or submit the job again".into(),
            });
        }
        let (id, brings_code) = (status.id.clone(), entry.brings_code());
        Ok(Self { program, channel, folder, id, job, brings_code, options, listing, plan })
    }

    fn which(&self, number: u32) -> Which<'_> {
        let maps = self.plan.tasks.len() as u32;
        Which { job: &self.id, number, attempt: 0, maps, reduces: self.plan.parts, keep: true }
    }

    fn said(&self, what: &str) {
        say(&format!("{}: {what}", self.program));
    }

    /// Does something with threads and somebody who listens.
    fn with<T>(
        &self,
        what: impl FnOnce(&Context<'_>) -> Result<T, gristmill_engine::error::Error>,
    ) -> Result<T, Failure> {
        let exec = Threads::new(1).map_err(|e| Failure::System("start threads", e))?;
        let (observer, stop) = (Told(self.program), AtomicBool::new(false));
        Ok(what(&Context { exec: &exec, observer: &observer, stop: &stop })?)
    }

    fn fetch(&self, ranges: &[Range]) -> Result<Fetched, Failure> {
        let mut needed: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        for range in ranges {
            let object = &self.listing[range.object as usize];
            let whole = object.compression().is_some();
            // Whether a record begins with the range is seen by the byte before it.
            let (start, end) =
                if whole { (0, object.len) } else { (range.start.saturating_sub(1 << 10), range.end + BEYOND) };
            needed.entry(range.object).or_default().push((start, end.min(object.len)));
        }
        let mut files = BTreeMap::new();
        for (number, stretches) in needed {
            let object = &self.listing[number as usize];
            let path = self.folder.join(format!("input-{number:05}"));
            let file = File::create(&path).map_err(file_error("create", &path))?;
            file.set_len(object.len).map_err(file_error("extend", &path))?;
            for (start, end) in joined(stretches) {
                let mut at = start;
                let (name, length) = (object.name.clone(), end - start);
                let request = api::GetDataRequest { name, offset: start, length };
                let mut client = DataClient::new(self.channel.clone());
                block_on(async {
                    let mut pieces = answered_within(FETCHED_WITHIN, client.get(request)).await?;
                    let written = &mut |piece: &[u8]| {
                        file.write_all_at(piece, at).map_err(file_error("write", &path))?;
                        at += piece.len() as u64;
                        Ok(())
                    };
                    data::each_piece(&mut pieces, written).await
                })?;
                if at != end {
                    return Err(Failure::Cluster(format!("{} became shorter while it was read", object.name)));
                }
            }
            files.insert(number, path);
        }
        Ok(Fetched(files))
    }

    fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(Folder::new(self.folder))
    }

    fn map_task<'t>(&'t self, number: u32, file: &'t str, splitters: &'t [Vec<u8>]) -> MapTask<'t> {
        let (inputs, ranges) = (&self.listing[..], &self.plan.tasks[number as usize][..]);
        MapTask { which: self.which(number), inputs, ranges, parts: self.plan.parts, splitters, file }
    }

    /// A map by itself: what its code writes is printed.
    fn map(&self, number: u32) -> Result<(), Failure> {
        let ranges = &self.plan.tasks[number as usize];
        for range in ranges {
            let Range { object, start, end } = range;
            self.said(&format!(
                "map {number} reads {} from byte {start} to {end}",
                self.listing[*object as usize].name
            ));
        }
        let inputs = self.fetch(ranges)?;
        let mut task = self.map_task(number, "part", &[]);
        if !self.brings_code {
            let splitters = self.boundaries(&inputs)?;
            let task = MapTask { splitters: &splitters, ..task };
            let scratch = self.scratch();
            let made = self.with(|context| self.job.map_task(task, &inputs, &scratch, &self.options, context))?;
            self.said(&format!("map {number} ends well here: {} pairs", made.emitted));
            return Ok(());
        }
        // As of a job that only maps: its lines are seen as they were written.
        (task.parts, task.which.reduces) = (0, 0);
        let scratch = self.scratch();
        let made = self.with(|context| self.job.part_task(task, &inputs, &scratch, &self.options, context))?;
        self.print(&format!("map {number}"), &made)
    }

    /// Where parts begin, of a job that sorts.
    fn boundaries(&self, inputs: &Fetched) -> Result<Vec<Vec<u8>>, Failure> {
        if !self.plan.survey {
            return Ok(Vec::new());
        }
        // All of them are looked into.
        let all: Vec<Range> = self.plan.tasks.iter().flatten().copied().collect();
        let whole = if inputs.0.len() < self.listing.len() { Some(self.fetch(&all)?) } else { None };
        Ok(self.job.survey(&self.listing, self.plan.parts, whole.as_ref().unwrap_or(inputs), &self.options)?)
    }

    /// A reduce, behind all maps.
    fn reduce(&self, part: u32) -> Result<(), Failure> {
        let (tasks, bytes) = (self.plan.tasks.len(), Size(self.plan.bytes));
        self.said(&format!("reduce {part} needs what all {tasks} map tasks made of {bytes}: they are done here first"));
        let all: Vec<Range> = self.plan.tasks.iter().flatten().copied().collect();
        let inputs = self.fetch(&all)?;
        let splitters = self.boundaries(&inputs)?;
        let (scratch, names) =
            (self.scratch(), self.listing.iter().map(|object| object.name.clone()).collect::<Vec<_>>());
        let mut segments = Vec::new();
        for number in 0..tasks as u32 {
            let file = format!("map-{number:05}");
            let task = self.map_task(number, &file, &splitters);
            let made = self.with(|context| self.job.map_task(task, &inputs, &scratch, &self.options, context))?;
            let slot = &made.segments[part as usize];
            let mapping = scratch.map(&file).map_err(gristmill_engine::error::Error::from)?;
            let bytes = Slice::new(mapping, slot.offset, slot.len)
                .ok_or_else(|| Failure::Bug(format!("the segments of map {number} are not whole")))?;
            segments.push(Segment { name: format!("map {number}"), bytes: SegmentBytes::Mapped(bytes), digest: None });
        }
        let task = ReduceTask { which: self.which(part), inputs: &names, part, segments, file: "part" };
        let made = self.with(|context| self.job.reduce_task(task, &scratch, &self.options, context))?;
        self.print(&format!("reduce {part}"), &made)
    }

    fn print(&self, task: &str, made: &PartOutput) -> Result<(), Failure> {
        let path = self.folder.join("part");
        let file = File::open(&path).map_err(file_error("read", &path))?;
        let kind = gristmill_engine::data::compress::Compression::of(Path::new(&made.name));
        let mut reader: Box<dyn io::Read> = match kind {
            None => Box::new(BufReader::new(file)),
            Some(kind) => {
                let decoder = gristmill_engine::data::compress::Decoder::new(kind, Box::new(file), "the part".into());
                Box::new(decoder.map_err(file_error("read", &path))?)
            }
        };
        let mut out = stdout::open()?;
        io::copy(&mut reader, &mut out).and_then(|_| out.flush()).map_err(gristmill_engine::error::Error::Stdout)?;
        let counters: Vec<String> = made.counters.iter().map(|(name, n)| format!(", {name} {n}")).collect();
        self.said(&format!("{task} ends well here: {} records{}", made.summary.records, counters.concat()));
        Ok(())
    }
}

fn counted(counts: Option<&api::TaskCounts>) -> u32 {
    counts.map_or(0, |counts| counts.total)
}

/// Stretches without overlaps, in order.
fn joined(mut all: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    all.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in all.into_iter().filter(|(start, end)| start < end) {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// The inputs of a job, as a master lists them.
fn listing(channel: &Client, spec: &api::JobSpec) -> Result<Vec<Object>, Failure> {
    let mut all = Vec::new();
    for text in &spec.inputs {
        let pattern = |text: &str| Pattern::new(text).map_err(|e| Failure::Cluster(format!("input {text}: {e}")));
        let mut client = DataClient::new(channel.clone());
        let found = block_on(async { data::list(&mut client, text).await })?;
        let mut found: Vec<Object> = found.into_iter().map(|f| Object { name: f.name, len: f.bytes }).collect();
        let mut named = pattern(text)?;
        if !named.is_glob() && !text.ends_with('/') {
            // An object of that name, else all below the folder.
            if let Some(alone) = found.iter().position(|object| object.name == *text) {
                all.push(found.swap_remove(alone));
                continue;
            }
            named = pattern(&format!("{text}/"))?;
        }
        found.retain(|object| Name::new(object.name.as_str()).is_ok_and(|name| named.names_input(&name)));
        all.extend(found);
    }
    if all.is_empty() {
        return Err(Failure::Cluster(format!("the inputs are gone: {}", spec.inputs.join(" "))));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Copies of the files that an app brought.
fn app_files(channel: &Client, app: &api::App, folder: &Path) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let (mut copies, mut here) = (BTreeMap::new(), BTreeSet::new());
    let below = folder.join("app");
    fs::create_dir_all(&below).map_err(file_error("create", &below))?;
    for file in &app.files {
        let path = below.join(hex(&file.digest));
        if here.insert(path.clone()) {
            let request = api::GetFileRequest { digest: file.digest.clone() };
            let mut client = AppsClient::new(channel.clone());
            let bytes = block_on(async {
                let mut pieces = answered_within(FETCHED_WITHIN, client.get_file(request)).await?;
                let mut bytes = Vec::new();
                let taken = &mut |piece: &[u8]| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                };
                data::each_piece(&mut pieces, taken).await?;
                Ok(bytes)
            })?;
            if Sha256::digest(&bytes)[..] != file.digest[..] {
                return Err(Failure::Cluster(format!("{} is not what it was when the job was submitted", file.path)));
            }
            fs::write(&path, bytes).map_err(file_error("write", &path))?;
        }
        copies.insert(file.path.clone(), path);
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_joined() {
        assert_eq!(joined(vec![(5, 9), (0, 3), (2, 4), (4, 5), (20, 20)]), [(0, 9)]);
        assert_eq!(joined(vec![(10, 12), (0, 3)]), [(0, 3), (10, 12)]);
    }
}
