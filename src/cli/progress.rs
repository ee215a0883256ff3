//! What a job has come to while it runs. The job only adds to counters; a thread of its own shows them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gristmill_engine::job::{Observer, Phase, SoFar};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::flags::{JobFlags, When};
use super::sizes::Size;
use super::{failure, say};

/// A job that is done by then shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two looks at the counters.
const TICK: Duration = Duration::from_millis(100);
/// Between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(1);

/// The counters of a job.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    total: AtomicU64,
    done: AtomicU64,
    begun: Mutex<Vec<(Phase, Instant)>>,
    notes: Mutex<Vec<String>>,
    /// What user code says while it runs.
    so_far: Mutex<SoFar>,
    /// What the program is called, if what code says may be shown.
    program: Option<String>,
    /// A bar is on the terminal: whoever draws it shows what is said.
    barred: AtomicBool,
}

impl Observer for Watch {
    fn phase(&self, phase: Phase, total: u64) {
        let mut begun = lock(&self.begun);
        self.total.store(total, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        begun.push((phase, Instant::now()));
    }

    fn advance(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
    }

    fn note(&self, message: &str) {
        lock(&self.notes).push(message.into());
    }

    fn so_far(&self, task: &str, counters: &BTreeMap<String, i64>, status: Option<&str>) {
        lock(&self.so_far).hear(task, counters, status);
    }

    fn log(&self, task: &str, line: &str) {
        let Some(program) = &self.program else { return };
        if self.barred.load(Ordering::Relaxed) {
            self.note(&format!("{task}: {line}"));
        } else {
            say(&format!("{program}: {task}: {line}"));
        }
    }
}

impl Watch {
    /// Counters of a job; what its code says is shown if `talks`.
    pub(crate) fn new(program: &str, talks: bool) -> Self {
        Self { program: talks.then(|| program.into()), ..Self::default() }
    }

    /// The phases that the job went through, with the seconds of each, up to now.
    pub(crate) fn phases(&self) -> Vec<(&'static str, f64)> {
        let begun = lock(&self.begun);
        let ends = begun.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        begun.iter().zip(ends).map(|((phase, from), to)| (name(*phase), (to - *from).as_secs_f64())).collect()
    }

    /// What the job had to say and nobody has shown yet.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes))
    }

    /// Sums of what was counted so far, and the last status, as the end of a line.
    fn counted(&self) -> String {
        let so_far = lock(&self.so_far);
        let sums = so_far.counters().into_iter().map(|(name, n)| format!(", {name} {n}"));
        let told = |(task, status): &(String, String)| format!(", {}", failure::one_line(&format!("{task}: {status}")));
        sums.chain(so_far.status.iter().map(told)).collect()
    }

    fn now(&self) -> Option<Now> {
        let begun = lock(&self.begun);
        let number = begun.len();
        let (phase, since) = *begun.last()?;
        let (total, done) = (self.total.load(Ordering::Relaxed), self.done.load(Ordering::Relaxed));
        Some(Now { phase, number, total, done, time: since.elapsed() })
    }
}

/// The counters at one time.
#[derive(Clone, Copy)]
struct Now {
    phase: Phase,
    /// How many phases there were.
    number: usize,
    total: u64,
    done: u64,
    /// How long the phase has lasted.
    time: Duration,
}

impl Now {
    /// What is done, at which rate, and when the rest will be. The rate is that of the whole phase: what threads hand
    /// in at one time says little.
    fn text(&self, sized: bool) -> String {
        let done = Size(self.done);
        let rate = self.done as f64 / self.time.as_secs_f64().max(1e-9);
        let shown = Size(rate as u64);
        match self.phase {
            Phase::Map if sized && self.total > 0 => {
                let left = Duration::try_from_secs_f64(self.total.saturating_sub(self.done) as f64 / rate.max(1e-9));
                // Nothing is known of the rate yet.
                let left = left.ok().filter(|left| self.done > 0 && left.as_secs() < 1 << 20);
                let left = left.map_or(String::new(), |left| format!(", {} left", clock(left)));
                format!("{done} of {}, {shown}/s{left}", Size(self.total))
            }
            Phase::Map => format!("{done}, {shown}/s"),
            Phase::Reduce => format!("{}%", self.done * 100 / self.total.max(1)),
            Phase::Shuffle | Phase::Commit => String::new(),
        }
    }
}

/// Seconds, as people read them on a clock.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m}:{s:02}"),
        (h, m, s) => format!("{h}:{m:02}:{s:02}"),
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Map => "map",
        Phase::Shuffle => "shuffle",
        Phase::Reduce => "reduce",
        Phase::Commit => "commit",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that shows a job's progress, if any does.
pub(crate) struct Shown {
    thread: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Shown {
    /// Shows progress when it is wanted. `sized`: the bytes of the input are known before they are read.
    pub(crate) fn begin(program: &str, watch: &Arc<Watch>, flags: &JobFlags, sized: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        // A result on a terminal is most likely on this one.
        let shared = flags.folder().is_none() && io::stdout().is_terminal();
        let wanted = match flags.progress {
            When::Always => true,
            When::Auto => terminal && !shared && flags.talks(),
            When::Never => false,
        };
        let program = program.to_string();
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (Arc::clone(watch), Arc::clone(&ended));
        let show =
            move || if terminal { bar(&program, &seen, &stop, sized) } else { lines(&program, &seen, &stop, sized) };
        // A job without a bar is better than none.
        let thread = wanted.then(|| thread::Builder::new().name("progress".into()).spawn(show).ok());
        Self { thread: thread.flatten(), ended }
    }

    /// Takes the bar off the terminal.
    pub(crate) fn end(self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread {
            thread.thread().unpark();
            // It has nothing to say but what it drew.
            let _ = thread.join();
        }
    }
}

/// Waits, and says whether the job still runs.
fn runs_on(ended: &AtomicBool, time: Duration) -> bool {
    let until = Instant::now() + time;
    while !ended.load(Ordering::Acquire) {
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            _ => return true,
        }
    }
    false
}

