//! What is told of a cluster's jobs, while they run and afterwards: events, reports, logs of tasks, bad records. Nodes are
//! processes of the program that has the app that misbehaves.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::Process;
use crate::program::{Ended, Folder, ended, until};

/// A process with nodes, and how to ask it.
struct Node {
    process: Process,
    address: String,
    program: Program,
}

/// The program with arguments that a space divides.
type Program = fn(&Folder, &str) -> Command;

impl Node {
    /// Runs `faulty` with these arguments until it says that it is ready, and where.
    fn start(folder: &Folder, name: &str, arguments: &str) -> Self {
        Self::start_of(Folder::faulty, folder, name, arguments)
    }

    fn start_of(program: Program, folder: &Folder, name: &str, arguments: &str) -> Self {
        let users = if arguments.starts_with("worker") { "" } else { " --no-login" };
        let command = program(folder, &format!("{arguments}{users} --store store --data {name} --listen 127.0.0.1:0"));
        let mut process = Process::of(command, folder.path().join(format!("{name}.log")));
        let address = process.ready();
        Self { process, address, program }
    }

    fn serve(folder: &Folder) -> Self {
        Self::start(folder, "data", "serve")
    }

    fn ask(&self, folder: &Folder, arguments: &[&str]) -> Ended {
        ended((self.program)(folder, "").args(arguments).args(["--at", &self.address]).output().unwrap())
    }

