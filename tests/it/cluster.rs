//! A cluster as its users meet it: nodes are processes on this machine, jobs are submitted by the command line, and what
//! they leave is what `run` leaves.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::program::{Folder, until};

/// Longest wait for a node to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process with a node; it ends with the test, whatever comes of it.
pub(crate) struct Node {
    child: Child,
    pub(crate) address: String,
    said: Receiver<String>,
}

impl Node {
    /// Runs the program with these arguments until it says that it is ready, and where.
    pub(crate) fn start(folder: &Folder, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same with these environment variables.
    pub(crate) fn start_with(folder: &Folder, arguments: &[&str], variables: &[(String, String)]) -> Self {
        let mut child = folder
            .command(env!("CARGO_BIN_EXE_gristmill"))
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
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

/// Runs the program over the store's files where they lie: names of inputs are part of what some apps write.
fn run_local(folder: &Folder, arguments: &str) {
    let done = folder.gristmill(arguments).current_dir(folder.path().join("store")).output().unwrap();
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
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
const APPS: [&str; 10] = [
    "wordcount",
    "wordcount --ignore-case --input-format lines",
    "grep gr[a-z]+s --lines",
    "sort --key 1-3",
    "index",
    "index --ids",
    "reverse-links",
    "term-vector",
    "top --k 5",
    "distinct --count",
];

#[test]
fn every_app_gives_the_bytes_of_a_local_run() {
    let folder = Folder::new();
    texts(&folder, 80_000);
    let node = Node::start(&folder, &["serve", "--data", "data", "--store", "store", "--listen", "127.0.0.1:0"]);
    for (n, app) in APPS.iter().enumerate() {
        // It keeps the best of all, in one part.
        let reducers = if app.starts_with("top") { 1 } else { 3 };
        let rest = format!("books/ --reducers {reducers} --map-task-size 1MiB --at {} -o out/{n}", node.address);
        let done = folder.run(&format!("submit {app} {rest}"));
        assert_eq!(done.code, Some(0), "{app}: {}", done.err);
        run_local(&folder, &format!("run {app} books/ --reducers {reducers} -q -o ../ref/{n}"));
        let (got, want) =
            (parts(&folder.path().join(format!("store/out/{n}"))), parts(&folder.path().join(format!("ref/{n}"))));
        assert_eq!(want.iter().filter(|(name, _)| name.starts_with("part-")).count(), reducers);
        assert!(got == want, "{app} differs from its local run");
    }
    let jobs = folder.out(&format!("jobs --at {} -o name", node.address));
    assert_eq!(jobs.lines().count(), APPS.len());
}

#[test]
fn what_cannot_be_is_said_and_what_was_asked_twice_is_done_once() {
    let folder = Folder::new();
    texts(&folder, 10);
    let node = Node::start(&folder, &["serve", "--data", "data", "--store", "store", "--listen", "127.0.0.1:0"]);
    let ask = |arguments: &str| folder.run(&format!("{arguments} --at {}", node.address));
    let done = ask("submit wordcount nothing/ -o out/a");
    assert!(done.code == Some(3) && done.err.contains("no object in the store is called nothing/"), "{done:?}");
    let done = ask("submit grep a( books/ -o out/b");
    assert!(done.code == Some(2) && done.err.contains("a("), "{done:?}");
    let submit = "submit wordcount books/ -o out/c --key k --detach";
    let (first, again) = (ask(submit), ask(submit));
    assert_eq!((first.code, &first.out), (Some(0), &again.out));
    let done = ask("submit wordcount books/0.txt -o out/d --key k --detach");
    assert!(done.code == Some(1) && done.err.contains("the key was used for another job"), "{done:?}");
    let done = ask(&format!("job watch {}", first.out.trim()));
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = ask("submit wordcount books/ -o out/c");
    assert!(done.code == Some(3) && done.err.contains("exists"), "{done:?}");
    let done = ask("submit wordcount books/0.txt -o out/c --overwrite");
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = ask("job show 0000000000000001-7");
    assert!(done.code == Some(1) && done.err.contains("there is no job"), "{done:?}");
    // Nothing is left but outputs and histories.
    until("all jobs to be archived", || {
        let clusters = fs::read_dir(folder.path().join("store/.gristmill")).unwrap();
        let left = clusters.flat_map(|cluster| fs::read_dir(cluster.unwrap().path()).unwrap());
        left.map(|e| e.unwrap().file_name()).all(|name| name == "history" || name == ".ended")
    });
}

/// It is archived by then.
#[test]
fn a_failed_job_is_tried_again_once_its_input_is_there() {
    let folder = Folder::new();
    texts(&folder, 10);
    let node = Node::start(&folder, &["serve", "--data", "data", "--store", "store", "--listen", "127.0.0.1:0"]);
    let ask = |arguments: &str| folder.run(&format!("{arguments} --at {}", node.address));
    assert_eq!(ask("submit wordcount late/ -o out").code, Some(3));
    let job = ask("jobs -o name").out.trim().to_string();
    std::thread::sleep(Duration::from_secs(2));
    folder.file("store/late/a.txt", "corn and rye\n");
    let again = ask(&format!("job retry {job}"));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(ask(&format!("job watch {}", again.out.trim())).code, Some(0));
    let shown = ask(&format!("job show -o json {}", again.out.trim()));
    assert!(shown.out.contains(&format!("\"retry_of\":\"{job}\"")), "{shown:?}");
    assert_eq!(folder.out("cat store/out"), "and\t1\ncorn\t1\nrye\t1\n");
    let done = ask(&format!("job retry {}", again.out.trim()));
    assert!(done.code == Some(1) && done.err.contains("neither failed nor been cancelled"), "{done:?}");
}

/// What joins never makes a cluster of its own under the same id.
#[test]
fn a_folder_that_was_to_join_does_not_begin_a_cluster() {
    let folder = Folder::new();
    folder.file("m2/cluster", "00000000000000aa joining\n");
    let done = folder.run("master --data m2 --listen 127.0.0.1:0");
    assert!(done.code == Some(1) && done.err.contains("give --join again"), "{done:?}");
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
    let at = &second.address;
    let job = folder.out(&format!("submit index books/ -o out --reducers 4 --map-task-size 1MiB --detach --at {at}"));
    let job = job.trim();
    let runs = || {
        let shown = folder.run(&format!("job show {job} -o json --at {at}")).out;
        ["mapping", "shuffling", "reducing"].iter().any(|state| shown.contains(&format!("\"state\":\"{state}\"")))
    };
    until("the job to run", runs);
    first.kill();
    until("another master to lead, and the job to run", runs);
    one.kill();
    let done = folder.run(&format!("job watch {job} --at {at}"));
    assert_eq!(done.code, Some(0), "{done:?}");
    run_local(&folder, "run index books/ --reducers 4 -q -o ../ref");
    assert!(parts(&folder.path().join("store/out")) == parts(&folder.path().join("ref")), "another output");
}
