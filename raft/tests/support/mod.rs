//! A cluster in one process over modelled disks and a switchboard, for tests of nodes.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use gristmill_raft::model::{Disk, Faults, ModelFiles, ModelKv};
use gristmill_raft::net::{Peer, Switchboard};
use gristmill_raft::node::{Beginning, Disks, Options, begin};
use gristmill_raft::runtime::AsyncRuntime as _;
use gristmill_raft::{Env, Error, Node, StateMachine};
use openraft_rt_tokio::TokioRuntime;

/// What no build understands.
pub(crate) const UNKNOWN: &[u8] = b"from a later release";

/// Everything that was applied, in order. A command of the same first eight bytes counts once. [`UNKNOWN`] is refused.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Ledger {
    pub(crate) commands: Vec<Vec<u8>>,
}

impl StateMachine for Ledger {
    type View = std::vec::IntoIter<Vec<u8>>;

    fn apply(&mut self, _: u64, command: &[u8]) -> std::io::Result<Vec<u8>> {
        if command == UNKNOWN {
            return Err(io::Error::other("this build does not know the command; start a newer one"));
        }
        let key = |command: &[u8]| command.iter().take(8).copied().collect::<Vec<_>>();
        if !self.commands.iter().any(|old| key(old) == key(command)) {
            self.commands.push(command.to_vec());
        }
        Ok(self.commands.len().to_be_bytes().to_vec())
    }

    fn snapshot(&self) -> Self::View {
        let frame = |c: &Vec<u8>| [&u32::try_from(c.len()).unwrap().to_be_bytes()[..], c].concat();
        self.commands.iter().map(frame).collect::<Vec<_>>().into_iter()
    }

    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()> {
        self.commands.clear();
        loop {
            let mut length = [0; 4];
            match snapshot.read_exact(&mut length) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            let mut command = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            snapshot.read_exact(&mut command)?;
            self.commands.push(command);
        }
    }
}

pub(crate) struct World;

impl Env for World {
    type Rt = TokioRuntime;
    type Net = Switchboard<TokioRuntime>;
    type Kv = ModelKv<TokioRuntime>;
    type Files = ModelFiles<TokioRuntime>;
}

pub(crate) type TestNode = Node<World, Ledger>;

pub(crate) struct Cluster {
    net: Switchboard<TokioRuntime>,
    disks: Vec<Disk<TokioRuntime>>,
    nodes: BTreeMap<usize, TestNode>,
}

const CLUSTER: u64 = 7;

pub(crate) fn run<F: Future>(work: F) -> F::Output {
    TokioRuntime::new(2)
        .block_on(async { tokio::time::timeout(Duration::from_secs(100), work).await.expect("the test does not end") })
}

pub(crate) fn options(cluster: u64) -> Options {
    let ms = Duration::from_millis;
    // Room for a machine that is busy with other tests.
    let (heartbeat, election_min, election_max) = (ms(50), ms(250), ms(400));
    Options {
        snapshot_bytes: 300_000,
        kept_entries: 20,
        heartbeat,
        election_min,
        election_max,
        ..Options::new(cluster)
    }
}

impl Cluster {
    /// A new cluster of `size` nodes with a leader.
    pub(crate) async fn of(size: usize) -> Self {
        let mut cluster = Self { net: Switchboard::default(), disks: Vec::new(), nodes: BTreeMap::new() };
        for _ in 0..size {
            cluster.add().await;
        }
        let peers: Vec<_> = (0..size).map(|at| cluster.peer(at)).collect();
        cluster.node(0).initialize(&peers).await.unwrap();
        assert!(matches!(cluster.node(0).initialize(&peers).await, Err(Error::Refused(_))), "once");
        cluster.leader().await;
        cluster
    }

