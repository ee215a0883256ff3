//! Standard output, without the line buffering of the standard library's.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use gristmill_engine::error::Error;

use super::failure::Failure;

/// Bytes written in one call, at least.
const BUFFER: usize = 256 << 10;

/// Standard output for results: large writes go straight to it, small ones are gathered.
pub(crate) fn open() -> Result<BufWriter<File>, Failure> {
    let fd = io::stdout().as_fd().try_clone_to_owned().map_err(Error::Stdout)?;
    Ok(BufWriter::with_capacity(BUFFER, File::from(fd)))
}

/// Prints a text that is not long.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = open()?;
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(|e| Error::Stdout(e).into())
}
