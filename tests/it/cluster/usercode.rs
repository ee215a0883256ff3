//! Apps that users bring, on a cluster: scripts, Python functions and WebAssembly give what they give on one machine, whatever
//! dies; what the administrator did not allow is refused; what was pushed is found by its name.

use std::time::{Duration, Instant, SystemTime};

use gristmill::cluster::proto::prost::Message as _;
use gristmill::cluster::proto::v1 as api;
use rustix::process::Signal;

use super::nodes::{Cluster, manifest, parts, run_local, texts};
use crate::program::{ended, program};

const MAP: &str = "\
#!/usr/bin/env python3
import os, sys
lines = 0
for line in sys.stdin:
    lines += 1
    for word in line.split():
        print(word + '\\t1')
print('reporter:counter:app,lines,%d' % lines, file=sys.stderr)
print('mapped ' + os.environ['mapreduce_map_input_file'], file=sys.stderr)
";

const REDUCE: &str = "\
#!/usr/bin/env python3
import sys
last, n = None, 0
for line in sys.stdin:
    word, one = line.rstrip('\\n').split('\\t')
    if word != last and last is not None:
        print(last + '\\t' + str(n))
        n = 0
    last = word
    n += int(one)
if last is not None:
    print(last + '\\t' + str(n))
";

const WORDS: &str = "\
def map(key, line):
    for word in line.split():
        yield word, 1
def combine(key, values):
    yield key, sum(values)
def reduce(key, values):
    yield key, sum(values)
";

fn cluster(masters: usize, workers: usize, flags: &'static str) -> Cluster {
    let cluster = Cluster::with(masters, workers, flags);
    texts(&cluster.folder, 20_000);
    for (name, text) in [("map.py", MAP), ("reduce.py", REDUCE), ("words.py", WORDS)] {
        cluster.folder.file(name, text);
        cluster.folder.file(&format!("store/{name}"), text);
    }
    cluster.folder.file("lib/consts.py", "LEAST = 100\n");
    cluster.folder.file("store/lib/consts.py", "LEAST = 100\n");
    let uses = "from lib.consts import LEAST\ndef map(key, line):\n    n = line.rsplit(' ', 1)[1]\n    if int(n) % LEAST == 0: yield n, line\n";
    cluster.folder.file("uses.py", uses);
    cluster.folder.file("store/uses.py", uses);
    cluster
}

/// A module that writes the length of each batch's first line.
fn wasm() -> Vec<u8> {
    let text = r#"(module
        (import "gristmill:app/host@0.1.0" "counter" (func $counter (param i32 i32 i32 i32 i64)))
        (memory (export "memory") 64)
        (global $top (mut i32) (i32.const 4096))
        (data (i32.const 0) "group lines")
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
            (global.set $top (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        ;; Each line is the key of a pair; the value is empty.
        (func (export "map") (param $at i32) (param $len i32) (result i32) (local $to i32) (local $begin i32) (local $n i32) (local $head i32)
            (local.set $begin (i32.const 2097152))
            (local.set $to (local.get $begin))
            (block $end (loop $line
                (br_if $end (i32.le_s (local.get $len) (i32.const 0)))
                (local.set $n (i32.const 0))
                (block $found (loop $more
                    (br_if $found (i32.ge_u (local.get $n) (local.get $len)))
                    (br_if $found (i32.eq (i32.const 10) (i32.load8_u (i32.add (local.get $at) (local.get $n)))))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br $more)))
                (i32.store (local.get $to) (local.get $n))
                (i32.store offset=4 (local.get $to) (i32.const 0))
                (memory.copy (i32.add (local.get $to) (i32.const 8)) (local.get $at) (local.get $n))
                (local.set $to (i32.add (i32.add (local.get $to) (i32.const 8)) (local.get $n)))
                (local.set $at (i32.add (local.get $at) (i32.add (local.get $n) (i32.const 1))))
                (local.set $len (i32.sub (local.get $len) (i32.add (local.get $n) (i32.const 1))))
                (call $counter (i32.const 0) (i32.const 5) (i32.const 6) (i32.const 5) (i64.const 1))
                (br $line)))
            (i32.store (i32.const 1024) (i32.const 0))
            (i32.store (i32.const 1028) (local.get $begin))
            (i32.store (i32.const 1032) (i32.sub (local.get $to) (local.get $begin)))
            (global.set $top (i32.const 4096))
            (i32.const 1024)))"#;
    wat::parse_str(text).unwrap()
}

