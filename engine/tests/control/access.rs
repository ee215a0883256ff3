//! Users, sessions, roles and keys, command by command.

use gristmill_engine::control::rights::{BUILT_IN, Right};
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::Quota;
use wire::command::Action;
use wire::refused::Code;
use wire::reply::Outcome;

use super::rules::settle;
use super::world::{World, spec};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn code(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Refused(refused) => refused.code(),
        other => panic!("not refused: {other:?}"),
    }
}

fn accepted(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
}

fn user(name: &str, role: &str) -> wire::UserRecord {
    wire::UserRecord { name: name.into(), role: role.into(), verifier: format!("of {name}"), ..Default::default() }
}

fn adding(name: &str, role: &str) -> Action {
    Action::AddUser(wire::AddUser { user: Some(user(name, role)), ..Default::default() })
}

fn changing(name: &str) -> wire::ChangeUser {
    wire::ChangeUser { name: name.into(), ..Default::default() }
}

fn key(kid: &str) -> wire::SigningKeyRecord {
    wire::SigningKeyRecord {
        kid: kid.into(),
        public: vec![7; 32].into(),
        secret: vec![8; 48].into(),
        ..Default::default()
    }
}

/// A cluster with an administrator, ann, who is logged in.
fn begun() -> (World, u64) {
    let mut world = World::new(1, 1);
    let first = wire::AddUser { user: Some(user("ann", "admin")), first: true, key: Some(key("k1")), registers: false };
    accepted(world.commit("system", Action::AddUser(first)));
    let session = opened(&mut world, "ann", false);
    (world, session)
}

fn opening(name: &str, token: bool) -> wire::OpenSession {
    let session = wire::SessionRecord {
        user: name.into(),
        token,
        secret: vec![1; 32].into(),
        expires_ms: 10 * DAY_MS,
        ..Default::default()
    };
    wire::OpenSession { session: Some(session), verifier: format!("of {name}") }
}

fn opened(world: &mut World, name: &str, token: bool) -> u64 {
    // Users make tokens in a session; tests need none.
    let principal = if token { "system" } else { name };
    match world.commit(principal, Action::OpenSession(opening(name, token))) {
        Outcome::Opened(session) => session,
        other => panic!("{other:?}"),
    }
}

/// What somebody with a session asks for.
fn ask(world: &mut World, (name, session): (&str, u64), action: Action) -> Outcome {
    let now_ms = world.state().now_ms();
    let (principal, action) = (name.to_string(), Some(action));
    world.commit_command(&wire::Command { now_ms, principal, session, level: 1, action, ..Default::default() })
}

/// What somebody asks for with the token of a service account, or says so.
fn ask_as_account(world: &mut World, (name, session): (&str, u64), action: Action) -> Outcome {
    let now_ms = world.state().now_ms();
    let command = wire::Command {
        now_ms,
        principal: name.to_string(),
        session,
        account: true,
        level: 1,
        action: Some(action),
        ..Default::default()
    };
    world.commit_command(&command)
}

fn adding_bound(name: &str, role: &str, account: &str) -> Action {
    let bound = wire::UserRecord { service_account: account.into(), ..user(name, role) };
    Action::AddUser(wire::AddUser { user: Some(bound), ..Default::default() })
}

fn binding(name: &str, account: &str) -> Action {
    Action::ChangeUser(wire::ChangeUser { service_account: Some(account.into()), ..changing(name) })
}

/// Lets time pass.
fn pass(world: &mut World, ms: u64) {
    let now_ms = world.state().now_ms() + ms;
    let action = Some(Action::NoteAudit(wire::NoteAudit::default()));
    let principal = "system".to_string();
    world.commit_command(&wire::Command { now_ms, principal, level: 1, action, ..Default::default() });
}

fn is_here(state: &State, session: u64) -> bool {
    state.access().principal(session, state.now_ms()).is_ok()
}

#[test]
fn the_first_user_is_made_once() {
    let (mut world, session) = begun();
    let again = wire::AddUser { user: Some(user("eve", "admin")), first: true, key: Some(key("k2")), registers: false };
    assert_eq!(world.commit("system", Action::AddUser(again)), Outcome::Accepted(wire::Accepted { already: true }));
    let access = world.state().access();
    assert!(access.user("eve").is_none() && access.signing_key().unwrap().kid == "k1");
    let ann = access.principal(session, 0).unwrap();
    assert!(BUILT_IN.iter().all(|(_, rights)| ann.rights.contain(*rights)) && &*ann.prefix == "ann/");
}

