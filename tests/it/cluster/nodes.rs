//! Nodes that can be started again where they were, and clusters of them.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::net::Net;
use crate::process::Process;
use crate::program::{Ended, Folder, Running, program};

/// The longest wait for an answer, the end of a small job, or the end of temporaries after that.
const PATIENCE: Duration = Duration::from_secs(60);
/// The file, beside the store, in which nodes look whether to die.
const FAILPOINT: &str = "failpoint";
/// The file, beside it, that says how far the nodes' clocks are ahead, in milliseconds.
pub(crate) const CLOCK: &str = "clock";

/// A process with a node; or its folder, while there is none.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Its own folder.
    pub(crate) data: PathBuf,
    /// The program and its arguments.
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    process: Option<Process>,
    log: PathBuf,
}

impl Node {
    /// Runs `gristmill ROLE` with these arguments until it says that it is ready.
    pub(crate) fn start(folder: &Folder, role: &str, name: &str, arguments: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        Self::start_at(folder, &address, "", role, name, arguments)
    }

    /// As [`Node::start`], at this address, with a command before it.
    fn start_at(folder: &Folder, address: &str, before: &str, role: &str, name: &str, arguments: &str) -> Self {
        let program = program();
        let program = program.display();
        let users = if role == "worker" || arguments.contains("password") { "" } else { "--no-login" };
        let command =
            format!("{before} {program} {role} {users} --data {name} --store store --listen {address} {arguments}");
        let mut node = Self {
            name: name.to_string(),
            address: address.to_string(),
            data: folder.path().join(name),
            command: command.split_whitespace().map(String::from).collect(),
            environment: BTreeMap::new(),
            process: None,
            log: folder.path().join(format!("{name}.log")),
        };
        node.begin(folder.path());
        node
    }

    /// Starts the process of a node that has none, where it was, and waits until it is ready.
    pub(crate) fn begin(&mut self, folder: &Path) {
        self.spawn(folder);
        self.process.as_mut().map(Process::ready);
    }

    /// As [`Node::begin`], without waiting.
    pub(crate) fn spawn(&mut self, folder: &Path) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        // What is waited for is said by this process, not by one before it.
        if self.log.exists() {
            fs::rename(&self.log, self.before()).unwrap();
        }
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(folder).env("NO_COLOR", "1");
        command.env("GRISTMILL_FAILPOINT", folder.join(FAILPOINT)).env("GRISTMILL_CLOCK", folder.join(CLOCK));
        command.envs(&self.environment);
        self.process = Some(Process::of(command, self.log.clone()));
    }

    /// What the process before this one said.
    fn before(&self) -> PathBuf {
        self.log.with_extension("log.before")
    }

    /// Sets a variable for the processes that are started from now on.
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.environment.insert(variable.to_string(), value.to_string());
    }

    /// Whether its process has said this since it was started.
    pub(crate) fn has_said(&self, what: &str) -> bool {
        fs::read_to_string(&self.log).unwrap_or_default().contains(what)
    }

    /// Whether its process runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_up)
    }

    /// Of its process, which runs.
    pub(crate) fn pid(&self) -> Pid {
        self.process.as_ref().expect("a process").pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.iter().for_each(|process| process.signal(signal));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Waits for the end of its process; gives its exit code, or the signal that ended it as a negative number.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.process.take().and_then(|mut process| process.ended())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(before) = fs::read_to_string(self.before())
        {
            eprintln!("--- {} at {}, before:\n{before}", self.name, self.address);
        }
    }
}

/// A port that nobody listens at and that the system gives to no connection: a node that is started again gets it back.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of other processes begin elsewhere.
    let first = (std::process::id() % 200) as u16 * 100;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Who asks a cluster.
#[derive(Clone)]
pub(crate) struct Client {
    folder: PathBuf,
    /// Of all masters.
    addresses: Vec<String>,
    flags: &'static str,
    /// Of somebody who may do everything, where users must log in.
    token: Option<String>,
    turn: usize,
}

impl Client {
    /// One who asks these masters with these flags, from this folder, as nobody.
    pub(crate) fn of(folder: &Folder, addresses: Vec<String>, flags: &'static str) -> Self {
        Self { folder: folder.path().into(), addresses, flags, token: None, turn: 0 }
    }