const JOBS: [&str; 7] = [
    "streaming -input books/ -mapper map.py -reducer reduce.py -file map.py -file reduce.py -numReduceTasks 3",
    "streaming -input books/ -mapper map.py -combiner reduce.py -reducer reduce.py -files map.py,reduce.py#reduce.py -numReduceTasks 2 --compress gzip",
    "streaming -input books/ -mapper cat -reducer NONE -D mapreduce.output.textoutputformat.separator=:",
    "streaming -input books/ -mapper cat -numReduceTasks 4",
    "python words.py books/ --reducers 3",
    "python uses.py books/ --files lib --map-only",
    "wasm lines.wasm books/ --reducers 2",
];

#[test]
fn every_kind_gives_the_bytes_of_a_local_run() {
    let mut cluster = cluster(1, 2, "--processes isolated");
    cluster.folder.file("lines.wasm", wasm());
    cluster.folder.file("store/lines.wasm", wasm());
    cluster.folder.file("store/books/empty.txt", "");
    let output = |what: &str, n: usize, at: &str| match what.starts_with("streaming") {
        true => format!("{what} -output {at}{n}"),
        false => format!("{what} -o {at}{n}"),
    };
    let jobs: Vec<_> = (0..).zip(JOBS).map(|(n, what)| cluster.submit(&output(what, n, "out/"))).collect();
    for (n, (job, what)) in jobs.iter().zip(JOBS).enumerate() {
        run_local(&cluster.folder, &format!("run {} -q", output(what, n, "../ref/")));
        cluster.complete(job);
        let at = |place: &str| cluster.folder.path().join(format!("{place}/{n}"));
        let (got, want) = (at("store/out"), at("ref"));
        assert!(parts(&got) == parts(&want), "{what} differs from its local run");
        assert_eq!(manifest(&got), manifest(&want), "{what}: counters and parts");
    }
    let shown = cluster.ask(&format!("job show {}", jobs[0])).out;
    assert!(shown.contains("app:lines=100000"), "each line is counted once: {shown}");
    let said = cluster.ask(&format!("job logs {}", jobs[0])).out;
    assert!(said.contains("mapped books/0.txt"), "{said}");
    cluster.wait_until_cleared();
}

#[test]
fn attempts_that_die_with_their_worker_leave_nothing_and_count_once() {
    let mut cluster = cluster(3, 3, "--processes isolated");
    // Slow enough for workers to die in the midst of it, and it tells of processes that outlive them.
    let slow = "#!/bin/sh\n(setsid sleep 300 > /dev/null 2>&1 &)\nsleep 1; exec python3 map.py\n";
    cluster.folder.file("slow.sh", slow);
    let job = cluster.submit(
        "streaming -input books/ -output out -mapper slow.sh -reducer reduce.py -files slow.sh,map.py,reduce.py \
         -numReduceTasks 2 --map-task-size 64KiB",
    );
    let begun = Instant::now();
    for turn in 0..3 {
        while begun.elapsed() < Duration::from_millis(1500 * (turn + 1)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let path = cluster.folder.path().to_path_buf();
        let worker = &mut cluster.workers[turn as usize];
        worker.kill();
        worker.begin(&path);
    }
    cluster.complete(&job);
    run_local(
        &cluster.folder,
        "run streaming -input books/ -output ../ref -mapper map.py -reducer reduce.py -files map.py,reduce.py \
         -numReduceTasks 2 -q",
    );
    let at = |place: &str| cluster.folder.path().join(place);
    assert!(parts(&at("store/out")) == parts(&at("ref")));
    assert_eq!(manifest(&at("store/out"))["counters"]["app:lines"], 100_000);
    // What scripts of dead workers began is gone too, and so are their folders.
    for worker in &mut cluster.workers {
        worker.signal(Signal::TERM);
        worker.wait();
        let code = worker.data.join("scratch/code");
        let left: Vec<_> = super::nodes::files(&code);
        assert!(left.is_empty(), "{left:?}");
        let here = code.to_string_lossy().into_owned();
        assert_eq!(processes_in(&here), Vec::<String>::new());
    }
}

/// Processes that work below a folder.
fn processes_in(folder: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let works = |path: &std::path::PathBuf| {
        std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy().starts_with(folder))
    };
    all.filter(works).map(|path| path.display().to_string()).collect()
}

