//! Whoever comes to a master with a token: who that is, as all of the cluster knows it at most a second later.
//!
//! Whether a token's session is there is looked up in the state here each time (`gate/tokens`), and the state here is no older than a second: a read that a quorum confirmed began
//! since then. A follower asks the leader how far it must have applied the log (ReadIndex; Ongaro's thesis §6.4).

pub(crate) mod tokens;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gristmill_proto::internal::v1 as wire;
use gristmill_raft::planted::{Bug, planted};
use gristmill_raft::runtime::AsyncRuntime;
use prost::Message as _;

use super::api::refused;
use super::{ApiError, Code, Inner, LED_WITHIN, MasterEnv, MasterNode};
use crate::control::rights::Principal;
use crate::control::state::State;
use crate::node::clock;
use crate::node::rpc::{CallError, Method, Net as _};
use tokens::{Bad, Tokens};

/// What is known is no older than this when somebody is let in.
const FRESH: Duration = Duration::from_secs(1);
/// From this age on it is looked up anew.
const RENEWED: Duration = Duration::from_millis(500);
/// How long that may take.
const WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether the log has been applied so far.
const LOOK: Duration = Duration::from_millis(20);
/// What a master knows of tokens. Nothing of it need survive.
pub(super) struct Gate<Rt: AsyncRuntime> {
    /// When the read began that the state here is as new as.
    fresh: Mutex<Option<Rt::Instant>>,
    tokens: Tokens,
}

impl<Rt: AsyncRuntime> Default for Gate<Rt> {
    fn default() -> Self {
        Self { fresh: Mutex::default(), tokens: Tokens::default() }
    }
}

fn unknown(why: &str) -> ApiError {
    refused(Code::Unauthenticated, why, "log in with `gristmill login`")
}

impl<E: MasterEnv> MasterNode<E> {
    /// Who has this token.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`]: it is not good, or not any more; [`Code::Unavailable`]: this master cannot know.
    pub async fn authenticate(&self, bearer: &str) -> Result<Principal, ApiError> {
        let inner = &self.inner;
        let begun = clock::now::<E::Rt>();
        inner.look_anew(begun, RENEWED).await?;
        match inner.who_has(bearer) {
            Ok(principal) => Ok(principal),
            Err(Bad::Never(why)) => Err(unknown(&why)),
            // It was made a moment ago, elsewhere.
            Err(Bad::Perhaps(_)) => {
                inner.look_anew(begun, Duration::ZERO).await?;
                inner.who_has(bearer).map_err(|(Bad::Perhaps(why) | Bad::Never(why))| unknown(&why))
            }
        }
    }

    /// As [`MasterNode::authenticate`], knowing all that was acknowledged before this was called: what a master knows for half a
    /// second may lack a right that was given since.
    ///
    /// # Errors
    /// As [`MasterNode::authenticate`].
    pub async fn authenticate_anew(&self, bearer: &str) -> Result<Principal, ApiError> {
        self.inner.look_anew(clock::now::<E::Rt>(), Duration::ZERO).await?;
        self.authenticate(bearer).await
    }

    /// Who is bound to a service account, NAMESPACE/NAME. Whoever asks has seen to it that the call comes from there.
    ///
    /// # Errors
    /// As [`MasterNode::authenticate`].
    pub async fn authenticate_account(&self, account: &str) -> Result<Principal, ApiError> {
        let begun = clock::now::<E::Rt>();
        self.inner.look_anew(begun, RENEWED).await?;
        if let Some(principal) = self.inner.who_is(account) {
            return Ok(principal);
        }
        // It was bound a moment ago, elsewhere.
        self.inner.look_anew(begun, Duration::ZERO).await?;
        self.inner.who_is(account).ok_or_else(|| {
            let why = format!("nobody who may be here is bound to the service account {account}");
            refused(Code::Unauthenticated, why, "ask an administrator for `gristmill user set-account`")
        })
    }

    /// As [`MasterNode::authenticate_anew`], of a service account.
    ///
    /// # Errors
    /// As [`MasterNode::authenticate`].
    pub async fn authenticate_account_anew(&self, account: &str) -> Result<Principal, ApiError> {
        self.inner.look_anew(clock::now::<E::Rt>(), Duration::ZERO).await?;
        self.authenticate_account(account).await
    }

