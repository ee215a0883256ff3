//! How users are let in: each logs in at the leader, shows its token with whatever it asks, continues its session now and
//! then, logs out, and logs in again when it is refused. Tokens that were refused are shown again, to any master.
//!
//! What came of it goes into the [`Ledger`](super::Ledger).

use std::time::Duration;

use gristmill_engine::auth::word;
use gristmill_engine::control::rights::Principal;
use gristmill_engine::node::master::{ApiError, Code, MasterNode};
use gristmill_proto::v1 as api;

use super::visit::{Taken, Visit, Way};
use super::{User, Users};
use crate::marks::sometimes;
use crate::runtime::{NodeId, OUTSIDE, now, spawn_on};
use crate::world::World;

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Milliseconds, at most, before somebody tries again: after any trouble; who may do less than it wants; who knows that it
/// is not let in.
const TROUBLE: u64 = 300;
const DENIED: u64 = 500;
const SHUT_OUT: u64 = 800;

/// What a user has that has logged in.
#[derive(Clone)]
pub(super) struct Pass {
    token: String,
    refresh: String,
    session: u64,
    /// When it was told.
    since: Duration,
    /// It is good for nothing but another password.
    pub(super) must_change: bool,
}

impl From<api::TokenResponse> for Pass {
    fn from(told: api::TokenResponse) -> Self {
        let session = word::read(word::Kind::Refresh, &told.refresh_token).map_or(0, |(session, _)| session);
        let (token, refresh, must_change) = (told.access_token, told.refresh_token, told.must_change);
        Self { token, refresh, session, since: now(), must_change }
    }
}

/// Why an answer is no good.
pub(super) enum Failed {
    /// Nothing was done: ask again.
    Again,
    /// Nobody knows whether it was: ask again.
    Unknown,
    /// It will not be otherwise.
    Never(Code, String),
}

/// A question to a master, of somebody that it knows.
pub(super) trait Question<A>:
    Fn(MasterNode<World>, Principal) -> Self::Answer + Clone + Send + Sync + 'static
{
    type Answer: Future<Output = Result<A, ApiError>> + Send + 'static;
}

impl<A, F, Q> Question<A> for Q
where
    Q: Fn(MasterNode<World>, Principal) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<A, ApiError>> + Send + 'static,
{
    type Answer = F;
}

impl Users {
    fn let_in(&self, user: &str, way: Way, shown: &Pass, asked: Duration) {
        let (user, session, since) = (user.to_string(), shown.session, shown.since);
        self.ledger().visits.push(Visit { user, way, session, since, asked, answered: now() });
    }
}

impl User {
    fn any(&mut self) -> NodeId {
        let masters: Vec<NodeId> = self.users.cluster.masters().map(|m| m.node).collect();
        masters[self.roll(masters.len() as u64) as usize]
    }

    /// The master that is thought to lead, or any.
    fn to(&mut self) -> NodeId {
        let any = self.any();
        self.hint.take().unwrap_or(any)
    }

