//! How nodes begin and end: where they are, whose folder it is, masters that begin a cluster together, signals.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::process::Signal;

use crate::cluster::nodes::{logged_in, users};
use crate::process::Process;
use crate::program::{Folder, until};

/// An address of this machine that no other test has.
fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, b, c, d] = (std::process::id() * 64 + NEXT.fetch_add(1, Relaxed)).to_be_bytes();
    format!("127.{b}.{c}.{d}:7470")
}

/// Masters `m0` to `m2` that are told of each other, and one more address.
struct Three {
    folder: Folder,
    at: [String; 4],
    nodes: Vec<Process>,
}

impl Three {
    fn new() -> Self {
        Self { folder: Folder::new(), at: std::array::from_fn(|_| address()), nodes: Vec::new() }
    }

    fn start(&mut self, n: usize) -> Process {
        let (at, peers) = (&self.at[n], self.at[..3].join(","));
        let arguments =
            format!("master --data m{n} --store store --listen {at} --peers {peers} --cluster-token t --no-login");
        Process::start(&self.folder, &format!("m{n}"), &arguments)
    }

    /// All of them, ready.
    fn ready() -> Self {
        let mut three = Self::new();
        let mut nodes: Vec<Process> = (0..3).map(|n| three.start(n)).collect();
        nodes.iter_mut().for_each(|node| node.says("is ready"));
        three.nodes = nodes;
        three
    }

    /// Whether a master sees a cluster with a quorum whose members are at these addresses.
    fn members(&self, asked: usize, at: &[usize]) -> bool {
        let status = self.folder.run(&format!("cluster status -o json --at {}", self.at[asked]));
        let told = |n: usize| status.out.contains(&format!("\"{}\"", self.at[n]));
        status.code == Some(0) && (0..self.at.len()).all(|n| told(n) == at.contains(&n))
    }
}

#[test]
fn masters_begin_a_cluster_together_and_a_lost_folder_joins_it() {
    let mut three = Three::new();
    let (mut first, mut second) = (three.start(0), three.start(1));
    first.says("waits for the other masters");
    second.says("waits for the other masters");
    assert!(!first.has_said("is ready") && !second.has_said("is ready"), "two of three make no cluster");
    let mut third = three.start(2);
    [&mut first, &mut second, &mut third].into_iter().for_each(|node| node.says("is ready"));
    until("all three to be members", || three.members(1, &[0, 1, 2]));
    let cluster = three.folder.read("m0/cluster");
    // Whoever it was that made the cluster: without its folder it makes no second one.
    for n in 0..3 {
        let node = [&mut first, &mut second, &mut third].into_iter().nth(n).unwrap();
        node.kill();
        fs::remove_dir_all(three.folder.path().join(format!("m{n}"))).unwrap();
        *node = three.start(n);
        node.says("is ready");
        assert_eq!(three.folder.read(&format!("m{n}/cluster")), cluster);
        until("the old member to be gone", || {
            let members = three.folder.out(&format!("raft members --at {}", three.at[n]));
            three.members(n, &[0, 1, 2]) && members.matches(":7470").count() == 3
        });
    }
}

#[test]
fn masters_that_were_told_otherwise_do_not_begin_together() {
    let mut three = Three::new();
    let mut first = three.start(0);
    let arguments = format!(
        "master --data m1 --no-login --store store --listen {} --peers {}",
        three.at[1],
        three.at[..2].join(",")
    );
    let mut second = Process::start(&three.folder, "m1", &arguments);
    first.says("was told other peers or another token");
    second.says("was told other peers or another token");
    // They wait, and notice all the same that they are to end.
    for node in [&mut first, &mut second] {
        node.signal(Signal::TERM);
        assert_eq!(node.ended(), Some(0));
    }
}

/// Kubernetes starts those that are new before it tells the one that is there of them.
#[test]
fn masters_join_a_cluster_that_one_began_alone() {
    let three = Three::new();
    let start = |n: usize, peers: &[String], token: &str| {
        let (at, peers) = (&three.at[n], peers.join(","));
        let arguments = format!(
            "master --data m{n} --no-login --store store --listen {at} --peers {peers} --cluster-token {token}"
        );
        Process::start(&three.folder, &format!("m{n}"), &arguments)
    };
    let mut first = start(0, &three.at[..1], "a");
    first.says("is ready");
    let mut other = start(1, &three.at[..3], "b");
    other.says("is of a cluster with another token");
    other.kill();
    let mut joined = [1, 2].map(|n| start(n, &three.at[..3], "a"));
    joined.iter_mut().for_each(|node| node.says("is ready"));
    until("all three to be members", || three.members(1, &[0, 1, 2]));
}

