//! The API of `gristmill.v1` as JSON over HTTP, on the same listener: a table of routes, each of which stands for one call.
//!
//! Nothing is decided here. A request becomes the call's message by the descriptors of the .proto files (the proto3 JSON
//! mapping, with field names as in the .proto files and 64-bit numbers as numbers), goes through the same services as a
//! gRPC call, inside this process, and its answer comes back the same way. `openapi` describes the table.
//!
//! What a page in a browser could send by itself, without asking first, is refused: a body must be declared to be JSON,
//! and a request that says it comes from a page must come from this one.

mod openapi;
mod routes;

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, RawQuery, Request};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use bytes::{BufMut as _, Bytes, BytesMut};
use gristmill_proto::prost::Message as _;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::put_request::Part;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::data::PIECE;
use super::listener::bounds;
use super::raw::Raw;
use super::wire::Shown;
use routes::{Answer, ROUTES, Route};

/// The most bytes of a request's body. A job's spec has at most 64 KiB.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The .proto files; `None` would be a build that is broken.
static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(gristmill_proto::DESCRIPTORS).ok());

/// The call that a route stands for.
fn method(route: &Route) -> Option<MethodDescriptor> {
    let (service, name) = route.call.split_once('/')?;
    let service = POOL.as_ref()?.get_service_by_name(&format!("gristmill.v1.{service}"))?;
    service.methods().find(|method| method.name() == name)
}

/// What a route's path and query, and the body of some, are fields of: the call's request, or its first message.
fn input(route: &Route, call: &MethodDescriptor) -> MessageDescriptor {
    let begin = || POOL.as_ref()?.get_message_by_name("gristmill.v1.PutBegin");
    let upload = route.answer == Answer::Upload;
    upload.then(begin).flatten().unwrap_or_else(|| call.input())
}

/// Adds the routes to the services that they call, of a node that has them.
///
/// Where nobody logs in, a page whose name somebody made to mean this machine would be an administrator: only names that
/// always mean it are answered then.
pub(crate) fn beside(services: Routes, has: bool, login: bool) -> Routes {
    if !has {
        return services;
    }
    let mut router = services.clone().into_axum_router();
    let services = services.prepare();
    for route in ROUTES {
        // A test sees to it that there is one.
        let Some(call) = method(route).map(Arc::new) else { continue };
        let services = services.clone();
        let answer = move |path: RawPathParams, RawQuery(query): RawQuery, request: Request| async move {
            if !login && !is_named_here(&request) {
                let what =
                    "without login only localhost and addresses of this machine are answered; call it by one of these";
                return refusal(&Status::permission_denied(what));
            }
            let done = answered(route, &call, services, &path, query.as_deref(), request).await;
            done.unwrap_or_else(|status| refusal(&status))
        };
        router =
            router.route(route.path, on(MethodFilter::try_from(route.verb()).unwrap_or(MethodFilter::GET), answer));
    }
    router = router.route("/v1/openapi.json", get(|| async { json_of(&openapi::document()) }));
    Routes::from(router)
}

