//! A cluster as its users meet it: nodes are processes on this machine, jobs are submitted by the command line, and what
//! they leave is what `run` leaves.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::program::Folder;

/// Longest wait for a node to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process with a node; it ends with the test, whatever comes of it.
struct Node {
    child: Child,
    address: String,
    said: Receiver<String>,
}

impl Node {
    /// Runs the program with these arguments until it says that it is ready, and where.
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gristmill"))
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = child.stderr.take().unwrap();
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                // Of a failed test this is shown.
                println!("{line}");
                let _ = say.send(line);
            }
        });
        let mut node = Self { child, address: String::new(), said };
        node.address = loop {
            let line = node.hears();
            if let Some(at) = line.strip_suffix(" is ready").and_then(|line| line.rsplit_once(" at ")) {
                break at.1.to_string();
            }
        };
        node
    }

    fn hears(&self) -> String {
        self.said.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("the node said nothing: {e}"))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn gristmill(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_gristmill")).args(arguments).current_dir(folder.path()).output();
    let done = done.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// A few texts in a store.
fn texts(folder: &Folder, lines: usize) {
    let words = ["the", "mill", "grinds", "corn", "and", "rye", "<a href=\"x.html\">x</a>", "for", "bread"];
    for file in 0..5 {
        let line = |n: usize| format!("{} {} {n}\n", words[(n * 7 + file) % 9], words[(n * n + 3 * file) % 9]);
        folder.file(&format!("store/books/{file}.txt"), (0..lines).map(line).collect::<String>());
    }
}

/// The parts of an output, and the app's further files.
fn parts(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    all.retain(|path| name(path) != "_SUCCESS");
    all.into_iter().map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

/// Every app, with flags of its own where it has some.
const APPS: [&[&str]; 9] = [
    &["wordcount"],
    &["wordcount", "--ignore-case", "--input-format", "lines"],
    &["grep", "gr[a-z]+s", "--lines"],
    &["sort", "--key", "1-3"],
    &["index"],
    &["index", "--ids"],
    &["reverse-links"],
    &["term-vector"],
    &["distinct", "--count"],
];

#[test]
fn every_app_gives_the_bytes_of_a_local_run() {
    let folder = Folder::new();
    texts(&folder, 80_000);
    let node = Node::start(&folder, &["serve", "--data", "data", "--store", "store", "--listen", "127.0.0.1:0"]);
    for (n, app) in APPS.iter().enumerate() {
        let (out, reference) = (format!("out/{n}"), format!("ref/{n}"));
        let rest = ["--reducers", "3", "--map-task-bytes", "1048576", "--at", &node.address, "-o", &out];
        let submit = [&["submit"][..], app, &["books/"], &rest].concat();
        let (code, _, err) = gristmill(&folder, &submit);
        assert_eq!(code, Some(0), "{app:?}: {err}");
        // Names of inputs are part of what some apps write: run where they are called the same.
        let beside = format!("../{reference}");
        let run = [&["run"][..], app, &["books/", "--reducers", "3", "-q", "-o", &beside]].concat();
        let done = Command::new(env!("CARGO_BIN_EXE_gristmill"))
            .args(&run)
            .current_dir(folder.path().join("store"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{app:?}: {}", String::from_utf8_lossy(&done.stderr));
        let (got, want) = (parts(&folder.path().join("store").join(&out)), parts(&folder.path().join(reference)));
        assert_eq!(want.iter().filter(|(name, _)| name.starts_with("part-")).count(), 3);
        assert!(got == want, "{app:?} differs from its local run");
    }
    let (_, jobs, _) = gristmill(&folder, &["jobs", "--at", &node.address, "-o", "name"]);
    assert_eq!(jobs.lines().count(), APPS.len());
}

#[test]
fn what_cannot_be_is_said_and_what_was_asked_twice_is_done_once() {
    let folder = Folder::new();
    texts(&folder, 10);
    let node = Node::start(&folder, &["serve", "--data", "data", "--store", "store", "--listen", "127.0.0.1:0"]);
    let ask = |arguments: &[&str]| gristmill(&folder, &[arguments, &["--at", &node.address]].concat());
    let (code, _, err) = ask(&["submit", "wordcount", "nothing/", "-o", "out/a"]);
    assert!(code == Some(3) && err.contains("no object in the store is called nothing/"), "{code:?}: {err}");
    let (code, _, err) = ask(&["submit", "grep", "a(", "books/", "-o", "out/b"]);
    assert!(code == Some(2) && err.contains("a("), "{code:?}: {err}");
    let submit = ["submit", "wordcount", "books/", "-o", "out/c", "--key", "k", "--detach"];
    let (first, again) = (ask(&submit), ask(&submit));
    assert_eq!((first.0, &first.1), (Some(0), &again.1));
    let other = ["submit", "wordcount", "books/0.txt", "-o", "out/d", "--key", "k", "--detach"];
    let (code, _, err) = ask(&other);
    assert!(code == Some(1) && err.contains("key"), "{code:?}: {err}");
    let (code, _, err) = ask(&["job", "watch", first.1.trim()]);
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = ask(&["submit", "wordcount", "books/", "-o", "out/c"]);
    assert!(code == Some(3) && err.contains("exists"), "{code:?}: {err}");
    let (code, _, err) = ask(&["submit", "wordcount", "books/0.txt", "-o", "out/c", "--overwrite"]);
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = ask(&["job", "show", "0000000000000001-7"]);
    assert!(code == Some(1) && err.contains("there is no job"), "{code:?}: {err}");
    // Nothing is left but outputs and histories.
    let left = fs::read_dir(folder.path().join("store/.gristmill")).unwrap().map(|e| e.unwrap().path());
    for cluster in left {
        let names: Vec<_> = fs::read_dir(cluster).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "history" || name == ".ended"), "{names:?}");
    }
}

/// Three masters, two workers: the leader and a worker are killed while a job runs.
#[test]
fn a_job_outlives_its_leader_and_a_worker() {
    let folder = Folder::new();
    texts(&folder, 250_000);
    let master = |name: &str, join: Option<&str>| {
        let mut arguments = vec!["master", "--data", name, "--store", "store", "--listen", "127.0.0.1:0"];
        arguments.extend(join.into_iter().flat_map(|at| ["--join", at]));
        Node::start(&folder, &arguments)
    };
    let mut first = master("m1", None);
    let (second, third) = (master("m2", Some(&first.address)), master("m3", Some(&first.address)));
    let all = [&first, &second, &third].map(|node| node.address.clone()).join(",");
    let worker = |name: &str| {
        let rest = ["--store", "store", "--masters", &all, "--name", name, "--slots", "1"];
        Node::start(&folder, &[&["worker", "--data", name][..], &rest].concat())
    };
    let (mut one, _two) = (worker("w1"), worker("w2"));
    let at = second.address.clone();
    let tasks = ["--reducers", "4", "--map-task-bytes", "1048576"];
    let submit = [&["submit", "index", "books/", "-o", "out", "--detach", "--at", &at][..], &tasks].concat();
    let (code, job, err) = gristmill(&folder, &submit);
    assert_eq!(code, Some(0), "{err}");
    std::thread::sleep(Duration::from_millis(300));
    first.kill();
    std::thread::sleep(Duration::from_millis(300));
    one.kill();
    let (code, _, err) = gristmill(&folder, &["job", "watch", job.trim(), "--at", &at]);
    assert_eq!(code, Some(0), "{err}");
    let run = ["run", "index", "books/", "--reducers", "4", "-q", "-o", "../ref"];
    let mut local = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    assert!(local.args(run).current_dir(folder.path().join("store")).status().unwrap().success());
    assert!(parts(&folder.path().join("store/out")) == parts(&folder.path().join("ref")), "another output");
}
