//! Changing objects by patches: JSON, merge, strategic merge, server-side apply.

use bytes::Bytes;
use gantry_machinery::{
    apply::Versions,
    decode::{self, FieldValidation},
    status::{Details, Failure},
};
use serde_json::Value;

use super::{
    create::{self, Ownership},
    input,
    update::{self, Change, Track},
};
use crate::{
    api::Cx,
    authz::Attributes,
    errors, object,
    ownership::Elsewhere,
    respond::{self, Reply},
    rules,
    sealed::Reach,
};

/// How a patch is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

const ACCEPTED_CUSTOM: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

pub fn kind(cx: &Cx) -> Result<Kind, Failure> {
    let custom = cx.resource().custom.is_some();
    Ok(match input::media_type(cx) {
        "application/json-patch+json" => Kind::Json,
        "application/merge-patch+json" => Kind::Merge,
        "application/strategic-merge-patch+json" if !custom => Kind::Strategic,
        "application/apply-patch+yaml" => Kind::Apply,
        "application/strategic-merge-patch+json" => {
            return Err(errors::unsupported_media(ACCEPTED_CUSTOM));
        }
        _ if custom => {
            return Err(errors::unsupported_media(ACCEPTED_CUSTOM).with_details(Details::default()));
        }
        _ => return Err(errors::unrouted_content_type()),
    })
}

pub async fn patch(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    let kind = kind(cx)?;
    input::options(cx, "PatchOptions")?;
    options(cx, kind)?;
    let sub = cx.target.subresource.clone();
    if kind == Kind::Apply {
        return apply(cx, &body, &sub).await;
    }
    let resource = cx.resource().clone();
    let validation = input::field_validation(cx);
    let strict = validation != FieldValidation::Ignore;
    let (patch, amiss) = match kind {
        Kind::Json if strict => (Value::Null, decode::of_json_patch(&body)),
        Kind::Json => (Value::Null, vec![]),
        _ => {
            let parsed = read(&body)?;
            let duplicates = match strict {
                true => decode::of_duplicates(&parsed.duplicates),
                false => vec![],
            };
            (parsed.value, duplicates)
        }
    };
    if !matches!(kind, Kind::Json) && !patch.is_object() {
        let found = match patch {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            _ => "number",
        };
        return Err(errors::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    }
    let change = Change {
        subresource: sub,
        track: Track::Update,
        given: None,
        retries: 5,
    };
    let shown = (kind == Kind::Strategic).then_some(&patch);
    // Of a JSON patch it is not known without carrying it out.
    let keeps_spec = cx.target.subresource == "status"
        && kind != Kind::Json
        && resource.custom.is_none()
        && patch.get("spec").is_none();
    let reach = match keeps_spec && reports(&patch) {
        true => Reach::Status,
        false => Reach::Whole,
    };
    let whole = update::modify_within(cx, change, reach, |cx, old| {
        let made = || apply_to(&resource, kind, old, &patch, &body);
        let mut new = made()?;
        // What was stored has been through its type already.
        let spec = match keeps_spec {
            true => new.as_object_mut().and_then(|o| o.remove("spec")),
            false => None,
        };
        let warnings =
            rules::normalize_patched(&resource, old, &mut new, validation, shown, &amiss, made)?;
        if let (Some(spec), Some(object)) = (spec, new.as_object_mut()) {
            object.insert("spec".to_owned(), spec);
        }
        cx.warn(warnings);
        let (before, after) = (object::name(old), object::name(&new));
        if after.is_empty() {
            object::set_meta(&mut new, "name", before.to_owned());
        } else if before != after {
            return Err(errors::bad_request(format!(
                "the name of the object ({after}) does not match the name on the URL ({before})"
            )));
        }
        let (before, after) = (
            object::meta_text(old, "uid"),
            object::meta_text(&new, "uid").to_owned(),
        );
        if !after.is_empty() && before != after {
            let cause = gantry_machinery::status::Cause {
                reason: "FieldValueInvalid".to_owned(),
                message: format!("Invalid value: {after:?}: field is immutable"),
                field: "metadata.uid".to_owned(),
            };
            // Kubernetes checks, and says, it twice.
            return Err(rules::invalid(
                &resource,
                object::name(old),
                vec![cause.clone(), cause],
            ));
        }
        Ok(new)
    })
    .await?;
    respond::object_reply(cx, 200, whole)
}

/// Whether a patch changes a status and nothing beside: of the metadata it says only whose.
fn reports(patch: &Value) -> bool {
    let whose = |meta: &Value| {
        meta.as_object().is_some_and(|meta| {
            let known = ["name", "namespace", "resourceVersion", "uid"];
            meta.iter()
                .all(|(name, value)| known.contains(&name.as_str()) && value.is_string())
        })
    };
    patch.as_object().is_some_and(|members| {
        members.iter().all(|(name, value)| match name.as_str() {
            "metadata" => whose(value),
            name => name == "status",
        })
    })
}

/// One patch on one object.
pub fn apply_to(
    resource: &gantry_machinery::resource::Resource,
    kind: Kind,
    old: &Value,
    patch: &Value,
    body: &Bytes,
) -> Result<Value, Failure> {
    match kind {
        Kind::Json => rules::patch_json(old, body),
        Kind::Merge => Ok(rules::patch_merge(old.clone(), patch.clone())),
        Kind::Strategic | Kind::Apply => {
            rules::patch_strategic(resource, old.clone(), patch.clone())
        }
    }
}

/// A patch that is an object, with the places of fields given twice.
fn read(body: &[u8]) -> Result<decode::Parsed, Failure> {
    rules::parse_noting(body, rules::Format::Json).map_err(|failure| {
        let read: Result<Value, _> = serde_json::from_slice(body);
        match read {
            Err(e) => malformed(&e, body),
            Ok(_) => failure,
        }
    })
}

fn malformed(e: &serde_json::Error, body: &[u8]) -> Failure {
    let what = if e.is_eof() {
        "unexpected end of JSON input".to_owned()
    } else {
        let at = body.iter().find(|b| !b.is_ascii_whitespace()).copied();
        match at {
            Some(b) if !matches!(b, b'{' | b'[' | b'"') => format!(
                "invalid character '{}' looking for beginning of value",
                b as char
            ),
            _ => e.to_string(),
        }
    };
    errors::bad_request(format!("error decoding patch: {what}"))
}

/// What may be said in the query of a patch of this kind.
pub fn options(cx: &Cx, kind: Kind) -> Result<(), Failure> {
    let mut causes = vec![];
    let mut add = |reason: &str, field: &str, message: &str| {
        causes.push(gantry_machinery::status::Cause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        });
    };
    if kind == Kind::Apply {
        if cx.query.text("fieldManager").is_empty() {
            add(
                "FieldValueRequired",
                "fieldManager",
                "Required value: is required for apply patch",
            );
        }
    } else if cx.query.get("force").is_some() {
        add(
            "FieldValueForbidden",
            "force",
            "Forbidden: may not be specified for non-apply patch",
        );
    }
    input::refuse_options("PatchOptions", causes)
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(holds_null),
        Value::Object(members) => members.values().any(holds_null),
        _ => false,
    }
}

