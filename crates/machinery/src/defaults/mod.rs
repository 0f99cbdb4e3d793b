//! Kubernetes' defaulting: what a field nobody gave holds.
//!
//! Defaults belong to types, wherever these appear (a probe's period is 10 s in a pod and in every
//! template of one). Constants stand in the table `data/defaults.json`; what depends on other
//! fields is computed by the functions of the submodules. The walk visits only types that have a
//! default somewhere below.

mod batch;
mod core;
mod devices;
mod workloads;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use crate::{
    crd,
    resource::Resource,
    shape::{self, Shape, Struct, Wire},
};

/// Fills in fields of one type from others. Runs before the type's constants, since it may have
/// to tell what was given from what was not.
pub type Compute = fn(&mut Map<String, Value>);

/// Applies all defaults of the object's type. `old` is the stored object under an update: what the
/// server once chose for a Service (addresses, node ports) is carried over from it, as the API
/// server does when the client leaves it out.
pub fn apply(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    if resource.custom.is_some() {
        crd::default(resource.schema(), object);
        return;
    }
    if resource.kind == "CustomResourceDefinition" {
        crd::set_defaults(object);
    }
    let Value::Object(map) = object else { return };
    let Some(id) = shape::of(&resource.schema) else {
        return;
    };
    if resource.group.is_empty() && resource.kind == "Service" {
        core::carry_service(map, old);
    }
    walk(id.get(), map);
}

fn walk(shape: &Struct, map: &mut Map<String, Value>) {
    if let Some(compute) = shape.compute {
        compute(map);
    }
    for (name, value) in &shape.defaults {
        // A mandatory text or number is written even when nobody gave it: empty, or zero.
        let zero = |v: &Value| v.as_i64() == Some(0);
        let lacks = |given: &Value| given == "" && value != "" || zero(given) && !zero(value);
        if map.get(name).is_none_or(lacks) {
            let pointer = given_empty(shape, map, name);
            if !pointer {
                map.insert(name.clone(), value.clone());
            }
        }
    }
    for (name, value) in map.iter_mut() {
        if let Some(field) = shape.field(name) {
            below(&field.shape, value);
        }
    }
}

/// Whether a field is a pointer to an empty text: that was given, and stands.
fn given_empty(shape: &Struct, map: &Map<String, Value>, name: &str) -> bool {
    map.contains_key(name) && shape.field(name).is_some_and(|f| f.wire == Wire::Pointer)
}

fn below(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(map)) => {
            let shape = id.get();
            if shape.defaulted {
                walk(shape, map);
            }
        }
        (Shape::List(inner), Value::Array(items)) if !matches!(**inner, Shape::Scalar(_)) => {
            items.iter_mut().for_each(|item| below(inner, item));
        }
        (Shape::Map(inner), Value::Object(map)) if !matches!(**inner, Shape::Scalar(_)) => {
            map.iter_mut().for_each(|(_, item)| below(inner, item));
        }
        _ => {}
    }
}

/// Hangs the defaults on the types they belong to.
pub fn attach(structs: &mut [Struct]) {
    // The table is part of the binary: a build with a broken one fails every test.
    let mut constants: FxHashMap<String, Map<String, Value>> =
        serde_json::from_str(include_str!("../../data/defaults.json")).unwrap_or_default();
    let computed: FxHashMap<&str, Compute> = core::COMPUTED
        .iter()
        .chain(workloads::COMPUTED)
        .chain(batch::COMPUTED)
        .chain(devices::COMPUTED)
        .copied()
        .collect();
    for shape in structs {
        if let Some(values) = constants.remove(&shape.name) {
            shape.defaults = values.into_iter().collect();
        }
        shape.compute = shape
            .name
            .strip_prefix("io.k8s.api.")
            .and_then(|name| computed.get(name))
            .copied();
    }
}

/// Sets a field that nobody gave.
fn set(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), value.into());
    }
}

fn text<'a>(map: &'a Map<String, Value>, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{decode, resource::builtin_resources, shape};

    #[test]
    fn every_row_of_the_table_names_a_type_and_its_fields() {
        let rows: FxHashMap<String, Map<String, Value>> =
            serde_json::from_str(include_str!("../../data/defaults.json")).expect("table");
        for (name, fields) in rows {
            let shape = shape::by_name(&name).expect(&name).get();
            for field in fields.keys() {
                assert!(shape.field(field).is_some(), "{name}.{field}");
            }
        }
        for (name, _) in core::COMPUTED
            .iter()
            .chain(workloads::COMPUTED)
            .chain(batch::COMPUTED)
            .chain(devices::COMPUTED)
        {
            assert!(
                shape::by_name(&format!("io.k8s.api.{name}")).is_some(),
                "{name}"
            );
        }
    }

    fn defaulted(kind: &str, body: Value) -> Value {
        let resource = builtin_resources()
            .iter()
            .find(|r| r.kind == kind)
            .expect("built in");
        let bytes = serde_json::to_vec(&body).expect("json");
        let mut object = decode::decode(
            resource,
            &bytes,
            decode::Format::Json,
            decode::FieldValidation::Strict,
        )
        .expect("decodes")
        .object;
        apply(resource, &mut object, None);
        object
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.25", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            (
                "nginx@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "IfNotPresent",
            ),
        ] {
            let pod = defaulted(
                "Pod",
                json!({"spec": {"containers": [{"name": "c", "image": image}]}}),
            );
            assert_eq!(
                pod["spec"]["containers"][0]["imagePullPolicy"], policy,
                "{image}"
            );
        }
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let body = json!({"metadata": {"name": "x"}, "spec": {
            "ports": [{"port": 80}], "type": "LoadBalancer"}});
        let once = defaulted("Service", body);
        let resource = builtin_resources()
            .iter()
            .find(|r| r.kind == "Service")
            .expect("service");
        let mut twice = once.clone();
        apply(resource, &mut twice, None);
        assert_eq!(once, twice);
    }
}
