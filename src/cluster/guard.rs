//! Who asks, and whether that one is answered: before every service of a node.
//!
//! A call is known by its path, which is that of gRPC's HTTP/2 requests; what JSON routes stand for comes here as the same
//! calls, from inside. What each needs is `control::rights`' table, and what is not in it is answered to nobody. Behind this,
//! services find a [`Principal`] in the request, and look at whose a job or file is where they know it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use gristmill_engine::control::rights::{self, Caller, Denial, Needs, Principal};
use gristmill_engine::node::master::{ApiError, Code, MasterNode};
use tonic::Status;
use tonic::service::Routes;

#[cfg(feature = "objects")]
use super::kubernetes::Reviewer;
use super::roles::Roles;
use super::services::of_api;
use super::wire::Shown;
use super::world::World;

/// The most bytes of a token with what is before it.
const MOST: usize = 8 << 10;
/// The header in which a master that passes a call on says where it came from.
pub(super) const FROM: &str = "gristmill-from";

/// Lets through what may be answered.
#[derive(Clone)]
pub(super) struct Guard(Arc<Inner>);

struct Inner {
    /// Knows users; a worker alone does not.
    node: Option<MasterNode<World>>,
    /// Whether users must log in.
    login: bool,
    /// Knows whose tokens of Kubernetes are; none: they are not accepted.
    #[cfg(feature = "objects")]
    reviewer: Option<Reviewer>,
}

/// Where a call came from: the address of the connection, or what a master says that passed it on.
#[derive(Debug, Clone)]
pub(super) struct From(pub(super) Arc<str>);

impl Guard {
    pub(super) fn new(node: Option<MasterNode<World>>, login: bool) -> Self {
        Self(Arc::new(Inner {
            node,
            login,
            #[cfg(feature = "objects")]
            reviewer: None,
        }))
    }

    /// The same that accepts tokens of service accounts as well, as this one says whose they are.
    #[cfg(feature = "objects")]
    pub(super) fn reviewing(self, reviewer: Option<Reviewer>) -> Self {
        Self(Arc::new(Inner { node: self.0.node.clone(), login: self.0.login, reviewer }))
    }

    /// Puts itself before these services.
    pub(super) fn before(self, services: Routes) -> Routes {
        let router: Router = services.into_axum_router();
        Routes::from(router.layer(from_fn_with_state(self, admitted)))
    }

    /// Who asks, as far as this call cares.
    async fn caller(&self, needs: Needs, headers: &HeaderMap, shown: &Shown, from: &From) -> Result<Caller, ApiError> {
        let (master, worker) = (shown.roles.has_any(Roles::MASTER), shown.roles.has_any(Roles::WORKER));
        match needs {
            Needs::Nothing => return Ok(Caller::Nobody),
            Needs::Master | Needs::Worker | Needs::Node => return Ok(Caller::Node { master, worker }),
            Needs::MasterOr(_) if master => return Ok(Caller::Node { master, worker }),
            _ => {}
        }
        let user = |who| Caller::User(Principal { from: from.0.clone(), ..who });
        match (bearer(headers)?, &self.0.node) {
            (Some(token), Some(node)) => {
                let known = user(self.known(node, token, false).await?);
                // What is denied may have been allowed a moment ago.
                if rights::decide(&known, needs).is_ok() {
                    Ok(known)
                } else {
                    Ok(user(self.known(node, token, true).await?))
                }
            }
            (None, Some(_)) if !self.0.login => Ok(user(Principal::anonymous())),
            _ => Ok(Caller::Nobody),
        }
    }

    /// Whose a token is; `anew`: knowing all that was decided before this was asked.
    async fn known(&self, node: &MasterNode<World>, token: &str, anew: bool) -> Result<Principal, ApiError> {
        let found = if anew { node.authenticate_anew(token).await } else { node.authenticate(token).await };
        #[cfg(feature = "objects")]
        if matches!(&found, Err(ApiError::Refused { code: Code::Unauthenticated, .. }))
            && let Some(reviewer) = self.0.reviewer.as_ref().filter(|_| Reviewer::is_for(token))
            && let Some(account) = reviewer.account(token).await?
        {
            return match anew {
                true => node.authenticate_account_anew(&account).await,
                false => node.authenticate_account(&account).await,
            };
        }
        found
    }