async fn apply(cx: &mut Cx, body: &Bytes, sub: &str) -> Result<Reply, Failure> {
    let resource = cx.resource().clone();
    let parsed = rules::parse_noting(body, rules::Format::Yaml)?;
    let validation = input::field_validation(cx);
    if !parsed.duplicates.is_empty() && validation != FieldValidation::Ignore {
        let lines = decode::yaml_lines(body);
        if validation == FieldValidation::Strict {
            return Err(errors::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: {}",
                decode::yaml_error(&lines)
            )));
        }
        cx.warn(lines);
    }
    let mut config = parsed.value;
    if !config.is_object() {
        return Err(errors::bad_request(
            "error decoding YAML: the patch must be an object",
        ));
    }
    let nulls = holds_null(&config);
    let name = cx.target.name.clone();
    match object::name(&config) {
        "" => object::set_meta(&mut config, "name", name.clone()),
        given if given != name => {
            return Err(errors::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        _ => {}
    }
    // The namespace is filled in when the object is created: messages show what was sent.
    input::check_place(cx, &config)?;
    let manager = cx.manager();
    let force = cx.query.flag("force");
    let subresource = (!sub.is_empty()).then_some(sub);
    for _ in 0..2 {
        if cx.store().get(&cx.key(&name)).is_none() {
            if !sub.is_empty() {
                return Err(cx.not_found());
            }
            let a = Attributes {
                verb: "create",
                group: &resource.group,
                resource: &resource.plural,
                subresource: "",
                namespace: &cx.target.namespace,
                name: &name,
                ..Attributes::default()
            };
            cx.demand(&a)?;
            let uid = object::meta_text(&config, "uid");
            if !uid.is_empty() {
                return Err(errors::conflict(
                    &resource,
                    &name,
                    &format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    ),
                ));
            }
            if !object::meta_text(&config, "resourceVersion").is_empty() {
                return Err(cx.not_found());
            }
            let mut object = rules::apply(
                cx,
                &resource,
                None,
                None,
                None,
                config.clone(),
                &manager,
                force,
            )?;
            rules::normalize(&resource, &mut object)?;
            if nulls {
                rules::refuse_nulls(&resource, &name, &object)?;
            }
            match create::object_of(cx, object, Ownership::Applied).await {
                Ok(whole) => return respond::object_reply(cx, 201, whole),
                // Somebody else created it meanwhile: apply to that.
                Err(failure) if failure.reason == "AlreadyExists" && !cx.dry_run() => continue,
                Err(failure) => return Err(failure),
            }
        }
        break;
    }
    let given = object::meta_text(&config, "resourceVersion").to_owned();
    object::remove_meta(&mut config, "resourceVersion");
    let change = Change {
        subresource: sub.to_owned(),
        track: Track::Applied,
        given: None,
        retries: 5,
    };
    let whole = update::modify(cx, change, |cx, old| {
        if !given.is_empty() && given != object::meta_text(old, "resourceVersion") {
            return Err(errors::conflict(
                cx.resource(),
                &cx.target.name,
                errors::MODIFIED,
            ));
        }
        let resource = cx.resource().clone();
        let others = Elsewhere::of(cx, subresource, [old]);
        let mut merged = rules::apply(
            cx,
            &resource,
            subresource,
            others.as_ref().map(|o| o as &dyn Versions),
            Some(old),
            config.clone(),
            &manager,
            force,
        )?;
        rules::normalize(&resource, &mut merged)?;
        if nulls {
            rules::refuse_nulls(&resource, &cx.target.name, &merged)?;
        }
        Ok(merged)
    })
    .await?;
    respond::object_reply(cx, 200, whole)
}
