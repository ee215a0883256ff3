//! A request's way: faults, who asks, whether they may, the verb, and the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, USER_AGENT};
use hyper::{Request, Response};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::look::Look;
use crate::rbac::{API, Attributes, User, allowed, of_header, review};
use crate::route::{Route, query, route};
use crate::selector::FieldsMatch;
use crate::state::{Ask, Shared, State};
use crate::status::Failure;
use crate::verbs::Answer;
use crate::watch::Watch;
use crate::{Call, delete, discovery, logs, verbs};

/// Objects may be so large; upstream takes 3 MiB (`MaxRequestBodyBytes`).
const LARGEST: usize = 3 * 1024 * 1024;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn header(headers: &HeaderMap, name: HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
}

fn respond(code: u16, content_type: &str, body: Body) -> Response<Body> {
    let response = Response::builder().status(code).header(CONTENT_TYPE, content_type);
    response.body(body).unwrap_or_else(|_| Response::new(whole("")))
}

fn failed(failure: &Failure) -> Response<Body> {
    let mut response = respond(failure.code, "application/json", whole(failure.body().to_string()));
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert("Retry-After", seconds.into());
    }
    response
}

fn answered(answer: Answer, look: Look) -> Response<Body> {
    let body = look.of(answer.body).to_string();
    let mut response = respond(answer.code, "application/json", whole(body));
    for warning in answer.warnings {
        // API concepts, "Warnings": RFC 7234, code 299.
        let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = text.parse() {
            response.headers_mut().append("Warning", value);
        }
    }
    response
}

/// Answers one request.
pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let query = query(parts.uri.query().unwrap_or_default());
    let route = route(&parts.method, parts.uri.path(), &query);
    let (slow, throttled) = {
        let mut state = shared.state();
        let throttled = state.faults.throttled > 0;
        state.faults.throttled = state.faults.throttled.saturating_sub(1);
        (state.faults.slow, throttled)
    };
    if slow > Duration::ZERO {
        let held = (route.verb.clone(), route.resource.clone());
        shared.state().faults.held.push(held.clone());
        tokio::time::sleep(slow).await;
        let held_now = &mut shared.state().faults.held;
        held_now.iter().position(|one| *one == held).map(|at| held_now.swap_remove(at));
    }
    let read = Limited::new(body, LARGEST).collect().await;
    let bytes = read.map(http_body_util::Collected::to_bytes);

    let mut state = shared.state();
    let user = of_header(&state, parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()));
    let name = user.as_ref().map(|user| user.name.clone()).unwrap_or_default();
    let response = match (throttled, user, bytes) {
        (true, ..) => throttle(),
        (_, Err(failure), _) => failed(&failure),
        (_, _, Err(_)) => {
            failed(&Failure::new(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"))
        }
        (false, Ok(user), Ok(bytes)) => {
            let asked = Asked { shared: &shared, route: &route, query, headers: &parts.headers, user, bytes };
            asked.answer(&mut state).unwrap_or_else(|failure| failed(&failure))
        }
    };
    let watch = route.verb == "watch";
    state.remember(Call {
        verb: route.verb,
        group: route.group,
        version: route.version,
        resource: route.resource,
        subresource: route.sub,
        namespace: route.namespace,
        name: route.name,
        path: route.path,
        status: response.status().as_u16(),
        watch,
        user: name,
    });
    response
}

/// API Priority and Fairness answers in plain text, not by a Status: clients must take both (API conventions, "HTTP
/// Status codes", 429, for `Retry-After`).
fn throttle() -> Response<Body> {
    let mut response = respond(429, "text/plain; charset=utf-8", whole("Too many requests, please try again later.\n"));
    response.headers_mut().insert("Retry-After", 1.into());
    response
}

struct Asked<'a> {
    shared: &'a Arc<Shared>,
    route: &'a Route,
    query: std::collections::BTreeMap<String, String>,
    headers: &'a HeaderMap,
    user: User,
    bytes: Bytes,
}

