//! Records here and there of all inputs: what the parts and ranges of a sorting job are fitted to.
//!
//! Which records are taken depends on the lengths and bytes of the inputs alone, so that parts are the same wherever
//! and however often they are looked for.

use std::io::{self, Read};

use super::chunk::Format;
use crate::error::Error;

/// Bytes of a stream's head that stand for all of it.
const HEAD: u64 = 256 << 10;

/// A stretch of an input that can be sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) input: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Can only be read from its start.
    pub(crate) stream: bool,
}

/// Reads some bytes from an offset on; none at the end.
pub(crate) type ReadSome<'r> = Box<dyn Fn(&mut [u8], u64) -> io::Result<usize> + Send + 'r>;

/// How stretches are read.
pub(crate) trait Sampled {
    fn read_error(&self, input: u32, offset: u64, e: io::Error) -> Error;
    fn open(&self, input: u32) -> Result<ReadSome<'_>, Error>;
    /// A stream from its start; `None` for one that cannot be read twice.
    fn stream(&self, input: u32) -> Result<Option<Box<dyn Read + '_>>, Error>;
}

/// The first bytes of records spread evenly over the stretches: up to `n` pieces of `size` bytes, cut to whole records,
/// with the inputs that they are from.
pub(crate) fn sample(
    stretches: &[Stretch],
    format: Format,
    (n, size): (usize, usize),
    inputs: &dyn Sampled,
) -> Result<Vec<(u32, Vec<u8>)>, Error> {
    let total = stretches.iter().map(|s| s.end - s.start).sum::<u64>().max(1);
    let mut all = Vec::new();
    for Stretch { input, start, end, stream } in stretches.iter().copied() {
        if stream {
            if let Some(stream) = inputs.stream(input)? {
                let mut head = Vec::new();
                stream.take(HEAD).read_to_end(&mut head).map_err(|e| inputs.read_error(input, 0, e))?;
                let whole = format.complete(&head);
                head.truncate(if whole == 0 { head.len() } else { whole });
                all.push((input, head));
            }
            continue;
        }
        let len = end - start;
        // As if in 128 bits, for lengths near the greatest.
        let share = (n as u128 * u128::from(len)).div_ceil(u128::from(total)).min(u128::from(len)) as u64;
        if share == 0 {
            continue;
        }
        let read = inputs.open(input)?;
        for k in 0..share {
            let at = start + k * (len / share);
            let bytes = sample_at(format, &read, at, size).map_err(|e| inputs.read_error(input, at, e))?;
            all.extend(bytes.map(|bytes| (input, bytes)));
        }
    }
    Ok(all)
}

fn sample_at(format: Format, read: &ReadSome<'_>, at: u64, size: usize) -> io::Result<Option<Vec<u8>>> {
    let (at, size) = match format {
        Format::Fixed(n) => (at / n as u64 * n as u64, n),
        _ => (at.saturating_sub(1), size),
    };
    let mut bytes = vec![0; size];
    let mut n = 0;
    while n < size {
        match read(&mut bytes[n..], at + n as u64) {
            Ok(0) => break,
            Ok(got) => n += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(n);
    let from = if at == 0 { 0 } else { format.cut(&bytes, 1, bytes.len()).start };
    let first = &bytes[from..];
    let whole = match format.separator() {
        Some(separator) => memchr::memchr(separator, first).map_or(0, |n| n + 1),
        None => first.len(),
    };
    Ok((whole > 0).then(|| first[..whole].to_vec()))
}
