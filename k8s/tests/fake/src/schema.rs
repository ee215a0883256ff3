//! Structural schemas of CustomResourceDefinitions: pruning, defaults and validation of custom objects.
//!
//! Extend the Kubernetes API with CustomResourceDefinitions, "Specifying a structural schema", "Field pruning",
//! "Defaulting", "Defaulting and Nullable" and "Validation". Rules in CEL are in [`crate::crd`].

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::status::Cause;

/// Schemas deeper than this are refused; real ones stay far below.
const DEPTH: usize = 64;

/// Takes away what the schema does not know, unless it preserves it; tells what went.
pub(crate) fn prune(value: &mut Value, schema: &Value, path: &str, root: bool, gone: &mut Vec<String>) {
    let preserves = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    match value {
        Value::Object(object) => {
            let properties = schema["properties"].as_object();
            let more = &schema["additionalProperties"];
            let own = |name: &str| (root || embedded) && ["apiVersion", "kind", "metadata"].contains(&name);
            let names: Vec<String> = object.keys().cloned().collect();
            for name in names.iter().filter(|name| !own(name)) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let below = properties.and_then(|properties| properties.get(name)).or(more.is_object().then_some(more));
                match (below, object.get_mut(name)) {
                    (Some(below), Some(value)) => prune(value, below, &path, false, gone),
                    _ if preserves || more == true => {}
                    _ => {
                        object.remove(name);
                        gone.push(path);
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(item, &schema["items"], &format!("{path}[{index}]"), false, gone);
            }
        }
        _ => {}
    }
}

/// Puts defaults where properties are missing; a null that may not be one counts as missing if there is a default.
pub(crate) fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => {
            for (name, below) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = below.get("default") {
                    let missing = match object.get(name) {
                        None => true,
                        Some(value) => value.is_null() && below["nullable"] != true,
                    };
                    if missing {
                        object.insert(name.clone(), default.clone());
                    }
                }
                if let Some(value) = object.get_mut(name) {
                    fill(value, below);
                }
            }
            let more = &schema["additionalProperties"];
            if more.is_object() {
                let properties = schema["properties"].as_object();
                let others =
                    object.iter_mut().filter(|(name, _)| !properties.is_some_and(|known| known.contains_key(*name)));
                others.for_each(|(_, value)| fill(value, more));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, &schema["items"])),
        _ => {}
    }
}

/// What is wrong with a value by its schema.
pub(crate) fn validate(value: &Value, schema: &Value, path: &str, found: &mut Vec<Cause>) {
    if !schema.is_object() || (value.is_null() && schema["nullable"] == true) {
        return;
    }
    if let Some(cause) = wrong_type(value, schema, path) {
        found.push(cause);
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let words: Vec<String> = allowed.iter().map(|one| one.as_str().map_or(one.to_string(), String::from)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        found.push(Cause::unsupported(path, value, &words));
    }
    match value {
        Value::String(text) => string(text, schema, path, found),
        Value::Number(number) => numeric(number.as_f64().unwrap_or_default(), value, schema, path, found),
        Value::Array(items) => array(items, value, schema, path, found),
        Value::Object(object) => members(object, value, schema, path, found),
        Value::Null | Value::Bool(_) => {}
    }
    logic(value, schema, path, found);
}

fn wrong_type(value: &Value, schema: &Value, path: &str) -> Option<Cause> {
    let is_whole = |value: &Value| value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0);
    if schema["x-kubernetes-int-or-string"] == true {
        let fits = value.is_string() || (value.is_number() && is_whole(value));
        return (!fits).then(|| wrong(path, value, "integer or string"));
    }
    let wanted = schema["type"].as_str()?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_number() && is_whole(value),
        "number" => value.is_number(),
        _ => true,
    };
    (!fits).then(|| wrong(path, value, wanted))
}

fn wrong(path: &str, value: &Value, wanted: &str) -> Cause {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let message = format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\"");
    Cause { reason: "FieldValueTypeInvalid", field: path.into(), message }
}

