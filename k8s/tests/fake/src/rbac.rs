//! Who asks, and what they may.
//!
//! Authenticating, "Service account tokens"; Managing Service Accounts, "Bound service account tokens": a token is for its
//! audiences, and as long as its account is there. Using RBAC Authorization: rights come of Roles and ClusterRoles by bindings,
//! and of nothing else. The administrator of a kubeconfig is of the group `system:masters`, which may do everything.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::state::{Ask, State, secret};
use crate::status::Failure;

/// Somebody who asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
}

impl User {
    pub(crate) fn system() -> User {
        User { name: "system:kube-controller-manager".into(), uid: String::new(), groups: vec![MASTERS.into()] }
    }

    fn anonymous() -> User {
        User { name: "system:anonymous".into(), uid: String::new(), groups: vec!["system:unauthenticated".into()] }
    }
}

const MASTERS: &str = "system:masters";
/// The audience of tokens that are for the API server itself.
pub(crate) const API: &str = "https://kubernetes.default.svc.cluster.local";
/// How service accounts are called, before their namespace and name.
const ACCOUNT: &str = "system:serviceaccount:";

/// Whose a token is, and for whom.
#[derive(Debug)]
struct Token {
    user: User,
    audiences: Vec<String>,
}

/// Bearer tokens, by what they are.
#[derive(Debug)]
pub(crate) struct Users {
    tokens: BTreeMap<String, Token>,
    pub(crate) admin: String,
}

impl Default for Users {
    fn default() -> Users {
        let admin = secret();
        let groups = vec![MASTERS.into(), "system:authenticated".into()];
        let user = User { name: "kubernetes-admin".into(), uid: String::new(), groups };
        let token = Token { user, audiences: vec![API.into()] };
        Users { tokens: BTreeMap::from([(admin.clone(), token)]), admin }
    }
}

impl Users {
    /// A new token of a service account for the API server.
    pub(crate) fn account(&mut self, namespace: &str, name: &str, uid: &str) -> String {
        self.account_for(namespace, name, uid, vec![API.into()])
    }

    /// A new token of a service account for these audiences.
    pub(crate) fn account_for(&mut self, namespace: &str, name: &str, uid: &str, audiences: Vec<String>) -> String {
        let groups = vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".into(),
        ];
        let user = User { name: format!("{ACCOUNT}{namespace}:{name}"), uid: uid.into(), groups };
        let token = secret();
        self.tokens.insert(token.clone(), Token { user, audiences });
        token
    }
}

/// The user of a header `Authorization`; a wrong token is nobody, no token is anonymous.
pub(crate) fn of_header(state: &State, header: Option<&str>) -> Result<User, Failure> {
    let Some(header) = header else { return Ok(User::anonymous()) };
    let token = header.strip_prefix("Bearer ").unwrap_or_default();
    of_token(state, token, &[API.into()]).map(|(user, _)| user.clone()).ok_or_else(Failure::unauthorized)
}

/// Whose a token is that is for one of these audiences, and for which of them.
fn of_token<'s>(state: &'s State, token: &str, audiences: &[String]) -> Option<(&'s User, Vec<String>)> {
    let Token { user, audiences: own } = state.users.tokens.get(token)?;
    let both: Vec<String> = audiences.iter().filter(|one| own.contains(one)).cloned().collect();
    let (namespace, name) = user.name.strip_prefix(ACCOUNT).and_then(|of| of.split_once(':')).unwrap_or_default();
    let account = state.get("serviceaccounts", namespace, name);
    // Tests also have tokens of accounts that are not there; those have no UID.
    let is_there = user.uid.is_empty() || account.is_some_and(|account| account["metadata"]["uid"] == user.uid);
    (is_there && !both.is_empty()).then_some((user, both))
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) sub: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Of what is no resource, as `/version`.
    pub(crate) path: String,
}

impl Attributes {
    pub(crate) fn of(ask: &Ask, verb: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: ask.kind.group.clone(),
            resource: ask.kind.plural.clone(),
            sub: ask.sub.clone(),
            namespace: ask.namespace.clone(),
            name: ask.name.clone(),
            path: String::new(),
        }
    }

    fn with_sub(&self) -> String {
        if self.sub.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.sub) }
    }

    /// The refusal, in upstream's words.
    pub(crate) fn forbidden(&self, kind: &Kind, user: &User) -> Failure {
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let why = format!(
            "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
            user.name,
            self.verb,
            self.with_sub(),
            self.group
        );
        Failure::forbidden(kind, &self.name, &why)
    }
}

/// What everybody may: look at versions, health and discovery, and ask about themselves (Using RBAC Authorization,
/// "API discovery roles").
fn anybody(user: &User, asked: &Attributes) -> bool {
    const OPEN: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    if !asked.path.is_empty() {
        let known = user.groups.iter().any(|group| group == "system:authenticated");
        let discovery = ["/api", "/apis", "/openapi"].iter().any(|root| asked.path.starts_with(root));
        return OPEN.contains(&asked.path.as_str()) || (known && discovery);
    }
    let about_self = asked.group == "authorization.k8s.io" && asked.resource.starts_with("selfsubject")
        || asked.group == "authentication.k8s.io" && asked.resource == "selfsubjectreviews";
    about_self && asked.verb == "create" && user.groups.iter().any(|group| group == "system:authenticated")
}