    /// Writes down that something was refused.
    fn told(&self, caller: &Caller, call: &str, from: &From, why: &ApiError) {
        let Some(node) = &self.0.node else { return };
        let call = call.strip_prefix("gristmill.v1.").unwrap_or(call);
        match caller {
            Caller::User(who) => node.denied(who, call, "", why),
            _ => node.refusal("", "", &from.0, call, "", why),
        }
    }
}

/// The token that a request carries.
///
/// # Errors
/// That there are several, or that it is none.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let none = |what: &str| ApiError::Refused {
        code: Code::Unauthenticated,
        message: what.to_string(),
        next_step: "send one header 'authorization: Bearer TOKEN'".into(),
    };
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(one) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(none("there are several headers 'authorization'"));
    }
    let text = one.to_str().ok().filter(|text| text.len() <= MOST);
    let token = text.and_then(|text| text.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
    token.map(Some).ok_or_else(|| none("the header 'authorization' holds no bearer's token"))
}

/// What is told to whom something is denied.
fn of_denial(denial: Denial, shown: &Shown) -> ApiError {
    let mut message = denial.to_string();
    if let Denial::Nodes { masters, workers } = denial {
        let whom = if masters && workers {
            Roles::BOTH
        } else if masters {
            Roles::MASTER
        } else {
            Roles::WORKER
        };
        message = format!("{message}: {}", shown.lacks(whom));
    }
    let (code, next_step) = match denial {
        Denial::Unknown => (Code::Unauthenticated, "log in with `gristmill login`"),
        Denial::Password => (Code::Denied, "change it with `gristmill passwd`"),
        Denial::Right(..) => (Code::Denied, "ask an administrator for another role"),
        Denial::Nodes { .. } if shown.tls => (Code::Denied, "see docs/tls.md for what certificates say"),
        Denial::Nodes { .. } => (Code::Denied, "give all nodes the same --node-secret"),
    };
    ApiError::Refused { code, message, next_step: next_step.into() }
}

/// Where the call came from.
fn origin(headers: &HeaderMap, shown: &Shown) -> From {
    // Only a master is believed.
    let told = headers.get(FROM).filter(|_| shown.roles.has_any(Roles::MASTER)).and_then(|from| from.to_str().ok());
    let peer = || shown.peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
    From(told.map_or_else(peer, String::from).into())
}

async fn admitted(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let call = request.uri().path().trim_start_matches('/').to_string();
    let shown = request.extensions().get::<Shown>().copied().unwrap_or_default();
    let from = origin(request.headers(), &shown);
    let Some(needs) = rights::needs(&call) else {
        return refusal(&Status::unimplemented(format!("there is no call {call}")));
    };
    let caller = guard.caller(needs, request.headers(), &shown, &from).await;
    let decided = caller.and_then(|caller| match rights::decide(&caller, needs) {
        Ok(()) => Ok(caller),
        Err(denial) => {
            let why = of_denial(denial, &shown);
            guard.told(&caller, &call, &from, &why);
            Err(why)
        }
    });
    match decided {
        Ok(caller) => {
            if let Caller::User(who) = caller {
                request.extensions_mut().insert(who);
            }
            request.extensions_mut().insert(from);
            next.run(request).await
        }
        Err(why) => {
            // A token that is not good was not told of yet: nobody is known to have shown it.
            if matches!(&why, ApiError::Refused { code: Code::Unauthenticated, message, .. } if *message != Denial::Unknown.to_string())
            {
                guard.told(&Caller::Nobody, &call, &from, &why);
            }
            refusal(&of_api(why))
        }
    }
}

fn refusal(status: &Status) -> Response {
    status.clone().into_http::<Body>()
}

/// Who a call is from: every one has somebody, behind the guard.
///
/// # Errors
/// That the guard was passed by.
pub(super) fn who<T>(request: &tonic::Request<T>) -> Result<Principal, Status> {
    let who = request.extensions().get::<Principal>().cloned();
    who.ok_or_else(|| Status::permission_denied("it is not known who asks"))
}

/// Where a call is from.
pub(super) fn from<T>(request: &tonic::Request<T>) -> Arc<str> {
    request.extensions().get::<From>().map_or_else(|| "".into(), |from| from.0.clone())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_header_holds_one_token() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(|token| token.map(String::from))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Bearer a.b.c"]), Ok(Some("a.b.c".into())));
        assert_eq!(read(&["bearer  a"]), Ok(Some("a".into())));
        for wrong in [&["Bearer a", "Bearer a"][..], &["Basic a"], &["Bearer"], &["Bearer "], &[""]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
