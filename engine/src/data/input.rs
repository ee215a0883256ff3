//! Turns what the user named (files, folders, globs, `-`) into an ordered list of inputs.
//!
//! The list is the same on every machine that sees the same files: it is sorted by the
//! raw bytes of the paths. Only names, lengths and kinds are looked at. Opening inputs,
//! cutting them into splits and decompressing them is left out.

#![expect(clippy::disallowed_methods, reason = "inputs are listed here")]

mod glob;
mod walk;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::compress::{Compression, unpacker};
use glob::Glob;

/// The name that stands for standard input, on the command line and in the order.
const STDIN: &str = "-";
/// Its name in messages and results.
const STDIN_NAME: &str = "standard input";

/// One input of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The path as the user's spec and the folders below it make it up; `-` for
    /// standard input.
    pub path: PathBuf,
    /// Length in bytes when listed, before decompression; 0 for streams, whose length
    /// is not known.
    pub len: u64,
    /// The codec the file name asks for.
    pub compression: Option<Compression>,
    /// How its bytes are reached.
    pub source: Source,
}

/// How an input's bytes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A regular file: its length is known, and any part of it can be mapped or read
    /// at any time and more than once.
    File,
    /// A FIFO or device: opened by its path, read once from start to end.
    Stream,
    /// Standard input: already open, read once from start to end.
    Stdin,
}

impl Input {
    /// The input's name in messages and results. Different paths have different names: bytes that are not UTF-8 are
    /// written as `\xNN`, and so is a backslash before an `x`.
    pub fn name(&self) -> Cow<'_, str> {
        match (self.source, self.path.to_str()) {
            (Source::Stdin, _) => Cow::Borrowed(STDIN_NAME),
            (_, Some(STDIN_NAME)) => Cow::Owned(format!("./{STDIN_NAME}")),
            (_, Some(text)) if !text.contains("\\x") => Cow::Borrowed(text),
            _ => Cow::Owned(spelt_out(bytes(&self.path))),
        }
    }

    /// Whether the input can be cut into splits that are mapped and read on their own.
    pub fn is_splittable(&self) -> bool {
        self.source == Source::File && self.compression.is_none()
    }

    fn file(path: PathBuf, len: u64) -> Self {
        Self::new(path, len, Source::File)
    }

    fn new(path: PathBuf, len: u64, source: Source) -> Self {
        let compression = Compression::of(&path);
        Self { path, len, compression, source }
    }
}