#[test]
fn nobody_gives_or_takes_more_than_one_has() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    let role = |name: &str, rights: &[&str]| {
        Action::PutRole(wire::RoleRecord { name: name.into(), rights: rights.iter().map(|r| r.to_string()).collect() })
    };
    accepted(ask(&mut world, ann, role("clerk", &["users.read", "users.manage", "jobs.read"])));
    accepted(ask(&mut world, ann, adding("bob", "clerk")));
    let bob = ("bob", opened(&mut world, "bob", false));
    for refused in [
        adding("eve", "admin"),
        adding("eve", "user"),
        Action::ChangeUser(wire::ChangeUser { role: Some("admin".into()), ..changing("bob") }),
        Action::ChangeUser(wire::ChangeUser { role: Some(String::new()), ..changing("ann") }),
        Action::ChangeUser(wire::ChangeUser { disabled: Some(true), ..changing("ann") }),
        Action::ChangeUser(wire::ChangeUser {
            verifier: Some("mine".into()),
            must_change: Some(true),
            ..changing("ann")
        }),
        Action::RemoveUser(wire::RemoveUser { name: "ann".into() }),
        role("clerk", &["users.manage", "jobs.submit"]),
        role("boss", &["keys.rotate"]),
    ] {
        assert_eq!(code(ask(&mut world, bob, refused.clone())), Code::Denied, "{refused:?}");
    }
    accepted(ask(&mut world, bob, adding("cid", "clerk")));
    accepted(ask(&mut world, bob, adding("dan", "")));
    // A token for a machine gives no more than it has itself.
    let mut token = opening("ann", true);
    token.session.as_mut().unwrap().role = "clerk".into();
    let Outcome::Opened(token) = ask(&mut world, ann, Action::OpenSession(token)) else { panic!() };
    assert_eq!(code(ask(&mut world, ("ann", token), adding("eve", "admin"))), Code::Denied);
    accepted(ask(&mut world, ("ann", token), adding("eve", "clerk")));
    let principal = world.state().access().principal(token, 0).unwrap();
    assert!(principal.rights.has(Right::UsersManage) && !principal.rights.has(Right::KeysRotate));
}

