//! Ends or stops this process at a point of its work that a test names, lets it be of a later release, moves its clock, or
//! makes it less patient at its door. Only builds with the feature `failpoints` have it.
//!
//! `GRISTMILL_FAILPOINT=FILE` says in which file the test will write `POINT[@N] ACTION`. The first of the processes that
//! look there which is at this [`Point`], for the N-th time since that was written, takes the file away and does
//! the action: `kill` (SIGKILL) or `stop` (SIGSTOP).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use gristmill_engine::control::limits;
use gristmill_engine::node::point::Point;
use rustix::process::{Signal, getpid, kill_process};

use super::listener::Bounds;

/// The feature level, if it is not the build's.
const LEVEL: &str = "GRISTMILL_LEVEL";
/// Names the file that moves the clock.
const CLOCK: &str = "GRISTMILL_CLOCK";
/// Bounds of the listener, as in `head=300,idle=500,connections=100`: milliseconds, but of what is counted.
const BOUNDS: &str = "GRISTMILL_BOUNDS";
/// Names the file.
const VARIABLE: &str = "GRISTMILL_FAILPOINT";

/// A point, after how many times it is one to end at, and how.
fn parse(text: &str) -> Option<(Point, u32, Signal)> {
    let (at, action) = text.trim().split_once(' ')?;
    let (name, nth) = at.split_once('@').unwrap_or((at, "1"));
    let signal = match action {
        "kill" => Signal::KILL,
        "stop" => Signal::STOP,
        _ => return None,
    };
    let point = Point::ALL.into_iter().find(|point| point.name() == name)?;
    let nth = nth.parse::<u32>().ok().filter(|nth| *nth > 0)?;
    Some((point, nth, signal))
}

/// Whether this process is the one to end, and how.
fn taken(file: &Path, point: Point) -> Option<Signal> {
    /// What was last read, and how often its point was reached since.
    static SEEN: Mutex<(String, u32)> = Mutex::new((String::new(), 0));
    let text = std::fs::read_to_string(file).ok()?;
    // A test that waits for what never happens would say less.
    let (at, nth, signal) =
        parse(&text).unwrap_or_else(|| panic!("{}: '{text}' is no point and action", file.display()));
    if at != point {
        return None;
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.0 != text {
        *seen = (text, 0);
    }
    seen.1 += 1;
    (seen.1 == nth && std::fs::remove_file(file).is_ok()).then_some(signal)
}

/// The feature level that this process understands.
pub(super) fn level() -> u32 {
    std::env::var(LEVEL)
        .map_or(limits::LEVEL, |text| text.parse().unwrap_or_else(|_| panic!("{LEVEL}={text} is no number")))
}

/// How far this process's clock of the day is ahead, in milliseconds: what the file says that `GRISTMILL_CLOCK` names.
pub(super) fn ahead_ms() -> u64 {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os(CLOCK).map(PathBuf::from));
    let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The bounds of this process's listener.
pub(super) fn bounds() -> Bounds {
    std::env::var(BOUNDS).map_or(Bounds::RELEASED, |text| {
        bounded(&text).unwrap_or_else(|| panic!("{BOUNDS}={text}: these are no bounds"))
    })
}

fn bounded(text: &str) -> Option<Bounds> {
    let mut bounds = Bounds::RELEASED;
    for (name, number) in text.split(',').map(|pair| pair.split_once('=')).collect::<Option<Vec<_>>>()? {
        let number = number.parse().ok()?;
        match name {
            "connections" => bounds.connections = usize::try_from(number).ok()?,
            "head" => bounds.head = Duration::from_millis(number),
            "idle" => bounds.idle = Duration::from_millis(number),
            "body" => bounds.body = Duration::from_millis(number),
            "silence" => bounds.silence = Duration::from_millis(number),
            _ => return None,
        }
    }
    Some(bounds)
}

/// This process is at a point.
pub(super) fn reached(point: Point) {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    let Some(signal) = file.as_ref().and_then(|file| taken(file, point)) else { return };
    let _ = kill_process(getpid(), signal);
    if signal == Signal::KILL {
        // It takes a moment; nothing may be done meanwhile.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_once() {
        assert_eq!(parse("planning kill\n"), Some((Point::Planning, 1, Signal::KILL)));
        for wrong in ["planning", "planning die", "nowhere kill", "planning@0 kill", "planning@x kill"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("failpoint");
        assert_eq!(taken(&file, Point::PublishCopy), None);
        std::fs::write(&file, "publish-copy@2 stop").unwrap();
        let each = [Point::PublishCopy, Point::PublishPut, Point::PublishCopy, Point::PublishCopy];
        assert_eq!(each.map(|point| taken(&file, point)), [None, None, Some(Signal::STOP), None]);
        let mut names: Vec<_> = Point::ALL.map(Point::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }
}
