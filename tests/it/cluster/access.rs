//! Who may do what: every call of every service and every route, by everybody; and the commands of users.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf as _, BufMut as _, Bytes};
use gristmill::engine::auth::token::{Claims, SigningKey, sign};
use gristmill::engine::control::rights::CALLS;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::api::{JSON, http};
use super::nodes::{CLOCK, Node, logged_in, secret, texts, users};
use crate::process::Process;
use crate::program::{Folder, until};

pub(super) const PASSWORD: &str = "the third password";

/// A cluster in one process whose users must log in, and a token of its administrator.
fn begun(folder: &Folder) -> (Node, String) {
    let node = Node::start(folder, "serve", "data", &users(folder));
    let admin = logged_in(folder, &format!("--at {}", node.address));
    (node, admin)
}

fn bearing(token: &str) -> String {
    if token.is_empty() { JSON.into() } else { format!("{JSON}Authorization: Bearer {token}\r\n") }
}

/// A call as JSON, which must be answered so.
pub(super) fn ask(at: &str, token: &str, verb: &str, path: &str, body: Value, expected: u16) -> Value {
    let (code, text) = http(at, verb, path, &bearing(token), &body.to_string());
    assert_eq!(code, expected, "{verb} {path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{verb} {path}: {text}: {e}"))
}

/// Makes a user of this role, and gives an access token of a session.
pub(super) fn user(at: &str, admin: &str, name: &str, role: &str) -> String {
    let user = json!({"name": name, "role": role, "password": PASSWORD, "keep_password": true});
    ask(at, admin, "POST", "/v1/users", user, 200);
    login(at, name)
}

pub(super) fn login(at: &str, name: &str) -> String {
    let login = json!({"user": name, "password": PASSWORD});
    let told = ask(at, "", "POST", "/v1/auth/login", login, 200);
    told["access_token"].as_str().unwrap().to_string()
}

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What a call with an empty message comes to: the code of its status, and what that says.
async fn called(channel: &Channel, call: &str, token: &str) -> (Code, String) {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::iter([Bytes::new()]));
    request.set_timeout(Duration::from_secs(20));
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let path = PathAndQuery::try_from(format!("/{call}")).unwrap();
    let answered = async { client.streaming(request, path, Raw).await?.into_inner().message().await };
    match answered.await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_string()),
    }
}

