//! What is said of jobs, and what becomes of them in the plain cases.

use std::fs;
use std::time::Duration;

use super::nodes::{Cluster, Node, parts, run_local, texts};
use crate::program::{Folder, until};

fn serve(folder: &Folder) -> Node {
    Node::start(folder, "serve", "data", "")
}

#[test]
fn what_cannot_be_is_said_and_what_was_asked_twice_is_done_once() {
    let folder = Folder::new();
    texts(&folder, 10);
    let node = serve(&folder);
    let ask = |arguments: &str| folder.run(&format!("{arguments} --at {}", node.address));
    let done = ask("submit wordcount nothing/ -o out/a");
    assert!(done.code == Some(3) && done.err.contains("no object in the store is called nothing/"), "{done:?}");
    let done = ask("submit grep a( books/ -o out/b");
    assert!(done.code == Some(2) && done.err.contains("a("), "{done:?}");
    let submit = "submit wordcount books/ -o out/c --key k --detach";
    let (first, again) = (ask(submit), ask(submit));
    assert_eq!((first.code, &first.out), (Some(0), &again.out));
    let done = ask("submit wordcount books/0.txt -o out/d --key k --detach");
    assert!(done.code == Some(1) && done.err.contains("the key was used for another job"), "{done:?}");
    let done = ask(&format!("job watch {}", first.out.trim()));
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = ask("submit wordcount books/ -o out/c");
    assert!(done.code == Some(3) && done.err.contains("exists"), "{done:?}");
    let done = ask("submit wordcount books/0.txt -o out/c --overwrite");
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = ask("job show 0000000000000001-7");
    assert!(done.code == Some(1) && done.err.contains("there is no job"), "{done:?}");
    // Nothing is left but outputs and histories.
    until("all jobs to be archived", || {
        let clusters = fs::read_dir(folder.path().join("store/.gristmill")).unwrap();
        let left = clusters.flat_map(|cluster| fs::read_dir(cluster.unwrap().path()).unwrap());
        left.map(|e| e.unwrap().file_name()).all(|name| ["history", "logs", ".ended"].iter().any(|kept| name == *kept))
    });
}

/// It is archived by then.
#[test]
fn a_failed_job_is_tried_again_once_its_input_is_there() {
    let folder = Folder::new();
    texts(&folder, 10);
    let node = serve(&folder);
    let ask = |arguments: &str| folder.run(&format!("{arguments} --at {}", node.address));
    assert_eq!(ask("submit wordcount late/ -o out").code, Some(3));
    let job = ask("jobs -o name").out.trim().to_string();
    std::thread::sleep(Duration::from_secs(2));
    folder.file("store/late/a.txt", "corn and rye\n");
    let again = ask(&format!("job retry {job}"));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(ask(&format!("job watch {}", again.out.trim())).code, Some(0));
    let shown = ask(&format!("job show -o json {}", again.out.trim()));
    assert!(shown.out.contains(&format!("\"retry_of\":\"{job}\"")), "{shown:?}");
    assert_eq!(folder.out("cat store/out"), "and\t1\ncorn\t1\nrye\t1\n");
    let done = ask(&format!("job retry {}", again.out.trim()));
    assert!(done.code == Some(1) && done.err.contains("neither failed nor been cancelled"), "{done:?}");
}

/// What joins never makes a cluster of its own under the same id.
#[test]
fn a_folder_that_was_to_join_does_not_begin_a_cluster() {
    let folder = Folder::new();
    folder.file("m2/cluster", "00000000000000aa joining\n");
    let done = folder.run("master --data m2 --listen 127.0.0.1:0");
    assert!(done.code == Some(1) && done.err.contains("give --join again"), "{done:?}");
}

/// Three masters, two workers: the leader and a worker are killed while a job runs.
#[test]
fn a_job_outlives_its_leader_and_a_worker() {
    let mut cluster = Cluster::of(3, 2);
    texts(&cluster.folder, 250_000);
    let job = cluster.submit("index books/ -o out --reducers 4 --map-task-size 1MiB");
    let runs = |cluster: &mut Cluster| {
        let shown = cluster.ask(&format!("job show {job} -o json")).out;
        ["mapping", "shuffling", "reducing"].iter().any(|state| shown.contains(&format!("\"state\":\"{state}\"")))
    };
    until("the job to run", || runs(&mut cluster));
    cluster.masters[0].kill();
    until("another master to lead, and the job to run", || runs(&mut cluster));
    cluster.workers[0].kill();
    cluster.complete(&job);
    run_local(&cluster.folder, "run index books/ --reducers 4 -q -o ../ref");
    let (got, want) = (cluster.folder.path().join("store/out"), cluster.folder.path().join("ref"));
    assert!(parts(&got) == parts(&want), "another output");
}
