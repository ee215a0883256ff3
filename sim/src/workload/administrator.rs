//! The administrator: makes the users and their role; while faults happen it takes away from one or all of them what they
//! have, and gives it back. It asks for each until it is known to be done.

use std::time::Duration;

use gristmill_engine::control::rights::{Principal, Rights, built_in};
use gristmill_engine::node::master::{Code, MasterNode};
use gristmill_proto::v1 as api;
use openraft_rt::AsyncRuntime as _;

use super::session::{Failed, Question};
use super::visit::Taken;
use super::{User, Users, password_of, user_name};
use crate::cluster::FIRST_PASSWORD;
use crate::marks::sometimes;
use crate::random::{Stream, stream};
use crate::runtime::{SimRuntime, now, record};
use crate::world::World;

/// The user that masters make where there is none.
const NAME: &str = "admin";
/// About when they have.
const FIRST: Duration = Duration::from_millis(700);
/// The role of users. Their files lie anywhere.
const ROLE: &str = "miller";
const RIGHTS: [&str; 5] = ["jobs.submit", "jobs.read", "jobs.cancel", "data.read.any", "data.write.any"];
/// What is left of it when rights are taken away. A user who did not see its own jobs would take them for lost.
const LESS: [&str; 1] = ["jobs.read"];
/// The role of who is demoted, who sees jobs as well.
const DEMOTED: &str = "reader";
/// Milliseconds, at most: before something is taken away; for so long it is away; before the administrator tries again.
const CALM: u64 = 3_000;
const AWAY: u64 = 3_000;
const TROUBLE: u64 = 300;
/// So much later a request can still be carried out of which nobody knows what came of it: longer than a node stands still.
const LINGERS: Duration = Duration::from_secs(8);
/// Between looks, at the end, whether everybody has what it should have.
const LOOK: Duration = Duration::from_secs(3);

struct Administrator {
    me: User,
    names: Vec<String>,
    /// Something that was given may be given once more, by a try whose answer was lost.
    lingers: bool,
}

/// Makes so many users, and takes from them and gives to them until then; after that all have what they should have.
pub(super) async fn work(users: Users, count: u8, until: Duration) {
    let me = User::new(&users, NAME.into(), stream(users.seed, Stream::Administrator, 0));
    let mut administrator = Administrator { me, names: (0..count).map(user_name).collect(), lingers: false };
    administrator.set_up().await;
    users.ledger().is_open = true;
    loop {
        administrator.me.pause(CALM).await;
        if std::mem::take(&mut administrator.lingers) {
            // What is taken next would come back by itself.
            SimRuntime::sleep(LINGERS.min(until.saturating_sub(now()))).await;
        }
        if now() >= until {
            break;
        }
        administrator.take_something(until).await;
    }
    while users.ledger().busy > 0 {
        administrator.restore().await;
        SimRuntime::sleep(LOOK).await;
    }
}

impl Administrator {
    async fn set_up(&mut self) {
        SimRuntime::sleep(FIRST).await;
        self.take_over().await;
        self.restore().await;
    }

    /// Changes the password that the masters' operator knows.
    async fn take_over(&mut self) {
        let new = password_of(NAME);
        (self.me.password, self.me.other) = (FIRST_PASSWORD.into(), Some(new.clone()));
        // Who logs in is told whether an earlier try has changed it.
        while self.me.pass().await.must_change {
            let (old_password, new_password) = (FIRST_PASSWORD.into(), new.clone());
            let request = api::ChangePasswordRequest { old_password, new_password };
            let changed = self.me.ask(move |master: MasterNode<World>, who: Principal| {
                let request = request.clone();
                async move { master.change_password(&who, request).await }
            });
            match changed.await {
                Ok(_) => self.me.password.clone_from(&new),
                Err(_) => self.me.pause(TROUBLE).await,
            }
            self.me.pass = None;
        }
        self.me.other = None;
    }