#[test]
fn a_service_account_is_one_user_at_most() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    let who = |world: &World, account: &str| world.state().access().of_account(account).ok();
    let name = |world: &World, account: &str| who(world, account).map(|who| who.name.to_string());
    accepted(ask(&mut world, ann, adding_bound("bob", "user", "batch/loader")));
    let bob = who(&world, "batch/loader").unwrap();
    assert_eq!((&*bob.name, bob.session, &*bob.prefix, &*bob.account), ("bob", 0, "bob/", "batch/loader"));
    assert!(bob.rights.has(Right::JobsSubmit) && !bob.rights.has(Right::UsersManage) && !bob.must_change);
    assert_eq!(code(ask(&mut world, ann, adding_bound("eve", "user", "batch/loader"))), Code::Conflict);
    accepted(ask(&mut world, ann, adding("eve", "user")));
    assert_eq!(code(ask(&mut world, ann, binding("eve", "batch/loader"))), Code::Conflict);
    let long = (format!("{}/x", "n".repeat(64)), format!("n/{}", "x".repeat(254)));
    for bad in
        ["batch", "batch/", "/loader", "Batch/loader", "batch/-a", "batch/a..b", "a.b/c", "a/b/c", &long.0, &long.1]
    {
        assert_eq!(code(ask(&mut world, ann, binding("eve", bad))), Code::Invalid, "{bad}");
    }
    // Another one, or none, ends sessions; the same does not.
    for (account, ends) in [("batch/loader", false), ("batch/other.one", true), ("", true), ("batch/loader", true)] {
        let session = opened(&mut world, "bob", false);
        accepted(ask(&mut world, ann, binding("bob", account)));
        assert_eq!(is_here(world.state(), session), !ends, "{account}");
        let bound = ["batch/loader", "batch/other.one"].map(|one| name(&world, one).is_some());
        assert_eq!(bound, ["batch/loader", "batch/other.one"].map(|one| one == account), "{account}");
    }
    // It is as much as its user, whatever is true of the password.
    let must = wire::ChangeUser { verifier: Some("anew".into()), must_change: Some(true), ..changing("bob") };
    accepted(ask(&mut world, ann, Action::ChangeUser(must)));
    assert!(who(&world, "batch/loader").unwrap().rights.has(Right::JobsSubmit));
    for (disabled, there) in [(true, false), (false, true)] {
        let change = wire::ChangeUser { disabled: Some(disabled), ..changing("bob") };
        accepted(ask(&mut world, ann, Action::ChangeUser(change)));
        assert_eq!(name(&world, "batch/loader").is_some(), there);
    }
    // Whoever is gone has none; a snapshot has those that there are.
    accepted(ask(&mut world, ann, binding("eve", "ops/eve")));
    accepted(ask(&mut world, ann, Action::RemoveUser(wire::RemoveUser { name: "bob".into() })));
    assert_eq!(name(&world, "batch/loader"), None);
    accepted(ask(&mut world, ann, adding_bound("cid", "", "batch/loader")));
    let chunks: Vec<u8> = world.state().snapshot().flatten().collect();
    let restored = State::restore(&mut &chunks[..]).unwrap();
    assert_eq!(&restored, world.state());
    let names = ["batch/loader", "ops/eve"].map(|one| restored.access().of_account(one).unwrap().name.to_string());
    assert_eq!(names, ["cid", "eve"]);
    // Whoever registers brings none.
    accepted(ask(&mut world, ann, Action::SetPolicy(wire::PolicyRecord { registration: true })));
    let bound = wire::UserRecord { service_account: "batch/dan".into(), ..user("dan", "") };
    let registers = wire::AddUser { user: Some(bound), registers: true, ..Default::default() };
    assert_eq!(code(world.commit("system", Action::AddUser(registers))), Code::Denied);
}

#[test]
fn a_service_account_gives_no_more_than_its_user_has() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    let rights = ["users.read", "users.manage", "jobs.read"].map(String::from).to_vec();
    accepted(ask(&mut world, ann, Action::PutRole(wire::RoleRecord { name: "clerk".into(), rights })));
    accepted(ask(&mut world, ann, adding_bound("bob", "clerk", "batch/bob")));
    accepted(ask_as_account(&mut world, ("bob", 0), adding("cid", "clerk")));
    assert_eq!(code(ask_as_account(&mut world, ("bob", 0), adding("eve", "admin"))), Code::Denied);
    // Nobody takes another's rights by an account of one's own, nor one's own by a token that has less.
    assert_eq!(code(ask_as_account(&mut world, ("bob", 0), binding("ann", "batch/eve"))), Code::Denied);
    accepted(ask_as_account(&mut world, ("bob", 0), binding("cid", "batch/cid")));
    let mut token = opening("ann", true);
    token.session.as_mut().unwrap().role = "clerk".into();
    let Outcome::Opened(token) = ask(&mut world, ann, Action::OpenSession(token)) else { panic!() };
    assert_eq!(code(ask(&mut world, ("ann", token), binding("ann", "batch/eve"))), Code::Denied);
    // No session is not enough, nor is one that has ended made good by saying so.
    assert_eq!(code(ask(&mut world, ("bob", 0), adding("dan", "clerk"))), Code::Denied);
    assert_eq!(code(ask_as_account(&mut world, ("bob", 999), adding("dan", "clerk"))), Code::Denied);
    assert_eq!(code(ask_as_account(&mut world, ("nobody", 0), adding("dan", "clerk"))), Code::Denied);
    assert_eq!(code(ask_as_account(&mut world, ("ann", 0), adding("dan", "clerk"))), Code::Denied, "she has none");
    let disabled = wire::ChangeUser { disabled: Some(true), ..changing("bob") };
    accepted(ask(&mut world, ann, Action::ChangeUser(disabled)));
    assert_eq!(code(ask_as_account(&mut world, ("bob", 0), adding("dan", "clerk"))), Code::Denied);
}