    /// Asks a master. Whoever is not let in logs in, and asks again.
    pub(super) async fn ask<A: Send + 'static>(&mut self, what: impl Question<A>) -> Result<A, Failed> {
        loop {
            let pass = self.pass().await;
            self.show_stolen();
            let (to, asked) = (self.to(), now());
            let (network, token, what) = (self.users.cluster.network.clone(), pass.token.clone(), what.clone());
            let told = network.ask(to, PATIENCE, move |master: MasterNode<World>| {
                let (token, what) = (token.clone(), what.clone());
                async move {
                    match master.authenticate(&token).await {
                        Ok(who) => (Some(who.rights), what(master, who).await),
                        Err(e) => (None, Err(e)),
                    }
                }
            });
            let Some((rights, answer)) = told.await else { return Err(Failed::Unknown) };
            if let Some(rights) = rights {
                self.users.let_in(&self.name, Way::Token(rights), &pass, asked);
            }
            let code = match &answer {
                Err(ApiError::Refused { code, .. }) => Some(*code),
                _ => None,
            };
            match (rights, code) {
                (None, Some(Code::Unauthenticated)) => {
                    self.was_refused(pass).await;
                    continue;
                }
                (None, Some(Code::Unavailable)) => sometimes("a master does not know who may do what"),
                (_, Some(Code::Denied)) => self.was_denied().await,
                _ => {}
            }
            return self.heard(to, answer);
        }
    }

    fn heard<A>(&mut self, from: NodeId, answer: Result<A, ApiError>) -> Result<A, Failed> {
        match answer {
            Ok(answer) => {
                self.hint = Some(from);
                Ok(answer)
            }
            Err(ApiError::NotLeader { leader }) => {
                let cluster = &self.users.cluster;
                self.hint = leader.and_then(|at| cluster.masters().find(|m| m.address == at)).map(|m| m.node);
                Err(Failed::Again)
            }
            // What is denied to somebody who was demoted will be allowed again.
            Err(ApiError::Refused { code: Code::Unavailable | Code::Limit | Code::Denied, .. }) => Err(Failed::Again),
            Err(ApiError::Refused { code: Code::Unknown, .. }) => Err(Failed::Unknown),
            Err(ApiError::Refused { code, message, .. }) => Err(Failed::Never(code, message)),
        }
    }

    /// What there is to show. Logs in until there is something.
    pub(super) async fn pass(&mut self) -> Pass {
        if self.pass.is_some() && self.roll(16) == 0 {
            self.refresh().await;
        }
        loop {
            if let Some(pass) = self.pass.clone() {
                return pass;
            }
            let is_shut_out = self.users.ledger().shut_out.contains(&self.name);
            // Seldom enough that it has not to wait for its failures when it may come in again.
            if is_shut_out && self.roll(4) > 0 {
                self.pause(SHUT_OUT).await;
            } else if !self.log_in().await {
                self.pause(TROUBLE).await;
            }
        }
    }

    /// Shows the password to one master.
    async fn log_in(&mut self) -> bool {
        let (to, asked, from) = (self.to(), now(), self.name.clone());
        let (user, password) = (self.name.clone(), self.password.clone());
        let request = api::LoginRequest { user, password, label: String::new() };
        let network = self.users.cluster.network.clone();
        let told = network.ask(to, PATIENCE, move |master: MasterNode<World>| {
            let (from, request) = (from.clone(), request.clone());
            async move { master.login(&from, request).await }
        });
        let Some(answer) = told.await else { return false };
        match self.heard(to, answer) {
            Ok(told) => {
                let pass = Pass::from(told);
                self.users.let_in(&self.name, Way::Password, &pass, asked);
                self.pass = Some(pass);
                true
            }
            Err(Failed::Never(..)) => {
                if let Some(other) = &mut self.other {
                    std::mem::swap(other, &mut self.password);
                }
                false
            }
            Err(Failed::Again | Failed::Unknown) => false,
        }
    }

    /// Shows the word that continues the session to one master. If it comes to nothing, the next call tells what the
    /// session is worth.
    async fn refresh(&mut self) {
        let Some(shown) = self.pass.clone() else { return };
        let (to, asked, from) = (self.to(), now(), self.name.clone());
        let request = api::RefreshRequest { refresh_token: shown.refresh.clone() };
        let network = self.users.cluster.network.clone();
        let told = network.ask(to, PATIENCE, move |master: MasterNode<World>| {
            let (from, request) = (from.clone(), request.clone());
            async move { master.refresh(&from, request).await }
        });
        let Some(answer) = told.await else { return };
        if let Ok(told) = self.heard(to, answer) {
            sometimes("a session is refreshed");
            self.users.let_in(&self.name, Way::Refresh, &shown, asked);
            self.pass = Some(told.into());
        }
    }

    async fn was_refused(&mut self, pass: Pass) {
        sometimes("a token is refused");
        self.stolen = Some(pass);
        match self.roll(3) {
            // Its session may be there still: keys are changed, and clocks are apart.
            0 => self.refresh().await,
            _ => self.pass = None,
        }
    }

    /// It may do less than it did. Who logs in again may do more.
    async fn was_denied(&mut self) {
        self.pause(DENIED).await;
        if self.roll(2) == 0 {
            self.pass = None;
        }
    }

    /// Somebody has a token that was refused before, or whose session was ended, and shows it to any master.
    fn show_stolen(&mut self) {
        let Some(pass) = self.stolen.clone() else { return };
        if self.roll(2) == 0 {
            return;
        }
        let (to, asked) = (self.any(), now());
        let (users, name) = (self.users.clone(), self.name.clone());
        drop(spawn_on(OUTSIDE, async move {
            let (network, token) = (users.cluster.network.clone(), pass.token.clone());
            let told = network.ask(to, PATIENCE, move |master: MasterNode<World>| {
                let token = token.clone();
                async move { master.authenticate(&token).await }
            });
            if let Some(Ok(who)) = told.await {
                users.let_in(&name, Way::Token(who.rights), &pass, asked);
            }
        }));
    }

    /// Ends the session. Whoever has its token is refused soon.
    pub(super) async fn log_out(&mut self) {
        let begun = now();
        let ended = self.ask(|master: MasterNode<World>, who: Principal| async move {
            let ended = master.logout(&who, api::LogoutRequest { all: false }).await;
            ended.map(|_| who.session)
        });
        if let Ok(session) = ended.await {
            self.users.ledger().took(Some(&self.name), Taken::Session(session), begun);
            self.stolen = self.pass.take();
        }
    }
}
