//! Which inputs a job was given: arguments, a list in a file, or standard input.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use gristmill_engine::data::input::{self, Input};
use gristmill_engine::error::Error;

use super::failure::Failure;
use super::flags::JobFlags;

const STDIN: &str = "-";

/// Lists the inputs that the flags name.
pub(crate) fn list(flags: &JobFlags) -> Result<Vec<Input>, Failure> {
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
    input::list(&specs).map_err(|e| Error::from(e).into())
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
pub(crate) fn unsplittable(inputs: &[Input]) -> Option<String> {
    let compressed = inputs.iter().filter(|input| input.compression.is_some()).count();
    match (compressed, inputs.len()) {
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
    fn a_list_has_a_name_on_each_line_or_before_each_nul() {
        assert_eq!(names(b""), [""; 0]);
        assert_eq!(names(b"\n\n"), [""; 0]);
        assert_eq!(names(b"a\n b c \n\nd"), ["a", " b c ", "d"]);
        assert_eq!(names(b"a\nb\0c\0"), ["a\nb", "c"]);
        assert_eq!(names(b"\xff\n"), [OsString::from_vec(vec![0xff])]);
    }
}