#[test]
fn an_administrator_remains() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    let last = [
        Action::RemoveUser(wire::RemoveUser { name: "ann".into() }),
        Action::ChangeUser(wire::ChangeUser { disabled: Some(true), ..changing("ann") }),
        Action::ChangeUser(wire::ChangeUser { role: Some("user".into()), ..changing("ann") }),
    ];
    for refused in &last {
        assert_eq!(code(ask(&mut world, ann, refused.clone())), Code::State, "{refused:?}");
    }
    accepted(ask(&mut world, ann, adding("bob", "admin")));
    accepted(ask(&mut world, ann, last[0].clone()));
    assert!(!is_here(world.state(), ann.1) && world.state().access().user("ann").is_none());
}

#[test]
fn what_takes_something_from_a_user_ends_the_sessions() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    let change = |change: wire::ChangeUser| Action::ChangeUser(change);
    let verifier = Some("of bob anew".to_string());
    for (n, (action, ends)) in [
        (change(wire::ChangeUser { role: Some("reader".into()), ..changing("bob") }), true),
        (change(wire::ChangeUser { disabled: Some(true), ..changing("bob") }), true),
        (change(wire::ChangeUser { verifier: verifier.clone(), must_change: Some(true), ..changing("bob") }), true),
        (
            change(wire::ChangeUser {
                verifier: verifier.clone(),
                same_password: true,
                shown: "of bob".into(),
                ..changing("bob")
            }),
            false,
        ),
        (change(wire::ChangeUser { quota: Some(Quota { jobs: 3, ..Quota::default() }), ..changing("bob") }), false),
        (change(wire::ChangeUser { prefix: Some("b/".into()), ..changing("bob") }), false),
        (Action::RemoveUser(wire::RemoveUser { name: "bob".into() }), true),
        (Action::EndSessions(wire::EndSessions { session: 0, user: "bob".into() }), true),
    ]
    .into_iter()
    .enumerate()
    {
        accepted(ask(&mut world, ann, adding("bob", "user")));
        let (session, token) = (opened(&mut world, "bob", false), opened(&mut world, "bob", true));
        accepted(ask(&mut world, ann, action));
        assert_eq!((is_here(world.state(), session), is_here(world.state(), token)), (!ends, !ends), "{n}");
        // Nobody of the same name has them later.
        let _ = ask(&mut world, ann, Action::RemoveUser(wire::RemoveUser { name: "bob".into() }));
        accepted(ask(&mut world, ann, adding("bob", "user")));
        assert!(!is_here(world.state(), session) && !is_here(world.state(), token), "{n}");
        accepted(ask(&mut world, ann, Action::RemoveUser(wire::RemoveUser { name: "bob".into() })));
    }
    // One's own new password leaves the session with which it was set.
    accepted(ask(&mut world, ann, adding("bob", "user")));
    let (mine, other) = (opened(&mut world, "bob", false), opened(&mut world, "bob", false));
    let shown = "of bob".to_string();
    let own = wire::ChangeUser { verifier, must_change: Some(false), keep_session: mine, shown, ..changing("bob") };
    // Of one that has ended, or with a password that was replaced since it was shown.
    for (session, late) in [
        (999, wire::ChangeUser { keep_session: 999, ..own.clone() }),
        (mine, wire::ChangeUser { shown: "of before".into(), ..own.clone() }),
    ] {
        assert!(matches!(ask(&mut world, ("bob", session), change(late)), Outcome::Refused(_)));
    }
    accepted(ask(&mut world, ("bob", mine), change(own)));
    assert!(is_here(world.state(), mine) && !is_here(world.state(), other));
    // A login that looked at the password before it was another one comes to nothing.
    assert_eq!(code(world.commit("bob", Action::OpenSession(opening("bob", false)))), Code::Unauthenticated);
}