/// Of each call: who is let in, by the first letters of the roles admin, operator, reader and user, with 'x' for a user
/// without one, and '*' for everybody, known or not; and what an empty message comes to then. 'n': nodes alone, which have
/// the cluster's secret.
const TABLE: &[(&str, &str, Code)] = &[
    ("gristmill.v1.Jobs/Submit", "au", Code::InvalidArgument),
    ("gristmill.v1.Jobs/Get", "aoru", Code::NotFound),
    ("gristmill.v1.Jobs/List", "aoru", Code::Ok),
    ("gristmill.v1.Jobs/Watch", "aoru", Code::NotFound),
    ("gristmill.v1.Jobs/Cancel", "aou", Code::NotFound),
    ("gristmill.v1.Jobs/Retry", "aou", Code::NotFound),
    ("gristmill.v1.Jobs/Result", "aru", Code::NotFound),
    ("gristmill.v1.Jobs/Logs", "aoru", Code::NotFound),
    ("gristmill.v1.Jobs/History", "aoru", Code::NotFound),
    ("gristmill.v1.Cluster/Status", "aoru", Code::Ok),
    ("gristmill.v1.Cluster/Workers", "aoru", Code::Ok),
    ("gristmill.v1.Cluster/Drain", "ao", Code::NotFound),
    ("gristmill.v1.Cluster/Apps", "aoru", Code::Ok),
    ("gristmill.v1.Cluster/Backup", "ao", Code::Ok),
    ("gristmill.v1.Cluster/Backups", "ao", Code::Ok),
    // Masters of this cluster make no workers.
    ("gristmill.v1.Pools/List", "aoru", Code::FailedPrecondition),
    ("gristmill.v1.Pools/Set", "ao", Code::FailedPrecondition),
    ("gristmill.v1.Pools/Add", "ao", Code::InvalidArgument),
    ("gristmill.v1.Pools/Remove", "ao", Code::NotFound),
    ("gristmill.v1.Data/List", "aru", Code::Ok),
    ("gristmill.v1.Data/Put", "au", Code::InvalidArgument),
    ("gristmill.v1.Data/Get", "aru", Code::InvalidArgument),
    ("gristmill.v1.Data/Remove", "au", Code::InvalidArgument),
    ("gristmill.v1.Apps/Missing", "au", Code::Ok),
    ("gristmill.v1.Apps/PutFile", "au", Code::InvalidArgument),
    ("gristmill.v1.Apps/GetFile", "aoru", Code::InvalidArgument),
    ("gristmill.v1.Apps/Push", "au", Code::InvalidArgument),
    ("gristmill.v1.Apps/List", "aoru", Code::Ok),
    ("gristmill.v1.Apps/Remove", "au", Code::InvalidArgument),
    ("gristmill.v1.Access/Login", "*", Code::Unauthenticated),
    ("gristmill.v1.Access/Refresh", "*", Code::Unauthenticated),
    // It would end the session that the next call needs.
    ("gristmill.v1.Access/Logout", "", Code::Ok),
    ("gristmill.v1.Access/WhoAmI", "aorux", Code::Ok),
    ("gristmill.v1.Access/ChangePassword", "aorux", Code::InvalidArgument),
    ("gristmill.v1.Access/Register", "*", Code::PermissionDenied),
    ("gristmill.v1.Access/Validate", "*", Code::Ok),
    ("gristmill.v1.Access/Jwks", "*", Code::Ok),
    ("gristmill.v1.Users/Add", "a", Code::InvalidArgument),
    ("gristmill.v1.Users/List", "a", Code::Ok),
    ("gristmill.v1.Users/Change", "a", Code::NotFound),
    ("gristmill.v1.Users/Remove", "a", Code::NotFound),
    ("gristmill.v1.Users/ResetPassword", "a", Code::NotFound),
    ("gristmill.v1.Users/Sessions", "aorux", Code::Ok),
    ("gristmill.v1.Users/EndSession", "aorux", Code::NotFound),
    ("gristmill.v1.Users/CreateToken", "au", Code::Ok),
    ("gristmill.v1.Users/Roles", "a", Code::Ok),
    ("gristmill.v1.Users/PutRole", "a", Code::InvalidArgument),
    ("gristmill.v1.Users/RemoveRole", "a", Code::NotFound),
    ("gristmill.v1.Users/Keys", "a", Code::Ok),
    ("gristmill.v1.Users/RotateKeys", "a", Code::Ok),
    ("gristmill.v1.Users/Policy", "a", Code::Ok),
    ("gristmill.v1.Users/SetPolicy", "a", Code::Ok),
    ("gristmill.v1.Users/Audit", "a", Code::Ok),
    ("gristmill.internal.v1.Peer/Call", "n", Code::PermissionDenied),
    ("gristmill.internal.v1.Peer/Stream", "n", Code::PermissionDenied),
    ("gristmill.internal.v1.Admin/Status", "aoru", Code::Ok),
    ("gristmill.internal.v1.Admin/Add", "ao", Code::FailedPrecondition),
    ("gristmill.internal.v1.Admin/Remove", "ao", Code::NotFound),
    ("gristmill.internal.v1.Admin/Transfer", "ao", Code::FailedPrecondition),
    ("gristmill.internal.v1.Masters/Level", "n", Code::PermissionDenied),
    ("gristmill.internal.v1.Masters/ReadIndex", "n", Code::PermissionDenied),
    ("gristmill.internal.v1.Masters/Audit", "n", Code::PermissionDenied),
    ("gristmill.internal.v1.Workers/Register", "n", Code::PermissionDenied),
    ("gristmill.internal.v1.Workers/Poll", "n", Code::PermissionDenied),
    ("gristmill.internal.v1.Segments/Fetch", "n", Code::PermissionDenied),
    ("grpc.health.v1.Health/Check", "*", Code::Ok),
    ("grpc.health.v1.Health/List", "*", Code::Unimplemented),
    ("grpc.health.v1.Health/Watch", "*", Code::Ok),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "*", Code::InvalidArgument),
];