    /// Asks what must be answered.
    fn told(&self, folder: &Folder, arguments: &str) -> String {
        let ended = self.ask(folder, &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(ended.code, Some(0), "{arguments}: {ended:?}");
        ended.out
    }

    fn json(&self, folder: &Folder, arguments: &str) -> Value {
        serde_json::from_str(&self.told(folder, &format!("{arguments} -o json"))).unwrap()
    }

    /// The newest job.
    fn job(&self, folder: &Folder) -> String {
        self.told(folder, "jobs -o name").lines().next().unwrap().to_string()
    }
}

fn kinds(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

/// Until a job is archived only the state knows it; then only the store does.
fn archived(folder: &Folder) {
    until("all jobs to be archived", || {
        let home = fs::read_dir(folder.path().join("store/.gristmill")).unwrap().next().unwrap().unwrap().path();
        let names = fs::read_dir(home).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).all(|name| name == "history" || name == "logs")
    });
}

#[test]
fn what_happened_to_a_job_is_told_after_a_restart_as_before() {
    let folder = Folder::new();
    folder.file("store/in/a.txt", "rye\ncorn\nrye\n");
    folder.file("store/in/b.txt", "corn\n");
    let mut node = Node::serve(&folder);
    let done = node.ask(&folder, &["submit", "faulty", "in/", "-o", "out", "--reducers", "2"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let job = node.job(&folder);
    archived(&folder);
    let events = node.json(&folder, &format!("job events {job}"));
    let all = ["submitted", "planned", "given", "done", "given", "given", "done", "done", "committed", "completed"];
    let mut told = kinds(&events);
    assert_eq!((told[..4].to_vec(), told[8..].to_vec()), (all[..4].to_vec(), all[8..].to_vec()), "{events}");
    told.sort_unstable();
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    assert_eq!(told, sorted);
    let done = &events[3];
    assert_eq!((done["task"].as_str(), done["input_bytes"].as_u64()), (Some("map 0"), Some(18)), "{done}");
    assert!(done["given_ms"].as_u64() > Some(0) && done["given_ms"].as_u64() <= done["time_ms"].as_u64(), "{done}");
    let (table, report) =
        (node.told(&folder, &format!("job events {job}")), node.told(&folder, &format!("job report {job}")));
    assert!(table.starts_with("AFTER    EVENT") && table.contains("map 0 given out"), "{table}");
    for said in ["completed after", "map     1     1", "reduce  2     2", "2 records", "lines", "SLOWEST"] {
        assert!(report.contains(said), "{said}: {report}");
    }
    node.process.kill();
    let node = Node::serve(&folder);
    until("the node to lead", || node.ask(&folder, &["job", "show", &job]).code == Some(0));
    assert_eq!(node.json(&folder, &format!("job events {job}")), events);
    assert_eq!(node.told(&folder, &format!("job report {job}")), report);
    let shown = node.told(&folder, &format!("job show {job}"));
    assert!(shown.contains("lines=4"), "{shown}");
    let none = node.ask(&folder, &["job", "events", "0000000000000001-7"]);
    assert!(none.code == Some(1) && none.err.contains("there is no job"), "{none:?}");
}

/// The app panics on one line of one input: the job fails after four attempts, and each says why.
#[test]
fn a_poisoned_input_fails_the_job_with_its_name_and_the_reason_of_each_attempt() {
    let folder = Folder::new();
    folder.file("store/in/good.txt", "rye\n");
    folder.file("store/in/poison.txt", "corn\npanic-in-map\n");
    let node = Node::serve(&folder);
    let done = node.ask(&folder, &["submit", "faulty", "in/poison.txt", "-o", "out"]);
    let place = "the app panicked in map (in/poison.txt after byte 0)";
    assert!(done.code == Some(3) && done.err.contains(place) && done.err.contains("failed 4 times"), "{done:?}");
    let job = node.job(&folder);
    let events = node.json(&folder, &format!("job events {job}"));
    let failed: Vec<&Value> = events.as_array().unwrap().iter().filter(|event| event["kind"] == "failed").collect();
    assert_eq!(failed.len(), 4, "{events}");
    assert!(failed.iter().all(|event| event["detail"].as_str().unwrap().contains(place)), "{events}");
    let report = node.json(&folder, &format!("job report {job}"));
    assert_eq!((&report["stages"][0]["failed"], report["failures"].as_array().unwrap().len()), (&Value::from(4), 4));
}

#[test]
fn what_tasks_said_is_there_when_their_worker_is_not() {
    let folder = Folder::new();
    folder.file("store/in/a.txt", "corn\npanic-in-map\n");
    folder.file("store/in/b.txt", "slow\n".repeat(200));
    let master = Node::start(&folder, "m", "master");
    let mut worker = Node::start(&folder, "w", &format!("worker --masters {} --name ann --slots 1", master.address));
    let submit = ["submit", "faulty", "in/a.txt", "-o", "out", "--max-attempts", "2"];
    assert_eq!(master.ask(&folder, &submit).code, Some(3));
    let job = master.job(&folder);
    worker.process.kill();
    archived(&folder);
    let logs = master.told(&folder, &format!("job logs {job}"));
    let lines: Vec<&str> = logs.lines().collect();
    assert_eq!(lines.len(), 2, "{logs}");
    for line in lines {
        assert!(
            line.starts_with("map 0 [") && line.contains(" on ann] failed: the app panicked in map (in/a.txt"),
            "{line}"
        );
    }
    for (task, expected) in [("map 0", 2), ("map 1", 0), ("reduce 0", 0), ("survey", 0)] {
        let of_task = master.ask(&folder, &["job", "logs", &job, "--task", task, "--follow", "-o", "json"]);
        assert_eq!((of_task.code, of_task.out.lines().count()), (Some(0), expected), "{task}: {of_task:?}");
    }
    let bad = master.ask(&folder, &["job", "logs", &job, "--task", "shuffle"]);
    assert!(bad.code == Some(1) && bad.err.contains("no task is called"), "{bad:?}");
}

/// The parts of an output, and what lies beside them.
fn files(output: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(output).unwrap().map(|e| e.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => {
                all.extend(files(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)))
            }
            false => all.push((name, fs::read(entry.path()).unwrap())),
        }
    }
    all.sort();
    all.retain(|(name, _)| name != "_SUCCESS");
    all
}

/// Several map tasks, with bad records in most of them: what is kept, counted and failed for is what a local run has.
#[test]
fn bad_records_are_passed_over_and_failed_for_as_by_a_local_run() {
    let folder = Folder::new();
    for file in 0..3 {
        let line = |n: usize| if n % 70_000 == 30_000 + file { "bad-record\n".into() } else { format!("line {n}\n") };
        folder.file(&format!("store/in/{file}.txt"), (0..150_000).map(line).collect::<String>());
    }
    let node = Node::serve(&folder);
    let local = |skip: &str| {
        let arguments = format!("run faulty in/ -o ../ref/{skip} --reducers 2 -q --skip-bad-records {skip}");
        ended(folder.faulty(&arguments).current_dir(folder.path().join("store")).output().unwrap())
    };
    let submit = |skip: &str| {
        let output = format!("out/{skip}");
        let sizes = ["--reducers", "2", "--map-task-size", "1MiB", "--skip-bad-records", skip];
        node.ask(&folder, &[&["submit", "faulty", "in/", "-o", &output][..], &sizes].concat())
    };
    for skip in ["0", "1", "4", "5"] {
        let (want, got) = (local(skip), submit(skip));
        assert_eq!((want.code, got.code), (Some(3), Some(3)), "{want:?} {got:?}");
        let error = want.err.lines().find(|line| line.contains("bad record in")).unwrap();
        assert!(got.err.contains(error.trim_start_matches("faulty: ")), "{skip}: {} for {error}", got.err);
        let shown = node.json(&folder, &format!("job show {}", node.job(&folder)));
        assert_eq!(shown["error"]["reason"], "bad_record");
    }
    let (want, got) = (local("6"), submit("6"));
    assert_eq!((want.code, got.code), (Some(0), Some(0)), "{want:?} {got:?}");
    let [want, got] = ["ref/6", "store/out/6"].map(|output| files(&folder.path().join(output)));
    assert!(want.iter().any(|(name, _)| name == "_bad/records.jsonl"));
    assert!(want == got, "the output differs from that of a local run");
    let success: Value = serde_json::from_str(&folder.read("store/out/6/_SUCCESS")).unwrap();
    assert_eq!(success["bad_records"], 6);
    let shown = node.json(&folder, &format!("job show {}", node.job(&folder)));
    assert_eq!((&shown["bad_records"], &shown["counters"]["lines"]), (&Value::from(6), &Value::from(450_000)));
}

/// The second job reads what the first one made. Of a chain that fails, what is left can be submitted again.
#[test]
fn a_job_follows_another() {
    let folder = Folder::new();
    folder.file("store/in/a.txt", "rye\ncorn\nrye\n");
    folder.file("store/in/poison.txt", "panic-in-map\n");
    let node = Node::serve(&folder);
    let then = ["--then", "faulty -o 'out/2'", "--then", "faulty --reducers 2 -o out/3"];
    let done = node.ask(&folder, &[&["submit", "faulty", "in/a.txt", "-o", "out/1"][..], &then].concat());
    assert!(done.code == Some(0) && done.err.matches(" follows").count() == 2, "{done:?}");
    assert_eq!(folder.out("cat store/out/2"), "corn\t1\t1\nrye\t2\t1\n");
    assert_eq!(folder.out("cat store/out/3").lines().count(), 2);
    let then = ["--then", "faulty -o late/2", "--max-attempts", "1"];
    let submit = [&["submit", "faulty", "in/", "-o", "late/1"][..], &then].concat();
    let failed = node.ask(&folder, &submit);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(!folder.path().join("store/late").exists(), "neither has an output");
    let job = node.job(&folder);
    fs::write(folder.path().join("store/in/poison.txt"), "oats\n").unwrap();
    let again = node.told(&folder, &format!("job retry {job}"));
    let watched = node.ask(&folder, &["job", "watch", again.trim()]);
    assert!(watched.code == Some(0) && watched.err.contains(" follows"), "{watched:?}");
    assert_eq!(folder.out("cat store/late/2"), "corn\t1\t1\noats\t1\t1\nrye\t2\t1\n");
    for (then, why) in [
        ("faulty", "required"),
        ("faulty -o x --detach", "stand outside of --then"),
        ("nothing -o x", "nothing"),
        ("faulty -o 'x", "a quote is not closed"),
    ] {
        let refused = node.ask(&folder, &["submit", "faulty", "in/", "-o", "y", "--then", then]);
        assert!(refused.code == Some(2) && refused.err.contains(why), "{then}: {refused:?}");
    }
}

/// By the program's own apps: one that groups, one that sorts, one that folds.
#[test]
fn two_halves_give_what_the_whole_gives() {
    let folder = Folder::new();
    for file in 0..3 {
        let line = |n: usize| format!("{} {}\n", n * 31 % 977, "rye corn oats".split(' ').nth((n + file) % 3).unwrap());
        folder.file(&format!("store/in/{file}.txt"), (0..200_000).map(line).collect::<String>());
    }
    let node = Node::start_of(Folder::gristmill, &folder, "data", "serve");
    for (n, app) in ["index", "sort --key 1-3", "wordcount"].into_iter().enumerate() {
        let words: Vec<&str> = app.split(' ').collect();
        let mapped = format!("mapped/{n}");
        let sizes = ["--phase", "map", "-o", &mapped, "--reducers", "3", "--map-task-size", "1MiB", "in/"];
        let map = node.ask(&folder, &[&["submit"], &words[..], &sizes].concat());
        assert_eq!(map.code, Some(0), "{app}: {map:?}");
        let (from, output) = (format!("{mapped}/"), format!("out/{n}"));
        let reduce = ["--phase", "reduce", "-o", &output, &from];
        let reduce = node.ask(&folder, &[&["submit"], &words[..], &reduce].concat());
        assert_eq!(reduce.code, Some(0), "{app}: {reduce:?}");
        let local = format!("run {app} in/ --reducers 3 -q -o ../ref/{n}");
        let local = ended(folder.gristmill(&local).current_dir(folder.path().join("store")).output().unwrap());
        assert_eq!(local.code, Some(0), "{local:?}");
        let [want, got] =
            [format!("ref/{n}"), format!("store/out/{n}")].map(|output| files(&folder.path().join(output)));
        assert!(want == got, "{app}: the halves differ from the whole");
    }
    let cat = folder.run("cat store/mapped/0");
    assert!(cat.code == Some(1) && cat.err.contains("segments of a job of phase map"), "{cat:?}");
    for (of, why) in [
        ("submit top mapped/0/ -o no --phase reduce", "was mapped by \"index\""),
        ("submit index out/0/ -o no --phase reduce", "is the output of a whole job"),
        ("submit index in/ -o no --phase reduce", "has no _SUCCESS"),
        ("submit index mapped/0/ -o no --phase reduce --reducers 4", "is divided into 3 parts, not 4"),
    ] {
        let refused = node.ask(&folder, &of.split(' ').collect::<Vec<_>>());
        assert!(refused.code == Some(3) && refused.err.contains(why), "{of}: {refused:?}");
    }
}