    /// Whether somebody who was let in would be so again, with a token that holds.
    ///
    /// # Errors
    /// As [`MasterNode::authenticate`].
    pub async fn is_still_here(&self, who: &Principal) -> Result<(), ApiError> {
        if who.session == 0 && !who.is_account() {
            return Ok(());
        }
        self.inner.look_anew(clock::now::<E::Rt>(), RENEWED).await?;
        if who.is_account() {
            let now = self.inner.who_is(&who.account);
            let is_here = now.is_some_and(|now| now.name == who.name && now.rights.contain(who.rights));
            return if is_here { Ok(()) } else { Err(unknown("the user is not the service account's any more")) };
        }
        let now_ms = self.inner.time_ms();
        let is_here = |state: &State| {
            state.access().principal(who.session, now_ms).is_ok_and(|now| now.rights.contain(who.rights))
        };
        if self.inner.log.read_stale(|replica| is_here(&replica.state)) {
            return Ok(());
        }
        Err(unknown("the session has ended"))
    }

    /// How far a master must have applied the log to know all that was acknowledged before this was asked.
    ///
    /// # Errors
    /// [`CallError::NotLeader`].
    pub async fn read_index(&self) -> Result<u64, CallError> {
        match self.inner.log.read(|replica| replica.state.applied()).await {
            Ok(index) => Ok(index),
            Err(gristmill_raft::Error::NotLeader { leader }) => {
                Err(CallError::NotLeader { leader: leader.map(|peer| peer.address) })
            }
            Err(e) => Err(CallError::Unknown(e.to_string())),
        }
    }
}

impl<E: MasterEnv> Inner<E> {
    /// Now, by this machine's clock, or by the cluster's if that is further on.
    pub(super) fn time_ms(&self) -> u64 {
        let state_ms = self.log.read_stale(|replica| replica.state.now_ms());
        self.env.wall_ms().max(state_ms)
    }

    fn who_has(&self, bearer: &str) -> Result<Principal, Bad> {
        let wall_ms = self.env.wall_ms();
        self.log.read_stale(|replica| self.gate.tokens.who_has(&replica.state, bearer, wall_ms))
    }

    fn who_is(&self, account: &str) -> Option<Principal> {
        self.log.read_stale(|replica| replica.state.access().of_account(account).ok())
    }

    /// Sees to it that what is known here is at most so old, counted from `now`.
    async fn look_anew(&self, now: <E::Rt as AsyncRuntime>::Instant, at_most: Duration) -> Result<(), ApiError> {
        let seen = || *self.gate.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if seen().is_some_and(|at| at + at_most >= now) || planted(Bug::StaleGate) {
            return Ok(());
        }
        self.log.led(LED_WITHIN).await;
        let begun = clock::now::<E::Rt>();
        match self.catch_up().await {
            // It took so long that what was read is too old already.
            Ok(()) if clock::now::<E::Rt>() > begun + FRESH => {
                let what = "this master hears too late who may do what";
                Err(refused(Code::Unavailable, what, "ask another master, or try again"))
            }
            Ok(()) => {
                let mut fresh = self.gate.fresh.lock().unwrap_or_else(PoisonError::into_inner);
                *fresh = Some(fresh.map_or(begun, |before| before.max(begun)));
                Ok(())
            }
            Err(_) if !at_most.is_zero() && seen().is_some_and(|at| at + FRESH >= clock::now::<E::Rt>()) => Ok(()),
            Err(why) => {
                let what = format!("this master cannot know who may do what: {why}");
                Err(refused(Code::Unavailable, what, "ask another master, or try again"))
            }
        }
    }

    /// Waits until all is applied here that was acknowledged anywhere before this was called.
    async fn catch_up(&self) -> Result<(), String> {
        let leader = match self.log.read(|_| ()).await {
            Ok(()) => return Ok(()),
            Err(gristmill_raft::Error::NotLeader { leader: Some(leader) }) => leader.address,
            Err(e) => return Err(e.to_string()),
        };
        let asked = Bytes::from(wire::ReadIndexRequest {}.encode_to_vec());
        let answer = self.env.net().call(&leader, Method::ReadIndex, asked, WITHIN).await.map_err(|e| e.to_string())?;
        let index = wire::ReadIndexAnswer::decode(answer).map_err(|e| e.to_string())?.index;
        let until = clock::now::<E::Rt>() + WITHIN;
        let mut applied = self.news.applied.listen();
        while self.log.read_stale(|replica| replica.state.applied()) < index {
            if clock::now::<E::Rt>() >= until {
                return Err("it has not applied the log so far".into());
            }
            E::Rt::select2(applied.heard(), E::Rt::sleep(LOOK)).await;
        }
        Ok(())
    }
}