    /// Sees to it that all have what they should have.
    async fn restore(&mut self) {
        let mut is_sure = self.put_role(&RIGHTS).await;
        for name in self.names.clone() {
            is_sure &= self.add(&name).await;
            is_sure &= self.change(&name, Some(ROLE), Some(false)).await;
        }
        self.lingers |= !is_sure;
        self.me.users.ledger().shut_out.clear();
    }

    async fn take_something(&mut self, until: Duration) {
        let number = self.me.roll(self.names.len() as u64) as usize;
        let Some(name) = self.names.get(number).cloned() else { return };
        let is_sure = match self.me.roll(7) {
            0 => self.demote(&name, until).await,
            1 => self.disable(&name, until).await,
            2 => self.remove(&name, until).await,
            3 => self.lessen(until).await,
            4 => self.end_session(&name).await,
            5 => self.withdraw_keys().await,
            _ => self.rotate_keys().await,
        };
        self.lingers |= !is_sure;
    }

    async fn demote(&mut self, name: &str, until: Duration) -> bool {
        let begun = now();
        self.change(name, Some(DEMOTED), None).await;
        sometimes("a user is demoted");
        record(format!("{name} is demoted"));
        self.took(Some(name), Taken::Sessions, begun);
        self.took(Some(name), Taken::RightsBut(built_in(DEMOTED).unwrap_or_default()), begun);
        self.wait(until).await;
        let begun = now();
        self.me.users.ledger().gives_back(name);
        let is_sure = self.change(name, Some(ROLE), None).await;
        record(format!("{name} is promoted"));
        // Another role ends sessions, whichever it is.
        self.took(Some(name), Taken::Sessions, begun);
        is_sure
    }

    async fn disable(&mut self, name: &str, until: Duration) -> bool {
        let begun = self.shuts_out(name);
        self.change(name, None, Some(true)).await;
        record(format!("{name} is disabled"));
        self.is_away(name, begun, until).await;
        let is_sure = self.change(name, None, Some(false)).await;
        self.me.users.ledger().shut_out.remove(name);
        record(format!("{name} is enabled"));
        is_sure
    }

    async fn remove(&mut self, name: &str, until: Duration) -> bool {
        let begun = self.shuts_out(name);
        let user = name.to_string();
        let removes = move |master: MasterNode<World>, who: Principal| {
            let user = user.clone();
            async move { master.remove_user(&who, user).await }
        };
        self.until_done(Some(Code::NotFound), removes).await;
        record(format!("{name} is removed"));
        self.is_away(name, begun, until).await;
        let is_sure = self.add(name).await;
        self.me.users.ledger().shut_out.remove(name);
        sometimes("a removed user comes back");
        record(format!("{name} is there again"));
        is_sure
    }

    /// A user knows that it is not let in.
    fn shuts_out(&self, name: &str) -> Duration {
        self.me.users.ledger().shut_out.insert(name.into());
        now()
    }

    /// A user is not there for a while.
    async fn is_away(&mut self, name: &str, begun: Duration, until: Duration) {
        self.took(Some(name), Taken::Sessions, begun);
        self.took(Some(name), Taken::User, begun);
        self.wait(until).await;
        self.me.users.ledger().gives_back(name);
    }

    /// The role allows less for a while; who has it stays logged in.
    async fn lessen(&mut self, until: Duration) -> bool {
        let begun = now();
        self.put_role(&LESS).await;
        record(format!("a {ROLE} may do less"));
        let left = Rights::of(LESS).unwrap_or_default();
        self.names.iter().for_each(|name| self.took(Some(name), Taken::RightsBut(left), begun));
        self.wait(until).await;
        self.names.iter().for_each(|name| self.me.users.ledger().gives_back(name));
        let is_sure = self.put_role(&RIGHTS).await;
        record(format!("a {ROLE} may do what it did"));
        is_sure
    }

