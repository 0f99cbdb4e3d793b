//! Bytes to object, as kube-apiserver decodes a request body: parse, check version and kind, take
//! the object through its Go type, report unknown and duplicate fields.

mod complaints;
mod embedded;
mod parse;
mod time;
mod typed;

use serde_json::{Map, Value, json};

use complaints::Complaints;
pub use complaints::{of_duplicates, of_json_patch, yaml_error, yaml_lines};
pub use parse::{Format, Parsed};
pub use time::{micro_time, time};

use crate::{
    crd,
    path::Path,
    protobuf,
    resource::{Resource, builtin_resources},
    shape,
    status::{Cause, Details, Failure},
};

/// The request's `fieldValidation`: what becomes of unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// An object ready for defaulting, and what to tell the client in `Warning` headers.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Parses a body of which nothing is known yet.
///
/// # Errors
/// 400 when the bytes are no JSON, YAML or protobuf.
pub fn parse(bytes: &[u8], format: Format) -> Result<Parsed, Failure> {
    let mut parsed = parse::parse_bytes(bytes, format).map_err(bad_request)?;
    if format == Format::Protobuf {
        like_json(&mut parsed.value).map_err(bad_request)?;
    }
    Ok(parsed)
}

fn parse_as(resource: &Resource, bytes: &[u8], format: Format) -> Result<Parsed, Failure> {
    let kind = &resource.kind;
    match format {
        Format::Json => parse::parse_bytes(bytes, format)
            .map_err(|e| unrecognized(kind, &format!("json parse error: {e}"), bytes)),
        Format::Yaml => {
            parse::parse_bytes(bytes, format).map_err(|e| unrecognized_as(kind, &e, bytes))
        }
        Format::Protobuf => parse_protobuf(resource, bytes),
    }
}

/// An object of the endpoint's kind; of any other just its version and kind, for
/// [`check_kind`] to refuse.
fn parse_protobuf(resource: &Resource, bytes: &[u8]) -> Result<Parsed, Failure> {
    let mut envelope = protobuf::envelope(bytes)
        .map_err(|e| unrecognized_as(&resource.kind, &e.to_string(), bytes))?;
    if envelope.api_version.is_empty() {
        envelope.api_version = resource.api_version();
    }
    if envelope.kind.is_empty() {
        envelope.kind.clone_from(&resource.kind);
    }
    let value = if envelope.kind == resource.kind && envelope.api_version == resource.api_version()
    {
        envelope.object().map_err(|e| {
            cannot_handle(resource, &resource.version, &resource.kind, &e.to_string())
        })?
    } else {
        json!({"apiVersion": envelope.api_version, "kind": envelope.kind})
    };
    Ok(Parsed {
        value,
        duplicates: Vec::new(),
    })
}

/// Takes an object from protobuf, where Go writes empty values out, to what it writes as JSON.
fn like_json(object: &mut Value) -> Result<(), String> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or("");
    let name = protobuf::type_name(text("apiVersion"), text("kind"));
    let Some(shape) = name.and_then(|name| shape::by_name(&name)) else {
        return Ok(());
    };
    let Value::Object(map) = object else {
        return Ok(());
    };
    let mut findings = typed::Findings::default();
    typed::object(shape.get(), map, &Path::ROOT, &mut findings).map_err(|abort| abort.0)?;
    findings.mismatch.map_or(Ok(()), Err)
}

fn unrecognized(kind: &str, error: &str, bytes: &[u8]) -> Failure {
    unrecognized_as(kind, &format!("couldn't get version/kind; {error}"), bytes)
}

fn unrecognized_as(kind: &str, error: &str, bytes: &[u8]) -> Failure {
    bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {error} ({})",
        summary(bytes)
    ))
}

fn bad_request(message: String) -> Failure {
    Failure::new(400, "BadRequest", message)
}

/// The beginning of a body: as text when it looks like JSON, else in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    const MOST: usize = 30;
    if bytes.is_empty() {
        return "<empty>".into();
    }
    let head = &bytes[..bytes.len().min(MOST)];
    let more = bytes.len() > MOST;
    if bytes[0] == b'{' {
        let text = String::from_utf8_lossy(head).into_owned();
        return if more { text + " ..." } else { text };
    }
    let hex: String = head.iter().map(|b| format!("{b:02x}")).collect();
    if more { hex + " ..." } else { hex }
}

