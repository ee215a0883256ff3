//! Which inputs a job was given: arguments, a list in a file, or standard input.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use gristmill_engine::data::input::{self, Input, Listing, Source};
use gristmill_engine::error::Error;

use super::failure::Failure;
use super::flags::JobFlags;

const STDIN: &str = "-";

/// Compressed inputs of fewer bytes in all are read before anybody wonders.
const LARGE: u64 = 64 << 20;

/// Lists the inputs that the flags name.
pub(crate) fn list(flags: &JobFlags) -> Result<Listing, Failure> {
    let mut specs = flags.input.clone();
    match &flags.inputs_from {
        Some(from) => {
            let from_stdin = from == Path::new(STDIN);
            specs.extend(read_list(from, from_stdin)?);
            if from_stdin && specs.iter().any(|spec| spec == STDIN) {
                return Err(Failure::Usage("standard input cannot be both an input and the list of inputs".into()));
            }
        }
        None if specs.is_empty() && io::stdin().is_terminal() => {
            let e = "no INPUT, and standard input is a terminal; name files or folders, or - to type the input";
            return Err(Failure::Usage(e.into()));
        }
        None if specs.is_empty() => specs.push(STDIN.into()),
        None => {}
    }
    let listing = input::listing(&specs).map_err(Error::from)?;
    if let Some(output) = flags.folder().filter(|_| flags.overwrite) {
        refuse_own_output(&specs, &listing.inputs, output)?;
    }
    Ok(listing)
}

/// An earlier result that lies below an input folder would be counted in, and then replaced: each run would differ. One
/// that is named as an input is meant to be read.
fn refuse_own_output(specs: &[OsString], inputs: &[Input], output: &Path) -> Result<(), Failure> {
    let Ok(target) = output.canonicalize() else { return Ok(()) };
    let lies_within = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&target));
    if specs.iter().any(|spec| lies_within(Path::new(spec))) {
        return Ok(());
    }
    let mut seen: Option<(&Path, bool)> = None;
    for input in inputs.iter().filter(|input| input.source == Source::File) {
        let folder = input.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Inputs are sorted: most are in the folder of the one before.
        let within = match seen {
            Some((last, within)) if last == folder => within,
            _ => lies_within(folder),
        };
        seen = Some((folder, within));
        if within {
            let (input, output) = (input.name(), output.display());
            return Err(Failure::Usage(format!(
                "input {input} lies in {output}, the output to be replaced; put the output elsewhere, or under a name that begins with '_'"
            )));
        }
    }
    Ok(())
}

/// What the user should know of the inputs before they are read.
pub(crate) fn notes(listing: &Listing, threads: usize) -> Vec<String> {
    let mut all = Vec::from_iter(unsplittable(&listing.inputs).filter(|_| threads > 1));
    let first = |paths: &[PathBuf]| paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    match listing.outputs.len() {
        0 => {}
        1 => all.push(format!("{} is the output of a job, and read as input", first(&listing.outputs))),
        n => {
            all.push(format!("{n} folders are outputs of jobs, and read as input; one is {}", first(&listing.outputs)))
        }
    }
    match listing.packed.len() {
        0 => {}
        1 => {
            all.push(format!("{} is packed in a way that is not read: its bytes are the input", first(&listing.packed)))
        }
        n => all.push(format!(
            "{n} inputs are packed in ways that are not read: their bytes are the input; one is {}",
            first(&listing.packed)
        )),
    }
    all
}

fn read_list(from: &Path, from_stdin: bool) -> Result<Vec<OsString>, Failure> {
    let mut bytes = Vec::new();
    let read = match from_stdin {
        true => io::stdin().lock().read_to_end(&mut bytes),
        false => File::open(from).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|source| Failure::File { action: "read the list of inputs", path: from.into(), source })?;
    let names = names(&bytes);
    match names.is_empty() {
        true => Err(Failure::Usage(format!("{}: the list of inputs is empty", from.display()))),
        false => Ok(names),
    }
}

/// The names in a list. No name holds a NUL, so a list with one was made for names that hold line feeds.
fn names(list: &[u8]) -> Vec<OsString> {
    let separator = if list.contains(&0) { 0 } else { b'\n' };
    let names = list.split(|b| *b == separator).filter(|name| !name.is_empty());
    names.map(|name| OsString::from_vec(name.to_vec())).collect()
}

/// What the user should know of inputs that only one thread can read; `None` when there is nothing to tell.
fn unsplittable(inputs: &[Input]) -> Option<String> {
    let compressed = || inputs.iter().filter(|input| input.compression.is_some());
    if compressed().map(|input| input.len).sum::<u64>() < LARGE {
        return None;
    }
    match (compressed().count(), inputs.len()) {
        (0, _) => None,
        (1, 1) => Some("the input is compressed and cannot be split: it is read by one thread".into()),
        (1, all) => Some(format!("1 of {all} inputs is compressed and cannot be split: it is read by one thread")),
        (n, all) => Some(format!("{n} of {all} inputs are compressed and cannot be split: each is read by one thread")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_cannot_be_split_are_told_of_if_they_are_large() {
        let input = |name: &str, len| {
            let path = PathBuf::from(name);
            let compression = gristmill_engine::data::compress::Compression::of(&path);
            Input { path, len, compression, source: Source::File }
        };
        let told = |inputs: &[(&str, u64)]| {
            let inputs: Vec<_> = inputs.iter().map(|(name, len)| input(name, *len)).collect();
            unsplittable(&inputs).unwrap_or_default()
        };
        let rest = "compressed and cannot be split:";
        assert_eq!(told(&[("a.gz", LARGE)]), format!("the input is {rest} it is read by one thread"));
        assert_eq!(told(&[("a.gz", LARGE), ("b", 1)]), format!("1 of 2 inputs is {rest} it is read by one thread"));
        let half = [("a.gz", LARGE / 2), ("b", 1), ("c.zst", LARGE / 2)];
        assert_eq!(told(&half), format!("2 of 3 inputs are {rest} each is read by one thread"));
        assert_eq!(told(&half[..2]) + &told(&[("a", 9 * LARGE)]), "");
    }

    #[test]
    fn a_list_has_a_name_on_each_line_or_before_each_nul() {
        assert_eq!(names(b""), [""; 0]);
        assert_eq!(names(b"\n\n"), [""; 0]);
        assert_eq!(names(b"a\n b c \n\nd"), ["a", " b c ", "d"]);
        assert_eq!(names(b"a\nb\0c\0"), ["a\nb", "c"]);
        assert_eq!(names(b"\xff\n"), [OsString::from_vec(vec![0xff])]);
    }
}
