//! Sets of fields, as `metadata.managedFields` holds them, and the shapes of objects that say how lists merge.
//!
//! Server-Side Apply, "Field management" and "Merge strategy": a list is atomic, a set, or a map by keys; structs and
//! maps are granular unless marked atomic. For built-in resources the marks are those of upstream's OpenAPI documents,
//! for custom resources those of the CustomResourceDefinition's schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// How a list merges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Listing<'a> {
    Atomic,
    Set,
    Map(Vec<&'a str>),
}

/// What is known of a value's place in an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape<'a> {
    /// In a built-in object: its kind, the names of the field around and of the field itself.
    BuiltIn { kind: &'a str, parent: &'a str, field: &'a str },
    /// In a custom object, below this schema.
    Schema(&'a Value),
    /// Nothing is known: structs are granular, lists atomic.
    Any,
}

/// The marks `x-kubernetes-list-type: map` of built-in types, by field; unlisted lists are atomic.
fn built_in_listing(kind: &str, parent: &str, field: &str) -> Listing<'static> {
    let keys: &[&str] = match (parent, field) {
        ("metadata", "ownerReferences") => &["uid"],
        ("metadata", "finalizers") => return Listing::Set,
        ("spec", "ports") if kind == "Service" => &["port", "protocol"],
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => &["containerPort", "protocol"],
        (_, "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env") => &["name"],
        (_, "imagePullSecrets" | "resourceClaims" | "schedulingGates" | "claims") => &["name"],
        ("", "secrets") if kind == "ServiceAccount" => &["name"],
        (_, "volumeMounts") => &["mountPath"],
        (_, "volumeDevices") => &["devicePath"],
        (_, "topologySpreadConstraints") => &["topologyKey", "whenUnsatisfiable"],
        (_, "hostAliases" | "podIPs" | "hostIPs") => &["ip"],
        ("status", "conditions" | "addresses") => &["type"],
        _ => return Listing::Atomic,
    };
    Listing::Map(keys.to_vec())
}

/// The marks `x-kubernetes-map-type: atomic` of built-in types, by field.
const ATOMIC: [&str; 9] = [
    "selector",
    "labelSelector",
    "podSelector",
    "namespaceSelector",
    "nodeSelector",
    "secretKeyRef",
    "configMapKeyRef",
    "fieldRef",
    "resourceFieldRef",
];

/// Keys that a list's items may leave out, with what is then meant.
const KEY_DEFAULTS: [(&str, &str); 1] = [("protocol", "TCP")];

impl<'a> Shape<'a> {
    pub(crate) fn field(self, name: &'a str) -> Shape<'a> {
        match self {
            // Metadata is upstream's own everywhere.
            Shape::Schema(schema) if name == "metadata" && schema["properties"]["spec"].is_object() => {
                Shape::BuiltIn { kind: "", parent: "", field: "metadata" }
            }
            Shape::Schema(schema) => match schema["properties"].get(name) {
                Some(schema) => Shape::Schema(schema),
                None if schema["additionalProperties"].is_object() => Shape::Schema(&schema["additionalProperties"]),
                None => Shape::Any,
            },
            Shape::BuiltIn { kind, field, .. } => Shape::BuiltIn { kind, parent: field, field: name },
            Shape::Any if name == "metadata" => Shape::BuiltIn { kind: "", parent: "", field: "metadata" },
            Shape::Any => Shape::Any,
        }
    }

    /// The shape of a list's items.
    pub(crate) fn item(self) -> Shape<'a> {
        match self {
            Shape::Schema(schema) => Shape::Schema(&schema["items"]),
            Shape::BuiltIn { .. } | Shape::Any => self,
        }
    }

    pub(crate) fn listing(self) -> Listing<'a> {
        match self {
            Shape::BuiltIn { kind, parent, field } => built_in_listing(kind, parent, field),
            Shape::Any => Listing::Atomic,
            Shape::Schema(schema) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Listing::Set,
                Some("map") => {
                    let keys = schema["x-kubernetes-list-map-keys"].as_array().map(Vec::as_slice).unwrap_or_default();
                    Listing::Map(keys.iter().filter_map(Value::as_str).collect())
                }
                _ => Listing::Atomic,
            },
        }
    }

    /// A struct or map that has one manager as a whole.
    fn is_atomic(self) -> bool {
        match self {
            Shape::BuiltIn { field, .. } => ATOMIC.contains(&field),
            Shape::Schema(schema) => schema["x-kubernetes-map-type"] == "atomic",
            Shape::Any => false,
        }
    }
}