#[test]
fn what_was_not_allowed_is_refused() {
    let mut cluster = cluster(1, 1, "");
    cluster.folder.file("lines.wasm", wasm());
    let told = cluster.ask("submit streaming -input books/ -output out -mapper cat");
    assert!(told.code == Some(1) && told.err.contains("--processes"), "{told:?}");
    let told = cluster.ask("submit python words.py books/ -o out");
    assert!(told.code == Some(1) && told.err.contains("no worker offers app \"python\""), "{told:?}");
    // WebAssembly is for everyone.
    let done = cluster.ask("submit wasm lines.wasm books/ -o out/wasm");
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn code_of_a_cluster_stays_in_its_sandbox() {
    let mut cluster = cluster(1, 1, "--processes isolated --sandbox required --code-memory 200MiB");
    for (flags, why) in
        [("--sandbox=off", "stays in the sandbox"), ("--sandbox-read /etc/shadow", "--sandbox-read is for run")]
    {
        let told = cluster.ask(&format!("submit streaming -input books/ -output out -mapper cat {flags}"));
        assert!(told.code == Some(1) && told.err.contains("refused") && told.err.contains(why), "{told:?}");
    }
    // What only a worker knows is told by its tasks.
    for (flags, why) in [("--network", "no code use the network"), ("--task-memory 300MiB", "more than the 200 MiB")] {
        let told = cluster.ask(&format!("submit streaming -input books/ -output out -mapper cat {flags}"));
        assert!(told.code == Some(3) && told.err.contains(why), "{told:?}");
    }
    // Of the worker's own folder, the store and other jobs it sees nothing, whatever its command and variables name.
    cluster.folder.file("secret.txt", "not for scripts\n");
    let folder = cluster.folder.path().display().to_string();
    let spy = format!(
        "#!/bin/sh\ncat > /dev/null\ncat {folder}/secret.txt {folder}/store/books/0.txt 2> /dev/null\nls {folder}/w1 2> /dev/null\nfind {folder} -type f 2> /dev/null | grep -v /attempt-\necho ended\n"
    );
    cluster.folder.file("spy.sh", spy);
    let spies = [
        "-mapper spy.sh".to_string(),
        format!("-mapper spy.sh -cmdenv PYTHONPATH={folder} -cmdenv PATH={folder}:/usr/bin:/bin"),
        format!("-mapper /bin/sh#spy.sh#{folder}/secret.txt").replace('#', "\u{1f}"),
    ];
    for (n, spy) in spies.iter().enumerate() {
        let mut command = cluster.folder.command(program());
        command.args(["submit", "streaming", "-input", "books/0.txt", "-reducer", "NONE", "-file", "spy.sh"]);
        command.args(["-output", &format!("out/{n}"), "--at", &cluster.masters[0].address]);
        command.args(spy.split(' ').map(|word| word.replace('\u{1f}', " ")));
        let done = ended(command.output().unwrap());
        assert_eq!(done.code, Some(0), "{spy}: {}", done.err);
        assert_eq!(cluster.folder.read(&format!("store/out/{n}/part-00000")), "ended\t\n", "{spy}");
    }
    // A task that takes too much is told so.
    let hog = "def map(key, line):\n    x = bytearray(400 << 20)\n    yield line, len(x)\n";
    cluster.folder.file("hog.py", hog);
    let told = cluster.ask("submit python hog.py books/0.txt -o out/hog");
    assert!(told.code == Some(3) && told.err.contains("memory"), "{told:?}");
    cluster.complete(&cluster.client().submit("wordcount books/ -o out/after", Duration::from_secs(60)));
}

#[test]
fn apps_are_pushed_in_versions_and_found_by_name() {
    let mut cluster = cluster(1, 1, "--processes isolated");
    let said = cluster.ask("app push words words.py").err;
    assert!(said.contains("words@1 is in the cluster"), "{said}");
    assert!(cluster.ask("app push words words.py").err.contains("words@1 is there already"));
    // Behind -- nothing of the tests' own can stand.
    let push = |cluster: &Cluster, what: &str| {
        let mut command = cluster.folder.command(program());
        command.env("GRISTMILL_MASTER", &cluster.masters[0].address);
        ended(command.args(["app", "push"]).args(what.split(' ')).output().unwrap())
    };
    let clicks = "clicks map.py reduce.py -- streaming -mapper map.py -reducer reduce.py -numReduceTasks 2";
    let done = push(&cluster, clicks);
    assert_eq!(done.code, Some(0), "{}", done.err);
    // The file of a version is that of when it was pushed.
    cluster.folder.file("words.py", WORDS.replace("yield word, 1", "yield word.upper(), 1"));
    assert!(cluster.ask("app push words words.py").err.contains("words@2"));
    cluster.folder.file("words.py", "raise SystemExit('not this one')\n");
    for (what, n) in [("words@1 books/ -o", 1), ("words books/ -o", 2), ("clicks -input books/ -output", 3)] {
        let done = cluster.ask(&format!("submit {what} out/{n}"));
        assert_eq!(done.code, Some(0), "{what}: {done:?}");
    }
    let text = |n: u32| -> String {
        let all = parts(&cluster.folder.path().join(format!("store/out/{n}")));
        all.into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
    };
    assert!(text(1).contains("mill\t") && !text(1).contains("MILL"), "the version that was asked for");
    assert!(text(2).contains("MILL\t"), "the newest");
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(text(3)), sorted(text(1)));
    let jobs = cluster.ask("jobs").out;
    assert!(jobs.contains("words@1") && jobs.contains("clicks@1"), "{jobs}");
    assert_eq!(cluster.ask("app ls -o name").out, "clicks@1\nwords@2\n");
    assert_eq!(cluster.ask("app show words -o name").out, "words@2\nwords@1\n");
    // A mistake is told before anything is kept.
    for (what, why) in [
        ("1st words.py", "cannot be called"),
        ("x map.sh", "behind --"),
        ("x absent.py", "absent.py"),
        ("x map.py -- streaming -mapper map.py -file other.py", "other.py, which is not among"),
        ("x map.py -- streaming -mapper map.py --sandbox=off", "--sandbox=off"),
        ("x map.py -- wordcount", "runs no apps that are pushed"),
        ("x map.py lib/map.py -- streaming -mapper map.py", "map.py and lib/map.py would both be called map.py"),
    ] {
        let told = push(&cluster, what);
        assert!(told.code != Some(0) && told.err.contains(why), "{what}: {told:?}");
    }
    for (what, why) in
        [("rm words@7", "no app was pushed as words@7"), ("show nothing", "no app was pushed as nothing")]
    {
        let told = cluster.ask(&format!("app {what}"));
        assert!(told.code == Some(1) && told.err.contains(why), "{what}: {told:?}");
    }
    assert_eq!(cluster.ask("app rm words").code, Some(0));
    for name in ["words", "words@2"] {
        let told = cluster.ask(&format!("submit {name} books/ -o out/4"));
        assert!(told.code == Some(2) && told.err.contains("unrecognized"), "{name}: {told:?}");
    }
    // No number is given twice, even if what has it would be the same.
    assert!(cluster.ask("app push words words.py").err.contains("words@3 is in the cluster"));
    assert_eq!(cluster.ask("app rm words@3").code, Some(0));
    assert!(cluster.ask("app push words words.py").err.contains("words@4 is in the cluster"));
    assert_eq!(cluster.ask("app show words -o name").out, "words@4\n");
    assert_eq!(cluster.ask("app ls -o name").out, "clicks@1\nwords@4\n");
    // A cluster that does not answer is told of as such.
    let told = cluster.folder.run("submit words books/ -o out/4 --at 127.0.0.1:1");
    assert!(told.code == Some(1) && told.err.contains("the cluster did not do it"), "{told:?}");
}