/// The whole way from a body to an object that went through its type.
///
/// # Errors
/// 400 with Kubernetes' message: no JSON, YAML or protobuf, wrong version or kind, a value of the wrong
/// type, and under [`FieldValidation::Strict`] unknown and duplicate fields.
pub fn decode(
    resource: &Resource,
    bytes: &[u8],
    format: Format,
    validation: FieldValidation,
) -> Result<Decoded, Failure> {
    let parsed = parse_as(resource, bytes, format)?;
    let mut object = parsed.value;
    if object.is_null() {
        object = Value::Object(Map::new());
    }
    let Value::Object(map) = &mut object else {
        let found = match &object {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            _ => "number",
        };
        let error = format!(
            "json parse error: json: cannot unmarshal {found} into Go value of type {VERSION_KIND}"
        );
        return Err(unrecognized(&resource.kind, &error, bytes));
    };
    check_kind(resource, map)?;
    let refuse = |text: &str| cannot_handle(resource, &resource.version, &resource.kind, text);
    let mut findings = typed::Findings::default();
    round_trip(resource, map, &mut findings).map_err(|abort| refuse(&abort.0))?;
    if let Some(mismatch) = findings.mismatch {
        return Err(refuse(&mismatch));
    }
    if resource.custom.is_some() {
        findings
            .unknown
            .extend(crd::prune(resource.schema(), &mut object));
        if let Some(why) = embedded::misfit(resource.schema(), &object, &Path::ROOT) {
            return Err(refuse(&why));
        }
    }
    let complaints = match validation {
        FieldValidation::Ignore => Complaints::default(),
        _ => {
            let typed = resource.custom.is_none();
            Complaints::of(bytes, format, &parsed.duplicates, &findings.unknown, typed)
        }
    };
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        return Err(refuse(&complaints.refusal()));
    }
    Ok(Decoded {
        object,
        warnings: complaints.warnings(),
    })
}

/// The Go type that the version and kind are read into first.
const VERSION_KIND: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

fn cannot_handle(resource: &Resource, version: &str, kind: &str, text: &str) -> Failure {
    bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {}: {text}",
        resource.kind
    ))
}

/// Version and kind as given must be the endpoint's; where none is given they are filled in.
fn check_kind(resource: &Resource, map: &mut Map<String, Value>) -> Result<(), Failure> {
    let api_version = resource.api_version();
    let given = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (given("apiVersion"), given("kind"));
    if (version.is_empty() || version == api_version) && (kind.is_empty() || kind == resource.kind)
    {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), resource.kind.clone().into());
        return Ok(());
    }
    if resource.custom.is_some() {
        return Err(another_custom_kind(resource, map));
    }
    let (group, short) = match version.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", version),
    };
    let (group, short) = if version.is_empty() {
        (resource.group.as_str(), resource.version.as_str())
    } else {
        (group, short)
    };
    let kind = if kind.is_empty() {
        &resource.kind
    } else {
        kind
    };
    let known = builtin_resources()
        .iter()
        .any(|r| r.group == group && r.version == short && r.kind == kind);
    let error = if known {
        format!(
            "converting ({short}.{kind}) to ({}.{}): unknown conversion",
            internal_package(&resource.group),
            resource.kind
        )
    } else if group.is_empty() {
        format!("no kind \"{kind}\" is registered for version \"{short}\" in scheme {SCHEME}")
    } else {
        format!(
            "no kind \"{kind}\" is registered for version \"{group}/{short}\" in scheme {SCHEME}"
        )
    };
    Err(cannot_handle(resource, short, kind, &error))
}