#[test]
fn a_word_continues_a_session_once() {
    let (mut world, session) = begun();
    let word = |n: u8| -> bytes::Bytes { vec![n; 32].into() };
    let refresh = |shown: u8, next: u8| {
        Action::RefreshSession(wire::RefreshSession { session, shown: word(shown), next: word(next) })
    };
    assert_eq!(world.commit("system", refresh(1, 2)), Outcome::Opened(session));
    // The answer may have been lost: the same word once more.
    assert_eq!(world.commit("system", refresh(1, 3)), Outcome::Opened(session));
    assert_eq!(world.commit("system", refresh(3, 4)), Outcome::Opened(session));
    assert_eq!(code(world.commit("system", refresh(9, 5))), Code::Unauthenticated);
    assert!(is_here(world.state(), session), "a word that never was one ends nothing");
    pass(&mut world, 120_000);
    assert_eq!(code(world.commit("system", refresh(3, 5))), Code::Unauthenticated);
    assert!(!is_here(world.state(), session), "two have it");
    assert_eq!(code(world.commit("system", refresh(4, 5))), Code::Unauthenticated);
}

#[test]
fn sessions_end_with_their_time_and_are_bounded() {
    let (mut world, ann) = begun();
    let token = opened(&mut world, "ann", true);
    pass(&mut world, 11 * DAY_MS);
    assert!(is_here(world.state(), ann) && !is_here(world.state(), token));
    pass(&mut world, 4 * DAY_MS);
    assert!(!is_here(world.state(), ann));
    let first = opened(&mut world, "ann", false);
    assert!(world.state().access().session(ann).is_none() && world.state().access().session(token).is_none());
    for _ in 0..100 {
        opened(&mut world, "ann", false);
    }
    assert_eq!(world.state().access().sessions_of("ann").count(), 100);
    assert!(!is_here(world.state(), first), "the oldest made room");
}

#[test]
fn keys_overlap_or_go_at_once() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    let rotate = |kid: &str, at_once| Action::RotateKeys(wire::RotateKeys { key: Some(key(kid)), at_once });
    accepted(ask(&mut world, ann, rotate("k2", false)));
    let signs = |world: &World| world.state().access().signing_key().unwrap().kid.clone();
    let holds = |world: &World, kid| world.state().access().public_key(kid, world.state().now_ms()).is_some();
    assert!(signs(&world) == "k2" && holds(&world, "k1") && holds(&world, "k2"));
    assert_eq!(code(ask(&mut world, ann, rotate("k1", false))), Code::Invalid, "a number that was");
    pass(&mut world, 3_600_001);
    assert!(!holds(&world, "k1") && holds(&world, "k2"));
    accepted(ask(&mut world, ann, rotate("k3", true)));
    assert!(signs(&world) == "k3" && !holds(&world, "k2"));
}

#[test]
fn names_and_prefixes_are_plain_and_registration_is_closed() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    for bad in ["", "Bob", "b b", "-b", "system", "anonymous", "shared", "b/c", &"b".repeat(65)] {
        assert_eq!(code(ask(&mut world, ann, adding(bad, "user"))), Code::Invalid, "{bad}");
    }
    for bad in ["b", "/", "../", "b//", "shared/b/", ".gristmill/", "b/../c/"] {
        let named = wire::UserRecord { prefix: bad.into(), ..user("bob", "user") };
        let add = Action::AddUser(wire::AddUser { user: Some(named), ..Default::default() });
        assert_eq!(code(ask(&mut world, ann, add)), Code::Invalid, "{bad}");
    }
    assert_eq!(code(ask(&mut world, ann, adding("bob", "king"))), Code::NotFound);
    let registers =
        |role| Action::AddUser(wire::AddUser { user: Some(user("eve", role)), registers: true, ..Default::default() });
    assert_eq!(code(world.commit("system", registers(""))), Code::Denied);
    accepted(ask(&mut world, ann, Action::SetPolicy(wire::PolicyRecord { registration: true })));
    assert_eq!(code(world.commit("system", registers("admin"))), Code::Denied, "it never grants a role");
    accepted(world.commit("system", registers("")));
    let eve = opened(&mut world, "eve", false);
    assert_eq!(world.state().access().principal(eve, 0).unwrap().rights.names().count(), 0);
    assert_eq!(code(world.commit("system", registers(""))), Code::Conflict);
}

