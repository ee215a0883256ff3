//! Processes with a node each, and one cluster of them. They end with the test, whatever comes of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::program::{Folder, until};

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a node, for requests of a line.
pub(crate) struct Line {
    out: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Line {
    pub(crate) fn open(socket: &Path) -> io::Result<Self> {
        let out = UnixStream::connect(socket)?;
        out.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { answers: BufReader::new(out.try_clone()?), out })
    }

    pub(crate) fn ask(&mut self, request: &str) -> io::Result<String> {
        self.out.write_all(format!("{request}\n").as_bytes())?;
        self.read()
    }

    pub(crate) fn read(&mut self) -> io::Result<String> {
        let mut answer = String::new();
        match self.answers.read_line(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer.trim_end().to_string()),
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) leads: bool,
    pub(crate) term: u64,
    pub(crate) leader: String,
    pub(crate) snapshot_bytes: u64,
}

/// A process with a node, or its folder while there is none.
pub(crate) struct Process {
    child: Option<Child>,
    said: Receiver<String>,
    pub(crate) data: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) address: String,
    pub(crate) id: String,
    log: PathBuf,
}

impl Process {
    pub(crate) fn line(&self) -> Line {
        Line::open(&self.socket).unwrap_or_else(|e| panic!("{}: {e}", self.socket.display()))
    }

    pub(crate) fn ask(&self, request: &str) -> String {
        self.line().ask(request).unwrap_or_else(|e| panic!("{request}: {e}"))
    }

    pub(crate) fn status(&self) -> Option<Status> {
        let answer = Line::open(&self.socket).and_then(|mut line| line.ask("status")).ok()?;
        let words: Vec<_> = answer.split(' ').collect();
        let number = |at: usize| words[at].parse().unwrap();
        let (leads, leader) = (words[0] == "leads", words[2].to_string());
        Some(Status { leads, term: number(1), leader, snapshot_bytes: number(3) })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The next line that the process says.
    pub(crate) fn says(&self) -> String {
        self.said.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("it said nothing: {e}"))
    }

    /// Every small value: key to index, number of writes, value.
    pub(crate) fn dump(&self) -> BTreeMap<String, (u64, u64, String)> {
        let mut line = self.line();
        let mut found = BTreeMap::new();
        let mut answer = line.ask("dump").unwrap();
        while answer != "end" {
            let words: Vec<_> = answer.split(' ').collect();
            let cell = (words[1].parse().unwrap(), words[2].parse().unwrap(), words[3].to_string());
            found.insert(words[0].to_string(), cell);
            answer = line.read().unwrap();
        }
        found
    }
}

/// Processes that are one cluster.
pub(crate) struct Cluster {
    pub(crate) folder: Folder,
    pub(crate) nodes: Vec<Process>,
    flags: String,
}

impl Cluster {
    /// `count` nodes that have just become one. `flags` are those of `raftnode`, of the times and sizes.
    pub(crate) fn of(count: usize, flags: &str) -> Self {
        let mut cluster = Self { folder: Folder::new(), nodes: Vec::new(), flags: flags.to_string() };
        (0..count).for_each(|_| cluster.start_new(""));
        let members = cluster.nodes.iter().map(|node| format!("{}@{}", node.id, node.address));
        let members = members.collect::<Vec<_>>().join(",");
        assert_eq!(cluster.nodes[0].ask(&format!("init {members}")), "ok");
        cluster.leader();
        cluster
    }

    fn start_new(&mut self, more: &str) {
        let place = |what: &str| self.folder.path().join(format!("{}.{what}", self.nodes.len()));
        let node = Process {
            child: None,
            said: channel().1,
            data: place("data"),
            socket: place("socket"),
            address: "127.0.0.1:0".to_string(),
            id: String::new(),
            log: place("log"),
        };
        self.nodes.push(node);
        self.start(self.nodes.len() - 1, more);
    }

    /// Starts the process of a node that has none, at the address that it had.
    pub(crate) fn start(&mut self, at: usize, more: &str) {
        let program = Path::new(env!("CARGO_BIN_EXE_gristmill")).with_file_name("examples/raftnode");
        assert!(program.exists(), "cargo builds it for all tests, or by itself with: cargo build --example raftnode");
        let node = &mut self.nodes[at];
        let log = File::options().create(true).append(true).open(&node.log).unwrap();
        let mut command = self.folder.command(program);
        command.args(self.flags.split_whitespace()).args(["--listen", &node.address]).arg("--data").arg(&node.data);
        command.arg("--socket").arg(&node.socket).args(more.split_whitespace());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = channel();
        std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        (node.child, node.said) = (Some(child), told);
        let ready = node.says();
        let words: Vec<_> = ready.split(' ').collect();
        assert_eq!(words[0], "ready", "{ready}");
        (node.id, node.address) = (words[1].to_string(), words[2].to_string());
    }

    /// A new node that has joined.
    pub(crate) fn join(&mut self) -> usize {
        let leader = self.leader();
        self.start_new(&format!("--join {}", self.nodes[leader].address));
        let at = self.nodes.len() - 1;
        assert_eq!(self.nodes[at].says(), "joined");
        at
    }

    /// The node without a process gets an empty folder, and joins under the id that this makes.
    pub(crate) fn rejoin_empty(&mut self, at: usize) {
        fs::remove_dir_all(&self.nodes[at].data).unwrap();
        let leader = self.leader();
        self.start(at, &format!("--join {}", self.nodes[leader].address));
        assert_eq!(self.nodes[at].says(), "joined");
    }

    /// The node that leads, once a majority of those that are up agree on it.
    pub(crate) fn leader(&self) -> usize {
        let mut found = 0;
        until("a leader", || {
            let up: Vec<_> = self.nodes.iter().filter(|node| node.is_up()).filter_map(Process::status).collect();
            let leads = self.nodes.iter().position(|node| node.is_up() && node.status().is_some_and(|s| s.leads));
            found = leads.unwrap_or(0);
            leads.is_some_and(|at| up.iter().filter(|s| s.leader == self.nodes[at].id).count() * 2 > up.len())
        });
        found
    }

    /// Waits until all have applied the same, and compares it.
    pub(crate) fn agree(&self) -> String {
        let mut digests = Vec::new();
        until("all nodes to have the same state", || {
            digests = self.nodes.iter().filter(|node| node.is_up()).map(|node| node.ask("digest")).collect();
            let applied = |digest: &String| digest.split(' ').next().map(String::from);
            digests.iter().all(|digest| applied(digest) == applied(&digests[0]))
        });
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
        digests.swap_remove(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        for node in self.nodes.iter().filter(|node| panicking && node.is_up()) {
            let digest = Line::open(&node.socket).and_then(|mut line| line.ask("digest"));
            eprintln!("node {}: {:?}, {digest:?}", node.id, node.status());
        }
        self.nodes.iter_mut().for_each(Process::kill);
        if panicking {
            for node in &self.nodes {
                let log = fs::read_to_string(&node.log).unwrap_or_default();
                let end = log.len().saturating_sub(4000);
                eprintln!("node {} at {}:\n{}", node.id, node.address, log.get(end..).unwrap_or_default());
            }
        }
    }
}
