//! Users: what a master does before each call, to know who makes it.

use criterion::Criterion;
use gristmill_engine::auth::token::{Claims, SigningKey, sign};
use gristmill_engine::auth::word;
use gristmill_engine::bench::Checks;
use gristmill_engine::control::rights::SYSTEM;
use gristmill_engine::control::state::State;
use gristmill_proto::internal::v1 as wire;
use prost::Message as _;
use wire::command::Action;
use zeroize::Zeroizing;

const CLUSTER: u64 = 7;
const NOW_MS: u64 = 1_800_000_000_000;

/// A state with so many users, each with a session and a token for a machine, and those of the last.
fn state(users: u64) -> (State, String, String) {
    let (mut state, mut index) = (State::default(), 0);
    let mut commit = |action: Action| {
        index += 1;
        let (principal, action) = (SYSTEM.to_string(), Some(action));
        let command = wire::Command { now_ms: NOW_MS, principal, level: 1, action, ..Default::default() };
        state.apply(index, &command.encode_to_vec()).expect("a known command");
        index
    };
    commit(Action::InitCluster(wire::InitCluster { cluster: CLUSTER, level: 1 }));
    let key = SigningKey::new(&Zeroizing::new([1; 32])).expect("a key");
    let mut record = Some(wire::SigningKeyRecord {
        kid: "k".into(),
        secret: key.secret.to_vec().into(),
        public: key.public.into(),
        ..Default::default()
    });
    let random = Zeroizing::new([2; 32]);
    let (mut bearer, mut machine) = (String::new(), String::new());
    for n in 0..users {
        let user = wire::UserRecord { name: format!("user{n}"), role: "user".into(), ..Default::default() };
        commit(Action::AddUser(wire::AddUser { user: Some(user), key: record.take(), ..Default::default() }));
        for token in [false, true] {
            let session = wire::SessionRecord {
                user: format!("user{n}"),
                token,
                secret: word::digest(&random).to_vec().into(),
                expires_ms: NOW_MS + 86_400_000,
                ..Default::default()
            };
            let id = commit(Action::OpenSession(wire::OpenSession { session: Some(session), verifier: String::new() }));
            let claims = Claims::new(CLUSTER, &format!("user{n}"), "user", id, NOW_MS / 1000);
            match token {
                true => machine = word::make(word::Kind::Machine, id, &random).expose().to_string(),
                false if n + 1 == users => {
                    bearer = sign(&claims, "k", &key.secret).expect("a signature").expose().to_string();
                }
                false => {}
            }
        }
    }
    (state, bearer, machine)
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let users = if crate::input::size() < 1 << 20 { 20 } else { 10_000 };
    let (state, bearer, machine) = state(users);
    let mut group = criterion.benchmark_group("access");
    let known = Checks::default();
    assert!(known.check(&state, &bearer, NOW_MS) > 0 && known.check(&state, &machine, NOW_MS) > 0);
    group.bench_function("token/seen", |bencher| bencher.iter(|| known.check(&state, &bearer, NOW_MS)));
    group.bench_function("token/new", |bencher| {
        bencher.iter_with_setup(Checks::default, |fresh| fresh.check(&state, &bearer, NOW_MS));
    });
    group.bench_function("token/machine", |bencher| bencher.iter(|| known.check(&state, &machine, NOW_MS)));
    group.finish();
}
