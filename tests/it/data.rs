//! `data` and `job result`: files between this machine, the web and a cluster's store.

use std::sync::Mutex;

use gristmill::cluster::proto::v1 as api;
use gristmill::cluster::proto::v1::data_client::DataClient;
use gristmill::cluster::proto::v1::put_request::Part;

use crate::http::{Answer, Request, listen, serve};
use crate::process::Process;
use crate::program::{Ended, Folder};

/// A node, where it is, and a way to ask it.
fn cluster(folder: &Folder) -> (Process, String, impl Fn(&str) -> Ended) {
    let mut node = Process::start(folder, "data", "serve --data data --store store --listen 127.0.0.1:0 --no-login");
    let at = node.ready();
    let to = at.clone();
    (node, at, move |arguments: &str| folder.run(&format!("{arguments} --at {to}")))
}

#[track_caller]
fn fails(done: &Ended, code: i32, why: &str) {
    assert!(done.code == Some(code) && done.err.contains(why), "{why}: {done:?}");
}

#[track_caller]
fn good(done: Ended) -> String {
    assert_eq!(done.code, Some(0), "{done:?}");
    done.out
}

#[test]
fn files_go_there_and_back() {
    let folder = Folder::new();
    let (_node, at, ask) = cluster(&folder);
    let large: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    folder.file("books/a.txt", "rye\n");
    folder.file("books/deep/large", &large);
    folder.file("books/_x", "");
    good(ask("data put books in/books"));
    good(ask("data put books/a.txt books/_x in/"));
    good(folder.fed(&format!("data put - in/stdin --at {at}"), "from a pipe"));
    let all = ["in/_x", "in/a.txt", "in/books/_x", "in/books/a.txt", "in/books/deep/large", "in/stdin"];
    assert_eq!(good(ask("data ls -o name")), all.map(|name| format!("{name}\n")).concat());
    assert_eq!(good(ask("data ls in/books/*.txt -o name")), "in/books/a.txt\n");
    assert_eq!(good(ask("data ls in/**/large -o name")), "in/books/deep/large\n");
    let shown: serde_json::Value = serde_json::from_str(&good(ask("data ls in/a.txt -o json"))).unwrap();
    assert!(shown[0]["bytes"] == 4 && shown[0]["modified_ms"].as_u64() > Some(1_700_000_000_000), "{shown}");
    assert!(good(ask("data ls in/a.txt -o wide")).contains("in/a.txt  4      20"));
    assert!(good(ask("data ls in/a.txt")).contains("in/a.txt  4 bytes"));

    good(ask("data get in/books got"));
    assert!(folder.read("got/deep/large") == large && folder.read("got/a.txt") == "rye\n");
    good(ask("data get in/books/deep/large one"));
    assert!(folder.read("one") == large);
    good(ask("data get in/**/*.txt two/"));
    assert_eq!(folder.names("two"), ["a.txt", "books"]);
    assert_eq!(good(ask("data get in/a.txt in/stdin -")), "rye\nfrom a pipe");
    fails(&ask("data get in/books got"), 1, "got/_x exists; choose another name or pass --overwrite");
    good(ask("data get in/books got --overwrite"));
    assert_eq!(folder.names("got"), ["_x", "a.txt", "deep"]);

    fails(&ask("data rm in/books"), 1, "in/books is a folder; remove it with -r");
    good(ask("data rm in/a.txt in/_x"));
    assert!(ask("data rm -r in/books").err.contains("removed 3 files"));
    assert_eq!(good(ask("data ls -o name")), "in/stdin\n");
    fails(&ask("data rm in/books"), 1, "there is no such file");
    fails(&ask("data get nothing x"), 1, "no file in the store is called nothing");
}

#[test]
fn files_are_not_replaced_by_chance() {
    let folder = Folder::new();
    let (_node, _, ask) = cluster(&folder);
    folder.file("a", "one");
    folder.file("b", "another");
    good(ask("data put a x"));
    fails(&ask("data put b x"), 1, "x exists; choose another name or pass --overwrite");
    assert_eq!(good(ask("data get x -")), "one");
    good(ask("data put b x --overwrite"));
    assert_eq!(good(ask("data get x -")), "another");
    for (bad, code, why) in [
        ("data put a .gristmill/x", 1, "the cluster's own"),
        ("data put a ../x", 2, "lead nowhere"),
        ("data put a x/y", 1, "one name"),
        ("data put - in/", 2, "no name of its own"),
        ("data put missing x", 1, "cannot look up missing"),
        ("data rm -r .gristmill", 1, "the cluster's own"),
        ("data ls a[", 1, "is no pattern"),
    ] {
        fails(&ask(bad), code, why);
    }
    // The cluster's own is not shown.
    assert_eq!(good(ask("data ls -o name")), "x\n");
}

