//! Label and field selectors.
//!
//! Labels and Selectors, "API" (equality-based and set-based requirements); Field Selectors, "List of supported fields".

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kinds::Kind;
use crate::status::Failure;

#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A conjunction of requirements on labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Labels(Vec<Requirement>);

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(crate) fn parse(text: &str) -> Result<Labels, Failure> {
        let mut requirements = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if !part.is_empty() {
                requirements.push(requirement(part).ok_or_else(|| {
                    Failure::bad_request(format!("unable to parse requirement: found '{part}' in '{text}'"))
                })?);
            }
        }
        Ok(Labels(requirements))
    }

    /// Of a `LabelSelector` object; absent selects nothing, empty all.
    pub(crate) fn of_object(selector: &Value) -> Option<Labels> {
        let selector = selector.as_object()?;
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement::In(key.clone(), vec![value.as_str()?.into()]));
        }
        for one in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = one["key"].as_str()?.to_string();
            let values = one["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(String::from).collect();
            requirements.push(match one["operator"].as_str()? {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Missing(key),
                _ => return None,
            });
        }
        Some(Labels(requirements))
    }

    pub(crate) fn matches(&self, labels: &Value) -> bool {
        let get = |key: &str| labels.get(key).and_then(Value::as_str);
        let number = |key: &str| get(key).and_then(|value| value.parse::<i64>().ok());
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => get(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|value| values.iter().all(|one| one != value)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::Missing(key) => get(key).is_none(),
            Requirement::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Requirement::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        })
    }
}

/// Parts between commas that are in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    let key = |text: &str| is_key(text.trim()).then(|| text.trim().to_string());
    if let Some(rest) = part.strip_prefix('!') {
        return Some(Requirement::Missing(key(rest)?));
    }
    for (word, within) in [(" notin ", false), (" notin(", false), (" in ", true), (" in(", true)] {
        if let Some((name, values)) = part.split_once(word) {
            let values = values.trim().trim_start_matches('(').strip_suffix(')')?;
            let values = values.split(',').map(|value| value.trim().to_string()).collect();
            let name = key(name)?;
            return Some(if within { Requirement::In(name, values) } else { Requirement::NotIn(name, values) });
        }
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Some(Requirement::NotIn(key(name)?, vec![value.trim().into()]));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Requirement::In(key(name)?, vec![value.trim().into()]));
    }
    if let Some((name, value)) = part.split_once('>') {
        return Some(Requirement::Greater(key(name)?, value.trim().parse().ok()?));
    }
    if let Some((name, value)) = part.split_once('<') {
        return Some(Requirement::Less(key(name)?, value.trim().parse().ok()?));
    }
    Some(Requirement::Exists(key(part)?))
}

/// A label's key: a name of at most 63 characters, after an optional prefix that is a DNS subdomain.
pub(crate) fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_value(name)
}

/// A label's value: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, or empty.
pub(crate) fn is_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 63 && text.chars().all(inner) && ends(text.chars().next()) && ends(text.chars().last())
}

/// A DNS subdomain (RFC 1123), of at most 253 characters.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A DNS label (RFC 1123) but for its length.
pub(crate) fn is_label(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

/// A conjunction of equalities on fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FieldsMatch(Vec<(String, bool, String)>);

/// Fields besides metadata.name and metadata.namespace by which each resource may be selected.
fn supported(kind: &Kind) -> Vec<String> {
    let fields: &[&str] = match kind.storage.as_str() {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "secrets" => &["type"],
        "namespaces" => &["status.phase"],
        "nodes" => &["spec.unschedulable"],
        "jobs.batch" => &["status.successful"],
        "services" => &["spec.clusterIP", "spec.type"],
        _ => &[],
    };
    let mut fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
    if let Some(custom) = &kind.custom {
        // CustomResourceDefinitions, "Field selectors".
        fields.extend(custom.selectable.iter().cloned());
    }
    if kind.storage == "events" && !kind.group.is_empty() {
        // The newer API names the same fields by its own words.
        fields.extend(fields.clone().iter().map(|field| field.replace("involvedObject", "regarding")));
    }
    fields
}

impl FieldsMatch {
    pub(crate) fn parse(text: &str, kind: &Kind) -> Result<FieldsMatch, Failure> {
        let mut requirements = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let equal = part.split_once("==").or_else(|| part.split_once('='));
            let (field, same, value) = match part.split_once("!=") {
                Some((field, value)) => (field, false, value),
                None => {
                    let (field, value) = equal.ok_or_else(|| {
                        Failure::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'"))
                    })?;
                    (field, true, value)
                }
            };
            let known = field == "metadata.name" || (field == "metadata.namespace" && kind.namespaced);
            if !known && !supported(kind).iter().any(|one| one == field) {
                return Err(Failure::bad_request(format!("field label not supported: {field}")));
            }
            let field = field.replace("regarding", "involvedObject");
            requirements.push((field, same, value.to_string()));
        }
        Ok(FieldsMatch(requirements))
    }

    /// Of an object as it is stored.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, same, wanted)| {
            let value = match field.as_str() {
                "source" => object["source"]["component"].clone(),
                "status.successful" => object["status"]["succeeded"].clone(),
                _ => field.split('.').fold(object.clone(), |value, name| value[name].clone()),
            };
            let is = match value {
                Value::Null if field == "spec.hostNetwork" || field == "spec.unschedulable" => "false".into(),
                Value::Null if field == "status.successful" => "0".into(),
                Value::Null => String::new(),
                Value::String(text) => text,
                other => other.to_string(),
            };
            (is == *wanted) == *same
        })
    }

    /// The one name that can match, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        let name = self.0.iter().find(|(field, same, _)| *same && field == "metadata.name");
        name.map(|(_, _, name)| name.as_str())
    }
}

/// Both selectors of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector {
    pub(crate) labels: Labels,
    pub(crate) fields: FieldsMatch,
}

impl Selector {
    pub(crate) fn of_query(query: &BTreeMap<String, String>, kind: &Kind) -> Result<Selector, Failure> {
        let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        Ok(Selector {
            labels: Labels::parse(text("labelSelector"))?,
            fields: FieldsMatch::parse(text("fieldSelector"), kind)?,
        })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(&object["metadata"]["labels"]) && self.fields.matches(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_select() {
        let labels = json!({"app": "x", "tier": "web", "n": "5"});
        let table = [
            ("app=x", true),
            ("app==x,tier!=db", true),
            ("app!=x", false),
            ("tier in (web, db),app", true),
            ("tier notin (web,db)", false),
            ("other notin (a)", true),
            ("!other,!more", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("", true),
        ];
        for (text, expected) in table {
            assert_eq!(Labels::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        assert_eq!(Labels::parse("a b c").unwrap_err().code, 400);
    }

    #[test]
    fn fields_that_upstream_does_not_support_are_refused() {
        let kinds = crate::kinds::built_in();
        let pods = kinds.iter().find(|kind| kind.plural == "pods").unwrap();
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed"}});
        for (text, expected) in
            [("status.phase!=Running,spec.nodeName=n", true), ("metadata.name=b", false), ("status.podIP=", true)]
        {
            assert_eq!(FieldsMatch::parse(text, pods).unwrap().matches(&pod), expected, "{text}");
        }
        let failure = FieldsMatch::parse("spec.priority=1", pods).unwrap_err();
        assert_eq!(failure.message, "field label not supported: spec.priority");
    }
}
