//! Server-side apply, and who manages which fields after every other write.
//!
//! Server-Side Apply, "Conflicts", "Apply and Update" and "Merge strategy": an applier's configuration is merged into the
//! object; what it applied before and leaves out now goes away unless others manage it; what others manage with another
//! value is a conflict unless forced. Other writes take the fields that they change.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::fields::{Fields, Listing, Shape, Step, compare, step_to};
use crate::status::Failure;

/// Who writes, how it is told in `managedFields`.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) manager: String,
    pub(crate) api_version: String,
    /// Empty: the object itself.
    pub(crate) subresource: String,
}

/// Paths that belong to no manager (Server-Side Apply, "Field management": identity and what the server sets).
const UNMANAGED: [&[&str]; 13] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
];

fn managed(mut fields: Fields) -> Fields {
    for path in UNMANAGED {
        fields.drop_path(path);
    }
    // An empty metadata is no opinion.
    let metadata = Step::Field("metadata".into());
    if fields.below.get(&metadata).is_some_and(|fields| fields.below.is_empty()) {
        fields.below.remove(&metadata);
    }
    fields
}

/// Identity of an entry: manager, operation, version, subresource.
type Entry = (String, String, String, String);

fn entries(object: &Value) -> BTreeMap<Entry, (Fields, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_string();
    let one = |entry: Value| {
        let id = (
            text(&entry, "manager"),
            text(&entry, "operation"),
            text(&entry, "apiVersion"),
            text(&entry, "subresource"),
        );
        (id, (Fields::from_v1(&entry["fieldsV1"]), entry["time"].clone()))
    };
    // One empty entry means: forget all managers (Server-Side Apply, "Clearing managedFields").
    list.into_iter().filter(|entry| entry["manager"].is_string()).map(one).collect()
}

fn write_entries(object: &mut Value, entries: BTreeMap<Entry, (Fields, Value)>) {
    let kept = entries.into_iter().filter(|(_, (fields, _))| !fields.is_empty());
    let list: Vec<Value> = kept
        .map(|((manager, operation, api_version, subresource), (fields, time))| {
            let mut entry = json!({
                "manager": manager, "operation": operation, "apiVersion": api_version, "time": time,
                "fieldsType": "FieldsV1", "fieldsV1": fields.to_v1(),
            });
            if !subresource.is_empty() {
                entry["subresource"] = json!(subresource);
            }
            entry
        })
        .collect();
    let metadata = object["metadata"].as_object_mut();
    if let Some(metadata) = metadata {
        if list.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), Value::Array(list));
        }
    }
}

/// Notes in `new` that this writer changed what differs from `old`. `new` has the managers that the request left.
pub(crate) fn track_update(old: &Value, new: &mut Value, shape: Shape, writer: &Writer, now: &str) {
    let (changed, removed) = compare(old, new, shape);
    let (changed, removed) = (managed(changed), managed(removed));
    let cleared = new["metadata"]["managedFields"].as_array().is_some_and(|list| list == &[json!({})]);
    // Clients that know nothing of managers leave them out or send what they read: neither changes them.
    let mut all = if cleared { BTreeMap::new() } else { entries(old) };
    let mine = (writer.manager.clone(), "Update".into(), writer.api_version.clone(), writer.subresource.clone());
    for (id, (fields, _)) in &mut all {
        *fields = fields.without(&removed);
        if *id != mine {
            *fields = fields.without(&changed);
        }
    }
    if !changed.is_empty() {
        let entry = all.entry(mine).or_insert((Fields::default(), json!(now)));
        entry.0 = std::mem::take(&mut entry.0).union(changed);
        entry.1 = json!(now);
    }
    write_entries(new, all);
}

