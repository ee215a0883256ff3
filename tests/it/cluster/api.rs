//! The API as others meet it: JSON over HTTP, health and reflection, TLS, and the names that users give to clusters.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use gristmill::cluster::proto::v1::ListJobsRequest;
use gristmill::cluster::proto::v1::jobs_client::JobsClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use serde_json::{Value, json};

use super::nodes::{Node, logged_in, parts, run_local, texts, users};
use crate::process::Process;
use crate::program::{Folder, until};

/// One request over a connection of its own; gives the answer's code and body.
pub(crate) fn http(at: &str, verb: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    let length = body.len();
    // Of the old version, so that the body comes as it is.
    write!(stream, "{verb} {path} HTTP/1.0\r\nHost: {at}\r\nContent-Length: {length}\r\n{headers}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

pub(super) const JSON: &str = "Content-Type: application/json\r\n";

fn serve(folder: &Folder) -> Node {
    Node::start(folder, "serve", "data", "")
}

#[test]
fn a_job_goes_its_way_as_json_over_http() {
    let folder = Folder::new();
    texts(&folder, 100);
    let node = serve(&folder);
    let at = node.address.as_str();
    let spec = json!({"app": {"name": "wordcount"}, "inputs": ["books/"], "output": "out/a", "reducers": 2});
    let submit = json!({"spec": spec, "key": "k"}).to_string();
    let mut answer = Value::Null;
    until("a leader to take the job", || {
        let (code, body) = http(at, "POST", "/v1/jobs", JSON, &submit);
        answer = serde_json::from_str(&body).unwrap();
        assert!(code == 200 || code == 503, "{code}: {body}");
        code == 200
    });
    let job = answer["job"].as_str().unwrap().to_string();
    // The key can be a header, as others have it.
    let headers = format!("{JSON}Idempotency-Key: k\r\n");
    let (code, body) = http(at, "POST", "/v1/jobs", &headers, &json!({"spec": spec}).to_string());
    assert_eq!((code, serde_json::from_str(&body).unwrap()), (200, json!({"job": job, "existed": true})));

    let (code, lines) = http(at, "GET", &format!("/v1/jobs/{job}/watch"), "", "");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((code, &last["state"], &last["id"]), (200, &json!("JOB_STATE_COMPLETED"), &json!(job)), "{lines:?}");
    assert!(last["output_records"].as_u64().unwrap() > 10 && last["maps"]["progress_ppm"] == 1_000_000, "{last}");
    let (_, events) = http(at, "GET", &format!("/v1/jobs/{job}/watch"), "Accept: text/event-stream\r\n", "");
    let event = events.strip_prefix("event: message\ndata: ").and_then(|event| event.strip_suffix("\n\n")).unwrap();
    assert_eq!(&serde_json::from_str::<Value>(event).unwrap(), last);
    let (code, found) = http(at, "GET", "/v1/jobs?states=completed&page_size=5", "", "");
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((code, &found["jobs"][0]["id"]), (200, &json!(job)), "{found}");
    let (code, cluster) = http(at, "GET", "/v1/cluster", "", "");
    let cluster: Value = serde_json::from_str(&cluster).unwrap();
    assert_eq!((code, &cluster["masters"][0]["leader"]), (200, &json!(true)), "{cluster}");
}

#[test]
fn what_is_wrong_with_a_request_is_told_as_json() {
    let folder = Folder::new();
    let node = serve(&folder);
    let at = node.address.as_str();
    let plain = "Content-Type: text/plain\r\n";
    let page = "Origin: https://evil.example\r\n";
    let spec = r#"{"spec": {"app": {"name": "wordcount"}, "inptus": []}}"#;
    let cases = [
        ("GET", "/v1/jobs/0-0", "", "", 404, "NotFound", "there is no job 0-0"),
        ("GET", "/v1/jobs?page=2", "", "", 400, "InvalidArgument", "no parameter 'page'; there are: user, states"),
        ("GET", "/v1/jobs?page_size=x", "", "", 400, "InvalidArgument", "page_size"),
        ("POST", "/v1/jobs", JSON, spec, 400, "InvalidArgument", "inptus"),
        ("POST", "/v1/jobs", JSON, "{", 400, "InvalidArgument", "no JSON object"),
        ("POST", "/v1/jobs", JSON, "{}", 400, "InvalidArgument", "a job without a spec"),
        ("POST", "/v1/jobs", plain, "{}", 400, "InvalidArgument", "Content-Type: application/json"),
        ("POST", "/v1/jobs/0-0/cancel", "", "", 400, "InvalidArgument", "Content-Type: application/json"),
        ("GET", "/v1/jobs", page, "", 403, "PermissionDenied", "other origins"),
    ];
    for (verb, path, headers, body, code, name, told) in cases {
        let (got, answer) = http(at, verb, path, headers, body);
        let error = serde_json::from_str::<Value>(&answer).unwrap()["error"].clone();
        assert_eq!((got, error["code"].as_str()), (code, Some(name)), "{verb} {path}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(told), "{verb} {path}: {answer}");
    }
    let (_, missing) = http(at, "GET", "/v1/jobs/0-0", "", "");
    let error = serde_json::from_str::<Value>(&missing).unwrap()["error"].clone();
    assert_eq!((&error["reason"], &error["next_step"]), (&json!("NOT_FOUND"), &json!("see `gristmill jobs`")));
    let own = format!("Origin: http://{at}\r\n");
    assert_eq!(http(at, "GET", "/v1/cluster", &own, "").0, 200);
}

#[test]
fn the_document_of_the_api_is_the_one_that_is_served() {
    let folder = Folder::new();
    let node = serve(&folder);
    let (code, served) = http(&node.address, "GET", "/v1/openapi.json", "", "");
    let served: Value = serde_json::from_str(&served).unwrap();
    assert_eq!((code, &served["openapi"]), (200, &json!("3.1.0")));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var_os("GRISTMILL_UPDATE_DOCS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&served).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(
        kept == served,
        "the API has changed: run this test with GRISTMILL_UPDATE_DOCS=1 and look at docs/openapi.json"
    );
    // Every reference leads somewhere, every part of a path is a parameter.
    let text = served.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(served["components"]["schemas"][name].is_object(), "{name} is not described");
    }
    for (path, operations) in served["paths"].as_object().unwrap() {
        for (verb, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(path.matches('{').count(), in_path, "{verb} {path}");
            assert!(!operation["description"].as_str().unwrap().is_empty(), "{verb} {path}");
        }
    }
}

#[tokio::test]
async fn health_and_reflection_answer_as_the_field_asks() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let folder = Folder::new();
    let node = serve(&folder);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", node.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client = HealthClient::new(channel.clone());
    for service in ["", "gristmill.v1.Jobs"] {
        let begun = std::time::Instant::now();
        loop {
            let request = HealthCheckRequest { service: service.into() };
            // Of a service that is not known yet there is no status.
            let serving = client.check(request).await.is_ok_and(|answer| answer.into_inner().status == 1);
            if serving {
                break;
            }
            assert!(begun.elapsed().as_secs() < 60, "{service} does not serve");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"gristmill.v1.Jobs".into()) && names.contains(&"gristmill.v1.Cluster".into()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("internal")), "{names:?}");
}

/// Probes show nothing and are told nothing; a node that is not one of the cluster's is alive and not ready.
#[test]
fn probes_are_answered_to_everybody_by_masters_and_workers() {
    let folder = Folder::new();
    let master = Node::start(&folder, "master", "m1", "");
    let worker = Node::start(&folder, "worker", "w1", &format!("--masters {}", master.address));
    let logins = Node::start(&folder, "serve", "data", &users(&folder));
    for at in [&master.address, &worker.address, &logins.address] {
        assert_eq!(http(at, "GET", "/healthz", "", ""), (200, "ok\n".into()), "{at}");
        until("the node to be ready", || {
            let (code, text) = http(at, "GET", "/readyz", "", "");
            assert!(code == 200 || (code == 503 && text.lines().count() == 1), "{code}: {text}");
            code == 200
        });
    }
    let lone = Node::start(&folder, "worker", "w2", "--masters 127.0.0.1:1");
    assert_eq!(http(&lone.address, "GET", "/healthz", "", "").0, 200);
    let (code, why) = http(&lone.address, "GET", "/readyz", "", "");
    assert!(code == 503 && why.contains("not one of the cluster's yet"), "{code}: {why}");
    // A master that begins with two others, which are not there; at an address that no other test has.
    let [_, _, c, d] = std::process::id().to_be_bytes();
    let at = format!("127.78.{c}.{d}:7470");
    let arguments = format!(
        "master --no-login --data m2 --store store --listen {at} --peers {at},127.0.0.1:1,127.0.0.1:2 --cluster-token t"
    );
    let mut waiting = Process::start(&folder, "m2", &arguments);
    waiting.says("waits for the other masters");
    assert_eq!(http(&at, "GET", "/healthz", "", "").0, 200);
    let (code, why) = http(&at, "GET", "/readyz", "", "");
    assert!(code == 503 && why.contains("waits for the others"), "{code}: {why}");
}

/// Without --pools no master makes workers, whoever asks and however.
#[test]
fn pools_are_told_to_be_none_where_masters_make_no_workers() {
    let folder = Folder::new();
    let node = serve(&folder);
    let at = node.address.as_str();
    for (verb, path, body, code, told) in [
        ("GET", "/v1/pools", "", 400, "make no workers"),
        ("POST", "/v1/pools/big", r#"{"min": 2, "idle_ms": 60000}"#, 400, "make no workers"),
        ("POST", "/v1/pools/big/workers", r#"{"count": 2}"#, 400, "make no workers"),
        ("POST", "/v1/pools/big/workers", r#"{"count": 0}"#, 400, "1 to 1000"),
        ("DELETE", "/v1/workers/nobody", "", 404, "no worker is called nobody"),
    ] {
        let mut answer = (0, String::new());
        until("a leader", || {
            answer = http(at, verb, path, JSON, body);
            answer.0 != 503
        });
        assert!(answer.0 == code && answer.1.contains(told), "{verb} {path}: {answer:?}");
    }
    for line in ["worker pool ls", "worker pool set big --min 2", "worker add big -n 2"] {
        let done = folder.run(&format!("{line} --at {at}"));
        assert!(done.code == Some(1) && done.err.contains("start them with --pools"), "{line}: {done:?}");
    }
    let done = folder.run(&format!("worker rm nobody --at {at}"));
    assert!(done.code == Some(1) && done.err.contains("no worker is called nobody"), "{done:?}");
    // What runs a worker is as it was.
    let done = folder.run("worker --data w --at 127.0.0.1:1");
    assert!(done.code == Some(2) && done.err.contains("--at"), "{done:?}");
    let done = folder.run("worker --data w");
    assert!(done.code == Some(2) && done.err.contains("--masters"), "{done:?}");
    let done = folder.run("worker --data w --masters m pool ls");
    assert_eq!(done.code, Some(2), "{done:?}");
    let words = "--capability x ".repeat(17);
    let done = folder.run(&format!("worker --data w --masters 127.0.0.1:1 {words}"));
    assert!(done.code == Some(2) && done.err.contains("at most 16"), "{done:?}");
}

/// A job that needs what no worker has is refused, and one that has it runs it.
#[test]
fn jobs_run_on_workers_that_have_what_they_require() {
    let folder = Folder::new();
    texts(&folder, 20);
    let master = Node::start(&folder, "master", "m1", "");
    let _plain = Node::start(&folder, "worker", "w1", &format!("--masters {}", master.address));
    let submit = format!("submit wordcount books/ --require gpu --at {}", master.address);
    let done = folder.run(&format!("{submit} -o out/a"));
    assert!(done.code == Some(1) && done.err.contains("gpu"), "{done:?}");
    let _able = Node::start(&folder, "worker", "w2", &format!("--masters {} --capability gpu", master.address));
    let done = folder.run(&format!("{submit} -o out/b"));
    assert_eq!(done.code, Some(0), "{done:?}");
}

/// A master that does not lead passes a call on, but none that another one passed on to it.
#[tokio::test]
async fn a_call_is_passed_on_once() {
    let folder = Folder::new();
    let first = Node::start(&folder, "master", "m1", "");
    let second = Node::start(&folder, "master", "m2", &format!("--join {}", first.address));
    let ask = async |node: &Node, passed_on: bool| {
        let at = format!("http://{}", node.address);
        let channel = tonic::transport::Endpoint::from_shared(at).unwrap().connect().await.unwrap();
        let mut request = tonic::Request::new(ListJobsRequest::default());
        if passed_on {
            request.metadata_mut().insert("gristmill-passed-on", "1".parse().unwrap());
        }
        JobsClient::new(channel).list(request).await.map(|_| ()).map_err(|status| status.code())
    };
    let begun = std::time::Instant::now();
    loop {
        let plain = [ask(&first, false).await, ask(&second, false).await];
        let passed = [ask(&first, true).await, ask(&second, true).await];
        let refused = passed.iter().filter(|answer| **answer == Err(tonic::Code::Unavailable)).count();
        // Leadership may move at the beginning.
        if plain == [Ok(()), Ok(())] && refused == 1 && passed.contains(&Ok(())) {
            return;
        }
        assert!(begun.elapsed().as_secs() < 60, "{plain:?}, {passed:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// An authority, and certificates that it signed for nodes on this machine, as files of a folder: made elsewhere, as
/// most are.
fn certificates(folder: &Folder, authority: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    folder.file(&format!("{authority}.pem"), issuer.pem());
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    let roles = ["gristmill://worker", "gristmill://master"].map(|role| SanType::URI(role.try_into().unwrap()));
    params.subject_alt_names.extend(roles);
    let signed = params.signed_by(&key, &issuer).unwrap();
    folder.file(&format!("{authority}-node.pem"), signed.pem());
    folder.file(&format!("{authority}-node.key"), key.serialize_pem());
}

#[test]
fn with_certificates_everything_goes_over_tls_and_contexts_name_it() {
    let folder = Folder::new();
    texts(&folder, 100);
    certificates(&folder, "ca");
    certificates(&folder, "other");
    let tls = "--tls-ca ca.pem --tls-cert ca-node.pem --tls-key ca-node.key";
    let users = users(&folder);
    let master = Node::start(&folder, "master", "m1", &format!("{tls}{users}"));
    let at = master.address.clone();
    let _second = Node::start(&folder, "master", "m2", &format!("{tls}{users} --join {at}"));
    let _worker = Node::start(&folder, "worker", "w1", &format!("{tls} --masters {at}"));

    let add = format!("context add prod https://{at} --tls-ca ca.pem");
    let token = logged_in(&folder, &format!("--at https://{at} --tls-ca ca.pem"));
    let gristmill = |arguments: &str| {
        let mut command = folder.gristmill(arguments);
        command.env("GRISTMILL_TOKEN", &token);
        command.env("GRISTMILL_CONFIG", folder.path().join("config.json"));
        crate::program::ended(command.output().unwrap())
    };
    assert_eq!(gristmill(&add).code, Some(0));
    let done = gristmill("run wordcount books/ -o out/a --reducers 2 --context prod");
    assert_eq!(done.code, Some(0), "{done:?}");
    run_local(&folder, "run wordcount books/ --reducers 2 -q -o ../ref");
    assert_eq!(parts(&folder.path().join("store/out/a")), parts(&folder.path().join("ref")));
    // The first context is the current one.
    assert!(gristmill("jobs").out.contains("completed"));
    assert_eq!(gristmill("context ls -o name").out, "prod\n");

    // Nobody is answered in the plain, nor who trusts another authority; what nodes alone may ask takes a certificate.
    for (arguments, code, told) in [
        (format!("jobs --at {at}"), 1, "the cluster did not do it"),
        (format!("jobs --at https://{at} --tls-ca other.pem"), 1, "certificate"),
        (format!("jobs --at https://{at}"), 2, "--tls-ca"),
        ("raft members".into(), 0, ""),
        (format!("raft members --at {at} {tls}"), 0, ""),
        ("context use nothing".into(), 2, "there are: prod"),
        ("jobs --context nothing".into(), 2, "no context 'nothing'"),
        ("context add x https://h:1 --tls-ca missing.pem".into(), 2, "missing.pem"),
        ("context rm prod".into(), 0, ""),
    ] {
        let done = gristmill(&arguments);
        assert!(done.code == Some(code) && done.err.contains(told), "{arguments}: {done:?}");
    }
    let done = folder
        .run("worker --data w9 --masters 127.0.0.1:1 --tls-ca ca.pem --tls-cert ca-node.pem --tls-key other-node.key");
    assert!(done.code == Some(2) && done.err.contains("ca-node.pem"), "{done:?}");
}

#[test]
fn files_of_the_store_come_and_go_over_http() {
    let folder = Folder::new();
    let node = serve(&folder);
    let at = node.address.as_str();
    let text = "a line\n".repeat(300_000);
    let (code, put) = http(at, "PUT", "/v1/data/in/a.txt", "", &text);
    let put: Value = serde_json::from_str(&put).unwrap();
    assert_eq!((code, &put["name"], &put["bytes"]), (200, &json!("in/a.txt"), &json!(text.len())), "{put}");
    let (code, got) = http(at, "GET", "/v1/data/in/a.txt", "", "");
    assert!(code == 200 && got == text, "{code}");
    assert_eq!(http(at, "GET", "/v1/data/in/a.txt?offset=2&length=4", "", ""), (200, "line".into()));
    let (code, error) = http(at, "PUT", "/v1/data/in/a.txt", "", "other");
    assert_eq!(code, 409, "{error}");
    assert_eq!(http(at, "PUT", "/v1/data/in/a.txt?overwrite=true", "", "other").0, 200);
    let (code, list) = http(at, "GET", "/v1/data?pattern=in/*", "", "");
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((code, &list["files"][0]["bytes"]), (200, &json!(5)), "{list}");
    assert_eq!(http(at, "DELETE", "/v1/data/in/a.txt", "", "").0, 200);
    assert_eq!(http(at, "GET", "/v1/data/in/a.txt", "", "").0, 404);
}