impl Asked<'_> {
    fn answer(self, state: &mut State) -> Result<Response<Body>, Failure> {
        let route = self.route;
        if route.resource.is_empty() {
            return self.elsewhere(state);
        }
        if let Some((group, _, kind, _)) = discovery::REVIEWS
            .iter()
            .find(|(group, plural, ..)| *group == route.group && *plural == route.resource && route.version == "v1")
        {
            return self.review(state, group, kind);
        }
        let kind = state.kind(&route.group, &route.version, &route.resource).ok_or_else(Failure::no_such_path)?;
        let list = ["list", "watch", "deletecollection"].contains(&route.verb.as_str());
        let selected = self.query.get("fieldSelector").filter(|_| list);
        let selected = selected.and_then(|text| FieldsMatch::parse(text, &kind).ok());
        // Using RBAC Authorization, "Referring to resources": a list of one name is a request for this name.
        let named = selected.as_ref().and_then(FieldsMatch::name).unwrap_or(&route.name);
        let attributes = Attributes {
            verb: route.verb.clone(),
            group: route.group.clone(),
            resource: route.resource.clone(),
            sub: route.sub.clone(),
            namespace: if kind.storage == "namespaces" { route.name.clone() } else { route.namespace.clone() },
            name: named.into(),
            path: String::new(),
        };
        if !allowed(state, &self.user, &attributes) {
            return Err(attributes.forbidden(&kind, &self.user));
        }
        self.resource(state, kind)
    }

    fn elsewhere(self, state: &State) -> Result<Response<Body>, Failure> {
        let path = self.route.path.as_str();
        let asked = Attributes { verb: self.route.verb.clone(), path: path.into(), ..Attributes::default() };
        if !allowed(state, &self.user, &asked) {
            let message = format!("forbidden: User \"{}\" cannot {} path \"{path}\"", self.user.name, self.route.verb);
            return Err(Failure::new(403, "Forbidden", message));
        }
        match path.trim_end_matches('/') {
            // Kubernetes API health endpoints.
            "/healthz" | "/livez" | "/readyz" => Ok(respond(200, "text/plain; charset=utf-8", whole("ok"))),
            "/version" => Ok(respond(200, "application/json", whole(discovery::version().to_string()))),
            path => {
                let accept = header(self.headers, ACCEPT);
                let address = format!("127.0.0.1:{}", self.shared.port);
                let found = discovery::answer(&state.kinds, path, &accept, &address);
                let (body, content_type) = found.ok_or_else(Failure::no_such_path)?;
                Ok(respond(200, &content_type, whole(body.to_string())))
            }
        }
    }

    fn review(self, state: &State, group: &str, kind: &str) -> Result<Response<Body>, Failure> {
        let route = self.route;
        let asked = Attributes {
            verb: route.verb.clone(),
            group: group.into(),
            resource: route.resource.clone(),
            namespace: route.namespace.clone(),
            ..Attributes::default()
        };
        if !allowed(state, &self.user, &asked) {
            let message = format!(
                "{0}.{group} is forbidden: User \"{1}\" cannot {2} resource \"{0}\" in API group \"{group}\" at the cluster scope",
                route.resource, self.user.name, route.verb
            );
            return Err(Failure::new(403, "Forbidden", message));
        }
        if route.verb != "create" {
            return Err(Failure::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ));
        }
        let object: Value =
            serde_json::from_slice(&self.bytes).map_err(|error| Failure::bad_request(error.to_string()))?;
        let mut body = review(state, &self.user, &route.resource, object);
        body["apiVersion"] = json!(format!("{group}/v1"));
        body["kind"] = json!(kind);
        Ok(answered(Answer { code: 201, body, warnings: Vec::new() }, Look::Whole))
    }

    fn resource(self, state: &mut State, kind: Arc<Kind>) -> Result<Response<Body>, Failure> {
        let route = self.route;
        let look = Look::wanted(&header(self.headers, ACCEPT));
        let content_type = header(self.headers, CONTENT_TYPE);
        let ask = Ask {
            namespace: route.namespace.clone(),
            name: route.name.clone(),
            sub: route.sub.clone(),
            query: self.query,
            body: self.bytes,
            content_type: if content_type.is_empty() { "application/json".into() } else { content_type },
            user: self.user,
            agent: header(self.headers, USER_AGENT),
            kind,
        };
        // Single objects of what lives in namespaces have one; creations, too.
        let placed = !ask.kind.namespaced || !ask.namespace.is_empty();
        let fits = placed || ["list", "watch"].contains(&route.verb.as_str());
        if !fits || (!ask.kind.namespaced && !ask.namespace.is_empty()) {
            return Err(Failure::no_such_path());
        }
        let known = ask.sub.is_empty() || ask.kind.subresources().iter().any(|(sub, ..)| *sub == ask.sub);
        if !known {
            return Err(Failure::no_such_path());
        }
        if !["", "All"].contains(&ask.param("dryRun")) {
            // API concepts, "Dry-run": All is the one value that there is.
            let message = format!("dryRun: Unsupported value: \"{}\": supported values: \"All\"", ask.param("dryRun"));
            return Err(Failure::new(422, "Invalid", message));
        }
        let answer = match (route.verb.as_str(), ask.sub.as_str()) {
            ("watch", _) => return watch(self.shared, state, ask, look),
            ("get", "log") => return logs::get(self.shared, state, &ask),
            ("get", _) => verbs::get(state, &ask)?,
            ("list", _) => verbs::list(state, &ask)?,
            ("create", "") if ask.name.is_empty() => verbs::create(state, &ask)?,
            ("create", "eviction") => delete::evict(state, &ask)?,
            ("create", "binding") => bind(state, &ask)?,
            ("create", "token") => token(state, &ask)?,
            ("update", "" | "status" | "scale") => verbs::update(state, &ask)?,
            ("patch", "" | "status" | "scale") => verbs::patch(state, &ask)?,
            ("delete", "") => delete::delete(state, &ask)?,
            ("deletecollection", "") => delete::delete_collection(state, &ask)?,
            _ => return Err(Failure::no_such_verb(&ask.kind)),
        };
        Ok(answered(answer, look))
    }
}