#[test]
fn quotas_hold_where_jobs_are_taken() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    accepted(ask(&mut world, ann, adding("bob", "user")));
    let quota = Quota { jobs: 2, submissions_a_minute: 3, ..Quota::default() };
    let quota = wire::ChangeUser { quota: Some(quota), ..changing("bob") };
    accepted(ask(&mut world, ann, Action::ChangeUser(quota)));
    let first = world.accepted("bob", "1", spec("bob/1", "maps=1"));
    world.accepted("bob", "2", spec("bob/2", "maps=1"));
    assert_eq!(code(world.submit("bob", "3", spec("bob/3", "maps=1"))), Code::Limit);
    accepted(world.commit("bob", Action::CancelJob(wire::CancelJob { job: first, reason: String::new() })));
    world.accepted("bob", "3", spec("bob/3", "maps=1"));
    accepted(world.commit("bob", Action::CancelJob(wire::CancelJob { job: first + 1, reason: String::new() })));
    assert_eq!(code(world.submit("bob", "4", spec("bob/4", "maps=1"))), Code::Limit, "three in a minute");
    pass(&mut world, 60_000);
    world.accepted("bob", "4", spec("bob/4", "maps=1"));
    // Who is not here any more submits nothing, whatever was decided before.
    accepted(ask(&mut world, ann, Action::RemoveUser(wire::RemoveUser { name: "bob".into() })));
    assert_eq!(code(world.submit("bob", "5", spec("bob/5", "maps=1"))), Code::Denied);
    world.accepted("anonymous", "6", spec("x/6", "maps=1"));
}

#[test]
fn what_users_do_is_written_down_without_secrets() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    accepted(ask(&mut world, ann, adding("bob", "user")));
    assert_eq!(code(ask(&mut world, ann, adding("bob", "user"))), Code::Conflict);
    let secret = wire::ChangeUser { verifier: Some("canary".into()), must_change: Some(true), ..changing("bob") };
    accepted(ask(&mut world, ann, Action::ChangeUser(secret)));
    let told: Vec<_> = world
        .state()
        .access()
        .events_from(0)
        .map(|e| (e.user.as_str(), e.action.as_str(), e.target.as_str(), !e.refused.is_empty()))
        .collect();
    assert_eq!(
        told,
        [
            ("", "Users/Add", "ann", false),
            ("ann", "Access/Login", "ann", false),
            ("ann", "Users/Add", "bob", false),
            ("ann", "Users/Add", "bob", true),
            ("ann", "Users/ResetPassword", "bob", false),
        ]
    );
    let printed = format!("{:?}", world.state());
    assert!(!printed.contains("canary") && !printed.contains("of bob"), "nor printed with the state");
    let last = world.state().access().events_from(0).last().unwrap().id;
    accepted(world.commit("system", Action::ArchiveAudit(wire::ArchiveAudit { upto: last })));
    assert_eq!(world.state().access().events(), 0);
}

#[test]
fn all_of_it_is_in_a_snapshot() {
    let (mut world, ann) = begun();
    let ann = ("ann", ann);
    accepted(ask(&mut world, ann, adding("bob", "user")));
    let quota = Quota { submissions_a_minute: 3, ..Quota::default() };
    accepted(ask(&mut world, ann, Action::ChangeUser(wire::ChangeUser { quota: Some(quota), ..changing("bob") })));
    world.accepted("bob", "1", spec("bob/1", "maps=1"));
    opened(&mut world, "bob", true);
    let role = wire::RoleRecord { name: "clerk".into(), rights: vec!["jobs.read".into()] };
    accepted(ask(&mut world, ann, Action::PutRole(role)));
    accepted(ask(&mut world, ann, Action::RotateKeys(wire::RotateKeys { key: Some(key("k2")), at_once: false })));
    accepted(ask(&mut world, ann, Action::SetPolicy(wire::PolicyRecord { registration: true })));
    let state = world.state();
    let chunks: Vec<u8> = state.snapshot().flatten().collect();
    let restored = State::restore(&mut &chunks[..]).unwrap();
    assert_eq!((&restored, restored.digest()), (state, state.digest()));
}