    /// Asks as whose token this is from now on.
    pub(crate) fn bears(&mut self, token: &str) {
        self.token = Some(token.into());
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Asks one master after the other until one has an answer other than that the cluster cannot be reached. A master
    /// may be dead, or stopped: it has `each` to answer.
    pub(crate) fn ask(&mut self, arguments: &str, each: Duration, within: Duration) -> Ended {
        let begun = Instant::now();
        loop {
            let at = &self.addresses[self.turn % self.addresses.len()];
            let mut command = Command::new(program());
            let all = format!("{arguments} --at {at}{}", self.flags);
            command.current_dir(&self.folder).args(all.split_whitespace()).env("NO_COLOR", "1");
            command.envs(self.token.iter().map(|token| ("GRISTMILL_TOKEN", token)));
            let ended = Running::start(command).wait_within(each);
            match ended {
                Some(ended) if ended.code != Some(1) || ended.err.contains("refused:") => return ended,
                ended => assert!(begun.elapsed() < within, "{arguments}: no answer within {within:?}, but {ended:?}"),
            }
            self.turn += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Submits a job, which must be taken, and gives its id.
    pub(crate) fn submit(&mut self, arguments: &str, within: Duration) -> String {
        static KEYS: AtomicU16 = AtomicU16::new(0);
        let key = KEYS.fetch_add(1, Relaxed);
        let arguments = format!("submit {arguments} --submission-key key-{key} --detach");
        let done = self.ask(&arguments, Duration::from_secs(5), within);
        assert_eq!(done.code, Some(0), "{arguments}: {done:?}");
        done.out.trim().to_string()
    }

    /// Waits for a job's end, which must be a good one.
    pub(crate) fn complete(&mut self, job: &str, within: Duration) {
        let done = self.ask(&format!("job watch {job}"), Duration::from_secs(10), within);
        assert_eq!(done.code, Some(0), "job {job}: {done:?}");
    }
}

/// The flags of a master whose users must log in, for as little work as may be.
pub(crate) fn users(folder: &Folder) -> String {
    folder.file("first-password", "the first password\n");
    " --admin-password-file first-password --password-cost 8KiB,1".to_string()
}

/// The flag of nodes that know each other by a secret.
pub(crate) fn secret(folder: &Folder) -> String {
    folder.file("nodes", "what nodes alone know\n");
    " --node-secret nodes".to_string()
}

/// A token for machines of the first user of a cluster, who logs in and takes another password. Waits until there is one.
pub(crate) fn logged_in(folder: &Folder, at: &str) -> String {
    first_login(folder, at, "the first password")
}

/// As [`logged_in`], whose first password is this.
pub(crate) fn first_login(folder: &Folder, at: &str, password: &str) -> String {
    let passwords = format!("{password}\nthe second password\n");
    crate::program::until("the first user", || {
        folder.fed(&format!("login admin --password-stdin {at}"), &passwords).code == Some(0)
    });
    let token = folder.run(&format!("token create {at}"));
    assert_eq!(token.code, Some(0), "{token:?}");
    token.out.trim().to_string()
}

/// Masters and workers over one store.
pub(crate) struct Cluster {
    // Nodes end before their folder goes.
    pub(crate) masters: Vec<Node>,
    pub(crate) workers: Vec<Node>,
    pub(crate) folder: Folder,
    pub(crate) net: Option<Net>,
    client: Client,
}

impl Cluster {
    /// So many masters that are one cluster, and workers that know of all of them, all on the loopback.
    pub(crate) fn of(masters: usize, workers: usize) -> Self {
        Self::on(Folder::new(), None, masters, workers)
    }

    /// As [`Cluster::of`], whose workers have these flags as well.
    pub(crate) fn with(masters: usize, workers: usize, of_workers: &'static str) -> Self {
        Self::made(Folder::new(), None, masters, (workers, of_workers))
    }

    /// As [`Cluster::of`], in this folder, and on a network that can be cut if there is one: first masters, then workers.
    pub(crate) fn on(folder: Folder, net: Option<Net>, masters: usize, workers: usize) -> Self {
        Self::made(folder, net, masters, (workers, ""))
    }

    fn made(folder: Folder, net: Option<Net>, masters: usize, (workers, more): (usize, &str)) -> Self {
        let flags = if net.is_some() { " --insecure" } else { "" };
        let client = Client::of(&folder, Vec::new(), flags);
        let mut cluster = Self { masters: Vec::new(), workers: Vec::new(), folder, net, client };
        for n in 1..=masters {
            let join = cluster.masters.first().map(|first| format!("--join {}", first.address));
            let users =
                if cluster.net.is_some() { users(&cluster.folder) + &secret(&cluster.folder) } else { String::new() };
            let master = cluster.start("master", &format!("m{n}"), &format!("{}{users}", join.unwrap_or_default()));
            cluster.client.addresses.push(master.address.clone());
            cluster.masters.push(master);
            if n == 1 && cluster.net.is_some() {
                let at = format!("--at {}{flags}", cluster.masters[0].address);
                cluster.client.token = Some(logged_in(&cluster.folder, &at));
            }
        }
        for n in 1..=workers {
            let all = cluster.client.addresses.join(",");
            let known = if cluster.net.is_some() { secret(&cluster.folder) } else { String::new() };
            let worker = format!("--masters {all} --name w{n} --slots 2 --memory 256MiB {more}{known}");
            let worker = cluster.start("worker", &format!("w{n}"), &worker);
            cluster.workers.push(worker);
        }
        cluster
    }

    fn start(&self, role: &str, name: &str, arguments: &str) -> Node {
        let Some(net) = &self.net else { return Node::start(&self.folder, role, name, arguments) };
        let host = self.masters.len() + self.workers.len();
        let (address, before) = (format!("{}:7070", net.host(host)), net.run_at(host));
        Node::start_at(&self.folder, &address, &before, role, name, &format!("{arguments}{}", self.client.flags))
    }

    /// Masters, then workers.
    pub(crate) fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.masters.iter_mut().chain(&mut self.workers)
    }

    /// Who asks it.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Asks a master that answers.
    pub(crate) fn ask(&mut self, arguments: &str) -> Ended {
        self.client.ask(arguments, PATIENCE, PATIENCE)
    }

    /// Submits a job, which must be taken, and gives its id. Whoever leads may die meanwhile.
    pub(crate) fn submit(&mut self, arguments: &str) -> String {
        self.client.submit(arguments, PATIENCE)
    }

    /// Waits for a job's end, which must be a good one.
    pub(crate) fn complete(&mut self, job: &str) {
        self.client.complete(job, PATIENCE);
    }

    /// Kills all masters and starts them again.
    pub(crate) fn elect_anew(&mut self) {
        self.masters.iter_mut().for_each(Node::kill);
        // None is ready before others are there.
        self.masters.iter_mut().for_each(|master| master.spawn(self.folder.path()));
    }

    /// The next process that is at a point, as in `publish-copy@2`, does what `action` says.
    pub(crate) fn arm(&self, point: &str, action: &str) {
        // In one step: nodes look all the time.
        let new = self.folder.file("failpoint.new", format!("{point} {action}"));
        fs::rename(new, self.folder.path().join(FAILPOINT)).unwrap();
    }

    /// Nobody dies there any more.
    pub(crate) fn disarm(&self) {
        let _ = fs::remove_file(self.folder.path().join(FAILPOINT));
    }

    /// Whether a process was at the point.
    pub(crate) fn has_fired(&self) -> bool {
        !self.folder.path().join(FAILPOINT).exists()
    }

    /// Waits until nothing is left of jobs but outputs and histories: neither in the store nor on the workers' disks.
    pub(crate) fn wait_until_cleared(&self) {
        let begun = Instant::now();
        loop {
            let mut left = temporaries(&self.folder.path().join("store"));
            left.extend(self.workers.iter().flat_map(|worker| files(&worker.data.join("scratch"))));
            // Files of apps stay for other jobs.
            left.retain(|path| !path.to_string_lossy().contains("/scratch/apps/"));
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "temporaries remain: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What a store holds that is neither an input, nor of an output, nor what is kept of a job.
fn temporaries(store: &Path) -> Vec<PathBuf> {
    let all = files(store).into_iter();
    let hidden = |path: &Path| path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
    let kept = |path: &Path| {
        path.components()
            .nth(2)
            .is_some_and(|part| ["history", "logs", "files", "named"].iter().any(|k| part.as_os_str() == *k))
    };
    let within = |path: &PathBuf| path.strip_prefix(store).is_ok_and(|path| hidden(path) && !kept(path));
    all.filter(within).collect()
}

/// All files below a folder; none if it is not there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found
}

/// The parts of an output, and the app's further files.
pub(crate) fn parts(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    all.retain(|path| name(path) != "_SUCCESS");
    all.into_iter().map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

/// What `_SUCCESS` of an output says, but of which job it is.
pub(crate) fn manifest(folder: &Path) -> serde_json::Value {
    let text = fs::read_to_string(folder.join("_SUCCESS")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest.as_object_mut().unwrap().remove("job");
    manifest
}

/// Runs the program over the store's files where they lie: names of inputs are part of what some apps write.
pub(crate) fn run_local(folder: &Folder, arguments: &str) {
    let done = folder.gristmill(arguments).current_dir(folder.path().join("store")).output().unwrap();
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A few texts in a store.
pub(crate) fn texts(folder: &Folder, lines: usize) {
    let words = ["the", "mill", "grinds", "corn", "and", "rye", "<a href=\"x.html\">x</a>", "for", "bread"];
    for file in 0..5 {
        let line = |n: usize| format!("{} {} {n}\n", words[(n * 7 + file) % 9], words[(n * n + 3 * file) % 9]);
        folder.file(&format!("store/books/{file}.txt"), (0..lines).map(line).collect::<String>());
    }
}
