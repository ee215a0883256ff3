//! What a path and a method ask for.
//!
//! API concepts, "Resource URIs" and "API verbs".

use std::collections::BTreeMap;

use hyper::Method;

/// A request about a resource, or about something else.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Route {
    /// Kubernetes' verb; of what is no resource, the method in lower case.
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty: no resource.
    pub(crate) resource: String,
    pub(crate) sub: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) path: String,
}

pub(crate) fn query(text: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

pub(crate) fn route(method: &Method, path: &str, query: &BTreeMap<String, String>) -> Route {
    let decoded: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let mut route = Route { path: path.into(), ..Route::default() };
    let rest = match parts[..] {
        ["api", version, _, ..] => {
            route.version = version.into();
            &parts[2..]
        }
        ["apis", group, version, _, ..] => {
            (route.group, route.version) = (group.into(), version.into());
            &parts[3..]
        }
        _ => &[],
    };
    let rest = match rest {
        // The path of what is in a namespace; a namespace's own path is as long as a name and a subresource.
        ["namespaces", namespace, resource, rest @ ..]
            if !(rest.is_empty() && ["status", "finalize"].contains(resource) && route.group.is_empty()) =>
        {
            route.namespace = (*namespace).into();
            route.resource = (*resource).into();
            rest
        }
        [resource, rest @ ..] => {
            route.resource = (*resource).into();
            rest
        }
        [] => &[],
    };
    if let [name, rest @ ..] = rest {
        route.name = (*name).into();
        route.sub = rest.join("/");
    }
    route.verb = verb(method, &route, query).into();
    route
}

fn decode(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn verb(method: &Method, route: &Route, query: &BTreeMap<String, String>) -> &'static str {
    let watch = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
    let one = !route.name.is_empty();
    match (method, route.resource.is_empty(), one) {
        (&Method::GET | &Method::HEAD, false, false) if watch => "watch",
        (&Method::GET | &Method::HEAD, false, false) => "list",
        (&Method::POST, false, _) => "create",
        (&Method::PUT, false, _) => "update",
        (&Method::DELETE, false, false) => "deletecollection",
        (&Method::PATCH, ..) => "patch",
        (&Method::DELETE, ..) => "delete",
        (&Method::PUT, ..) => "put",
        (&Method::POST, ..) => "post",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, expected: [&str; 7]) {
        let (path, text) = path.split_once('?').unwrap_or((path, ""));
        let route = route(&method, path, &query(text));
        let found =
            [&route.verb, &route.group, &route.version, &route.resource, &route.sub, &route.namespace, &route.name];
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_are_taken_apart() {
        check(Method::GET, "/api/v1/namespaces/a/pods/p/log", ["get", "", "v1", "pods", "log", "a", "p"]);
        check(Method::GET, "/api/v1/pods?watch=true", ["watch", "", "v1", "pods", "", "", ""]);
        check(Method::DELETE, "/api/v1/namespaces/a/pods", ["deletecollection", "", "v1", "pods", "", "a", ""]);
        check(Method::GET, "/api/v1/namespaces/a", ["get", "", "v1", "namespaces", "", "", "a"]);
        check(Method::PUT, "/api/v1/namespaces/a/status", ["update", "", "v1", "namespaces", "status", "", "a"]);
        check(Method::POST, "/apis/batch/v1/namespaces/a/jobs", ["create", "batch", "v1", "jobs", "", "a", ""]);
        check(Method::GET, "/apis/batch/v1", ["get", "", "", "", "", "", ""]);
        check(Method::GET, "/version", ["get", "", "", "", "", "", ""]);
    }
}
