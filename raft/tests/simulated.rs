//! The same node on a single-threaded runtime with virtual time, as the simulator has it: it works, and the same seed
//! gives the same run.

use std::io;
use std::time::Duration;

use gristmill_raft::model::{Disk, Faults, ModelFiles, ModelKv};
use gristmill_raft::net::{Peer, Switchboard};
use gristmill_raft::node::Disks;
use gristmill_raft::runtime::{AsyncRuntime as _, Instant as _};
use gristmill_raft::{Env, Node, Options, StateMachine};
use openraft_rt_sim::{SimInstant, SimRuntime};

/// A sum, and how many numbers it is of.
#[derive(Debug, Default, Clone, PartialEq)]
struct Sum {
    count: u64,
    sum: u64,
}

impl StateMachine for Sum {
    type View = std::iter::Once<Vec<u8>>;

    fn apply(&mut self, index: u64, command: &[u8]) -> std::io::Result<Vec<u8>> {
        self.count += 1;
        self.sum = self.sum.wrapping_mul(31) ^ index ^ u64::from(command[0]);
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Self::View {
        std::iter::once([self.count.to_be_bytes(), self.sum.to_be_bytes()].concat())
    }

    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()> {
        let mut number = || {
            let mut bytes = [0; 8];
            snapshot.read_exact(&mut bytes).map(|()| u64::from_be_bytes(bytes))
        };
        (self.count, self.sum) = (number()?, number()?);
        Ok(())
    }
}

struct World;

impl Env for World {
    type Rt = SimRuntime;
    type Net = Switchboard<SimRuntime>;
    type Kv = ModelKv<SimRuntime>;
    type Files = ModelFiles<SimRuntime>;
}

type SimNode = Node<World, Sum>;

async fn start(disk: &Disk<SimRuntime>, net: &Switchboard<SimRuntime>) -> SimNode {
    let (kv, files) = disk.boot();
    let options = Options { snapshot_bytes: 200, kept_entries: 10, ..Options::new(7) };
    let node = SimNode::start(Disks { kv, files }, |me| net.line(me.node), Sum::default(), &options).await.unwrap();
    net.connect(node.identity().node, node.clone());
    node
}

async fn leader(nodes: &[SimNode]) -> usize {
    loop {
        if let Some(at) = nodes.iter().position(|node| node.watch().now().here) {
            return at;
        }
        SimRuntime::sleep(Duration::from_millis(3)).await;
    }
}

/// Three nodes, of which the leader loses power ten times. Gives the final states and the virtual time it took.
async fn story(seed: u64) -> (Vec<Sum>, Duration) {
    let net = Switchboard::default();
    let ms = Duration::from_micros;
    let disks: Vec<_> = (0..3).map(|at| Disk::new(seed * 3 + at)).collect();
    let mut nodes = Vec::new();
    for disk in &disks {
        disk.set_faults(Faults { sync_min: ms(200), sync_max: ms(5000), ..Faults::default() });
        nodes.push(start(disk, &net).await);
    }
    let peers: Vec<_> = nodes.iter().map(|node| Peer { id: node.identity().node, address: String::new() }).collect();
    nodes[0].initialize(&peers).await.unwrap();
    let mut acknowledged = 0;
    for round in 0..10_u8 {
        for _ in 0..20 {
            let at = leader(&nodes).await;
            let proposal = nodes[at].propose(vec![round; 8]);
            match SimRuntime::timeout(Duration::from_secs(1), proposal).await {
                Ok(Ok(_)) => acknowledged += 1,
                // A new leader refuses until a quorum has confirmed it.
                _ => SimRuntime::sleep(Duration::from_millis(20)).await,
            }
        }
        let at = leader(&nodes).await;
        net.disconnect(peers[at].id);
        disks[at].crash();
        nodes[at].stop().await;
        nodes[at] = start(&disks[at], &net).await;
    }
    let at = leader(&nodes).await;
    let count = nodes[at].read(|state| state.count).await.unwrap();
    assert!(count >= acknowledged && acknowledged > 100, "{acknowledged} acknowledged, {count} applied");
    for node in &nodes {
        while node.read_stale(|state| state.count) < count {
            SimRuntime::sleep(Duration::from_millis(3)).await;
        }
    }
    let states: Vec<_> = nodes.iter().map(|node| node.read_stale(Clone::clone)).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    (states, SimInstant::now().elapsed_since_start())
}

/// A hash over all that the runtime did, with the outcome.
fn run(seed: u64) -> (u64, Vec<Sum>, Duration) {
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.record_trace(true);
    let (states, time) = runtime.block_on(story(seed));
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in runtime.take_trace().iter().flat_map(|event| event.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash, states, time)
}

#[test]
fn a_run_follows_from_its_seed() {
    let mut hashes = Vec::new();
    for seed in 0..4 {
        let (first, again) = (run(seed), run(seed));
        assert_eq!(first, again, "seed {seed}");
        hashes.push(first.0);
        eprintln!("seed {seed}: {:?} of virtual time, trace {:016x}", first.2, first.0);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 4, "other seeds give other runs");
}