/// Calls that wait, or that change what the next needs.
const NOT_MADE: &[&str] = &["Access/Logout", "Users/RotateKeys"];

/// Calls that may be tried a few times only.
const LIMITED: &[&str] = &["Access/Login", "Access/Register"];

/// Tokens that are none, with what is said of each. The number of the cluster's key is known to everybody, and so is its
/// public half.
fn forged(node: &Node, good: &str) -> Vec<(String, &'static str)> {
    let keys = ask(&node.address, "", "GET", "/.well-known/jwks.json", Value::Null, 200);
    let (kid, public) = (keys["keys"][0]["kid"].as_str().unwrap(), keys["keys"][0]["x"].as_str().unwrap());
    let mut parts = good.split('.');
    let (_, body, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    let other = SigningKey::new(&[7; 32].into()).unwrap();
    let signed = |claims: &Claims| sign(claims, kid, &other.secret).unwrap().expose().to_string();
    let head = |alg: &str| URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "JWT", "kid": kid}).to_string());
    let public = URL_SAFE_NO_PAD.decode(public).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
    let message = format!("{}.{body}", head("HS256"));
    let hs256 = format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())));
    let foreign = "the token is not one of this cluster's";
    vec![
        (signed(&claims), foreign),
        (signed(&Claims { aud: "another".into(), ..claims.clone() }), foreign),
        (signed(&Claims { sub: "admin".into(), ..claims }), foreign),
        (format!("{}.{body}.", head("none")), foreign),
        (format!("{}.{body}.{signature}", head("none")), foreign),
        (hs256, foreign),
        ("nonsense".into(), foreign),
        (
            "gmt_1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
            "the token has ended, or is not one of this cluster's",
        ),
        ("gmt_zz".into(), foreign),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_answered_to_those_alone_who_may() {
    let folder = Folder::new();
    let (node, admin) = begun(&folder);
    let mut listed: Vec<&str> = TABLE.iter().map(|(call, ..)| *call).collect();
    let mut known: Vec<&str> = CALLS.iter().map(|(call, _)| *call).filter(|call| !call.starts_with("GET ")).collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known, "a call without a row");

    let roles = [("a", "admin"), ("o", "operator"), ("r", "reader"), ("u", "user"), ("x", "")];
    let tokens = roles.map(|(letter, role)| (letter, user(&node.address, &admin, &format!("role-{letter}"), role)));
    let mut refused = forged(&node, &tokens[3].1);
    let deleted = user(&node.address, &admin, "deleted", "admin");
    ask(&node.address, &admin, "DELETE", "/v1/users/deleted", Value::Null, 200);
    let demoted = user(&node.address, &admin, "demoted", "admin");
    ask(&node.address, &admin, "POST", "/v1/users/demoted", json!({"role": "reader"}), 200);
    let disabled = user(&node.address, &admin, "disabled", "admin");
    ask(&node.address, &admin, "POST", "/v1/users/disabled", json!({"disabled": true}), 200);
    refused.extend([deleted, demoted, disabled].map(|token| (token, "the session has ended")));
    refused.push((String::new(), "it is not known who asks"));

    let channel = Endpoint::from_shared(format!("http://{}", node.address)).unwrap().connect().await.unwrap();
    for (call, letters, answer) in TABLE {
        if NOT_MADE.iter().any(|not| call.ends_with(not)) {
            continue;
        }
        let tries = if LIMITED.iter().any(|limited| call.ends_with(limited)) { 2 } else { usize::MAX };
        for (token, why) in refused.iter().take(tries) {
            let (code, told) = called(&channel, call, token).await;
            match *letters {
                "*" | "n" => assert_eq!(code, *answer, "{call}: {told}"),
                _ => {
                    assert_eq!(code, Code::Unauthenticated, "{call} by {token}: {told}");
                    assert!(told.starts_with(why), "{call} by {token}: {told}");
                }
            }
        }
        for (letter, token) in tokens.iter().take(tries) {
            let (code, told) = called(&channel, call, token).await;
            let expected = if *letters == "*" || letters.contains(letter) { *answer } else { Code::PermissionDenied };
            assert_eq!(code, expected, "{call} by {letter}: {told}");
        }
    }
    for call in ["gristmill.v1.Jobs/Steal", "gristmill.v2.Jobs/Submit", "", "x"] {
        let (code, told) = called(&channel, call, &admin).await;
        assert_eq!(code, Code::Unimplemented, "{call}: {told}");
    }
    // Half an hour later every one of these has expired; tokens for machines have not.
    folder.file(CLOCK, (31 * 60 * 1000).to_string());
    for (letter, token) in &tokens {
        let (code, told) = called(&channel, "gristmill.v1.Cluster/Status", token).await;
        assert_eq!(
            (code, told.starts_with("the token has expired")),
            (Code::Unauthenticated, true),
            "{letter}: {told}"
        );
    }
    assert_eq!(called(&channel, "gristmill.v1.Cluster/Status", &admin).await.0, Code::Ok);
}

