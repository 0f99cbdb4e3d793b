//! TokenRequests: tokens of ServiceAccounts for a time, bound to an audience and to an object.

use bytes::Bytes;
use gantry_machinery::status::{Cause, Details, Failure};
use gantry_store::Key;
use serde_json::{Value, json};

use super::{input, pods};
use crate::{
    admission::{asking::ask, attributes::Operation},
    api::Cx,
    authn::accounts::{Bound, Wanted},
    errors, object,
    respond::{self, Reply},
    rules,
};

const MOST: i64 = 1 << 32;
const GROUP: &str = "authentication.k8s.io";

pub async fn create(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    input::options(cx, "CreateOptions")?;
    let mut request = input::plain(cx, &body)?;
    input::of_kind(&request, "TokenRequest", &["authentication.k8s.io/v1"])?;
    ask(cx, Operation::Create, "token", &mut request).await?;
    crate::admission::token(cx, &request)?;
    let name = cx.target.name.clone();
    let namespace = cx.target.namespace.clone();
    let stored = cx
        .store()
        .get(&cx.key(&name))
        .ok_or_else(|| cx.not_found())?;
    let account = object::parse(&stored.value)?;
    let given = object::name(&request);
    if !given.is_empty() && given != name {
        return Err(invalid(
            &name,
            "metadata.name",
            format!("Invalid value: {given:?}: must match the service account name if specified"),
        ));
    }
    let there = object::meta_text(&request, "namespace");
    if !there.is_empty() && there != namespace {
        return Err(errors::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let uid = object::meta_text(&account, "uid").to_owned();
    let wanted_uid = object::meta_text(&request, "uid");
    if !wanted_uid.is_empty() && wanted_uid != uid {
        let why = format!(
            "the UID in the token request ({wanted_uid}) does not match the UID of the service account ({uid})"
        );
        return Err(conflict("TokenRequest", GROUP, &name, &why));
    }
    let mut seconds = request
        .pointer("/spec/expirationSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(3600);
    let wrong = match seconds {
        s if s < 600 => Some("may not specify a duration less than 10 minutes"),
        s if s > MOST => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        let message = format!("Invalid value: {seconds}: {wrong}");
        return Err(invalid("", "spec.expirationSeconds", message));
    }
    let reference = request
        .pointer("/spec/boundObjectRef")
        .filter(|r| !r.is_null());
    let mut audiences = object::strings(request.pointer("/spec/audiences"));
    // Who set what is looked at before anything is filled in but defaults.
    let mut tracked = json!({"spec": {"expirationSeconds": seconds}});
    if !audiences.is_empty() {
        tracked["spec"]["audiences"] = audiences.clone().into();
    }
    if let Some(reference) = reference {
        tracked["spec"]["boundObjectRef"] = reference.clone();
    }
    let manager = cx.manager();
    rules::track_token(cx, &mut tracked, &manager)?;
    let bound = match reference {
        Some(reference) => Some(bound(cx, reference)?),
        None => None,
    };
    let accounts = &cx.api.authenticator.accounts;
    if audiences.is_empty() {
        audiences.clone_from(&accounts.audiences);
    }
    if let Some(longest) = accounts.longest.filter(|longest| seconds > *longest) {
        cx.warnings.push(format!(
            "requested expiration of {seconds} seconds shortened to {longest} seconds"
        ));
        seconds = longest;
    }
    let issued = cx
        .api
        .authenticator
        .accounts
        .issue(&Wanted {
            namespace: &namespace,
            name: &name,
            uid: &uid,
            audiences: &audiences,
            issued: cx.now.as_second(),
            seconds,
            bound: bound.as_ref(),
        })
        .ok_or_else(|| errors::internal("signing the token"))?;
    tracing::debug!(account = %format_args!("{namespace}/{name}"), id = issued.id, "issued a token");
    let ends = cx.now + jiff::SignedDuration::from_secs(seconds);
    let mut meta = pods::identity(&account, &["name", "namespace", "uid"]);
    meta.insert("creationTimestamp".to_owned(), object::time(cx.now).into());
    if let Some(fields) = object::remove_meta(&mut tracked, "managedFields") {
        meta.insert("managedFields".to_owned(), fields);
    }
    let answer = json!({
        "kind": "TokenRequest", "apiVersion": format!("{GROUP}/v1"), "metadata": meta,
        "spec": {
            "audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": reference,
        },
        "status": {"token": issued.token, "expirationTimestamp": object::time(ends)},
    });
    respond::encoded(cx.output, 201, answer.to_string().into())
}

fn invalid(name: &str, field: &str, message: String) -> Failure {
    Failure::new(
        422,
        "Invalid",
        format!("TokenRequest.{GROUP} \"{name}\" is invalid: {field}: {message}"),
    )
    .with_details(Details {
        name: name.to_owned(),
        group: GROUP.to_owned(),
        kind: "TokenRequest".to_owned(),
        causes: vec![Cause {
            reason: "FieldValueInvalid".to_owned(),
            message,
            field: field.to_owned(),
        }],
        ..Details::default()
    })
}

/// 409 about an object of a kind, which stands where a resource does elsewhere.
fn conflict(kind: &str, group: &str, name: &str, why: &str) -> Failure {
    let dot = if group.is_empty() { "" } else { "." };
    Failure::new(
        409,
        "Conflict",
        format!("Operation cannot be fulfilled on {kind}{dot}{group} \"{name}\": {why}"),
    )
    .with_details(Details {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        ..Details::default()
    })
}

/// The object that a token is to live and die with.
fn bound(cx: &Cx, reference: &Value) -> Result<Bound, Failure> {
    let kind = object::text(reference, "/kind");
    let name = object::text(reference, "/name");
    let account = &cx.target.name;
    let plural = match (object::text(reference, "/apiVersion"), kind) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        ("v1", "Node") => "nodes",
        (api, _) => {
            let (group, version) = api.split_once('/').unwrap_or(("", api));
            return Err(errors::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let read = |plural: &str, full: String| -> Option<Value> {
        let stored = cx.store().get(&Key::new(format!("/{plural}"), full))?;
        serde_json::from_slice(&stored.value).ok()
    };
    let full = if kind == "Node" {
        name.to_owned()
    } else {
        format!("{}/{name}", cx.target.namespace)
    };
    let object = read(plural, full).ok_or_else(|| errors::not_found_named(plural, name))?;
    let mut node = None;
    if kind == "Pod" {
        if object::text(&object, "/spec/serviceAccountName") != account {
            return Err(errors::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        let on = object::text(&object, "/spec/nodeName");
        if !on.is_empty() {
            let there = read("nodes", on.to_owned());
            let uid = there.map(|n| object::meta_text(&n, "uid").to_owned());
            node = Some((on.to_owned(), uid.unwrap_or_default()));
        }
    }
    let uid = object::meta_text(&object, "uid");
    let wanted = object::text(reference, "/uid");
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(conflict(kind, "", name, &why));
    }
    Ok(Bound {
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        node,
    })
}
