//! The three patches that need no managers: JSON merge patch, JSON patch and strategic merge patch.
//!
//! API concepts, "Patches"; RFC 7386; RFC 6902; for the strategic one, the page "Update API Objects in Place Using kubectl
//! patch" and the design document "Strategic Merge Patch" (api-conventions' `patchStrategy` and `patchMergeKey`).

use serde_json::{Map, Value};

use crate::fields::{Listing, Shape};
use crate::status::Failure;

/// How a patch is written, by its media type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Merge,
    Json,
    Strategic,
    Apply,
}

impl Form {
    pub(crate) fn of(content_type: &str) -> Option<Form> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Some(Form::Merge),
            "application/json-patch+json" => Some(Form::Json),
            "application/strategic-merge-patch+json" => Some(Form::Strategic),
            "application/apply-patch+yaml" => Some(Form::Apply),
            _ => None,
        }
    }
}

/// The object with the patch, which is not an apply.
pub(crate) fn patched(form: Form, object: &Value, patch: &[u8], shape: Shape) -> Result<Value, Failure> {
    let malformed = |error: serde_json::Error| Failure::bad_request(format!("error decoding patch: {error}"));
    match form {
        Form::Json => {
            let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(malformed)?;
            let mut new = object.clone();
            for operation in patch.0 {
                if is_test_of_nothing(&new, &operation) {
                    continue;
                }
                // A test that fails, or a path that is not there, is unprocessable.
                json_patch::patch(&mut new, &[operation]).map_err(|error| {
                    let message = format!("the server rejected our request due to an error in our request: {error}");
                    Failure::new(422, "Invalid", message)
                })?;
            }
            Ok(new)
        }
        Form::Strategic => {
            let patch: Value = serde_json::from_slice(patch).map_err(malformed)?;
            if !patch.is_object() {
                return Err(Failure::bad_request("cannot unmarshal the patch into an object"));
            }
            Ok(strategic(object, &patch, shape))
        }
        Form::Merge | Form::Apply => {
            let patch: Value = serde_json::from_slice(patch).map_err(malformed)?;
            if !patch.is_object() {
                return Err(Failure::bad_request("cannot unmarshal the patch into an object"));
            }
            let mut new = object.clone();
            json_patch::merge(&mut new, &patch);
            Ok(new)
        }
    }
}

/// Whether an operation tests that a field is null which is not there. RFC 6902 has that fail; upstream's library takes what is
/// missing for null, and clients rely on it to set a finalizer where there is none.
fn is_test_of_nothing(object: &Value, operation: &json_patch::PatchOperation) -> bool {
    let json_patch::PatchOperation::Test(test) = operation else { return false };
    let path = test.path.as_str();
    let parent = path.rsplit_once('/').and_then(|(parent, _)| object.pointer(parent));
    test.value.is_null() && object.pointer(path).is_none() && parent.is_some_and(Value::is_object)
}

/// Lists merge by their first key or as sets, if upstream marked them so; directives begin with `$`.
fn strategic(object: &Value, patch: &Value, shape: Shape) -> Value {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => merge_objects(object, patch, shape),
        (_, Value::Object(patch)) => merge_objects(&Map::new(), patch, shape),
        (Value::Array(items), Value::Array(patches)) => merge_lists(items, patches, shape),
        (_, Value::Array(patches)) => merge_lists(&[], patches, shape),
        _ => patch.clone(),
    }
}

fn merge_objects(object: &Map<String, Value>, patch: &Map<String, Value>, shape: Shape) -> Value {
    let directive = patch.get("$patch").and_then(Value::as_str);
    let mut merged = if directive == Some("replace") { Map::new() } else { object.clone() };
    if directive == Some("delete") {
        return Value::Object(Map::new());
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(items) = merged.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if name.starts_with('$') {
            // `$setElementOrder` only orders, and `$retainKeys` is looked at below.
        } else if value.is_null() {
            merged.remove(name);
        } else {
            let old = merged.get(name).unwrap_or(&Value::Null);
            let value = strategic(old, value, shape.field(name.as_str()));
            merged.insert(name.clone(), value);
        }
    }
    if let Some(keep) = patch.get("$retainKeys").and_then(Value::as_array) {
        merged.retain(|name, _| keep.iter().any(|keep| keep == name));
    }
    Value::Object(merged)
}

