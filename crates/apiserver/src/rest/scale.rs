//! The scale subresource, of built-in workloads and of custom resources by their paths.

use bytes::Bytes;
use gantry_machinery::status::{Cause, Details, Failure};
use serde_json::{Value, json};

use super::{
    get as read, input, patch as patches, pods,
    update::{self, Change, Track},
};
use crate::{
    api::Cx,
    errors, object,
    respond::{self, Reply},
    rules::{self, Labels},
};

struct Paths {
    spec: String,
    status: String,
    selector: Option<String>,
}

fn paths(cx: &Cx) -> Paths {
    let pointer = |path: &str| path.replace('.', "/");
    match cx.resource().custom.as_ref().and_then(|c| c.scale.as_ref()) {
        Some(scale) => Paths {
            spec: pointer(&scale.spec_replicas),
            status: pointer(&scale.status_replicas),
            selector: scale.label_selector.as_deref().map(pointer),
        },
        None => Paths {
            spec: "/spec/replicas".to_owned(),
            status: "/status/replicas".to_owned(),
            selector: Some("/spec/selector".to_owned()),
        },
    }
}

/// The Scale of an object.
pub fn of(cx: &Cx, object: &Value) -> Value {
    let paths = paths(cx);
    let number = |p: &str| object.pointer(p).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({"replicas": number(&paths.status)});
    let selector = paths.selector.and_then(|p| object.pointer(&p).cloned());
    let selector = match selector {
        Some(Value::String(text)) => text,
        // A ReplicationController's selector is a plain map.
        Some(map) if cx.resource().kind == "ReplicationController" => {
            Labels::from_label_selector(&json!({"matchLabels": map}))
                .map(|l| l.to_string())
                .unwrap_or_default()
        }
        Some(map) => Labels::from_label_selector(&map)
            .map(|l| l.to_string())
            .unwrap_or_default(),
        None => String::new(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let meta = pods::identity(
        object,
        &[
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "creationTimestamp",
        ],
    );
    let replicas = number(&paths.spec);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) },
        "status": status,
    })
}

pub async fn get(cx: &mut Cx) -> Result<Reply, Failure> {
    let stored = cx
        .store()
        .get(&cx.key(&cx.target.name))
        .ok_or_else(|| cx.not_found())?;
    let object = object::parse(&read::bytes(&cx.api, &cx.entry, &stored).await?)?;
    respond::other_reply(cx, 200, of(cx, &object))
}

pub async fn update(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    input::options(cx, "UpdateOptions")?;
    let scale = input::plain(cx, &body)?;
    input::of_kind(&scale, "Scale", &["autoscaling/v1"])?;
    let given = object::name(&scale);
    if !given.is_empty() && given != cx.target.name {
        return Err(errors::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            cx.target.name
        )));
    }
    change(cx, Wish::Replace(scale)).await
}

pub async fn patch(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    let kind = patches::kind(cx)?;
    input::options(cx, "PatchOptions")?;
    patches::options(cx, kind)?;
    let wish = match kind {
        patches::Kind::Apply => Wish::Apply(rules::parse(&body, rules::Format::Yaml)?),
        patches::Kind::Json => Wish::Json(body),
        _ => Wish::Merge(serde_json::from_slice(&body).map_err(input::malformed)?),
    };
    change(cx, wish).await
}

/// What a request makes of a Scale.
enum Wish {
    Replace(Value),
    Json(Bytes),
    /// A merge patch; strategic ones are the same on a Scale, which has no lists.
    Merge(Value),
    Apply(Value),
}

impl Wish {
    /// The new Scale, with the ownership of its field.
    fn scale(&self, cx: &Cx, old: &Value) -> Result<Value, Failure> {
        let name = cx.manager();
        let mut new = match self {
            Wish::Apply(config) => {
                let force = cx.query.flag("force");
                return rules::apply_scale(cx, old, config.clone(), &name, force);
            }
            Wish::Replace(scale) => scale.clone(),
            Wish::Json(patch) => rules::patch_json(old, patch)?,
            Wish::Merge(patch) => rules::patch_merge(old.clone(), patch.clone()),
        };
        rules::track_scale(cx, old, &mut new, &name)?;
        Ok(new)
    }
}

async fn change(cx: &mut Cx, wish: Wish) -> Result<Reply, Failure> {
    let change = Change {
        subresource: "scale".to_owned(),
        // Through the Scale: what is owned there is carried over to the object.
        track: Track::Applied,
        given: None,
        retries: 16,
    };
    let whole = update::modify(cx, change, |cx, old| {
        let mut before = of(cx, old);
        rules::scale_ownership(cx, old, &mut before);
        let scale = wish.scale(cx, &before)?;
        let wanted = object::meta_text(&scale, "resourceVersion");
        if !wanted.is_empty() && wanted != object::meta_text(old, "resourceVersion") {
            return Err(errors::conflict(
                cx.resource(),
                &cx.target.name,
                errors::MODIFIED,
            ));
        }
        let mut new = old.clone();
        take(cx, &scale, &mut new)?;
        rules::take_over_scale(cx, &scale, &mut new);
        Ok(new)
    })
    .await?;
    let object = object::parse(&whole)?;
    respond::other_reply(cx, 200, of(cx, &object))
}

/// Sets in an object what its Scale says.
pub fn take(cx: &Cx, scale: &Value, object: &mut Value) -> Result<(), Failure> {
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            errors::bad_request(
                "json: cannot unmarshal value into Go struct field ScaleSpec.spec.replicas of type int32",
            )
        })?,
    };
    if replicas < 0 {
        return Err(negative(&cx.target.name, replicas));
    }
    set(object, &paths(cx).spec, replicas.into());
    Ok(())
}

fn negative(name: &str, replicas: i64) -> Failure {
    let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
    Failure::new(
        422,
        "Invalid",
        format!("Scale.autoscaling \"{name}\" is invalid: spec.replicas: {message}"),
    )
    .with_details(Details {
        name: name.to_owned(),
        group: "autoscaling".to_owned(),
        kind: "Scale".to_owned(),
        causes: vec![Cause {
            reason: "FieldValueInvalid".to_owned(),
            message,
            field: "spec.replicas".to_owned(),
        }],
        ..Details::default()
    })
}

/// Sets a value at a pointer, making the objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    let mut parts = pointer.split('/').filter(|p| !p.is_empty()).peekable();
    while let Some(part) = parts.next() {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(map) = at.as_object_mut() else {
            return;
        };
        if parts.peek().is_none() {
            map.insert(part.to_owned(), value);
            return;
        }
        at = map.entry(part).or_insert_with(|| json!({}));
    }
}
