//! From a listing of objects and a job's options to map tasks and the number of parts. Pure: the same on every master.

use std::path::Path;

use crate::app::{App, Format, Shuffle};
use crate::data::compress::{Compression, unpacker};
use crate::error::Error;
use crate::job::{MAX_PARTS, Options};
use crate::local;

/// Bytes of input for each map task, unless told otherwise.
pub const TASK_BYTES: u64 = 64 << 20;
/// Most map tasks of a job; beyond, tasks grow.
pub const MAX_TASKS: u64 = 20_000;
/// Most ranges of one task: a bound on what a master sends a worker.
pub const MAX_RANGES: usize = 4096;

/// An input of a job: its name in the store and in results, and its length when it was listed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// The name.
    pub name: String,
    /// Bytes, before decompression.
    pub len: u64,
}

impl Object {
    /// The codec that the name asks for.
    pub fn compression(&self) -> Option<Compression> {
        Compression::of(Path::new(&self.name))
    }
}

/// A range of bytes of an object, of whose records those belong to a task that begin in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Range {
    /// The object's number in the listing.
    pub object: u32,
    /// Its first byte.
    pub start: u64,
    /// The first byte after it.
    pub end: u64,
}

/// How a job is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    /// How inputs are cut into records.
    pub format: Format,
    /// Number of parts, and so of reduce tasks; 0 for a part of each map task.
    pub parts: u32,
    /// The ranges of each map task. One after the other they are the whole input in its order.
    pub tasks: Vec<Vec<Range>>,
    /// Bytes of input, before decompression.
    pub bytes: u64,
    /// Whether parts are ranges of keys that a survey must find before the first map task runs.
    pub survey: bool,
}

/// Divides a job over these objects, which are in the order of their names' bytes.
pub(crate) fn plan<A: App>(app: &A, objects: &[Object], options: &Options, target: u64) -> Result<TaskPlan, Error> {
    local::check(app, options)?;
    let format = options.format.unwrap_or(app.format());
    check(objects, format)?;
    let bytes = objects.iter().fold(0, |sum: u64, o| sum.saturating_add(o.len));
    let parts = local::parts(app, options, bytes);
    let tasks = divide(objects, format, options.chunk as u64, target);
    Ok(TaskPlan { format, parts, tasks, bytes, survey: A::SHUFFLE == Shuffle::Sort && parts > 1 })
}

fn check(objects: &[Object], format: Format) -> Result<(), Error> {
    if u32::try_from(objects.len()).is_err() {
        return Err(Error::Usage(format!("{} inputs are too many for one job; name fewer", objects.len())));
    }
    for object in objects {
        if let Some(unpacker) = unpacker(Path::new(&object.name)) {
            let name = &object.name;
            return Err(Error::Usage(format!(
                "{name}: its format is not one that is decompressed (.gz, .zst, .bz2, .lz4); unpack it first, with \
                 '{unpacker}'"
            )));
        }
        if let Format::Fixed(size) = format
            && object.compression().is_none()
            && object.len % size as u64 != 0
        {
            return Err(Error::Ragged { name: object.name.clone(), len: object.len, size });
        }
    }
    Ok(())
}

/// As [`plan`], of a job whose tasks are for one stretch of one input each, an empty one too.
pub(crate) fn plan_splits(
    objects: &[Object],
    (format, parts): (Format, u32),
    options: &Options,
    target: u64,
) -> Result<TaskPlan, Error> {
    check(objects, format)?;
    let bytes = objects.iter().fold(0, |sum: u64, o| sum.saturating_add(o.len));
    // A job that only maps has a part for each task.
    let target = if parts == 0 { target.max(bytes / u64::from(MAX_PARTS / 2)) } else { target };
    let target = target.max(bytes.div_ceil(MAX_TASKS));
    let mut tasks = Vec::new();
    for (number, object) in (0..).zip(objects) {
        let of = |mut range: Range| {
            range.object = number;
            vec![range]
        };
        let split = divide(std::slice::from_ref(object), format, options.chunk as u64, target);
        match split.is_empty() {
            true => tasks.push(of(Range { object: number, start: 0, end: 0 })),
            false => tasks.extend(split.into_iter().flatten().map(of)),
        }
    }
    Ok(TaskPlan { format, parts, tasks, bytes, survey: false })
}

