//! Which route stands for which call.

use axum::http::Method;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// One JSON object.
    Once,
    /// JSON objects, one a line, or server-sent events.
    Many,
    /// The bytes themselves.
    Bytes,
    /// One JSON object; the request's body is the bytes of a file.
    Upload,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    verb: &'static str,
    /// Parts in braces are fields of the call's request; one with a star may have slashes.
    pub path: &'static str,
    /// The call, as "Service/Method" of `gristmill.v1`.
    pub call: &'static str,
    pub answer: Answer,
}

impl Route {
    pub(super) fn verb(&self) -> Method {
        match self.verb {
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "DELETE" => Method::DELETE,
            _ => Method::GET,
        }
    }

    /// The path as documents write it.
    pub(super) fn told_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    /// Whether its body is the rest of the call's request.
    pub(super) fn posts(&self) -> bool {
        self.verb == "POST"
    }
}

const fn route(verb: &'static str, path: &'static str, call: &'static str, answer: Answer) -> Route {
    Route { verb, path, call, answer }
}

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    route("POST", "/v1/jobs", "Jobs/Submit", Answer::Once),
    route("GET", "/v1/jobs", "Jobs/List", Answer::Once),
    route("GET", "/v1/jobs/{job}", "Jobs/Get", Answer::Once),
    route("GET", "/v1/jobs/{job}/watch", "Jobs/Watch", Answer::Many),
    route("POST", "/v1/jobs/{job}/cancel", "Jobs/Cancel", Answer::Once),
    route("POST", "/v1/jobs/{job}/retry", "Jobs/Retry", Answer::Once),
    route("GET", "/v1/jobs/{job}/result", "Jobs/Result", Answer::Bytes),
    route("GET", "/v1/jobs/{job}/logs", "Jobs/Logs", Answer::Many),
    route("GET", "/v1/jobs/{job}/events", "Jobs/History", Answer::Many),
    route("GET", "/v1/cluster", "Cluster/Status", Answer::Once),
    route("GET", "/v1/workers", "Cluster/Workers", Answer::Once),
    route("POST", "/v1/workers/{worker}/drain", "Cluster/Drain", Answer::Once),
    route("DELETE", "/v1/workers/{worker}", "Pools/Remove", Answer::Once),
    route("GET", "/v1/pools", "Pools/List", Answer::Once),
    route("POST", "/v1/pools/{name}", "Pools/Set", Answer::Once),
    route("POST", "/v1/pools/{pool}/workers", "Pools/Add", Answer::Once),
    route("GET", "/v1/apps", "Cluster/Apps", Answer::Once),
    route("GET", "/v1/pushed", "Apps/List", Answer::Once),
    route("POST", "/v1/pushed", "Apps/Push", Answer::Once),
    route("DELETE", "/v1/pushed/{name}", "Apps/Remove", Answer::Once),
    route("POST", "/v1/app-files/missing", "Apps/Missing", Answer::Once),
    route("PUT", "/v1/app-files/{name}", "Apps/PutFile", Answer::Upload),
    route("GET", "/v1/data", "Data/List", Answer::Once),
    route("GET", "/v1/data/{*name}", "Data/Get", Answer::Bytes),
    route("PUT", "/v1/data/{*name}", "Data/Put", Answer::Upload),
    route("DELETE", "/v1/data/{*name}", "Data/Remove", Answer::Once),
    route("POST", "/v1/auth/login", "Access/Login", Answer::Once),
    route("POST", "/v1/auth/refresh", "Access/Refresh", Answer::Once),
    route("POST", "/v1/auth/logout", "Access/Logout", Answer::Once),
    route("GET", "/v1/auth/whoami", "Access/WhoAmI", Answer::Once),
    route("POST", "/v1/auth/password", "Access/ChangePassword", Answer::Once),
    route("POST", "/v1/auth/register", "Access/Register", Answer::Once),
    route("POST", "/v1/auth/validate", "Access/Validate", Answer::Once),
    route("GET", "/.well-known/jwks.json", "Access/Jwks", Answer::Once),
    route("GET", "/v1/users", "Users/List", Answer::Once),
    route("POST", "/v1/users", "Users/Add", Answer::Once),
    route("POST", "/v1/users/{name}", "Users/Change", Answer::Once),
    route("DELETE", "/v1/users/{name}", "Users/Remove", Answer::Once),
    route("POST", "/v1/users/{name}/password", "Users/ResetPassword", Answer::Once),
    route("GET", "/v1/sessions", "Users/Sessions", Answer::Once),
    route("DELETE", "/v1/sessions/{session}", "Users/EndSession", Answer::Once),
    route("POST", "/v1/tokens", "Users/CreateToken", Answer::Once),
    route("GET", "/v1/roles", "Users/Roles", Answer::Once),
    route("POST", "/v1/roles/{name}", "Users/PutRole", Answer::Once),
    route("DELETE", "/v1/roles/{name}", "Users/RemoveRole", Answer::Once),
    route("GET", "/v1/keys", "Users/Keys", Answer::Once),
    route("POST", "/v1/keys/rotate", "Users/RotateKeys", Answer::Once),
    route("GET", "/v1/policy", "Users/Policy", Answer::Once),
    route("POST", "/v1/policy", "Users/SetPolicy", Answer::Once),
    route("GET", "/v1/audit", "Users/Audit", Answer::Many),
];
