//! Drills of backup and restore, with real processes: all that a cluster knew is there again, what it had not ended is ended,
//! nothing is numbered as before, and what is no backup begins no cluster.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::nodes::{Node, logged_in, parts, run_local, secret, texts, users};
use crate::program::{Ended, Folder, Running, until};

const LONG: &str = "index books/ --reducers 3";
/// Indices of a generation: see `engine/src/node/backup.rs`.
const GENERATION: u64 = 1 << 40;

/// Who asks a node.
struct Client<'f> {
    folder: &'f Folder,
    address: String,
    token: String,
}

impl<'f> Client<'f> {
    fn of(folder: &'f Folder, node: &Node, token: &str) -> Self {
        Self { folder, address: node.address.clone(), token: token.into() }
    }

    fn ask(&self, arguments: &str) -> Ended {
        let mut command = self.folder.gristmill(&format!("{arguments} --at {}", self.address));
        if !self.token.is_empty() {
            command.env("GRISTMILL_TOKEN", &self.token);
        }
        Running::start(command).wait()
    }

    fn done(&self, arguments: &str) -> String {
        let ended = self.ask(arguments);
        assert_eq!(ended.code, Some(0), "{arguments}: {ended:?}");
        ended.out
    }

    fn json(&self, arguments: &str) -> Value {
        let out = self.done(&format!("{arguments} -o json"));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments}: {e}: {out}"))
    }

    /// Submits a job once a worker offers its app; gives its id.
    fn submit(&self, job: &str) -> String {
        let mut id = String::new();
        until("a worker that offers the app", || {
            let ended = self.ask(&format!("submit {job} --detach"));
            id = ended.out.trim().to_string();
            ended.code == Some(0)
        });
        id
    }

    fn state(&self, job: &str) -> String {
        self.json(&format!("job show {job}"))["state"].as_str().unwrap().to_string()
    }

    /// Takes a backup, and gives its name in the store.
    fn back_up(&self, flags: &str) -> String {
        self.done(&format!("cluster backup {flags} -o name")).trim().to_string()
    }
}