    /// Ends a user's newest session.
    async fn end_session(&mut self, name: &str) -> bool {
        let user = name.to_string();
        let listed = self.me.ask(move |master: MasterNode<World>, who: Principal| {
            let user = user.clone();
            async move { master.sessions(&who, &user).await }
        });
        let newest = listed.await.ok().and_then(|mut listed| listed.sessions.pop());
        let Some(id) = newest.map(|session| session.id) else { return true };
        let Ok(number) = u64::from_str_radix(&id, 16) else { return true };
        let begun = now();
        let ends = move |master: MasterNode<World>, who: Principal| {
            let id = id.clone();
            async move { master.end_session(&who, &id).await }
        };
        self.until_done(Some(Code::NotFound), ends).await;
        record(format!("a session of {name} is ended"));
        self.took(Some(name), Taken::Session(number), begun);
        true
    }

    /// What was signed with any key so far is refused from now on.
    async fn withdraw_keys(&mut self) -> bool {
        let begun = now();
        let rotates = |master: MasterNode<World>, who: Principal| async move { master.rotate_keys(&who, true).await };
        self.until_done(None, rotates).await;
        sometimes("keys are rotated");
        record("all keys are withdrawn");
        self.took(None, Taken::Keys, begun);
        true
    }

    /// Another key signs from now on. If it comes to nothing there is no harm; there may be too many.
    async fn rotate_keys(&mut self) -> bool {
        let rotated = self
            .me
            .ask(|master: MasterNode<World>, who: Principal| async move { master.rotate_keys(&who, false).await });
        if rotated.await.is_ok() {
            record("another key signs");
        }
        true
    }

    async fn put_role(&mut self, rights: &[&str]) -> bool {
        let rights = rights.iter().copied().map(String::from).collect();
        let role = api::Role { name: ROLE.into(), rights, built_in: false };
        let puts = move |master: MasterNode<World>, who: Principal| {
            let role = role.clone();
            async move { master.put_role(&who, role).await }
        };
        self.until_done(None, puts).await
    }

    async fn add(&mut self, name: &str) -> bool {
        let (name, password) = (name.to_string(), password_of(name));
        let keep_password = true;
        let request = api::AddUserRequest { name, role: ROLE.into(), password, keep_password, ..Default::default() };
        let adds = move |master: MasterNode<World>, who: Principal| {
            let request = request.clone();
            async move { master.add_user(&who, request).await }
        };
        self.until_done(Some(Code::Conflict), adds).await
    }

    /// Changes a user, if there is one: a try to remove it may have come late.
    async fn change(&mut self, name: &str, role: Option<&str>, disabled: Option<bool>) -> bool {
        let (name, role) = (name.to_string(), role.map(String::from));
        let request = api::ChangeUserRequest { name, role, disabled, ..Default::default() };
        let changes = move |master: MasterNode<World>, who: Principal| {
            let request = request.clone();
            async move { master.change_user(&who, request).await }
        };
        self.until_done(Some(Code::NotFound), changes).await
    }

    fn took(&self, user: Option<&str>, taken: Taken, begun: Duration) {
        self.me.users.ledger().took(user, taken, begun);
    }

    /// Lets some time go by, but not beyond the faults.
    async fn wait(&mut self, until: Duration) {
        let away = Duration::from_millis(100 + self.me.roll(AWAY));
        SimRuntime::sleep(away.min(until.saturating_sub(now()))).await;
    }

    /// Asks until it is done, or is refused in a way that shows that it was done before. Gives whether it was known of each
    /// try what came of it.
    async fn until_done<A: Send + 'static>(&mut self, done: Option<Code>, what: impl Question<A>) -> bool {
        let mut is_sure = true;
        loop {
            match self.me.ask(what.clone()).await {
                Ok(_) => return is_sure,
                Err(Failed::Never(code, _)) if Some(code) == done => return is_sure,
                Err(Failed::Never(code, why)) => record(format!("{NAME} is refused ({code:?}): {why}")),
                Err(Failed::Unknown) => is_sure = false,
                Err(Failed::Again) => {}
            }
            self.me.pause(TROUBLE).await;
        }
    }
}
