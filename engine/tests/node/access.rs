//! Users of a cluster of masters: who is let in where, and for how long after that was decided otherwise.

use std::time::{Duration, Instant, SystemTime};

use gristmill_engine::auth::Secret;
use gristmill_engine::auth::password::Cost;
use gristmill_engine::auth::token::{Claims, SigningKey, sign};
use gristmill_engine::control::rights::{Principal, Right};
use gristmill_engine::node::env::Note;
use gristmill_engine::node::master::{Accounts, ApiError, Code, MasterNode};
use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1 as api;
use gristmill_raft::runtime::AsyncRuntime as _;
use prost::Message as _;

use super::world::{CLUSTER, Cluster, Rt, World, run, until};

const FIRST: &str = "a password that is given";
const OTHER: &str = "another that replaces it";

fn accounts() -> Accounts {
    let password = Some(Secret::from(FIRST.to_string()));
    Accounts { cost: Cost { memory_kib: 8, passes: 1 }, first: true, password, reset: None }
}

fn code(e: &ApiError) -> Code {
    match e {
        ApiError::Refused { code, .. } => *code,
        ApiError::NotLeader { .. } => panic!("not the leader"),
    }
}

fn login(user: &str, password: &str) -> api::LoginRequest {
    api::LoginRequest { user: user.into(), password: password.into(), label: "test".into() }
}

async fn leader(cluster: &Cluster) -> &MasterNode<World> {
    &cluster.masters[cluster.leader().await]
}

/// A cluster of three with its first user logged in, who has changed the password.
async fn begun() -> (Cluster, Principal) {
    let cluster = Cluster::with(3, accounts()).await;
    until(async || leader(&cluster).await.login("here", login("admin", FIRST)).await.is_ok()).await;
    let told = leader(&cluster).await.login("here", login("admin", FIRST)).await.unwrap();
    assert!(told.must_change);
    let master = leader(&cluster).await;
    let fresh = master.authenticate(&told.access_token).await.unwrap();
    assert!(fresh.must_change && fresh.rights.names().count() == 0, "nothing before the password is another one");
    let change = api::ChangePasswordRequest { old_password: FIRST.into(), new_password: OTHER.into() };
    master.change_password(&fresh, change).await.unwrap();
    let admin = master.authenticate(&told.access_token).await.unwrap();
    assert!(admin.rights.has(Right::UsersManage) && &*admin.name == "admin");
    (cluster, admin)
}

async fn add(cluster: &Cluster, admin: &Principal, name: &str, role: &str) -> String {
    let request = api::AddUserRequest { name: name.into(), role: role.into(), ..Default::default() };
    let made = leader(cluster).await.add_user(admin, request).await.unwrap().password;
    let told = leader(cluster).await.login("here", login(name, &made)).await.unwrap();
    let fresh = leader(cluster).await.authenticate(&told.access_token).await.unwrap();
    let change = api::ChangePasswordRequest { old_password: made, new_password: OTHER.into() };
    leader(cluster).await.change_password(&fresh, change).await.unwrap();
    told.access_token
}

#[test]
fn a_token_is_good_at_every_master_at_once_and_at_none_a_second_after_it_is_revoked() {
    run(async {
        let (cluster, admin) = begun().await;
        for (n, ends) in ["removed", "demoted", "disabled", "logged out", "ended"].into_iter().enumerate() {
            let name = format!("bob{n}");
            let token = add(&cluster, &admin, &name, "user").await;
            for master in &cluster.masters {
                let bob = master.authenticate_anew(&token).await.unwrap();
                assert!(*bob.name == name && bob.rights.has(Right::JobsSubmit), "{ends}");
                master.is_still_here(&bob).await.unwrap();
            }
            let bob = leader(&cluster).await.authenticate(&token).await.unwrap();
            let master = leader(&cluster).await;
            let changed = api::ChangeUserRequest { name: name.clone(), ..Default::default() };
            match ends {
                "removed" => master.remove_user(&admin, name).await.unwrap(),
                "demoted" => {
                    let role = Some("reader".to_string());
                    drop(master.change_user(&admin, api::ChangeUserRequest { role, ..changed }).await.unwrap());
                }
                "disabled" => {
                    let disabled = Some(true);
                    drop(master.change_user(&admin, api::ChangeUserRequest { disabled, ..changed }).await.unwrap());
                }
                "logged out" => drop(master.logout(&bob, api::LogoutRequest { all: false }).await.unwrap()),
                _ => master.end_session(&admin, &format!("{:x}", bob.session)).await.unwrap(),
            }
            let revoked = Instant::now();
            for master in &cluster.masters {
                while master.authenticate(&token).await.is_ok() {
                    assert!(revoked.elapsed() < Duration::from_secs(1), "{ends}");
                    Rt::sleep(Duration::from_millis(10)).await;
                }
                let refused = master.authenticate(&token).await.unwrap_err();
                assert_eq!(code(&refused), Code::Unauthenticated, "{ends}");
                assert!(master.is_still_here(&bob).await.is_err(), "{ends}");
            }
        }
    });
}