fn bound(schema: &Value, name: &str) -> Option<u64> {
    schema[name].as_u64()
}

fn string(text: &str, schema: &Value, path: &str, found: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    let value = json!(text);
    let mut bad = |why: String| found.push(Cause::invalid(path, &value, &why));
    if let Some(most) = bound(schema, "maxLength").filter(|most| length > *most) {
        bad(format!("{path} in body should be at most {most} chars long"));
    }
    if let Some(least) = bound(schema, "minLength").filter(|least| length < *least) {
        bad(format!("{path} in body should be at least {least} chars long"));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
    {
        bad(format!("{path} in body should match '{pattern}'"));
    }
    if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        bad(format!("{path} in body must be of type date-time: \"{text}\""));
    }
}

fn numeric(number: f64, value: &Value, schema: &Value, path: &str, found: &mut Vec<Cause>) {
    let mut bad = |why: String| found.push(Cause::invalid(path, value, &why));
    if let Some(most) = schema["maximum"].as_f64() {
        let over = if schema["exclusiveMaximum"] == true { number >= most } else { number > most };
        if over {
            bad(format!("{path} in body should be less than or equal to {most}"));
        }
    }
    if let Some(least) = schema["minimum"].as_f64() {
        let under = if schema["exclusiveMinimum"] == true { number <= least } else { number < least };
        if under {
            bad(format!("{path} in body should be greater than or equal to {least}"));
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step > 0.0)
        && (number / step).fract() != 0.0
    {
        bad(format!("{path} in body should be a multiple of {step}"));
    }
    let range = match schema["format"].as_str() {
        Some("int32") => f64::from(i32::MIN)..=f64::from(i32::MAX),
        // Upstream takes unsigned formats, which generators of schemas write, as plain words.
        _ => f64::MIN..=f64::MAX,
    };
    if !range.contains(&number) {
        bad(format!("{path} in body must be of type int32: \"{value}\""));
    }
}

fn array(items: &[Value], value: &Value, schema: &Value, path: &str, found: &mut Vec<Cause>) {
    let count = items.len() as u64;
    if let Some(most) = bound(schema, "maxItems").filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        found.push(Cause { reason: "FieldValueTooMany", field: path.into(), message });
    }
    if let Some(least) = bound(schema, "minItems").filter(|least| count < *least) {
        found.push(Cause::invalid(path, value, &format!("{path} in body should have at least {least} items")));
    }
    for (index, item) in items.iter().enumerate() {
        validate(item, &schema["items"], &format!("{path}[{index}]"), found);
    }
    // Lists that are sets or maps have no member twice (Server-Side Apply, "Custom resources and server-side apply").
    let shape = crate::fields::Shape::Schema(schema);
    let listing = shape.listing();
    if listing != crate::fields::Listing::Atomic {
        for (index, item) in items.iter().enumerate() {
            let step = crate::fields::step_to(item, &listing);
            if items[..index].iter().any(|one| crate::fields::step_to(one, &listing) == step) {
                found.push(Cause::duplicate(format!("{path}[{index}]"), item));
            }
        }
    }
}

