//! Where the server calls Kubernetes' rules: one thin layer over `gantry-machinery`.

use gantry_machinery::{
    apply::{self, Manager, Operation},
    patch,
    resource::Resource,
    selector::{self, FieldOperator, LabelLookup},
    status::{Cause, Failure},
};
use serde_json::Value;

use crate::{api::Cx, errors};

pub enum Format {
    Json,
    Yaml,
}
#[derive(Clone, Copy)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

pub fn decode(
    resource: &Resource,
    body: &[u8],
    format: Format,
    _v: FieldValidation,
) -> Result<Decoded, Failure> {
    let mut object: Value = match format {
        Format::Json => {
            serde_json::from_slice(body).map_err(|e| errors::bad_request(e.to_string()))?
        }
        Format::Yaml => {
            serde_saphyr::from_slice(body).map_err(|e| errors::bad_request(e.to_string()))?
        }
    };
    object["kind"] = resource.kind.clone().into();
    object["apiVersion"] = resource.api_version().into();
    Ok(Decoded {
        object,
        warnings: vec![],
    })
}
pub fn decode_apply(
    resource: &Resource,
    body: &[u8],
    v: FieldValidation,
) -> Result<Decoded, Failure> {
    decode(resource, body, Format::Yaml, v)
}
pub fn normalize(
    _r: &Resource,
    _o: &mut Value,
    _v: FieldValidation,
) -> Result<Vec<String>, Failure> {
    Ok(vec![])
}
pub fn default(_r: &Resource, _o: &mut Value, _old: Option<&Value>) {}
pub fn validate_create(_cx: &Cx, _r: &Resource, _o: &Value) -> Vec<Cause> {
    vec![]
}
pub fn validate_update(
    _cx: &Cx,
    _r: &Resource,
    _sub: Option<&str>,
    _n: &Value,
    _o: &Value,
) -> Vec<Cause> {
    vec![]
}
pub fn invalid(r: &Resource, name: &str, _c: Vec<Cause>) -> Failure {
    errors::already_exists(r, name)
}
fn manager<'a>(
    cx: &Cx,
    name: &'a str,
    operation: Operation,
    api_version: &'a str,
    subresource: Option<&'a str>,
) -> Manager<'a> {
    Manager {
        name,
        operation,
        api_version,
        subresource: subresource.unwrap_or_default(),
        time: cx.now,
    }
}

/// Records what an update changed as the manager's.
pub fn track(
    cx: &Cx,
    resource: &Resource,
    subresource: Option<&str>,
    old: Option<&Value>,
    new: &mut Value,
    name: &str,
) -> Result<(), Failure> {
    let version = resource.api_version();
    let reset = apply::reset_fields(resource, subresource);
    let manager = manager(cx, name, Operation::Update, &version, subresource);
    apply::track_update(resource.schema(), &reset, old, new, manager)
}

/// Server-side apply: the merged object with its ownership.
pub fn apply(
    cx: &Cx,
    resource: &Resource,
    subresource: Option<&str>,
    live: Option<&Value>,
    config: Value,
    name: &str,
    force: bool,
) -> Result<Value, Failure> {
    let version = resource.api_version();
    let reset = apply::reset_fields(resource, subresource);
    let manager = manager(cx, name, Operation::Apply, &version, subresource);
    apply::apply(resource.schema(), &reset, live, config, manager, force)
}

/// A write that changes nothing but the times of ownership is no write.
pub fn keep_times(old: &Value, new: &mut Value) {
    apply::keep_times(old, new);
}

pub fn patch_json(target: &Value, patch: &[u8]) -> Result<Value, Failure> {
    patch::json(target, patch)
}

pub fn patch_merge(target: Value, patch: Value) -> Value {
    patch::merge(target, patch)
}

pub fn patch_strategic(resource: &Resource, target: Value, patch: Value) -> Result<Value, Failure> {
    patch::strategic(resource.schema(), target, patch)
}

pub fn table(_r: &Resource, items: &[Value], _now: jiff::Timestamp) -> (Value, Vec<Value>) {
    (
        serde_json::json!([]),
        items.iter().map(|_| serde_json::json!([])).collect(),
    )
}
/// The selectable fields of a stored object, for its cached view.
pub fn selectable(storage: &Resource, object: &Value) -> Vec<(Box<str>, Box<str>)> {
    selector::selectable(storage, object)
        .map(|(path, value)| (path.into(), value.into()))
        .collect()
}

/// A label selector.
pub struct Labels(selector::Labels);

/// Labels that a closure looks up.
struct By<'a, F>(F, std::marker::PhantomData<&'a str>);

impl<'a, F: Fn(&str) -> Option<&'a str>> LabelLookup for By<'a, F> {
    fn label(&self, key: &str) -> Option<&str> {
        (self.0)(key)
    }
}

impl Labels {
    pub fn parse(text: &str) -> Result<Labels, Failure> {
        selector::Labels::parse(text).map(Labels)
    }

    pub fn from_label_selector(value: &Value) -> Result<Labels, Failure> {
        selector::Labels::from_label_selector(value).map(Labels)
    }

    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.matches(By(label, std::marker::PhantomData))
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A field selector, answered from cached values.
pub struct Fields(selector::Fields);

impl Fields {
    pub fn parse(text: &str) -> Result<Fields, Failure> {
        selector::Fields::parse(text).map(Fields)
    }

    pub fn check(&self, resource: &Resource) -> Result<(), Failure> {
        self.0.check(resource)
    }

    /// The one value that a field must have.
    pub fn exact(&self, path: &str) -> Option<&str> {
        let mut all = self.0.requirements().iter();
        all.find(|r| r.path == path && r.operator == FieldOperator::Equals)
            .map(|r| r.value.as_str())
    }

    /// `field` tells a stored object's value at a path; none is the empty text.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.requirements().iter().all(|r| {
            let value = match field(&r.path) {
                Some(value) => value,
                None => stored_path(&r.path)
                    .and_then(|p| field(&p))
                    .unwrap_or_default(),
            };
            (value == r.value) == (r.operator == FieldOperator::Equals)
        })
    }
}

/// Events of `events.k8s.io` are stored as core events, whose fields have other names.
fn stored_path(path: &str) -> Option<String> {
    if path == "reportingController" {
        return Some("reportingComponent".to_owned());
    }
    path.strip_prefix("regarding.")
        .map(|field| format!("involvedObject.{field}"))
}

pub fn custom_resources(_: &Value) -> Vec<Resource> {
    vec![]
}
pub fn openapi_index(_: &[(String, String)]) -> Value {
    Value::Null
}