async fn answered(
    route: &Route,
    call: &MethodDescriptor,
    services: Routes,
    path: &RawPathParams,
    query: Option<&str>,
    request: Request,
) -> Result<Response, Status> {
    from_here(&request)?;
    as_it_is(request.headers())?;
    let events = request.headers().get(ACCEPT).is_some_and(|accept| accept.as_bytes() == b"text/event-stream");
    let (head, body) = request.into_parts();
    let (fields, file) =
        if route.posts() { (self::body(&head.headers, body).await?, None) } else { (Map::new(), Some(body)) };
    let message = message(&input(route, call), path, query, &head.headers, fields)?;
    let at = format!("/{}/{}", call.parent_service().full_name(), call.name());
    let at = PathAndQuery::from_maybe_shared(at).map_err(|e| Status::internal(e.to_string()))?;
    let mut client = Grpc::new(services);
    if let (Answer::Upload, Some(file)) = (route.answer, file) {
        let answer = client.client_streaming(inward(&head, upload(message, file)), at, Raw).await?;
        return Ok(json_of(&value(call, answer.into_inner())?));
    }
    let request = inward(&head, message);
    if route.answer == Answer::Once {
        // How long it may take, the services know.
        let answer = client.unary(request, at, Raw).await?;
        return Ok(json_of(&value(call, answer.into_inner())?));
    }
    // The first message tells whether there are any: after that, an error has no other place than among them.
    let mut answers = client.server_streaming(request, at, Raw).await?.into_inner();
    let first = answers.message().await?;
    let all = tokio_stream::iter(first.map(Ok)).chain(answers);
    let call = call.clone();
    let (kind, body) = match route.answer {
        Answer::Bytes => ("application/octet-stream", Body::from_stream(all.map(move |part| content(&call, part?)))),
        _ if events => ("text/event-stream", Body::from_stream(all.map(move |part| event(&call, part)))),
        _ => ("application/x-ndjson", Body::from_stream(all.map(move |part| line(&call, part)))),
    };
    Ok(([(CONTENT_TYPE, kind)], body).into_response())
}

/// The call that a request stands for, with what its caller has shown: the services' guard looks at that.
fn inward<T>(head: &Parts, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    for bearer in head.headers.get_all(AUTHORIZATION) {
        if let Ok(bearer) = MetadataValue::try_from(bearer.as_bytes()) {
            request.metadata_mut().append("authorization", bearer);
        }
    }
    if let Some(shown) = head.extensions.get::<Shown>() {
        request.extensions_mut().insert(*shown);
    }
    request
}

/// Whether a request is to a name that always means this machine.
fn is_named_here(request: &Request) -> bool {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_string());
    let host = || request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(String::from);
    let Some(named) = authority.or_else(host) else { return false };
    let host = named.rsplit_once(':').map_or(&*named, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
}

/// Refuses what a page of another origin sends.
fn from_here(request: &Request) -> Result<(), Status> {
    let Some(origin) = request.headers().get(ORIGIN) else { return Ok(()) };
    // HTTP/2 has it in the address.
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or(request.headers().get(HOST).map(HeaderValue::as_bytes)).unwrap_or_default();
    let theirs = origin.as_bytes().strip_prefix(b"https://").or(origin.as_bytes().strip_prefix(b"http://"));
    if theirs.is_some_and(|theirs| !theirs.is_empty() && theirs == host) {
        return Ok(());
    }
    Err(Status::permission_denied(
        "pages of other origins are not answered; call from a program, without the header Origin",
    ))
}

/// Refuses bodies that would have to be decompressed first: they are neither taken for what they are not, nor do they grow.
fn as_it_is(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get(CONTENT_ENCODING) {
        Some(how) if !how.as_bytes().eq_ignore_ascii_case(b"identity") => Err(Status::invalid_argument(
            "bodies are taken as they are, without the header Content-Encoding; send this one not compressed",
        )),
        _ => Ok(()),
    }
}

/// The messages of a file that comes in: how it is called, its bytes, and what they must come to. One that breaks off has
/// no such end and is not kept.
fn upload(begin: Bytes, file: Body) -> impl Stream<Item = Bytes> + Send + 'static {
    let (send, messages) = mpsc::channel(2);
    tokio::spawn(async move {
        let put = |part| Bytes::from(api::PutRequest { part: Some(part) }.encode_to_vec());
        let Ok(begin) = api::PutBegin::decode(begin) else { return };
        let mut sent = send.send(put(Part::Begin(begin))).await;
        let (mut bytes, mut crc32c) = (0, 0);
        let mut data = file.into_data_stream();
        loop {
            let piece = tokio::select! {
                piece = data.next() => piece,
                // Who waited for it has given up.
                () = send.closed() => return,
            };
            let Some(piece) = piece else { break };
            let Ok(mut piece) = piece else { return };
            while !piece.is_empty() {
                let content = piece.split_to(piece.len().min(PIECE));
                bytes += content.len() as u64;
                crc32c = crc32c::crc32c_append(crc32c, &content);
                sent = sent.and(send.send(put(Part::Content(content))).await);
            }
            if sent.is_err() {
                return;
            }
        }
        // Who refuses the file hears no more of it.
        let _ = send.send(put(Part::End(api::PutEnd { bytes, crc32c }))).await;
    });
    ReceiverStream::new(messages)
}

