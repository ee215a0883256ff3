//! Rights as sets, and what is decided of them.

use gristmill_engine::control::rights::{
    BUILT_IN, CALLS, Caller, Denial, Needs, Principal, RIGHTS, Right, Rights, built_in, decide, needs,
};

fn user(rights: &[Right]) -> Caller {
    Caller::User(Principal { prefix: "ann/".into(), ..Principal::with("ann", "x", Rights::these(rights)) })
}

fn principal(rights: &[Right]) -> Principal {
    let Caller::User(principal) = user(rights) else { unreachable!() };
    principal
}

#[test]
fn every_right_has_a_place_and_a_name_of_its_own() {
    for (at, (right, name, about)) in RIGHTS.iter().enumerate() {
        assert_eq!(*right as usize, at);
        assert_eq!((Right::of(name), right.name()), (Some(*right), *name));
        assert!(!about.is_empty() && RIGHTS.iter().filter(|(_, other, _)| other == name).count() == 1);
        assert!(Rights::ALL.has(*right) && !Rights::default().has(*right));
        assert_eq!(Rights::these(&[*right]).names().collect::<Vec<_>>(), [*name]);
    }
    assert_eq!(Rights::of(["jobs.read", "jobs.fly"]), Err("jobs.fly"));
    assert_eq!(Rights::of(Rights::ALL.names()), Ok(Rights::ALL));
}

#[test]
fn sets_contain_and_meet() {
    let (few, more) = (Rights::these(&[Right::JobsRead]), Rights::these(&[Right::JobsRead, Right::DataRead]));
    assert!(more.contain(few) && !few.contain(more) && few.contain(Rights::default()));
    assert_eq!(more.both(few), few);
    for (role, rights) in BUILT_IN {
        assert_eq!(built_in(role), Some(*rights));
        assert!(Rights::ALL.contain(*rights));
    }
    assert_eq!(built_in("nobody"), None);
    // Who tends the machines does not read what they work on, and who reads changes nothing.
    let (operator, reader) = (built_in("operator").unwrap(), built_in("reader").unwrap());
    assert!(!operator.has(Right::DataReadAny) && !operator.has(Right::UsersManage));
    assert!(reader.names().all(|name| name.contains("read")));
}

#[test]
fn what_is_not_allowed_is_denied() {
    let (master, worker) = (Caller::Node { master: true, worker: false }, Caller::Node { master: false, worker: true });
    let none = Caller::Node { master: false, worker: false };
    let own = Needs::Own(Right::JobsRead, Right::JobsReadAny);
    for (caller, needs, answer) in [
        (Caller::Nobody, Needs::Nothing, Ok(())),
        (Caller::Nobody, Needs::Token, Err(Denial::Unknown)),
        (Caller::Nobody, Needs::Self_(Right::UsersRead), Err(Denial::Unknown)),
        (Caller::Nobody, Needs::Right(Right::JobsSubmit), Err(Denial::Unknown)),
        (Caller::Nobody, own, Err(Denial::Unknown)),
        (Caller::Nobody, Needs::Worker, Err(Denial::Nodes { masters: false, workers: true })),
        (user(&[]), Needs::Token, Ok(())),
        (user(&[]), Needs::Self_(Right::UsersRead), Ok(())),
        (user(&[]), own, Err(Denial::Right(Right::JobsRead, Some(Right::JobsReadAny)))),
        (user(&[Right::JobsRead]), own, Ok(())),
        (user(&[Right::JobsReadAny]), own, Ok(())),
        (user(&[Right::JobsRead]), Needs::Right(Right::JobsSubmit), Err(Denial::Right(Right::JobsSubmit, None))),
        (Caller::User(Principal::anonymous()), Needs::Master, Err(Denial::Nodes { masters: true, workers: false })),
        (Caller::User(Principal::anonymous()), Needs::MasterOr(Right::MembersChange), Ok(())),
        (user(&[]), Needs::MasterOr(Right::MembersChange), Err(Denial::Right(Right::MembersChange, None))),
        (master.clone(), Needs::Master, Ok(())),
        (master.clone(), Needs::Worker, Err(Denial::Nodes { masters: false, workers: true })),
        (master.clone(), Needs::Node, Ok(())),
        (worker.clone(), Needs::Node, Ok(())),
        (Caller::Nobody, Needs::Node, Err(Denial::Nodes { masters: true, workers: true })),
        (master.clone(), Needs::MasterOr(Right::MembersChange), Ok(())),
        (master, Needs::Right(Right::JobsRead), Err(Denial::Unknown)),
        (worker.clone(), Needs::Worker, Ok(())),
        (worker.clone(), Needs::Master, Err(Denial::Nodes { masters: true, workers: false })),
        (worker, Needs::MasterOr(Right::MembersChange), Err(Denial::Unknown)),
        (none, Needs::Worker, Err(Denial::Nodes { masters: false, workers: true })),
    ] {
        assert_eq!(decide(&caller, needs), answer, "{caller:?} {needs:?}");
    }
    let fresh = Caller::User(Principal { must_change: true, ..principal(&[]) });
    assert_eq!(decide(&fresh, Needs::Right(Right::JobsSubmit)), Err(Denial::Password));
    assert_eq!(decide(&fresh, Needs::Token), Ok(()));
}

#[test]
fn files_belong_to_whoever_has_their_prefix() {
    let ann = principal(&[Right::DataRead, Right::DataWrite]);
    for (name, reads, writes) in [
        ("ann/a", true, true),
        ("ann/", true, true),
        ("ann", false, false),
        ("anna/a", false, false),
        ("bob/a", false, false),
        ("shared/a", true, false),
        ("ann/../bob/a", false, false),
        ("shared/./../bob/", false, false),
        ("", false, false),
    ] {
        assert_eq!((ann.may_read(name), ann.may_write(name)), (reads, writes), "{name}");
    }
    assert!(!principal(&[]).may_read("ann/a") && !principal(&[Right::DataRead]).may_write("ann/a"));
    assert!(principal(&[Right::DataReadAny]).may_read("bob/a") && !principal(&[Right::DataReadAny]).may_write("bob/a"));
    assert!(Principal::anonymous().may_write("x") && Principal::anonymous().may_read(""));
    assert!(
        ann.may(Right::DataRead, Right::DataReadAny, "ann") && !ann.may(Right::DataRead, Right::DataReadAny, "bob")
    );
}

#[test]
fn calls_are_named_once() {
    for (call, what) in CALLS {
        assert_eq!(needs(call), Some(*what));
        assert_eq!(CALLS.iter().filter(|(other, _)| other == call).count(), 1, "{call}");
    }
    assert_eq!(needs("gristmill.v1.Jobs/Steal"), None);
}