#[test]
fn a_master_that_cannot_know_lets_nobody_in() {
    run(async {
        let (cluster, admin) = begun().await;
        let token = add(&cluster, &admin, "bob", "user").await;
        let alone = cluster.leader().await;
        cluster.masters[alone].authenticate(&token).await.unwrap();
        cluster.cut_off(alone);
        Rt::sleep(Duration::from_millis(1100)).await;
        let refused = cluster.masters[alone].authenticate(&token).await.unwrap_err();
        assert_eq!(code(&refused), Code::Unavailable);
        // The others have a leader, who knows all users.
        until(async || cluster.leader().await != alone).await;
        let other = cluster.leader().await;
        until(async || cluster.masters[other].authenticate(&token).await.is_ok()).await;
        cluster.masters[other].login("here", login("bob", OTHER)).await.unwrap();
        cluster.heal();
        until(async || cluster.masters[alone].authenticate(&token).await.is_ok()).await;
    });
}

#[test]
fn sessions_are_refreshed_and_passwords_tried_a_few_times() {
    run(async {
        let (cluster, admin) = begun().await;
        let told = leader(&cluster).await.login("here", login("admin", OTHER)).await.unwrap();
        let refresh = |token: &str| api::RefreshRequest { refresh_token: token.into() };
        let next = leader(&cluster).await.refresh("here", refresh(&told.refresh_token)).await.unwrap();
        assert!(next.refresh_token != told.refresh_token && !next.must_change && next.user == "admin");
        leader(&cluster).await.authenticate(&next.access_token).await.unwrap();
        for none in ["", "gmr_1_x", &next.access_token, &next.refresh_token.replace("gmr_", "gmt_")] {
            let refused = leader(&cluster).await.refresh("here", refresh(none)).await.unwrap_err();
            assert_eq!(code(&refused), Code::Unauthenticated, "{none}");
        }
        // Known or not, with a right password later or not: the same words, and no sooner.
        let mut words = Vec::new();
        for name in ["admin", "nobody"] {
            let begun = Instant::now();
            let refused = leader(&cluster).await.login("there", login(name, "a wrong password")).await.unwrap_err();
            assert!(begun.elapsed() >= Duration::from_millis(400));
            words.push(refused.to_string());
        }
        assert_eq!(words[0], words[1]);
        let mut limited = false;
        for _ in 0..6 {
            let refused = leader(&cluster).await.login("there", login("admin", "a wrong password")).await.unwrap_err();
            limited |= code(&refused) == Code::Limit;
        }
        assert!(limited);
        let made = leader(&cluster).await.create_token(&admin, api::CreateTokenRequest::default()).await.unwrap();
        for master in &cluster.masters {
            let machine = master.authenticate(&made.token).await.unwrap();
            assert!(&*machine.name == "admin" && machine.rights.has(Right::KeysRotate));
            let change = api::ChangePasswordRequest { old_password: OTHER.into(), new_password: FIRST.into() };
            if master.log().has_quorum() {
                assert_eq!(code(&master.change_password(&machine, change).await.unwrap_err()), Code::Denied);
            }
        }
    });
}

