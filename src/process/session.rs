//! A process at one attempt: input over its standard input, lines from its standard output, words from its standard error,
//! all on the thread that asks, by poll(2). Its supervisor begins and ends it, and tells how it ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gristmill_engine::error::Error;
use gristmill_engine::job::Observer;
use gristmill_engine::runner::{Counters, Failed, Session, Trouble};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::folder::Folder;
use super::plan::{Bound, End, Plan, Told};
use super::stderr::Said;
use super::{Command, supervisor};
use crate::cli::sizes::Size;
use crate::sandbox::Limits;

/// Nobody waits longer before looking whether the job was stopped.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of a pipe, where the system allows so many.
const PIPE: usize = 1 << 20;
/// Bytes that are read at a time.
const READ: usize = 256 << 10;
/// How long others may hold a process's standard error open after it ended, and say nothing.
const LINGER: Duration = Duration::from_secs(5);
/// How often standard error is read at the end.
const READS: usize = 16;
/// How long a supervisor may take to end everything.
const END: Duration = Duration::from_secs(10);

/// A process that was begun.
pub(crate) struct Process {
    supervisor: Child,
    /// Becomes readable when the supervisor has ended.
    ended: OwnedFd,
    /// What it was told to do; what it tells is beside that.
    plan: PathBuf,
    program: String,
    limits: Limits,
    /// What is said to code that wanted something that it may not; nothing where there is no sandbox.
    advice: &'static str,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    unread: u64,
    said: Said,
    /// Lines for people that nobody has taken yet.
    shown: Vec<String>,
    patience: Option<Duration>,
    codes_count: bool,
    /// When it last did anything, later by the time in which nobody asked it to.
    active: Instant,
    /// When it was last left alone.
    left: Option<Instant>,
    /// When it was last asked how it ended.
    asked: Instant,
    /// How it ended.
    end: Option<End>,
    buffer: Vec<u8>,
}