fn merge_lists(items: &[Value], patches: &[Value], shape: Shape) -> Value {
    let replaces = |patch: &Value| patch["$patch"] == "replace";
    if patches.iter().any(replaces) {
        return patches.iter().filter(|patch| !replaces(patch)).cloned().collect();
    }
    match shape.listing() {
        Listing::Atomic => Value::Array(patches.to_vec()),
        Listing::Set => {
            let new = patches.iter().filter(|patch| !items.contains(patch));
            items.iter().chain(new).cloned().collect()
        }
        Listing::Map(keys) => {
            // A strategic merge has one key where apply may have several.
            let Some(key) = keys.first() else { return Value::Array(patches.to_vec()) };
            let mut merged = items.to_vec();
            for patch in patches {
                let place = merged.iter().position(|item| item[*key] == patch[*key]);
                match (place, patch["$patch"] == "delete") {
                    (Some(place), true) => drop(merged.remove(place)),
                    (Some(place), false) => merged[place] = strategic(&merged[place], patch, shape.item()),
                    (None, true) => {}
                    (None, false) => merged.push(strategic(&Value::Null, patch, shape.item())),
                }
            }
            Value::Array(merged)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POD: Shape<'_> = Shape::BuiltIn { kind: "Pod", parent: "", field: "" };

    fn check(object: Value, patch: Value, expected: Value) {
        assert_eq!(strategic(&object, &patch, POD), expected);
    }

    #[test]
    fn lists_merge_as_upstream_marks_them() {
        let pod = json!({"spec": {"containers": [{"name": "a", "args": ["x"]}, {"name": "b"}], "tolerations": [{"key": "k"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "args": ["y"]}], "tolerations": [{"key": "l"}]}});
        let expected = json!({"spec": {"containers": [{"name": "a", "args": ["y"]}, {"name": "b"}], "tolerations": [{"key": "l"}]}});
        check(pod, patch, expected);
    }

    #[test]
    fn directives_delete_and_replace() {
        let pod =
            json!({"metadata": {"finalizers": ["a/b", "c/d"]}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]},
            "spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
        let expected = json!({"metadata": {"finalizers": ["c/d"]}, "spec": {"containers": [{"name": "b"}]}});
        check(pod, patch, expected);
        check(
            json!({"data": {"a": "1"}}),
            json!({"data": {"$patch": "replace", "b": "2"}}),
            json!({"data": {"b": "2"}}),
        );
    }

    #[test]
    fn a_failed_test_of_a_json_patch_is_unprocessable() {
        let patch = json!([{"op": "test", "path": "/a", "value": 2}]).to_string();
        let failure = patched(Form::Json, &json!({"a": 1}), patch.as_bytes(), Shape::Any).unwrap_err();
        assert_eq!((failure.code, failure.reason), (422, "Invalid"));
    }

    #[test]
    fn what_is_missing_is_null_to_a_test() {
        let patch = |path: &str, value: Value| {
            let operations = json!([
                {"op": "test", "path": path, "value": value},
                {"op": "add", "path": "/metadata/finalizers", "value": ["a/b"]},
            ]);
            let object = json!({"metadata": {"name": "x"}});
            patched(Form::Json, &object, operations.to_string().as_bytes(), Shape::Any).map_err(|failure| failure.code)
        };
        let expected = json!({"metadata": {"name": "x", "finalizers": ["a/b"]}});
        assert_eq!(patch("/metadata/finalizers", Value::Null), Ok(expected));
        for (path, value) in [
            ("/metadata/name", Value::Null),
            ("/metadata/finalizers", json!(["c/d"])),
            ("/status/phase", Value::Null),
            ("/metadata/name/first", Value::Null),
        ] {
            assert_eq!(patch(path, value.clone()), Err(422), "{path} {value}");
        }
    }
}