#[test]
fn who_pushes_an_app_takes_nothing_from_who_submits_it() {
    let mut cluster = cluster(1, 1, "--processes isolated");
    // As no `app push` makes them.
    let versions: [(&str, &[&str], &[&str], &str); 6] = [
        ("takes", &["words.py"], &[], "words.py, which is not among"),
        ("more", &["words.py", "--file=map.py"], &["words.py"], "map.py, which is not among"),
        ("says", &["words.py", "--overwrite"], &["words.py"], "'--overwrite'"),
        ("goes", &["words.py", "--at=127.0.0.1:1"], &["words.py"], "'--at'"),
        ("other", &["books/"], &[], "runs no apps that are pushed"),
        ("twice", &["words.py"], &["words.py", "words.py"], "two files of the app have one name"),
    ];
    for (name, arguments, files, why) in versions {
        let file = |path: &&str| api::AppFile { path: (*path).into(), digest: vec![0; 32].into(), bytes: 1 };
        let app = api::App {
            name: if name == "other" { "wordcount" } else { "python" }.into(),
            arguments: arguments.iter().map(|flag| (*flag).into()).collect(),
            files: files.iter().map(file).collect(),
            ..Default::default()
        };
        let version =
            api::PushedApp { name: name.into(), version: 1, app: Some(app), pushed_ms: 1, ..Default::default() };
        cluster.folder.file(&format!("store/.gristmill/apps/named/{name}/0000000001"), version.encode_to_vec());
        let told = cluster.ask(&format!("submit {name} books/0.txt -o out/{name}"));
        assert!(told.code != Some(0) && told.err.contains(why), "{name}: {told:?}");
    }
    let files = cluster.folder.path().join("store/.gristmill/apps/files");
    assert!(super::nodes::files(&files).is_empty(), "nothing was sent");
    // What its user types comes along.
    assert_eq!(cluster.ask("app push uses uses.py").code, Some(0));
    let done = cluster.ask("submit uses books/0.txt -o out/uses --files lib,lib/consts.py#more.py --map-only");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(super::nodes::files(&files).len(), 2);
}