impl Process {
    /// Begins a process.
    ///
    /// # Errors
    /// When it cannot be, which is the machine's fault: whether there is such a program is known later.
    pub(crate) fn begin(command: &Command) -> Result<Self, Trouble> {
        let program = command.words.first().ok_or_else(|| failed("its command is empty"))?;
        let plan = Plan {
            words: command.words.clone(),
            environment: command.environment.clone(),
            folder: command.folder.clone(),
            sandbox: command.sandbox.clone(),
            limits: command.limits,
            parent: rustix::process::getpid().as_raw_nonzero().get(),
        };
        let path = command.folder.with_extension("plan");
        plan.write(&path).map_err(|source| Error::Write { action: "write", path: path.clone(), source })?;
        let mut child = std::process::Command::new("/proc/self/exe")
            .arg0(env!("CARGO_PKG_NAME"))
            .arg(supervisor::COMMAND)
            .arg(&path)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Write { action: "begin the supervisor of", path: path.clone(), source })?;
        let input = child.stdin.take().map(OwnedFd::from);
        let output = child.stdout.take().map(OwnedFd::from);
        let error = child.stderr.take().map(OwnedFd::from);
        for pipe in [&input, &output, &error].into_iter().flatten() {
            // Without it a read or write could wait for ever.
            let set = rustix::io::ioctl_fionbio(pipe, true);
            set.map_err(|e| Error::Write { action: "use the pipes of", path: path.clone(), source: e.into() })?;
        }
        for pipe in [&input, &output].into_iter().flatten() {
            // A larger pipe is quicker, not more.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
        }
        let ended = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        Ok(Self {
            ended: ended.map_err(|e| failed(&format!("its supervisor cannot be watched: {e}")))?,
            supervisor: child,
            plan: path,
            program: program.clone(),
            limits: command.limits,
            advice: command.sandbox.as_ref().map_or("", |_| command.advice),
            input,
            output,
            error,
            unread: 0,
            said: Said::new(&command.prefix),
            shown: Vec::new(),
            patience: command.patience,
            codes_count: command.codes_count,
            active: Instant::now(),
            left: None,
            asked: Instant::now(),
            end: None,
            buffer: vec![0; READ],
        })
    }

    /// Waits until the process can go on, and moves what can be moved. Returns how much of `input` was taken.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Failed> {
        let mut fds = Vec::with_capacity(4);
        if let Some(pipe) = self.input.as_ref().filter(|_| !input.is_empty()) {
            fds.push((Who::Input, pipe.as_fd(), PollFlags::OUT));
        }
        if let Some(pipe) = &self.output {
            fds.push((Who::Output, pipe.as_fd(), PollFlags::IN));
        }
        if let Some(pipe) = &self.error {
            fds.push((Who::Error, pipe.as_fd(), PollFlags::IN));
        }
        if self.end.is_none() {
            fds.push((Who::End, self.ended.as_fd(), PollFlags::IN));
        }
        // Input for a process that reads no more is taken at once, without waiting for it to say anything.
        let wait = if self.input.is_none() && !input.is_empty() { Duration::ZERO } else { LOOK };
        let ready = poll(&fds, wait).map_err(|e| failed(&format!("it cannot be waited for: {e}")))?;
        let mut taken = 0;
        for who in ready {
            match who {
                Who::Input => taken = self.put(input)?,
                Who::Output => self.take(out)?,
                Who::Error => self.hear()?,
                Who::End => {
                    self.look()?;
                }
            }
        }
        if self.input.is_none() && !input.is_empty() {
            // It may have ended well without reading everything, as head does.
            if let Some(status) = self.look()? {
                self.outcome(status)?;
            }
            return Ok(input.len());
        }
        self.be_patient()?;
        Ok(taken)
    }

    /// Time in which nobody asked does not count against it.
    fn enter(&mut self) {
        if let Some(left) = self.left.take() {
            self.active += left.elapsed();
        }
    }

    fn put(&mut self, input: &[u8]) -> Result<usize, Failed> {
        let Some(pipe) = &self.input else { return Ok(0) };
        match rustix::io::write(pipe, input) {
            Ok(n) => {
                self.active = Instant::now();
                self.unread = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
                Ok(n)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(Errno::PIPE) => {
                self.input = None;
                Ok(0)
            }
            Err(e) => Err(failed(&format!("its input cannot be written: {e}"))),
        }
    }

    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        let Some(pipe) = &self.output else { return Ok(()) };
        match rustix::io::read(pipe, &mut self.buffer[..]) {
            Ok(0) => self.output = None,
            Ok(n) => {
                out.extend_from_slice(&self.buffer[..n]);
                self.active = Instant::now();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(failed(&format!("its output cannot be read: {e}"))),
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Failed> {
        let Some(pipe) = &self.error else { return Ok(()) };
        let shown = &mut self.shown;
        match rustix::io::read(pipe, &mut self.buffer[..]) {
            Ok(0) => {
                self.error = None;
                self.said.end(&mut |line| shown.push(line.into()));
            }
            Ok(n) => {
                self.said.hear(&self.buffer[..n], &mut |line| shown.push(line.into()));
                self.active = Instant::now();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(failed(&format!("its standard error cannot be read: {e}"))),
        }
        Ok(())
    }

    /// Whether the process has ended, and how.
    fn look(&mut self) -> Result<Option<End>, Failed> {
        if self.end.is_some() {
            return Ok(self.end);
        }
        // The supervisor stays while anything is left that the process began.
        let gone = self.is_over(Duration::ZERO);
        if gone || self.asked.elapsed() > LOOK {
            self.asked = Instant::now();
            match Told::read(&self.plan) {
                Some(Told::Ended(end)) => self.end = Some(end),
                Some(Told::NoSandbox(why)) => {
                    let advice = self.advice;
                    return Err(self.failure(format!("it was not begun, for there is no sandbox: {why}{advice}")));
                }
                None if gone => return Err(self.failure("its supervisor was killed".into())),
                None => {}
            }
        }
        Ok(self.end)
    }

    /// Whether nothing is left of the process, after so long at the most.
    fn is_over(&self, wait: Duration) -> bool {
        poll(&[(Who::End, self.ended.as_fd(), PollFlags::IN)], wait).is_ok_and(|ready| !ready.is_empty())
    }

    /// What its end means. What it still has to say is heard first.
    fn outcome(&mut self, end: End) -> Result<(), Failed> {
        let what = match end {
            End::Code(0) => return Ok(()),
            End::Code(_) if !self.codes_count => return Ok(()),
            // As shells tell of a signal.
            End::Code(code) if code == 128 + Signal::XCPU.as_raw() || code == 128 + Signal::XFSZ.as_raw() => {
                return self.outcome(End::Signal(code - 128));
            }
            End::Code(code) => format!("it exited with code {code}"),
            End::NotBegun(error) => {
                let advice = if error == Errno::ACCESS.raw_os_error() { self.advice } else { "" };
                not_begun(&self.program, &io::Error::from_raw_os_error(error)) + advice
            }
            End::Signal(signal) if signal == Signal::XCPU.as_raw() => {
                let seconds = self.limits.cpu.unwrap_or_default();
                format!("it used {seconds} s of a core, which is all that a process may use (--task-cpu)")
            }
            End::Signal(signal) if signal == Signal::XFSZ.as_raw() => {
                let most = Size(self.limits.scratch);
                format!("it wrote a file of {most}, which is all that a task may write (--task-scratch)")
            }
            End::Signal(signal) => format!("it was ended by signal {signal}{}", called(signal)),
            End::Over(Bound::Memory, used) => {
                let (used, most) = (Size(used), Size(self.limits.memory));
                format!("it was killed, for it used {used} of memory and may use {most} (--task-memory)")
            }
            End::Over(Bound::Scratch, used) => {
                let (used, most) = (Size(used), Size(self.limits.scratch));
                format!("it was killed, for {used} were in its folder, where {most} may be (--task-scratch)")
            }
            End::Over(Bound::Processes, used) => {
                format!("it was killed, for it had {used} processes and threads, as many as it may (--task-processes)")
            }
        };
        Err(self.failure(what))
    }

    /// A failure with the process's last words.
    fn failure(&mut self, what: String) -> Failed {
        self.kill();
        let shown = &mut self.shown;
        // What nobody ends might write for ever.
        let mut rounds = 0..READS;
        while rounds.next().is_some()
            && let Some(pipe) = &self.error
            && let Ok(n @ 1..) = rustix::io::read(pipe, &mut self.buffer[..])
        {
            self.said.hear(&self.buffer[..n], &mut |line| shown.push(line.into()));
        }
        self.said.end(&mut |line| shown.push(line.into()));
        let status = self.said.status.take().map_or(String::new(), |status| format!(" (its last status: {status})"));
        let words: Vec<String> = self.said.words.drain(..).collect();
        let advice = if words.iter().any(|line| is_refusal(line)) { self.advice } else { "" };
        Failed { what: what + &status + advice, words }
    }

    fn be_patient(&mut self) -> Result<(), Failed> {
        match self.patience {
            Some(patience) if self.active.elapsed() > patience => {
                let seconds = patience.as_secs_f64();
                let what = format!("it neither read nor wrote nor said anything for {seconds} s and was killed");
                Err(self.failure(what))
            }
            _ => Ok(()),
        }
    }

    /// Lines for people that came since this was last asked.
    pub(crate) fn shown(&mut self) -> std::vec::Drain<'_, String> {
        self.shown.drain(..)
    }

    /// Whether the code has ended well.
    ///
    /// # Errors
    /// When it has ended otherwise.
    pub(crate) fn has_ended(&mut self) -> Result<bool, Failed> {
        match self.look()? {
            Some(end) => self.outcome(end).map(|()| true),
            None => Ok(false),
        }
    }

    /// Takes what is left of what it wrote, without waiting.
    pub(crate) fn drain(&mut self, out: &mut Vec<u8>) {
        let mut before = usize::MAX;
        while self.output.is_some() && before != out.len() {
            before = out.len();
            if self.take(out).is_err() {
                return;
            }
        }
    }

    /// Hears what was said up to now, without waiting for more; a line without an end ends here.
    pub(crate) fn settle(&mut self) {
        let mut rounds = 0..READS;
        while rounds.next().is_some()
            && let Some(pipe) = &self.error
            && rustix::io::ioctl_fionread(pipe).is_ok_and(|n| n > 0)
            && self.hear().is_ok()
        {}
        let shown = &mut self.shown;
        self.said.end(&mut |line| shown.push(line.into()));
    }

    /// Another attempt begins: what was said before is no part of it, and time in which nothing was to be done does not count.
    pub(crate) fn begin_attempt(&mut self) {
        self.said.forget();
        (self.active, self.left) = (Instant::now(), None);
    }

    /// What the code counted since the attempt began, by its standard error.
    pub(crate) fn counters(&mut self) -> Counters {
        std::mem::take(&mut self.said.counters)
    }

    /// A failure that the code told of, with `words` after its own.
    pub(crate) fn failed(&mut self, what: String, words: Vec<String>) -> Failed {
        let mut failed = self.failure(what);
        failed.words.extend(words);
        failed
    }

    /// Ends the process and all that came of it.
    fn kill(&mut self) {
        if !self.is_over(Duration::ZERO) {
            let supervisor = Pid::from_child(&self.supervisor);
            let _ = rustix::process::kill_process(supervisor, Signal::TERM);
            if !self.is_over(END) {
                let _ = self.supervisor.kill();
            }
        }
    }
}

impl Process {
    /// As [`Session::exchange`].
    pub(crate) fn exchange(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Failed> {
        self.enter();
        let taken = self.step(input, out)?;
        self.left = Some(Instant::now());
        Ok(taken)
    }

    /// As [`Session::so_far`].
    pub(crate) fn so_far(&self) -> (&Counters, Option<&str>) {
        (&self.said.counters, self.said.status.as_deref())
    }

    /// As [`Session::finish`].
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Counters>, Failed> {
        self.enter();
        let mut end = self.look()?;
        if let Some(pipe) = self.input.take() {
            // Of one that still runs nobody can tell once its input is closed: it is taken to read everything.
            self.unread = if end.is_some() { rustix::io::ioctl_fionread(&pipe).unwrap_or(0) } else { 0 };
            self.active = Instant::now();
        }
        if self.output.is_some() || self.error.is_some() || end.is_none() {
            self.step(&[], out)?;
            end = self.look()?;
        }
        // What it left behind may still write output, as long as anything may go on. Words are waited for a little.
        let silent = self.output.is_none() && (self.error.is_none() || self.active.elapsed() > LINGER);
        match end {
            Some(end) if silent => {
                // What it left behind may have passed a bound since.
                let end = match Told::read(&self.plan) {
                    Some(Told::Ended(over @ End::Over(..))) => over,
                    _ => end,
                };
                self.outcome(end)?;
                return Ok(Some(std::mem::take(&mut self.said.counters)));
            }
            _ => {}
        }
        self.left = Some(Instant::now());
        Ok(None)
    }

    /// As [`Session::unread`].
    pub(crate) fn unread(&self) -> u64 {
        match &self.input {
            Some(pipe) => rustix::io::ioctl_fionread(pipe).unwrap_or(self.unread),
            None => self.unread,
        }
    }
}

/// A process at one attempt, whose words are told as they come. Its folder goes after it.
pub(crate) struct Attending<'a> {
    pub(crate) process: Process,
    pub(crate) _folder: Folder,
    /// What its words are told under, and whom.
    pub(crate) name: String,
    pub(crate) observer: &'a dyn Observer,
}

impl Attending<'_> {
    fn attend<T>(&mut self, step: impl FnOnce(&mut Process) -> T) -> T {
        let done = step(&mut self.process);
        self.process.shown.drain(..).for_each(|line| self.observer.log(&self.name, &line));
        done
    }
}

impl Session for Attending<'_> {
    fn exchange(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Failed> {
        self.attend(|process| process.exchange(input, out))
    }
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Counters>, Failed> {
        self.attend(|process| process.finish(out))
    }
    fn so_far(&self) -> Option<(&Counters, Option<&str>)> {
        Some(self.process.so_far())
    }
    fn unread(&self) -> u64 {
        self.process.unread()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.supervisor.wait();
        for path in [Told::path(&self.plan), self.plan.clone()] {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[derive(Clone, Copy)]
enum Who {
    Input,
    Output,
    Error,
    End,
}

/// Waits until one of them is ready, or for so long.
fn poll(fds: &[(Who, BorrowedFd<'_>, PollFlags)], wait: Duration) -> io::Result<Vec<Who>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|(_, fd, flags)| PollFd::new(fd, *flags)).collect();
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
    match rustix::event::poll(&mut polled, Some(&wait)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    }
    let ready = polled.iter().zip(fds).filter(|(polled, _)| !polled.revents().is_empty());
    Ok(ready.map(|(_, (who, ..))| *who).collect())
}

/// Whether a line is about something that was refused.
fn is_refusal(line: &str) -> bool {
    ["Permission denied", "Operation not permitted"].iter().any(|refusal| line.contains(refusal))
}

fn failed(what: &str) -> Failed {
    Failed { what: what.into(), words: Vec::new() }
}

fn not_begun(program: &str, e: &io::Error) -> String {
    let advice = match e.kind() {
        io::ErrorKind::NotFound => {
            "; there is no such program in PATH or among the job's files (-file FILE ships one), or what its first line names \
             is not there"
        }
        io::ErrorKind::PermissionDenied => "; make it executable",
        _ if e.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            "; it begins with no '#!' line: name its interpreter, as in 'python3 FILE'"
        }
        _ => "",
    };
    format!("'{program}' cannot be begun: {e}{advice}")
}

fn called(signal: i32) -> &'static str {
    match signal {
        6 => " (SIGABRT)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}