fn watch(shared: &Arc<Shared>, state: &State, ask: Ask, look: Look) -> Result<Response<Body>, Failure> {
    let watch = Watch::new(shared, state, ask, look)?;
    let body = StreamBody::new(watch.stream().map(|line| line.map(Frame::data)));
    Ok(respond(200, "application/json", body.boxed_unsync()))
}

/// A body that grows.
pub(crate) fn streamed(
    code: u16,
    content_type: &str,
    stream: impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    respond(code, content_type, StreamBody::new(stream.map(|piece| piece.map(Frame::data))).boxed_unsync())
}

/// The scheduler's word: this pod runs on that node (API reference, Binding).
fn bind(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let body = verbs::body(ask)?;
    let pod = verbs::current(state, ask)?;
    if pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty()) {
        let why = format!("pod {} is already assigned to node {}", ask.name, pod["spec"]["nodeName"]);
        return Err(Failure::conflict(&ask.kind, &ask.name, &why));
    }
    let node = body["target"]["name"].clone();
    if !ask.dry() {
        state.change(&ask.key(), "", "binding", |pod| pod["spec"]["nodeName"] = node);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer { code: 201, body: status, warnings: Vec::new() })
}

/// A token for a service account (Managing Service Accounts, "TokenRequest API").
fn token(state: &mut State, ask: &Ask) -> Result<Answer, Failure> {
    let account = verbs::current(state, ask)?;
    let mut body = verbs::body(ask)?;
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default().to_string();
    let audiences: Vec<String> = body["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(String::from)
        .collect();
    let audiences = if audiences.is_empty() { vec![API.into()] } else { audiences };
    body["spec"]["audiences"] = json!(audiences);
    let token = state.users.account_for(&ask.namespace, &ask.name, &uid, audiences);
    let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    body["kind"] = json!("TokenRequest");
    body["apiVersion"] = json!("authentication.k8s.io/v1");
    body["status"] = json!({"token": token, "expirationTimestamp": crate::state::later(seconds)});
    Ok(Answer { code: 201, body, warnings: Vec::new() })
}