#[test]
fn files_of_apps_stay_while_something_needs_them() {
    let mut cluster = cluster(1, 0, "");
    let folder = cluster.folder.path().join("store/.gristmill/apps/files");
    let files = || super::nodes::files(&folder);
    let done = |cluster: &mut Cluster, what: &str| assert_eq!(cluster.ask(what).code, Some(0), "{what}");
    let make_old = || {
        let then = SystemTime::now() - Duration::from_secs(48 * 60 * 60);
        let all = files().into_iter().map(|path| std::fs::File::options().write(true).open(path).unwrap());
        all.for_each(|file| file.set_modified(then).unwrap());
    };
    done(&mut cluster, "app push words words.py");
    cluster.folder.file("words.py", WORDS.to_uppercase());
    done(&mut cluster, "app push words words.py");
    assert_eq!(files().len(), 2);
    // A day after they came, those go that no version has.
    make_old();
    done(&mut cluster, "app rm words@1");
    assert_eq!(files().len(), 1);
    // Whoever is told that a file is there has the time to name it.
    done(&mut cluster, "app push others words.py");
    done(&mut cluster, "app rm words");
    done(&mut cluster, "app rm others");
    assert_eq!(files().len(), 1);
    done(&mut cluster, "app push words words.py");
    make_old();
    done(&mut cluster, "app rm words");
    assert_eq!(files().len(), 0);
}