fn number(job: &str) -> u64 {
    job.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// Where an object of the store is.
fn object(folder: &Folder, name: &str) -> PathBuf {
    folder.path().join("store").join(name)
}

/// What a master says that begins with this and must not.
fn refused(folder: &Folder, data: &str, flags: &str) -> Ended {
    let command =
        folder.gristmill(&format!("master --no-login --data {data} --store store --listen 127.0.0.1:0 {flags}"));
    Running::start(command).wait_within(Duration::from_secs(60)).expect("it does not begin")
}

fn worker(folder: &Folder, data: &str, master: &Node, flags: &str) -> Node {
    let flags = format!("--masters {} --name w --slots 2 --memory 256MiB{flags}", master.address);
    Node::start(folder, "worker", data, &flags)
}

#[test]
fn a_cluster_that_lost_its_masters_is_restored_with_all_that_it_knew() {
    let folder = Folder::new();
    texts(&folder, 250_000);
    run_local(&folder, &format!("run {LONG} -q -o ../ref"));
    let (known, flags) = (secret(&folder), format!("{}{}", users(&folder), secret(&folder)));
    let mut master = Node::start(&folder, "master", "m1", &flags);
    let token = logged_in(&folder, &format!("--at {}", master.address));
    let mut labourer = worker(&folder, "w1", &master, &known);
    let before = Client::of(&folder, &master, &token);
    before.done("user add ann --role user");
    let done = before.submit("wordcount books/0.txt -o out/done");
    before.done(&format!("job watch {done}"));
    let result = before.done(&format!("job result {done}"));

    // A job is in the midst of its maps, which are on a worker that will be gone.
    let open = before.submit(&format!("{LONG} --map-task-size 1MiB -o out/open"));
    until("some maps to be done", || {
        before.json(&format!("job show {open}"))["maps"]["done"].as_u64().is_some_and(|maps| maps > 0)
    });
    labourer.signal(Signal::STOP);
    let named = before.back_up("");
    assert_ne!(before.state(&open), "completed", "the worker was too quick");
    let told = before.json("cluster backups");
    let (cluster, applied) = (told[0]["cluster"].as_str().unwrap(), told[0]["applied"].as_u64().unwrap());
    assert_eq!((told.as_array().unwrap().len(), told[0]["name"].as_str()), (1, Some(named.as_str())));
    assert!(named.starts_with(&format!(".gristmill/{cluster}/backups/2")) && named.ends_with(&format!("-{applied}")));
    assert_eq!(fs::metadata(object(&folder, &named)).unwrap().len(), told[0]["bytes"].as_u64().unwrap());
    // Users of the store do not see it.
    assert!(before.ask(&format!("data get {named} -")).code != Some(0));
    labourer.kill();
    master.kill();
    for data in ["m1", "w1"] {
        fs::remove_dir_all(folder.path().join(data)).unwrap();
    }

    let mut master = Node::start(&folder, "master", "m2", &format!("{flags} --restore"));
    let after = Client::of(&folder, &master, &token);
    let status = after.json("cluster status");
    assert_eq!(status["cluster"].as_str(), Some(cluster));
    assert!(
        status["term"].as_u64().unwrap() > 1 << 32 && status["applied"].as_u64().unwrap() >= GENERATION,
        "{status}"
    );
    assert_eq!(after.json("workers").as_array().unwrap().len(), 0, "workers of before are gone");
    let jobs = after.done("jobs -o name");
    assert!(jobs.contains(&done) && jobs.contains(&open), "{jobs}");
    assert_eq!(after.done(&format!("job result {done}")), result);
    assert!(after.done("user ls -o name").contains("ann"));
    let login = format!("login admin --password-stdin --at {}", master.address);
    let login = folder.fed(&login, "the second password\n");
    assert_eq!(login.code, Some(0), "{login:?}");

    let labourer = worker(&folder, "w2", &master, &known);
    after.done(&format!("job watch {open}"));
    assert!(parts(&folder.path().join("store/out/open")) == parts(&folder.path().join("ref")), "another output");
    let new = after.submit("wordcount books/0.txt -o out/new");
    after.done(&format!("job watch {new}"));
    assert_eq!(after.done(&format!("job result {new}")), result);
    assert!(number(&new) > GENERATION, "{new}");
    let workers = after.json("workers");
    assert!(workers[0]["incarnation"].as_u64().unwrap() > GENERATION, "{workers}");

    // It is a cluster as any other.
    let second = Node::start(&folder, "master", "m3", &format!("{flags} --join {}", master.address));
    assert_eq!(after.json("cluster status")["masters"].as_array().unwrap().len(), 2);
    let digest = Client::of(&folder, &second, &token).json("cluster status")["cluster"].clone();
    assert_eq!(digest.as_str(), Some(cluster));

    // Its folder is its own from now on: the flag is not left in place by mistake.
    master.kill();
    master.spawn(folder.path());
    assert_eq!(master.wait(), Some(1));
    assert!(master.has_said("--restore begins a new cluster"));
    drop((master, second, labourer));

    // What is restored once more from the same backup does not give out what the first did.
    let again = Node::start(&folder, "master", "m4", &format!("{flags} --restore {named}"));
    let again = Client::of(&folder, &again, &token).json("cluster status");
    assert!(again["applied"].as_u64().unwrap() >= 2 * GENERATION, "{again}");
}

/// What a job left is cleared away once it has ended: a backup from before cannot go on from there, and need not.
#[test]
fn jobs_that_ended_after_the_backup_have_ended_when_it_is_restored() {
    let folder = Folder::new();
    texts(&folder, 1_000);
    let mut master = Node::start(&folder, "master", "m1", "");
    let mut labourer = worker(&folder, "w1", &master, "");
    let before = Client::of(&folder, &master, "");
    // It is known to be gone only when its lease is over.
    let warm = before.submit("wordcount books/0.txt -o out/warm");
    before.done(&format!("job watch {warm}"));
    labourer.signal(Signal::STOP);
    let job = before.submit("wordcount books/ -o out/early");
    let dropped = before.submit("wordcount books/1.txt -o out/dropped");
    let named = before.back_up("--to early");
    assert!(named.ends_with("/backups/early"), "{named}");
    before.done(&format!("job cancel {dropped}"));
    labourer.signal(Signal::CONT);
    before.done(&format!("job watch {job}"));
    let cluster = named.split('/').nth(1).unwrap();
    let history = |job: &str| object(&folder, &format!(".gristmill/{cluster}/history/{}", number(job)));
    until("their histories", || history(&job).exists() && history(&dropped).exists());
    until("what the job left to be gone", || !object(&folder, &format!(".gristmill/{cluster}/{job}")).exists());
    let want = before.done(&format!("job result {job}"));
    labourer.kill();
    master.kill();

    let master = Node::start(&folder, "master", "m2", "--restore early");
    let after = Client::of(&folder, &master, "");
    assert_eq!((after.state(&job).as_str(), after.state(&dropped).as_str()), ("completed", "cancelled"));
    let told = after.json("jobs");
    let states =
        told.as_array().unwrap().iter().map(|job| (job["id"].as_str().unwrap(), job["state"].as_str().unwrap()));
    let states: Vec<_> = states.collect();
    assert!(
        states.contains(&(job.as_str(), "completed")) && states.contains(&(dropped.as_str(), "cancelled")),
        "{states:?}"
    );
    assert_eq!(after.done(&format!("job result {job}")), want);
    // The names of their outputs are free for whoever comes next.
    let _labourer = worker(&folder, "w2", &master, "");
    let next = after.submit("wordcount books/ -o out/early --overwrite");
    after.done(&format!("job watch {next}"));
    assert_eq!(after.done(&format!("job result {next}")), want);
}

#[test]
fn what_is_no_backup_begins_no_cluster() {
    let folder = Folder::new();
    let empty = refused(&folder, "none", "--restore");
    assert!(empty.code == Some(1) && empty.err.contains("the store has no backup"), "{empty:?}");
    let node = Node::start(&folder, "serve", "data", "");
    let client = Client::of(&folder, &node, "");
    let good = client.back_up("--to good");
    let taken = client.ask("cluster backup --to good");
    assert!(taken.code == Some(1) && taken.err.contains("already"), "{taken:?}");
    for not in ["../x", "a/b", "latest", ".x"] {
        let named = client.ask(&format!("cluster backup --to {not}"));
        assert!(named.code == Some(1) && named.err.contains("name"), "{not}: {named:?}");
    }
    // Only those that were named by their time make way.
    let kept: Vec<String> = (0..3).map(|_| client.back_up("--keep 2")).collect();
    let names = client.done("cluster backups -o name");
    assert_eq!(names.lines().collect::<Vec<_>>(), [good.as_str(), &kept[1], &kept[2]]);

    let bytes = fs::read(object(&folder, &good)).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        fs::write(object(&folder, &good).with_file_name(name), bytes).unwrap();
    };
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    put("flipped", &flipped(bytes.len() / 2));
    put("cut", &bytes[..bytes.len() - 1]);
    put("other", b"something else");
    put("later", &flipped(6));
    for (name, told) in [
        ("flipped", "is damaged"),
        ("cut", "is damaged"),
        ("other", "is damaged: it does not begin as one"),
        ("later", "is of a later release"),
        ("nobody", "no backup called nobody"),
        ("no/body", "no backup called no/body"),
    ] {
        let ended = refused(&folder, "m2", &format!("--restore {name}"));
        assert!(ended.code == Some(1) && ended.err.contains(told), "{name}: {ended:?}");
        assert!(!folder.path().join("m2/raft").exists() && !folder.path().join("m2/cluster").exists(), "{name}");
    }
    let listed = client.done("cluster backups");
    assert!(listed.contains("damaged"), "{listed}");

    for flags in ["--join 127.0.0.1:1", "--peers 127.0.0.1:1,127.0.0.1:2"] {
        let ended = refused(&folder, "m2", &format!("{flags} --restore good"));
        assert_eq!(ended.code, Some(2), "{flags}: {ended:?}");
    }
    // A folder that was not filled to the end is a cluster's neither with the flag nor without it.
    folder.file("m3/cluster", "00000000000000aa restoring\n");
    folder.file("m3/raft/snapshot-0000000000000001-0000000000000001", "half of one");
    let ended = refused(&folder, "m3", "");
    assert!(ended.code == Some(1) && ended.err.contains("give --restore again"), "{ended:?}");
    folder.file("m4/raft/identity", "whose?\n");
    let ended = refused(&folder, "m4", "--restore good");
    assert!(ended.code == Some(1) && ended.err.contains("begins with an empty folder"), "{ended:?}");
    drop(node);
    let node = Node::start(&folder, "master", "m3", "--restore good");
    Client::of(&folder, &node, "").done("cluster status");
}