/// One step down into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Field(String),
    /// An item of a list that is a map: its keys, as JSON.
    Item(String),
    /// A member of a set, as JSON.
    Member(String),
}

/// The step to an item of a list.
pub(crate) fn step_to(item: &Value, listing: &Listing) -> Step {
    let Listing::Map(keys) = listing else { return Step::Member(item.to_string()) };
    let key = |name: &&str| {
        let default = KEY_DEFAULTS.iter().find(|(key, _)| key == name).map(|(_, value)| json!(value));
        let value = item.get(*name).cloned().or(default).unwrap_or(Value::Null);
        (name.to_string(), value)
    };
    Step::Item(Value::Object(keys.iter().map(key).collect::<Map<_, _>>()).to_string())
}

/// A set of fields of an object: a tree of steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields {
    /// The value at this place itself is in the set.
    pub(crate) here: bool,
    pub(crate) below: BTreeMap<Step, Fields>,
}

impl Fields {
    pub(crate) fn leaf() -> Fields {
        Fields { here: true, below: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// All fields that a value sets.
    pub(crate) fn of(value: &Value, shape: Shape) -> Fields {
        match value {
            Value::Object(object) if !shape.is_atomic() && !object.is_empty() => {
                let one = |(name, value): (&String, &Value)| {
                    (Step::Field(name.clone()), Fields::of(value, shape.field(name.as_str())))
                };
                Fields { here: false, below: object.iter().map(one).collect() }
            }
            Value::Array(items) if shape.listing() != Listing::Atomic && !items.is_empty() => {
                let listing = shape.listing();
                let one = |item: &Value| {
                    let mut fields = Fields::leaf();
                    if let Listing::Map(_) = listing {
                        fields.below = Fields::of(item, shape.item()).below;
                    }
                    (step_to(item, &listing), fields)
                };
                Fields { here: false, below: items.iter().map(one).collect() }
            }
            _ => Fields::leaf(),
        }
    }

    pub(crate) fn union(mut self, other: Fields) -> Fields {
        self.here |= other.here;
        for (step, fields) in other.below {
            let mine = self.below.remove(&step).unwrap_or_default();
            self.below.insert(step, mine.union(fields));
        }
        self
    }

    /// What is in this set and not in the other.
    pub(crate) fn without(&self, other: &Fields) -> Fields {
        let mut left = Fields { here: self.here && !other.here, below: BTreeMap::new() };
        for (step, fields) in &self.below {
            let fields = other.below.get(step).map_or_else(|| fields.clone(), |other| fields.without(other));
            if !fields.is_empty() {
                left.below.insert(step.clone(), fields);
            }
        }
        left
    }

    /// What is in both sets.
    pub(crate) fn both(&self, other: &Fields) -> Fields {
        let mut both = Fields { here: self.here && other.here, below: BTreeMap::new() };
        for (step, fields) in &self.below {
            let fields = other.below.get(step).map(|other| fields.both(other)).unwrap_or_default();
            if !fields.is_empty() {
                both.below.insert(step.clone(), fields);
            }
        }
        both
    }

    /// Drops this place from the set, with all that is below it.
    pub(crate) fn drop_path(&mut self, path: &[&str]) {
        let Some((name, rest)) = path.split_first() else { return };
        let step = Step::Field((*name).into());
        if rest.is_empty() {
            self.below.remove(&step);
        } else if let Some(below) = self.below.get_mut(&step) {
            below.drop_path(rest);
            if below.is_empty() {
                self.below.remove(&step);
            }
        }
    }

    /// Paths of all fields of the set, written as conflicts write them: `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(String::new(), &mut found);
        found
    }

    fn collect(&self, path: String, found: &mut Vec<String>) {
        if self.here && self.below.is_empty() {
            found.push(path.clone());
        }
        for (step, fields) in &self.below {
            let path = match step {
                Step::Field(name) => format!("{path}.{name}"),
                Step::Member(value) => format!("{path}[={value}]"),
                Step::Item(keys) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    format!("{path}[{}]", keys.join(","))
                }
            };
            fields.collect(path, found);
        }
    }

