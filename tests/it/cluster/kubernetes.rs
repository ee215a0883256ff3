//! Tokens of Kubernetes' service accounts: whom a master lets in by them, and what it says of those whom it does not.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::access::ask;
use super::api::http;
use super::nodes::{Node, logged_in, users};
use crate::http::{Answer, Request, listen, serve};
use crate::program::{Folder, ended, until};

/// The token with which a master asks.
const OWN: &str = "own-canary-of-the-master";
/// What signatures say that are right.
const RIGHT: &str = "right";

/// Stands for an API server.
#[derive(Default)]
struct Api {
    reviews: AtomicUsize,
    /// What it answers instead; 0: nothing, and the connection is closed.
    broken: Mutex<Option<u16>>,
}

impl Api {
    /// Listens, and gives itself and the flags of a master that asks it.
    fn begun(folder: &Folder) -> (Arc<Self>, String) {
        folder.file("sa/token", format!("{OWN}\n"));
        let api = Arc::new(Self::default());
        let answers = api.clone();
        let at = listen(move |stream| serve(stream, |request| answers.answer(request)));
        let flags = format!(" --kubernetes-tokens --kubernetes-api http://{at}/k8s/ --kubernetes-folder sa");
        (api, users(folder) + &flags)
    }

    fn breaks(&self, how: Option<u16>) {
        *self.broken.lock().unwrap() = how;
    }

    fn answer(&self, request: &Request) -> Answer {
        match *self.broken.lock().unwrap() {
            Some(0) => return Answer { status: 201, body: b"{}".to_vec(), cut: Some(0), ..Answer::default() },
            Some(code) => return Answer { body: b"canary".to_vec(), ..Answer::of(code) },
            None => {}
        }
        let path = "/k8s/apis/authentication.k8s.io/v1/tokenreviews";
        assert_eq!((&*request.method, &*request.target), ("POST", path));
        if request.header("authorization") != Some(format!("Bearer {OWN}").as_str()) {
            return Answer::of(401);
        }
        self.reviews.fetch_add(1, Relaxed);
        let mut review: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(
            (&review["kind"], &review["apiVersion"]),
            (&json!("TokenReview"), &json!("authentication.k8s.io/v1"))
        );
        review["status"] = status(&review["spec"]);
        Answer { body: review.to_string().into_bytes(), ..Answer::of(201) }
    }
}