#[test]
fn a_master_that_comes_back_elsewhere_is_found_there() {
    let mut three = Three::ready();
    three.nodes[2].kill();
    let arguments = format!("master --data m2 --no-login --store store --listen {}", three.at[3]);
    three.nodes[2] = Process::start(&three.folder, "m2", &arguments);
    until("the members to know where it is", || three.members(0, &[0, 1, 3]));
    // Without it there is no quorum any more.
    three.nodes[1].kill();
    until("the others to speak with it", || three.members(0, &[0, 1, 3]));
}

#[test]
fn a_leading_master_hands_over_when_it_is_told_to_end() {
    let mut three = Three::ready();
    let leads = |three: &Three| three.nodes.iter().rposition(|node| node.has_said("leads in term")).unwrap();
    let n = leads(&three);
    three.nodes[n].signal(Signal::TERM);
    assert_eq!(three.nodes[n].ended(), Some(0));
    until("another one to lead", || three.members((n + 1) % 3, &[0, 1, 2]));
}

#[test]
fn a_node_has_its_folder_for_itself_and_an_address_that_can_be_reached() {
    let folder = Folder::new();
    let mut node = Process::start(&folder, "serve", "serve --data data --no-login --listen 127.0.0.1:0");
    node.says("is ready");
    let refusals = [
        ("worker --data data --masters 127.0.0.1:1", "another process runs a node on data; end that one first"),
        ("master --data m --listen 0.0.0.0:0 --insecure", "tell with --advertise HOST:PORT"),
        (
            "master --data m --no-login --listen 127.0.0.1:0 --peers 127.0.0.1:1,127.0.0.1:2",
            "does not name this master",
        ),
        ("master --data m --listen 127.0.0.1:0 --peers 127.0.0.1:1,127.0.0.1:2", "--node-secret"),
        ("master --data m --join 127.0.0.1:1 --peers 127.0.0.1:1", "cannot be used with"),
    ];
    for (arguments, told) in refusals {
        let mut refused = Process::start(&folder, "refused", arguments);
        refused.says(told);
        assert_ne!(refused.ended(), Some(0), "{arguments}");
    }
    let dead = folder.file("other/store/.gristmill-tmp/dead", "half of an obj");
    let users = users(&folder);
    let arguments = format!("serve --data other --listen 0.0.0.0:0 --advertise localhost:0 --insecure{users}");
    let mut other = Process::start(&folder, "other", &arguments);
    other.says("serve at localhost:");
    assert!(!dead.exists(), "what a writer left that died");
    folder.file("other/store/in/a.txt", "corn and rye\n");
    let at = other.ready();
    logged_in(&folder, &format!("--at {at}"));
    assert_eq!(folder.run(&format!("submit wordcount in/ -o out --at {at}")).code, Some(0));
}

#[test]
fn a_worker_drains_and_a_second_signal_ends_what_cannot() {
    let folder = Folder::new();
    let at = address();
    let mut master = Process::start(&folder, "m", &format!("master --data m --no-login --store store --listen {at}"));
    master.says("is ready");
    let worker = |name: &str| {
        let arguments = format!("worker --data {name} --store store --masters {at} --name {name} --slots 1");
        let mut node = Process::start(&folder, name, &arguments);
        node.says("registered");
        node
    };
    let (mut one, mut two) = (worker("w1"), worker("w2"));
    one.signal(Signal::TERM);
    assert_eq!(one.ended(), Some(0));
    // Two of one name, of two folders.
    let arguments = format!("worker --data w3 --store store --masters {at} --name w2");
    let mut namesake = Process::start(&folder, "w3", &arguments);
    namesake.says("give this one another --name");
    namesake.signal(Signal::TERM);
    assert_eq!(namesake.ended(), Some(0), "it holds nothing");
    master.kill();
    until("the second signal to end it", || {
        two.signal(Signal::TERM);
        !two.is_up()
    });
    assert_eq!(two.ended(), Some(143));
}
