//! Runs the program in a folder of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A text.
pub(crate) const TEXT: &str = "the cat and the dog\nthe end\n";
/// What `wordcount` makes of it.
pub(crate) const COUNTS: &str = "and\t1\ncat\t1\ndog\t1\nend\t1\nthe\t3\n";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program: the one that was built with the tests, or for a measurement another that the environment names.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("GRISTMILL_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_gristmill").into(), PathBuf::from)
}

/// A folder that is gone after the test; programs run in it.
pub(crate) struct Folder(tempfile::TempDir);

/// What came of a program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// Everything in a folder, hidden or not.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path().join(folder)).unwrap();
        let mut all: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        all.sort();
        all
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).stdin(Stdio::null()).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
        // Whoever runs the tests may be logged in somewhere.
        command.env("GRISTMILL_CREDENTIALS", self.path().join("credentials.json")).env_remove("GRISTMILL_TOKEN");
        command
    }

    /// Runs `gristmill` with arguments that a space divides.
    pub(crate) fn run(&self, args: &str) -> Ended {
        ended(self.gristmill(args).output().unwrap())
    }

    pub(crate) fn gristmill(&self, args: &str) -> Command {
        let mut command = self.command(program());
        command.args(args.split_whitespace());
        command
    }

    /// The app that misbehaves.
    pub(crate) fn faulty(&self, args: &str) -> Command {
        let beside = Path::new(env!("CARGO_BIN_EXE_gristmill")).with_file_name("examples/faulty");
        assert!(beside.exists(), "cargo builds it for all tests, or by itself with: cargo build --example faulty");
        let mut command = self.command(beside);
        command.args(args.split_whitespace());
        command
    }

    /// Runs `gristmill`, which must succeed, and returns what it printed.
    pub(crate) fn out(&self, args: &str) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{args}: {ended:?}");
        ended.out
    }

    /// Runs `gristmill` with standard input.
    pub(crate) fn fed(&self, args: &str, input: impl AsRef<[u8]>) -> Ended {
        let mut running = Running::start(self.gristmill(args));
        running.feed(input);
        running.wait()
    }

    /// Starts `gristmill` with a standard input that stays open.
    pub(crate) fn start(&self, args: &str) -> Running {
        Running::start(self.gristmill(args))
    }

    /// Names of hidden folders in which an output `out` is being made.
    pub(crate) fn hidden(&self) -> Vec<String> {
        self.names(".").into_iter().filter(|name| name.starts_with(".out.gristmill-")).collect()
    }
}

/// A program that runs, with its standard input open.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    /// A program that was started otherwise.
    pub(crate) fn adopt(child: Child) -> Self {
        Self { child, stdin: None }
    }

    pub(crate) fn feed(&mut self, input: impl AsRef<[u8]>) {
        // It may have failed and left.
        let _ = self.stdin.as_mut().unwrap().write_all(input.as_ref());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Closes its standard input and waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        self.stdin = None;
        self.wait_unfed()
    }

    /// Waits for its end while its standard input stays open.
    pub(crate) fn wait_unfed(self) -> Ended {
        self.wait_within(PATIENCE).expect("waited in vain for the program to end")
    }

    /// Waits for its end, and kills it after so long.
    pub(crate) fn wait_within(mut self, within: Duration) -> Option<Ended> {
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let (out, err) = (std::thread::spawn(|| read(out)), std::thread::spawn(|| read(err)));
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() >= within => return None,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let code = status.code().or_else(|| status.signal().map(|n| -n));
        Some(Ended { code, out: out.join().unwrap(), err: err.join().unwrap() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // A terminal whose other side is gone is an error, and an end.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for something to happen.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Passwords that tests give, and what tokens, keys and verifiers of passwords look like.
const SECRETS: [&str; 8] = [
    "the first password",
    "the second password",
    "the third password",
    "$argon2",
    "gmr_",
    "gmt_",
    "eyJ0eXAiOiJKV1Qi",
    "PRIVATE KEY",
];

/// Of all that nodes say, and commands say on standard error, in every test: there is no secret in it.
pub(crate) fn tells_no_secret(said: &str) {
    for secret in SECRETS {
        assert!(!said.contains(secret), "a secret was told, {secret}: {said}");
    }
}

pub(crate) fn ended(output: Output) -> Ended {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    tells_no_secret(&text(&output.stderr));
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A terminal: the side that a person sees, and the side that a program has.
pub(crate) fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(person), program)
}

/// What a person sees until the program has gone.
pub(crate) fn seen(person: File) -> String {
    read(Some(person))
}

/// A folder with [`TEXT`] in `in.txt`.
pub(crate) fn folder() -> Folder {
    let folder = Folder::new();
    folder.file("in.txt", TEXT);
    folder
}

/// Many different words, so that parts and runs have something in them.
pub(crate) fn many_words() -> String {
    (0..60_000).map(|n| format!("word{} x{}\n", n % 30_011, n % 7)).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
