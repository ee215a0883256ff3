//! CustomResourceDefinitions: what they add to what is served, and how their objects are held against them.
//!
//! Extend the Kubernetes API with CustomResourceDefinitions: "Create a CustomResourceDefinition", "Subresources",
//! "Validation rules" and "Field selectors". Versions convert by strategy None alone: only `apiVersion` changes.

use kube_cel::{CompiledSchema, compile_schema, validate_compiled};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::schema;
use crate::status::Cause;

/// What a version of a CustomResourceDefinition says of its objects.
#[derive(Debug)]
pub(crate) struct Custom {
    pub(crate) schema: Value,
    rules: CompiledSchema,
    /// Paths by which field selectors may select, without the first dot.
    pub(crate) selectable: Vec<String>,
    /// Paths of replicas in the spec and in the status, and of the label selector, without the first dot.
    pub(crate) scale: Option<[String; 3]>,
}

impl Custom {
    /// What rules in CEL find wrong; rules with `oldSelf` compare with `old` and do not run without it.
    pub(crate) fn broken_rules(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Err(errors) = validate_compiled(&self.rules, object, old) else { return Vec::new() };
        let one = |error: kube_cel::ValidationError| {
            let at = error.field_path.split('.').filter(|name| !name.is_empty());
            let value = at.fold(object, |value, name| value.get(name).unwrap_or(&Value::Null));
            let told = match value {
                Value::Object(_) => json!("object"),
                Value::Array(_) => json!("array"),
                value => value.clone(),
            };
            let mut cause = Cause::invalid(error.field_path.clone(), &told, &error.message);
            if error.reason.as_deref() == Some("FieldValueForbidden") {
                cause = Cause::forbidden(error.field_path, &error.message);
            }
            cause
        };
        errors.into_vec().into_iter().map(one).collect()
    }
}

fn without_dot(path: &Value) -> String {
    path.as_str().unwrap_or_default().trim_start_matches('.').to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// The resources that a CustomResourceDefinition serves, one a served version.
pub(crate) fn served(definition: &Value) -> Vec<Kind> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let versions = spec["versions"].as_array().into_iter().flatten();
    let one = |version: &Value| {
        let schema = version["schema"]["openAPIV3Schema"].clone();
        let sub = &version["subresources"];
        let scale = sub["scale"].is_object().then(|| {
            ["specReplicasPath", "statusReplicasPath", "labelSelectorPath"].map(|path| without_dot(&sub["scale"][path]))
        });
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let custom = Custom {
            rules: compile_schema(&schema),
            schema,
            selectable: selectable.map(|field| without_dot(&field["jsonPath"])).collect(),
            scale,
        };
        let (group, plural) = (text(&spec["group"]), text(&names["plural"]));
        let short = names["shortNames"].as_array().into_iter().flatten().map(text).collect();
        Kind {
            version: text(&version["name"]),
            kind: text(&names["kind"]),
            singular: names["singular"].as_str().map_or_else(|| text(&names["kind"]).to_lowercase(), String::from),
            short,
            namespaced: spec["scope"] == "Namespaced",
            status: sub["status"].is_object(),
            scale: custom.scale.is_some(),
            generation: true,
            unconditional: false,
            returns_deleted: false,
            storage: format!("{plural}.{group}"),
            check: None,
            custom: Some(std::sync::Arc::new(custom)),
            group,
            plural,
        }
    };
    versions.filter(|version| version["served"] == true).map(one).collect()
}

/// What is wrong with a CustomResourceDefinition.
pub(crate) fn check(definition: &Value) -> Vec<Cause> {
    let mut found = Vec::new();
    let spec = &definition["spec"];
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let name = &definition["metadata"]["name"];
    if *name != format!("{plural}.{group}") {
        found.push(Cause::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if !group.contains('.') {
        found.push(Cause::invalid("spec.group", &spec["group"], "should be a domain with at least one dot"));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        found.push(Cause::invalid(
            "spec.versions",
            &json!([]),
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            found.push(Cause::required(path, "schemas are required"));
            continue;
        }
        schema::structural(schema, &path, 0, &mut found);
        uncompiled(&compile_schema(schema), &path, &mut found);
    }
    found
}

/// Rules that are no CEL.
fn uncompiled(schema: &CompiledSchema, path: &str, found: &mut Vec<Cause>) {
    for error in schema.compilation_errors() {
        let why = format!("compilation failed: {error}");
        found.push(Cause::invalid(format!("{path}.x-kubernetes-validations"), &json!("rule"), &why));
    }
    for (name, below) in &schema.properties {
        uncompiled(below, &format!("{path}.properties[{name}]"), found);
    }
    if let Some(below) = &schema.items {
        uncompiled(below, &format!("{path}.items"), found);
    }
    if let Some(below) = &schema.additional_properties {
        uncompiled(below, &format!("{path}.additionalProperties"), found);
    }
}

/// What the server writes into the status of a definition that it serves.
///
/// Upstream does so a moment after the creation, so clients wait for the condition Established.
pub(crate) fn established(definition: &mut Value, now: &str) {
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
    let stored = definition["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<Value> =
        stored.filter(|version| version["storage"] == true).map(|version| version["name"].clone()).collect();
    definition["status"] = json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
    });
}