/// The object after an apply, with its managers. `live` is `{}` if there is none.
pub(crate) fn apply(
    live: &Value,
    applied: &Value,
    shape: Shape,
    writer: &Writer,
    force: bool,
    now: &str,
) -> Result<Value, Failure> {
    if applied["metadata"].get("managedFields").is_some_and(|list| !list.is_null()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let set = managed(Fields::of(applied, shape));
    let mut merged = merge(live, applied, shape);
    let mut all = entries(live);
    let mine = (writer.manager.clone(), "Apply".to_string(), writer.api_version.clone(), writer.subresource.clone());

    let (changed, _) = compare(live, &merged, shape);
    let mut conflicts = Vec::new();
    for (id, (fields, _)) in all.iter_mut().filter(|(id, _)| **id != mine) {
        let disputed = fields.both(&changed).both(&set);
        if !disputed.is_empty() {
            conflicts.extend(disputed.paths().into_iter().map(|path| (id.clone(), path)));
            *fields = fields.without(&disputed);
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(told(&conflicts));
    }

    let before = all.get(&mine).map(|(fields, _)| fields.clone()).unwrap_or_default();
    let others = all.iter().filter(|(id, _)| **id != mine);
    let theirs = others.fold(Fields::default(), |sum, (_, (fields, _))| sum.union(fields.clone()));
    remove(&mut merged, &before.without(&set).without(&theirs), shape);
    let time = match all.get(&mine) {
        Some((fields, time)) if *fields == set => time.clone(),
        _ => json!(now),
    };
    all.insert(mine, (set, time));
    write_entries(&mut merged, all);
    Ok(merged)
}

/// The failure that lists who manages what: reason Conflict, one cause `FieldManagerConflict` each.
fn told(conflicts: &[(Entry, String)]) -> Failure {
    let who = |(manager, operation, version, subresource): &Entry| {
        let place = if subresource.is_empty() { String::new() } else { format!(" with subresource \"{subresource}\"") };
        let using =
            if operation == "Update" || !version.is_empty() { format!(" using {version}") } else { String::new() };
        format!("conflict with \"{manager}\"{place}{using}")
    };
    let s = if conflicts.len() == 1 { "" } else { "s" };
    let lines = match conflicts {
        [(id, path)] => format!("{}: {path}", who(id)),
        many => {
            let line = |(id, path): &(Entry, String)| format!("\n{}:\n- {path}", who(id));
            many.iter().map(line).collect()
        }
    };
    let count = conflicts.len();
    let mut failure = Failure::new(409, "Conflict", format!("Apply failed with {count} conflict{s}: {lines}"));
    let cause =
        |(id, path): &(Entry, String)| json!({"reason": "FieldManagerConflict", "message": who(id), "field": path});
    failure.details = json!({"causes": conflicts.iter().map(cause).collect::<Vec<_>>()});
    failure
}

/// `live` with what `applied` says, list items matched by their keys.
pub(crate) fn merge(live: &Value, applied: &Value, shape: Shape) -> Value {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            let granular = Fields::of(&Value::Object(applied.clone()), shape) != Fields::leaf() || applied.is_empty();
            if !granular {
                return Value::Object(applied.clone());
            }
            let mut merged = live.clone();
            for (name, value) in applied.iter().filter(|(name, value)| !value.is_null() || live.contains_key(*name)) {
                let old = merged.get(name).unwrap_or(&Value::Null);
                let value = merge(old, value, shape.field(name.as_str()));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(applied)) if shape.listing() != Listing::Atomic => {
            let listing = shape.listing();
            let mut merged = live.clone();
            for item in applied {
                let step = step_to(item, &listing);
                match merged.iter_mut().find(|old| step_to(old, &listing) == step) {
                    Some(old) => *old = merge(old, item, shape.item()),
                    None => merged.push(item.clone()),
                }
            }
            Value::Array(merged)
        }
        // A null says nothing about what is there, and sets nothing where nothing is.
        (live, Value::Null) => live.clone(),
        _ => strip_nulls(applied),
    }
}

fn strip_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), strip_nulls(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(strip_nulls).collect()),
        _ => value.clone(),
    }
}

/// Takes fields out of a value; structs and lists that become empty go too.
fn remove(value: &mut Value, fields: &Fields, shape: Shape) {
    for (step, below) in &fields.below {
        match (step, &mut *value) {
            (Step::Field(name), Value::Object(object)) => {
                let gone = match object.get_mut(name) {
                    Some(_) if below.below.is_empty() => true,
                    Some(inner) => {
                        remove(inner, below, shape.field(name.as_str()));
                        inner.as_object().is_some_and(Map::is_empty) || inner.as_array().is_some_and(Vec::is_empty)
                    }
                    None => false,
                };
                if gone {
                    object.remove(name);
                }
            }
            (Step::Item(_) | Step::Member(_), Value::Array(items)) => {
                let listing = shape.listing();
                if below.here {
                    items.retain(|item| step_to(item, &listing) != *step);
                } else if let Some(item) = items.iter_mut().find(|item| step_to(item, &listing) == *step) {
                    remove(item, below, shape.item());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape<'_> = Shape::BuiltIn { kind: "ConfigMap", parent: "", field: "" };

    fn writer(manager: &str) -> Writer {
        Writer { manager: manager.into(), api_version: "v1".into(), subresource: String::new() }
    }

    fn applied(live: &Value, data: Value, manager: &str, force: bool) -> Result<Value, Failure> {
        apply(live, &json!({"data": data, "metadata": {"name": "c"}}), SHAPE, &writer(manager), force, "t")
    }

    #[test]
    fn what_is_left_out_goes_unless_another_manages_it() {
        let one = applied(&json!({}), json!({"a": "1", "b": "1"}), "one", false).unwrap();
        let two = applied(&one, json!({"b": "1"}), "two", false).unwrap();
        let after = applied(&two, json!({}), "one", false).unwrap();
        assert_eq!(after["data"], json!({"b": "1"}));
    }

    #[test]
    fn another_value_is_a_conflict_and_force_takes_the_field() {
        let one = applied(&json!({}), json!({"a": "1"}), "one", false).unwrap();
        let failure = applied(&one, json!({"a": "2"}), "two", false).unwrap_err();
        assert_eq!(failure.code, 409);
        assert_eq!(failure.message, "Apply failed with 1 conflict: conflict with \"one\" using v1: .data.a");
        let two = applied(&one, json!({"a": "2"}), "two", true).unwrap();
        let managers: Vec<&Value> =
            two["metadata"]["managedFields"].as_array().unwrap().iter().map(|entry| &entry["manager"]).collect();
        assert_eq!(managers, ["two"]);
    }

    #[test]
    fn an_update_takes_the_fields_it_changes() {
        let one = applied(&json!({}), json!({"a": "1", "b": "1"}), "one", false).unwrap();
        let mut new = one.clone();
        new["data"]["a"] = json!("2");
        track_update(&one, &mut new, SHAPE, &writer("two"), "t");
        let failure = applied(&new, json!({"a": "3", "b": "2"}), "one", false).unwrap_err();
        assert!(failure.message.contains("\"two\"") && failure.message.ends_with(".data.a"), "{}", failure.message);
    }
}
