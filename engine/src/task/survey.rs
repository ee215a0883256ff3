//! The survey of a sorting job: the first keys of its parts, from a sample of all of its input.
//!
//! One worker makes it before the first map task runs; it reads a few megabytes here and there.

use super::Objects;
use super::input::TaskInput;
use super::plan::{Object, Range};
use crate::app::{App, Shuffle};
use crate::error::Error;
use crate::job::Options;
use crate::local::{Held, check, splitters};

/// Where all parts but the first begin; nothing for jobs whose parts are divided by a hash.
pub(crate) fn survey<A: App>(
    app: &A,
    inputs: &[Object],
    parts: u32,
    objects: &dyn Objects,
    options: &Options,
) -> Result<Vec<Vec<u8>>, Error> {
    check(app, options)?;
    if A::SHUFFLE != Shuffle::Sort {
        return Ok(Vec::new());
    }
    let whole = |(n, object): (usize, &Object)| Range { object: n as u32, start: 0, end: object.len };
    let ranges: Vec<Range> = inputs.iter().enumerate().map(whole).collect();
    let format = options.format.unwrap_or(app.format());
    let held = Held { release: false, pin: false };
    let input = TaskInput::new((objects, inputs), &ranges, (format, options.chunk, options.isa), held)?;
    splitters(app, &input, options.isa, parts)
}