pub(crate) fn allowed(state: &State, user: &User, asked: &Attributes) -> bool {
    if asked.path.is_empty() && state.faults.denies(&asked.verb, &asked.group, &asked.with_sub()) {
        return false;
    }
    if user.groups.iter().any(|group| group == MASTERS) || anybody(user, asked) {
        return true;
    }
    rules(state, user, &asked.namespace).iter().any(|rule| permits(rule, asked))
}

/// The rules that hold for a user in a namespace; empty: in the cluster.
pub(crate) fn rules(state: &State, user: &User, namespace: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let wide = state.store.list("clusterrolebindings.rbac.authorization.k8s.io", "");
    let narrow = state.store.list("rolebindings.rbac.authorization.k8s.io", namespace);
    for binding in wide.chain(narrow.filter(|_| !namespace.is_empty())) {
        let home = binding["metadata"]["namespace"].as_str().unwrap_or_default();
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        if !subjects.into_iter().any(|subject| is_subject(subject, user, home)) {
            continue;
        }
        let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
        let role = match binding["roleRef"]["kind"].as_str() {
            Some("Role") => state.get("roles.rbac.authorization.k8s.io", home, name),
            _ => state.get("clusterroles.rbac.authorization.k8s.io", "", name),
        };
        found.extend(role.iter().flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()));
    }
    found
}

fn is_subject(subject: &Value, user: &User, home: &str) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => user.name == name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(home);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn permits(rule: &Value, asked: &Attributes) -> bool {
    let has = |field: &str, word: &str| {
        let list = rule[field].as_array().into_iter().flatten();
        list.into_iter().any(|one| one == "*" || one == word)
    };
    if !asked.path.is_empty() {
        let fits = |url: &Value| {
            let url = url.as_str().unwrap_or_default();
            url == asked.path || url.strip_suffix('*').is_some_and(|root| asked.path.starts_with(root))
        };
        let urls = rule["nonResourceURLs"].as_array().into_iter().flatten();
        return has("verbs", &asked.verb) && urls.into_iter().any(fits);
    }
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    let any_sub = format!("*/{}", asked.sub);
    has("verbs", &asked.verb)
        && has("apiGroups", &asked.group)
        && (has("resources", &asked.with_sub()) || (!asked.sub.is_empty() && has("resources", &any_sub)))
        && names.is_none_or(|names| names.iter().any(|name| *name == asked.name))
}

/// Objects that are answered and not kept: reviews of tokens and of rights.
///
/// API reference: TokenReview, SelfSubjectReview, SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview,
/// SelfSubjectRulesReview.
pub(crate) fn review(state: &State, user: &User, resource: &str, mut object: Value) -> Value {
    let info = |user: &User| json!({"username": user.name, "uid": user.uid, "groups": user.groups});
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let spec = object["spec"].clone();
    object["status"] = match resource {
        "tokenreviews" => {
            let audiences: Vec<String> = spec["audiences"].as_array().into_iter().flatten().map(text).collect();
            let audiences = if audiences.is_empty() { vec![API.into()] } else { audiences };
            match of_token(state, &text(&spec["token"]), &audiences) {
                Some((user, audiences)) => json!({"authenticated": true, "user": info(user), "audiences": audiences}),
                None => json!({"user": {}, "error": "[invalid bearer token, token lookup failed]"}),
            }
        }
        "selfsubjectreviews" => json!({"userInfo": info(user)}),
        "selfsubjectrulesreviews" => {
            let mut rules = rules(state, user, &text(&spec["namespace"]));
            if user.groups.iter().any(|group| group == MASTERS) {
                rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            }
            let (urls, resources): (Vec<_>, Vec<_>) =
                rules.into_iter().partition(|rule| rule["nonResourceURLs"].is_array());
            json!({"resourceRules": resources, "nonResourceRules": urls, "incomplete": false})
        }
        _ => {
            let about = if resource.starts_with("self") {
                user.clone()
            } else {
                let groups = spec["groups"].as_array().into_iter().flatten();
                User { name: text(&spec["user"]), uid: text(&spec["uid"]), groups: groups.map(text).collect() }
            };
            let (resource, url) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
            let asked = Attributes {
                verb: if url.is_object() { text(&url["verb"]) } else { text(&resource["verb"]) },
                group: text(&resource["group"]),
                resource: text(&resource["resource"]),
                sub: text(&resource["subresource"]),
                namespace: text(&resource["namespace"]),
                name: text(&resource["name"]),
                path: text(&url["path"]),
            };
            json!({"allowed": allowed(state, &about, &asked)})
        }
    };
    if !object["metadata"].is_object() {
        object["metadata"] = json!({"creationTimestamp": null});
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_permit_what_they_name() {
        let rule = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        let asked = |verb: &str, group: &str, resource: &str, sub: &str| Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            sub: sub.into(),
            ..Attributes::default()
        };
        assert!(permits(&rule, &asked("get", "", "pods", "")));
        assert!(permits(&rule, &asked("get", "", "pods", "log")));
        assert!(!permits(&rule, &asked("get", "", "pods", "status")));
        assert!(!permits(&rule, &asked("get", "apps", "pods", "")));
        assert!(!permits(&rule, &asked("delete", "", "pods", "")));
        let named = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]});
        let mut one = asked("get", "x", "y", "");
        assert!(!permits(&named, &one));
        one.name = "a".into();
        assert!(permits(&named, &one));
    }
}
