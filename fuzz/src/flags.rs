//! The flags of the built-in apps: any list of arguments is a job or a clean error. A job is run over a little text in
//! two ways, which must agree.
//!
//! Input: app, format, parts, chunk size, then arguments that line feeds divide, up to an empty one, and the text.

use std::io::{Read, Seek, Write};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use gristmill_engine::app::Format;
use gristmill_engine::apps;
use gristmill_engine::data::input;
use gristmill_engine::data::words::Isa;
use gristmill_engine::error::Error;
use gristmill_engine::exec::Threads;
use gristmill_engine::job::{Context, Job, Options, Target};
use gristmill_engine::registry::{Entry, Files};

use crate::bytes::Bytes;

/// Longest argument: expressions of more take long to compile, and find nothing more.
const LONGEST: usize = 80;
/// Most arguments.
const MOST: usize = 12;

/// Parses, and runs what is a job.
pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let apps = apps();
    let app = &apps[usize::from(data.byte()) % apps.len()];
    let format = data.byte();
    let format = [
        None,
        Some(Format::Lines),
        Some(Format::Whole),
        Some(Format::Nul),
        Some(Format::Fixed(1 + usize::from(format >> 4))),
    ][usize::from(format & 15) % 5];
    let parts = 1 + u32::from(data.byte() % 5);
    let chunk = usize::from(data.byte()) + 1;
    let Some(job) = parse(app, &mut data) else { return };
    let options = Options { reducers: Some(parts), format, memory: 64 << 20, ..Options::default() };
    let plain = Options { isa: Isa::Portable, ..options.clone() };
    let cut = Options { chunk, ..options };
    let text = data.0;
    let (one, other) = (outcome(&*job, text, &plain, 1), outcome(&*job, text, &cut, 2));
    assert_eq!(one.clone().map(Shown), other.map(Shown), "{} with {format:?}, chunks of {chunk}", app.name());
}

fn apps() -> &'static [Entry] {
    static APPS: OnceLock<Vec<Entry>> = OnceLock::new();
    APPS.get_or_init(apps::all)
}

/// The job, if the arguments make one.
fn parse(app: &Entry, data: &mut Bytes<'_>) -> Option<Box<dyn Job>> {
    let mut args = Vec::new();
    while !data.is_empty() && args.len() < MOST {
        let arg = data.until(b'\n');
        if arg.is_empty() {
            break;
        }
        let arg = &arg[..arg.len().min(LONGEST)];
        args.push(std::os::unix::ffi::OsStringExt::from_vec(arg.to_vec()));
    }
    let args = std::iter::once(std::ffi::OsString::from("app")).chain(args);
    let said = match app.command().try_get_matches_from(args) {
        Ok(matches) => match app.job(&matches, Files::Here) {
            Ok(job) => return Some(job),
            Err(e) => e,
        },
        Err(e) => e,
    };
    assert!(!said.to_string().trim().is_empty(), "an error says something");
    None
}

/// What a job writes, or why it does not.
fn outcome(job: &dyn Job, text: &[u8], options: &Options, threads: usize) -> Result<Vec<u8>, String> {
    static POOLS: [OnceLock<Threads>; 2] = [const { OnceLock::new() }; 2];
    let exec = POOLS[threads - 1].get_or_init(|| Threads::new(threads).expect("threads"));
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text).expect("room for a file");
    let inputs = input::list(&[file.path().into()]).expect("the file is there");
    job.plan(&inputs, options, threads).map_err(class)?;
    let mut result = tempfile::tempfile().expect("a file");
    let sink = Box::new(result.try_clone().expect("a file"));
    let context = Context { exec, observer: &(), stop: &AtomicBool::new(false) };
    let report = job.run("fuzz", inputs, options, Target::Writer(sink), &context).map_err(class)?;
    let mut bytes = Vec::new();
    result.rewind().and_then(|()| result.read_to_end(&mut bytes)).expect("what was written");
    assert_eq!(report.output_bytes, bytes.len() as u64);
    // A file has another name each time, and some apps print it.
    Ok(without(&bytes, file.path().to_string_lossy().as_bytes()))
}

/// What is the same of an error however the input is cut.
fn class(error: Error) -> String {
    match error {
        Error::BadRecord { offset, reason, excerpt, .. } => format!("{offset}: {reason}: {excerpt}"),
        Error::Ragged { .. } => "ragged".into(),
        Error::Usage(message) => message,
        other => panic!("{other}"),
    }
}

fn without(bytes: &[u8], name: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while let Some(at) = rest.windows(name.len()).position(|w| w == name) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + name.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[derive(PartialEq)]
struct Shown(Vec<u8>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}
