//! The process above user code: this program begun again as `__supervise PLAN`.
//!
//! It begins the code in its sandbox, with its standard streams, which it then lets go of. What the code begins and leaves
//! behind becomes its child (it is a subreaper), so that it knows all there is, watches what they use together, and ends
//! them: when they use too much, when it is told to (SIGTERM), and when whoever began it is gone. It tells how the code ended
//! as soon as it has, and stays until nothing of it is left.
//!
//! Left to who began it: what the code reads and writes, time limits, and what its end means.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions};

use super::plan::{Bound, End, Plan, Told};
use super::tree;
use crate::sandbox::Identity;

/// The command by which this program becomes a supervisor.
pub(crate) const COMMAND: &str = "__supervise";

/// How often memory and processes are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How often the folder is measured.
const MEASURE: Duration = Duration::from_millis(500);
/// Files in the folder that are looked at; so many are too many.
const MOST_FILES: usize = 1_000_000;
/// How long processes may take to be gone that were killed.
const GONE: Duration = Duration::from_secs(30);
/// Processes that an ordinary user may begin elsewhere while a task runs.
const SPARE: u64 = 4096;

/// Supervises, if that is what the arguments of this program say.
pub(crate) fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1)? != COMMAND {
        return None;
    }
    let plan = arguments.next()?;
    let done = supervise(Path::new(&plan));
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn supervise(path: &Path) -> std::io::Result<()> {
    super::child::begin_afresh()?;
    let plan = Plan::read(path)?;
    let told_to_end = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, told_to_end.clone())?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let child = match begin(&plan) {
        Ok(child) => child,
        Err(told) => return told.write(path),
    };
    // Dropped, it ends what is left: whatever fails here, nothing of the code stays.
    let mut watch = Watch { plan: &plan, group: child, child: Some(child), none_left: false, measured: Instant::now() };
    if let Err(e) = let_go() {
        return Told::NoSandbox(format!("its streams cannot be let go of: {e}")).write(path);
    }
    let mut told = false;
    loop {
        watch.wait();
        if let Some(end) = watch.reap().filter(|_| !told) {
            Told::Ended(end).write(path)?;
            told = true;
        }
        let orphaned = rustix::process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != plan.parent);
        if watch.none_left || orphaned || told_to_end.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some((bound, used)) = watch.over() {
            // Told first, for the end of the child would else be heard of as a signal; and in place of what was told before, for
            // what the child left behind may still have had something to write.
            return Told::Ended(End::Over(bound, used)).write(path);
        }
    }
}

/// Begins the code.
fn begin(plan: &Plan) -> Result<Pid, Told> {
    let identity = if plan.sandbox.is_some() { Identity::choose() } else { Identity::Same };
    for folder in plan.sandbox.iter().flat_map(|sandbox| &sandbox.own) {
        identity.give(folder).map_err(|e| Told::NoSandbox(format!("its folder cannot be given to it: {e}")))?;
    }
    // What it opens again by name, as /dev/stderr, must be its own.
    identity.give_streams();
    // Of a user who has others the number of processes is no bound of one task: that is watched, and this is for bombs.
    let used = if identity == Identity::Same { tree::threads_of_user() + SPARE } else { 0 };
    let limits = plan.limits.of_process(used);
    let (words, environment) = (plan.words.clone(), plan.environment.clone());
    let (sandbox, folder) = (plan.sandbox.clone(), plan.folder.clone());
    let (tell, told) = std::sync::mpsc::channel();
    // A thread of its own enters the sandbox, and what it begins is in it. It stays: the code ends with it.
    let inside = move || {
        let begun = (|| {
            if let Some(sandbox) = &sandbox {
                sandbox.enter(identity).map_err(Told::NoSandbox)?;
            }
            let (program, arguments) = words.split_first().ok_or(Told::Ended(End::NotBegun(0)))?;
            let mut command = std::process::Command::new(program);
            command.args(arguments).env_clear().envs(environment).current_dir(folder).process_group(0);
            super::child::limited(&mut command, limits);
            let child = command.spawn().map_err(|e| Told::Ended(End::NotBegun(e.raw_os_error().unwrap_or(0))))?;
            Ok(Pid::from_child(&child))
        })();
        if tell.send(begun).is_ok() {
            loop {
                std::thread::park();
            }
        }
    };
    std::thread::spawn(inside);
    told.recv().unwrap_or_else(|_| Err(Told::NoSandbox("its thread panicked".into())))
}

/// Lets go of the code's streams: an end of a pipe that we held would keep others waiting.
fn let_go() -> std::io::Result<()> {
    let nothing: OwnedFd = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into();
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(rustix::stdio::dup2_stderr(&nothing)?)
}

/// The code at work. Dropped, nothing is left of it.
struct Watch<'p> {
    plan: &'p Plan,
    /// The group that the code began with.
    group: Pid,
    /// The process that was begun, until it ended.
    child: Option<Pid>,
    /// All that came of it has ended.
    none_left: bool,
    measured: Instant,
}

impl Watch<'_> {
    /// Waits for the end of the code, or for the next look.
    fn wait(&self) {
        let wait = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
        match self.child.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()) {
            Some(end) => {
                let _ = rustix::event::poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&wait));
            }
            None => std::thread::sleep(LOOK),
        }
    }

    /// Waits for all that have ended; how the code did.
    fn reap(&mut self) -> Option<End> {
        let mut end = None;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if self.child == Some(pid) => {
                    self.child = None;
                    end = status.terminating_signal().map(End::Signal).or(status.exit_status().map(End::Code));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return end,
                Err(_) => {
                    self.none_left = true;
                    return end;
                }
            }
        }
    }

    /// The first bound that is passed, with what was used.
    fn over(&mut self) -> Option<(Bound, u64)> {
        let limits = &self.plan.limits;
        let pids = tree::descendants();
        let used = tree::used(&pids);
        if used.threads > limits.processes {
            return Some((Bound::Processes, used.threads));
        }
        if used.memory > limits.memory {
            // Pages that several share were counted for each of them, and those of files, which the system can take back.
            let memory = tree::proportional(&pids).unwrap_or(used.memory);
            if memory > limits.memory {
                return Some((Bound::Memory, memory));
            }
        }
        if self.measured.elapsed() > MEASURE {
            let bytes = bytes_in(&self.plan.folder);
            self.measured = Instant::now();
            if bytes > limits.scratch {
                return Some((Bound::Scratch, bytes));
            }
        }
        None
    }

    /// Ends all that is left.
    fn end_all(&mut self) {
        let begun = Instant::now();
        self.reap();
        while !self.none_left && begun.elapsed() < GONE {
            tree::end_all();
            if self.child.is_some() {
                // Where children cannot be listed, at least those that stayed with it.
                let _ = rustix::process::kill_process_group(self.group, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(1));
            self.reap();
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.end_all();
    }
}

/// Bytes on disk below a folder. Links are not followed.
fn bytes_in(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let (mut folders, mut bytes, mut files) = (vec![folder.to_path_buf()], 0u64, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            bytes += metadata.blocks() * 512;
            files += 1;
            if files > MOST_FILES {
                return u64::MAX;
            }
        }
    }
    bytes
}
