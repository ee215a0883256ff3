//! A rolling upgrade: masters of an old and a new build in one cluster, while jobs run. The new build is the same program
//! that understands one more feature level.

use rustix::process::Signal;

use super::nodes::{Cluster, parts, run_local, texts};
use super::outputs::Watch;
use crate::program::until;

const JOB: &str = "index books/ --reducers 3 --map-task-size 1MiB";

fn level(cluster: &mut Cluster) -> u64 {
    let shown = cluster.ask("cluster status -o json").out;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{e}: {shown}"));
    shown["feature_level"].as_u64().unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn the_level_rises_once_all_masters_are_new_and_an_old_one_then_ends_with_a_clear_word() {
    let mut cluster = Cluster::of(3, 2);
    texts(&cluster.folder, 60_000);
    run_local(&cluster.folder, "run index books/ --reducers 3 -q -o ../ref");
    let (store, folder) = (cluster.folder.path().join("store"), cluster.folder.path().to_path_buf());
    let watch = Watch::of(store.join("out"));
    let mut jobs = Vec::new();
    for master in 0..3 {
        assert_eq!(level(&mut cluster), 1, "before master {master} is new");
        jobs.push(cluster.submit(&format!("{JOB} -o out/{master}")));
        cluster.masters[master].signal(Signal::TERM);
        assert_eq!(cluster.masters[master].wait(), Some(0), "it hands over and ends");
        cluster.masters[master].set("GRISTMILL_LEVEL", "2");
        cluster.masters[master].begin(&folder);
    }
    until("all masters to be of the new level", || level(&mut cluster) == 2);
    jobs.push(cluster.submit(&format!("{JOB} -o out/3")));
    for (n, job) in jobs.iter().enumerate() {
        cluster.complete(job);
        assert!(parts(&store.join(format!("out/{n}"))) == parts(&folder.join("ref")), "job {n} has another output");
    }
    // Back to the old build: it knows that it must not go on, and says so.
    cluster.masters[2].kill();
    cluster.masters[2].set("GRISTMILL_LEVEL", "1");
    cluster.masters[2].spawn(&folder);
    assert_eq!(cluster.masters[2].wait(), Some(1));
    assert!(cluster.masters[2].has_said("needs feature level 2, this build has 1; start a newer one here"));
    cluster.masters[2].set("GRISTMILL_LEVEL", "2");
    cluster.masters[2].begin(&folder);
    cluster.wait_until_cleared();
    watch.end();
}