fn spelt_out(path: &[u8]) -> String {
    let mut out = String::new();
    for part in path.utf8_chunks() {
        out += &part.valid().replace("\\x", "\\x5cx");
        out.extend(part.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

/// The inputs of a job, and what was seen on the way to them.
#[derive(Debug, Default)]
pub struct Listing {
    /// The inputs, in order.
    pub inputs: Vec<Input>,
    /// Entries of folders that were passed over because their names begin with `_` or `.`.
    pub hidden: u64,
    /// Outputs of jobs that lie below a folder that was named, and are input like any other folder.
    pub outputs: Vec<PathBuf>,
    /// Files below folders or found by globs that look packed in a way that is not read: they are taken as they are.
    pub packed: Vec<PathBuf>,
}

/// Why the inputs could not be listed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    #[error("{}: no such file or folder; check the path", path.display())]
    Missing { path: PathBuf },

    #[error("an input has an empty name; name a file or folder, or - for standard input")]
    Nameless,

    #[error("{}: symbolic links that lead to each other and nowhere else; remove or repair them", link.display())]
    LinkCycle { link: PathBuf },

    #[error("{}: its format is not one that is decompressed (.gz, .zst, .bz2, .lz4); unpack it first, with '{unpacker}'", path.display())]
    Packed { path: PathBuf, unpacker: &'static str },

    #[error("{}: no file matches; check the pattern, and quote it if the shell should not expand it", glob.display())]
    NoMatch { glob: PathBuf },

    #[error("{}: the folder holds no input; names that begin with '_' or '.' are skipped", path.display())]
    EmptyFolder { path: PathBuf },

    #[error("{}: cannot list the folder; check its permissions", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{}: cannot look the file up; check its permissions and those of its folder", path.display())]
    Metadata {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{}: symbolic link leads back to {}, a folder it lies in; remove the link or name the inputs one by one", link.display(), target.display())]
    Loop { link: PathBuf, target: PathBuf },

    #[error("{}: broken symbolic link to {}; remove or repair it", link.display(), target.display())]
    BrokenLink { link: PathBuf, target: PathBuf },

    #[error("{}: {kind} in an input folder; take it out, or name it itself to read it", path.display())]
    NotAFile { path: PathBuf, kind: &'static str },

    #[error("{}: a socket cannot be read as input; use a pipe", path.display())]
    Socket { path: PathBuf },

    #[error("{}: invalid pattern; correct it, or put '\\' before a character to be taken literally", glob.display())]
    Pattern {
        glob: PathBuf,
        #[source]
        source: globset::Error,
    },

    #[error("{}: the pattern is not UTF-8; name the folder before it or use '?' for such bytes", glob.display())]
    PatternNotUtf8 { glob: PathBuf },

    #[error("'-': standard input is named twice; it can be read only once")]
    StdinTwice,
}

/// Lists the inputs that `specs` name, sorted by the raw bytes of their paths.
///
/// A spec is one of
///
/// - `-`, standard input, at most once;
/// - a path that exists: a regular file, a FIFO or device, which is read as a stream, or a
///   folder, which stands for all files below it. Entries below it whose names begin
///   with `_` or `.` are skipped, so that the `_SUCCESS` of an earlier job is no input;
/// - else a glob: `*` and `?` (which do not match `/`), `[a-z]`, `[!a-z]`, `{a,b}`, and `**` for any
///   number of folders. It finds what a shell would pass on: a matching folder stands
///   for all files below it. Hidden names match only a pattern that spells their first
///   `_` or `.` out at the start of a name.
///
/// Symbolic links are followed. An input that several specs name is listed once for each, and
/// is then read as often; one spec lists it once. Paths need not be UTF-8.
///
/// # Errors
///
/// Any spec that names nothing, and anything on the way that cannot be listed or read: an
/// input is never left out in silence. See [`Error`].
pub fn list(specs: &[OsString]) -> Result<Vec<Input>, Error> {
    Ok(listing(specs)?.inputs)
}

/// As [`list`], with what was seen on the way.
///
/// # Errors
///
/// As [`list`].
pub fn listing(specs: &[OsString]) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let mut has_stdin = false;
    for spec in specs {
        if spec == STDIN {
            if has_stdin {
                return Err(Error::StdinTwice);
            }
            has_stdin = true;
            listing.inputs.push(Input::new(STDIN.into(), 0, Source::Stdin));
        } else {
            list_spec(spec, &mut listing)?;
        }
    }
    // A path's own order goes by components and would put `a/b` before `a-b`.
    listing.inputs.sort_by(|a, b| bytes(&a.path).cmp(bytes(&b.path)));
    listing.outputs.sort();
    let packed = listing.inputs.iter().filter(|input| unpacker(&input.path).is_some());
    listing.packed = packed.map(|input| input.path.clone()).collect();
    Ok(listing)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn list_spec(spec: &OsStr, inputs: &mut Listing) -> Result<(), Error> {
    let path = Path::new(spec);
    if spec.is_empty() {
        return Err(Error::Nameless);
    }
    match fs::metadata(path) {
        Ok(metadata) => list_existing(path, &metadata, inputs),
        Err(error) if is_absent(&error) => {
            if let Ok(target) = fs::read_link(path) {
                let link = path.to_owned();
                return Err(Error::BrokenLink { link, target });
            }
            match Glob::new(spec)? {
                Some(glob) => glob.list(inputs),
                None => Err(Error::Missing { path: path.into() }),
            }
        }
        // A pattern need not be a name that the file system takes.
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => match Glob::new(spec)? {
            Some(glob) => glob.list(inputs),
            None => Err(metadata_error(path, error)),
        },
        Err(error) => Err(metadata_error(path, error)),
    }
}

fn list_existing(path: &Path, metadata: &Metadata, listing: &mut Listing) -> Result<(), Error> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return walk::list_folder(path, listing);
    }
    if kind.is_socket() {
        return Err(Error::Socket { path: path.into() });
    }
    if let Some(unpacker) = unpacker(path) {
        return Err(Error::Packed { path: path.into(), unpacker });
    }
    listing.inputs.push(match kind.is_file() {
        true => Input::file(path.into(), metadata.len()),
        false => Input::new(path.into(), 0, Source::Stream),
    });
    Ok(())
}

fn metadata_error(path: &Path, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ELOOP) => Error::LinkCycle { link: path.into() },
        _ => Error::Metadata { path: path.into(), source },
    }
}

/// Whether a lookup failed because nothing has that name: `a/b` is absent too if `a`
/// is a file.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