/// Fills tasks one after the other up to `target` bytes, cutting objects at multiples of `chunk`.
pub fn divide(objects: &[Object], format: Format, chunk: u64, target: u64) -> Vec<Vec<Range>> {
    let chunk = chunk.max(1);
    let total = objects.iter().fold(0, |sum: u64, o| sum.saturating_add(o.len));
    let target = target.max(total.div_ceil(MAX_TASKS)).max(1);
    let mut tasks: Vec<Vec<Range>> = Vec::new();
    // Bytes that the last task may still take.
    let mut room = 0;
    for (number, object) in objects.iter().enumerate() {
        let splits = format != Format::Whole && object.compression().is_none();
        // Even a compressed file of no bytes must be looked at: it is none.
        if object.len == 0 && object.compression().is_none() {
            continue;
        }
        let mut start = 0u64;
        loop {
            if room == 0 || tasks.last().is_none_or(|task| task.len() >= MAX_RANGES) {
                tasks.push(Vec::new());
                room = target;
            }
            // Within a chunk nothing is cut: what is over goes along.
            let end = match splits {
                true => start.saturating_add(room).div_ceil(chunk).saturating_mul(chunk).min(object.len),
                false => object.len,
            };
            if let Some(task) = tasks.last_mut() {
                task.push(Range { object: number as u32, start, end });
            }
            room = room.saturating_sub(end - start);
            start = end;
            if start >= object.len {
                break;
            }
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn objects() -> impl Strategy<Value = Vec<Object>> {
        let len = prop_oneof![2 => 0u64..50, 2 => 0u64..5000, 1 => 0u64..3_000_000];
        prop::collection::vec((len, any::<bool>()), 0..40).prop_map(|all| {
            let name = |(n, (len, packed)): (usize, (u64, bool))| Object {
                name: format!("{n:03}{}", if packed { ".gz" } else { "" }),
                len,
            };
            all.into_iter().enumerate().map(name).collect()
        })
    }

    proptest! {
        #[test]
        fn tasks_are_the_input_once_and_in_order(
            objects in objects(), chunk in 1u64..10_000, target in 1u64..1_000_000,
            format in prop_oneof![Just(Format::Lines), Just(Format::Whole)],
        ) {
            let tasks = divide(&objects, format, chunk, target);
            prop_assert_eq!(&tasks, &divide(&objects, format, chunk, target));
            let all: Vec<Range> = tasks.iter().flatten().copied().collect();
            let mut ranges = all.iter().peekable();
            for (n, object) in objects.iter().enumerate() {
                let mut at = 0;
                let mut seen = 0;
                while let Some(range) = ranges.next_if(|r| r.object == n as u32) {
                    prop_assert_eq!(range.start, at);
                    prop_assert!(range.end > at || object.compression().is_some());
                    prop_assert!(range.end % chunk == 0 || range.end == object.len);
                    (at, seen) = (range.end, seen + 1);
                }
                prop_assert_eq!(at, object.len);
                if object.compression().is_some() || (format == Format::Whole && object.len > 0) {
                    prop_assert_eq!(seen, 1);
                }
            }
            prop_assert!(ranges.next().is_none());
            for task in &tasks {
                prop_assert!(!task.is_empty() && task.len() <= MAX_RANGES);
                // Only the last range takes a task beyond its bytes, and by less than a chunk where it could be cut.
                let target = target.max(objects.iter().map(|o| o.len).sum::<u64>().div_ceil(MAX_TASKS));
                let before: u64 = task[..task.len() - 1].iter().map(|r| r.end - r.start).sum();
                prop_assert!(before < target);
                let last = task[task.len() - 1];
                let splits = format != Format::Whole && objects[last.object as usize].compression().is_none();
                prop_assert!(!splits || before + last.end - last.start < target + chunk);
            }
        }
    }

    #[test]
    fn small_objects_share_a_task_and_a_large_one_has_several() {
        let object = |name: &str, len| Object { name: name.into(), len };
        let tasks = |lens: &[u64]| {
            let objects: Vec<Object> = lens.iter().enumerate().map(|(n, len)| object(&n.to_string(), *len)).collect();
            divide(&objects, Format::Lines, 1 << 20, TASK_BYTES).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(tasks(&[]), [0; 0]);
        assert_eq!(tasks(&[0, 0]), [0; 0]);
        assert_eq!(tasks(&[1000; 5000]), [MAX_RANGES, 5000 - MAX_RANGES]);
        assert_eq!(tasks(&[TASK_BYTES * 2 + 1]), [1, 1, 1]);
        assert!(tasks(&[1 << 50]).len() as u64 <= MAX_TASKS);
    }
}
