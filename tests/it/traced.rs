//! The program, telling on standard error whatever its libraries have to say of themselves, at the highest level of detail: for
//! the test that looks for secrets in it.

use std::fmt::{Debug, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Metadata, Subscriber};

/// Everything is told, a line each.
struct Told;

/// The fields of an event or span.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

fn tell(what: &str, of: &Metadata<'_>, record: impl FnOnce(&mut Line)) {
    let mut line = Line(format!("{what} {} {} {}", of.level(), of.target(), of.name()));
    record(&mut line);
    eprintln!("{}", line.0);
}

impl Subscriber for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        tell("span", span.metadata(), |line| span.record(line));
        Id::from_u64(NEXT.fetch_add(1, Relaxed))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("record".to_string());
        values.record(&mut line);
        eprintln!("{}", line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        tell("event", event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn main() -> ExitCode {
    // Nobody else does so in this process.
    let _ = tracing_core::dispatcher::set_global_default(tracing_core::Dispatch::new(Told));
    gristmill::main(gristmill::apps::all())
}