    /// As `fieldsV1` writes it: `f:` fields, `k:` items by keys, `v:` members of sets, `.` the place itself.
    pub(crate) fn to_v1(&self) -> Value {
        let mut written = Map::new();
        if self.here && !self.below.is_empty() {
            written.insert(".".into(), json!({}));
        }
        for (step, fields) in &self.below {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Item(keys) => format!("k:{keys}"),
                Step::Member(value) => format!("v:{value}"),
            };
            written.insert(name, fields.to_v1());
        }
        Value::Object(written)
    }

    pub(crate) fn from_v1(written: &Value) -> Fields {
        let Some(written) = written.as_object() else { return Fields::default() };
        let mut fields = Fields { here: written.is_empty() || written.contains_key("."), below: BTreeMap::new() };
        for (name, below) in written {
            let step = match name.split_once(':') {
                Some(("f", name)) => Step::Field(name.into()),
                Some(("k", keys)) => Step::Item(keys.into()),
                Some(("v", value)) => Step::Member(value.into()),
                _ => continue,
            };
            fields.below.insert(step, Fields::from_v1(below));
        }
        fields
    }
}

/// What differs between two values: fields that are new or other in `new`, and fields that `new` lacks.
pub(crate) fn compare(old: &Value, new: &Value, shape: Shape) -> (Fields, Fields) {
    let (mut changed, mut removed) = (Fields::default(), Fields::default());
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if !shape.is_atomic() => {
            for (name, value) in new {
                let shape = shape.field(name.as_str());
                let step = Step::Field(name.clone());
                match old.get(name) {
                    Some(old) => put(&mut changed, &mut removed, step, compare(old, value, shape)),
                    None => put(&mut changed, &mut removed, step, (Fields::of(value, shape), Fields::default())),
                }
            }
            for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                let gone = Fields::of(value, shape.field(name.as_str())).union(Fields::leaf());
                put(&mut changed, &mut removed, Step::Field(name.clone()), (Fields::default(), gone));
            }
        }
        (Value::Array(old), Value::Array(new)) if shape.listing() != Listing::Atomic => {
            let listing = shape.listing();
            for item in new {
                let step = step_to(item, &listing);
                match old.iter().find(|old| step_to(old, &listing) == step) {
                    Some(old) => put(&mut changed, &mut removed, step, compare(old, item, shape.item())),
                    None => {
                        let added = Fields::of(&json!([item]), shape).below.remove(&step).unwrap_or_default();
                        put(&mut changed, &mut removed, step, (added, Fields::default()));
                    }
                }
            }
            for item in old {
                let step = step_to(item, &listing);
                if !new.iter().any(|new| step_to(new, &listing) == step) {
                    let gone = Fields::of(&json!([item]), shape).below.remove(&step).unwrap_or_default();
                    put(&mut changed, &mut removed, step, (Fields::default(), gone));
                }
            }
        }
        _ if old != new => changed = Fields::of(new, shape),
        _ => {}
    }
    (changed, removed)
}

fn put(changed: &mut Fields, removed: &mut Fields, step: Step, found: (Fields, Fields)) {
    if !found.0.is_empty() {
        changed.below.insert(step.clone(), found.0);
    }
    if !found.1.is_empty() {
        removed.below.insert(step, found.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Shape<'_> = Shape::BuiltIn { kind: "Pod", parent: "", field: "" };

    #[test]
    fn a_set_survives_being_written() {
        let pod = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x/y"]},
            "spec": {"containers": [{"name": "c", "image": "i", "args": ["1", "2"]}], "nodeSelector": {"a": "b"}}});
        let fields = Fields::of(&pod, POD);
        let written = fields.to_v1();
        let expected = json!({
            "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {"f:nodeSelector": {}, "f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:args": {}}}},
        });
        assert_eq!(written, expected);
        assert_eq!(Fields::from_v1(&written), fields);
    }

    #[test]
    fn differences_are_found_by_key() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let new = json!({"spec": {"containers": [{"name": "b", "image": "2"}]}});
        let (changed, removed) = compare(&old, &new, POD);
        assert_eq!(changed.paths(), [".spec.containers[name=\"b\"].image"]);
        assert!(removed.paths().iter().all(|path| path.starts_with(".spec.containers[name=\"a\"]")));
        assert!(!removed.is_empty());
    }
}
