//! In what look a client wants objects: whole, or their metadata alone.
//!
//! API concepts, "Alternate representations of resources" and "Metadata-only requests" (`PartialObjectMetadata`). Tables,
//! which kubectl asks for first, are left out: it takes plain objects as well.

use serde_json::{Value, json};

/// A representation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Look {
    Whole,
    Metadata,
}

impl Look {
    pub(crate) fn wanted(accept: &str) -> Look {
        if accept.contains("as=PartialObjectMetadata") { Look::Metadata } else { Look::Whole }
    }

    pub(crate) fn of(self, object: Value) -> Value {
        if self == Look::Whole || object["kind"] == "Status" {
            return object;
        }
        let bare = |object: &Value| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
        match object["items"].as_array() {
            Some(items) => {
                let items: Vec<Value> = items.iter().map(bare).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": object["metadata"], "items": items})
            }
            None => bare(&object),
        }
    }
}
