//! Bodies and options of writing requests.

use bytes::Bytes;
use gantry_machinery::{
    protobuf,
    resource::Resource,
    status::{Cause, Details, Failure},
};
use http::header;
use serde_json::Value;

use crate::{
    api::Cx,
    errors, object,
    respond::OFFERED,
    rules::{self, FieldValidation, Format},
};

/// The media type of the body without its parameters; empty when none is given.
pub fn media_type(cx: &Cx) -> &str {
    cx.headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .unwrap_or_default()
        .trim()
}

pub fn format(cx: &Cx) -> Result<Format, Failure> {
    match media_type(cx) {
        "" | "application/json" | "*/*" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        protobuf::MEDIA_TYPE if cx.resource().custom.is_none() => Ok(Format::Protobuf),
        _ if cx.resource().custom.is_some() => Err(errors::unsupported_media(
            "application/json, application/yaml",
        )),
        _ => Err(errors::unsupported_media(OFFERED)),
    }
}

/// What to do about unknown fields: Kubernetes warns unless told otherwise.
pub fn field_validation(cx: &Cx) -> FieldValidation {
    match cx.query.text("fieldValidation") {
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        _ => FieldValidation::Warn,
    }
}

/// Decodes a body as an object of the resource; warnings go to the answer.
pub fn decode(cx: &mut Cx, resource: &Resource, body: &Bytes) -> Result<Value, Failure> {
    let decoded = rules::decode(resource, body, format(cx)?, field_validation(cx))?;
    cx.warnings.extend(decoded.warnings);
    Ok(decoded.object)
}

/// A body of another type than the resource's, such as a Binding: just its JSON.
pub fn plain(cx: &Cx, body: &Bytes) -> Result<Value, Failure> {
    match format(cx)? {
        Format::Json => serde_json::from_slice(body).map_err(malformed),
        Format::Yaml => {
            serde_saphyr::from_slice(body).map_err(|e| errors::bad_request(format!("yaml: {e}")))
        }
        Format::Protobuf => rules::parse(body, Format::Protobuf),
    }
}

/// Refuses what says that it is of another kind, or of a version that there is not. Saying neither is allowed.
pub fn of_kind(value: &Value, kind: &str, versions: &[&str]) -> Result<(), Failure> {
    let (given, version) = (
        object::text(value, "/kind"),
        object::text(value, "/apiVersion"),
    );
    let fits = |given: &str, known: bool| given.is_empty() || known;
    if fits(given, given == kind) && fits(version, versions.contains(&version)) {
        return Ok(());
    }
    let given = if given.is_empty() { kind } else { given };
    let version = if version.is_empty() {
        versions[0]
    } else {
        version
    };
    Err(errors::bad_request(format!(
        "no kind {given:?} is registered for version {version:?} here: what is expected is a {kind} of {}",
        versions.join(" or ")
    )))
}

pub fn malformed(e: serde_json::Error) -> Failure {
    let what = if e.is_eof() {
        "unexpected end of JSON input".to_owned()
    } else {
        e.to_string()
    };
    errors::bad_request(format!(
        "couldn't get version/kind; json parse error: {what}"
    ))
}

/// Checks the options that all writes share.
pub fn options(cx: &Cx, kind: &str) -> Result<(), Failure> {
    let mut causes = vec![];
    let mut add = |reason: &str, field: &str, message: String| {
        causes.push(Cause {
            reason: reason.to_owned(),
            message,
            field: field.to_owned(),
        });
    };
    let dry: Vec<&str> = cx.query.all("dryRun").filter(|v| !v.is_empty()).collect();
    if dry.iter().any(|v| *v != "All") {
        let given: Vec<String> = dry.iter().map(|v| format!("{v:?}")).collect();
        add(
            "FieldValueNotSupported",
            "dryRun",
            format!(
                "Unsupported value: [{}]: supported values: \"All\"",
                given.join(",")
            ),
        );
    }
    let manager = cx.query.text("fieldManager");
    if manager.chars().count() > 128 {
        add(
            "FieldValueTooLong",
            "fieldManager",
            "Too long: may not be more than 128 bytes".to_owned(),
        );
    }
    if let Some(bad) = manager.chars().find(|c| c.is_control()) {
        add(
            "FieldValueInvalid",
            "fieldManager",
            format!(
                "Invalid value: {manager:?}: should only contain printable characters, has {bad:?}"
            ),
        );
    }
    let validation = cx.query.text("fieldValidation");
    if !matches!(validation, "" | "Ignore" | "Warn" | "Strict") {
        add(
            "FieldValueNotSupported",
            "fieldValidation",
            format!(
                "Unsupported value: {validation:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
            ),
        );
    }
    refuse_options(kind, causes)
}

/// 422 about an options object with these causes, if any.
pub fn refuse_options(kind: &str, causes: Vec<Cause>) -> Result<(), Failure> {
    if causes.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect();
    let list = if let [one] = all.as_slice() {
        one.clone()
    } else {
        format!("[{}]", all.join(", "))
    };
    Err(Failure::new(
        422,
        "Invalid",
        format!("{kind}.meta.k8s.io \"\" is invalid: {list}"),
    )
    .with_details(Details {
        group: "meta.k8s.io".to_owned(),
        kind: kind.to_owned(),
        causes,
        ..Details::default()
    }))
}

/// Leaves of several owner references with one uid the first, and warns of the others.
pub fn unique_owners(cx: &mut Cx, object: &mut Value, mutated: bool) {
    let owners = object
        .pointer_mut("/metadata/ownerReferences")
        .and_then(Value::as_array_mut);
    let Some(owners) = owners.filter(|o| o.len() > 1) else {
        return;
    };
    let (mut seen, mut twice) = (vec![], vec![]);
    owners.retain(|owner| {
        let uid = object::text(owner, "/uid").to_owned();
        if seen.contains(&uid) {
            twice.push(uid);
            return false;
        }
        seen.push(uid);
        true
    });
    if !twice.is_empty() {
        let after = match mutated {
            true => " after mutating admission happens",
            false => "",
        };
        cx.warnings.push(format!(
            ".metadata.ownerReferences contains duplicate entries{after}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

/// Sets the namespace of a namespaced object to that of the request, which it must not contradict.
pub fn place(cx: &Cx, object: &mut Value) -> Result<(), Failure> {
    check_place(cx, object)?;
    let given = object::meta_text(object, "namespace");
    if !cx.resource().namespaced() {
        if !given.is_empty() && cx.resource().custom.is_none() {
            object::remove_meta(object, "namespace");
        }
        return Ok(());
    }
    if given.is_empty() {
        object::set_meta(object, "namespace", cx.target.namespace.clone());
    }
    Ok(())
}

/// Refuses an object of another namespace than that of the request.
pub fn check_place(cx: &Cx, object: &Value) -> Result<(), Failure> {
    let given = object::meta_text(object, "namespace");
    if cx.resource().namespaced() && !given.is_empty() && given != cx.target.namespace {
        return Err(errors::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