#[test]
fn a_file_that_was_changed_in_the_store_is_not_run() {
    let mut cluster = cluster(1, 1, "--processes isolated");
    assert_eq!(cluster.ask("app push words words.py").code, Some(0));
    let files = cluster.folder.path().join("store/.gristmill/apps/files");
    for path in super::nodes::files(&files) {
        std::fs::write(path, "print('something else')\n").unwrap();
    }
    let told = cluster.ask("submit words books/0.txt -o out --max-attempts 1 --no-backups --detach");
    assert_eq!(told.code, Some(0), "{told:?}");
    let job = told.out.trim().to_string();
    let begun = Instant::now();
    while !cluster.ask(&format!("job logs {job}")).out.contains("is not what its name says") {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing was said of it");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!cluster.folder.path().join("store/out").exists());
}

#[test]
fn a_task_is_done_again_here() {
    let mut cluster = cluster(1, 1, "--processes isolated");
    cluster.folder.file(
        "bad.py",
        "def map(key, line):\n    if line.endswith(' 15000') and key.endswith('3.txt'): raise ValueError('no mill')\n    yield line.split()[0], 1\n\
         def reduce(key, values):\n    if key == 'rye': raise KeyError('no rye')\n    yield key, sum(values)\n",
    );
    let told = cluster.ask("submit python bad.py books/ -o out/bad --map-task-size 64KiB");
    assert_eq!(told.code, Some(3), "{told:?}");
    let again = told.err.split("gristmill debug-task ").nth(1).expect("the command").trim().to_string();
    assert!(again.contains(" map ") && told.err.contains("ValueError: no mill"), "{told:?}");
    let done = cluster.ask(&format!("debug-task {again} --keep kept"));
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.err.contains("in books/3.txt near byte") && done.err.contains("ValueError: no mill"), "{done:?}");
    let script = done.err.split("do it again with: sh ").nth(1).expect("a script").trim().to_string();
    let shell = std::process::Command::new("sh").arg(script).output().unwrap();
    assert!(String::from_utf8_lossy(&shell.stderr).contains("ValueError: no mill"), "{shell:?}");
    // The code of the job is that which was submitted.
    cluster.folder.file("bad.py", "");
    let (job, task) = again.split_once(" map ").unwrap();
    let before: u32 = task.parse().unwrap();
    let done = cluster.ask(&format!("debug-task {job} map {}", before - 1));
    assert!(done.code == Some(0) && done.err.contains("ends well here"), "{done:?}");
    assert!(done.out.lines().count() > 1000 && done.out.lines().all(|line| line.ends_with("\t1")), "{}", done.err);

    for (what, n, words) in
        [("python words.py", 1, "ends well here"), ("wordcount", 2, "ends well here"), ("sort", 3, "ends well here")]
    {
        let done =
            cluster.ask(&format!("submit {what} books/ -o out/{n} --reducers 2 --map-task-size 256KiB --detach"));
        let job = done.out.trim().to_string();
        cluster.complete(&job);
        let done = cluster.ask(&format!("debug-task {job} map 1"));
        assert!(done.code == Some(0) && done.err.contains(words), "{what}: {}", done.err);
        let done = cluster.ask(&format!("debug-task {job} reduce 1"));
        assert!(done.code == Some(0) && done.err.contains(words), "{what}: {}", done.err);
        assert_eq!(done.out, cluster.folder.read(&format!("store/out/{n}/part-00001")), "{what}");
        assert_eq!(cluster.ask(&format!("debug-task {job} map 999")).code, Some(2));
    }
    cluster.folder.file("store/books/0.txt", "something else\n");
    let done = cluster.ask(&format!("debug-task {job} map 1"));
    assert!(done.code == Some(3) && done.err.contains("put them back"), "{}", done.err);
}

#[test]
fn what_a_task_counts_is_shown_while_it_runs() {
    let mut cluster = cluster(1, 1, "--processes isolated");
    let slow = "#!/bin/sh\necho reporter:counter:app,seen,3 >&2\necho reporter:status:half way >&2\nsleep 6\ncat\n";
    cluster.folder.file("slow.sh", slow);
    let job = cluster.submit("streaming -input books/0.txt -output out -mapper slow.sh -reducer NONE -file slow.sh");
    let begun = Instant::now();
    loop {
        let shown = cluster.ask(&format!("job show {job}")).out;
        assert!(!shown.contains("completed") && begun.elapsed() < Duration::from_secs(30), "{shown}");
        if shown.contains("app:seen=3") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.complete(&job);
    assert!(cluster.ask(&format!("job show {job}")).out.contains("app:seen=3"));
    assert!(cluster.ask(&format!("job logs {job}")).out.contains("status: half way"));
}
