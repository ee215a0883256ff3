//! Both implementations of the disk seam: the suite, and the same random work on both with the same results.

use std::collections::BTreeMap;

use gristmill_raft::disk::{Batch, Files as _, Folder, Kv, SledKv};
use gristmill_raft::model::{Disk, Faults, ModelKv};
use gristmill_raft::runtime::AsyncRuntime as _;
use gristmill_raft::suite;
use openraft_rt_tokio::TokioRuntime;
use proptest::prelude::*;

fn run<F: Future>(work: F) -> F::Output {
    TokioRuntime::new(2).block_on(work)
}

#[test]
fn sled_does_what_a_kv_does() {
    let dir = tempfile::tempdir().unwrap();
    run(async { suite::kv(SledKv::open(&dir.path().join("db")).unwrap()).await });
}

#[test]
fn a_model_does_what_a_kv_does() {
    run(async { suite::kv(Disk::<TokioRuntime>::new(1).boot().0).await });
}

#[test]
fn a_slow_model_does_what_a_kv_does() {
    let disk = Disk::<TokioRuntime>::new(2);
    let ms = std::time::Duration::from_millis;
    disk.set_faults(Faults { sync_min: ms(1), sync_max: ms(4), ..Faults::default() });
    run(async {
        let (kv, files) = disk.boot();
        suite::files(files).await;
        suite::kv(kv).await;
    });
}

#[test]
fn folders_do_what_files_do() {
    let dir = tempfile::tempdir().unwrap();
    run(async { suite::files(Folder::open(dir.path()).unwrap()).await });
}

/// A snapshot that is still being written when a node has stopped must not meet the next node's.
#[test]
fn a_closed_folder_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let folder = Folder::open(dir.path()).unwrap();
        let last = folder.append("file", vec![1; 1 << 20]);
        let closed = folder.close();
        closed.await;
        last.await.unwrap();
        let next = Folder::open(dir.path()).unwrap();
        assert!(folder.append("file", vec![2]).await.is_err());
        assert!(folder.overwrite("mark", 0, vec![2]).await.is_err());
        assert!(folder.remove("file").await.is_err());
        assert_eq!(next.list().unwrap().iter().map(|file| file.bytes).collect::<Vec<_>>(), [1 << 20]);
    });
}

#[test]
fn modelled_files_do_what_files_do() {
    run(async { suite::files(Disk::<TokioRuntime>::new(1).boot().1).await });
}

#[test]
fn sled_keeps_what_it_has_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    run(async {
        let kv = SledKv::open(&path).unwrap();
        let mut batch = Batch::default();
        batch.put("a", "1");
        kv.write(batch).await.unwrap();
        kv.barrier().await.unwrap();
        assert!(SledKv::open(&path).is_err(), "one at a time");
        kv.close().await;
        assert_eq!(SledKv::open(&path).unwrap().get(b"a").unwrap(), Some(b"1".to_vec()));
    });
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, Option<u8>)>),
    Barrier,
    Get(u8),
    Range(u8, u8, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..24_u8, proptest::option::of(any::<u8>()));
    prop_oneof![
        4 => proptest::collection::vec(change, 0..12).prop_map(Step::Write),
        1 => Just(Step::Barrier),
        2 => (0..24_u8).prop_map(Step::Get),
        2 => (0..25_u8, 0..25_u8, 0..30_usize).prop_map(|(a, b, n)| Step::Range(a, b, n)),
    ]
}

fn batch(changes: &[(u8, Option<u8>)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(vec![*key], vec![*value; usize::from(*value) * 16]),
            None => batch.delete(vec![*key]),
        }
    }
    batch
}