/// A custom resource is read as what it says it is, and found to be something else afterwards.
fn another_custom_kind(resource: &Resource, map: &Map<String, Value>) -> Failure {
    let given = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (given("apiVersion"), given("kind"));
    let expected = resource.api_version();
    if !version.is_empty() && version != expected {
        return bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        ));
    }
    let name = map
        .get("metadata")
        .and_then(|m| m.get("name")?.as_str())
        .unwrap_or("");
    let message = format!("Invalid value: {kind:?}: must be {}", resource.kind);
    let whole = format!(
        "{kind}.{} \"{name}\" is invalid: kind: {message}",
        resource.group
    );
    Failure::new(422, "Invalid", whole).with_details(Details {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: kind.to_owned(),
        causes: vec![Cause {
            reason: "FieldValueInvalid".to_owned(),
            message,
            field: "kind".to_owned(),
        }],
        ..Details::default()
    })
}

const SCHEME: &str = "\"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"";

/// The Go package of a group's internal types.
fn internal_package(group: &str) -> &str {
    match group {
        "" => "core",
        g => g.split('.').next().unwrap_or(g),
    }
}

/// Takes a tree that a patch produced through the same round trip as [`decode`].
///
/// # Errors
/// 400 as [`decode`] for values of the wrong type. Unknown fields are dropped: a caller that has to
/// report them uses [`normalize_reporting`].
pub fn normalize(resource: &Resource, object: &mut Value) -> Result<(), Failure> {
    normalize_reporting(resource, object).map(|_| ())
}

/// [`normalize`], returning the paths of the unknown fields it dropped.
///
/// # Errors
/// 400 for a value of the wrong type.
pub fn normalize_reporting(
    resource: &Resource,
    object: &mut Value,
) -> Result<Vec<String>, Failure> {
    let refuse = |text: &str| cannot_handle(resource, &resource.version, &resource.kind, text);
    let Value::Object(map) = object else {
        return Err(refuse("json: cannot unmarshal into an object"));
    };
    let mut findings = typed::Findings::default();
    round_trip(resource, map, &mut findings).map_err(|abort| refuse(&abort.0))?;
    if let Some(mismatch) = findings.mismatch {
        return Err(refuse(&mismatch));
    }
    if resource.custom.is_some() {
        findings
            .unknown
            .extend(crd::prune(resource.schema(), object));
        if let Some(why) = embedded::misfit(resource.schema(), object, &Path::ROOT) {
            return Err(refuse(&why));
        }
    }
    Ok(findings.unknown)
}

fn round_trip(
    resource: &Resource,
    map: &mut Map<String, Value>,
    findings: &mut typed::Findings,
) -> Result<(), typed::Abort> {
    if let Some(shape) = shape::of(&resource.schema) {
        typed::object(shape.get(), map, &Path::ROOT, findings)?;
        if resource.kind == "Secret" && resource.group.is_empty() {
            encode_string_data(map);
        }
        return Ok(());
    }
    // Custom resources keep their nulls and empty values; only the metadata has a Go type.
    if let (Some(meta), Some(value)) = (shape::object_meta(), map.get_mut("metadata")) {
        match value {
            Value::Object(metadata) => {
                let path = Path::new("metadata");
                typed::object(meta.get(), metadata, &path, findings)?;
            }
            Value::Null => *value = Value::Object(Map::new()),
            _ => {
                findings.mismatch = Some(
                    "json: cannot unmarshal into Go struct field .metadata of type v1.ObjectMeta"
                        .into(),
                );
            }
        }
    }
    Ok(())
}

/// `stringData` is a way to write only: it ends up in `data`, over what stood there.
fn encode_string_data(map: &mut Map<String, Value>) {
    use base64::Engine;
    let Some(Value::Object(strings)) = map.remove("stringData") else {
        return;
    };
    let data = map
        .entry("data")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(data) = data {
        for (key, value) in strings {
            let text = value.as_str().unwrap_or("");
            let encoded = base64::engine::general_purpose::STANDARD.encode(text);
            data.insert(key, encoded.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_all_fields_in_order() {
        let text = br#"{"b": {"x": 1, "x": 2}, "a": [{"y": 3}]}"#;
        let keys = parse::keys(text, Format::Json);
        assert_eq!(keys, ["b", "b.x", "b.x", "a", "a[0].y"]);
    }
}