/// What an API server finds of a token for these audiences.
fn status(spec: &Value) -> Value {
    let parts: Vec<&str> = spec["token"].as_str().unwrap().split('.').collect();
    let [_, body, signature] = parts[..] else { return json!({"error": "no JWT"}) };
    let body: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    let wanted = spec["audiences"].as_array().unwrap();
    let audiences: Vec<&Value> = body["aud"].as_array().unwrap().iter().filter(|one| wanted.contains(one)).collect();
    let knows = body["iss"] != "old";
    if signature != URL_SAFE_NO_PAD.encode(RIGHT) || (knows && audiences.is_empty()) {
        return json!({"authenticated": false, "error": "[invalid bearer token, canary]"});
    }
    let status = json!({"authenticated": true, "user": {"username": body["sub"], "groups": ["system:authenticated"]}});
    // An older one knows of no audiences.
    if knows { with(status, "audiences", json!(audiences)) } else { status }
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

/// A token that nobody has seen yet.
fn token(issuer: &str, subject: &str, audience: &str, signature: &str) -> String {
    static NUMBERS: AtomicU16 = AtomicU16::new(0);
    let number = NUMBERS.fetch_add(1, Relaxed);
    let head = json!({"alg": "RS256", "kid": "k"});
    let body = json!({"aud": [audience], "iss": issuer, "sub": subject, "jti": number});
    [head.to_string(), body.to_string(), signature.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

fn of(account: &str) -> String {
    let subject = format!("system:serviceaccount:{}", account.replace('/', ":"));
    token("https://kubernetes.default.svc", &subject, "gristmill", RIGHT)
}

#[test]
fn a_service_account_is_let_in_as_the_user_it_is_bound_to() {
    let folder = Folder::new();
    let (api, flags) = Api::begun(&folder);
    let node = Node::start(&folder, "serve", "data", &flags);
    let at = node.address.as_str();
    let admin = logged_in(&folder, &format!("--at {at}"));
    let who = |token: &str, expected: u16| ask(at, token, "GET", "/v1/auth/whoami", Value::Null, expected);
    let loader = of("batch/loader");
    let mut shown = vec![loader.clone()];
    let refused = who(&loader, 401).to_string();
    assert!(refused.contains("service account batch/loader"), "{refused}");

    // It has what its user has, at once, and no more.
    let bound = json!({"name": "loader", "role": "user", "service_account": "batch/loader"});
    ask(at, &admin, "POST", "/v1/users", bound, 200);
    let me = who(&loader, 200);
    assert_eq!((&me["user"], &me["role"]), (&json!("loader"), &json!("user")), "{me}");
    for (verb, path, expected) in [
        ("GET", "/v1/jobs", 200),
        ("PUT", "/v1/data/loader/a", 200),
        ("PUT", "/v1/data/other/a", 403),
        ("GET", "/v1/users", 403),
        ("POST", "/v1/tokens", 403),
    ] {
        ask(at, &loader, verb, path, json!({}), expected);
    }
    assert!(api.reviews.load(Relaxed) < 4, "what was answered is kept");

    // By the command line, from a file as in a pod.
    let run = |token: &str, arguments: &str| {
        let path = folder.file("projected", token);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = folder.gristmill(&format!("{arguments} --at {at}"));
        ended(command.env("GRISTMILL_TOKEN_FILE", path).output().unwrap())
    };
    assert_eq!(run(&loader, "jobs").code, Some(0));
    let done = run(&admin, "user set-account loader batch/second");
    assert_eq!(done.code, Some(0), "{done:?}");
    let listed = run(&admin, "user show loader").out;
    assert!(listed.contains("batch/second"), "{listed}");
    who(&loader, 401);
    let second = of("batch/second");
    assert_eq!(who(&second, 200)["user"], "loader");
    shown.push(second.clone());

    // Those who are none, or for others, are not known.
    let subject = "system:serviceaccount:batch:second";
    for (what, none) in [
        ("a signature that is wrong", token("k8s", subject, "gristmill", "wrong")),
        ("for another audience", token("k8s", subject, "https://kubernetes.default.svc", RIGHT)),
        ("of a server that knows no audiences", token("old", subject, "gristmill", RIGHT)),
        ("no service account", token("k8s", "loader", "gristmill", RIGHT)),
        ("of another cluster of ours", token("gristmill/0000000000000001", subject, "gristmill", RIGHT)),
    ] {
        let refused = who(&none, 401).to_string();
        assert!(refused.contains("not one of this cluster's"), "{what}: {refused}");
        shown.push(none);
    }

    // Whoever is disabled is so within a second, although the answer about the token is kept.
    ask(at, &admin, "POST", "/v1/users/loader", json!({"disabled": true}), 200);
    let disabled = Instant::now();
    let bearing = |token: &str| format!("Authorization: Bearer {token}\r\n");
    while http(at, "GET", "/v1/auth/whoami", &bearing(&second), "").0 == 200 {
        assert!(disabled.elapsed() < Duration::from_secs(1));
    }
    who(&second, 401);
    ask(at, &admin, "POST", "/v1/users/loader", json!({"disabled": false}), 200);
    who(&second, 200);

    // Where nobody can say whose a token is, that is said; who logs in otherwise does not care.
    for (how, why) in
        [(0, "the Kubernetes API did not review the token"), (500, "it answered 500"), (403, "create tokenreviews")]
    {
        api.breaks(Some(how));
        let unknown = of("batch/second");
        let told = who(&unknown, 503).to_string();
        assert!(told.contains(why) && !told.contains("canary"), "{told}");
        who(&admin, 200);
        api.breaks(None);
        who(&unknown, 200);
        shown.push(unknown);
    }

    let mut told = String::new();
    until("what was refused in the audit log", || {
        told = http(at, "GET", "/v1/audit", &bearing(&admin), "").1;
        told.contains("bound to the service account batch/loader")
    });
    told += &folder.read("data.log");
    for secret in shown.iter().map(String::as_str).chain([OWN, "canary"]) {
        assert!(!told.contains(secret), "{secret} was told: {told}");
    }
}

#[test]
fn nobody_is_asked_where_that_is_not_wanted() {
    let folder = Folder::new();
    let (api, _) = Api::begun(&folder);
    let node = Node::start(&folder, "serve", "data", &users(&folder));
    let admin = logged_in(&folder, &format!("--at {}", node.address));
    let bound = json!({"name": "loader", "role": "user", "service_account": "batch/loader"});
    ask(&node.address, &admin, "POST", "/v1/users", bound, 200);
    ask(&node.address, &of("batch/loader"), "GET", "/v1/auth/whoami", Value::Null, 401);
    assert_eq!(api.reviews.load(Relaxed), 0);
    // Nor may a token go through a network in the plain.
    for wrong in ["http://10.96.0.1", "k8s"] {
        let refused = folder.run(&format!("serve --data other --kubernetes-tokens --kubernetes-api {wrong}"));
        assert_eq!(refused.code, Some(2), "{refused:?}");
    }
    let refused =
        folder.run("serve --data other --kubernetes-tokens --kubernetes-api https://k8s --kubernetes-folder no");
    assert!(refused.code.is_some_and(|code| code > 0) && refused.err.contains("no/token"), "{refused:?}");
}