/// The message that a request stands for: its body's fields, and beyond those what its path and query say.
fn message(
    input: &MessageDescriptor,
    path: &RawPathParams,
    query: Option<&str>,
    headers: &HeaderMap,
    mut fields: Map<String, Value>,
) -> Result<Bytes, Status> {
    let idempotency = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(String::from);
    let pairs = query.map(form).transpose()?.unwrap_or_default();
    let named = path.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    for (name, text) in pairs.into_iter().chain(named) {
        let field = input.get_field_by_name(&name).ok_or_else(|| {
            let known: Vec<String> = input.fields().map(|field| field.name().to_string()).collect();
            Status::invalid_argument(format!("there is no parameter '{name}'; there are: {}", known.join(", ")))
        })?;
        let value = match field.kind() {
            Kind::String => Value::from(text),
            Kind::Enum(names) => Value::from(full_name(&names, &text)),
            _ => serde_json::from_str(&text).unwrap_or(Value::from(text)),
        };
        let one = if field.is_list() { json!({name.as_str(): [&value]}) } else { json!({name.as_str(): &value}) };
        let wrong = |e| Status::invalid_argument(format!("parameter '{name}': {e}; see /v1/openapi.json"));
        DynamicMessage::deserialize(input.clone(), one).map_err(wrong)?;
        if field.is_list() {
            match fields.entry(name).or_insert_with(|| json!([])) {
                Value::Array(list) => list.push(value),
                other => *other = json!([value]),
            }
        } else {
            fields.insert(name, value);
        }
    }
    if input.get_field_by_name("key").is_some() && !fields.contains_key("key") {
        // Who sends none does not mean to send it twice.
        fields.insert("key".into(), idempotency.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>())).into());
    }
    let wrong = |e| Status::invalid_argument(format!("the request is no {}: {e}; see /v1/openapi.json", input.name()));
    let message = DynamicMessage::deserialize(input.clone(), Value::Object(fields)).map_err(wrong)?;
    Ok(message.encode_to_vec().into())
}

/// An enum's value by its whole name, or by what its name ends in, in small letters: "completed".
fn full_name(names: &prost_reflect::EnumDescriptor, text: &str) -> String {
    let ends = format!("_{}", text.to_uppercase());
    let found = names.values().find(|value| value.name() == text || value.name().ends_with(&ends));
    found.map_or_else(|| text.to_string(), |value| value.name().to_string())
}

/// The pairs of a query.
fn form(query: &str) -> Result<Vec<(String, String)>, Status> {
    let uri = format!("/?{query}").parse().map_err(|_| Status::invalid_argument("the query makes no sense"))?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
    pairs.map(|pairs| pairs.0).map_err(|e| Status::invalid_argument(e.to_string()))
}

async fn body(headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Status> {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase()).unwrap_or_default();
    if kind.split(|b| *b == b';').next().map(<[u8]>::trim_ascii) != Some(b"application/json") {
        let what = "the body must be JSON, with the header 'Content-Type: application/json'";
        return Err(Status::invalid_argument(what));
    }
    let most = |_| Status::resource_exhausted(format!("the body has more than {MAX_BODY_BYTES} bytes, or ended early"));
    let within = bounds().body;
    let late = |_| Status::cancelled(format!("the body was not there after {within:?}; send it at once"));
    let bytes = timeout(within, to_bytes(body, MAX_BODY_BYTES)).await.map_err(late)?.map_err(most)?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|e| Status::invalid_argument(format!("the body is no JSON object: {e}")))
}

