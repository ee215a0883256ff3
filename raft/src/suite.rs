//! What every implementation of the disk seam must do, as functions that panic when it does not.
//!
//! The tests of each implementation call them; so must those of one to come.

use crate::disk::{Batch, Files, Kv, MAX_VALUE_BYTES};

fn batch(ops: &[(&str, Option<&str>)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in ops {
        match value {
            Some(value) => batch.put(*key, *value),
            None => batch.delete(*key),
        }
    }
    batch
}

fn keys<K: Kv>(kv: &K, from: &str, to: &str, limit: usize) -> Vec<String> {
    let pairs = kv.range(from.as_bytes(), to.as_bytes(), limit).expect("range");
    pairs.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect()
}

/// Checks an empty [`Kv`].
///
/// # Panics
///
/// If it does not do what the trait promises.
pub async fn kv<K: Kv>(kv: K) {
    assert_eq!(kv.get(b"a").expect("get"), None, "an empty store has no keys");
    kv.write(batch(&[("b", Some("1")), ("a", Some("2")), ("b", Some("3")), ("c", Some("4"))])).await.expect("write");
    assert_eq!(kv.get(b"b").expect("get"), Some(b"3".to_vec()), "the last change of a key counts");
    kv.write(batch(&[("c", Some("5")), ("c", None), ("none", None)])).await.expect("deleting what is not there");
    assert_eq!(kv.get(b"c").expect("get"), None, "deleted after it was put");
    kv.barrier().await.expect("barrier");

    // Order of the calls, not of the polls.
    let first = kv.write(batch(&[("k", Some("first"))]));
    let second = kv.write(batch(&[("k", Some("second"))]));
    let synced = kv.barrier();
    synced.await.expect("barrier");
    second.await.expect("write");
    first.await.expect("write");
    assert_eq!(kv.get(b"k").expect("get"), Some(b"second".to_vec()), "batches apply in the order of the calls");

    assert_eq!(keys(&kv, "a", "k", 9), ["a", "b"], "the end is exclusive");
    assert_eq!(keys(&kv, "a", "l", 2), ["a", "b"], "at most limit");
    assert_eq!(keys(&kv, "b", "b", 9), [""; 0], "an empty range");
    assert_eq!(keys(&kv, "c", "a", 9), [""; 0], "a range that ends before it begins");
    order_of_bytes(&kv).await;
    sizes(&kv).await;
    rebuilt(&kv).await;

    kv.close().await;
    assert!(kv.get(b"a").is_err(), "a closed store answers nothing");
    assert!(kv.write(batch(&[("a", Some("1"))])).await.is_err(), "a closed store takes nothing");
}

async fn order_of_bytes<K: Kv>(kv: &K) {
    let mut numbers = Batch::default();
    for n in [256_u64, 1, 255, 65_536, 2] {
        numbers.put([b"n".as_slice(), &n.to_be_bytes()].concat(), n.to_string());
    }
    kv.write(numbers).await.expect("write");
    let pairs = kv.range(b"n", b"o", 99).expect("range");
    let values: Vec<_> = pairs.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
    assert_eq!(values, ["1", "2", "255", "256", "65536"], "big-endian numbers come in order");
}

async fn sizes<K: Kv>(kv: &K) {
    let mut large = Batch::default();
    for n in 0..200_u8 {
        large.put(vec![b'x', n], vec![n; MAX_VALUE_BYTES]);
    }
    large.put(b"empty", Vec::new());
    kv.write(large).await.expect("200 values of the largest size");
    kv.barrier().await.expect("barrier");
    for n in 0..200_u8 {
        assert_eq!(kv.get(&[b'x', n]).expect("get"), Some(vec![n; MAX_VALUE_BYTES]), "value {n}");
    }
    assert_eq!(kv.get(b"empty").expect("get"), Some(Vec::new()), "an empty value is a value");
    assert!(kv.bytes_on_disk().expect("size") >= 200 * MAX_VALUE_BYTES as u64, "the size counts values");
    let mut too_large = batch(&[("y", Some("1"))]);
    too_large.put(b"z", vec![0; MAX_VALUE_BYTES + 1]);
    assert!(kv.write(too_large).await.is_err(), "a value beyond the bound is refused");
    assert_eq!(kv.get(b"y").expect("get"), None, "and nothing of its batch is there");
}

async fn rebuilt<K: Kv>(kv: &K) {
    let before = kv.range(b"", &[255], usize::MAX).expect("range");
    for n in 0..200_u8 {
        let mut large = Batch::default();
        large.put(b"again", vec![n; MAX_VALUE_BYTES]);
        kv.write(large).await.expect("write");
        kv.barrier().await.expect("barrier");
    }
    kv.write(batch(&[("again", None)])).await.expect("write");
    let size = kv.bytes_on_disk().expect("size");
    // In the order of the calls, as everything else.
    let (early, late) = (batch(&[("zz", Some("1"))]), batch(&[("zz", None)]));
    let steps = (kv.write(early), kv.rebuild(), kv.write(late));
    steps.0.await.expect("write");
    steps.1.await.expect("rebuild");
    steps.2.await.expect("write");
    assert!(kv.range(b"", &[255], usize::MAX).expect("range") == before, "a rebuilt store has what it had");
    let rebuilt = kv.bytes_on_disk().expect("size");
    assert!(rebuilt < size, "a rebuilt store takes less: {rebuilt} bytes, not {size}");
    kv.barrier().await.expect("barrier");
}

/// Checks an empty [`Files`].
///
/// # Panics
///
/// If it does not do what the trait promises.
pub async fn files<F: Files>(files: F) {
    assert_eq!(files.list().expect("list"), [], "empty");
    assert_eq!(files.read("none", 0, 9).expect("read"), None, "no such file");

    files.overwrite("slots", 4, b"two".to_vec()).await.expect("overwrite");
    assert_eq!(files.read("slots", 0, 99).expect("read"), Some(b"\0\0\0\0two".to_vec()), "a gap reads as zeros");
    files.overwrite("slots", 0, b"one!".to_vec()).await.expect("overwrite");
    assert_eq!(files.read("slots", 0, 99).expect("read"), Some(b"one!two".to_vec()), "the rest stays");

    files.append("new.tmp", b"abc".to_vec()).await.expect("append");
    files.append("new.tmp", b"def".to_vec()).await.expect("append");
    assert_eq!(files.read("new.tmp", 2, 2).expect("read"), Some(b"cd".to_vec()), "a part");
    assert_eq!(files.read("new.tmp", 5, 9).expect("read"), Some(b"f".to_vec()), "short at the end");
    assert_eq!(files.read("new.tmp", 9, 9).expect("read"), Some(Vec::new()), "nothing after it");
    files.seal("new.tmp", "sealed").await.expect("seal");
    let names: Vec<_> = files.list().expect("list").into_iter().map(|f| (f.name, f.bytes)).collect();
    assert_eq!(names, [("sealed".to_string(), 6), ("slots".to_string(), 7)], "sorted, renamed, with sizes");

    files.append("new.tmp", b"second".to_vec()).await.expect("append");
    files.seal("new.tmp", "sealed").await.expect("seal over a file");
    assert_eq!(files.read("sealed", 0, 99).expect("read"), Some(b"second".to_vec()), "replaced");
    files.overwrite("slots", 0, b"again".to_vec()).await.expect("overwrite");
    files.remove("sealed").await.expect("remove");
    files.remove("sealed").await.expect("remove what is not there");
    assert_eq!(files.list().expect("list").len(), 1, "removed");
    assert!(files.seal("none", "sealed").await.is_err(), "sealing what is not there");
}