#[test]
fn keys_that_are_withdrawn_take_their_tokens_with_them() {
    run(async {
        let (cluster, admin) = begun().await;
        let token = add(&cluster, &admin, "bob", "user").await;
        let jwks = leader(&cluster).await.jwks();
        assert!(jwks.keys.len() == 1 && jwks.keys[0].alg == "EdDSA" && jwks.keys[0].x.len() == 43);
        let kid = leader(&cluster).await.rotate_keys(&admin, false).await.unwrap().kid;
        let told = leader(&cluster).await.login("here", login("bob", OTHER)).await.unwrap();
        for master in &cluster.masters {
            // One that this master may not have heard of, and one of before.
            master.authenticate(&told.access_token).await.unwrap();
            master.authenticate(&token).await.unwrap();
            assert!(master.jwks().keys.len() == 2 && master.jwks().keys.iter().any(|key| key.kid == kid));
        }
        leader(&cluster).await.rotate_keys(&admin, true).await.unwrap();
        let begun = Instant::now();
        for master in &cluster.masters {
            until(async || master.authenticate(&told.access_token).await.is_err()).await;
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
        // Sessions stay: a new token comes of them.
        let refresh = api::RefreshRequest { refresh_token: told.refresh_token };
        let next = leader(&cluster).await.refresh("here", refresh).await.unwrap();
        for master in &cluster.masters {
            master.authenticate(&next.access_token).await.unwrap();
        }
    });
}

#[test]
fn jobs_and_refusals_are_ones_own_and_written_down() {
    run(async {
        let (cluster, admin) = begun().await;
        let _worker = cluster.work("w1", 1);
        cluster.put("ann/in/1", "corn rye\n").await;
        let ann = add(&cluster, &admin, "ann", "user").await;
        let bob = add(&cluster, &admin, "bob", "user").await;
        let (ann, bob) = {
            let master = leader(&cluster).await;
            (master.authenticate(&ann).await.unwrap(), master.authenticate(&bob).await.unwrap())
        };
        let spec = |input: &str, output: &str| {
            let app = Some(api::App { name: "wordcount".into(), ..Default::default() });
            api::JobSpec { app, inputs: vec![input.into()], output: output.into(), ..Default::default() }
        };
        let submit = |who: &Principal, key: &str, spec: api::JobSpec| {
            let (who, request) = (who.clone(), api::SubmitRequest { key: key.into(), spec: Some(spec) });
            let cluster = &cluster;
            async move { leader(cluster).await.submit(&who, request).await }
        };
        for (input, output) in
            [("ann/in/", "bob/out"), ("bob/in/", "ann/out"), ("*/in/1", "bob/out"), ("shared/", "out")]
        {
            let refused = submit(&bob, "k", spec(input, output)).await.unwrap_err();
            assert_eq!(code(&refused), Code::Denied, "{input} {output}");
        }
        let chained = api::JobSpec { then: Some(Box::new(spec("", "ann/x"))), ..spec("bob/in/", "bob/out") };
        assert_eq!(code(&submit(&bob, "k", chained).await.unwrap_err()), Code::Denied);
        until(async || leader(&cluster).await.workers().await.is_ok_and(|told| !told.workers.is_empty())).await;
        let job = submit(&ann, "k", spec("ann/in/", "ann/out")).await.unwrap().job;
        let master = leader(&cluster).await;
        assert_eq!(code(&master.job(&bob, &job).await.unwrap_err()), Code::NotFound);
        assert_eq!(code(&master.events(&bob, &job).await.unwrap_err()), Code::NotFound);
        assert_eq!(code(&master.cancel(&bob, &job, String::new()).await.unwrap_err()), Code::NotFound);
        assert_eq!(code(&master.retry(&bob, &job, "r".into()).await.unwrap_err()), Code::NotFound);
        assert!(master.jobs(&bob, &api::ListJobsRequest::default()).await.unwrap().jobs.is_empty());
        assert_eq!(master.jobs(&ann, &api::ListJobsRequest::default()).await.unwrap().jobs.len(), 1);
        assert_eq!(master.job(&admin, &job).await.unwrap().principal, "ann");
        let reader = add(&cluster, &admin, "eve", "reader").await;
        let master = leader(&cluster).await;
        let reader = master.authenticate(&reader).await.unwrap();
        assert_eq!(code(&master.cancel(&reader, &job, String::new()).await.unwrap_err()), Code::Denied);
        // What another master has to say reaches the log as well.
        let other = cluster.masters.iter().position(|master| !master.log().has_quorum()).unwrap();
        cluster.masters[other].done(&ann, "Data/Put", "ann/in/2");
        until(async || {
            let told = leader(&cluster).await.audit(0).await.unwrap_or_default();
            told.iter().any(|event| event.action == "Data/Put" && event.target == "ann/in/2" && event.user == "ann")
        })
        .await;
        assert_eq!(cluster.noted("m0", |note| matches!(note, Note::FirstUser { password: Some(_), .. })), 0);
    });
}

/// Tokens that are signed with the cluster's own key, which only the test knows here.
#[test]
fn a_token_that_is_signed_well_must_still_say_what_is_true() {
    run(async {
        let (cluster, admin) = begun().await;
        let key = SigningKey::new(&[3; 32].into()).unwrap();
        let record = wire::SigningKeyRecord {
            kid: "known".into(),
            secret: key.secret.to_vec().into(),
            public: key.public.clone().into(),
            ..Default::default()
        };
        let rotate = wire::RotateKeys { key: Some(record), at_once: false };
        let action = Some(wire::command::Action::RotateKeys(rotate));
        let command = wire::Command { principal: "system".into(), level: 1, action, ..Default::default() };
        leader(&cluster).await.log().propose(command.encode_to_vec()).await.unwrap();

        let bob = add(&cluster, &admin, "bob", "user").await;
        let bob = leader(&cluster).await.authenticate(&bob).await.unwrap();
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let good = Claims::new(CLUSTER, "bob", "user", bob.session, now_s);
        let signed = |claims: &Claims, kid: &str| sign(claims, kid, &key.secret).unwrap();
        for master in &cluster.masters {
            let told = async |claims: Claims, kid: &str| match master.authenticate(signed(&claims, kid).expose()).await
            {
                Ok(who) => format!("{} {}", who.name, who.rights.has(Right::UsersManage)),
                Err(e) => e.to_string().split(';').next().unwrap().to_string(),
            };
            assert_eq!(told(good.clone(), "known").await, "bob false");
            assert_eq!(
                told(Claims { role: "admin".into(), ..good.clone() }, "known").await,
                "bob false",
                "the state says"
            );
            let foreign = "the token is not one of this cluster's";
            for (claims, why) in [
                (Claims { exp: now_s - 1, ..good.clone() }, "the token has expired"),
                (Claims { exp: now_s, ..good.clone() }, "the token has expired"),
                (Claims { nbf: now_s + 3600, ..good.clone() }, "the token does not hold yet"),
                (Claims { aud: "another".into(), ..good.clone() }, foreign),
                (Claims { iss: "gristmill/0000000000000001".into(), ..good.clone() }, foreign),
                (Claims { sub: "admin".into(), ..good.clone() }, foreign),
                (Claims { sid: format!("{:x}", bob.session + 1), ..good.clone() }, "the session has ended"),
                (Claims { sid: "x".into(), ..good.clone() }, "the session has ended"),
            ] {
                assert_eq!(told(claims.clone(), "known").await, why, "{claims:?}");
            }
            let other = told(good.clone(), "unknown").await;
            assert_eq!(other, "the token is not one of this cluster's: its key is not known");
        }
    });
}

#[test]
fn a_service_account_is_its_user_at_every_master() {
    run(async {
        let (cluster, admin) = begun().await;
        add(&cluster, &admin, "bob", "user").await;
        let change = async |change: api::ChangeUserRequest| {
            let change = api::ChangeUserRequest { name: "bob".into(), ..change };
            drop(leader(&cluster).await.change_user(&admin, change).await.unwrap());
        };
        let account =
            |account: &str| api::ChangeUserRequest { service_account: Some(account.into()), ..Default::default() };
        let refused = cluster.masters[0].authenticate_account("batch/bob").await.unwrap_err();
        assert!(code(&refused) == Code::Unauthenticated && refused.to_string().contains("batch/bob"), "{refused}");
        change(account("batch/bob")).await;
        for master in &cluster.masters {
            // It was bound a moment ago: whoever does not know yet looks.
            let bob = master.authenticate_account("batch/bob").await.unwrap();
            assert!(&*bob.name == "bob" && bob.rights.has(Right::JobsSubmit) && bob.is_account());
            master.is_still_here(&bob).await.unwrap();
        }
        let master = leader(&cluster).await;
        let bob = master.authenticate_account_anew("batch/bob").await.unwrap();
        let refused = master.create_token(&bob, api::CreateTokenRequest::default()).await.unwrap_err();
        assert!(code(&refused) == Code::Denied && refused.to_string().contains("no other token"), "{refused}");
        let password = api::ChangePasswordRequest { old_password: OTHER.into(), new_password: FIRST.into() };
        assert_eq!(code(&master.change_password(&bob, password).await.unwrap_err()), Code::Denied);
        let session = master.login("here", login("bob", OTHER)).await.unwrap();
        assert_eq!(master.logout(&bob, api::LogoutRequest { all: true }).await.unwrap().sessions, 0);
        master.authenticate_anew(&session.access_token).await.unwrap();
        assert_eq!(master.who_am_i(&bob).session, "");
        // What takes it from him holds within a second, also for what was begun before.
        let disabled = |disabled| api::ChangeUserRequest { disabled: Some(disabled), ..Default::default() };
        for (ends, again) in [(disabled(true), disabled(false)), (account("batch/other"), account("batch/bob"))] {
            change(ends).await;
            let revoked = Instant::now();
            for master in &cluster.masters {
                while master.authenticate_account("batch/bob").await.is_ok() {
                    assert!(revoked.elapsed() < Duration::from_secs(1));
                    Rt::sleep(Duration::from_millis(10)).await;
                }
                assert!(master.is_still_here(&bob).await.is_err());
            }
            change(again).await;
        }
    });
}