    /// A cluster of one node that begins with this state.
    pub(crate) async fn begun(state: &Ledger, term: u64, index: u64) -> Self {
        let disk = Disk::new(100);
        let (kv, files) = disk.boot();
        let disks = Disks { kv, files };
        let beginning = Beginning { cluster: CLUSTER, address: "node-0".into(), term, index };
        begin::<TokioRuntime, _, _>(&disks, &beginning, &mut state.snapshot()).await.unwrap();
        let again = begin::<TokioRuntime, _, _>(&disks, &beginning, &mut state.snapshot()).await;
        assert!(matches!(again, Err(Error::Refused(_))), "a node's folder is not begun with");
        let mut cluster = Self { net: Switchboard::default(), disks: vec![disk], nodes: BTreeMap::new() };
        cluster.restart(0).await;
        cluster
    }

    /// Starts one more node on an empty disk; it is not yet a member.
    pub(crate) async fn add(&mut self) -> usize {
        let at = self.disks.len();
        let disk = Disk::new(at as u64 + 100);
        let ms = Duration::from_micros;
        disk.set_faults(Faults { sync_min: ms(100), sync_max: ms(900), ..Faults::default() });
        self.disks.push(disk);
        self.restart(at).await;
        at
    }

    pub(crate) async fn start_as(&mut self, at: usize, cluster: u64) -> Result<TestNode, String> {
        let (kv, files) = self.disks[at].boot();
        let disks = Disks { kv, files };
        let connect = |identity: gristmill_raft::Identity| self.net.line(identity.node);
        let started = TestNode::start(disks, connect, Ledger::default(), &options(cluster)).await;
        started.map_err(|error| {
            let mut text = error.to_string();
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                text = format!("{text}: {cause}");
                next = cause.source();
            }
            text
        })
    }

    pub(crate) async fn restart(&mut self, at: usize) {
        let node = self.start_as(at, CLUSTER).await.unwrap();
        self.net.connect(node.identity().node, node.clone());
        self.nodes.insert(at, node);
    }

    /// The machine of a node loses power.
    pub(crate) async fn crash(&mut self, at: usize) {
        self.disks[at].crash();
        let node = self.nodes.remove(&at).unwrap();
        self.net.disconnect(node.identity().node);
        node.stop().await;
    }

    pub(crate) fn wipe(&self, at: usize) {
        self.disks[at].wipe();
    }

    pub(crate) fn set_faults(&self, at: usize, faults: Faults) {
        self.disks[at].set_faults(faults);
    }

    pub(crate) fn node(&self, at: usize) -> &TestNode {
        &self.nodes[&at]
    }

    pub(crate) fn peer(&self, at: usize) -> Peer {
        Peer { id: self.node(at).identity().node, address: format!("node-{at}") }
    }

    pub(crate) fn cut(&self, a: usize, b: usize) {
        let (a, b) = (self.node(a).identity().node, self.node(b).identity().node);
        self.net.cut(a, b);
        self.net.cut(b, a);
    }

    pub(crate) fn heal(&self) {
        self.net.heal();
    }

    /// The node that leads, once there is one.
    pub(crate) async fn leader(&self) -> usize {
        loop {
            let mut leaders: Vec<_> = self.nodes.iter().map(|(at, node)| (node.watch().now(), *at)).collect();
            leaders.retain(|(seen, _)| seen.here);
            if let Some((_, at)) = leaders.into_iter().max_by_key(|(seen, _)| seen.term) {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Proposes command `n` until it is acknowledged.
    pub(crate) async fn put(&mut self, n: u64) {
        self.put_bytes(n, 8).await;
    }

    pub(crate) async fn put_bytes(&mut self, n: u64, bytes: usize) {
        let mut command = n.to_be_bytes().to_vec();
        command.resize(bytes, 1);
        loop {
            let leader = self.leader().await;
            let proposal = self.node(leader).propose(command.clone());
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), proposal).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a node has purged entries.
    pub(crate) async fn purged(&self, at: usize) {
        while self.node(at).metrics().purged.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all nodes have applied `count` commands, and compares them.
    pub(crate) async fn settle(&self, count: usize) {
        for node in self.nodes.values() {
            while node.read_stale(|state| state.commands.len()) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let states: Vec<_> = self.nodes.values().map(|node| node.read_stale(Clone::clone)).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "the states differ");
        let mut numbers: Vec<_> = states[0].commands.iter().map(|c| c[..8].to_vec()).collect();
        numbers.sort();
        assert_eq!(numbers, (0..count as u64).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
    }
}
