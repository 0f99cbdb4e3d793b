//! CustomResourceDefinitions: what they serve, and their conditions.

use std::sync::Arc;

use gantry_machinery::resource::Resource;
use serde_json::Value;

use crate::{api::Api, object, registry::Registry, rules};

const BUCKET: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// Rebuilds the registry from the stored definitions. Called after every write to one, so that a
/// resource is served as soon as its definition is acknowledged.
pub fn reload(api: &Arc<Api>) {
    let mut custom: Vec<Resource> = vec![];
    for stored in api.store.snapshot(BUCKET).iter() {
        let Ok(definition) = serde_json::from_slice::<Value>(&stored.value) else {
            tracing::error!(key = %stored.key, "a stored definition is not JSON");
            continue;
        };
        if established(&definition) {
            custom.extend(rules::custom_resources(&definition));
        }
    }
    let mut registry = api.registry.write();
    let generation = registry.generation + 1;
    *registry = Arc::new(Registry::new(custom, generation));
}

fn established(definition: &Value) -> bool {
    definition
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| object::text(c, "/type") == "Established" && object::text(c, "/status") == "True")
}