fn members(object: &Map<String, Value>, value: &Value, schema: &Value, path: &str, found: &mut Vec<Cause>) {
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            found.push(Cause::required(below(name), ""));
        }
    }
    let count = object.len() as u64;
    if let Some(most) = bound(schema, "maxProperties").filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        found.push(Cause { reason: "FieldValueTooMany", field: path.into(), message });
    }
    if let Some(least) = bound(schema, "minProperties").filter(|least| count < *least) {
        found.push(Cause::invalid(path, value, &format!("{path} in body should have at least {least} properties")));
    }
    let properties = schema["properties"].as_object();
    let more = &schema["additionalProperties"];
    for (name, value) in object {
        let known = properties.and_then(|properties| properties.get(name));
        if let Some(schema) = known.or(more.is_object().then_some(more)) {
            validate(value, schema, &below(name), found);
        }
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`: what they say beyond the structure.
fn logic(value: &Value, schema: &Value, path: &str, found: &mut Vec<Cause>) {
    let holds = |schema: &Value| {
        let mut found = Vec::new();
        validate(value, schema, path, &mut found);
        found.is_empty()
    };
    for one in schema["allOf"].as_array().into_iter().flatten() {
        validate(value, one, path, found);
    }
    let mut bad = |why: &str| found.push(Cause::invalid(path, value, &format!("\"{path}\" {why}")));
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(holds)
    {
        bad("must validate at least one schema (anyOf)");
    }
    if let Some(one) = schema["oneOf"].as_array()
        && one.iter().filter(|schema| holds(schema)).count() != 1
    {
        bad("must validate one and only one schema (oneOf)");
    }
    if schema["not"].is_object() && holds(&schema["not"]) {
        bad("must not validate the schema (not)");
    }
}

/// What makes a schema not structural: every property and every item has a type ("Specifying a structural schema").
pub(crate) fn structural(schema: &Value, path: &str, depth: usize, found: &mut Vec<Cause>) {
    if depth > DEPTH {
        found.push(Cause::forbidden(path, "schema is nested too deeply"));
        return;
    }
    let typed = schema["type"].as_str().is_some_and(|name| !name.is_empty());
    let free = schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if !typed && !free {
        found.push(Cause::required(format!("{path}.type"), "must not be empty for specified object fields"));
    }
    if schema["properties"].is_object() && schema["additionalProperties"].is_object() {
        found.push(Cause::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    if schema["uniqueItems"] == true {
        found.push(Cause::forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    if schema["type"] == "array" && !schema["items"].is_object() {
        found.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        structural(below, &format!("{path}.properties[{name}]"), depth + 1, found);
    }
    for name in ["items", "additionalProperties"] {
        if schema[name].is_object() {
            structural(&schema[name], &format!("{path}.{name}"), depth + 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {
            "type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
                "mode": {"type": "string", "enum": ["a", "b"]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "maybe": {"type": "string", "nullable": true}
        }}}})
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut value = json!({"apiVersion": "v1", "metadata": {"x": 1}, "spec": {"name": "a", "no": 1, "count": null,
            "free": {"any": 1}, "map": {"k": "v"}}, "junk": 1});
        let mut gone = Vec::new();
        prune(&mut value, &schema(), "", true, &mut gone);
        fill(&mut value, &schema());
        assert_eq!(gone, ["junk", "spec.no"]);
        let expected = json!({"apiVersion": "v1", "metadata": {"x": 1},
            "spec": {"name": "a", "count": 3, "free": {"any": 1}, "map": {"k": "v"}}});
        assert_eq!(value, expected);
    }

    #[test]
    fn values_are_held_against_the_schema() {
        let check = |spec: Value| {
            let mut found = Vec::new();
            validate(&json!({"spec": spec}), &schema(), "", &mut found);
            found.into_iter().map(|cause| (cause.field, cause.reason)).collect::<Vec<_>>()
        };
        let one = |field: &str, reason: &'static str| vec![(field.to_string(), reason)];
        assert_eq!(check(json!({"name": "abc", "maybe": null})), []);
        assert_eq!(check(json!({})), one("spec.name", "FieldValueRequired"));
        assert_eq!(check(json!({"name": 1})), one("spec.name", "FieldValueTypeInvalid"));
        assert_eq!(check(json!({"name": null})), one("spec.name", "FieldValueTypeInvalid"));
        assert_eq!(check(json!({"name": "ABC"})), one("spec.name", "FieldValueInvalid"));
        assert_eq!(check(json!({"name": "abcdef"})), one("spec.name", "FieldValueInvalid"));
        assert_eq!(check(json!({"name": "a", "count": 10})), one("spec.count", "FieldValueInvalid"));
        assert_eq!(check(json!({"name": "a", "mode": "c"})), one("spec.mode", "FieldValueNotSupported"));
        assert_eq!(check(json!({"name": "a", "map": {"k": 1}})), one("spec.map.k", "FieldValueTypeInvalid"));
    }
}
