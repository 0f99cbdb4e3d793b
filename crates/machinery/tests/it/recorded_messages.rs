//! Every object that Kubernetes answered in the recorded conversations, there and back: JSON to
//! protobuf and to JSON again.
//!
//! The recordings are found beside the project (`../shared/golden`) or under `GANTRY_SHARED`; where
//! they are absent the test says so and passes.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_machinery::{
    decode::{self, FieldValidation, Format},
    protobuf::Encoder,
    resource::{Resource, builtin_resources},
};
use serde_json::{Value, json};

fn golden() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places: Vec<PathBuf> = std::env::var_os("GANTRY_SHARED")
        .into_iter()
        .map(PathBuf::from)
        .collect();
    places.extend(["../../../shared", "../../../../shared"].map(|p| root.join(p)));
    places
        .into_iter()
        .map(|p| p.join("golden/cases"))
        .find(|p| p.is_dir())
}

/// All objects of built-in kinds within a value.
fn objects<'a>(value: &'a Value, found: &mut Vec<(Arc<Resource>, &'a Value)>) {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if let (Some(version), Some(kind), Some(_)) =
        (text("apiVersion"), text("kind"), value.get("metadata"))
        && let Some(resource) = builtin_resources()
            .iter()
            .find(|r| r.kind == kind && r.api_version() == version)
    {
        found.push((resource.clone(), value));
        return;
    }
    match value {
        Value::Object(map) => map.values().for_each(|v| objects(v, found)),
        Value::Array(list) => list.iter().for_each(|v| objects(v, found)),
        _ => {}
    }
}

/// What is left out, Go writes as zero, and what is zero may be left out: both sides lose it.
fn without_zeros(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(k, v)| (k, without_zeros(v)))
                .filter(|(_, v)| {
                    !(v.is_null()
                        || *v == json!({})
                        || *v == json!([])
                        || *v == json!("")
                        || *v == json!(0)
                        || *v == json!(false))
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_zeros).collect()),
        other => other,
    }
}

/// Placeholders of the recordings, by name, where a type wants something else than text. The kind
/// of a claim within a StatefulSet has no place in its message.
fn filled(value: &Value) -> Value {
    match value {
        Value::Object(map)
            if map
                .get("kind")
                .is_some_and(|k| k == "PersistentVolumeClaim") =>
        {
            map.iter()
                .filter(|(k, _)| !matches!(k.as_str(), "kind" | "apiVersion"))
                .map(|(k, v)| (k.clone(), filled(v)))
                .collect()
        }
        Value::String(text) if text.contains("<time>") => "2025-01-02T03:04:05Z".into(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), filled(v))).collect(),
        Value::Array(list) => list.iter().map(filled).collect(),
        other => other.clone(),
    }
}

#[test]
fn recorded_objects_survive_the_way_there_and_back() {
    let Some(dir) = golden() else {
        eprintln!("no recordings: nothing checked");
        return;
    };
    let mut encoder = Encoder::new();
    let (mut checked, mut exact, mut kinds) = (0, 0, BTreeSet::new());
    for area in fs::read_dir(dir).expect("areas") {
        for file in fs::read_dir(area.expect("an area").path()).expect("cases") {
            let path = file.expect("a case").path();
            let case: Value =
                serde_json::from_str(&fs::read_to_string(&path).expect("readable")).expect("JSON");
            let mut found = vec![];
            for step in case["steps"].as_array().into_iter().flatten() {
                objects(&step["expect"], &mut found);
            }
            for (resource, object) in found {
                let json = filled(object).to_string();
                let as_json = decode::decode(
                    &resource,
                    json.as_bytes(),
                    Format::Json,
                    FieldValidation::Ignore,
                );
                // Some recordings hold placeholders where numbers are.
                let Ok(as_json) = as_json else { continue };
                let json = as_json.object.to_string();
                let message = encoder
                    .body(&resource.api_version(), &resource.kind, json.as_bytes())
                    .unwrap_or_else(|e| panic!("{}: {e}: {json}", path.display()));
                let back = decode::decode(
                    &resource,
                    &message,
                    Format::Protobuf,
                    FieldValidation::Strict,
                )
                .unwrap_or_else(|e| panic!("{}: {e}: {json}", path.display()));
                exact += usize::from(back.object == as_json.object);
                assert_eq!(
                    without_zeros(back.object.clone()),
                    without_zeros(as_json.object),
                    "{}",
                    path.display()
                );
                // What was read is written as the same bytes again.
                let again = encoder
                    .body(
                        &resource.api_version(),
                        &resource.kind,
                        back.object.to_string().as_bytes(),
                    )
                    .expect("written");
                assert!(again == message, "{}: {json}", path.display());
                checked += 1;
                kinds.insert(format!("{}/{}", resource.api_version(), resource.kind));
            }
        }
    }
    eprintln!(
        "{checked} objects of {} kinds, {exact} exactly the same",
        kinds.len()
    );
    assert!(checked > 400 && kinds.len() > 40, "{checked}: {kinds:?}");
}
