//! Every app through masters and workers, over every kind of input: what comes out is what a local run makes, byte by byte.

use super::nodes::{Cluster, manifest, parts, run_local, texts};
use crate::program::{Folder, gzip};

/// Jobs: an app with flags and inputs, and how its output is made.
const JOBS: [&str; 22] = [
    "wordcount books/ --reducers 3",
    "wordcount books/ --reducers 1 --ignore-case --input-format lines",
    "wordcount books/ packed/ --reducers 5 --unicode --compress zstd",
    "wordcount books/*.txt --reducers 17 --input-format whole",
    "grep gr[a-z]+s books/ --reducers 2",
    "grep gr[a-z]+s books/ --reducers 3 --lines",
    "grep corn books/ packed/ --reducers 2 --lines --with-filename --compress gzip",
    "sort books/ --reducers 4 --key 1-3",
    "sort books/ packed/ --reducers 3 --reverse --compress zstd",
    "sort rows.bin --reducers 4 --key 1-8 --input-format fixed:20",
    "sort names.nul --reducers 2 --input-format nul --unique",
    "sort table.tsv --reducers 3 --field 2 --numeric",
    "index books/ packed/ --reducers 3",
    "index books/ --reducers 4 --ids --compress gzip",
    "reverse-links books/ --reducers 3",
    "reverse-links books/0.txt books/1.txt --reducers 2 --input-format whole",
    "term-vector books/ --reducers 3",
    "term-vector books/ packed/ --reducers 2 --terms 3",
    "top books/ --reducers 1 --k 5",
    "top books/ packed/ --reducers 1 --k 1000 --compress zstd",
    "distinct books/ --reducers 3 --count",
    "distinct names.nul --reducers 5 --input-format nul",
];

/// Inputs of each kind.
fn inputs(folder: &Folder) {
    texts(folder, 60_000);
    let many = crate::program::many_words();
    folder.file("store/packed/a.txt.gz", gzip(many.as_bytes()));
    folder.file("store/packed/b.txt.zst", zstd::encode_all(many.as_bytes(), 1).unwrap());
    let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    folder.file("store/rows.bin", (0..120_000).map(|n| format!("{:020x}", scattered(n))).collect::<String>());
    folder.file(
        "store/names.nul",
        (0..100_000).map(|n| format!("name {}\n\0", scattered(n % 7_000))).collect::<String>(),
    );
    folder.file(
        "store/table.tsv",
        (0..100_000).map(|n| format!("row{n}\t{}\tx\n", scattered(n) % 5_000)).collect::<String>(),
    );
}

#[test]
fn every_app_gives_the_bytes_of_a_local_run() {
    let mut cluster = Cluster::of(3, 4);
    inputs(&cluster.folder);
    let submit = |(n, job): (usize, &&str)| cluster.submit(&format!("{job} --map-task-size 1MiB -o out/{n}"));
    let jobs: Vec<_> = JOBS.iter().enumerate().map(submit).collect();
    for (n, (job, what)) in jobs.iter().zip(JOBS).enumerate() {
        run_local(&cluster.folder, &format!("run {what} -q -o ../ref/{n}"));
        cluster.complete(job);
        let at = |place: &str| cluster.folder.path().join(format!("{place}/{n}"));
        let (got, want) = (at("store/out"), at("ref"));
        assert!(parts(&got) == parts(&want), "{what} differs from its local run");
        assert_eq!(manifest(&got), manifest(&want), "{what}");
    }
    let told = cluster.ask("jobs -o name").out;
    assert_eq!(told.lines().count(), JOBS.len());
    cluster.wait_until_cleared();
}

/// A new app is tested here as well.
#[test]
fn no_app_is_forgotten() {
    let help = Folder::new().out("run --help");
    let apps =
        help.split("\nApps:\n").nth(1).expect("a list of apps").lines().take_while(|line| !line.trim().is_empty());
    let mut seen = 0;
    // Those that users bring are in `usercode`.
    let elsewhere = |app: &&str| !["help", "python", "streaming", "wasm"].contains(app);
    for app in apps.filter_map(|line| line.split_whitespace().next()).filter(elsewhere) {
        let tested = JOBS.iter().filter(|job| job.split(' ').next() == Some(app)).count();
        assert!(tested >= 2, "{app} has {tested} jobs here");
        seen += 1;
    }
    assert!(seen >= 8, "{help}");
}
