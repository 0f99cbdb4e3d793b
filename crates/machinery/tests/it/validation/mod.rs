//! Objects of each built-in kind that Kubernetes refuses, and what it says of them; tables by kind.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

mod cluster;
mod devices;
mod kinds;
mod pods;
mod storage;

use gantry_machinery::{
    decode::{self, FieldValidation, Format},
    defaults,
    resource::{Resource, builtin_resources},
    status::Cause,
    validation::{self, Context},
};
use serde_json::{Value, json};

fn resource(api_version: &str, kind: &str) -> &'static Resource {
    builtin_resources()
        .iter()
        .find(|r| r.api_version() == api_version && r.kind == kind)
        .unwrap_or_else(|| panic!("{api_version} {kind}"))
}

/// As it stands before validation: through its type, with defaults.
fn prepared(object: &Value) -> (&'static Resource, Value) {
    let text = |name: &str| object[name].as_str().unwrap_or("");
    let resource = resource(text("apiVersion"), text("kind"));
    let mut object = object.clone();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "x".into();
    }
    if resource.namespaced() {
        object["metadata"]["namespace"] = "n".into();
    }
    let bytes = object.to_string();
    let decoded = decode::decode(
        resource,
        bytes.as_bytes(),
        Format::Json,
        FieldValidation::Strict,
    );
    let mut object = decoded.expect("an object of its kind").object;
    defaults::apply(resource, &mut object, None);
    (resource, object)
}

fn shown(causes: Vec<Cause>) -> Vec<String> {
    let one = |c: Cause| match c.field.as_str() {
        "" => c.message,
        field => format!("{field}: {}", c.message),
    };
    causes.into_iter().map(one).collect()
}

fn context<'a>(resource: &'a Resource, subresource: Option<&'a str>) -> Context<'a> {
    Context {
        resource,
        subresource,
        allow_privileged: true,
    }
}

/// The faults of an object about to be created.
fn created(object: &Value) -> Vec<String> {
    let (resource, object) = prepared(object);
    shown(validation::create(&context(resource, None), &object))
}

/// The faults of an object about to replace another.
fn updated(old: &Value, new: &Value, subresource: Option<&str>) -> Vec<String> {
    let (resource, old) = prepared(old);
    let (_, new) = prepared(new);
    let context = context(resource, subresource);
    shown(validation::update(&context, &new, &old))
}

/// `into` with the members of `changes`, at every depth; null removes.
fn with(mut into: Value, changes: Value) -> Value {
    fn merge(into: &mut Value, changes: Value) {
        match (into, changes) {
            (Value::Object(into), Value::Object(changes)) => {
                for (name, value) in changes {
                    if value.is_null() {
                        into.remove(&name);
                    } else {
                        merge(into.entry(name).or_insert(Value::Null), value);
                    }
                }
            }
            (into, changes) => *into = changes,
        }
    }
    merge(&mut into, changes);
    into
}

#[test]
fn members_are_merged() {
    let merged = with(
        json!({"a": {"b": 1, "c": 2}}),
        json!({"a": {"b": 3, "c": null}}),
    );
    assert_eq!(merged, json!({"a": {"b": 3}}));
}
