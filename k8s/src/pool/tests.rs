//! What files of pools may say.

use super::*;

const GOOD: &str = "
min: 1
max: 10
idle: 5m
pending: 10
startWithin: 10m
capabilities: [python, gpu, python]
template:
  metadata: {labels: {}, annotations: {}}
  spec:
    containers:
      - name: worker
        image: gristmill:0.1.0
        args: [worker, --slots=2]
        resources: {limits: {memory: 4Gi, cpu: 2}}
    volumes:
      - {name: scratch, emptyDir: {}}
      - {name: tls, secret: {secretName: s, defaultMode: 288}}
";

fn said(change: impl Fn(String) -> String) -> String {
    parse("default", &change(GOOD.to_string())).expect_err("it is wrong")
}

#[test]
fn a_file_says_all_of_a_pool() {
    let file = parse("default", GOOD).expect("it is good");
    let expected = Pool {
        name: "default".into(),
        min: 1,
        max: 10,
        idle: Duration::from_secs(300),
        pending: 10,
        start_within: Duration::from_secs(600),
        slots: 2,
        capabilities: vec!["gpu".into(), "python".into()],
        generation: file.pool.generation,
    };
    assert_eq!(file.pool, expected);
    let least = "max: 3\nslots: 4\ntemplate: {spec: {containers: [{name: worker, image: i}]}}";
    let pool = parse("a", least).expect("the rest has defaults").pool;
    assert_eq!((pool.min, pool.max, pool.pending, pool.slots), (0, 3, 10, 4));
    assert_eq!((pool.idle, pool.start_within), (Duration::from_secs(300), Duration::from_secs(600)));
}

#[test]
fn the_generation_is_of_what_pods_are_made_of() {
    let of = |text: &str| parse("default", text).expect("it is good").pool.generation;
    let same = of(GOOD);
    for (from, to) in [
        ("min: 1", "min: 2"),
        ("max: 10", "max: 12"),
        ("idle: 5m", "idle: 6m"),
        ("pending: 10", "pending: 3"),
        ("startWithin: 10m", "startWithin: 1h30m"),
        ("[python, gpu, python]", "[gpu, python]"),
        ("{memory: 4Gi, cpu: 2}", "{cpu: \"2\", memory: 4Gi}"),
    ] {
        assert!(GOOD.contains(from));
        assert_eq!(of(&GOOD.replace(from, to)), same, "{to}");
    }
    for (from, to) in [
        ("gristmill:0.1.0", "gristmill:0.1.1"),
        ("--slots=2", "--slots=3"),
        ("[python, gpu, python]", "[python]"),
        ("4Gi", "5Gi"),
    ] {
        assert!(GOOD.contains(from));
        assert_ne!(of(&GOOD.replace(from, to)), same, "{to}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, says) in [
        ("min: 1", "min: 11", "min: 11 is more than max, 10"),
        ("max: 10", "max: 10001", "max: 10001 is not from 0 to 10000"),
        ("max: 10", "max: -1", "max: -1"),
        ("max: 10", "", "missing field `max`"),
        ("pending: 10", "pending: 0", "pending: 0 is not from 1 to 1000"),
        ("idle: 5m", "idle: 300", "idle: \"300\" is no time; write it as 90s, 5m or 1h30m"),
        ("idle: 5m", "idle: 0s", "idle: 0s is not from 1 s to"),
        ("startWithin: 10m", "startWithin: 2d", "startWithin: 2d is not from 5 s to 86400 s"),
        ("startWithin: 10m", "startwithin: 10m", "unknown field `startwithin`"),
        ("[worker, --slots=2]", "[worker]", "slots is missing"),
        ("min: 1", "min: 1\nslots: 3", "slots: 3 is not what --slots says in the template's arguments, 2"),
        ("--slots=2", "--slots=2000", "slots: 2000 is not from 1 to 1024"),
        ("python, gpu, python", "''", "capabilities: at most 16 words"),
        (
            "image: gristmill:0.1.0",
            "imagee: gristmill:0.1.0",
            "template.spec.containers[0].imagee: there is no such field",
        ),
        ("emptyDir: {}", "emptydir: {sizeLimit: 1Gi}", "template.spec.volumes[0].emptydir: there is no such field"),
        ("name: worker", "name: other", "template.spec.containers needs one that is called worker"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let said = said(|text| text.replace(from, to));
        assert!(said.contains(says) && !said.contains('\n'), "{to}: {said}");
    }
    assert!(parse("Default", GOOD).is_err() && parse("-a", GOOD).is_err() && parse(&"a".repeat(33), GOOD).is_err());
    assert!(!said(|_| "a: [".into()).contains('\n'));
}

#[test]
fn times_are_read_with_their_units() {
    let any = (Duration::ZERO, Duration::MAX);
    for (text, seconds) in [("90s", 90), ("5m", 300), ("1h30m", 5_400), ("1d2h3m4s", 93_784), ("0s", 0)] {
        assert_eq!(time("idle", text, any), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for text in
        ["", "5", "m", "5m5", "5s1m", "5m5m", "-5m", "1.5h", "5 m", "99999999999999999999s", "9999999999999999999d"]
    {
        assert!(time("idle", text, any).is_err(), "{text}");
    }
}

#[test]
fn folders_are_read_as_kubernetes_mounts_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("..2026_01_01");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(data.join("default.yaml"), GOOD).expect("a file");
    std::os::unix::fs::symlink("..2026_01_01", folder.path().join("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/default.yaml", folder.path().join("default.yaml")).expect("a link");
    let read = texts(folder.path()).expect("it can be read");
    assert_eq!(files(&read).expect("it is good").keys().collect::<Vec<_>>(), ["default"]);
    std::fs::write(data.join("default.yaml"), "max: x").expect("a file");
    let wrong = files(&texts(folder.path()).expect("it can be read")).expect_err("it is wrong");
    assert!(wrong.starts_with("default.yaml: "), "{wrong}");
    std::fs::write(folder.path().join("notes.txt"), "").expect("a file");
    assert!(texts(folder.path()).expect_err("it is no pool").contains("notes.txt is no pool's file"));
    std::fs::remove_file(folder.path().join("notes.txt")).expect("it was there");
    std::fs::write(folder.path().join("big.yaml"), vec![b' '; FILE + 1]).expect("a file");
    assert!(texts(folder.path()).expect_err("it is too big").contains("big.yaml has more than"));
    std::fs::remove_file(folder.path().join("big.yaml")).expect("it was there");
    for at in 0..FILES {
        std::fs::write(folder.path().join(format!("p{at}.yaml")), GOOD).expect("a file");
    }
    assert!(texts(folder.path()).expect_err("they are too many").contains("more than 64 pools"));
    assert!(texts(&folder.path().join("none")).is_err());
}
