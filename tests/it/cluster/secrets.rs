//! What is told of users to those who look: the document of rights, and all that a node says of itself, in which there is no
//! secret.

use std::path::Path;

use gristmill::engine::control::rights::{BUILT_IN, CALLS, Needs, RIGHTS, Right};
use serde_json::json;

use super::access::{PASSWORD, ask, login, user};
use super::api::http;
use super::nodes::{logged_in, texts, users};
use crate::process::Process;
use crate::program::{Folder, until};

/// What a call needs, for people.
fn told(needs: Needs) -> String {
    let right = |right: Right| format!("`{}`", right.name());
    match needs {
        Needs::Nothing => "nothing".into(),
        Needs::Token => "a token".into(),
        Needs::Right(of_all) => right(of_all),
        Needs::Own(own, any) => format!("{}, or {}", right(own), right(any)),
        Needs::Self_(any) => format!("a token; of others {}", right(any)),
        Needs::Master => "to be a master".into(),
        Needs::Worker => "to be a worker".into(),
        Needs::Node => "to be a master or a worker".into(),
        Needs::MasterOr(any) => format!("to be a master, or {}", right(any)),
    }
}

#[test]
fn the_document_of_rights_is_what_is_decided() {
    let mut text = String::from(
        "# Rights\n\nWho may do what. This page is printed from `engine/src/control/rights.rs`, which decides it: what is not here \
         is answered to nobody.\nRights end in `.any` where they are on what everybody has; the others are on one's own \
         ([users.md](users.md)).\n\n## Roles\n\n| right | allows |",
    );
    BUILT_IN.iter().for_each(|(role, _)| text += &format!(" {role} |"));
    text += "\n|---|---|";
    text += &"---|".repeat(BUILT_IN.len());
    for (right, name, about) in RIGHTS {
        text += &format!("\n| `{name}` | {about} |");
        BUILT_IN.iter().for_each(|(_, rights)| text += if rights.has(*right) { " x |" } else { " |" });
    }
    text += "\n\nOther roles are made of these with `gristmill role put NAME RIGHT…`. A user without a role may see who one is, and \
             change the password.\n\n## Calls\n\nJSON routes stand for calls: [openapi.json](openapi.json) names them.\n\n\
             | call | needs |\n|---|---|\n";
    CALLS.iter().for_each(|(call, needs)| text += &format!("| {call} | {} |\n", told(*needs)));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rights.md");
    if std::env::var_os("GRISTMILL_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "rights have changed: run this test with GRISTMILL_UPDATE_DOCS=1 and look at docs/rights.md");
}

/// The program with all that its libraries say of themselves, at the highest level of detail.
#[test]
fn a_node_that_tells_everything_tells_no_secret() {
    let folder = Folder::new();
    texts(&folder, 50);
    let traced = Path::new(env!("CARGO_BIN_EXE_gristmill")).with_file_name("examples/traced");
    assert!(traced.exists(), "cargo builds it for all tests, or by itself with: cargo build --example traced");
    let mut command = folder.command(traced);
    let arguments = format!("serve --data data --store store --listen 127.0.0.1:0{}", users(&folder));
    command.args(arguments.split_whitespace());
    let mut node = Process::of(command, folder.path().join("traced.log"));
    let at = node.ready();
    let admin = logged_in(&folder, &format!("--at {at}"));
    let token = user(&at, &admin, "ann", "user");
    let other = login(&at, "ann");
    let told = ask(&at, "", "POST", "/v1/auth/login", json!({"user": "ann", "password": PASSWORD}), 200);
    let refresh = told["refresh_token"].as_str().unwrap().to_string();
    ask(&at, "", "POST", "/v1/auth/refresh", json!({"refresh_token": refresh}), 200);
    let wrong = json!({"user": "ann", "password": "a wrong canary of a password"});
    ask(&at, "", "POST", "/v1/auth/login", wrong, 401);
    ask(&at, &admin, "POST", "/v1/keys/rotate", json!({}), 200);
    ask(&at, &token, "POST", "/v1/auth/validate", json!({"token": other}), 200);
    // Over HTTP/2 as well.
    let job = folder.run(&format!("submit wordcount books/ -o out --at {at}"));
    assert_eq!(job.code, Some(0), "{job:?}");
    assert_eq!(http(&at, "GET", "/v1/cluster", "Authorization: Bearer canary-of-a-bearer\r\n", "").0, 401);
    until("much to be told", || node.said().lines().count() > 1000);
    let said = node.said();
    let credentials = folder.read("credentials.json");
    let kept: serde_json::Value = serde_json::from_str(&credentials).unwrap();
    let of_session = kept.to_string();
    let words = of_session.split('"').filter(|word| word.len() > 40);
    for secret in [PASSWORD, &token, &other, &refresh, &admin, "canary", "$argon2"].into_iter().chain(words) {
        assert!(
            !said.contains(secret),
            "{secret} was told: {}",
            said.lines().find(|line| line.contains(secret)).unwrap()
        );
    }
}