#[test]
fn a_user_has_no_more_attempts_at_a_time_than_the_quota_says() {
    let mut world = World::new(2, 4);
    let record = |name: &str, cores| wire::UserRecord {
        name: name.into(),
        quota: Some(Quota { cores, ..Quota::default() }),
        ..Default::default()
    };
    for (name, cores) in [("ann", 3), ("bob", 0)] {
        let add = wire::AddUser { user: Some(record(name, cores)), ..Default::default() };
        world.commit("system", Action::AddUser(add));
    }
    (0..2).for_each(|worker| world.step(worker));
    world.job("out", "maps=8 parts=1");
    settle(&mut world);
    let running = |world: &World| world.workers.iter().map(|worker| worker.tasks.len()).sum::<usize>();
    assert_eq!(running(&world), 3);
    world.accepted("bob", "other", spec("other", "maps=9 parts=1"));
    settle(&mut world);
    (0..2).for_each(|worker| world.step(worker));
    assert_eq!(running(&world), 8, "others have what is left");
    let of = |world: &World, user: &str| {
        let job = |job: u64| world.state().job(job).is_some_and(|job| &*job.principal == user);
        world.workers.iter().flat_map(|w| w.tasks.values()).filter(|r| job(r.task.job)).count()
    };
    let mut most = 0;
    for _ in 0..6 {
        world.finish(0, 0);
        world.step(0);
        settle(&mut world);
        (0..2).for_each(|worker| world.step(worker));
        assert!(of(&world, "ann") <= 3);
        most = most.max(of(&world, "ann"));
    }
    assert_eq!(most, 3, "what ends makes room for another");
}

/// A token that may manage users, of somebody who may do more, gets no more by its user's own password or by other tokens.
#[test]
fn a_token_takes_over_neither_its_user_nor_makes_another() {
    let (mut world, ann) = begun();
    let role = wire::RoleRecord { name: "desk".into(), rights: vec!["users.manage".into(), "tokens.create".into()] };
    accepted(ask(&mut world, ("ann", ann), Action::PutRole(role)));
    let mut token = opening("ann", true);
    token.session.as_mut().unwrap().role = "desk".into();
    let Outcome::Opened(desk) = ask(&mut world, ("ann", ann), Action::OpenSession(token.clone())) else { panic!() };
    let reset = wire::ChangeUser { verifier: Some("mine".into()), must_change: Some(true), ..changing("ann") };
    let own = wire::ChangeUser {
        verifier: Some("mine".into()),
        must_change: Some(false),
        keep_session: desk,
        shown: "of ann".into(),
        ..changing("ann")
    };
    for refused in [reset.clone(), own, wire::ChangeUser { disabled: Some(true), ..changing("ann") }] {
        assert_eq!(
            code(ask(&mut world, ("ann", desk), Action::ChangeUser(refused.clone()))),
            Code::Denied,
            "{refused:?}"
        );
    }
    let child = Action::OpenSession(token);
    assert_eq!(code(ask(&mut world, ("ann", desk), child.clone())), Code::Unauthenticated);
    accepted(ask(
        &mut world,
        ("ann", ann),
        Action::EndSessions(wire::EndSessions { session: desk, user: "ann".into() }),
    ));
    assert_eq!(code(ask(&mut world, ("ann", desk), child)), Code::Unauthenticated, "it has ended");
    accepted(ask(&mut world, ("ann", ann), Action::ChangeUser(reset)));
}

#[test]
fn prefixes_are_apart_and_given_by_those_who_may_read_all() {
    let (mut world, ann) = begun();
    let role = wire::RoleRecord {
        name: "clerk".into(),
        rights: ["users.manage", "data.read", "data.write"].map(String::from).to_vec(),
    };
    accepted(ask(&mut world, ("ann", ann), Action::PutRole(role)));
    accepted(ask(&mut world, ("ann", ann), adding("bob", "clerk")));
    let bob = ("bob", opened(&mut world, "bob", false));
    let prefix = |name: &str, prefix: &str| {
        Action::ChangeUser(wire::ChangeUser { prefix: Some(prefix.into()), ..changing(name) })
    };
    assert_eq!(code(ask(&mut world, bob, prefix("bob", "others/"))), Code::Denied);
    assert_eq!(code(ask(&mut world, ("ann", ann), prefix("bob", "ann/"))), Code::Conflict);
    assert_eq!(code(ask(&mut world, ("ann", ann), prefix("bob", "ann/bob/"))), Code::Conflict);
    accepted(ask(&mut world, ("ann", ann), prefix("bob", "team/bob/")));
    assert_eq!(code(ask(&mut world, ("ann", ann), adding("team", ""))), Code::Conflict);
}