/// Every route stands for a call, whose guard it goes through.
#[test]
fn every_route_is_guarded_as_its_call_is() {
    let folder = Folder::new();
    let (node, admin) = begun(&folder);
    let document = ask(&node.address, "", "GET", "/v1/openapi.json", Value::Null, 200);
    let (nobody, reader) = (user(&node.address, &admin, "eve", ""), user(&node.address, &admin, "rob", "reader"));
    let mut routes = 0;
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let call = operation["operationId"].as_str().unwrap().replace('.', "/");
            let row = TABLE.iter().find(|(name, ..)| name.strip_prefix("gristmill.v1.") == Some(&*call));
            let (_, letters, _) = row.unwrap_or_else(|| panic!("{verb} {path} is {call}"));
            let path: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            // Registering is closed to everybody.
            if NOT_MADE.contains(&&*call) || call == "Access/Register" {
                continue;
            }
            routes += 1;
            let verb = verb.to_uppercase();
            let code = |token: &str| {
                let (code, text) = http(&node.address, &verb, &path, &bearing(token), "{}");
                if code == 401 || code == 403 {
                    let told: Value = serde_json::from_str(&text).unwrap();
                    assert!(!told["error"]["message"].as_str().unwrap().is_empty(), "{text}");
                }
                code
            };
            let open = *letters == "*";
            if !open {
                assert_eq!((code(""), code("nonsense")), (401, 401), "{verb} {path}");
            }
            for (token, letter) in [(&nobody, 'x'), (&reader, 'r')] {
                let denied = !open && !letters.contains(letter);
                assert_eq!(code(token) == 403, denied, "{verb} {path} by {letter}");
            }
        }
    }
    assert!(routes > 40, "{routes}");
    let twice = format!("{}Authorization: Bearer {reader}\r\n", bearing(&reader));
    assert_eq!(http(&node.address, "GET", "/v1/cluster", &twice, "").0, 400);
}