/// A bar on a terminal.
fn bar(program: &str, watch: &Watch, ended: &AtomicBool, sized: bool) {
    if !runs_on(ended, PATIENCE) {
        return;
    }
    watch.barred.store(true, Ordering::Relaxed);
    let mut shown: Option<(usize, ProgressBar)> = None;
    loop {
        if let Some(now) = watch.now() {
            if let Some((_, old)) = shown.take_if(|(number, _)| *number != now.number) {
                old.finish_and_clear();
            }
            let (_, bar) = shown.get_or_insert_with(|| (now.number, bar_of(&now, sized)));
            for note in watch.take_notes() {
                bar.suspend(|| say(&format!("{program}: {note}")));
            }
            bar.set_position(now.done);
            bar.set_message(format!("{:8}{}{}", name(now.phase), now.text(sized), watch.counted()));
            bar.tick();
        }
        if !runs_on(ended, TICK) {
            shown.iter().for_each(|(_, bar)| bar.finish_and_clear());
            return;
        }
    }
}

/// A bar for one phase.
fn bar_of(now: &Now, sized: bool) -> ProgressBar {
    ProgressBar::with_draw_target(Some(now.total.max(1)), ProgressDrawTarget::stderr_with_hz(10))
        .with_style(style(now.phase, sized && now.total > 0))
}

fn style(phase: Phase, sized: bool) -> ProgressStyle {
    // A message is cut off where the terminal ends: a line that wraps could not be taken back.
    let template = match (phase, sized) {
        (Phase::Map, true) | (Phase::Reduce, _) => "[{bar:20.cyan}] {wide_msg}",
        (Phase::Map, false) | (Phase::Shuffle | Phase::Commit, _) => "{spinner} {wide_msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// A line now and then, where there is no terminal: for logs.
fn lines(program: &str, watch: &Watch, ended: &AtomicBool, sized: bool) {
    loop {
        let runs = runs_on(ended, LINE);
        if let Some(now) = watch.now() {
            let (phase, text) = (name(now.phase), now.text(sized));
            say(format!("{program}: {phase} {text}{}", watch.counted()).trim_end());
        }
        if !runs {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_so_far_is_of_the_last_attempt_of_each_task() {
        let watch = Watch::default();
        assert_eq!(watch.counted(), "");
        watch.so_far("map task 0", &[("a".into(), 5), ("b".into(), 1)].into(), None);
        watch.so_far("map task 1", &[("a".into(), 2)].into(), Some("half"));
        watch.so_far("map task 0", &[("a".into(), 1)].into(), None);
        assert_eq!(watch.counted(), ", a 3, map task 1: half");
    }

    #[test]
    fn phases_last_from_their_beginning_to_the_next() {
        let watch = Watch::default();
        assert!(watch.phases().is_empty());
        watch.phase(Phase::Map, 100);
        watch.advance(60);
        thread::sleep(Duration::from_millis(20));
        watch.phase(Phase::Reduce, 7);
        let now = watch.now().unwrap();
        assert_eq!((now.phase, now.number, now.total, now.done), (Phase::Reduce, 2, 7, 0));
        let phases = watch.phases();
        assert_eq!(phases.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["map", "reduce"]);
        assert!(phases[0].1 >= 0.02 && phases[1].1 < phases[0].1, "{phases:?}");
    }

    #[test]
    fn rates_are_of_the_whole_phase() {
        let text = |phase, done, total, seconds, sized| {
            Now { phase, number: 1, total, done, time: Duration::from_secs(seconds) }.text(sized)
        };
        assert_eq!(text(Phase::Map, 4 << 20, 12 << 20, 2, true), "4.0 MiB of 12 MiB, 2.0 MiB/s, 4 s left");
        assert_eq!(text(Phase::Map, 0, 12 << 20, 0, true), "0 bytes of 12 MiB, 0 bytes/s");
        assert_eq!(text(Phase::Map, 1 << 20, 1 << 33, 1, true), "1.0 MiB of 8.0 GiB, 1.0 MiB/s, 2:16:31 left");
        assert_eq!(text(Phase::Map, 4 << 20, 0, 2, false), "4.0 MiB, 2.0 MiB/s");
        assert_eq!(text(Phase::Reduce, 1, 3, 2, true), "33%");
        let longest = text(Phase::Map, 1023 << 20, 1023 << 30, 10, true);
        assert!("[12345678901234567890] map     ".len() + longest.len() <= 80, "{longest}");
    }

    #[test]
    fn every_template_is_one() {
        for phase in [Phase::Map, Phase::Shuffle, Phase::Reduce, Phase::Commit] {
            for sized in [true, false] {
                style(phase, sized);
            }
        }
    }
}
