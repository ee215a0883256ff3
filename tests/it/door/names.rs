//! Names that would lead out of the store, or to what the cluster keeps there for itself.

use std::fs;
use std::os::unix::fs::symlink;

use gristmill::cluster::proto::v1 as api;
use gristmill::cluster::proto::v1::data_client::DataClient;
use gristmill::cluster::proto::v1::put_request::Part;
use tonic::Code;
use tonic::transport::Channel;

use super::Served;
use crate::program::Folder;

const NAMES: [&str; 13] = [
    "../secret",
    "in/../../secret",
    "/etc/passwd",
    "//etc/passwd",
    "in//a",
    "./in/a",
    "in/..",
    "..\\secret",
    "in\\a",
    "in/a\0",
    ".gristmill/x",
    ".gristmill-tmp/x",
    "",
];

/// The same way out as a path of HTTP.
const PATHS: [&str; 14] = [
    "/v1/data/../secret",
    "/v1/data/..%2fsecret",
    "/v1/data/%2e%2e/secret",
    "/v1/data/%2e%2e%2fsecret",
    "/v1/data/in/%2e%2e/%2e%2e/secret",
    "/v1/data//etc/passwd",
    "/v1/data/%2fetc%2fpasswd",
    "/v1/data/in//a",
    "/v1/data/in/a%00",
    "/v1/data/..%5csecret",
    "/v1/data/%ff",
    "/v1/data/.gristmill/x",
    "/v1/data/%2egristmill%2fx",
    "/v1/app-files/..%2f..%2fsecret",
];

async fn client(served: &Served) -> DataClient<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", served.at)).unwrap();
    DataClient::new(endpoint.connect().await.unwrap())
}

/// What comes of each call about a file of this name: list, put, get, remove.
async fn each(client: &mut DataClient<Channel>, name: &str) -> [Result<(), Code>; 4] {
    let code = |status: tonic::Status| status.code();
    let begin = Part::Begin(api::PutBegin { name: name.into(), overwrite: true });
    let end = Part::End(api::PutEnd { bytes: 0, crc32c: 0 });
    let put = [begin, end].map(|part| api::PutRequest { part: Some(part) });
    let list = api::ListDataRequest { pattern: format!("{name}*"), ..Default::default() };
    let listed = client.list(list).await.map_err(code).map(|found| {
        assert!(found.into_inner().files.is_empty(), "{name} is listed");
    });
    let put = client.put(tokio_stream::iter(put)).await.map(drop).map_err(code);
    let get = client.get(api::GetDataRequest { name: name.into(), ..Default::default() }).await.map(drop).map_err(code);
    let remove = api::RemoveDataRequest { name: name.into(), recursive: true };
    [listed, put, get, client.remove(remove).await.map(drop).map_err(code)]
}

/// All files below a folder, with what is in them; links are not followed.
fn files(below: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push((entry.path(), fs::read(entry.path()).unwrap())),
            _ => found.push((entry.path(), Vec::new())),
        }
    }
    found.sort();
    found
}

fn store() -> Folder {
    let folder = Folder::new();
    folder.file("secret", "secret");
    folder.file("outside/secret", "secret");
    folder.file("store/in/a", "a");
    folder.file("store/.gristmill/x", "the cluster's");
    folder
}

#[tokio::test]
async fn names_lead_nowhere_but_into_the_store() {
    let mut served = Served::over(store(), "");
    let within = |served: &Served| {
        let all = ["outside", "store/in"].map(|name| files(&served.folder.path().join(name)));
        (all, served.folder.read("secret"), served.folder.read("store/.gristmill/x"))
    };
    let before = within(&served);
    let mut client = client(&served).await;
    for name in NAMES {
        let [listed, others @ ..] = each(&mut client, name).await;
        // That nothing is called so may be said of a pattern.
        let refused = [Err(Code::InvalidArgument), Err(Code::FailedPrecondition)];
        assert!(name.is_empty() || listed.is_ok() || refused.contains(&listed), "{name:?}: {listed:?}");
        assert_eq!(others, [Err(Code::InvalidArgument); 3], "{name:?}");
    }
    for path in PATHS {
        for (verb, body) in [("GET", ""), ("PUT", "new"), ("DELETE", "")] {
            let (code, said) = served.ask(verb, path, "", body.as_bytes());
            assert!([400, 404, 405].contains(&code) && !said.contains("secret\n"), "{verb} {path}: {code}: {said}");
        }
    }
    assert_eq!(within(&served), before);
    served.is_well();
}

#[tokio::test]
async fn links_in_a_store_are_not_followed() {
    let folder = store();
    // The store itself may be one.
    fs::rename(folder.path().join("store"), folder.path().join("disk")).unwrap();
    symlink("disk", folder.path().join("store")).unwrap();
    symlink("../outside", folder.path().join("disk/out")).unwrap();
    symlink(folder.path().join("secret"), folder.path().join("disk/in/leak")).unwrap();
    let mut served = Served::over(folder, "");
    let before = files(&served.folder.path().join("outside"));
    let mut client = client(&served).await;
    for name in ["out/secret", "out/new", "in/leak", "out"] {
        let [listed, put, get, remove] = each(&mut client, name).await;
        assert_eq!((listed, put), (Ok(()), Err(Code::FailedPrecondition)), "{name}");
        assert_eq!([get, remove], [Err(Code::NotFound); 2], "{name}");
    }
    assert_eq!(served.ask("GET", "/v1/data/in/a", "", b""), (200, "a".into()));
    let (code, said) = served.ask("GET", "/v1/data/in/leak", "", b"");
    assert!(code == 404 && said.contains("symbolic link"), "{code}: {said}");
    // Nor is one read by a job: what is named directly is refused, what is in a folder is not there.
    let run = |served: &Served, arguments: &str| served.folder.run(&format!("{arguments} --at {}", served.at));
    let done = run(&served, "submit wordcount in/leak -o o1");
    assert!(done.code == Some(3) && done.err.contains("in/leak"), "{done:?}");
    let done = run(&served, "submit wordcount in/ -o o2");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(served.ask("GET", "/v1/data/o2/part-00000", "", b""), (200, "a\t1\n".into()));
    assert_eq!(files(&served.folder.path().join("outside")), before);
    assert_eq!(served.folder.read("secret"), "secret");
    served.is_well();
}