/// What does not arrive whole is not there, and leaves nothing.
#[tokio::test]
async fn a_file_that_is_cut_or_changed_on_its_way_is_refused() {
    let folder = Folder::new();
    let (_node, at, ask) = cluster(&folder);
    let mut client = DataClient::connect(format!("http://{at}")).await.unwrap();
    let message = |part| api::PutRequest { part: Some(part) };
    let begin = || message(Part::Begin(api::PutBegin { name: "x".into(), overwrite: false }));
    let content = || message(Part::Content("rye".into()));
    let end = |bytes, crc32c| message(Part::End(api::PutEnd { bytes, crc32c }));
    let right = crc32c::crc32c(b"rye");
    for (messages, code) in [
        (vec![], tonic::Code::InvalidArgument),
        (vec![content()], tonic::Code::InvalidArgument),
        (vec![begin(), content()], tonic::Code::Cancelled),
        (vec![begin(), content(), begin()], tonic::Code::InvalidArgument),
        (vec![begin(), content(), end(3, right ^ 1)], tonic::Code::DataLoss),
        (vec![begin(), content(), end(4, right)], tonic::Code::DataLoss),
    ] {
        let put = client.put(tokio_stream::iter(messages)).await;
        assert_eq!(put.unwrap_err().code(), code);
    }
    assert_eq!(good(ask("data ls -o name")), "");
    assert!(folder.names("data/uploads").is_empty());
    let stored = client.put(tokio_stream::iter(vec![begin(), content(), end(3, right)])).await.unwrap().into_inner();
    assert_eq!((stored.bytes, stored.crc32c), (3, Some(right)));
    // A range, and pages of one.
    let ranged = api::GetDataRequest { name: "x".into(), offset: 1, length: 1 };
    let mut pieces = client.get(ranged).await.unwrap().into_inner();
    assert_eq!(pieces.message().await.unwrap().unwrap().content, "y");
    assert!(pieces.message().await.unwrap().is_none());
    good(ask("data put data/cluster y"));
    let mut list = async |page_token| {
        let request = api::ListDataRequest { pattern: String::new(), page_size: 1, page_token };
        let page = client.list(request).await.unwrap().into_inner();
        (page.files.into_iter().map(|file| file.name).collect::<Vec<_>>(), page.next_page_token)
    };
    let (first, next) = list(String::new()).await;
    let (second, last) = list(next).await;
    assert_eq!((first, second, last.as_str()), (vec!["x".to_string()], vec!["y".to_string()], ""));
}

#[test]
fn files_of_the_web_are_fetched_whole_or_not_at_all() {
    let folder = Folder::new();
    let (_node, _, ask) = cluster(&folder);
    let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    let asked = Mutex::new(Vec::new());
    let body = text.clone();
    // Breaks off in the middle, twice, and goes on where it is asked to.
    let at = listen(move |stream| {
        serve(stream, |request: &Request| {
            let range = request.header("range").map(String::from);
            let mut asked = asked.lock().unwrap();
            asked.push((request.target.clone(), range.clone()));
            let times = asked.iter().filter(|(target, _)| *target == request.target).count();
            let from = range.map_or(0, |range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
            let rest = &body.as_bytes()[from..];
            match request.target.as_str() {
                "/gone" => Answer::of(404),
                "/busy" if times < 3 => Answer::of(503),
                "/moved" => Answer { headers: vec![("location", "/busy".into())], ..Answer::of(302) },
                "/broken?x=1" if times < 3 => Answer {
                    status: if from > 0 { 206 } else { 200 },
                    headers: vec![
                        ("etag", "\"v\"".into()),
                        ("content-range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())),
                    ],
                    body: rest.to_vec(),
                    cut: Some(rest.len() / 2),
                },
                _ if from > 0 => {
                    assert_eq!(request.header("if-range"), Some("\"v\""));
                    let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                    Answer { status: 206, headers: vec![("content-range", range)], body: rest.to_vec(), cut: None }
                }
                _ => Answer { status: 200, body: rest.to_vec(), ..Answer::default() },
            }
        })
    });
    assert_eq!(good(ask(&format!("data fetch http://{at}/broken?x=1 in/"))), "in/broken\n");
    assert!(good(ask("data get in/broken -")) == text);
    good(ask(&format!("data fetch http://{at}/moved in/moved")));
    assert!(good(ask("data get in/moved -")) == text);
    fails(&ask(&format!("data fetch http://{at}/gone in/gone")), 1, "answered 404 Not Found; correct the URL");
    let zeros = "0".repeat(64);
    fails(&ask(&format!("data fetch http://{at}/x in/x --sha256 {zeros}")), 1, "nothing was stored");
    fails(&ask("data fetch ftp://x/y in/y"), 2, "only http:// and https://");
    fails(&ask("data fetch http://127.0.0.1:1/y"), 2, "were not provided");
    assert_eq!(good(ask("data ls -o name")), "in/broken\nin/moved\n");
}

#[test]
fn results_come_through_any_master() {
    let folder = Folder::new();
    let (_node, at, ask) = cluster(&folder);
    folder.file("text", "rye corn rye\ncorn rye oats\n");
    good(ask("data put text in/text"));
    let submit = |rest: &str| good(ask(&format!("submit wordcount in/text --detach {rest}"))).trim().to_string();
    let done = |job: &str| good(ask(&format!("job watch {job}")));
    let (plain, packed) = (submit("-o out/a --reducers 2"), submit("-o out/b --reducers 2 --compress gzip"));
    done(&plain);
    done(&packed);
    let mut lines: Vec<String> = good(ask(&format!("job result {plain}"))).lines().map(String::from).collect();
    assert_eq!(good(ask(&format!("job result {packed}"))).lines().collect::<Vec<_>>(), lines);
    let parts = [0, 1].map(|part| good(ask(&format!("job result {plain} --part {part}"))));
    assert_eq!(parts.concat(), lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    lines.sort();
    assert_eq!(lines, ["corn\t2", "oats\t1", "rye\t3"]);
    let raw = folder.gristmill(&format!("job result {packed} --raw --at {at}")).output().unwrap();
    assert!(raw.stdout.starts_with(&[0x1f, 0x8b]));
    fails(&ask(&format!("job result {plain} --part 2")), 1, "has 2 parts, from 0");
    good(ask("data rm -r out/a"));
    fails(&ask(&format!("job result {plain}")), 1, "has been removed");
    let failed = submit("nothing/ -o out/c");
    assert_eq!(ask(&format!("job watch {failed}")).code, Some(3));
    fails(&ask(&format!("job result {failed}")), 1, "is failed: it has no result");
}
