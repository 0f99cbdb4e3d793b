//! TokenRequests: short-lived tokens of ServiceAccounts.

use bytes::Bytes;
use gantry_machinery::status::{Cause, Details, Failure};
use gantry_store::Key;
use serde_json::{Value, json};

use super::{input, pods};
use crate::{
    admission::{asking::ask, attributes::Operation},
    api::Cx,
    authn::Bound,
    errors, object,
    respond::{self, Reply},
};

const MOST: i64 = 1 << 32;

pub async fn create(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    let mut request = input::plain(cx, &body)?;
    ask(cx, Operation::Create, "token", &mut request).await?;
    let stored = cx
        .store()
        .get(&cx.key(&cx.target.name))
        .ok_or_else(|| cx.not_found())?;
    let account = object::parse(&stored.value)?;
    let seconds = request
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
        return Err(Failure::new(
            422,
            "Invalid",
            format!("TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: {message}"),
        )
        .with_details(Details {
            group: "authentication.k8s.io".to_owned(),
            kind: "TokenRequest".to_owned(),
            causes: vec![Cause {
                reason: "FieldValueInvalid".to_owned(),
                message,
                field: "spec.expirationSeconds".to_owned(),
            }],
            ..Details::default()
        }));
    }
    let bound = match request.pointer("/spec/boundObjectRef") {
        Some(reference) if !reference.is_null() => Some(bound(cx, reference)?),
        _ => None,
    };
    let mut audiences = object::strings(request.pointer("/spec/audiences"));
    if audiences.is_empty() {
        audiences.push(cx.api.authenticator.issuer.clone());
    }
    let now = cx.now.as_second();
    let token = cx
        .api
        .authenticator
        .issue(
            &cx.target.namespace,
            &cx.target.name,
            object::meta_text(&account, "uid"),
            &audiences,
            now,
            now + seconds,
            bound.as_ref(),
        )
        .ok_or_else(|| errors::internal("signing the token"))?;
    let ends = cx.now + jiff::SignedDuration::from_secs(seconds);
    let mut meta = pods::identity(&account, &["name", "namespace", "uid"]);
    meta.insert("creationTimestamp".to_owned(), object::time(cx.now).into());
    let reference = request
        .pointer("/spec/boundObjectRef")
        .cloned()
        .unwrap_or_default();
    let answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": meta,
        "spec": {
            "audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": reference,
        },
        "status": {"token": token, "expirationTimestamp": object::time(ends)},
    });
    respond::encoded(cx.output, 201, answer.to_string().into())
}

/// The object that a token is to live and die with.
fn bound(cx: &Cx, reference: &Value) -> Result<Bound, Failure> {
    let kind = object::text(reference, "/kind");
    let name = object::text(reference, "/name");
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        _ => {
            let api = object::text(reference, "/apiVersion");
            let (group, version) = api.split_once('/').unwrap_or(("", api));
            return Err(errors::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let full = if kind == "Node" {
        name.to_owned()
    } else {
        format!("{}/{name}", cx.target.namespace)
    };
    let stored = cx
        .store()
        .get(&Key::new(format!("/{plural}"), full))
        .ok_or_else(|| errors::not_found_named(plural, name))?;
    let object = object::parse(&stored.value)?;
    let uid = object::meta_text(&object, "uid");
    let wanted = object::text(reference, "/uid");
    if !wanted.is_empty() && wanted != uid {
        return Err(Failure::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {plural} \"{name}\": the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        )
        .with_details(Details {
            name: name.to_owned(),
            kind: plural.to_owned(),
            ..Details::default()
        }));
    }
    Ok(Bound {
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    })
}