/// What a step shows of the store.
async fn show<K: Kv>(kv: &K, step: &Step) -> Vec<(Vec<u8>, Vec<u8>)> {
    match step {
        Step::Write(changes) => kv.write(batch(changes)).await.map(|()| Vec::new()).unwrap(),
        Step::Barrier => kv.barrier().await.map(|()| Vec::new()).unwrap(),
        Step::Get(key) => kv.get(&[*key]).unwrap().map(|value| (vec![*key], value)).into_iter().collect(),
        Step::Range(from, to, limit) => kv.range(&[*from], &[*to], *limit).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sled_and_the_model_agree(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let (sled, (model, _)) = (SledKv::open(dir.path()).unwrap(), Disk::<TokioRuntime>::new(1).boot());
            for step in &steps {
                assert_eq!(show(&sled, step).await, show(&model, step).await, "{step:?}");
            }
            sled.close().await;
        });
    }

    #[test]
    fn a_crash_leaves_a_prefix_that_covers_the_last_barrier(
        steps in proptest::collection::vec(step(), 1..60), seed in any::<u64>(),
    ) {
        run(async {
            let disk = Disk::<TokioRuntime>::new(seed);
            let (kv, _) = disk.boot();
            let mut states = vec![BTreeMap::new()];
            let mut covered = 0;
            for step in &steps {
                match step {
                    Step::Write(_) => {
                        show(&kv, step).await;
                        states.push(kv.range(&[], &[255], 99).unwrap().into_iter().collect());
                    }
                    Step::Barrier => {
                        show(&kv, step).await;
                        covered = states.len() - 1;
                    }
                    _ => {}
                }
            }
            disk.crash();
            assert!(kv.get(b"a").is_err(), "a handle from before the crash is dead");
            let left: BTreeMap<_, _> = disk.boot().0.range(&[], &[255], 99).unwrap().into_iter().collect();
            assert!(states[covered..].contains(&left), "not a prefix: {left:?}");
        });
    }
}

async fn write_100(kv: &ModelKv<TokioRuntime>, value: u8) {
    let mut batch = Batch::default();
    (0..100_u8).for_each(|key| batch.put(vec![key], vec![value]));
    kv.write(batch).await.unwrap();
}

#[test]
fn a_torn_batch_a_flipped_bit_and_a_rollback_show() {
    run(async {
        let disk = Disk::<TokioRuntime>::new(7);
        let (kv, _) = disk.boot();
        for value in 1..=3 {
            write_100(&kv, value).await;
            kv.barrier().await.unwrap();
        }
        disk.roll_back(2);
        let (kv, _) = disk.boot();
        assert_eq!(kv.get(&[0]).unwrap(), Some(vec![1]), "two barriers back");

        disk.set_faults(Faults { torn_batches: true, ..Faults::default() });
        let mut torn = 0;
        for value in 10..50 {
            let (kv, _) = disk.boot();
            write_100(&kv, value).await;
            disk.crash();
            let (kv, _) = disk.boot();
            torn += u32::from(kv.get(&[0]).unwrap() != kv.get(&[99]).unwrap());
        }
        assert!(torn > 5, "torn {torn} times of 40");

        disk.set_faults(Faults::default());
        let before = disk.boot().0.range(&[], &[255], 999).unwrap();
        assert!(disk.rot().is_some());
        assert_ne!(before, disk.boot().0.range(&[], &[255], 999).unwrap());
    });
}

#[test]
fn a_disk_that_fails_says_so() {
    run(async {
        let disk = Disk::<TokioRuntime>::new(7);
        let (kv, files) = disk.boot();
        let one = || batch(&[(1, Some(200))]);
        disk.set_faults(Faults { write_error: Some(std::io::ErrorKind::Other), ..Faults::default() });
        assert!(kv.write(one()).await.is_err());
        disk.set_faults(Faults { capacity_bytes: Some(100), ..Faults::default() });
        assert_eq!(kv.write(one()).await.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        disk.set_faults(Faults { sync_error: Some(std::io::ErrorKind::Other), ..Faults::default() });
        assert!(kv.barrier().await.is_err());
        assert!(files.overwrite("mark", 0, vec![1]).await.is_err());
        disk.set_faults(Faults { lying_sync: true, ..Faults::default() });
        kv.write(one()).await.unwrap();
        kv.barrier().await.unwrap();
        files.overwrite("mark", 0, vec![1; 64]).await.unwrap();
        assert_eq!(disk.bytes(), (3200, 64));
        let mut lost = false;
        for _ in 0..8 {
            disk.crash();
            lost |= disk.boot().0.get(&[1]).unwrap().is_none();
        }
        assert!(lost, "a disk that lies loses what it acknowledged");
    });
}
