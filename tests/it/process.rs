//! A process with a node, which goes on while a test does other things. It ends with the test, whatever comes of it; of a
//! test that failed, the end of what it said on standard error is shown.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Folder, tells_no_secret, until};

/// How much of what it said is shown of a test that failed.
const SHOWN: usize = 6000;

/// A process, and the file that has what it said.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Runs this; what it says goes into this file.
    pub(crate) fn of(mut command: Command, log: PathBuf) -> Self {
        let err = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err).spawn().unwrap();
        Self { child, log }
    }

    /// Runs `gristmill` with these arguments in a folder, beside a log of this name.
    pub(crate) fn start(folder: &Folder, name: &str, arguments: &str) -> Self {
        Self::of(folder.gristmill(arguments), folder.path().join(format!("{name}.log")))
    }

    /// All that it said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has said this.
    pub(crate) fn has_said(&self, what: &str) -> bool {
        self.said().contains(what)
    }

    /// Waits until it has said this.
    pub(crate) fn says(&mut self, what: &str) {
        until(&format!("'{what}'"), || {
            // Looked at in this order: what it said at its end counts.
            let up = self.is_up();
            let said = self.has_said(what);
            assert!(said || up, "it ended without '{what}': {}", self.said());
            said
        });
    }

    /// Waits until the node is ready, and gives its address.
    pub(crate) fn ready(&mut self) -> String {
        self.says(" is ready\n");
        let said = self.said();
        let at = said.lines().find_map(|line| line.strip_suffix(" is ready")?.rsplit_once(" at "));
        at.map(|(_, at)| at.to_string()).unwrap_or_else(|| panic!("ready, but where: {said}"))
    }

    /// Whether it runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = kill_process(self.pid(), signal);
    }

    /// Waits for its end; gives its exit code, or the signal that ended it as a negative number.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        until("a process to end", || !self.is_up());
        let status = self.child.wait().unwrap();
        status.code().or_else(|| status.signal().map(|signal| -signal))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            tells_no_secret(&self.said());
        }
        if std::thread::panicking() {
            let said = self.said();
            let from = (said.len().saturating_sub(SHOWN)..=said.len()).find(|at| said.is_char_boundary(*at));
            eprintln!("--- {}:\n{}", self.log.display(), &said[from.unwrap_or(0)..]);
        }
    }
}
