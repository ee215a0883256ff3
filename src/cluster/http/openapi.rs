//! The OpenAPI document (version 3.1) of the routes, made from the same .proto files: their comments are its descriptions.

use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::routes::{Answer, ROUTES, Route};
use super::{POOL, input, method};

/// The comment before something of a file.
fn about(file: &FileDescriptorProto, path: &[i32]) -> String {
    let places = file.source_code_info.iter().flat_map(|info| &info.location);
    let comment = places.filter(|place| place.path == path).find_map(|place| place.leading_comments.as_deref());
    comment.unwrap_or_default().lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_string()
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let Some(call) = method(route) else { continue };
        let of_path = paths.entry(route.told_path()).or_insert_with(|| json!({}));
        of_path[route.verb().as_str().to_lowercase()] = operation(route, &call);
    }
    let mut schemas = Map::new();
    for message in POOL.iter().flat_map(|pool| pool.all_messages()).filter(|message| !message.is_map_entry()) {
        schemas.insert(short(message.full_name()), of_message(&message));
    }
    for names in POOL.iter().flat_map(|pool| pool.all_enums()) {
        schemas.insert(short(names.full_name()), of_enum(&names));
    }
    let text = |about: &str| json!({"type": "string", "description": about});
    schemas.insert(
        "Error".into(),
        json!({"type": "object", "properties": {"error": {"type": "object", "properties": {
            "code": text("The code of the gRPC call, as NotFound."),
            "reason": text("Why, for programs."),
            "message": text("What is wrong and where, for people."),
            "next_step": text("What to do. May be empty."),
        }}}}),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gristmill", "version": "v1", "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "MapReduce jobs and the cluster that runs them: the calls of gristmill.v1 as JSON over HTTP. Any \
                            master answers. Fields are named as in the .proto files, and may be left out for their zero value.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// "JobError.Reason" of "gristmill.v1.JobError.Reason".
fn short(name: &str) -> String {
    name.trim_start_matches("gristmill.v1.").to_string()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", short(name))})
}

fn operation(route: &Route, call: &MethodDescriptor) -> Value {
    let input = input(route, call);
    let in_path = |field: &FieldDescriptor| route.told_path().contains(&format!("{{{}}}", field.name()));
    let parameter = |field: FieldDescriptor| {
        let place = if in_path(&field) { "path" } else { "query" };
        json!({"name": field.name(), "in": place, "required": place == "path", "schema": of_field(&field)})
    };
    let parameters: Vec<Value> =
        input.fields().filter(|field| !route.posts() || in_path(field)).map(parameter).collect();
    let content = match route.answer {
        Answer::Once | Answer::Upload => json!({"application/json": {"schema": reference(call.output().full_name())}}),
        Answer::Many => json!({
            "application/x-ndjson": {"schema": reference(call.output().full_name())},
            "text/event-stream": {"schema": reference(call.output().full_name())},
        }),
        Answer::Bytes => json!({"application/octet-stream": {}}),
    };
    let file = call.parent_file();
    let mut operation = json!({
        "operationId": call.full_name().trim_start_matches("gristmill.v1."),
        "tags": [call.parent_service().name()],
        "description": about(file.file_descriptor_proto(), call.path()),
        "parameters": parameters,
        "responses": {
            "200": {"description": "The answer.", "content": content},
            "default": {"description": "Why not.", "content": {"application/json": {"schema": reference("Error")}}},
        },
    });
    if route.answer == Answer::Upload {
        operation["requestBody"] = json!({"content": {"application/octet-stream": {}}});
    }
    if route.posts() {
        operation["requestBody"] = json!({"content": {"application/json": {"schema": reference(input.full_name())}}});
    }
    operation
}

fn of_message(message: &MessageDescriptor) -> Value {
    let fields: Map<String, Value> =
        message.fields().map(|field| (field.name().to_string(), of_field(&field))).collect();
    let about = about(message.parent_file_descriptor_proto(), message.path());
    json!({"type": "object", "description": about, "properties": fields})
}

fn of_enum(names: &EnumDescriptor) -> Value {
    let file = names.parent_file_descriptor_proto();
    let each = names.values().map(|value| (value.name().to_string(), about(file, value.path())));
    let told: Vec<String> =
        each.filter(|(_, about)| !about.is_empty()).map(|(name, about)| format!("{name}: {about}")).collect();
    let values: Vec<String> = names.values().map(|value| value.name().to_string()).collect();
    let about = [vec![about(file, names.path())], told].concat().join(" ");
    json!({"type": "string", "enum": values, "description": about.trim()})
}

fn of_field(field: &FieldDescriptor) -> Value {
    let mut schema = if field.is_map() {
        let value = match field.kind() {
            Kind::Message(entry) => of_kind(&entry.map_entry_value_field().kind()),
            other => of_kind(&other),
        };
        json!({"type": "object", "additionalProperties": value})
    } else if field.is_list() {
        json!({"type": "array", "items": of_kind(&field.kind())})
    } else {
        of_kind(&field.kind())
    };
    let file = field.parent_message().parent_file_descriptor_proto().clone();
    schema["description"] = about(&file, field.path()).into();
    schema
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Double => json!({"type": "number", "format": "double"}),
        Kind::Float => json!({"type": "number", "format": "float"}),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "integer", "format": "int64"}),
        Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "format": "int64", "minimum": 0}),
        Kind::Uint64 | Kind::Fixed64 => json!({"type": "integer", "format": "int64", "minimum": 0}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Kind::Message(message) => reference(message.full_name()),
        Kind::Enum(names) => reference(names.full_name()),
    }
}
