//! `cat`: the parts of an output in order, decompressed, and checked against its manifest.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use gristmill_engine::data::commit::{Manifest, PartEntry, SUCCESS, open_part};
use gristmill_engine::error::Error;

use super::failure::Failure;
use super::stdout;

/// Bytes read in one call.
const BUFFER: usize = 256 << 10;

pub(crate) fn command(program: &str) -> Command {
    let folder = Arg::new("folder").value_name("DIR").required(true).value_parser(value_parser!(PathBuf));
    let unchecked = Arg::new("no-verify").long("no-verify").action(ArgAction::SetTrue);
    Command::new("cat")
        .about("Print the parts of an output, in order and decompressed")
        .long_about(
            "Print the parts of an output, in order and decompressed\n\n\
             Every part is checked against the length and checksum in _SUCCESS. Where they differ, cat fails when it \
             comes to the end of that part: what it printed until then is not to be trusted.",
        )
        .arg(folder.value_hint(ValueHint::DirPath).help("The output, as given to run -o"))
        .arg(unchecked.help("Print the parts as they are, without a check"))
        .after_help(format!("Example:\n  {program} cat out/ | sort -k2 -nr | head"))
}

pub(crate) fn cat(of: &ArgMatches) -> Result<(), Failure> {
    let Some(folder) = of.get_one::<PathBuf>("folder") else { return Ok(()) };
    let manifest = manifest(folder)?;
    if manifest.segments {
        let text = "the segments of a job of phase map; reduce them first, with submit APP --phase reduce";
        return Err(Failure::Output(format!("{} holds {text}", folder.display())));
    }
    let mut out = stdout::open()?;
    let mut buffer = vec![0; BUFFER];
    for part in &manifest.parts {
        let mut copied = Copied { bytes: 0, crc32c: 0 };
        copy(folder, part, &mut buffer, &mut |bytes| {
            copied.bytes += bytes.len() as u64;
            if !of.get_flag("no-verify") {
                copied.crc32c = crc32c::crc32c_append(copied.crc32c, bytes);
            }
            out.write_all(bytes).map_err(|e| Error::Stdout(e).into())
        })?;
        if !of.get_flag("no-verify") {
            copied.check(folder, part)?;
        }
    }
    out.flush().map_err(|e| Error::Stdout(e).into())
}

struct Copied {
    bytes: u64,
    crc32c: u32,
}

impl Copied {
    fn check(&self, folder: &Path, part: &PartEntry) -> Result<(), Failure> {
        let path = folder.join(&part.name);
        let (is, was) = (self.bytes, part.summary.bytes);
        if is != was {
            return Err(damaged(&path, &format!("it has {is} bytes, and had {was} when it was written")));
        }
        match self.crc32c == part.summary.crc32c {
            true => Ok(()),
            false => Err(damaged(&path, "its checksum is not that of what was written")),
        }
    }
}

fn damaged(path: &Path, fault: &str) -> Failure {
    Failure::Output(format!("{} is damaged: {fault}; run the job again", path.display()))
}

fn manifest(folder: &Path) -> Result<Manifest, Failure> {
    let shown = folder.display();
    let manifest = Manifest::read(folder).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound if !folder.exists() => Failure::Output(format!("{shown}: no such folder")),
        io::ErrorKind::NotFound => Failure::Output(format!(
            "{shown} has no {SUCCESS}: the job that writes it has not ended or was killed, or it is no output of a job"
        )),
        io::ErrorKind::NotADirectory => Failure::Output(format!("{shown} is a file, not the output of a job")),
        io::ErrorKind::InvalidData => Failure::Output(format!("{}: {e}", folder.join(SUCCESS).display())),
        _ => Failure::File { action: "read", path: folder.join(SUCCESS), source: e },
    })?;
    // The manifest is a file that anybody can write: its parts must not lead out of the folder.
    let is_plain = |part: &&PartEntry| {
        let mut components = Path::new(&part.name).components();
        matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
    };
    match manifest.parts.iter().find(|part| !is_plain(part)) {
        Some(part) => Err(damaged(&folder.join(SUCCESS), &format!("'{}' is not the name of a part", part.name))),
        None => Ok(manifest),
    }
}

fn copy(
    folder: &Path,
    part: &PartEntry,
    buffer: &mut [u8],
    put: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = || folder.join(&part.name);
    let fail = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => damaged(&path(), "it is missing"),
        // Of a codec: it says which file and what is wrong with it.
        _ if e.get_ref().is_some() => Failure::Output(e.to_string()),
        _ => Failure::File { action: "read", path: path(), source: e },
    };
    let mut reader = open_part(folder, part).map_err(fail)?;
    loop {
        match reader.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => put(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(fail(e)),
        }
    }
}
