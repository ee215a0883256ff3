//! `gristmill raft` on folders and against running nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::nodes::Cluster;
use crate::program::{Folder, until};

/// Everything below a folder, with times.
fn everything(folder: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else {
            let time = path.metadata().unwrap().modified().unwrap();
            found.insert(path.display().to_string(), (fs::read(&path).unwrap(), time));
        }
    }
    found
}

/// A node of one with some writes and a snapshot, whose process has ended.
fn node_of_one() -> Cluster {
    let mut cluster = Cluster::of(1, "");
    for n in 0..20 {
        assert!(cluster.nodes[0].ask(&format!("put k{n} v")).starts_with("ok"));
    }
    assert_eq!(cluster.nodes[0].ask("snapshot"), "ok");
    assert!(cluster.nodes[0].ask("put more v").starts_with("ok"));
    cluster.nodes[0].kill();
    cluster
}

#[test]
fn inspect_tells_what_is_in_a_folder_and_leaves_it_alone() {
    let cluster = node_of_one();
    let f = Folder::new();
    let (node, before) = (&cluster.nodes[0], everything(&cluster.nodes[0].data));
    let data = node.data.display();
    let told = f.out(&format!("raft inspect {data}"));
    for part in [&node.id, &node.address, "vote ", "log ", "snapshot ", "voter ", "size ", "checks "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let json: serde_json::Value = serde_json::from_str(&f.out(&format!("raft inspect {data} --json"))).unwrap();
    assert_eq!((&json["ok"], &json["node"]), (&true.into(), &node.id.clone().into()), "{json}");
    assert_eq!(json["voters"][0]["address"], node.address, "{json}");
    assert!(json["last"]["index"].as_u64() >= json["snapshot"]["last"]["index"].as_u64(), "{json}");
    assert!(everything(&node.data) == before, "inspect wrote to the folder");
}

#[test]
fn inspect_says_how_to_go_on_without_what_is_lost() {
    let cluster = node_of_one();
    let f = Folder::new();
    let node = &cluster.nodes[0];
    let data = node.data.display();
    let snapshot =
        fs::read_dir(&node.data).unwrap().flatten().find(|e| e.file_name().to_string_lossy().starts_with("snapshot-"));
    let snapshot = snapshot.unwrap().path();
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    let ended = f.run(&format!("raft inspect {data}"));
    assert_eq!((ended.code, ended.err.lines().count()), (Some(1), 1), "{ended:?}");
    for part in ["expected", "found", &format!("gristmill raft remove {} --at", node.id)] {
        assert!(ended.err.contains(part), "{part}: {ended:?}");
    }
    let ended = f.run(&format!("raft inspect {data} --json"));
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, &json["ok"], &json["node"]), (Some(1), &false.into(), &node.id.clone().into()), "{json}");
    assert!(
        json["error"].as_str().unwrap().contains("found") && json["rejoin"].as_array().unwrap().len() == 3,
        "{json}"
    );
}

#[test]
fn inspect_needs_a_folder_of_a_node_that_does_not_run() {
    let mut cluster = Cluster::of(1, "");
    let f = Folder::new();
    let ended = f.run(&format!("raft inspect {}", cluster.nodes[0].data.display()));
    assert!(ended.code == Some(1) && ended.err.contains("process"), "{ended:?}");
    cluster.nodes[0].kill();
    for (folder, part) in [("nowhere", "nowhere"), (".", "identity")] {
        let ended = f.run(&format!("raft inspect {folder}"));
        assert!(ended.code == Some(1) && ended.err.contains(part), "{ended:?}");
        assert_eq!(f.names("."), [""; 0], "inspect wrote to the folder");
    }
}

#[test]
fn members_are_told_removed_and_given_the_lead() {
    let mut cluster = Cluster::of(3, "");
    let f = Folder::new();
    let leader = cluster.leader();
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let at = cluster.nodes[follower].address.clone();
    let told = f.out(&format!("raft members --at {at}"));
    for node in &cluster.nodes {
        assert!(told.contains(&format!("{}  {}", node.id, node.address)), "{told}");
    }
    assert_eq!(told.matches("leader").count(), 1, "{told}");
    // Asked at a follower, done by the leader.
    let heir = &cluster.nodes[follower].id;
    let said = f.out(&format!("raft transfer {heir} --at {at}"));
    assert!(said.contains(heir), "{said}");
    until("the heir to lead", || cluster.nodes[follower].status().is_some_and(|status| status.leads));
    let ended = f.run(&format!("raft remove 123 --at {at}"));
    assert!(ended.code == Some(1) && ended.err.contains("node 0000000000000123 is not a member"), "{ended:?}");
    // A lost node is removed by the two that are left.
    cluster.nodes[other].kill();
    let lost = cluster.nodes[other].id.clone();
    f.out(&format!("raft remove {lost} --at {at}"));
    let json: serde_json::Value = serde_json::from_str(&f.out(&format!("raft members --at {at} --json"))).unwrap();
    let ids: Vec<_> = json["members"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert!(ids.len() == 2 && !ids.contains(&lost.as_str()), "{json}");
}

#[test]
fn nodes_that_are_not_there_or_far_away_are_told_apart() {
    let f = Folder::new();
    let cases = [
        ("raft members --at 127.0.0.1:1", 1, "127.0.0.1:1"),
        ("raft members --at 10.0.0.1:7070", 1, "--insecure"),
        ("raft members --at nonsense", 1, "HOST:PORT"),
        ("raft remove xyz --at 127.0.0.1:1", 2, "16 hexadecimal digits"),
        ("raft remove 1 --at 127.0.0.1:1 --context prod", 2, "cannot be used with"),
    ];
    for (args, code, part) in cases {
        let ended = f.run(args);
        assert!(ended.code == Some(code) && ended.err.contains(part), "{args}: {ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{args}: {ended:?}");
    }
}