#[test]
fn what_is_another_s_is_not_seen() {
    let folder = Folder::new();
    let (node, admin) = begun(&folder);
    let (ann, bob) = (user(&node.address, &admin, "ann", "user"), user(&node.address, &admin, "bob", "user"));
    let (eve, oda) = (user(&node.address, &admin, "eve", "reader"), user(&node.address, &admin, "oda", "operator"));
    let put = |token: &str, name: &str, expected| {
        ask(&node.address, token, "PUT", &format!("/v1/data/{name}"), json!("corn rye"), expected)
    };
    put(&ann, "ann/in/a", 200);
    put(&admin, "shared/in/a", 200);
    for (name, expected) in
        [("ann/b", 403), ("shared/b", 403), ("b", 403), ("bobby/b", 403), ("bob", 403), ("bob/b", 200)]
    {
        put(&bob, name, expected);
    }
    let code = |token: &str, verb: &str, path: &str| http(&node.address, verb, path, &bearing(token), "{}").0;
    for (path, whose) in [("/v1/data/ann/in/a", [200, 403, 200, 403]), ("/v1/data/shared/in/a", [200, 200, 200, 403])] {
        assert_eq!([&ann, &bob, &eve, &oda].map(|token| code(token, "GET", path)), whose, "{path}");
    }
    assert_eq!([&bob, &eve].map(|token| code(token, "DELETE", "/v1/data/ann/in/a")), [403, 403]);
    let names = |token: &str, pattern: &str| {
        let found = ask(&node.address, token, "GET", &format!("/v1/data?pattern={pattern}"), Value::Null, 200);
        let names = found["files"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap().to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!((names(&ann, ""), names(&bob, "shared/")), (vec!["ann/in/a".into()], vec!["shared/in/a".into()]));
    assert_eq!(code(&bob, "GET", "/v1/data?pattern=ann/"), 403);
    assert_eq!(code(&bob, "GET", "/v1/data?pattern=*/*"), 403);

    let submit = |token: &str, input: &str, output: &str, expected| {
        static KEYS: AtomicU16 = AtomicU16::new(0);
        let spec = json!({"app": {"name": "wordcount"}, "inputs": [input], "output": output});
        let body = json!({"key": format!("k{}", KEYS.fetch_add(1, Relaxed)), "spec": spec});
        ask(&node.address, token, "POST", "/v1/jobs", body, expected)["job"].as_str().map(String::from)
    };
    for (input, output) in
        [("ann/in/", "bob/out"), ("shared/in/", "ann/out"), ("*", "bob/out"), ("bob/../ann/in/a", "bob/out")]
    {
        submit(&bob, input, output, 403);
    }
    let job = submit(&ann, "ann/in/", "ann/out", 200).unwrap();
    let path = format!("/v1/jobs/{job}");
    until("the job's end", || {
        ask(&node.address, &ann, "GET", &path, Value::Null, 200)["state"] == "JOB_STATE_COMPLETED"
    });
    for (below, answers) in [
        ("", [200, 404, 200, 200]),
        ("/result", [200, 404, 200, 403]),
        ("/logs", [200, 404, 200, 200]),
        ("/events", [200, 404, 200, 200]),
        ("/watch", [200, 404, 200, 200]),
    ] {
        let codes = [&ann, &bob, &eve, &oda].map(|token| code(token, "GET", &format!("{path}{below}")));
        assert_eq!(codes, answers, "{below}");
    }
    for (below, answers) in [("/cancel", [404, 403, 400]), ("/retry", [404, 403, 403])] {
        let codes = [&bob, &eve, &oda].map(|token| code(token, "POST", &format!("{path}{below}")));
        assert_eq!(codes, answers, "{below}");
    }
    let jobs =
        |token: &str| ask(&node.address, token, "GET", "/v1/jobs", Value::Null, 200)["jobs"].as_array().unwrap().len();
    assert_eq!([&ann, &bob, &eve, &oda].map(|token| jobs(token)), [1, 0, 1, 1]);

    // Apps are whoever's pushed them first.
    let push = |token: &str, flag: &str, expected| {
        let app = json!({"name": "wordcount", "arguments": [flag]});
        ask(&node.address, token, "POST", "/v1/pushed", json!({"name": "mine", "app": app}), expected)
    };
    push(&ann, "--top=1", 200);
    push(&bob, "--top=2", 403);
    assert_eq!(push(&admin, "--top=3", 200)["version"], 2);
    let apps = |token: &str| {
        ask(&node.address, token, "GET", "/v1/pushed", Value::Null, 200)["apps"].as_array().unwrap().len()
    };
    assert_eq!([&ann, &bob, &eve].map(|token| apps(token)), [2, 0, 2]);
    assert_eq!([&bob, &eve].map(|token| code(token, "DELETE", "/v1/pushed/mine")), [404, 403]);
    assert_eq!(code(&ann, "DELETE", "/v1/pushed/mine"), 200);

    // All of it, and no secret, is in the audit log.
    let mut told = String::new();
    let whats = ["Users/Add", "Access/Login", "Jobs/Submit", "Data/Put", "Data/Remove", "Apps/Push", "Apps/Remove"];
    until("all of it in the log", || {
        told = http(&node.address, "GET", "/v1/audit", &bearing(&admin), "").1;
        whats.iter().chain(&["127.0.0.1", r#""target":"ann/in/a""#]).all(|what| told.contains(what))
    });
    for secret in [PASSWORD, &ann, &bob, &admin, "argon2"] {
        assert!(!told.contains(secret), "{told}");
    }
}

/// Commands as their users give them.
#[test]
fn users_log_in_and_out_by_the_command_line() {
    let folder = Folder::new();
    texts(&folder, 50);
    let mut node = Node::start(&folder, "serve", "data", "--password-cost 8KiB,1");
    until("the first password", || node.has_said("the first user is admin"));
    let log = folder.read("data.log");
    let password = log.split("the password ").nth(1).unwrap().split([';', ' ', '\n']).next().unwrap().to_string();
    let at = format!("--at {}", node.address);
    let run = |arguments: &str, input: &str| folder.fed(&format!("{arguments} {at}"), input);
    let good = |arguments: &str, input: &str| {
        let done = run(arguments, input);
        assert_eq!(done.code, Some(0), "{arguments}: {done:?}");
        done.out
    };
    let refused = run("jobs", "");
    assert!(refused.code == Some(1) && refused.err.contains("gristmill login"), "{refused:?}");
    let wrong = run("login admin --password-stdin", "a wrong password\n");
    assert!(wrong.code == Some(1) && wrong.err.contains("the user or the password is wrong"), "{wrong:?}");
    // It must be changed first.
    good("login admin --password-stdin", &format!("{password}\n"));
    let refused = run("jobs", "");
    assert!(refused.code == Some(1) && refused.err.contains("gristmill passwd"), "{refused:?}");
    let passwd = format!("{password}\nthe second password\n");
    good("passwd --password-stdin", &passwd);
    good("jobs", "");
    let me: Value = serde_json::from_str(&good("whoami -o json", "")).unwrap();
    assert_eq!((&me["user"], &me["role"]), (&json!("admin"), &json!("admin")), "{me}");
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(folder.path().join("credentials.json")).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    let made = good("user add ann --role user --jobs 3", "");
    assert!(made.trim().len() == 24, "{made}");
    assert!(good("user ls", "").contains("ann"));
    let token = good("token create --ttl 1h --role reader --label ci", "").trim().to_string();
    let with = |token: &str, arguments: &str| {
        let mut command = folder.gristmill(&format!("{arguments} {at}"));
        command.env("GRISTMILL_TOKEN", token);
        crate::program::ended(command.output().unwrap())
    };
    assert_eq!(with(&token, "jobs").code, Some(0));
    let denied = with(&token, "user ls");
    assert!(denied.code == Some(1) && denied.err.contains("users.read"), "{denied:?}");
    let listed: Value = serde_json::from_str(&good("token ls -o json", "")).unwrap();
    good(&format!("token rm {}", listed[0]["id"].as_str().or(listed[0]["session"].as_str()).unwrap()), "");
    assert_eq!(with(&token, "jobs").code, Some(1));

    good("role put clerk users.read jobs.read.any", "");
    good("user set-role ann clerk", "");
    assert!(good("role ls", "").contains("clerk"));
    assert_eq!(run("role put boss users.fly", "").code, Some(1));
    good("user disable ann", "");
    good("user enable ann", "");
    let last = run("user rm admin", "");
    assert!(last.code == Some(1) && last.err.contains("last administrator"), "{last:?}");
    good("key rotate", "");
    assert_eq!(good("key ls", "").lines().count(), 3);
    good("policy set --registration open", "");
    let registered = run("register eve --password-stdin", "a password of eve's\n");
    assert_eq!(registered.code, Some(0), "{registered:?}");
    let shell = run("admin", "user ls\nwhoami\nuser rm eve\n");
    assert!(shell.code == Some(0) && shell.out.contains("eve") && shell.out.contains("admin"), "{shell:?}");
    let shell = run("admin", "user rm nobody\nuser ls\n");
    assert!(shell.code == Some(1) && !shell.out.contains("ann"), "it ends at the first that fails: {shell:?}");
    assert!(good("audit -o json", "").lines().count() > 10);

    // The users are there after a restart, and what was withdrawn is not.
    node.kill();
    node.begin(folder.path());
    good("jobs", "");
    let kept = std::fs::read(folder.path().join("credentials.json")).unwrap();
    good("logout", "");
    std::fs::write(folder.path().join("credentials.json"), kept).unwrap();
    let refused = run("jobs", "");
    assert!(refused.code == Some(1) && refused.err.contains("session has ended"), "{refused:?}");
    for (role, arguments) in [
        ("serve", "--no-login --insecure"),
        ("serve", "--no-login --recover-admin x"),
        ("serve", "--password-cost 1KiB,1"),
        ("master", "--admin-password-file nowhere"),
    ] {
        let refused = folder.run(&format!("{role} --data other --listen 127.0.0.1:0 {arguments}"));
        assert!(refused.code.is_some_and(|code| code > 0), "{refused:?}");
    }
    // Who lost the password names another.
    node.kill();
    folder.file("recovered", "a recovered password\n");
    let at = node.address.clone();
    drop(node);
    let recovering =
        format!("serve --data data --store store --listen {at} --password-cost 8KiB,1 --recover-admin recovered");
    let _recovering = crate::process::Process::start(&folder, "recovering", &recovering);
    until("the recovered password", || {
        run("login admin --password-stdin", "a recovered password\nthe fourth password\n").code == Some(0)
    });
    good("jobs", "");
}

/// A token that was revoked is refused by every master of a cluster within a second; users outlive their leader.
#[test]
fn revocations_hold_at_every_master_within_a_second() {
    let folder = Folder::new();
    let flags = users(&folder) + &secret(&folder);
    let first = Node::start(&folder, "master", "m1", &flags);
    let admin = logged_in(&folder, &format!("--at {}", first.address));
    let join = format!("{flags} --join {}", first.address);
    let mut masters = vec![first];
    masters.extend(["m2", "m3"].map(|name| Node::start(&folder, "master", name, &join)));
    let asks = |node: &Node, token: &str| http(&node.address, "GET", "/v1/auth/whoami", &bearing(token), "").0;
    for n in 0..3 {
        let token = user(&masters[n].address, &admin, &format!("ann{n}"), "user");
        assert!(masters.iter().all(|node| asks(node, &token) == 200), "any master lets her in");
        ask(&masters[(n + 1) % 3].address, &admin, "DELETE", &format!("/v1/users/ann{n}"), Value::Null, 200);
        let revoked = Instant::now();
        for node in &masters {
            while asks(node, &token) == 200 {
                assert!(revoked.elapsed() < Duration::from_secs(1));
            }
            assert_eq!(asks(node, &token), 401);
        }
    }
    let bob = user(&masters[0].address, &admin, "bob", "user");
    for n in 0..3 {
        masters[n].kill();
        let other = &masters[(n + 1) % 3];
        until("the others to know him", || asks(other, &bob) == 200);
        until("a login without that master", || {
            http(
                &other.address,
                "POST",
                "/v1/auth/login",
                JSON,
                &json!({"user": "bob", "password": PASSWORD}).to_string(),
            )
            .0 == 200
        });
        masters[n].begin(folder.path());
    }
}

/// A cluster in which nobody had to log in may have users when that changes, but nobody who manages them, and no key.
#[test]
fn users_of_a_cluster_without_logins_log_in_later() {
    for role in ["user", "admin"] {
        let folder = Folder::new();
        let serve = "serve --data data --store store --listen 127.0.0.1:0";
        let mut node = Process::start(&folder, "open", &format!("{serve} --no-login"));
        let at = node.ready();
        let eve = json!({"name": "eve", "role": role, "password": PASSWORD, "keep_password": true});
        until("a leader", || http(&at, "POST", "/v1/users", JSON, &eve.to_string()).0 == 200);
        drop(node);
        let mut node = Process::start(&folder, "closed", &format!("{serve}{}", users(&folder)));
        let at = node.ready();
        if role == "user" {
            logged_in(&folder, &format!("--at {at}"));
        }
        let login = json!({"user": "eve", "password": PASSWORD}).to_string();
        until("a login", || http(&at, "POST", "/v1/auth/login", JSON, &login).0 == 200);
    }
}