/// An answer as JSON.
fn value(call: &MethodDescriptor, bytes: Bytes) -> Result<Value, Status> {
    let broken = |e: &dyn std::fmt::Display| Status::internal(format!("the answer makes no sense: {e}"));
    let message = DynamicMessage::decode(call.output(), bytes).map_err(|e| broken(&e))?;
    // Programs in many languages find a field that is there easier to read than one that may be left out.
    let options =
        SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|e| broken(&e))
}

/// The bytes of a piece of a file.
fn content(call: &MethodDescriptor, part: Bytes) -> Result<Bytes, Status> {
    let broken = |e| Status::internal(format!("the answer makes no sense: {e}"));
    let message = DynamicMessage::decode(call.output(), part).map_err(broken)?;
    let content = message.get_field_by_name("content");
    Ok(content.and_then(|content| content.as_bytes().cloned()).unwrap_or_default())
}

/// A message of a stream as a line, or the error that ended it.
fn line(call: &MethodDescriptor, part: Result<Bytes, Status>) -> Result<Bytes, Infallible> {
    let told = part.and_then(|part| value(call, part)).unwrap_or_else(|status| error(&status));
    let mut line = BytesMut::from(told.to_string().as_bytes());
    line.put_u8(b'\n');
    Ok(line.freeze())
}

/// The same as an event of the server-sent kind.
fn event(call: &MethodDescriptor, part: Result<Bytes, Status>) -> Result<Bytes, Infallible> {
    let (name, told) = match part.and_then(|part| value(call, part)) {
        Ok(told) => ("message", told),
        Err(status) => ("error", error(&status)),
    };
    Ok(format!("event: {name}\ndata: {told}\n\n").into())
}

fn json_of(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

/// What an error says: its code, why for programs, a message for people, and what to do.
fn error(status: &Status) -> Value {
    let info = status.get_details_error_info();
    let (reason, next) = info.map(|info| (info.reason, info.metadata.get("next_step").cloned())).unwrap_or_default();
    json!({"error": {
        "code": format!("{:?}", status.code()), "reason": reason, "message": status.message(),
        "next_step": next.unwrap_or_default(),
    }})
}

/// The HTTP status of each code, as in google/rpc/code.proto.
pub(super) fn refusal(status: &Status) -> Response {
    let code = match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (code, json_of(&error(status))).into_response();
    if code == StatusCode::UNAUTHORIZED {
        // RFC 6750, section 3.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_mean_anything_is_told_from_an_address() {
        let asked = |uri: &str, host: &'static str| {
            let mut request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            request.headers_mut().insert(HOST, HeaderValue::from_static(host));
            is_named_here(&request)
        };
        for here in ["127.0.0.1:7070", "localhost:7070", "[::1]:7070", "LOCALHOST", "10.0.0.1:1"] {
            assert!(asked("/v1/jobs", here), "{here}");
        }
        for elsewhere in ["evil.example:7070", "localhost.evil.example", "", "127.0.0.1.evil.example:1"] {
            assert!(!asked("/v1/jobs", elsewhere), "{elsewhere}");
        }
        assert!(!asked("http://evil.example/v1/jobs", "127.0.0.1"));
    }

    #[test]
    fn pages_of_other_origins_are_told_by_either_version_of_the_protocol() {
        let asked = |uri: &str, host: &'static str, origin: &'static str| {
            let mut request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            for (name, value) in [(HOST, host), (ORIGIN, origin)].into_iter().filter(|(_, value)| !value.is_empty()) {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            from_here(&request).is_ok()
        };
        assert!(asked("/v1/jobs", "m:7070", ""));
        assert!(asked("/v1/jobs", "m:7070", "http://m:7070"));
        assert!(asked("https://m:7070/v1/jobs", "", "https://m:7070"));
        assert!(!asked("/v1/jobs", "m:7070", "http://m:7071"));
        assert!(!asked("/v1/jobs", "m:7070", "null"));
        assert!(!asked("https://m:7070/v1/jobs", "", "https://evil.example"));
        assert!(!asked("/v1/jobs", "", "http://"));
    }
}
